"""Receivers that misbehave: each as specified, and none at another's expense."""

import socket
import ssl
import subprocess
import time

import pytest

from sim_stack import AGENT, SimStack
from stack import Client, in_threads, until
from webhook_receiver import OPEN, RawReceiver, Receiver

SETTINGS = {**OPEN, "SANDPIPER_WEBHOOK_SCHEDULE": "100ms,100ms", "SANDPIPER_WEBHOOK_TIMEOUT": "1s",
            "SANDPIPER_WEBHOOK_PAUSE": "500ms", "SANDPIPER_WEBHOOK_DISABLE_AFTER": "3s"}


@pytest.fixture(scope="module")
def stack():
    s = SimStack(**SETTINGS)
    try:
        yield s.start()
    finally:
        s.stop()


@pytest.fixture
def client(stack):
    client.n = getattr(client, "n", 0) + 1
    c = Client(stack.gateways[0].port, stack.new_key(f"faults-{client.n}"))
    c.deploy(AGENT, {"agent.json": '{"runtime": "command", "entry": "cat"}'})
    return c


def endpoint(client, url, **more):
    a = client.call("POST", "/v1/webhooks", {"url": url, **more})
    assert a.status == 201, a.body
    return a.json["id"]


def log(client, id):
    return client.call("GET", f"/v1/webhooks/{id}/deliveries?limit=200").json["data"]


def last(client, id, outcome="failed"):
    """The whole log of one delivery that has come to its end, the oldest attempt first."""
    until(f"its outcome is {outcome}", lambda: any(a["outcome"] == outcome for a in log(client, id)), 20)
    return log(client, id)[::-1]


def answer(text):
    def behave(c):
        c.recv(65536)
        c.sendall(text)
        c.shutdown(socket.SHUT_WR)
        while c.recv(65536):
            pass
    return behave


def drip(c):
    c.recv(65536)
    c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        c.sendall(b"x")
        time.sleep(0.05)


def endless(c):
    c.recv(65536)
    c.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        c.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")


def endless_headers(c):
    c.recv(65536)
    c.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        c.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")


def dropped(c):
    c.recv(65536)
    c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of")


def reset(c):
    c.recv(10)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def hang(c):
    while c.recv(65536):
        pass


@pytest.mark.parametrize("behave,status,words", [
    (hang, None, "Timeout"), (drip, 200, "Timeout"), (dropped, 200, ""), (reset, None, ""),
    (endless_headers, None, ""), (answer(b"nonsense\r\n\r\n"), None, ""),
    (answer(b"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\nno!"), 500, ""),
    (answer(b"HTTP/1.1 100 Continue\r\n\r\n"), None, ""),
], ids=["hang", "drip", "dropped", "reset", "endless-headers", "no-http", "500", "only-100"])
def test_a_failure_is_tried_by_the_schedule_and_then_given_up(client, behave, status, words):
    r = RawReceiver(behave)
    id = endpoint(client, r.url())
    client.run(AGENT, "x")
    attempts = last(client, id)
    assert [a["outcome"] for a in attempts] == ["retrying", "retrying", "failed"]
    assert len({a["webhook_id"] for a in attempts}) == 1 and r.connections == 3
    for a in attempts:
        assert a["status"] == status or status is None, a
        assert (a["error"] is not None and words in a["error"]) or status == 500, a
        assert a["duration_ms"] < 1500
    r.close()


def test_an_endless_answer_is_cut_and_counts_by_its_status(client):
    r = RawReceiver(endless)
    id = endpoint(client, r.url())
    client.run(AGENT, "x")
    (a,) = last(client, id, "delivered")
    assert a["status"] == 200 and a["response"] == "x" * 1024 and a["duration_ms"] < 1000
    r.close()


def test_redirects_are_not_followed(client):
    honeypot = RawReceiver()
    for status in (301, 302, 303, 307, 308):
        r = Receiver(lambda got, s=status: (s, {"Location": honeypot.url("/latest/meta-data/")}, b""))
        id = endpoint(client, r.url())
        client.run(AGENT, "x")
        attempts = last(client, id)
        assert len(attempts) == 3 and all(a["status"] == status for a in attempts)
        assert "redirects" in attempts[0]["error"]
        client.call("DELETE", f"/v1/webhooks/{id}")
        r.close()
    assert honeypot.connections == 0
    honeypot.close()


def test_410_disables_and_says_so(stack, client):
    r = Receiver(lambda got: (410, {}, b"gone"))
    id = endpoint(client, r.url())
    client.run(AGENT, "x")
    e = until("it is disabled", lambda: (e := client.call("GET", f"/v1/webhooks/{id}").json)["status"] == "disabled" and e)
    assert "410" in e["disabled_reason"] and e["disabled_at"]
    client.run(AGENT, "nobody is told")
    until("the outbox is empty", lambda: stack.count("select count(*) from outbox") == 0)
    assert [a["outcome"] for a in log(client, id)] == ["gone"] and r.count() == 1
    assert any("webhook endpoint disabled" in d.text() for d in stack.dispatchers)
    r.close()


def test_prolonged_failure_disables_and_says_so(client):
    r = Receiver(lambda got: (500, {}, b""))
    id = endpoint(client, r.url())

    def disabled():
        client.run(AGENT, "x")
        e = client.call("GET", f"/v1/webhooks/{id}").json
        return e["status"] == "disabled" and e

    e = until("it is disabled", disabled, 30, 0.3)
    assert "too long" in e["disabled_reason"] and e["failing_since"] < e["disabled_at"]
    r.answer = lambda got: (200, {}, b"")
    assert client.call("POST", f"/v1/webhooks/{id}/enable").json["failing_since"] is None
    before = r.count()
    client.run(AGENT, "x")
    r.wait(before + 1)
    r.close()


