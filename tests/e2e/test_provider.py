"""A provider on a bad day: what it does to jobs, and what it must not do. The faults are made by a proxy before the
sandbox host, the sandboxes are real."""

import json
import os
import re

import pytest

import fault_proxy as fault
from e2e_agents import AGENTS
from stack import Stack, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root")

CREATE, START = r"^/(v2/)?sandboxes$", r"Process/Start$"


def order(**kw):
    return json.dumps(kw)


@pytest.fixture(scope="module")
def made():
    s = Stack()
    proxy = fault.FaultProxy(s.sandboxd_port)
    url = f"http://127.0.0.1:{proxy.port}"
    s.extra = {"E2B_API_URL": url, "E2B_SANDBOX_URL": url, "SANDPIPER_CREATE_DEADLINE": "2s", "SANDPIPER_START_DEADLINE": "2s"}
    s.start()
    for name, files in AGENTS.items():
        s.client.deploy(name, files)
    yield s, proxy
    proxy.heal()
    s.quiet()
    proxy.close()
    s.stop()


@pytest.fixture
def stack(made):
    return made[0]


@pytest.fixture
def proxy(made):
    yield made[1]
    made[1].heal()


def usages(stack, r):
    return stack.count(f"select count(*) from usage where id = '{r['id'][4:]}'")


@pytest.mark.parametrize("headers", [{"Retry_After": "1"}, {}], ids=["rate limit", "concurrency limit"])
def test_a_429_spends_nothing(stack, proxy, headers):
    rule = proxy.on("POST", CREATE, fault.status(429, **headers), times=3)
    before = proxy.count("POST", CREATE)
    r = stack.client.run("echo", "patience")
    assert (r["status"], r["output"], r["attempt"]) == ("succeeded", "patience", 1)
    assert rule.hits == 3 and proxy.count("POST", CREATE) - before == 4, "asked again only when it made sense"
    assert r["usage"]["queue_ms"] >= 2500, "three waits of about a second"
    assert usages(stack, r) == 1


def test_a_429_until_the_queue_limit_is_an_expiry(stack, proxy):
    proxy.on("POST", CREATE, fault.status(429, Retry_After="1"), times=1000)
    r = stack.client.run("echo", "x", queue_timeout_s=3)
    assert (r["status"], r["error"]["code"], r["started_at"]) == ("expired", "queue_timeout", None)
    assert usages(stack, r) == 0


@pytest.mark.parametrize("code", [500, 502, 503, 504, 401])
def test_a_failing_create_is_tried_again(stack, proxy, code):
    rule = proxy.on("POST", CREATE, fault.status(code))
    r = stack.client.run("echo", "again")
    assert (r["status"], r["output"], r["attempt"]) == ("succeeded", "again", 2)
    assert rule.hits == 1 and usages(stack, r) == 1, "the attempt without a sandbox has no usage"


def test_a_provider_that_fails_to_the_queue_limit_is_our_error(stack, proxy):
    proxy.on("POST", CREATE, fault.status(500), times=1000)
    r = stack.client.run("echo", "x", queue_timeout_s=4)
    assert (r["status"], r["error"]["code"]) == ("error", "provider_failed")
    assert "500" in r["error"]["message"] and usages(stack, r) == 0


@pytest.mark.parametrize("answer", [
    fault.nonsense(b"<html>It works!</html>", "text/html"),
    fault.nonsense(b"{}"),
    fault.nonsense(b'{"sandboxID": 7}', code=201),
    fault.nonsense(b'{"sandboxID": "a b\\r\\nX-Evil: yes"}', code=201),
    fault.nonsense(b'{"sandboxID": "' + b"x" * 5000 + b'"}', code=201),
    fault.nonsense(b'{"sandboxID": "x", ', code=201),
    fault.nonsense(b"[" * 100000, code=201),
    fault.nonsense(b"\xff\xfe\x00", code=201),
    fault.nonsense(b'{"sandboxID":"a"}' + b" " * 8 * 1024 * 1024, code=201),
], ids=["html", "empty", "number", "header", "long", "cut", "deep", "bytes", "huge"])
def test_nonsense_instead_of_a_sandbox(stack, proxy, answer):
    proxy.on("POST", CREATE, answer)
    r = stack.client.run("echo", "sense")
    assert (r["status"], r["output"], r["attempt"]) == ("succeeded", "sense", 2)
    assert usages(stack, r) == 1


def test_a_created_sandbox_whose_answer_was_lost_does_not_leak(stack, proxy):
    proxy.on("POST", CREATE, fault.lose())
    r = stack.client.run("echo", "found again")
    assert (r["status"], r["output"]) == ("succeeded", "found again")
    until("nothing is left", lambda: not stack.sandboxes(), 10)


