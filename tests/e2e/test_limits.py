"""Limits of queues and of disk: what happens when one is reached is said, and passes."""

import json
import os
import time

import pytest

from e2e_agents import AGENTS, make_stack
from stack import Client, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root")


def order(**kw):
    return json.dumps(kw)


@pytest.fixture
def made():
    stacks = []

    def make(**kw):
        stacks.append(make_stack(**kw))
        return stacks[-1]

    yield make
    for s in stacks:
        s.stop()


def spooled(executor):
    """Bytes in the executor's unlinked files."""
    total, where = 0, f"/proc/{executor.pid}/fd"
    for fd in os.listdir(where):
        try:
            if "(deleted)" in os.readlink(f"{where}/{fd}"):
                total += os.stat(f"{where}/{fd}").st_size
        except FileNotFoundError:
            pass
    return total


def test_a_job_that_nobody_claims_expires(made):
    stack = made()
    client = stack.client
    stack.executors[0].stop()
    began = time.monotonic()
    short = client.submit("echo", "x", queue_timeout_s=2).json["id"]
    long = client.submit("echo", "y", queue_timeout_s=3600).json["id"]
    until("it is queued", lambda: client.get(short)["status"] == "queued")
    r = client.end(short, 20)
    assert (r["status"], r["error"]["code"], r["started_at"]) == ("expired", "queue_timeout", None)
    assert 2 <= time.monotonic() - began < 12
    assert client.get(long)["status"] == "queued", "only what has passed its limit"
    until("its entry is gone", lambda: stack.redis_cli("xlen", "sp:q:normal:0") == "1")
    stack.add_executor()
    assert client.end(long)["status"] == "succeeded"
    assert stack.count("select count(*) from results") == 2
    stack.quiet()


def test_jobs_behind_a_full_window_expire_too(made):
    stack = made(env={"SANDPIPER_TENANT_WINDOW": "2"})
    client = stack.client
    stack.executors[0].stop()
    ids = [client.submit("echo", str(n), queue_timeout_s=2).json["id"] for n in range(6)]
    assert [client.end(id, 20)["status"] for id in ids] == ["expired"] * 6
    stack.add_executor()
    assert client.run("echo", "still here")["status"] == "succeeded"
    stack.quiet()


def test_a_running_job_does_not_expire(made):
    stack = made()
    r = stack.client.run("probe", order(sleep=6), queue_timeout_s=2)
    assert (r["status"], r["attempt"]) == ("succeeded", 1)


def test_outputs_share_one_budget_of_disk(made):
    stack = made(env={"SANDPIPER_EXECUTOR_SPOOL_BYTES": "1m", "SANDPIPER_EXECUTOR_JOBS": "5"})
    client, executor = stack.client, stack.executors[0]
    ids = [client.submit("probe", order(bytes=900 * 1024, sleep=3)).json["id"] for _ in range(3)]
    until("the budget is used up", lambda: spooled(executor) >= 1 << 20)
    waits = client.submit("echo", "later").json["id"]
    seen = set()
    while spooled(executor) >= 1 << 20:
        status = client.get(waits)["status"]
        seen.add(status if spooled(executor) >= 1 << 20 else "queued")
        assert spooled(executor) <= 1 << 20
    records = [client.end(id) for id in ids]
    assert [r["status"] for r in records] == ["succeeded"] * 3
    assert sum(r["output_truncated"] for r in records) >= 1, "what did not fit was cut, and that is said"
    for r in records:
        body = client.call("GET", r["output_url"]).body
        assert len(body) == r["output_size"] and body == bytes(i * 7 % 256 for i in range(len(body)))
        assert r["output_truncated"] == (len(body) < 900 * 1024)
    assert seen <= {"queued"}, "nothing is claimed while the budget is used up"
    assert client.end(waits)["status"] == "succeeded"
    until("the disk is free again", lambda: spooled(executor) == 0)


def test_an_executor_without_a_spool_directory_says_so(made):
    stack = made()
    gone = stack.dir / "no-such-directory"
    stack.executors[0].stop()
    p = stack._daemon("executor", {"SANDPIPER_SPOOL_DIR": str(gone)}, 1)
    assert p.child.wait(timeout=20) != 0
    assert str(gone) in p.text() and "SANDPIPER_SPOOL_DIR" in p.text()
    stack.add_executor()
