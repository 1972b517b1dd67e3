"""Batches: accepted whole, fed bit by bit, counted exactly, answered for to the last item."""

import gzip
import http.client
import json
import os
import threading
import time

import pytest

from e2e_agents import make_stack
from sim_stack import AGENT, SimStack
from stack import Client, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root")
ENDED = ("succeeded", "failed", "timed_out", "canceled", "expired", "error")


def lines(items):
    return b"".join(json.dumps(i, ensure_ascii=False).encode() + b"\n" for i in items)


def echoes(n, **more):
    return [{"custom_id": f"c{i}", "agent": "echo", "prompt": f"text {i}", **more} for i in range(n)]


def submit(client, items, query="", headers=None):
    return client.call("POST", f"/v1/batches{query}", lines(items),
                       {"Content-Type": "application/x-ndjson", **(headers or {})})


def accepted(answer):
    assert answer.status == 202, (answer.status, answer.body)
    record = answer.json
    assert answer.headers["Location"] == f"/v1/batches/{record['id']}"
    return record


def look(client, id):
    """The record; its counts always add up."""
    a = client.call("GET", f"/v1/batches/{id}")
    assert a.status == 200, (a.status, a.body)
    r = a.json
    assert sum(r["counts"].values()) == r["total"], r
    assert sum(r["counts"][s] for s in ENDED) == r["ended"], r
    return r


def end(client, id, seconds=120):
    last = [0]

    def ended():
        r = look(client, id)
        assert r["ended"] >= last[0], "what has ended stays so"
        last[0] = r["ended"]
        return r["ended_at"] and r

    return until(f"batch {id} ends", ended, seconds, every=0.05)


def results(client, id, query=""):
    a = client.call("GET", f"/v1/batches/{id}/results{query}")
    assert a.status == 200, (a.status, a.body)
    assert a.headers["Content-Type"] == "application/x-ndjson"
    return [json.loads(line) for line in a.body.splitlines()]


@pytest.fixture
def made():
    stacks = []

    def make(**env):
        stacks.append(make_stack(env=env))
        return stacks[-1]

    yield make
    for s in stacks:
        s.stop()


def test_all_items_run_and_each_result_is_there_once(client):
    b = accepted(submit(client, echoes(40)))
    assert b["status"] == "running" and b["total"] == 40 and b["priority"] == "low"
    r = end(client, b["id"])
    assert (r["status"], r["counts"]["succeeded"]) == ("completed", 40)
    got = results(client, b["id"])
    assert sorted(x["custom_id"] for x in got) == sorted(f"c{i}" for i in range(40))
    for x in got:
        assert x["output"] == "text " + x["custom_id"][1:] and x["batch_id"] == b["id"] and "prompt" not in x


def test_a_results_cursor_goes_on_behind_its_line(client):
    b = accepted(submit(client, echoes(12)))
    end(client, b["id"])
    whole = results(client, b["id"])
    for i, x in enumerate(whole):
        rest = results(client, b["id"], f"?cursor={x['cursor']}")
        assert [y["id"] for y in rest] == [y["id"] for y in whole[i + 1:]]
    other = accepted(submit(client, echoes(1)))
    a = client.call("GET", f"/v1/batches/{other['id']}/results?cursor={whole[0]['cursor']}")
    assert (a.status, a.json["code"]) == (400, "invalid_cursor")


def test_followed_results_come_while_it_runs_and_end_with_it(client):
    items = [{"custom_id": f"c{i}", "agent": "probe", "prompt": json.dumps({"text": "x", "sleep": 0.3})}
             for i in range(6)]
    b = accepted(submit(client, items, "?max_concurrency=1"))
    c = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
    c.request("GET", f"/v1/batches/{b['id']}/results?follow=true", headers={"Authorization": f"Bearer {client.key}"})
    r = c.getresponse()
    first = json.loads(r.readline())
    assert look(client, b["id"])["status"] == "running", "the first line came before the end"
    rest = [json.loads(line) for line in r]
    c.close()
    assert sorted(x["custom_id"] for x in [first] + rest) == [f"c{i}" for i in range(6)]
    assert look(client, b["id"])["status"] == "completed"


