"""Nothing accepted is lost, nothing has two outcomes: whatever is killed (DESIGN sections 1 and 4)."""

import contextlib
import http.client
import json
import signal
import threading
import time

from stack import Client, in_threads, until


def order(**kw):
    return json.dumps(kw)


def submit_all(client, n, prompt, agent="probe"):
    answers = in_threads([lambda i=i: client.submit(agent, prompt(i)) for i in range(n)], 32)
    assert [a.status for a in answers] == [202] * n
    return [a.json["id"] for a in answers]


def running(stack):
    return stack.count("select 1") and sum(
        1 for v in stack.redis_cli("hvals", "sp:live").splitlines() if v.startswith("r "))


def check_once(stack, ids, status="succeeded", seconds=90):
    """Every id ends, once, as it should; each attempt has at most one usage row."""
    want = {i[4:] for i in ids}

    def ended():  # these ids: others may have been committed without an answer, and end as well
        rows = dict(line.split("|") for line in stack.psql("select id, status from results").splitlines())
        return want <= set(rows) and rows

    rows = until(f"{len(ids)} results", ended, seconds, every=0.2)
    names = {"succeeded": "1"}
    wrong = {i: rows[i[4:]] for i in ids if rows[i[4:]] != names[status]}
    assert not wrong, wrong
    assert stack.count("select count(*) from (select id, attempt from usage group by 1, 2 having count(*) > 1) x") == 0


def test_a_dead_executors_jobs_are_handed_on_within_five_seconds(broken):
    stack = broken(executors=2)
    client = stack.client
    ids = submit_all(client, 50, lambda i: order(sleep=4, text=str(i)))
    until("half of them run", lambda: running(stack) >= 25, 30)
    victim = stack.executors[0]
    killed = time.time()
    victim.kill()
    check_once(stack, ids)
    # when their next attempts were allocated: how fast these start then is this machine's business
    late = stack.psql("select count(*), coalesce(max(extract(epoch from not_before)), 0) from attempts "
                      "where reason = 'executor_lost'").split("|")
    assert int(late[0]) > 0, "the victim ran nothing"
    assert float(late[1]) - killed < 5, f"handed on {float(late[1]) - killed:.1f} s after the kill"
    stack.quiet(40)
    # each attempt that held a sandbox has its usage: the dead executor's too; what it had no sandbox for has none
    reaped = stack.dispatchers[0].text().count("reaping an orphaned sandbox")
    assert 0 < reaped <= int(late[0])
    until("the dead executor's usage is written", lambda: stack.count("select count(*) from usage") == 50 + reaped, 60)


def test_a_dead_gateways_commits_are_run(broken):
    stack = broken(gateways=2)
    first, second = stack.gateways
    client = Client(first.port, stack.key)
    ids, stop = [], threading.Event()

    def burst():
        while not stop.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                a = client.submit("echo", "from a dying gateway")
                if a.status == 202:
                    ids.append(a.json["id"])

    threads = [threading.Thread(target=burst) for _ in range(16)]
    for t in threads:
        t.start()
    until("a burst of answers", lambda: len(ids) > 200, 20)
    first.kill()
    stop.set()
    for t in threads:
        t.join()
    check_once(stack, ids, seconds=90)
    until("every commit ends, answered or not", lambda: stack.count(
        "select count(*) from invocations i where not exists (select from results r where r.id = i.id)") == 0, 60)
    until("the dead gateway's row is gone", lambda: stack.count("select count(*) from gateway_boots") == 1, 30)


def test_flushall_kills_and_repeats_nothing(broken):
    stack = broken(env={"SANDPIPER_EXECUTOR_JOBS": "50"})
    ids = submit_all(stack.client, 250, lambda i: order(sleep=3, text=str(i)))
    until("half of them run", lambda: running(stack) >= 25, 30)
    assert stack.redis_cli("flushall") == "OK"
    check_once(stack, ids, seconds=120)
    assert stack.count("select count(*) from results where attempt <> 1") == 0, "a running job was run again"
    assert stack.count("select count(*) from usage") == 250
    stack.quiet(40)


