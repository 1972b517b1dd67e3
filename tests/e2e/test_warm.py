"""Warm pools: sandboxes made ahead, each used once; what they cost, and that they yield."""

import http.client
import json
import signal
import statistics
import time

import pytest

from sim_stack import SimStack
from stack import free_port, in_threads, until

FILES = {"agent.json": '{"runtime": "command", "entry": "cat"}'}
LIVE = 12


def metrics(stack, n=0):
    """{name: value} of an executor's counters and gauges."""
    c = http.client.HTTPConnection("127.0.0.1", stack.executors[n].metrics, timeout=10)
    c.request("GET", "/metrics")
    text = c.getresponse().read().decode()
    c.close()
    rows = [line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in rows}


def add_executor(stack, **env):
    port = free_port()
    p = stack.add_executor(SANDPIPER_EXECUTOR_LISTEN=f"127.0.0.1:{port}", **env)
    p.metrics = port
    return p


@pytest.fixture
def make(request):
    """make(sim=..., **env of executors): a Sandpiper without executors but one, whose metrics are served."""
    stacks = []

    def one(sim=None, executors=1, **env):
        s = SimStack(sim={"output": "ok", "create": "20ms", **(sim or {})})
        stacks.append(s)
        s.start(executors=1)
        s.executors.pop().stop()
        for _ in range(executors):
            add_executor(s, **env)
        return s

    yield one
    for s in stacks:
        s.stop()


def pool(stack, least, most=None, agent=None):
    where = f"agent = (select id from agents where slug = '{agent or stack.agent}')"
    stack.psql(f"update agent_versions set warm_min = {least}, warm_max = {most if most is not None else least} where {where}")


def ready(stack, n, seconds=20):
    def known():
        return sum(metrics(stack, i)["sandpiper_warm_sandboxes"] for i, p in enumerate(stack.executors) if p.alive())

    until(f"{n} sandboxes wait", lambda: stack.stats()["live"] == n == known(), seconds)


def sandbox_of(stack, id):
    return stack.psql(f"select sandbox from usage where id = '{id.removeprefix('inv_')}'")


def idle_ones(stack):
    return {i for i, d in stack.ledger().items() if d["ended_at"] is None and d["programs"] == 0}


def test_a_job_takes_one_that_waits_and_another_is_made(make):
    s = make()
    pool(s, 3)
    ready(s, 3)
    waiting = idle_ones(s)
    r = s.client.run(s.agent, "x")
    assert r["status"] == "succeeded"
    assert sandbox_of(s, r["id"]) in waiting
    until("three wait again", lambda: len(idle_ones(s)) == 3)
    m = metrics(s)
    assert m["sandpiper_warm_hits_total"] == 1 and m["sandpiper_warm_misses_total"] == 0
    assert m["sandpiper_warm_idle_seconds_total"] > 0 and m["sandpiper_warm_age_seconds_count"] == 1


def test_none_is_used_twice_and_each_attempt_has_its_usage(make):
    s = make()
    pool(s, 5)
    ready(s, 5)
    in_threads([lambda: s.client.run(s.agent, "x")] * 300, 16)
    used = [d["sandbox"] for d in s.ledger().values() if d["programs"] > 0]
    billed = s.psql("select sandbox from usage").split()
    assert max(d["programs"] for d in s.ledger().values()) == 1
    builds = {d["sandbox"] for d in s.ledger().values() if d["template"] == "base"}
    assert sorted(set(used) - builds) == sorted(billed) and len(set(billed)) == len(billed) == 300
    m = metrics(s)
    assert m["sandpiper_warm_hits_total"] + m["sandpiper_warm_misses_total"] == 300
    assert m["sandpiper_warm_hits_total"] > 5  # not only those of the beginning


def test_they_go_with_the_pool(make):
    s = make()
    pool(s, 3)
    ready(s, 3)
    pool(s, 1)
    ready(s, 1)
    pool(s, 0)
    ready(s, 0)


def test_a_new_version_has_its_own(make):
    s = make()
    pool(s, 2)
    ready(s, 2)
    old = idle_ones(s)
    s.client.deploy(s.agent, {**FILES, "n": "2"})
    pool(s, 2)  # of both versions: only what serves has a pool
    until("those of the old version are gone", lambda: not old & idle_ones(s) and len(idle_ones(s)) == 2)
    ready(s, 2)
    waiting = idle_ones(s)
    assert sandbox_of(s, s.client.run(s.agent, "x")["id"]) in waiting
    assert sandbox_of(s, s.client.run(f"{s.agent}@1", "x")["id"]) not in waiting


