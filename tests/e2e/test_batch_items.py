"""What items of a batch may have of their own: a later start, a webhook; and what they get from it: its trace context."""

import collections
import datetime
import json
import time

import pytest

from sim_stack import AGENT, SimStack
from stack import until
from test_batches import accepted, end, lines, look, results, submit
from webhook_receiver import OPEN, Receiver


@pytest.fixture(scope="module")
def stack():
    s = SimStack(**OPEN)
    try:
        yield s.start(executors=1, dispatchers=2)
    finally:
        s.stop()


@pytest.fixture
def client(stack):
    yield stack.client
    assert stack.count("select count(*) from batch_delayed d join batches b on b.id = d.batch and b.ended_at is not null") == 0
    assert stack.count("select count(*) from batches where ended_at is not null and delayed <> 0") == 0


def soon(seconds):
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def order(**kw):
    return json.dumps({"sim": kw})


def items(n, first=0, **more):
    return [{"custom_id": f"i{first + k}", "agent": AGENT, "prompt": f"text {first + k}", **more} for k in range(n)]


def begun(records):
    return sorted(r["started_at"] for r in records)


def check_whole(client, id, n):
    """Each item ended once, as its line says."""
    got = results(client, id)
    assert collections.Counter(r["custom_id"] for r in got) == {f"i{k}": 1 for k in range(n)}
    assert all(r["status"] == "succeeded" and len(r["attempts"]) == 1 for r in got)
    return got


# ---- later starts ----


def test_items_begin_when_they_may(stack, client):
    at = soon(2.5)
    b = accepted(submit(client, items(30) + items(40, 30, not_before=at)))["id"]
    r = look(client, b)
    assert r["counts"]["scheduled"] == 40, r["counts"]
    until("the plain ones have ended", lambda: look(client, b)["counts"]["succeeded"] >= 30)
    if soon(0) < at:
        assert look(client, b)["counts"] == {**dict.fromkeys(r["counts"], 0), "succeeded": 30, "scheduled": 40}
    listed = client.call("GET", f"/v1/invocations?batch={b}&status=open&limit=1").json["data"]
    assert soon(0) > at or (listed[0]["status"], listed[0]["not_before"][:21]) == ("scheduled", at[:21])
    end(client, b)
    got = check_whole(client, b, 70)
    later = [r for r in got if r["not_before"]]
    assert len(later) == 40 and begun(later)[0] >= at
    assert max(r["usage"]["queue_ms"] for r in later) < 2000, "it waits from its time on"


@pytest.mark.parametrize("waiting", [6000])
def test_the_cursor_passes_what_waits(stack, client, waiting):
    b = accepted(submit(client, items(waiting, not_before=soon(3600)) + items(200, waiting)))["id"]
    until("the plain ones have ended", lambda: look(client, b)["counts"]["succeeded"] == 200, 30)
    assert look(client, b)["counts"]["scheduled"] == waiting
    assert stack.count(f"select delayed from batches where id = '{b[4:]}'") == waiting
    assert stack.live_records() == 0
    # one of them is stopped: the counts follow, at every look
    one = client.call("GET", f"/v1/invocations?batch={b}&status=open&limit=1").json["data"][0]["id"]
    assert client.call("POST", f"/v1/invocations/{one}/cancel").json["status"] == "canceled"
    counts = look(client, b)["counts"]
    assert (counts["scheduled"], counts["canceled"]) == (waiting - 1, 1)
    began = time.monotonic()
    assert client.call("POST", f"/v1/batches/{b}/cancel").status in (200, 202)
    r = end(client, b, 20)
    assert (r["status"], r["counts"]["canceled"], r["counts"]["succeeded"]) == ("canceled", waiting, 200)
    assert time.monotonic() - began < 10
    assert len(results(client, b)) == waiting + 200


def test_max_concurrency_holds_for_what_becomes_due(client):
    b = accepted(submit(client, items(40, not_before=soon(1), prompt=order(run_ms=100)), "?max_concurrency=3"))["id"]
    most = 0

    def ended():
        nonlocal most
        r = look(client, b)
        most = max(most, r["counts"]["starting"] + r["counts"]["running"])
        return r["ended_at"]

    until("it ends", ended, 60, every=0.01)
    got = results(client, b)
    assert len(got) == 40 and most <= 3
    # told by the records: at no moment did more than three run
    moves = sorted([(r["started_at"], 1) for r in got] + [(r["finished_at"], -1) for r in got], key=lambda m: (m[0], m[1]))
    running = peak = 0
    for _, step in moves:
        running += step
        peak = max(peak, running)
    assert peak <= 3


