"""not_before: accepted now, begun then; and the trace context that a job carries."""

import datetime
import json

import pytest

from sim_stack import AGENT, SimStack
from stack import until

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def stack():
    s = SimStack()
    try:
        yield s.start(dispatchers=2)
    finally:
        s.stop()


def ahead(seconds):
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def begun_after(r, text):
    return r["started_at"] >= text


def test_it_begins_then_and_not_before(stack):
    at = ahead(1.5)
    a = stack.client.submit(AGENT, "later", not_before=at)
    assert a.status == 202 and a.json["status"] == "scheduled"
    id = a.json["id"]
    seen = stack.client.get(id)
    assert seen["status"] == "scheduled" and seen["not_before"] == at and seen["finished_at"] is None
    r = stack.client.end(id)
    assert (r["status"], r["output"], r["attempt"], len(r["attempts"])) == ("succeeded", "later", 1, 1)
    assert begun_after(r, at) and r["usage"]["queue_ms"] < 10_000


def test_one_that_waits_for_it_is_told(stack):
    a = stack.client.submit(AGENT, "x", wait=20, not_before=ahead(1))
    assert a.status == 200 and a.json["status"] == "succeeded"


@pytest.mark.parametrize("prompt", ["x", "y" * 200_000])
def test_with_an_idempotency_key(stack, prompt):
    at = ahead(1)
    ids = {stack.client.submit(AGENT, prompt, idempotency_key=f"later-{len(prompt)}", not_before=at).json["id"] for _ in range(3)}
    assert len(ids) == 1 and begun_after(stack.client.end(ids.pop()), at)


def test_many_at_one_instant_begin_once_each(stack):
    at = ahead(2)
    ids = [stack.client.submit(AGENT, str(n), not_before=at).json["id"] for n in range(100)]
    records = [stack.client.end(id) for id in ids]
    assert all(r["status"] == "succeeded" and begun_after(r, at) and len(r["attempts"]) == 1 for r in records)
    assert stack.count("select count(*) from usage u join attempts a using (id, attempt) where a.reason = 'not_before'") >= 100


def test_what_has_passed_begins_at_once(stack):
    a = stack.client.submit(AGENT, "x", wait=20, not_before="2020-01-01T00:00:00Z")
    assert a.json["status"] == "succeeded" and a.json["not_before"] is None


def test_one_that_is_canceled_never_begins(stack):
    id = stack.client.submit(AGENT, "x", not_before=ahead(3600)).json["id"]
    assert stack.client.call("POST", f"/v1/invocations/{id}/cancel").json["status"] == "canceled"
    r = stack.client.get(id)
    assert r["status"] == "canceled" and r["started_at"] is None


def test_its_queue_limit_counts_from_then(stack):
    at = ahead(2)
    id = stack.client.submit(AGENT, "x", not_before=at, queue_timeout_s=1).json["id"]
    assert stack.client.end(id)["status"] == "succeeded"


def test_a_redis_that_forgets_does_not_begin_it_early(stack):
    at = ahead(6)
    id = stack.client.submit(AGENT, "x", not_before=at).json["id"]
    stack.redis_cli("flushall")
    until("Redis is rebuilt", lambda: stack.redis_cli("exists", "sp:epoch") == "1")
    assert stack.client.run(AGENT, "y")["status"] == "succeeded"
    assert stack.client.get(id)["status"] == "scheduled"
    assert begun_after(stack.client.end(id), at)


@pytest.mark.parametrize("value", ["tomorrow", 5, "2999-01-01T00:00:00Z", "2026-13-01T00:00:00Z", None])
def test_what_cannot_be_used_is_said(stack, value):
    a = stack.client.submit(AGENT, "x", not_before=value)
    assert a.status == 400 and a.json["code"] == "invalid_field" and "not_before" in a.json["detail"]


def test_the_command_line_begins_later(stack):
    at = ahead(2)
    for when in (at, "2s"):
        out = stack.cli("invoke", AGENT, "later", "--not-before", when, "--json")
        assert begun_after(json.loads(out.stdout), at)
    out = stack.cli("invoke", AGENT, "x", "--not-before", "1h", "--no-wait", "--json")
    id = json.loads(out.stdout)["id"]
    assert stack.client.get(id)["status"] == "scheduled"
    stack.cli("cancel", id)
    for wrong in ("tomorrow", "-5s", ""):
        assert stack.cli("invoke", AGENT, "x", "--not-before", wrong, check=False).returncode == 2


# ---- traces ----


def submit_traced(stack, prompt, trace, **fields):
    body = {"agent": AGENT, "prompt": prompt, **fields}
    return stack.client.call("POST", "/v1/invocations", body, {"traceparent": trace, "Prefer": "wait=30"}).json


def test_a_trace_reaches_the_program_and_the_record(stack):
    r = submit_traced(stack, json.dumps({"sim": {"env": "TRACEPARENT"}}), TRACE)
    assert r["traceparent"] == TRACE and r["output"] == TRACE
    assert stack.client.get(r["id"])["traceparent"] == TRACE


def test_a_trace_survives_a_later_attempt_and_a_large_prompt(stack):
    at = ahead(1)
    order = json.dumps({"sim": {"env": "TRACEPARENT"}})
    assert submit_traced(stack, order, TRACE, not_before=at)["output"] == TRACE
    big = submit_traced(stack, "x" * 100_000 + order, TRACE)
    assert big["output"] == TRACE
    again = submit_traced(stack, json.dumps({"sim": {"env": "TRACEPARENT", "exit_code": 3}}), TRACE,
                          retry={"max_attempts": 2, "on": ["failed"]})
    assert again["attempt"] == 2 and again["output"] == TRACE


@pytest.mark.parametrize("trace", ["", "nonsense", TRACE.upper(), TRACE[:-1], "ff" + TRACE[2:], TRACE + "-x"])
def test_a_trace_that_is_none_is_ignored(stack, trace):
    r = submit_traced(stack, json.dumps({"sim": {"env": "TRACEPARENT"}}), trace)
    assert r["status"] == "succeeded" and "traceparent" not in r and r["output"] == ""
