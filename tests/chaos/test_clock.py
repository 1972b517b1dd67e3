"""Wall clocks an hour off, either way: the hook in the one module that reads it (shared/base/clock.c)."""

import signal

import pytest

from stack import until

FAILS = dict(plan={"run_ms": 20, "exit_code": 7}, expect="failed", retry={"max_attempts": 2, "on": ["failed"]})


def load(l):
    l.jobs(20)
    l.jobs(2, **FAILS)
    l.jobs(8, plan={"run_ms": 1500}, queue_timeout_s=600)
    l.running(2)


@pytest.mark.parametrize("hours", [-1, 1])
@pytest.mark.parametrize("daemon", ["executor", "dispatcher"])
def test_a_clock_that_steps_an_hour_is_not_noticed(lane, daemon, hours):
    """And back; in daemons that run and in those that start meanwhile. Nothing is lost, doubled, late or expired."""
    l = lane(sim={"creates_per_second": 0})
    for step in (hours, 0):
        l.jobs(8, plan={"run_ms": 1500})
        l.running(2)
        l.files[daemon].clock(step * 3600)
        load(l)
        for p in l.stack.executors + l.stack.dispatchers[:1]:
            p.signal(signal.SIGKILL)
        load(l)
        l.quiet(30)
        l.check()
    assert l.stack.count("select count(*) from results where abs(extract(epoch from now() - finished_at)) > 300") == 0
    assert l.stack.count("select count(*) from attempts where abs(extract(epoch from now() - not_before)) > 300") == 0


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_gateway_whose_clock_steps_refuses_at_once(lane, hours):
    """No id is made by a wrong clock, then or later; what it has accepted before goes on."""
    l = lane(sim={"creates_per_second": 0})
    l.jobs(8, plan={"run_ms": 1500})
    l.files["gateway"].clock(hours * 3600)
    assert l.refusal() == "clock_skew"
    for p in l.stack.executors:
        p.signal(signal.SIGKILL)
    l.quiet()
    l.files["gateway"].clock(0)
    until("it is trusted again", lambda: l.refusal() is None, 15)
    load(l)
    l.quiet()
    l.check()
    floor = "sandpiper_uuid_floor(now() {} interval '5 minutes')"
    assert l.stack.count(f"select count(*) from invocations where id < {floor.format('-')} or id > {floor.format('+')}") == 0


def test_a_gateway_that_was_started_an_hour_ahead_makes_right_ids_once_it_is_right(lane):
    """Its first ids (its boot's) were of the future; those of jobs are not."""
    l = lane(sim={"creates_per_second": 0})
    l.files["gateway"].clock(3600)
    for p in l.stack.gateways:
        p.signal(signal.SIGKILL)
    until("it runs again and refuses", lambda: l.refusal() == "clock_skew", 15)
    l.files["gateway"].clock(0)
    until("it is trusted again", lambda: l.refusal() is None, 25)
    load(l)
    l.quiet()
    l.check()
    assert l.stack.count("select count(*) from invocations where id > sandpiper_uuid_floor(now() + interval '1 minute')") == 0