def test_queue_limits_begin_with_the_start(stack, client):
    b = accepted(submit(client, items(1, not_before=soon(3000), queue_timeout_s=50) + items(1, 1, not_before=soon(3000))
                        + items(1, 2, queue_timeout_s=50) + items(1, 3), "?queue_timeout_s=70"))["id"]
    limits = [int(x) for x in stack.psql(
        f"select queue_timeout_ms from invocations where batch = '{b[4:]}' order by id").splitlines()]
    assert limits[2:] == [50000, 70000] and 3045000 < limits[0] <= 3050000 and 3065000 < limits[1] <= 3070000
    client.call("POST", f"/v1/batches/{b}/cancel")
    end(client, b)


def test_a_time_that_has_passed_is_at_once(stack, client):
    b = accepted(submit(client, items(5, not_before="2020-01-01T00:00:00Z")))["id"]
    assert stack.count(f"select count(*) from batch_delayed where batch = '{b[4:]}'") == 0
    end(client, b)
    assert all(r["not_before"] is None for r in check_whole(client, b, 5))


def test_an_item_that_nobody_starts_in_time_expires(stack, client):
    """Its turn never comes: the batch lets one run at once, and that one takes long."""
    b = accepted(submit(client, items(1, prompt=order(run_ms=60000)) + items(3, 1, not_before=soon(1), queue_timeout_s=1),
                        "?max_concurrency=1"))["id"]
    until("they have expired", lambda: look(client, b)["counts"]["expired"] == 3, 30)
    assert look(client, b)["counts"]["running"] == 1
    client.call("POST", f"/v1/batches/{b}/cancel")
    r = end(client, b)
    assert (r["counts"]["expired"], r["counts"]["canceled"]) == (3, 1)