def test_a_create_that_never_answers_has_a_deadline(stack, proxy):
    proxy.on("POST", CREATE, fault.hang())
    r = stack.client.run("echo", "at last")
    assert (r["status"], r["output"], r["attempt"]) == ("succeeded", "at last", 2)


def test_a_start_that_never_answers_has_a_deadline(stack, proxy):
    proxy.on("POST", START, fault.hang())
    r = stack.client.run("echo", "at last")
    assert (r["status"], r["output"], r["attempt"]) == ("succeeded", "at last", 2)
    assert usages(stack, r) == 2, "both attempts held a sandbox"


def test_an_upload_that_never_answers_has_a_deadline(stack, proxy):
    rule = proxy.on("POST", "^/files", fault.hang())
    r = stack.client.run("echo", "x" * 100000)
    assert (r["status"], r["output_size"], r["attempt"], rule.hits) == ("succeeded", 100000, 2, 1)


def test_slow_is_not_failed(stack, proxy):
    proxy.on("POST", CREATE, fault.delay(1.2))
    proxy.on("POST", START, fault.delay(1.2))
    r = stack.client.run("echo", "no hurry")
    assert (r["status"], r["attempt"]) == ("succeeded", 1)
    assert r["usage"]["sandbox_start_ms"] >= 2400


FRAME = b'\0\0\0\0\x20{"event":{"start":{"pid":"many"}}}'


@pytest.mark.parametrize("fails", [
    fault.nonsense(b"<html>", "text/html"),
    fault.nonsense(b"", "application/connect+json"),
    fault.nonsense(b"\0\xff\xff\xff\xff", "application/connect+json"),
    fault.nonsense(b"\x07garbage", "application/connect+json"),
    fault.nonsense(FRAME, "application/connect+json"),
    fault.nonsense(b'\2\0\0\0\2{}', "application/connect+json"),
    fault.status(500), fault.status(503), fault.status(429),
], ids=["html", "empty", "long frame", "flags", "bad event", "end alone", "500", "503", "429"])
def test_nonsense_instead_of_a_start(stack, proxy, fails):
    proxy.on("POST", START, fails)
    r = stack.client.run("echo", "sense")
    assert (r["status"], r["output"], r["attempt"]) == ("succeeded", "sense", 2)
    assert usages(stack, r) == 2


def test_a_stream_that_breaks_is_taken_up_again(stack, proxy):
    proxy.on("POST", START, fault.cut(300))
    r = stack.client.run("probe", order(sleep=1.5, exit=3))
    assert (r["status"], r["exit_code"], r["attempt"]) == ("failed", 3, 1), "the exit is the program's, seen after the break"


def test_a_stream_without_its_last_message_is_no_failure(stack, proxy):
    def without_end_stream(body):
        at = body.rindex(b"\x02\0\0\0")
        return body[:at]

    proxy.on("POST", START, fault.rewrite(without_end_stream))
    r = stack.client.run("echo", "whole")
    assert (r["status"], r["output"], r["attempt"]) == ("succeeded", "whole", 1)


def test_a_lost_sandbox_is_run_again_three_times_at_most(stack, proxy):
    id = stack.client.submit("probe", order(sleep=60)).json["id"]

    def lose_one(n):
        until(f"run {n} has started", lambda: stack.client.get(id)["status"] == "running" and
              stack.client.get(id)["attempt"] == n and stack.sandboxes(), 30)
        stack.destroy(stack.sandboxes()[0]["sandboxID"])

    for n in range(1, 5):
        lose_one(n)
    r = stack.client.end(id, 30)
    assert (r["status"], r["error"]["code"], r["attempt"]) == ("error", "sandbox_lost", 4)
    assert usages(stack, r) == 4


def test_a_destroy_that_fails_is_repeated(stack, proxy):
    rule = proxy.on("DELETE", "^/sandboxes/", fault.status(500), times=3)
    r = stack.client.run("echo", "x")
    assert r["status"] == "succeeded"
    until("the sandbox is gone all the same", lambda: rule.hits == 3 and not stack.sandboxes(), 20)


def test_a_wrong_content_of_the_list_harms_nothing(stack, proxy):
    proxy.on("GET", "^/v2/sandboxes", fault.nonsense(b'[{"sandboxID":"other","metadata":{"deployment":"not ours"}}]'))
    proxy.on("POST", CREATE, fault.lose())
    assert stack.client.run("echo", "x")["status"] == "succeeded"
    deleted = [path for method, path in proxy.seen if method == "DELETE"]
    assert not any(re.search("other", path) for path in deleted), "what is not ours is left alone"
