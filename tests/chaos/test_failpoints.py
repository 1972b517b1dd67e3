"""Each daemon killed at each step of accept, claim, run and settle, and of what the dispatcher does about them
(shared/base/failpoint.h), started again, and then looked at from the outside: tests/chaos/campaign.py has what must hold.

Points are proved on four Sandpipers side by side: most of the time is leases running out. A new row of the table needs a
load in LOADS."""

import queue
import signal
import threading
import time
import uuid

import pytest

from campaign import DAEMONS, Lane
from failpoints import coverage, table
from stack import until

pytestmark = pytest.mark.xdist_group("failpoints")  # their Sandpipers are shared
LANES = 4
FAILS = dict(plan={"run_ms": 20, "exit_code": 7}, expect="failed", retry={"max_attempts": 2, "on": ["failed"]})

# ---- loads: each reaches its point, once or when it is repeated ----


def jobs(lane):
    lane.jobs(4)


def warm_jobs(lane):
    lane.warm(3)
    lane.jobs(4)


def many(lane):
    lane.jobs(40)


def keyed(lane):
    """However often it is sent, under one key it is one invocation."""
    key, ids = str(uuid.uuid4()), set()
    until("an answer", lambda: ids.add(lane.submit(key=key)) or ids != {None}, every=0)
    ids.add(lane.submit(key=key))
    assert len(ids - {None}) == 1, ids


def batch(lane):
    lane.batch()


def deploy(lane):
    lane.deploy(f"agent-{uuid.uuid4().hex[:12]}")


def large_prompt(lane):
    lane.submit(prompt="x" * 100_000)


def large_output(lane):
    lane.submit(plan={"run_ms": 20, "output_bytes": 300_000})


def failing(lane):
    lane.jobs(2, **FAILS)


def canceled(lane):
    id = lane.submit(plan={"run_ms": 8000}, expect="canceled")
    lane.running()
    lane.cancel(id)


def slow_commit(lane):
    lock = lane.tables_locked(2.5, "results")
    lane.jobs(2)
    lock.join()


def drained(lane):
    lane.stack.executors[0].signal(signal.SIGTERM)
    lane.jobs(4)
    until("it has left", lambda: lane.files["executor"].left("executor_leave") == 0, 10)


def dead_executor(lane):
    lane.jobs(6, plan={"run_ms": 1500})
    lane.running(4)
    for p in lane.stack.executors:
        p.signal(signal.SIGKILL)


def flushed(lane):
    lane.jobs(4, plan={"run_ms": 1000})
    lane.stack.redis_cli("flushall")


def dead_gateway(lane):
    lane.jobs(4)
    lane.stack.gateways[0].signal(signal.SIGKILL)


def schedule(lane):
    """An instant fires once."""
    s, name = lane.stack, f"s-{uuid.uuid4().hex[:12]}"
    a = lane.call("POST", "/v1/schedules", {"name": name, "cron": "0 8 1 1 *", "agent": s.agent, "prompt": "x", "metadata": {"by": name}})
    assert a.status == 201, a.body
    s.psql(f"update schedules set next_at = now() - interval '1 second' where name = '{name}'")
    made = f"select count(*) from invocations where metadata like '%{name}%'"
    until("it fires", lambda: s.count(made) > 0, 20)
    lane.once.append((f"{name} fires once", made))