def test_retry_after_is_honoured(client):
    """429 with Retry-After: not sooner than that, though the schedule says 100 ms."""
    r = Receiver(lambda got: (429, {"Retry-After": "2"}, b"") if r.count() == 1 else (200, {}, b""))
    id = endpoint(client, r.url())
    client.run(AGENT, "x")
    first, second = r.wait(2)
    assert second.at - first.at >= 2 and second.id == first.id
    assert [a["outcome"] for a in last(client, id, "delivered")] == ["retrying", "delivered"]
    r.close()


def test_a_certificate_of_somebody_else_is_refused(client, tmp_path):
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                    "/CN=somebody.else", "-days", "1", "-keyout", key, "-out", cert], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    read = []

    def behave(c):
        with context.wrap_socket(c, server_side=True) as s:
            read.append(s.recv(65536))

    r = RawReceiver(behave)
    id = endpoint(client, f"https://127.0.0.1:{r.port}/hook")
    client.run(AGENT, "x")
    attempts = last(client, id)
    assert len(attempts) == 3 and all("ertificate" in a["error"] or "SSL" in a["error"] for a in attempts), attempts
    assert not any(read)
    r.close()


def test_nobody_listens_and_no_such_name(client):
    closed = RawReceiver()
    closed.close()
    refused, nowhere = endpoint(client, closed.url()), endpoint(client, "http://no-such-host.example/")
    client.run(AGENT, "x")
    for id in (refused, nowhere):
        attempts = last(client, id)
        assert len(attempts) == 3 and all(a["status"] is None and a["error"] for a in attempts)


def test_a_hanging_receiver_delays_no_other(stack, client):
    """Hundreds wait for one that hangs; what is for another arrives while they do."""
    hanging = RawReceiver(hang)
    good = Receiver()
    bad_id, good_id = endpoint(client, hanging.url()), endpoint(client, good.url())
    in_threads([lambda i=i: client.run(AGENT, f"job {i}") for i in range(300)], 16)
    good.wait(300, 20)
    assert stack.count("select count(*) from outbox") > 200
    assert len(hanging.open) < 100
    other = Client(client.port, stack.new_key("beside-hanging"))
    other.deploy(AGENT, {"agent.json": '{"runtime": "command", "entry": "cat"}'})
    quick = Receiver()
    endpoint(other, quick.url())
    r = other.submit(AGENT, "x", wait=30)
    quick.wait(1, 10)
    assert r.status == 200 and len({g.id for g in good.got}) == 300
    assert client.call("DELETE", f"/v1/webhooks/{bad_id}").status == 204
    assert client.call("GET", f"/v1/webhooks/{good_id}").json["failing_since"] is None
    for x in (hanging, good, quick):
        x.close()


def test_the_breaker_opens_and_a_probe_closes_it(stack, client):
    down = {"is": True}
    r = Receiver(lambda got: (503, {}, b"") if down["is"] else (200, {}, b""))
    id = endpoint(client, r.url())
    in_threads([lambda i=i: client.run(AGENT, f"job {i}") for i in range(60)], 16)
    until("it is left alone", lambda: any("left alone" in d.text() for d in stack.dispatchers))
    until("rows are parked", lambda: stack.count("select count(*) from outbox where parked") > 0)
    seen = r.count()
    down["is"] = False
    until("what was parked is delivered", lambda: stack.count("select count(*) from outbox") == 0, 30)
    assert r.count() > seen
    outcomes = {}
    for a in log(client, id):
        outcomes.setdefault(a["webhook_id"], set()).add(a["outcome"])
    assert sum("delivered" in o for o in outcomes.values()) >= 40
    r.close()


def test_the_dispatchers_stop_gives_rows_back_at_once(stack, client):
    hanging = RawReceiver(hang)
    endpoint(client, hanging.url())
    in_threads([lambda i=i: client.run(AGENT, f"job {i}") for i in range(20)], 8)
    until("some are under way", lambda: hanging.connections > 0)
    began = time.monotonic()
    assert stack.dispatchers[0].stop(20) == 0
    assert time.monotonic() - began < 10
    assert stack.count("select count(*) from outbox where not parked and owner is not null and due_at > now() + "
                       "interval '1 minute'") == 0
    stack.dispatchers[0] = stack.add_dispatcher()
    stack.dispatchers.pop()
    hanging.close()


def test_more_receivers_than_places(stack):
    """With few places and few rows in hand, many receivers are served all the same, and none waits for the next look."""
    small = stack.add_dispatcher(SANDPIPER_WEBHOOK_CONCURRENCY="4", SANDPIPER_WEBHOOK_ENDPOINT_CONCURRENCY="2")
    big = stack.dispatchers[0]
    big.stop()
    client = Client(stack.gateways[0].port, stack.new_key("many-receivers"))
    client.deploy(AGENT, {"agent.json": '{"runtime": "command", "entry": "cat"}'})
    receivers = [Receiver() for _ in range(12)]
    for r in receivers:
        endpoint(client, r.url())
    in_threads([lambda i=i: client.run(AGENT, f"job {i}") for i in range(40)], 8)
    for r in receivers:
        got = r.wait(40, 60)
        assert len({g.id for g in got}) == 40
        r.close()
    until("the outbox is empty", lambda: stack.count("select count(*) from outbox") == 0)
    assert small.alive()
    stack.dispatchers[0] = big.start()