@pytest.mark.parametrize("what", ["dispatchers", "redis"])
def test_losses_between_due_and_fed(stack, client, what):
    """Whoever leads, whatever Redis forgot: each item once, and none before its time."""
    at = soon(2)
    n = 300
    b = accepted(submit(client, items(n // 2, not_before=at) + items(n // 2, n // 2, not_before=soon(2.3)),
                        "?max_concurrency=20"))["id"]
    until("some have begun", lambda: look(client, b)["counts"]["succeeded"] > 20, 30, every=0.005)
    if what == "redis":
        stack.redis_cli("flushall")
    else:
        for d in stack.dispatchers:
            d.kill()
        stack.dispatchers[:] = []
        stack.add_dispatcher()
        stack.add_dispatcher()
    end(client, b, 60)
    assert begun(check_whole(client, b, n))[0] >= at


# ---- webhooks ----


def test_each_item_tells_its_end(stack, client):
    receiver, n = Receiver(), 120
    a = submit(client, items(n, webhook={"url": receiver.url("/items")}))
    secret = a.headers["Sandpiper-Webhook-Secret"]
    b = accepted(a)["id"]
    end(client, b)
    got = receiver.wait(n)
    assert all(g.verify(secret) and g.path == "/items" for g in got), "one secret is shared"
    assert {g.json["data"]["custom_id"] for g in got} == {f"i{k}" for k in range(n)}
    assert {g.json["type"] for g in got} == {"invocation.succeeded"} and len({g.id for g in got}) == n
    receiver.close()


def test_secrets_of_items_and_of_the_batch(stack, client):
    receiver = Receiver()
    mine, other = "whsec_" + "A" * 32, "whsec_" + "B" * 40
    own = [{"url": receiver.url("/mine"), "secret": mine}, {"url": receiver.url("/other"), "secret": other},
           {"url": receiver.url("/mine"), "secret": mine}, {"url": receiver.url("/shared")}, None]
    body = {"items": [{**i, **({"webhook": w} if w else {})} for i, w in zip(items(5), own)],
            "webhook": {"url": receiver.url("/batch")}}
    a = client.call("POST", "/v1/batches", body)
    shared = a.headers["Sandpiper-Webhook-Secret"]
    end(client, accepted(a)["id"])
    got = receiver.wait(5)
    keys = {"/mine": mine, "/other": other, "/shared": shared, "/batch": shared}
    assert collections.Counter(g.path for g in got) == {"/mine": 2, "/other": 1, "/shared": 1, "/batch": 1}
    assert all(g.verify(keys[g.path]) for g in got), "what brings no secret has the one that was shown"
    body["webhook"]["secret"], body["items"][3]["webhook"]["secret"] = mine, other
    a = client.call("POST", "/v1/batches", body)
    assert a.status == 202 and "Sandpiper-Webhook-Secret" not in a.headers
    end(client, a.json["id"])
    assert all(g.verify({**keys, "/shared": other, "/batch": mine}[g.path]) for g in receiver.wait(10)[5:])
    receiver.close()


def test_a_canceled_item_that_waits_tells_its_end(stack, client):
    receiver = Receiver()
    b = accepted(submit(client, items(3, not_before=soon(3600), webhook={"url": receiver.url()})))["id"]
    client.call("POST", f"/v1/batches/{b}/cancel")
    end(client, b)
    assert {g.json["type"] for g in receiver.wait(3)} == {"invocation.canceled"}
    receiver.close()


# ---- what is refused ----


@pytest.mark.parametrize("more,code,word", [
    ({"not_before": "soon"}, "invalid_field", "not_before"),
    ({"not_before": "2099-01-01T00:00:00Z"}, "invalid_field", "not_before"),
    ({"not_before": 7}, "invalid_field", "not_before"),
    ({"webhook": "https://example.com"}, "invalid_field", "webhook"),
    ({"webhook": {}}, "missing_field", "webhook"),
    ({"webhook": {"url": "ftp://example.com"}}, "invalid_field", "webhook"),
    ({"webhook": {"url": "https://example.com", "secret": "no"}}, "invalid_field", "webhook"),
    ({"webhook": {"url": "https://example.com", "sceret": "no"}}, "unknown_field", "webhook")])
def test_faults_are_told_by_line(client, more, code, word):
    a = submit(client, items(2) + items(1, 2, **more) + items(1, 3))
    assert (a.status, a.json["code"]) == (400, "invalid_batch")
    fault, = a.json["errors"]
    assert (fault["line"], fault["item"], fault["code"]) == (3, 3, code) and word in fault["detail"], fault


def test_without_keys_there_are_no_webhooks(stack, client):
    keyless = stack.add_gateway(SANDPIPER_WEBHOOK_PUBLIC_KEY_FILE="")
    from stack import Client
    there = Client(keyless.port, stack.key)
    a = submit(there, items(1, webhook={"url": "https://example.com"}))
    assert (a.status, a.json["code"]) == (501, "not_configured"), a.body
    end(client, accepted(submit(there, items(1)))["id"])


# ---- traces ----


def test_items_carry_their_batchs_trace(stack, client):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    receiver = Receiver()
    body = lines(items(2, prompt=order(env="TRACEPARENT"), webhook={"url": receiver.url()}))
    a = client.call("POST", "/v1/batches", body, {"Content-Type": "application/x-ndjson", "traceparent": trace})
    b = accepted(a)["id"]
    end(client, b)
    assert [(r["traceparent"], r["output"]) for r in results(client, b)] == [(trace, trace)] * 2
    assert [g.headers["traceparent"] for g in receiver.wait(2)] == [trace] * 2
    plain = accepted(submit(client, items(1), headers={"traceparent": "nonsense"}))["id"]
    end(client, plain)
    assert "traceparent" not in results(client, plain)[0]
    receiver.close()


# ---- others ----


def test_what_waits_for_its_turn_holds_up_no_retry(stack, client):
    """Hundreds are due, and few may run: an invocation that begins later, and a retry, come in time all the same."""
    at = soon(1.5)
    b = accepted(submit(client, items(1500, not_before=at, prompt=order(run_ms=3000)), "?max_concurrency=2"))["id"]
    later = client.submit(AGENT, "x", not_before=soon(2)).json["id"]
    until("they are due", lambda: soon(0) > at)
    assert client.end(later, 4)["status"] == "succeeded"  # those that are due are looked at again for five seconds
    r = client.run(AGENT, order(exit_code=1), retry={"max_attempts": 2, "on": ["failed"]})
    assert r["attempt"] == 2
    client.call("POST", f"/v1/batches/{b}/cancel")
    end(client, b)
