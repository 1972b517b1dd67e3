"""Webhooks: every end of an invocation reaches whoever wants it, once, signed, whoever wrote the end."""

import json
import signal
import time

import pytest

from e2e_agents import make_stack
from stack import Client, in_threads, until
from webhook_receiver import OPEN, Receiver

# The schedule is the operator's to set; the breaker's pause, too.
QUICK = {**OPEN, "SANDPIPER_WEBHOOK_SCHEDULE": "100ms,200ms,300ms,400ms", "SANDPIPER_WEBHOOK_PAUSE": "300ms",
         "SANDPIPER_WEBHOOK_TIMEOUT": "2s"}


@pytest.fixture(scope="module")
def stack():
    s = make_stack(env=QUICK, dispatchers=2)
    yield s
    s.stop()


@pytest.fixture
def client(stack):
    """A tenant of its own for each test: endpoints are a tenant's."""
    client.n = getattr(client, "n", 0) + 1
    c = Client(stack.gateways[0].port, stack.new_key(f"t{client.n}-{int(time.time())}"))
    c.deploy("echo", {"agent.json": '{"runtime": "command", "entry": "cat"}', "README": "says what it hears"})
    return c


@pytest.fixture
def receiver():
    r = Receiver()
    yield r
    r.close()


def create(client, url, **more):
    a = client.call("POST", "/v1/webhooks", {"url": url, **more})
    assert a.status == 201, (a.status, a.body)
    return a.json


def attempts(client, endpoint, **query):
    q = "&".join(f"{k}={v}" for k, v in query.items())
    a = client.call("GET", f"/v1/webhooks/{endpoint['id']}/deliveries" + ("?" + q if q else ""))
    assert a.status == 200, (a.status, a.body)
    return a.json["data"]


def settled(stack):
    until("the outbox is empty", lambda: stack.count("select count(*) from outbox") == 0)


def test_an_end_reaches_the_endpoint_signed(stack, client, receiver):
    e = create(client, receiver.url("/here?x=1"), description="mine")
    assert e["secret"].startswith("whsec_") and e["status"] == "enabled" and e["events"] == ["*"]
    r = client.run("echo", "for the webhook", metadata={"a": [1, "é"]})
    got = receiver.wait(1)[0]
    assert got.path == "/here?x=1" and got.headers["Content-Type"] == "application/json"
    assert got.verify(e["secret"]) and "." not in got.id
    assert abs(int(got.headers["webhook-timestamp"]) - time.time()) < 60
    body = got.json
    assert list(body) == ["type", "timestamp", "data"]
    assert body["type"] == "invocation.succeeded" and body["timestamp"] == r["finished_at"]
    want = {k: v for k, v in r.items() if k not in ("prompt", "files")}
    assert body["data"] == want
    settled(stack)
    (a,) = attempts(client, e)
    assert a["webhook_id"] == got.id and a["outcome"] == "delivered" and a["status"] == 200 and a["attempt"] == 1
    assert a["response"] == "ok" and a["request"]["url"] == e["url"] and a["request"]["body_size"] == len(got.body)
    assert a["invocation_id"] == r["id"] and a["duration_ms"] >= 0 and a["error"] is None
    shown = client.call("GET", f"/v1/webhooks/{e['id']}").json
    assert "secret" not in shown and shown == {k: v for k, v in e.items() if k != "secret"}
    assert receiver.count() == 1


def test_a_large_output_stays_behind_its_url(client, receiver):
    create(client, receiver.url())
    r = client.run("echo", "x" * 9000)
    body = receiver.wait(1)[0].json
    assert body["data"]["output"] is None and body["data"]["output_size"] == 9000
    assert client.call("GET", body["data"]["output_url"]).body == b"x" * 9000
    assert r["output"] == "x" * 9000