COMMITS = {"gateway": jobs, "executor": jobs, "dispatcher": dead_executor}
LOADS = {
    "gateway_committed": jobs, "gateway_answered": jobs, "gateway_handed": jobs,
    "gateway_key_begin": keyed, "gateway_key_done": keyed,
    "gateway_batch_begin": batch, "gateway_batch_done": batch, "gateway_deploy_done": deploy,
    "executor_permitted": jobs, "executor_read": jobs, "executor_leased": jobs, "executor_create": jobs, "executor_created": jobs,
    "executor_warm": warm_jobs, "executor_warmed": warm_jobs, "executor_noted": warm_jobs,
    "executor_upload": large_prompt, "executor_started": jobs, "executor_spill": large_output, "executor_ended": jobs,
    "executor_chunk": large_output, "executor_willed": slow_commit, "executor_settling": jobs, "executor_settled": jobs, "executor_retried": failing,
    "executor_destroyed": jobs, "executor_released": jobs, "executor_cancel": canceled,
    "executor_back": many, "executor_handed_back": many, "executor_leave": drained,
    "executor_build_upload": deploy, "executor_build_log": deploy, "executor_build_installed": deploy, "executor_build_snapshot": deploy, "executor_build_done": deploy,
    "dispatcher_feed": many, "dispatcher_fed": many, "dispatcher_retry": failing, "dispatcher_retried": failing,
    "dispatcher_bury": dead_executor, "dispatcher_bury_attempt": dead_executor, "dispatcher_bury_requeued": dead_executor,
    "dispatcher_bury_strike": dead_executor, "dispatcher_buried": dead_executor, "dispatcher_reap": dead_executor,
    "dispatcher_reap_kill": dead_executor, "dispatcher_reaped": dead_executor,
    "dispatcher_reset": flushed, "dispatcher_rebuild": flushed, "dispatcher_rebuilt": flushed,
    "dispatcher_boot": dead_gateway, "dispatcher_boot_marked": dead_gateway,
    "dispatcher_batch": batch, "dispatcher_batch_fed": batch,
    "dispatcher_verdict": dead_executor, "dispatcher_verdict_done": dead_executor,
    "dispatcher_webhook": jobs, "dispatcher_webhook_sent": jobs, "dispatcher_webhook_done": jobs,
    "dispatcher_schedule": schedule, "dispatcher_schedule_fired": schedule,
    "dispatcher_sum": jobs, "dispatcher_summed": jobs,
}
POINTS = sorted([(d, n) for n in table() if n.startswith("commit_") for d in DAEMONS] +
                [(n.split("_")[0], n) for n in table() if not n.startswith("commit_")])


def prove(lane, daemon, name):
    load, points = LOADS.get(name) or COMMITS[daemon], lane.files[daemon]
    points.arm(name, "kill")
    stop = time.monotonic() + 40
    while points.left(name):
        assert time.monotonic() < stop, f"nothing of {load.__name__} reaches {name}"
        load(lane)
        wait = time.monotonic() + (12 if load in (dead_executor, dead_gateway, flushed) else 2)
        while points.left(name) and time.monotonic() < wait:
            time.sleep(0.02)
    if load is warm_jobs:
        lane.warm(0)
    lane.quiet()
    lane.check()


class Campaign:
    def __init__(self, points):
        self.left, self.over, self.files = queue.Queue(), {p: threading.Event() for p in points}, []
        self.failed = {}
        for p in points:
            self.left.put(p)
        self.threads = [threading.Thread(target=self.work) for _ in range(min(LANES, len(points)))]
        for t in self.threads:
            t.start()

    def work(self):
        lane = None
        while True:
            try:
                point = self.left.get_nowait()
            except queue.Empty:
                break
            try:
                lane = lane or self.lane()
                prove(lane, *point)
            except BaseException as e:  # noqa: B036 - told by the point's own test
                self.failed[point] = e
                lane = self.close(lane, point)
            self.over[point].set()
        self.close(lane, None)

    def lane(self):
        lane = Lane()
        self.files += lane.files.values()
        return lane.start()

    def close(self, lane, point):
        try:
            if lane is not None:
                lane.stop()
        except BaseException as e:  # noqa: B036
            self.failed.setdefault(point, e)


@pytest.fixture(scope="module")
def campaign(request):
    wanted = [i.callspec.params["point"] for i in request.session.items if getattr(i, "originalname", "") == "test_a_kill_at"]
    c = Campaign(wanted)
    yield c
    for t in c.threads:
        t.join()


@pytest.mark.parametrize("point", POINTS, ids=lambda p: f"{p[0]}-{p[1]}")
def test_a_kill_at(campaign, point):
    assert campaign.over[point].wait(300), "not proved within 300 s"
    if point in campaign.failed:
        raise campaign.failed[point]


def test_every_fail_point_was_hit(campaign):
    for t in campaign.threads:
        t.join()
    line = coverage(campaign.files)
    print(line)
    assert None not in campaign.failed, campaign.failed[None]
    if len(campaign.over) == len(POINTS):
        assert "never" not in line, line