def test_old_ones_are_replaced(make):
    s = make(SANDPIPER_EXECUTOR_WARM_AGE="2s")
    pool(s, 2)
    ready(s, 2)
    first = idle_ones(s)
    until("others wait", lambda: len(idle_ones(s)) == 2 and not first & idle_ones(s))
    until("and it is counted", lambda: metrics(s)["sandpiper_warm_aged_total"] >= 2)


def test_a_limit_that_it_would_not_outlive_gets_its_own(make):
    s = make()
    pool(s, 2)
    ready(s, 2)
    waiting = idle_ones(s)
    r = s.client.run(s.agent, "x", timeout_s=3000)
    assert r["status"] == "succeeded" and sandbox_of(s, r["id"]) not in waiting
    assert metrics(s)["sandpiper_warm_misses_total"] == 1


def test_auto_follows_the_arrivals(make):
    s = make(sim={"create": "300ms"})
    pool(s, 0, 8)
    s.client.run(s.agent, "x")
    until("one is made for the next", lambda: idle_ones(s))
    end = time.monotonic() + 6  # a load's length
    while time.monotonic() < end:
        in_threads([lambda: s.client.run(s.agent, "x")] * 4, 4)
    assert len(idle_ones(s)) >= 4
    assert s.stats()["live"] <= 8 + 4
    until("without arrivals they go", lambda: len(idle_ones(s)) <= 2, 90)


def test_executors_share(make):
    s = make(executors=3)
    pool(s, 4)
    until("four wait", lambda: sum(metrics(s, n)["sandpiper_warm_sandboxes"] for n in range(3)) == 4 and s.stats()["live"] == 4)
    held = sorted(metrics(s, n)["sandpiper_warm_sandboxes"] for n in range(3))
    assert held == [1, 1, 2]
    s.executors[0].signal(signal.SIGTERM)
    until("two have all", lambda: sum(metrics(s, n)["sandpiper_warm_sandboxes"] for n in (1, 2)) == 4 and s.stats()["live"] == 4)


def test_a_cap_for_the_process(make):
    s = make(SANDPIPER_EXECUTOR_WARM="3")
    s.client.deploy("other", FILES)
    pool(s, 10)
    pool(s, 10, agent="other")
    ready(s, 3)
    assert metrics(s)["sandpiper_warm_sandboxes"] <= 3


def test_stopping_destroys_them(make):
    s = make()
    pool(s, 4)
    ready(s, 4)
    assert s.executors[0].stop() == 0
    assert s.stats()["live"] == 0


def test_a_dead_executors_are_reaped(make):
    s = make(executors=1)
    pool(s, 4)
    ready(s, 4)
    pool(s, 0)
    s.executors[0].kill()
    ready(s, 0, 60)
    assert s.psql("select count(*) from usage") == "0"


def test_a_killed_executors_job_has_its_usage(make):
    """The sandbox does not name its attempt: the executor's will does."""
    s = make()
    pool(s, 2)
    ready(s, 2)
    a = s.client.submit(s.agent, json.dumps({"sim": {"run_ms": 3000, "output": "late"}}), retry={"max_attempts": 1})
    id = a.json["id"].removeprefix("inv_")
    until("it runs", lambda: s.client.get(a.json["id"])["status"] == "running")
    first = next(i for i, d in s.ledger().items() if d["ended_at"] is None and d["programs"] == 1)
    pool(s, 0)
    s.executors[0].kill()
    add_executor(s)
    r = s.client.end(a.json["id"])
    assert r["status"] == "succeeded" and r["attempt"] == 2
    until("both attempts have their usage", lambda: s.psql(
        f"select string_agg(attempt::text, ',' order by attempt) from usage where id = '{id}'") == "1,2")
    assert s.psql(f"select sandbox from usage where id = '{id}' and attempt = 1") == first
    assert s.count(f"select sandbox_ms from usage where id = '{id}' and attempt = 1") > 0
    ready(s, 0, 60)


def test_one_that_was_gone_costs_the_caller_nothing(make):
    """The provider restarted, or ended it: the job gets one of its own in the same attempt."""
    s = make()
    pool(s, 3)
    ready(s, 3)
    for box in idle_ones(s):
        s.destroy(box)
    r = s.client.run(s.agent, "x" * 100)
    assert r["status"] == "succeeded" and r["attempt"] == 1
    ready(s, 3)


def test_without_redis_none_is_taken_and_jobs_run(make):
    """What Redis cannot be told of is not used: nobody could tell whose usage it is."""
    s = make()
    pool(s, 2)
    ready(s, 2)
    waiting = idle_ones(s)
    a = s.client.submit(s.agent, json.dumps({"sim": {"run_ms": 10}}))
    s.redis_cli("flushall")
    r = s.client.end(a.json["id"])
    assert r["status"] == "succeeded"
    r = s.client.run(s.agent, "x")
    assert r["status"] == "succeeded" and r["attempt"] == 1
    assert s.count("select count(*) from usage") == 2, waiting