def test_filters_choose_and_tenants_do_not_meet(stack, client, receiver):
    wants = create(client, receiver.url("/failed"), events=["invocation.failed", "batch.*"])
    assert wants["events"] == ["batch.*", "invocation.failed"]
    every = create(client, receiver.url("/all"), events=["invocation.*"])
    other = Client(client.port, stack.new_key("somebody-else"))
    create(other, receiver.url("/other"))
    client.deploy("fails", {"agent.json": '{"runtime": "command", "entry": "cat >/dev/null; exit 3"}', "README": ""})
    good, bad = client.run("echo", "fine"), client.run("fails", "not fine")
    got = receiver.wait(3)
    settled(stack)
    seen = sorted((g.path, g.json["type"], g.json["data"]["id"]) for g in receiver.got)
    assert seen == sorted([("/all", "invocation.succeeded", good["id"]), ("/all", "invocation.failed", bad["id"]),
                           ("/failed", "invocation.failed", bad["id"])])
    assert len({g.id for g in got}) == 3
    assert other.call("GET", f"/v1/webhooks/{every['id']}").status == 404
    assert other.call("DELETE", f"/v1/webhooks/{every['id']}").status == 404
    assert other.call("GET", f"/v1/webhooks/{every['id']}/deliveries").json["data"] == []
    assert len(client.call("GET", "/v1/webhooks").json["data"]) == 2


def test_every_way_to_end_is_told_once(stack, client, receiver):
    """Canceled while queued and while running, expired, timed out, failed, succeeded: whoever writes the end."""
    create(client, receiver.url())
    client.deploy("slow", {"agent.json": '{"runtime": "command", "entry": "sleep 30"}', "README": ""})
    running = client.submit("slow", "").json["id"]
    until("it runs", lambda: client.get(running)["status"] == "running")
    client.call("POST", f"/v1/invocations/{running}/cancel")
    late = client.submit("slow", "", timeout_s=1).json["id"]
    fine = client.submit("echo", "x").json["id"]
    want = {running: "canceled", late: "timed_out", fine: "succeeded"}
    stack.executors[0].stop()
    until("the executor is gone", lambda: not stack.executors[0].alive())
    queued = client.submit("echo", "never runs").json["id"]
    expired = client.submit("echo", "neither", queue_timeout_s=1).json["id"]
    client.call("POST", f"/v1/invocations/{queued}/cancel")
    want |= {queued: "canceled", expired: "expired"}
    client.end(expired)
    stack.executors.clear()
    stack.add_executor()
    for id, status in want.items():
        assert client.end(id)["status"] == status
    receiver.wait(len(want))
    settled(stack)
    assert sorted((g.json["data"]["id"], g.json["type"]) for g in receiver.got) == sorted(
        (id, f"invocation.{status}") for id, status in want.items())


def test_a_submissions_own_hook(stack, client, receiver):
    secret = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="
    a = client.submit("echo", "mine", webhook={"url": receiver.url("/own"), "secret": secret})
    assert a.status == 202 and "Sandpiper-Webhook-Secret" not in a.headers
    b = client.submit("echo", "made up", webhook={"url": receiver.url("/made")})
    made = b.headers["Sandpiper-Webhook-Secret"]
    got = {g.path: g for g in receiver.wait(2)}
    assert got["/own"].verify(secret) and got["/made"].verify(made) and not got["/made"].verify(secret)
    settled(stack)
    log = client.call("GET", f"/v1/invocations/{a.json['id']}/deliveries").json["data"]
    assert [x["outcome"] for x in log] == ["delivered"] and log[0]["webhook_id"] == got["/own"].id
    again = client.call("POST", f"/v1/invocations/{a.json['id']}/redeliver")
    assert again.status == 202 and again.json["webhook_id"] == got["/own"].id
    third = receiver.wait(3)[2]
    assert third.id == got["/own"].id and third.body == got["/own"].body and third.verify(secret)
    waited = client.submit("echo", "waits", wait=30, webhook={"url": receiver.url("/wait")})
    assert waited.status == 200 and waited.headers["Sandpiper-Webhook-Secret"].startswith("whsec_")
    keyed = [client.submit("echo", "k", idempotency_key="hooked", webhook={"url": receiver.url("/key")})
             for _ in range(2)]
    assert keyed[0].json["id"] == keyed[1].json["id"]
    assert keyed[0].headers["Sandpiper-Webhook-Secret"] and "Sandpiper-Webhook-Secret" not in keyed[1].headers
    receiver.wait(5)
    settled(stack)
    assert sum(g.path == "/key" for g in receiver.got) == 1