def test_max_concurrency_is_never_exceeded(made):
    stack = made(SANDPIPER_EXECUTOR_JOBS="8")
    items = [{"agent": "probe", "prompt": json.dumps({"sleep": 0.15})} for _ in range(24)]
    b = accepted(submit(stack.client, items, "?max_concurrency=3"))
    most, stop = [0], threading.Event()

    def watch():
        while not stop.wait(0.02):
            most[0] = max(most[0], len(stack.sandboxes()))

    t = threading.Thread(target=watch)
    t.start()
    r = end(stack.client, b["id"])
    stop.set()
    t.join()
    assert r["counts"]["succeeded"] == 24 and 1 <= most[0] <= 3
    overlap = stack.count("select coalesce(max(n), 0) from (select (select count(*) from results b where "
                          "b.started_at <= a.started_at and b.finished_at > a.started_at) n from results a) x")
    assert overlap <= 3


def test_outcomes_are_told_apart_and_defaults_apply(client):
    orders = [{"exit": 0}, {"exit": 3}, {"kill": 9}, {"sleep": 30}]
    items = [{"prompt": json.dumps(o)} for o in orders]
    b = accepted(submit(client, items, "?agent=probe&timeout_s=2&priority=high&metadata.run=seven"))
    assert (b["priority"], b["metadata"]) == ("high", {"run": "seven"})
    r = end(client, b["id"])
    assert (r["counts"]["succeeded"], r["counts"]["failed"], r["counts"]["timed_out"]) == (1, 2, 1)
    by_id = {x["custom_id"]: x for x in results(client, b["id"])}
    assert sorted(by_id) == ["1", "2", "3", "4"], "without a custom_id the item's number stands for it"
    assert (by_id["2"]["exit_code"], by_id["3"]["signal"], by_id["4"]["status"]) == (3, "KILL", "timed_out")
    assert {x["priority"] for x in by_id.values()} == {"high"} and by_id["1"]["timeout_s"] == 2


def test_an_invocations_record_and_list_know_the_batch(client):
    b = accepted(submit(client, echoes(7)))
    plain = client.run("echo", "alone")
    assert plain["batch_id"] is None and plain["custom_id"] is None
    end(client, b["id"])
    one = results(client, b["id"])[0]
    r = client.get(one["id"])
    assert (r["batch_id"], r["custom_id"], r["prompt"]) == (b["id"], one["custom_id"], "text " + one["custom_id"][1:])
    seen, cursor = [], ""
    while cursor is not None:
        page = client.call("GET", f"/v1/invocations?batch={b['id']}&limit=3{cursor}").json
        seen += [x["custom_id"] for x in page["data"]]
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
    assert seen == [f"c{i}" for i in reversed(range(7))], "newest first"
    everything = client.call("GET", "/v1/invocations?limit=8").json["data"]
    assert [x["id"] for x in everything][0] == plain["id"], "batches and others in one order"
    assert {x["batch_id"] for x in everything[1:]} == {b["id"]}
    a = client.call("GET", "/v1/invocations?batch=bat_00000000-0000-7000-8000-000000000000")
    assert (a.status, a.json["code"]) == (404, "not_found")


def test_json_documents_and_gzip_are_read_as_well(client):
    items = echoes(5)
    for body, headers in (
            (json.dumps(items).encode(), {"Content-Type": "application/json"}),
            (json.dumps({"items": items, "max_concurrency": 2, "metadata": {"a": [1]}}, indent=1).encode(),
             {"Content-Type": "application/json"}),
            (json.dumps({"metadata": {"a": [1]}, "max_concurrency": 2, "items": items}).encode(),
             {"Content-Type": "application/json"}),
            (gzip.compress(lines(items)), {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}),
            (gzip.compress(lines(items[:2])) + gzip.compress(lines(items[2:])),
             {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}),
            (gzip.compress(json.dumps(items).encode()), {"Content-Type": "application/json",
                                                         "Content-Encoding": "gzip"})):
        b = accepted(client.call("POST", "/v1/batches", body, headers))
        if b"max_concurrency" in body:
            assert (b["max_concurrency"], b["metadata"]) == (2, {"a": [1]})
        end(client, b["id"])
        assert sorted(x["custom_id"] for x in results(client, b["id"])) == [f"c{i}" for i in range(5)]