def test_the_will_says_again_what_redis_forgot(make):
    s = make()
    pool(s, 2)
    ready(s, 2)
    a = s.client.submit(s.agent, json.dumps({"sim": {"run_ms": 6000, "output": "late"}}))
    until("it runs", lambda: s.client.get(a.json["id"])["status"] == "running")
    assert s.redis_cli("keys", "sp:will:*") != ""
    s.redis_cli("flushall")
    until("the will stands again", lambda: s.redis_cli("keys", "sp:will:*") != "")
    assert s.client.end(a.json["id"])["status"] == "succeeded"
    until("and goes with the outcome", lambda: s.redis_cli("keys", "sp:will:*") == "")


@pytest.mark.parametrize("asked, bounds", [(2, "2|2"), ({"min": 1, "max": 4}, "1|4"), ("auto", "0|20"), (0, "0|0")])
def test_agent_json_asks_for_them(asks, asked, bounds):
    s, name = asks, "asks-" + bounds.replace("|", "-")
    s.client.deploy(name, {"agent.json": json.dumps({"runtime": "command", "entry": "cat", "warm_pool": asked})})
    least, most = (int(n) for n in bounds.split("|"))
    assert s.psql(f"select warm_min, warm_max from agent_versions v join agents a on a.id = v.agent where slug = '{name}'") == bounds
    until("as many wait", lambda: len(idle_ones(s)) == least)
    pool(s, 0, agent=name)
    until("none waits", lambda: not idle_ones(s))


@pytest.fixture(scope="module")
def asks():
    s = SimStack(sim={"create": "5ms"})
    try:
        yield s.start()
    finally:
        s.stop()


# ---- the provider's quota ----


def test_they_count_against_the_quota_and_yield(make):
    """All places are taken by sandboxes that wait; another agent's jobs run all the same."""
    s = make(sim={"max_sandboxes": LIVE}, SANDPIPER_E2B_LIVE_SANDBOXES=str(LIVE))
    s.client.deploy("other", FILES)
    pool(s, LIVE)
    ready(s, LIVE)
    rs = in_threads([lambda: s.client.run("other", "x")] * 24, 12)
    assert {r["status"] for r in rs} == {"succeeded"}
    assert s.stats()["refused_live"] == 0, "the quota was exceeded"
    assert metrics(s)["sandpiper_warm_yielded_total"] > 0
    until("they are back", lambda: len(idle_ones(s)) == LIVE, 40)


def test_a_burst_is_served_beyond_the_rate_of_creates(make):
    """One create a second, ten that wait: ten jobs start at once."""
    s = make(sim={"creates_per_second": 2}, SANDPIPER_E2B_CREATES_PER_SECOND="2")
    pool(s, 10)
    ready(s, 10, 40)
    rs = in_threads([lambda: s.client.run(s.agent, "x")] * 10, 10)
    assert {r["status"] for r in rs} == {"succeeded"}
    started = [r["usage"]["queue_ms"] + r["usage"]["sandbox_start_ms"] for r in rs]
    assert statistics.median(started) < 1000, started  # by creates the fifth would have waited two seconds
    assert s.stats()["refused_rate"] == 0


def test_permits_come_back(make):
    """After everything the governor holds what lives, and no more."""
    s = make(sim={"max_sandboxes": LIVE}, SANDPIPER_E2B_LIVE_SANDBOXES=str(LIVE))
    pool(s, 5)
    ready(s, 5)
    in_threads([lambda: s.client.run(s.agent, "x")] * 60, 8)
    until("five wait", lambda: len(idle_ones(s)) == 5 and s.stats()["live"] == 5)

    def held():
        return sum(int(v) for v in s.redis_cli("hvals", "sp:gov:live").split())

    until("five permits are held", lambda: held() == 5)
    pool(s, 0)
    ready(s, 0)
    until("none is held", lambda: held() == 0)


def test_a_redis_with_an_older_memory_keeps_no_old_will(make):
    """It was saved while a job ran, and comes back when that has long been settled."""
    s = make()
    pool(s, 1)
    ready(s, 1)
    a = s.client.submit(s.agent, json.dumps({"sim": {"run_ms": 1000}}))
    until("it runs", lambda: s.client.get(a.json["id"])["status"] == "running")
    s.redis_cli("save")
    assert s.redis_cli("keys", "sp:will:*") != ""
    s.client.end(a.json["id"])
    until("its will is gone", lambda: s.redis_cli("keys", "sp:will:*") == "")
    s.redis.kill()
    s.start_redis()
    s.client.run(s.agent, "x")
    until("the old will is gone, too", lambda: s.redis_cli("keys", "sp:will:*") == "")
