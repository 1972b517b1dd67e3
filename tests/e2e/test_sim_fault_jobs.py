"""Jobs on a provider that fails three times in ten, in each way it can, and then heals: what DESIGN's failure protocol says.

Every accepted job ends, once, under its own name; a 429 spends nothing; what failed before the program's start is tried
again, a sandbox lost after it at most three times; no sandbox is left; and each sandbox that came to be, told of or not,
has its attempt's one usage record."""

import json
import time
import uuid

import pytest

from sim_stack import AGENT, SimStack
from stack import in_threads, until

JOBS = 200
SHARE = 0.3


@pytest.fixture(scope="module")
def stack():
    s = SimStack(sim={"seed": 20, "create": "1..20ms", "start": "0..5ms"}, SANDPIPER_CREATE_DEADLINE="2s",
                 SANDPIPER_START_DEADLINE="2s")
    try:
        yield s.start()
    finally:
        s.stop()


def order(i, **kw):
    return json.dumps({"sim": {"run_ms": 60, "pieces": 3, "output": f"this is {i}", **kw}})


def nonce_of(invocation, attempt):
    b = bytearray(uuid.UUID(invocation[4:]).bytes)
    b[6] = b[6] & 0x0F | (attempt >> 2) << 4
    b[8] = b[8] & 0x3F | (attempt & 3) << 6
    return str(uuid.UUID(bytes=bytes(b)))


def check_usage(stack, ids):
    """Each attempt that a sandbox was made for has one record of usage, and no other has."""
    rows = stack.psql("select id, attempt from usage").splitlines()
    of_jobs = [(f"inv_{id}", int(attempt)) for id, attempt in (r.split("|") for r in rows) if f"inv_{id}" in ids]
    assert len(of_jobs) == len(set(of_jobs))
    recorded = {nonce_of(*x) for x in of_jobs}
    attempts = {nonce_of(id, n) for id in ids for n in range(1, 64)}
    made = [line["metadata"].get("nonce") for line in stack.ledger().values()]
    made = {n for n in made if n in attempts}
    assert not recorded - made, "usage of sandboxes that never were"
    assert not made - recorded, f"{len(made - recorded)} of {len(made)} sandboxes have no usage"


def usage_is_whole(stack, ids):
    """The reaper may be later than the job's end."""
    def whole():
        try:
            check_usage(stack, ids)
        except AssertionError as e:
            return whole.why.append(e)
        return True

    whole.why = []
    try:
        until("usage is whole", whole, 40, every=1)
    except AssertionError:
        raise whole.why[-1]


