"""Batches survive what is killed, in every phase: accepted whole or not at all, each item once, nothing fed before its turn."""

import contextlib
import http.client
import json
import socket
import threading
import time

import pytest

from sim_stack import AGENT, SimStack
from stack import Client, until

ENDED = ("succeeded", "failed", "timed_out", "canceled", "expired", "error")
NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
def sim():
    made = []

    def make(gateways=1, executors=1, dispatchers=1, idle=False, **env):
        """idle: once the agent is built, nobody runs anything."""
        s = SimStack(sim={"output": "ok"}, **env)
        made.append(s)
        s.start(gateways=gateways, executors=executors, dispatchers=dispatchers)
        if idle:
            s.executors.pop().stop()
        return s

    yield make
    for s in made:
        s.stop()


def lines(n, run_ms=0):
    prompt = json.dumps({"sim": {"run_ms": run_ms}})
    return b"".join(json.dumps({"custom_id": f"c{i}", "agent": AGENT, "prompt": prompt}).encode() + b"\n" for i in range(n))


def submit(client, body, query="", headers=None):
    return client.call("POST", f"/v1/batches{query}", body, {**NDJSON, **(headers or {})})


def submitted(client, *args):
    a = submit(client, *args)
    assert a.status == 202, (a.status, a.body)
    return a.json["id"]


def look(client, id):
    """The record, or None while nobody answers; its counts always add up."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        a = client.call("GET", f"/v1/batches/{id}")
        if a.status == 200:
            r = a.json
            assert sum(r["counts"].values()) == r["total"], r
            assert sum(r["counts"][s] for s in ENDED) == r["ended"], r
            return r
        assert a.status == 503, (a.status, a.body)
    return None


def ended(client, id, seconds=120):
    return until("the batch ends", lambda: (r := look(client, id)) and r["ended_at"] and r, seconds, every=0.05)


def check_once(stack, id, total):
    """Every item has one result, told once; and each line of the results is another item's."""
    where = f"id in (select id from invocations where batch = '{id[4:]}')"
    assert stack.count(f"select count(*) from results where {where}") == total
    assert stack.count(f"select count(*) from batch_ended where batch = '{id[4:]}'") == total
    assert stack.count(f"select count(distinct id) from batch_ended where batch = '{id[4:]}'") == total
    body = stack.client.call("GET", f"/v1/batches/{id}/results").body
    assert sorted(json.loads(x)["custom_id"] for x in body.splitlines()) == sorted(f"c{i}" for i in range(total))


def whole_or_nothing(stack):
    """Each batch has all its items, and there are no others'."""
    bad = stack.psql("select b.id, b.total, count(i.id) from batches b left join invocations i on i.batch = b.id "
                     "group by 1, 2 having count(i.id) <> b.total")
    assert bad == "", bad
    assert stack.count("select count(*) from invocations i where batch is not null and not exists "
                       "(select from batches b where b.id = i.batch)") == 0


def restart(stack, group, process):
    """The killed one started again under its own port."""
    process.start()
    if group is stack.gateways:
        def ready():
            with contextlib.suppress(OSError):
                return Client(process.port, None, 5).call("GET", "/readyz").status == 200
        until("the gateway is ready", ready, 30)


def test_a_gateway_that_dies_during_an_upload_leaves_nothing(sim):
    stack = sim()
    gateway, body = stack.gateways[0], lines(60000)
    for part in (0.02, 0.5, 0.98):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as s:
            s.sendall(b"POST /v1/batches HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nAuthorization: Bearer "
                      + stack.key.encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(body))
            s.sendall(body[:int(len(body) * part)])
            gateway.kill()
        restart(stack, stack.gateways, gateway)
    assert stack.count("select count(*) from batches") == 0
    assert stack.count("select count(*) from invocations where batch is not null") == 0
    assert not list(stack.dir.glob("**/spool*")), "spooled files have no names"


def test_a_gateway_that_dies_at_any_moment_of_the_commit_leaves_all_or_nothing(sim):
    stack = sim(idle=True)
    gateway, body, answered = stack.gateways[0], lines(20000), []
    for n in range(14):
        def go():
            with contextlib.suppress(OSError, http.client.HTTPException):
                a = submit(stack.client, body)
                if a.status == 202:
                    answered.append(a.json["id"])

        t = threading.Thread(target=go)
        t.start()
        until("its rows are being loaded, or it is over", lambda: stack.count(
            "select count(*) from pg_stat_activity where query like 'COPY batches%' and state = 'active'") or not t.is_alive(), 20, every=0.001)
        time.sleep(n * 0.015)  # another moment each time: any of them must do
        gateway.kill()
        t.join()
        restart(stack, stack.gateways, gateway)
        until("the dead one's transaction is over", lambda: stack.count(
            "select count(*) from pg_stat_activity where query like 'COPY batches%' and state = 'active'") == 0, 30)
        whole_or_nothing(stack)
    known = set(stack.psql("select id from batches").split())
    assert {id[4:] for id in answered} <= known