def test_a_failed_delivery_is_tried_by_the_schedule(stack, client):
    fails = {"left": 2}

    def answer(got):
        fails["left"] -= 1
        return (500, {}, b"not yet") if fails["left"] >= 0 else (204, {}, b"")

    r = Receiver(answer)
    e = create(client, r.url())
    client.run("echo", "again")
    got = r.wait(3)
    settled(stack)
    assert len({g.id for g in got}) == 1 and all(g.verify(e["secret"]) for g in got)
    assert len({g.body for g in got}) == 1
    log = attempts(client, e)
    assert [(a["attempt"], a["outcome"], a["status"]) for a in log] == [
        (3, "delivered", 204), (2, "retrying", 500), (1, "retrying", 500)]
    assert log[1]["response"] == "not yet" and log[1]["next_attempt_at"] > log[1]["attempted_at"]
    assert client.call("GET", f"/v1/webhooks/{e['id']}").json["failing_since"] is None
    r.close()


def test_after_the_last_attempt_it_is_given_up_and_can_be_redelivered(stack, client):
    r = Receiver(lambda got: (503, {}, b"down"))
    e = create(client, r.url())
    client.run("echo", "in vain")
    r.wait(5)
    settled(stack)
    log = attempts(client, e)
    assert [a["outcome"] for a in log] == ["failed"] + ["retrying"] * 4
    assert client.call("GET", f"/v1/webhooks/{e['id']}").json["failing_since"] is not None
    assert attempts(client, e, limit=2)[0] == log[0]
    r.answer = lambda got: (200, {}, b"up again")
    a = client.call("POST", f"/v1/webhooks/{e['id']}/redeliver", {"webhook_id": log[0]["webhook_id"]})
    assert a.status == 202, a.body
    assert r.wait(6)[5].id == log[0]["webhook_id"]
    settled(stack)
    assert client.call("GET", f"/v1/webhooks/{e['id']}").json["failing_since"] is None
    r.close()


def test_rotation_signs_with_both_secrets(stack, client, receiver):
    e = create(client, receiver.url())
    a = client.call("POST", f"/v1/webhooks/{e['id']}/rotate-secret", {"overlap_s": 60})
    assert a.status == 200 and a.json["secret"] != e["secret"] and a.json["previous_secret_expires_at"]
    client.run("echo", "twice signed")
    got = receiver.wait(1)[0]
    assert got.verify(e["secret"]) and got.verify(a.json["secret"])
    assert len(got.headers["webhook-signature"].split(" ")) == 2
    b = client.call("POST", f"/v1/webhooks/{e['id']}/rotate-secret", {"overlap_s": 0})
    client.run("echo", "once signed")
    got = receiver.wait(2)[1]
    assert got.verify(b.json["secret"]) and not got.verify(a.json["secret"]) and not got.verify(e["secret"])


def test_a_test_and_a_replay(stack, client, receiver):
    e = create(client, receiver.url(), events=["invocation.succeeded"])
    a = client.call("POST", f"/v1/webhooks/{e['id']}/test")
    assert a.status == 202
    got = receiver.wait(1)[0]
    assert got.id == a.json["webhook_id"] and got.json["type"] == "webhook.test" and got.verify(e["secret"])
    settled(stack)
    off = client.call("PATCH", f"/v1/webhooks/{e['id']}", {"enabled": False})
    assert off.json["status"] == "disabled" and off.json["disabled_reason"] == "by its owner"
    assert client.call("POST", f"/v1/webhooks/{e['id']}/test").status == 404
    missed = [client.run("echo", f"missed {i}")["id"] for i in range(3)]
    assert client.call("POST", f"/v1/webhooks/{e['id']}/enable").json["status"] == "enabled"
    kept = client.run("echo", "kept")["id"]
    receiver.wait(2)
    settled(stack)
    since = "2026-01-01T00:00:00Z"
    a = client.call("POST", f"/v1/webhooks/{e['id']}/replay", {"since": since})
    assert a.status == 400 and "14 days" in a.json["detail"]
    since = client.get(missed[0])["created_at"]
    a = client.call("POST", f"/v1/webhooks/{e['id']}/replay", {"since": since})
    assert a.status == 202 and a.json == {"queued": 3, "next_after": None}, a.body
    receiver.wait(5)
    settled(stack)
    assert sorted(g.json["data"]["id"] for g in receiver.got[2:]) == sorted(missed)
    a = client.call("POST", f"/v1/webhooks/{e['id']}/replay", {"since": since, "only": "all"})
    assert a.json["queued"] == 4
    receiver.wait(9)
    settled(stack)
    ids = [g.id for g in receiver.got if g.json["type"] != "webhook.test"]
    assert len(set(ids)) == 4 and len(ids) == 8 and kept in {g.json["data"]["id"] for g in receiver.got[5:]}