def test_redis_away_for_ten_seconds(broken):
    stack = broken()
    client, ids, bad, stop = stack.client, [], [], threading.Event()

    def load():
        while not stop.is_set():
            a = client.submit("echo", "under load")
            (ids if a.status == 202 else bad).append(a.json.get("id") or a.body)
            stop.wait(0.02)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for t in threads:
        t.start()
    until("load", lambda: len(ids) > 50, 20)
    stack.redis.kill()
    at = len(ids)
    stop.wait(10)
    assert len(ids) > at + 200, "submissions stopped while Redis was away"
    stack.start_redis()
    until("more load", lambda n=len(ids): len(ids) > n + 50, 20)
    stop.set()
    for t in threads:
        t.join()
    assert not bad, bad[:3]
    check_once(stack, ids, seconds=120)
    stack.quiet(40)


def test_redis_frozen_for_ten_seconds_kills_no_running_work(broken):
    stack = broken()
    ids = submit_all(stack.client, 20, lambda i: order(sleep=14))
    until("20 run", lambda: running(stack) == 20, 30)
    stack.redis.signal(signal.SIGSTOP)
    threading.Event().wait(10)
    stack.redis.signal(signal.SIGCONT)
    check_once(stack, ids, seconds=60)
    assert stack.count("select count(*) from usage") == 20, "something was run twice"


def test_postgres_killed_and_restarted_under_load(broken):
    stack = broken()
    client, ids, unknown, stop = stack.client, [], [], threading.Event()

    def load(n):
        i = 0
        while not stop.is_set():
            i += 1
            with contextlib.suppress(OSError, http.client.HTTPException):
                a = client.submit("echo", f"{n}.{i}")
                if a.status == 202:
                    ids.append(a.json["id"])
                else:
                    assert a.status == 503 and a.headers["Retry-After"], (a.status, a.body)
                    unknown.append(a.json["code"])
            stop.wait(0.02)

    threads = [threading.Thread(target=load, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    until("load", lambda: len(ids) > 50, 20)
    group = stack.postgres.pid
    stack.postgres.kill()
    # the backends see their postmaster gone; wait for the last one to leave before the restart
    until("the old server is gone", lambda: not (stack.dir / "run" / ".s.PGSQL.5432.lock").exists() or stack.postgres.child.poll() is not None, 20)
    stop.wait(3)
    stack.start_postgres()
    assert group != stack.postgres.pid
    until("submissions are accepted again", lambda n=len(ids): len(ids) > n + 50, 60)
    stop.set()
    for t in threads:
        t.join()
    check_once(stack, ids, seconds=120)
    until("every commit ends", lambda: stack.count(
        "select count(*) from invocations i where not exists (select from results r where r.id = i.id)") == 0, 60)
    stack.quiet(40)


def test_a_killed_executor_is_told_from_a_frozen_one(broken):
    """Redis still has a frozen one's connections: it gets the whole grace, so a short pause costs nothing."""
    stack = broken()
    ids = submit_all(stack.client, 5, lambda i: order(sleep=8, text=str(i)))
    until("5 run", lambda: running(stack) == 5, 30)
    victim = stack.executors[0]
    victim.signal(signal.SIGSTOP)
    lease = "sp:x:" + stack.redis_cli("smembers", "sp:execs").split()[0]
    until("its lease has run out", lambda: stack.redis_cli("exists", lease) == "0", 10)
    threading.Event().wait(1.0)  # the pause itself: longer than a killed one's grace, shorter than a frozen one's
    victim.signal(signal.SIGCONT)
    check_once(stack, ids, seconds=60)
    assert stack.count("select count(*) from usage") == 5, "a short pause made jobs run again"


def test_a_frozen_executor_finds_itself_fenced(broken):
    stack = broken(executors=2)
    ids = submit_all(stack.client, 10, lambda i: order(sleep=6, text=str(i)))
    until("10 run", lambda: running(stack) == 10, 30)
    victim = stack.executors[0]
    victim.signal(signal.SIGSTOP)
    check_once(stack, ids, seconds=90)
    victim.signal(signal.SIGCONT)
    stack.quiet(40)
    assert stack.count("select count(*) from results") == 10
