"""The queue: windows, fairness, permits, and a provider that is away."""

import json
import os
import threading
import time

import pytest

from e2e_agents import make_stack
from stack import Client, in_threads, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root")


def order(**kw):
    return json.dumps(kw)


@pytest.fixture
def made():
    stacks = []

    def make(**env):
        stacks.append(make_stack(env=env))
        return stacks[-1]

    yield make
    for s in stacks:
        s.stop()


def submit_all(client, n, prompt):
    answers = in_threads([lambda i=i: client.submit("probe", prompt(i)) for i in range(n)], 32)
    assert [a.status for a in answers] == [202] * n
    return [a.json["id"] for a in answers]


def watch(value, stop):
    """The largest value seen until stop is set."""
    seen = [0]

    def look():
        while not stop.wait(0.02):
            seen[0] = max(seen[0], value())

    t = threading.Thread(target=look)
    t.start()
    return seen, t


def test_what_exceeds_the_window_waits_in_postgres_and_all_of_it_runs(made):
    stack = made(SANDPIPER_TENANT_WINDOW="5", SANDPIPER_EXECUTOR_JOBS="3")
    stop = threading.Event()
    longest, t = watch(lambda: int(stack.redis_cli("xlen", "sp:q:normal:0") or 0), stop)
    ids = submit_all(stack.client, 60, lambda i: order(text=str(i), sleep=0.1))
    for id in ids:
        assert stack.client.end(id, 90)["status"] == "succeeded"
    stop.set()
    t.join()
    assert longest[0] <= 5 + 3, "entries: the window and what runs"
    assert stack.count("select count(*) from usage") == 60
    until("the backlog's mark is cleared", lambda: stack.redis_cli("hlen", "sp:bl") == "0", 10)
    stack.quiet()


def test_a_flooding_tenant_does_not_starve_another(made):
    stack = made(SANDPIPER_TENANT_WINDOW="4", SANDPIPER_EXECUTOR_JOBS="3")
    other = Client(stack.gateways[0].port, stack.new_key("small"))
    other.deploy("echo", {"agent.json": '{"runtime":"command","entry":"cat"}'})
    flood = submit_all(stack.client, 150, lambda i: order(sleep=0.2))
    began = time.monotonic()
    assert other.run("echo", "just one")["status"] == "succeeded"
    mine = time.monotonic() - began
    done = stack.count("select count(*) from results where tenant = 1")
    assert done < 100, "the flood was over before the other tenant's job"
    assert mine < 5, f"a single job waited {mine:.1f} s behind a flood"
    for id in flood[::10]:
        assert stack.client.end(id, 120)["status"] == "succeeded"
    until("the flood ends", lambda: stack.count("select count(*) from results") == 151, 120)


def test_live_sandboxes_stay_within_the_quota(made):
    stack = made(SANDPIPER_E2B_LIVE_SANDBOXES="3")
    stop = threading.Event()
    most, t = watch(lambda: len(stack.sandboxes()), stop)
    ids = submit_all(stack.client, 20, lambda i: order(sleep=0.3))
    for id in ids:
        r = stack.client.end(id, 90)
        assert (r["status"], r["attempt"]) == ("succeeded", 1)
    stop.set()
    t.join()
    assert 1 <= most[0] <= 3
    stack.quiet()
    until("no permit is held", lambda: all(int(h) == 0 for h in stack.redis_cli("hvals", "sp:gov:live").split()), 10)


def test_creates_stay_within_the_rate(made):
    stack = made(SANDPIPER_E2B_CREATES_PER_SECOND="5")
    began = time.monotonic()
    ids = submit_all(stack.client, 25, lambda i: order(text="x"))
    for id in ids:
        assert stack.client.end(id, 90)["status"] == "succeeded"
    assert time.monotonic() - began > (25 - 5) / 5 - 0.5
    starts = sorted(float(x) for x in stack.psql("select extract(epoch from started_at) from results").split())
    for i in range(len(starts) - 11):  # in any second: a burst of 5 and 5 more, with the jitter of starting
        assert starts[i + 11] - starts[i] > 0.5


def test_a_provider_that_is_away_costs_time_and_no_job(made):
    stack = made()
    stack.sandboxd.stop()
    ids = submit_all(stack.client, 5, lambda i: order(text=str(i)))
    until("an attempt has failed", lambda: stack.count("select count(*) from attempts") > 0, 30)
    r = stack.client.get(ids[0])
    assert r["status"] in ("scheduled", "queued", "starting")
    stack.start_sandboxd()
    for id in ids:
        r = stack.client.end(id, 90)
        assert r["status"] == "succeeded" and r["attempt"] > 1
    assert stack.count("select count(*) from usage") == 5, "an attempt without a sandbox has no usage"
    stack.quiet()


def test_the_command_line_against_the_real_thing(made, tmp_path):
    stack = made()
    agent = tmp_path / "upper"
    agent.mkdir()
    (agent / "agent.json").write_text('{"runtime": "command", "entry": "tr a-z A-Z"}')
    assert stack.cli("deploy", str(agent), "--name", "upper").returncode == 0
    assert stack.cli("invoke", "upper", "shout").stdout == b"SHOUT"
    assert stack.cli("invoke", "upper", "-", stdin=b"from stdin\n").stdout == b"FROM STDIN\n"
    failed = stack.cli("invoke", "probe", order(exit=7, stderr="no luck\n"), check=False)
    assert failed.returncode == 1 and b"no luck" in failed.stderr
    id = json.loads(stack.cli("invoke", "probe", order(exit=7, stderr="no luck\n"), "--json", check=False).stdout)["id"]
    assert stack.cli("logs", id).stdout == b"no luck\n"
    record = json.loads(stack.cli("invoke", "upper", "x", "--json").stdout)
    assert record["status"] == "succeeded"
    assert json.loads(stack.cli("get", record["id"], "--json").stdout)["output"] == "X"
    id = stack.client.submit("probe", order(sleep=60)).json["id"]
    until("it runs", lambda: stack.client.get(id)["status"] == "running")
    assert stack.cli("cancel", id).returncode == 0
    assert stack.client.end(id, 10)["status"] == "canceled"
    assert stack.cli("invoke", "nobody", "x", check=False).returncode == 3
    assert stack.cli("migrate").returncode == 0