def test_large_prompts_are_kept(client):
    text = "".join(f"{i:07d}" for i in range(80000))
    items = [{"custom_id": "large", "agent": "echo", "prompt": text},
             {"custom_id": "small", "agent": "echo", "prompt": "x"},
             {"custom_id": "inline", "agent": "echo", "prompt": text[:65536]}]
    b = accepted(submit(client, items))
    end(client, b["id"])
    by_id = {x["custom_id"]: x for x in results(client, b["id"])}
    assert client.call("GET", by_id["large"]["output_url"]).body.decode() == text
    assert by_id["inline"]["output"] == text[:65536] and by_id["small"]["output"] == "x"


def test_an_idempotency_key_gives_the_same_batch(client):
    h = {"Idempotency-Key": f"batch-{time.time_ns()}"}
    one = accepted(submit(client, echoes(3), headers=h))
    two = accepted(submit(client, echoes(3), headers=h))
    assert two["id"] == one["id"]
    a = submit(client, echoes(4), headers=h)
    assert (a.status, a.json["code"]) == (422, "idempotency_key_reused")
    a = submit(client, echoes(3), "?max_concurrency=2", headers=h)
    assert (a.status, a.json["code"]) == (422, "idempotency_key_reused")
    a = client.submit("echo", "x", idempotency_key=h["Idempotency-Key"])
    assert (a.status, a.json["code"]) == (422, "idempotency_key_reused")
    end(client, one["id"])


def test_equal_submissions_at_once_make_one_batch(client):
    h = {"Idempotency-Key": f"batch-{time.time_ns()}"}
    ids, threads = [], []
    for _ in range(6):
        def go():
            for _ in range(50):
                a = submit(client, echoes(200), headers=h)
                if a.status == 202:
                    ids.append(a.json["id"])
                    return
                assert a.status == 503, (a.status, a.body)
        threads.append(threading.Thread(target=go))
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(ids) == 6 and len(set(ids)) == 1
    end(client, ids[0])


def test_cancel_ends_what_waits_and_stops_what_runs(made):
    stack = made(SANDPIPER_EXECUTOR_JOBS="4", SANDPIPER_TENANT_WINDOW="8")
    items = [{"custom_id": f"c{i}", "agent": "probe", "prompt": json.dumps({"sleep": 60})} for i in range(3000)]
    b = accepted(submit(stack.client, items))
    until("some run", lambda: look(stack.client, b["id"])["counts"]["running"] == 4, 30)
    a = stack.client.call("POST", f"/v1/batches/{b['id']}/cancel")
    assert a.status == 202 and a.json["status"] in ("canceling", "canceled")
    r = end(stack.client, b["id"], 20)
    assert r["status"] == "canceled" and r["counts"]["canceled"] == 3000
    assert len({x["custom_id"] for x in results(stack.client, b["id"])}) == 3000
    assert stack.client.call("POST", f"/v1/batches/{b['id']}/cancel").json["status"] == "canceled"
    stack.quiet()


def test_batches_are_a_tenants_own(stack, client):
    b = accepted(submit(client, echoes(2)))
    other = Client(client.port, stack.new_key("batchless"))
    for method, path in (("GET", ""), ("GET", "/results"), ("POST", "/cancel")):
        a = other.call(method, f"/v1/batches/{b['id']}{path}")
        assert (a.status, a.json["code"]) == (404, "not_found")
    assert other.call("GET", "/v1/batches").json == {"data": [], "next_cursor": None}
    assert end(client, b["id"])["status"] == "completed"


def test_lists_of_batches_are_paged(stack, client):
    mine = Client(client.port, stack.new_key("lister"))
    mine.deploy("echo", {"agent.json": '{"runtime":"command","entry":"cat"}'})
    ids = [accepted(submit(mine, echoes(1)))["id"] for _ in range(5)]
    seen, cursor = [], ""
    while cursor is not None:
        page = mine.call("GET", f"/v1/batches?limit=2{cursor}").json
        seen += [x["id"] for x in page["data"]]
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
    assert seen == ids[::-1]
    for id in ids:
        end(mine, id)