def test_what_is_wrong_is_said(stack, client):
    def refused(path, body, code, words, method="POST", status=400):
        a = client.call(method, path, body)
        assert (a.status, a.json["code"]) == (status, code) and words in a.json["detail"], (body, a.body)

    fine = "https://example.com/hook"
    refused("/v1/webhooks", {}, "missing_field", "url")
    refused("/v1/webhooks", {"url": 3}, "invalid_field", "string")
    refused("/v1/webhooks", {"url": "ftp://example.com/"}, "invalid_field", "http")
    refused("/v1/webhooks", {"url": "https://10.0.0.1/"}, "invalid_field", "SANDPIPER_WEBHOOK_ALLOW_ADDRESSES")
    refused("/v1/webhooks", {"url": fine, "events": ["invocation.suceeded"]}, "invalid_field", "invocation.succeeded")
    refused("/v1/webhooks", {"url": fine, "events": []}, "invalid_field", "events")
    refused("/v1/webhooks", {"url": fine, "secret": "whsec_short"}, "invalid_field", "24 to 64")
    refused("/v1/webhooks", {"url": fine, "sekret": "x"}, "unknown_field", "secret")
    refused("/v1/webhooks/whk_1", None, "not_found", "whk_", "GET", 404)
    refused("/v1/invocations", {"agent": "echo", "prompt": "", "webhook": fine}, "invalid_field", "object")
    refused("/v1/invocations", {"agent": "echo", "prompt": "", "webhook": {"uri": fine}}, "unknown_field", "url")
    e = create(client, fine)
    refused(f"/v1/webhooks/{e['id']}/rotate-secret", {"overlap_s": -1}, "invalid_field", "overlap_s")
    refused(f"/v1/webhooks/{e['id']}/redeliver", {"webhook_id": "msg_x"}, "invalid_field", "msg_")
    assert client.call("DELETE", f"/v1/webhooks/{e['id']}").status == 204
    assert client.call("GET", f"/v1/webhooks/{e['id']}").status == 404
    for i in range(50):
        create(client, fine)
    refused("/v1/webhooks", {"url": fine}, "conflict", "50", status=409)
    pages, cursor = 0, ""
    seen = set()
    while cursor is not None:
        a = client.call("GET", "/v1/webhooks?limit=20" + (f"&cursor={cursor}" if cursor else "")).json
        seen |= {x["id"] for x in a["data"]}
        cursor, pages = a["next_cursor"], pages + 1
    assert pages == 3 and len(seen) == 50


def test_secrets_are_sealed_and_in_no_log(stack, client, receiver):
    e = create(client, receiver.url())
    client.run("echo", "x")
    receiver.wait(1)
    import base64

    raw = base64.b64decode(e["secret"].removeprefix("whsec_"))
    dump = stack.psql("select encode(secret, 'hex') from webhook_endpoints")
    assert raw.hex() not in dump
    for p in stack.daemons():
        assert e["secret"] not in p.text()


def test_without_keys_webhooks_say_what_to_set(stack):
    g = stack.add_gateway(SANDPIPER_WEBHOOK_PUBLIC_KEY_FILE="")
    c = Client(g.port, stack.key)
    a = c.call("POST", "/v1/webhooks", {"url": "https://example.com/"})
    assert a.status == 501 and a.json["code"] == "not_configured"
    assert "SANDPIPER_WEBHOOK_PUBLIC_KEY_FILE" in a.json["detail"]
    a = c.submit("echo", "x", webhook={"url": "https://example.com/"})
    assert a.status == 501
    g.stop()
    stack.gateways.remove(g)


