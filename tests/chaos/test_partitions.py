"""What stands between the daemons and their servers fails while both ends stay: half-open connections, black holes, slow
ones. Seen from the outside: every accepted job ends once, nobody waits without an end, and all recovers by itself."""

import json
import threading
import time

import pytest

from sim_stack import AGENT, SimStack
from stack import Client, in_threads, until


@pytest.fixture
def sim():
    made = []

    def make(via=None, gateways=1, executors=1, dispatchers=1, settings=None, **env):
        s = SimStack(sim={"output": "ok", **(settings or {})}, via=via, **env)
        made.append(s)
        return s.start(gateways=gateways, executors=executors, dispatchers=dispatchers)

    yield make
    for s in made:
        s.stop()


def order(i=0, **kw):
    return json.dumps({"sim": {"run_ms": 300, "output": f"this is {i}", **kw}})


def submitted(client, n, **kw):
    answers = in_threads([lambda i=i: client.submit(AGENT, order(i, **kw)) for i in range(n)], workers=8)
    assert all(a.status == 202 for a in answers), [a.body for a in answers if a.status != 202]
    return [a.json["id"] for a in answers]


class Waiters:
    """Callers who wait for their jobs, each with the bytes it was told."""

    def __init__(self, client, n, **kw):
        self.told = [None] * n
        self.threads = [threading.Thread(target=self.wait, args=(client, i, kw), daemon=True) for i in range(n)]
        for t in self.threads:
            t.start()

    def wait(self, client, i, kw):
        self.told[i] = client.submit(AGENT, order(i, **kw), wait=60)

    def join(self):
        for t in self.threads:
            t.join(90)
        assert all(self.told), "somebody waits still"
        return self.told


def check(stack, records):
    """All succeeded, each under its own name; nothing is left; the usage is whole."""
    bad = [(r["status"], r["attempt"], r["error"]) for r in records if r["status"] != "succeeded"]
    assert not bad, bad
    assert [r["output"] for r in records] == [f"this is {i}" for i in range(len(records))]
    stack.quiet(60)
    ids = ",".join(f"'{r['id'][4:]}'" for r in records)
    assert stack.count(f"select count(*) from results where id in ({ids})") == len(records)
    usage_is_whole(stack)


def usage_is_whole(stack):
    """A record for each sandbox; but an agent's build, which starts from the base template, has none."""
    def whole():
        return stack.count("select count(*) from usage") == sum(x["template"] != "base" for x in stack.ledger().values())

    until("each sandbox has its usage", whole, 40, every=0.5)


def ends(client, ids, seconds=90):
    return in_threads([lambda id=id: client.end(id, seconds) for id in ids], workers=16)


# ---- Redis ----


@pytest.mark.parametrize("how", ["hold", "drop"])
def test_half_open_redis_of_an_executor(sim, how):
    """Its jobs are handed on; what it finishes meanwhile counts once; it comes back by itself."""
    s = sim(executors=1)
    way = s.proxy_to("redis")
    s.add_executor(**way.env)
    waiters = Waiters(s.client, 40, run_ms=8000)
    until("both run some", lambda: s.stats()["programs_running"] == 40)
    getattr(way, how)()
    records = [a.json for a in waiters.join()]
    later = [s.client.get(r["id"]) for r in records]
    told = ("id", "status", "output", "attempt", "exit_code", "finished_at")
    assert [{k: r[k] for k in told} for r in records] == [{k: r[k] for k in told} for r in later], "told once and for all"
    check(s, later)
    assert s.count("select count(*) from attempts") > 0, "some were handed on"
    check(s, ends(s.client, submitted(s.client, 20)))  # the other one does it all
    way.heal()
    s.executors[0].stop()
    check(s, ends(s.client, submitted(s.client, 20)))


def test_half_open_redis_of_everybody(sim):
    """Submissions are accepted all the while; nothing runs twice for it when Redis answers again."""
    kinds = ("gateway", "executor", "dispatcher")
    s = sim(via={kind: ["redis"] for kind in kinds})
    waiters = Waiters(s.client, 20, run_ms=1500)
    until("they run", lambda: s.stats()["programs_running"] == 20)
    for kind in kinds:
        s.proxies[kind, "redis"].hold()
    ids = submitted(s.client, 20)
    records = [a.json for a in waiters.join()]
    assert {r["attempt"] for r in records} == {1}, "what ran was not disturbed"
    for kind in kinds:
        s.proxies[kind, "redis"].heal()
    check(s, ends(s.client, ids))


def test_redis_two_hundred_milliseconds_away(sim):
    """Slow, and nothing else: no executor is taken for dead, nothing is tried again."""
    kinds = ("gateway", "executor", "dispatcher")
    s = sim(via={kind: ["redis"] for kind in kinds}, executors=2)
    for kind in kinds:
        s.proxies[kind, "redis"].delay(100, jitter=20)  # each way
    waiters = Waiters(s.client, 40, run_ms=3000)
    records = [a.json for a in waiters.join()]
    assert {r["attempt"] for r in records} == {1}
    check(s, records)


def test_redis_cut_and_reset_again_and_again(sim):
    kinds = ("gateway", "executor", "dispatcher")
    s = sim(via={kind: ["redis"] for kind in kinds}, executors=2)
    waiters = Waiters(s.client, 60, run_ms=1500)
    for n in range(8):
        way = s.proxies[kinds[n % 3], "redis"]
        way.cut((1, 3000))
        time.sleep(0.3)  # the rhythm of the disturbance
        way.reset()
        way.heal()
    check(s, [a.json for a in waiters.join()])