def test_items_beyond_their_queue_limit_expire_fed_or_not(made):
    stack = made(SANDPIPER_EXECUTOR_JOBS="1")
    items = [{"agent": "probe", "prompt": json.dumps({"sleep": 4}), "queue_timeout_s": 1} for _ in range(30)]
    b = accepted(submit(stack.client, items, "?max_concurrency=2"))
    r = end(stack.client, b["id"], 60)
    assert r["counts"]["expired"] >= 28 and r["counts"]["expired"] + r["counts"]["succeeded"] == 30


def test_an_item_may_be_canceled_alone_before_it_is_fed(made):
    stack = made(SANDPIPER_EXECUTOR_JOBS="1")
    items = [{"custom_id": f"c{i}", "agent": "probe", "prompt": json.dumps({"sleep": 0.5})} for i in range(5)]
    b = accepted(submit(stack.client, items, "?max_concurrency=1"))
    last = stack.client.call("GET", f"/v1/invocations?batch={b['id']}&limit=1").json["data"][0]
    assert last["custom_id"] == "c4" and last["status"] == "queued"
    assert stack.client.call("POST", f"/v1/invocations/{last['id']}/cancel").json["status"] == "canceled"
    r = end(stack.client, b["id"])
    assert (r["counts"]["succeeded"], r["counts"]["canceled"], r["status"]) == (4, 1, "completed")


def test_a_batch_does_not_hold_up_its_tenants_other_jobs(made):
    stack = made(SANDPIPER_EXECUTOR_JOBS="2", SANDPIPER_TENANT_WINDOW="8")
    items = [{"agent": "probe", "prompt": json.dumps({"sleep": 0.2})} for _ in range(200)]
    b = accepted(submit(stack.client, items))
    until("it runs", lambda: look(stack.client, b["id"])["counts"]["running"] > 0, 30)
    assert stack.client.run("echo", "between")["status"] == "succeeded"
    assert look(stack.client, b["id"])["ended"] < 150, "the batch was over before"
    end(stack.client, b["id"])


def test_entries_that_nobody_claims_leave_room_for_urgent_ones():
    """A batch fills half of its tenant's window: while executors have other work, the rest is for what is submitted meanwhile."""
    stack = SimStack(SANDPIPER_EXECUTOR_JOBS="1", SANDPIPER_TENANT_WINDOW="8")
    try:
        stack.start()
        busy = Client(stack.gateways[0].port, stack.new_key("busy"))
        busy.deploy(AGENT, {"agent.json": '{"runtime": "command", "entry": "cat"}'})
        long = json.dumps({"sim": {"run_ms": 600_000}})
        first = busy.submit(AGENT, long).json["id"]
        until("the only slot is taken", lambda: busy.get(first)["status"] == "running")
        submit(stack.client, [{"agent": AGENT, "prompt": "x"}] * 50)
        until("the batch has its half", lambda: stack.redis_cli("xlen", "sp:q:low:0") == "4")
        stack.client.submit(AGENT, "urgent")
        until("the urgent one is on its stream", lambda: stack.redis_cli("xlen", "sp:q:normal:0") == "2", 10)
        assert stack.redis_cli("xlen", "sp:q:low:0") == "4"
    finally:
        stack.stop()


def test_without_redis_counts_are_stale_and_right(made):
    stack = made(SANDPIPER_EXECUTOR_JOBS="1")
    b = accepted(submit(stack.client, [{"agent": "probe", "prompt": json.dumps({"sleep": 1})} for _ in range(3)]))
    until("one runs", lambda: look(stack.client, b["id"])["counts"]["running"] == 1, 30)
    stack.redis.kill()
    until("it says so", lambda: look(stack.client, b["id"])["status_stale"], 10)
    stack.start_redis()
    assert end(stack.client, b["id"])["counts"]["succeeded"] == 3
