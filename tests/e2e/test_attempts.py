"""What a record tells of its attempts: who had each, in which sandbox, from when to when, and what became of it."""

import datetime
import json
import os
import re
import signal

import pytest

import fault_proxy as fault
from e2e_agents import AGENTS
from stack import Stack, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root")

CREATE = r"^/(v2/)?sandboxes$"
USAGE = {"queue_ms", "sandbox_start_ms", "run_ms", "sandbox_ms", "cpu_ms", "peak_memory_bytes"}
FIELDS = {"attempt", "executor", "sandbox", "started_at", "finished_at", "outcome", "usage"}


def order(**kw):
    return json.dumps(kw)


@pytest.fixture(scope="module")
def made():
    s = Stack()
    proxy = fault.FaultProxy(s.sandboxd_port)
    url = f"http://127.0.0.1:{proxy.port}"
    s.extra = {"E2B_API_URL": url, "E2B_SANDBOX_URL": url, "SANDPIPER_CREATE_DEADLINE": "2s"}
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


def boot_of(executor):
    return re.search(r'"boot":"([0-9a-f-]{36})"', executor.text()).group(1)


def check_whole(r):
    """What holds of every record: attempts in order, in time, with their fields; the last one agrees with the record."""
    attempts = r["attempts"]
    assert [set(a) for a in attempts] == [FIELDS] * len(attempts)
    assert [a["attempt"] for a in attempts] == list(range(1, len(attempts) + 1))
    for a in attempts:
        assert (a["usage"] is None) == (a["sandbox"] is None), a
        assert a["usage"] is None or set(a["usage"]) == USAGE
        assert a["started_at"] is None or r["created_at"] <= a["started_at"] <= a["finished_at"], a
    for before, after in zip(attempts, attempts[1:]):
        assert before["finished_at"] <= after["finished_at"]
    sandboxes = [a["sandbox"] for a in attempts if a["sandbox"]]
    assert len(set(sandboxes)) == len(sandboxes), "no sandbox serves twice"
    if attempts:
        last = attempts[-1]
        assert (last["attempt"], last["outcome"]) == (r["attempt"], r["status"])
        assert (last["started_at"], last["finished_at"]) == (r["started_at"], r["finished_at"])
        if last["usage"]:
            assert last["usage"] == {k: r["usage"][k] for k in USAGE}
    return attempts


@pytest.mark.parametrize("ask,status", [({"text": "fine"}, "succeeded"), ({"exit": 3}, "failed")])
def test_one_attempt(stack, ask, status):
    r = stack.client.run("probe", order(**ask))
    a, = check_whole(r)
    assert a["outcome"] == status and a["executor"] == boot_of(stack.executors[-1])
    assert a["sandbox"] and a["usage"]["sandbox_ms"] >= 0 and a["usage"]["cpu_ms"] is not None
    listed = stack.client.call("GET", "/v1/invocations?limit=1").json["data"][0]
    assert listed["attempts"] == r["attempts"], "lists tell the same"


def test_nobody_had_it(stack):
    later = stack.client.submit("echo", "x", not_before="2099-01-01T00:00:00Z")
    assert later.status == 400
    id = stack.client.submit("echo", "x", not_before=in_an_hour()).json["id"]
    r = stack.client.call("POST", f"/v1/invocations/{id}/cancel").json
    assert (r["status"], r["attempts"]) == ("canceled", [])


def in_an_hour():
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize("ask,fields,outcome", [
    ({"exit": 3}, {}, "failed"), ({"sleep": 30}, {"timeout_s": 1}, "timed_out")])
def test_a_program_that_is_run_again(stack, ask, fields, outcome):
    r = stack.client.run("probe", order(**ask), retry={"max_attempts": 2, "on": ["failed", "timed_out"]}, **fields)
    assert [a["outcome"] for a in check_whole(r)] == [outcome, outcome]
    assert all(a["usage"]["sandbox_ms"] >= 0 and a["executor"] for a in r["attempts"])


def test_a_provider_that_fails_first(stack, proxy):
    proxy.on("POST", CREATE, fault.status(400), times=2)
    r = stack.client.run("echo", "late")
    first, second, third = check_whole(r)
    assert [first["outcome"], second["outcome"], third["outcome"]] == ["provider_failed", "provider_failed", "succeeded"]
    assert first["executor"] == boot_of(stack.executors[-1]) and first["started_at"] is None and first["usage"] is None
    shown = stack.cli("get", r["id"]).stdout.decode()
    assert re.search(r"attempt +1: provider_failed at 20\S+, executor \S+\n", shown), shown
    assert re.search(r"attempt +3: succeeded at 20\S+, executor \S+, sandbox \S+\n", shown), shown