def test_the_leading_dispatcher_cut_off_from_redis(sim):
    s = sim(dispatchers=1)
    way = s.proxy_to("redis")
    leader = s.dispatchers.pop()
    leader.stop()
    s.add_dispatcher(**way.env)
    check(s, ends(s.client, submitted(s.client, 10)))
    s.add_dispatcher()
    way.hold()
    check(s, ends(s.client, submitted(s.client, 200, run_ms=50)))  # beyond what a gateway enqueues by itself
    way.heal()
    check(s, ends(s.client, submitted(s.client, 20)))


# ---- PostgreSQL ----


def connections(s):
    """The gateway's, as PostgreSQL counts them."""
    return s.count("select count(*) from pg_stat_activity where application_name like 'sandpiper-gateway%'")


def test_postgres_in_a_black_hole_for_a_gateway(sim):
    """503 with Retry-After within the deadline; recovers without a restart; leaks no connection."""
    s = sim(via={"gateway": ["postgres"]}, SANDPIPER_COMMIT_DEADLINE="2s")
    way = s.proxies["gateway", "postgres"]
    check(s, ends(s.client, submitted(s.client, 5)))
    usual = connections(s)
    for how in ("hold", "drop", "refuse", "hold"):
        getattr(way, how)()
        if how == "refuse":
            way.reset()
        begin = time.monotonic()
        answers = in_threads([lambda i=i: s.client.submit(AGENT, order(i)) for i in range(10)], workers=10)
        assert time.monotonic() - begin < 10, how
        for a in answers:
            assert a.status == 503 and int(a.headers["Retry-After"]) >= 1, (how, a.status, a.body)
            assert a.json["code"] in ("unavailable", "outcome_unknown", "overloaded"), (how, a.body)
        unknown = [a.headers["Location"] for a in answers if a.json["code"] == "outcome_unknown"]
        way.heal()
        first = until("the gateway accepts again", lambda: (a := s.client.submit(AGENT, order())).status == 202 and a).json["id"]
        assert Client(s.gateways[0].port, None, 10).call("GET", "/readyz").status == 200, "and says so"
        check(s, ends(s.client, [first]) + ends(s.client, submitted(s.client, 5))[1:])
        for where in unknown:
            a = s.client.call("GET", where)
            assert a.status in (200, 404), a.body
    until("no connection is left over", lambda: connections(s) <= usual, 20)
    assert way.open <= usual + 1
    assert s.count("select count(*) from invocations i where not exists (select from results r where r.id = i.id)") == 0


def test_postgres_that_trickles(sim):
    """A few KB a second, for everybody: slow, and right."""
    kinds = ("gateway", "executor", "dispatcher")
    s = sim(via={kind: ["postgres"] for kind in kinds})
    for kind in kinds:
        s.proxies[kind, "postgres"].trickle(8000)
    waiters = Waiters(s.client, 20)
    check(s, [a.json for a in waiters.join()])


def test_postgres_in_a_black_hole_for_an_executor(sim):
    """Outcomes wait, their sandboxes do not; nothing is run again."""
    s = sim(via={"executor": ["postgres"]})
    way = s.proxies["executor", "postgres"]
    waiters = Waiters(s.client, 20, run_ms=500)
    until("they run", lambda: s.stats()["programs_running"] == 20)
    way.hold()
    until("no sandbox is kept for it", lambda: s.stats()["live"] == 0)
    way.heal()
    records = [a.json for a in waiters.join()]
    assert {r["attempt"] for r in records} == {1}
    check(s, records)
    waiters = Waiters(s.client, 20, run_ms=500)
    until("they run again", lambda: s.stats()["programs_running"] == 20)
    way.drop()
    until("no sandbox is kept for it", lambda: s.stats()["live"] == 0)
    way.heal()
    records = [a.json for a in waiters.join()]
    assert {r["attempt"] for r in records} == {1}
    check(s, records)


# ---- the provider ----


def test_the_provider_in_a_black_hole_in_the_middle_of_streams(sim):
    """A program's end is kept for a while by E2B, and asked for."""
    s = sim(via={"executor": ["e2b"]}, SANDPIPER_CREATE_DEADLINE="2s", SANDPIPER_START_DEADLINE="2s")
    way = s.proxies["executor", "e2b"]
    for how in ("hold", "drop", "reset"):
        waiters = Waiters(s.client, 30, run_ms=2000)
        until("they run", lambda: s.stats()["programs_running"] == 30)
        getattr(way, how)()
        ids = submitted(s.client, 10)
        until("the programs have ended unseen", lambda: s.stats()["programs_running"] == 0)
        way.heal()
        records = [a.json for a in waiters.join()]
        assert {(r["status"], r["attempt"]) for r in records} == {("succeeded", 1)}, how
        assert {r["status"] for r in ends(s.client, ids)} == {"succeeded"}, how
        s.quiet(60)
        usage_is_whole(s)


def test_answers_of_the_provider_cut_anywhere(sim):
    s = sim(via={"executor": ["e2b"]}, SANDPIPER_CREATE_DEADLINE="2s", SANDPIPER_START_DEADLINE="2s")
    way = s.proxies["executor", "e2b"]
    way.cut((200, 4000))
    ids = submitted(s.client, 200, run_ms=50)
    until("a hundred have ended in spite of it", lambda: s.count("select count(*) from results") >= 100, 90)
    way.heal()
    records = ends(s.client, ids)
    assert {r["status"] for r in records} == {"succeeded"}, [r["error"] for r in records if r["status"] != "succeeded"]
    s.quiet(60)
    usage_is_whole(s)
