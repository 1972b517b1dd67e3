"""Crashes of our own: who is blamed, what it costs the others, and what a dead executor's sandboxes leave behind."""

import datetime
import signal
import time

import pytest

from stack import until


def in_seconds(n):
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=n)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def lost(l, reason, id=None):
    where = f"and id {'=' if id else 'is not'} {repr(id[4:]) if id else 'null'}"
    return l.stack.count(f"select count(*) from attempts where reason = '{reason}' {where}")


@pytest.mark.parametrize("where", ["executor_create", "executor_started", "executor_ended", "executor_settling"])
def test_three_crashes_make_poison_of_one_job_among_200(lane, where):
    l = lane(sim={"creates_per_second": 0}, SANDPIPER_TENANT_WINDOW="512")
    guilty = l.submit(expect="error", not_before=in_seconds(1.5))
    l.files["executor"].arm(where, "abort", times=100, job=guilty)
    l.jobs(200, plan={"run_ms": 3000})
    r = l.stack.client.end(guilty, 30)
    assert (r["status"], r["error"]["code"]) == ("error", "poison")
    assert [a["outcome"] for a in r["attempts"]] == ["executor_crashed", "executor_crashed", "error"]
    l.quiet()
    l.check()  # the 200 have succeeded
    assert lost(l, "executor_crashed") == lost(l, "executor_crashed", guilty) == 2, "the third ends it; nobody else is blamed"
    assert lost(l, "executor_lost") > 0, "it crashed all alone: that shows nothing"
    assert lost(l, "executor_lost", guilty) == 0
    assert l.deaths.count(-signal.SIGABRT) == 3, f"the exit status tells: {l.deaths}"


def test_a_build_that_crashes_an_executor_ends_and_the_next_one_is_built(lane):
    l = lane()
    l.files["executor"].arm("executor_build_upload", "abort")
    l.deploy("fragile")
    build = until("its build ends", lambda: (b := l.build_of("fragile"))["status"] != "building" and b, 20)
    assert (build["status"], build["error"]["code"]) == ("failed", "poison"), build
    l.deploy("fragile")
    until("the next one is ready", lambda: l.build_of("fragile")["status"] == "ready", 20)
    l.quiet()
    l.check()


@pytest.mark.parametrize("where", ["executor_created", "executor_ended", "executor_settling", "executor_settled", "commit_sent"])
def test_an_executor_that_freezes_at_a_step_finds_itself_fenced(lane, where):
    """Its jobs are run by another; when it wakes it reports usage alone, and no outcome changes."""
    l = lane()
    l.files["executor"].arm(where, "stop")
    ids = l.jobs(8, plan={"run_ms": 300})
    l.gone("executor", where)
    frozen = until("one is frozen", lambda: [p for p in l.stack.executors if l.is_stopped(p)], 5)[0]
    before = {id: l.stack.client.end(id, 30) for id in ids}
    frozen.signal(signal.SIGCONT)
    l.quiet()
    l.check()
    for id in ids:
        now = l.stack.client.get(id)
        assert {k: now[k] for k in ("status", "finished_at", "output")} == {k: before[id][k] for k in ("status", "finished_at", "output")}


def test_a_loop_that_is_blocked_for_a_while_loses_nothing(lane):
    """Shorter and longer than a lease."""
    l = lane()
    for ms in (700, 3500):
        for daemon, where in (("executor", "executor_ended"), ("gateway", "gateway_committed"), ("dispatcher", "dispatcher_fed")):
            l.files[daemon].arm(where, "sleep", argument=ms)
        l.jobs(40)
        l.gone("executor", "executor_ended")
        l.gone("gateway", "gateway_committed")
        l.quiet()
    l.check()


def test_a_crash_over_nobodys_job_blames_nobody(lane):
    l = lane()
    for n in range(4):  # more than anybody is blamed for
        l.jobs(4, plan={"run_ms": 1500})
        l.running(4)
        for p in l.stack.executors:
            p.signal(signal.SIGABRT)
        until("they are dead", lambda n=n: len(l.deaths) >= 2 * (n + 1), 10)
        l.quiet()
    l.check()
    assert lost(l, "executor_crashed") == 0 < lost(l, "executor_lost")


def test_a_job_that_is_lost_with_its_executor_again_and_again_ends(lane):
    """By nobody's fault, so it is re-run, but not for ever."""
    l = lane()
    id = l.submit(plan={"run_ms": 60_000}, expect="error")
    l.running()
    l.stack.psql(f"insert into attempts (id, attempt, tenant, not_before, reason, reruns, blames) select '{id[4:]}', 2, tenant, now(), 'executor_lost', 0, 20 from invocations where id = '{id[4:]}'")
    for p in l.stack.executors:
        p.signal(signal.SIGKILL)
    until("attempt 2 runs", lambda: any(v.startswith("r 2 ") for v in l.stack.redis_cli("hvals", "sp:live").splitlines()), 20)
    for p in l.stack.executors:
        p.signal(signal.SIGKILL)
    assert l.stack.client.end(id, 30)["error"]["code"] == "sandbox_lost"


def slow(l, seconds):
    """Outcomes cannot be committed for so long; a job has ended in the meantime."""
    id = l.submit(plan={"run_ms": 600})
    l.running()
    return id, l.tables_locked(seconds, "usage")


def dies_with_its_host(l):
    """The server ends its statements too: otherwise they go on, as their client's end is not noticed."""
    l.stack.executors[0].kill()
    l.stack.psql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'sandpiper-executor'")


def test_usage_survives_an_executor_that_destroyed_the_sandbox_before_the_commit(lane):
    l = lane(each=1)
    id, lock = slow(l, 6)
    until("the sandbox is gone although nothing is on record", lambda: l.stack.stats()["live"] == 0, 5)
    assert lock.is_alive()
    dies_with_its_host(l)
    lock.join()
    l.quiet()
    l.check()
    assert l.stack.count(f"select count(*) from usage where id = '{id[4:]}'") == 2, "one a sandbox: the dead one's, the re-run's"


def test_it_survives_a_redis_that_forgets_it_too(lane):
    l = lane(each=1)
    id, lock = slow(l, 8)
    until("the sandbox is gone although nothing is on record", lambda: l.stack.stats()["live"] == 0, 5)
    l.stack.redis_cli("flushall")
    until("it is written down again", lambda: l.stack.redis_cli("keys", "sp:will:*") != "", 5)
    assert lock.is_alive()
    dies_with_its_host(l)
    lock.join()
    l.quiet(60)
    l.check()
    assert l.stack.count(f"select count(*) from usage where id = '{id[4:]}' and attempt = 1") == 1


def test_no_sandbox_is_destroyed_while_nobody_would_know_that_it_was_held(lane):
    l = lane(each=1)
    id, lock = slow(l, 6)
    l.stack.redis.signal(signal.SIGSTOP)
    try:
        held = time.monotonic() + 2.5  # longer than a commit is waited for
        while time.monotonic() < held:
            assert l.stack.stats()["live"] == 1
            time.sleep(0.1)
    finally:
        l.stack.redis.signal(signal.SIGCONT)
    until("Redis knows: it is let go", lambda: l.stack.stats()["live"] == 0, 3)
    assert lock.is_alive()
    lock.join()
    l.quiet()
    l.check()