def test_an_end_without_a_sandbox_names_its_executor(stack, proxy):
    proxy.on("POST", CREATE, fault.status(400), times=1000)
    r = stack.client.run("echo", "never", queue_timeout_s=1)
    assert r["status"] == "error" and r["error"]["code"] == "provider_failed"
    assert all(a["executor"] == boot_of(stack.executors[-1]) and a["usage"] is None for a in check_whole(r))
    assert r["attempts"][-1]["outcome"] == "error"


def test_a_sandbox_that_is_lost(stack):
    id = stack.client.submit("probe", order(sleep=3)).json["id"]
    box = until("it runs", lambda: stack.client.get(id)["status"] == "running" and stack.sandboxes())[0]["sandboxID"]
    stack.destroy(box)
    first, second = check_whole(stack.client.end(id))
    assert (first["outcome"], first["sandbox"], second["outcome"]) == ("sandbox_lost", box, "succeeded")
    assert first["usage"]["run_ms"] > 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_an_executor_that_is_lost(stack, how):
    """Its attempt is told, with the usage: the reaper's for a dead one, its own, late, for one that wakes."""
    client, victim = stack.client, stack.executors[-1]
    id = client.submit("probe", order(sleep=2, text="done")).json["id"]
    until("it runs", lambda: client.get(id)["status"] == "running")
    box, = [b["sandboxID"] for b in stack.sandboxes()]
    lost = boot_of(victim)
    victim.signal(how)
    heir = stack.add_executor()
    r = client.end(id)
    if how == signal.SIGSTOP:
        victim.signal(signal.SIGCONT)

    def told():
        r = client.get(id)
        return r["attempts"][0]["usage"] and r

    r = until("the lost attempt's usage is there", told, 30)
    first, second = check_whole(r)
    assert (first["outcome"], first["executor"], first["sandbox"]) == ("executor_lost", lost, box)
    assert first["started_at"] and first["usage"]["sandbox_ms"] > 0
    assert (second["outcome"], second["executor"]) == ("succeeded", boot_of(heir))
    stack.quiet(40)
    victim.stop()


def test_many_attempts_show_the_newest(stack, proxy):
    """More than anybody reads: an outage of the provider makes an attempt a minute."""
    id = stack.client.submit("echo", "x", not_before=in_an_hour()).json["id"]
    uuid = id[4:]
    stack.psql(f"delete from attempts where id = '{uuid}'")
    stack.psql("insert into attempts (id, attempt, tenant, not_before, reason, reruns, blames, ended_at) select "
               f"'{uuid}', n, 1, now() + interval '1 hour', 'provider_failed', 0, 0, now() from generate_series(2, 1000) n")
    r = stack.client.get(id)
    assert (r["status"], r["attempt"]) == ("scheduled", 1000)
    assert [a["attempt"] for a in r["attempts"]] == list(range(951, 1000))
    assert {a["outcome"] for a in r["attempts"]} == {"provider_failed"}
    assert stack.client.call("POST", f"/v1/invocations/{id}/cancel").json["status"] == "canceled"


def test_a_result_that_came_before_its_heirs(stack):
    """An executor thought dead may still be first: the heir's attempt is told, with what it cost."""
    id = stack.client.submit("echo", "x", not_before=in_an_hour()).json["id"]
    uuid, boot, heir = id[4:], "00000000-0000-7000-8000-00000000000a", "00000000-0000-7000-8000-00000000000b"
    stack.psql("insert into attempts (id, attempt, tenant, not_before, reason, reruns, blames, executor, ended_at) "
               f"values ('{uuid}', 2, 1, now(), 'executor_lost', 0, 1, '{boot}', now())")
    stack.psql("insert into usage (id, attempt, tenant, agent, boot, sandbox, queue_ms, sandbox_start_ms, run_ms, sandbox_ms, "
               f"started_at) select '{uuid}', n, 1, gen_random_uuid(), b, 's' || n, 0, 1, 2, 3, now() "
               f"from (values (1, '{boot}'::uuid), (2, '{heir}'::uuid)) v (n, b)")
    stack.psql("insert into results (id, tenant, attempt, boot, status, output, output_bytes, output_truncated, logs, "
               f"logs_bytes, logs_truncated, started_at, finished_at) values ('{uuid}', 1, 1, '{boot}', 1, '', 0, false, '', 0, "
               "false, now(), now())")
    r = stack.client.get(id)
    assert [(a["outcome"], a["executor"]) for a in r["attempts"]] == [("succeeded", boot), ("superseded", heir)]
    assert (r["status"], r["attempt"]) == ("succeeded", 1) and r["attempts"][1]["usage"]["sandbox_ms"] == 3