def test_killed_dispatchers_lose_and_double_nothing(stack, client):
    """Ends under load while dispatchers are killed: each event reaches the endpoint under one id of its own."""
    r = Receiver()
    e = create(client, r.url())
    ids = []

    def work(i):
        ids.append(client.run("echo", str(i), wait=120)["id"])

    import threading

    done = threading.Event()

    def kill():
        while not done.wait(0.7):
            stack.dispatchers[0].kill()
            stack.dispatchers.append(stack.dispatchers.pop(0).start())

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        in_threads([lambda i=i: work(i) for i in range(300)], 16)
    finally:
        done.set()
        killer.join()
    # What a killed one had in hand comes back when its lease ends: two minutes at most.
    until("every event has come", lambda: len({g.json["data"]["id"] for g in list(r.got)}) == 300, 150)
    settled(stack) if stack.count("select count(*) from outbox") == 0 else until(
        "the outbox is empty", lambda: stack.count("select count(*) from outbox") == 0, 150)
    by_event = {}
    for g in r.got:
        by_event.setdefault(g.json["data"]["id"], set()).add(g.id)
        assert g.verify(e["secret"])
    assert set(by_event) == set(ids) and all(len(x) == 1 for x in by_event.values())
    assert len({x for s in by_event.values() for x in s}) == 300
    r.close()


def test_batches_tell_of_their_items_and_of_their_end(stack, client, receiver):
    create(client, receiver.url("/items"), events=["invocation.*"])
    create(client, receiver.url("/batch"), events=["batch.*"])
    items = [{"agent": "echo", "prompt": f"item {i}"} for i in range(20)]
    b = client.call("POST", "/v1/batches", {"items": items})
    assert b.status == 202, b.body
    got = receiver.wait(21)
    settled(stack)
    assert receiver.count() == 21
    (done,) = [g.json for g in got if g.path == "/batch"]
    assert done["type"] == "batch.completed" and done["data"]["id"] == b.json["id"]
    assert done["data"]["total"] == 20 and done["data"]["counts"]["succeeded"] == 20
    assert len({g.json["data"]["id"] for g in got if g.path == "/items"}) == 20
    slow = {"agent.json": '{"runtime": "command", "entry": "sleep 60"}', "README": ""}
    client.deploy("slow", slow)
    b = client.call("POST", "/v1/batches?max_concurrency=2", [{"agent": "slow", "prompt": ""}] * 30)
    assert b.status == 202, b.body
    client.call("POST", f"/v1/batches/{b.json['id']}/cancel")
    receiver.wait(21 + 31, 60)
    settled(stack)
    later = receiver.got[21:]
    assert len(later) == 31 and len({g.id for g in later}) == 31
    assert [g.json["data"]["counts"]["canceled"] for g in later if g.path == "/batch"] == [30]
    assert {g.json["type"] for g in later if g.path == "/items"} == {"invocation.canceled"}


def test_a_batchs_own_hook(stack, client, receiver):
    items = [{"agent": "echo", "prompt": "x"}] * 3
    secret = create(client, receiver.url("/other"), events=["invocation.error"])["secret"]
    a = client.call("POST", "/v1/batches", {"items": items, "webhook": {"url": receiver.url("/own"), "secret": secret}})
    assert a.status == 202 and "Sandpiper-Webhook-Secret" not in a.headers
    (got,) = receiver.wait(1)
    assert got.path == "/own" and got.verify(secret) and got.json["type"] == "batch.completed"
    assert got.json["data"]["id"] == a.json["id"] and got.json["data"]["counts"]["succeeded"] == 3
    lines = b"".join(json.dumps(i).encode() + b"\n" for i in items)
    b = client.call("POST", f"/v1/batches?webhook={receiver.url('/query')}", lines, {"Content-Type": "application/x-ndjson"})
    made_up = b.headers["Sandpiper-Webhook-Secret"]
    got = receiver.wait(2)[1]
    assert got.path == "/query" and got.verify(made_up) and got.json["data"]["id"] == b.json["id"]
    settled(stack)
    assert receiver.count() == 2
    for bad in ({"url": "http://10.0.0.1/"}, {"url": "ftp://x/"}, {}, "http://x/", {"url": receiver.url(), "secre": "x"}):
        c = client.call("POST", "/v1/batches", {"items": items, "webhook": bad})
        assert c.status == 400 and "webhook" in c.body.decode(), (bad, c.body)
    assert len(client.call("GET", "/v1/batches").json["data"]) == 2


def test_a_trace_goes_on_to_the_receiver(client, receiver):
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    create(client, receiver.url())
    client.call("POST", "/v1/invocations", {"agent": "echo", "prompt": "x"}, {"traceparent": trace})
    (got,) = receiver.wait(1)
    assert got.headers["traceparent"] == trace and got.json["data"]["traceparent"] == trace
    client.run("echo", "without")
    assert "traceparent" not in receiver.wait(2)[1].headers