def test_an_answer_lost_with_the_connection_is_looked_up(sim):
    """The backend of the load is ended at any moment: 202 is true, and so is 503."""
    stack = sim(idle=True)
    told = {202: 0, 503: 0}
    for n in range(12):
        stop = threading.Event()

        def terminate(n=n):
            until("a load, or the end", lambda: stop.is_set() or stack.count(
                "select count(*) from pg_stat_activity where query like 'COPY batches%' and state = 'active'"), 20, every=0.001)
            time.sleep(n * 0.01)
            stack.psql("select pg_terminate_backend(pid) from pg_stat_activity where query like 'COPY batches%'")

        t = threading.Thread(target=terminate)
        t.start()
        a = submit(stack.client, lines(15000))
        stop.set()
        t.join()
        told[a.status] += 1
        id = a.json["id"] if a.status == 202 else a.headers["Location"].rsplit("/", 1)[1] if a.headers["Location"] else None
        if a.status == 503:
            assert a.json["code"] in ("outcome_unknown", "unavailable"), a.body
        rows = stack.count(f"select count(*) from batches where id = '{id[4:]}'") if id else 0
        assert rows == (1 if a.status == 202 else 0), (a.status, a.body)
        whole_or_nothing(stack)
    assert told[202] > 0 or told[503] > 0


def test_dispatchers_that_die_while_feeding_feed_every_item_once(sim):
    stack = sim(dispatchers=2, SANDPIPER_TENANT_WINDOW="32")
    id = submitted(stack.client, lines(3000, 5))
    stop = threading.Event()

    def kill():
        n = 0
        while not stop.wait(1.5):
            d = stack.dispatchers[n % 2]
            d.kill()
            d.start()
            n += 1

    t = threading.Thread(target=kill)
    t.start()
    try:
        ended(stack.client, id, 180)
    finally:
        stop.set()
        t.join()
    check_once(stack, id, 3000)
    assert stack.count("select count(*) from attempts") == 0, "an item was run twice"


def test_dispatchers_that_die_while_canceling_end_it(sim):
    stack = sim(dispatchers=2, SANDPIPER_EXECUTOR_JOBS="20")
    id = submitted(stack.client, lines(60000, 600_000))
    until("some run", lambda: look(stack.client, id)["counts"]["running"] >= 10, 30)
    assert stack.client.call("POST", f"/v1/batches/{id}/cancel").status == 202
    for n in range(4):
        until("some are canceled", lambda n=n: look(stack.client, id)["ended"] >= 10000 * n or look(stack.client, id)["ended_at"], 60, every=0.005)
        d = stack.dispatchers[n % 2]
        d.kill()
        d.start()
    r = ended(stack.client, id)
    assert (r["status"], r["counts"]["canceled"]) == ("canceled", 60000)
    check_once(stack, id, 60000)


def test_an_executor_that_dies_has_its_items_run_by_another(sim):
    stack = sim(executors=2, SANDPIPER_EXECUTOR_JOBS="100")
    id = submitted(stack.client, lines(2000, 200), "?max_concurrency=150")
    until("it is under way", lambda: look(stack.client, id)["ended"] >= 200, 60)
    stack.executors[0].kill()
    r = ended(stack.client, id, 120)
    assert r["counts"]["succeeded"] == 2000
    check_once(stack, id, 2000)


def test_flushall_enqueues_nothing_that_was_not_fed(sim):
    stack = sim(SANDPIPER_EXECUTOR_JOBS="10")
    id = submitted(stack.client, lines(600, 150), "?max_concurrency=20")
    early, stop = [], threading.Event()

    def watch():
        """What is on the streams is before the cursor, however often it is looked."""
        while not stop.wait(0.05):
            queued = stack.redis_cli("xlen", "sp:q:low:0", check=False) or "0"
            fed = stack.count(f"select count(*) from invocations i join batches b on b.id = i.batch where b.id = '{id[4:]}' and i.id <= b.fed")
            done = stack.count(f"select count(*) from batch_ended where batch = '{id[4:]}'")
            if queued.isdigit() and int(queued) > 20:
                early.append(queued)
            if fed - done > 20 + 20:  # those that ended between the two looks
                early.append((fed, done))

    t = threading.Thread(target=watch)
    t.start()
    for part in (60, 250):
        until("a part has ended", lambda part=part: look(stack.client, id)["ended"] >= part, 60)
        assert stack.redis_cli("flushall") == "OK"
    r = ended(stack.client, id, 120)
    stop.set()
    t.join()
    assert not early, early[:5]
    assert r["counts"]["succeeded"] == 600
    check_once(stack, id, 600)
    assert stack.count("select count(*) from results where attempt <> 1") == 0, "a running item was run again"


def test_everything_is_killed_on_the_way(sim):
    stack = sim(gateways=2, executors=2, dispatchers=2, SANDPIPER_EXECUTOR_JOBS="200")
    id = submitted(stack.client, lines(20000, 20))
    stop, killed = threading.Event(), []

    def kill():
        groups = [stack.gateways, stack.dispatchers, stack.executors]
        n = 0
        while not stop.wait(1.2):
            group = groups[n % 3]
            p = group[(n // 3) % 2]
            p.kill()
            killed.append(p.name)
            restart(stack, group, p)
            n += 1

    t = threading.Thread(target=kill)
    t.start()
    seen = []

    def done():
        """From either gateway; what has ended is never less than before."""
        for g in stack.gateways:
            r = look(Client(g.port, stack.key, 10), id)
            if r:
                assert not seen or r["ended"] >= seen[-1], (seen[-1], r)
                seen.append(r["ended"])
                return r["ended_at"] and r

    try:
        r = until("the batch ends", done, 180, every=0.05)
    finally:
        stop.set()
        t.join()
    assert r["counts"]["succeeded"] == 20000 and len(set(k.split("-")[0] for k in killed)) == 3, killed
    check_once(stack, id, 20000)