def go_through(stack, call, fault, prompt=lambda i: order(i), jobs=JOBS, seconds=90, retried=False, **rule):
    """Submits the jobs while the faults hold, heals when enough were met, and returns all records. retried: an attempt
    must have failed by then."""
    before = stack.injected(call)
    stack.faults({"on": call, "fault": fault, "p": SHARE, **rule}, seed=1)
    client = stack.client
    try:
        answers = in_threads([lambda i=i: client.submit(AGENT, prompt(i), metadata={"i": i}) for i in range(jobs)], workers=8)
        assert all(a.status == 202 for a in answers)
        ids = [a.json["id"] for a in answers]
        until(f"{call} {fault} is met", lambda: stack.injected(call) - before >= jobs * SHARE / 3, 60)
        until("half of them have ended in spite of it", lambda: count(stack, "results", ids) >= jobs // 2, 60)
        if retried:
            until("some are tried again", lambda: count(stack, "attempts", ids) > 0, 60)
    finally:
        stack.heal()
    records = in_threads([lambda id=id: client.end(id, seconds) for id in ids], workers=16)
    stack.quiet(60)
    usage_is_whole(stack, set(ids))
    return records


def count(stack, table, ids):
    return stack.count(f"select count(*) from {table} where id in (%s)" % ",".join(f"'{id[4:]}'" for id in ids))


def all_succeeded(records, gaps=False):
    """gaps: E2B keeps no output for a listener that is away; then the record says that some may be missing."""
    bad = [(r["id"], r["status"], r["attempt"], r["error"]) for r in records if r["status"] != "succeeded"]
    assert not bad, bad
    wrong = [(r["output"], r["output_truncated"]) for i, r in enumerate(records)
             if not (r["output"] == f"this is {i}" or (gaps and r["output_truncated"]))]
    assert not wrong, wrong
    assert gaps or not any(r["output_truncated"] for r in records)


# ---- nothing was done ----


@pytest.mark.parametrize("fault", ["429_rate", "429_limit"])
def test_a_429_spends_nothing(stack, fault):
    records = go_through(stack, "create", fault, jobs=60)
    all_succeeded(records)
    assert {r["attempt"] for r in records} == {1}


@pytest.mark.parametrize("fault", ["500", "502", "503", "504", "reset", "hang"])
def test_creates_that_fail_are_tried_again(stack, fault):
    records = go_through(stack, "create", fault, retried=True, **({"for_ms": 3000} if fault == "hang" else {}))
    all_succeeded(records)
    assert max(r["attempt"] for r in records) > 1


# ---- the sandbox came to be, and nobody was told ----


@pytest.mark.parametrize("fault", ["lost", "cut", "mute", "bad_json", "trickle"])
def test_a_create_whose_answer_is_lost(stack, fault):
    records = go_through(stack, "create", fault, retried=True)
    all_succeeded(records)
    assert max(r["attempt"] for r in records) > 1


def test_lost_creates_while_lists_fail_too(stack):
    """What the executor could not look up, the reaper finds, though the executor lives."""
    stack.faults()
    before = stack.injected("list")
    stack.faults({"on": "create", "fault": "lost", "p": SHARE}, *(
        {"on": "list", "fault": fault, "p": 0.5} for fault in ("500", "reset", "bad_json")), seed=2)
    client = stack.client
    try:
        ids = [client.submit(AGENT, order(i)).json["id"] for i in range(60)]
        records = in_threads([lambda id=id: client.end(id, 90) for id in ids], workers=16)
        assert stack.injected("list") > before
    finally:
        stack.heal()
    all_succeeded(records)
    stack.quiet(60)
    usage_is_whole(stack, set(ids))


# ---- before the program's start ----


@pytest.mark.parametrize("fault", ["429_rate", "429_limit", "500", "502", "503", "504", "reset", "hang", "lost", "mute"])
def test_starts_that_fail_are_tried_again(stack, fault):
    records = go_through(stack, "start", fault, retried=True, **({"for_ms": 3000} if fault in ("hang", "mute") else {}))
    all_succeeded(records)
    assert max(r["attempt"] for r in records) > 1


@pytest.mark.parametrize("fault", ["500", "503", "reset", "lost", "bad_json", "hang"])
def test_uploads_that_fail_are_tried_again(stack, fault):
    big = " " * 70_000
    records = go_through(stack, "upload", fault, lambda i: big + order(i), jobs=60,
                         **({"for_ms": 3000} if fault == "hang" else {}))
    all_succeeded(records)


# ---- streams that break while the program runs ----


@pytest.mark.parametrize("fault", ["cut", "bad_json", "bad_length", "bad_flags", "no_end", "no_end_stream"])
def test_streams_that_break_are_taken_up_again(stack, fault):
    """The program's end is known in the end."""
    all_succeeded(go_through(stack, "start", fault), gaps=fault != "no_end_stream")


@pytest.mark.parametrize("fault", ["cut", "reset", "500", "bad_json", "no_end", "stall"])
def test_the_way_back_to_a_program_fails_too(stack, fault):
    stack.faults()
    before = stack.injected("connect")
    stack.faults({"on": "start", "fault": "cut", "p": 0.5, "bytes": 60}, {"on": "connect", "fault": fault, "p": SHARE, **(
        {"for_ms": 500} if fault == "stall" else {})}, seed=3)
    client = stack.client
    try:
        ids = [client.submit(AGENT, order(i)).json["id"] for i in range(JOBS)]
        until("the way back has failed", lambda: stack.injected("connect") - before >= 10, 60)
    finally:
        stack.heal()
    all_succeeded(in_threads([lambda id=id: client.end(id, 90) for id in ids], workers=16), gaps=True)
    stack.quiet(60)
    usage_is_whole(stack, set(ids))


@pytest.mark.parametrize("fault", ["trickle", "stall"])
def test_a_stream_that_says_nothing_is_left_in_time(stack, fault):
    """Healed, it goes on; the program's limit counts all the same."""
    records = go_through(stack, "start", fault, jobs=60, **({"for_ms": 2000} if fault == "stall" else {"rate": 400}))
    all_succeeded(records, gaps=fault == "stall")


@pytest.mark.parametrize("goes, ends_as", [
    ({"run_ms": 800, "exit_code": 3}, {"status": "failed", "exit_code": 3, "error": None}),
    ({"run_ms": 60_000, "pieces": 600, "output_bytes": 60_000}, {"status": "timed_out", "exit_code": None}),
], ids=["ended", "too long"])
def test_a_limit_that_passes_while_nobody_can_look(stack, goes, ends_as):
    """Whether the program had ended by then is asked when there is a way again, and nothing is filed until then."""
    stack.faults({"on": "start", "fault": "cut", "bytes": 60}, {"on": ["health", "connect"], "fault": "reset"})
    id = stack.client.submit(AGENT, order(0, **goes), timeout_s=2).json["id"]
    until("it runs", lambda: stack.client.get(id)["status"] == "running")
    begin = time.monotonic()
    until("its limit has passed", lambda: time.monotonic() - begin > 3.5)
    r = stack.client.get(id)
    assert r["finished_at"] is None, (r["status"], r["exit_code"], r["error"], r["attempts"])
    stack.heal()
    r = stack.client.end(id)
    assert {k: r[k] for k in ends_as} == ends_as and r["attempt"] == 1, (r["status"], r["exit_code"], r["error"], r["attempt"])
    stack.quiet()


# ---- sandboxes that go under a running program ----


def test_lost_sandboxes_are_run_again_three_times_at_most(stack):
    records = go_through(stack, "start", "vanish", retried=True, for_ms=10)
    for i, r in enumerate(records):
        if r["status"] == "succeeded":
            assert r["attempt"] <= 4 and r["output"] == f"this is {i}"
        else:
            assert (r["status"], r["error"]["code"], r["attempt"]) == ("error", "sandbox_lost", 4), r
    assert max(r["attempt"] for r in records) > 1


# ---- sandboxes that do not want to go ----


@pytest.mark.parametrize("fault", ["429_rate", "429_limit", "500", "503", "reset", "hang", "lost", "mute", "bad_json"])
def test_kills_that_fail_are_repeated(stack, fault):
    records = go_through(stack, "kill", fault, jobs=100, **({"for_ms": 2000} if fault in ("hang", "mute") else {}))
    all_succeeded(records)
    assert {r["attempt"] for r in records} == {1}


# ---- builds ----


def test_builds_that_the_provider_failed_are_tried_again(stack):
    calls = ["create", "upload", "start", "snapshot"]
    before = sum(stack.injected(c) for c in calls)
    faults = ("429_rate", "500", "503", "reset", "lost", "cut", "bad_json")
    stack.faults(*({"on": calls, "fault": f, "p": 0.05} for f in faults), seed=5)
    files = {"agent.json": '{"runtime": "command", "entry": "cat", "install": "true"}'}
    try:
        in_threads([lambda i=i: stack.client.deploy(f"built-{i}", files, 120) for i in range(16)], workers=16)
        assert sum(stack.injected(c) for c in calls) - before >= 5
    finally:
        stack.heal()
    stack.quiet(60)


# ---- all of it at once ----


def test_everything_at_once(stack):
    rules = [{"on": "create", "fault": f, "p": 0.04} for f in ("429_rate", "500", "503", "reset", "lost", "cut", "bad_json")]
    rules += [{"on": "start", "fault": f, "p": 0.04} for f in ("500", "reset", "lost", "cut", "bad_flags", "no_end", "no_end_stream")]
    rules += [{"on": ["kill", "list", "connect", "health"], "fault": f, "p": 0.1} for f in ("500", "reset", "429_rate", "lost")]
    stack.faults(*rules, seed=4)
    client = stack.client
    try:
        ids = [client.submit(AGENT, order(i)).json["id"] for i in range(300)]
        until("half of them have ended", lambda: count(stack, "results", ids) >= 150, 90)
    finally:
        stack.heal()
    all_succeeded(in_threads([lambda id=id: client.end(id, 90) for id in ids], workers=16), gaps=True)
    stack.quiet(60)
    usage_is_whole(stack, set(ids))


def test_a_gigabyte_of_output_is_cut_at_the_limit(stack):
    stack.faults({"on": "start", "fault": "flood", "times": 1})
    r = stack.client.run(AGENT, order(0))
    stack.heal()
    assert (r["status"], r["output_truncated"], r["output_size"]) == ("succeeded", True, 10 * 1024 * 1024), r
    stack.quiet()
