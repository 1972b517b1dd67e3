"""GET /v1/invocations and /v1/agents: pages, filters, cursors.

Most rows are written by SQL, as a history that many days of running would leave; a gateway cannot tell the difference."""

import json
import os
import re
import signal
import threading
import time
import urllib.parse

import pytest

from stack import Client, Stack, until

ENDED = ["succeeded", "failed", "timed_out", "canceled", "expired", "error"]
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000

SCHEMA = """
create function v7(ms bigint, n bigint) returns uuid language sql immutable as $$
  select (lpad(to_hex(ms), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid $$;
create function agent_of(t int, name text) returns uuid language sql immutable as $$
  select (case name when 'alpha' then '01900000-0000-7000-8000-0000' when 'beta' then '01900000-0000-7000-8000-0001' end
          || lpad(t::text, 8, '0'))::uuid $$;
insert into agents (id, tenant, slug, serving, latest)
  select agent_of(t.id, n), t.id, n, 2, 2 from tenants t, unnest(array['alpha', 'beta']) n;
insert into agent_versions (agent, version, id, tenant, status, runtime, entry, install, archive_bytes, archive_sha256)
  select a.id, v, gen_random_uuid(), a.tenant, 1, 'command', 'cat', '', 1, '' from agents a, generate_series(1, 2) v;
"""


def rfc3339(ms):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + f".{ms % 1000:03d}Z"


class Lists:
    """A stack without executors, with two gateways and two tenants; `fill` writes history."""

    def __init__(self):
        self.stack = Stack(sandboxd=False)
        self.serial = 0

    def start(self):
        s = self.stack
        s.start(gateways=2, executors=0, dispatchers=0)
        self.other_key = s.new_key("other")
        s.psql(SCHEMA)
        self.me, self.twin = Client(s.gateways[0].port, s.key), Client(s.gateways[1].port, s.key)
        self.other = Client(s.gateways[0].port, self.other_key)
        return self

    def tenant(self):
        """A client whose tenant has nothing yet."""
        self.serial += 1
        name = f"tenant-{self.serial}"
        client = Client(self.stack.gateways[0].port, self.stack.new_key(name))
        client.tenant = int(self.stack.psql(f"select id from tenants where name = '{name}'"))
        self.stack.psql(f"""
            insert into agents (id, tenant, slug, serving, latest)
              select agent_of({client.tenant}, n), {client.tenant}, n, 2, 2 from unnest(array['alpha', 'beta']) n;
            insert into agent_versions (agent, version, id, tenant, status, runtime, entry, install, archive_bytes,
                                        archive_sha256)
              select a.id, v, gen_random_uuid(), a.tenant, 1, 'command', 'cat', '', 1, ''
              from agents a, generate_series(1, 2) v where a.tenant = {client.tenant}""")
        return client

    def fill(self, client, n, ago_ms=HOUR, step_ms=10, status=1, agent="alpha", version=1, priority="0", metadata="null"):
        """n invocations, the newest ago_ms ago. status 0: open. Expressions may use `n`, from 1 (the oldest) up.
        Their ids, newest first."""
        base = int(time.time() * 1000) - ago_ms - n * step_ms
        self.serial += 1
        out = self.stack.psql(f"""
            with i as (
              insert into invocations (id, tenant, agent, version, api_key, priority, timeout_ms, queue_timeout_ms,
                                       max_attempts, retry_on, prompt, prompt_bytes, metadata)
              select v7({base} + n * {step_ms}, n + 1000000 * {self.serial}), {client.tenant},
                     agent_of({client.tenant}, '{agent}'), {version}, gen_random_uuid(), {priority}, 120000, 86400000,
                     1, 0, 'secret prompt', 13, {metadata}
              from generate_series(1, {n}) n returning id),
            r as (
              insert into results (id, tenant, attempt, boot, status, exit_code, output, output_bytes, output_truncated,
                                   logs, logs_bytes, logs_truncated, started_at, finished_at)
              select id, {client.tenant}, 1, gen_random_uuid(), {status}, 0, 'secret output', 13, false, '', 0, false,
                     now(), now() from i where {status} > 0)
            select 'inv_' || id from i order by id desc""")
        return out.splitlines()


@pytest.fixture(scope="module")
def lists():
    x = Lists().start()
    yield x
    x.stack.stop()


def page(client, **params):
    a = client.call("GET", "/v1/invocations?" + urllib.parse.urlencode(params))
    assert a.status == 200, (a.status, a.body)
    assert set(a.json) == {"data", "next_cursor"}
    return a.json


def ids(records):
    return [r["id"] for r in records]


def walk(client, max_pages=1000, **params):
    """All records, and how many pages they came in."""
    got, cursor = [], {}
    for n in range(1, max_pages + 1):
        p = page(client, **params, **cursor)
        got += p["data"]
        if p["next_cursor"] is None:
            return got, n
        assert re.fullmatch(r"[A-Za-z0-9_-]{20,160}", p["next_cursor"])
        cursor = {"cursor": p["next_cursor"]}
    raise AssertionError(f"no end after {max_pages} pages")


def problem(client, query, status=400):
    a = client.call("GET", "/v1/invocations?" + query)
    assert a.status == status, (a.status, a.body)
    assert a.headers["Content-Type"] == "application/problem+json"
    return a.json["code"], a.json.get("detail", "")


# ---- pages ----

def test_an_empty_list(lists):
    assert page(lists.tenant()) == {"data": [], "next_cursor": None}


def test_newest_first_in_pages(lists):
    t = lists.tenant()
    made = lists.fill(t, 205, priority="n % 3")
    p = page(t)
    assert ids(p["data"]) == made[:50] and p["next_cursor"]
    for limit in (1, 7, 200):
        got, pages = walk(t, limit=limit)
        assert ids(got) == made and pages == -(-205 // limit)
    got, pages = walk(t, limit=41)  # five full pages: the last one knows that it is
    assert ids(got) == made and pages == 5


def test_records_are_brief(lists):
    t = lists.tenant()
    lists.fill(t, 1, metadata="""'{"k":"v"}'""")
    answer = t.call("GET", "/v1/invocations")
    assert b"secret" not in answer.body
    (brief,) = answer.json["data"]
    whole = t.get(brief["id"])
    assert whole.pop("prompt") == "secret prompt" and whole.pop("output") == "secret output"
    assert (whole.pop("files"), whole.pop("artifacts"), whole.pop("artifacts_truncated")) == ([], [], False)
    assert brief == whole
    assert brief["prompt_size"] == brief["output_size"] == 13 and brief["metadata"] == {"k": "v"}
    assert brief["status"] == "succeeded" and brief["status_stale"] is False


def test_a_history_of_many_days(lists):
    """Pages cross partitions, and days without anything."""
    s = lists.stack
    s.psql("""do $$ begin for d in 2..100 loop
        execute format('create table if not exists invocations_h%s partition of invocations for values from (%L) to (%L)', d,
            sandpiper_uuid_floor((date_trunc('day', now() at time zone 'UTC') - d * interval '1 day') at time zone 'UTC'),
            sandpiper_uuid_floor((date_trunc('day', now() at time zone 'UTC') - (d - 1) * interval '1 day') at time zone 'UTC'));
        execute format('create table if not exists results_h%s partition of results for values from (%L) to (%L)', d,
            sandpiper_uuid_floor((date_trunc('day', now() at time zone 'UTC') - d * interval '1 day') at time zone 'UTC'),
            sandpiper_uuid_floor((date_trunc('day', now() at time zone 'UTC') - (d - 1) * interval '1 day') at time zone 'UTC'));
        end loop; end $$""")
    t = lists.tenant()
    made = []
    for days in (0, 1, 3, 9, 40, 41, 90):
        made += lists.fill(t, 6, ago_ms=days * DAY + HOUR, priority="n % 3", status=1 if days % 2 else 2)
    for limit in (4, 6, 200):
        assert ids(walk(t, limit=limit)[0]) == made
    assert ids(walk(t, status="failed", limit=3)[0]) == made[:6] + made[24:30] + made[36:]
    old = lists.tenant()
    made = lists.fill(old, 3, ago_ms=80 * DAY)
    assert ids(page(old)["data"]) == made  # found at once, however far down


def test_walking_while_others_insert(lists):
    t = lists.tenant()
    made = lists.fill(t, 500, priority="n % 3")
    stop, inserted = threading.Event(), []

    def insert():
        while not stop.is_set():
            inserted.extend(lists.fill(t, 5, ago_ms=0, step_ms=1, priority="n % 3"))

    worker = threading.Thread(target=insert)
    worker.start()
    try:
        until("rows come in", lambda: inserted)
        got, _ = walk(t, limit=10)
    finally:
        stop.set()
        worker.join()
    got = ids(got)
    assert len(got) == len(set(got)) and [i for i in got if i in set(made)] == made
    assert set(got) <= set(made) | set(inserted)


# ---- filters ----

def test_filter_by_status(lists):
    t = lists.tenant()
    made = {name: lists.fill(t, 4, status=n + 1) for n, name in enumerate(ENDED)}
    made["open"] = lists.fill(t, 4, status=0)
    for name, want in made.items():
        got, _ = walk(t, status=name, limit=3)
        assert ids(got) == want, name
        assert {r["status"] for r in got} == {"queued" if name == "open" else name}
    assert sorted(ids(walk(t)[0])) == sorted(sum(made.values(), []))


def test_filter_by_agent(lists):
    t = lists.tenant()
    a1, a2, b1 = (lists.fill(t, 5, agent=a, version=v, priority="n % 3") for a, v in (("alpha", 1), ("alpha", 2), ("beta", 1)))
    assert sorted(ids(walk(t, agent="alpha", limit=3)[0])) == sorted(a1 + a2)
    assert ids(walk(t, agent="alpha@2", limit=3)[0]) == a2
    assert ids(walk(t, agent="beta")[0]) == b1
    assert page(t, agent="beta@2") == {"data": [], "next_cursor": None}
    assert {(r["agent"], r["version"]) for r in walk(t, agent="alpha")[0]} == {("alpha", 1), ("alpha", 2)}
    assert problem(t, "agent=gamma", 404) == ("agent_not_found", 'there is no agent "gamma"')
    assert problem(t, "agent=alpha@9", 404)[0] == "agent_not_found"


def test_filter_by_time(lists):
    t = lists.tenant()
    made = lists.fill(t, 20, ago_ms=HOUR, step_ms=MINUTE)
    records, _ = walk(t)
    fifth, tenth = records[4]["created_at"], records[9]["created_at"]
    assert ids(page(t, created_after=fifth)["data"]) == made[:5]  # that moment and later
    assert ids(page(t, created_before=fifth)["data"]) == made[5:]  # earlier
    assert ids(page(t, created_after=tenth, created_before=fifth)["data"]) == made[5:10]
    assert ids(walk(t, created_after=tenth, created_before=fifth, limit=2)[0]) == made[5:10]
    assert page(t, created_after="2100-01-01T00:00:00Z")["data"] == []
    assert ids(page(t, created_after="1600-01-01T00:00:00Z", created_before="9999-12-31T23:59:60+23:59")["data"]) == made
    shifted = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.mktime(time.strptime(
        tenth[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone + 5400)) + tenth[19:23] + "+01:30"
    assert ids(page(t, created_after=shifted)["data"]) == made[:10]


def test_filter_by_metadata(lists):
    t = lists.tenant()
    one = lists.fill(t, 4, metadata="""'{"run":"one","n":"' || n || '","odd key":"a=b&c"}'""")
    two = lists.fill(t, 4, metadata="""'{"run":"two","n":' || n || ',"list":["one"]}'""")
    lists.fill(t, 4)
    old = lists.fill(t, 4, ago_ms=DAY + HOUR, metadata="""'{"run":"one"}'""")
    assert ids(walk(t, **{"metadata.run": "one"}, limit=3)[0]) == one  # the last 24 hours
    assert ids(walk(t, **{"metadata.run": "two"})[0]) == two
    assert ids(page(t, **{"metadata.run": "one", "metadata.n": "3"})["data"]) == [one[1]]
    assert ids(page(t, **{"metadata.odd key": "a=b&c"})["data"]) == one
    assert page(t, **{"metadata.n": "3", "metadata.run": "two"})["data"] == []  # a number is no string
    assert page(t, **{"metadata.list": "one"})["data"] == []
    assert page(t, **{"metadata.run": "one\"}"})["data"] == []
    now = int(time.time() * 1000)
    window = {"created_after": rfc3339(now - DAY - 2 * HOUR), "created_before": rfc3339(now - 3 * HOUR)}
    assert ids(page(t, **{"metadata.run": "one"}, **window)["data"]) == old
    assert ids(page(t, **{"metadata.run": "one"}, created_before=window["created_before"])["data"]) == old
    code, detail = problem(t, "metadata.run=one&created_after=" + rfc3339(now - 2 * DAY))
    assert code == "invalid_query" and "24 h" in detail
    window["created_after"] = rfc3339(now - 2 * DAY)
    assert "24 h" in problem(t, urllib.parse.urlencode({"metadata.run": "one", **window}))[1]


def test_an_implied_window_stays(lists):
    """The 24 hours before the first page, on all of its pages."""
    t = lists.tenant()
    made = lists.fill(t, 2, ago_ms=DAY - 2000, step_ms=1, metadata="""'{"k":"v"}'""")
    first = page(t, limit=1, **{"metadata.k": "v"})
    assert ids(first["data"]) == made[:1]
    until("they are older than a day", lambda: page(t, **{"metadata.k": "v"})["data"] == [])
    assert ids(page(t, limit=1, cursor=first["next_cursor"], **{"metadata.k": "v"})["data"]) == made[1:]


def test_filters_together(lists):
    t = lists.tenant()
    want = lists.fill(t, 6, status=2, agent="beta", version=2, metadata="""'{"k":"v"}'""")
    lists.fill(t, 6, status=1, agent="beta", version=2, metadata="""'{"k":"v"}'""")
    lists.fill(t, 6, status=2, agent="alpha", version=2, metadata="""'{"k":"v"}'""")
    lists.fill(t, 6, status=2, agent="beta", version=1, metadata="""'{"k":"v"}'""")
    lists.fill(t, 6, status=2, agent="beta", version=2, metadata="""'{"k":"w"}'""")
    lists.fill(t, 6, status=2, agent="beta", version=2, metadata="""'{"k":"v"}'""", ago_ms=5 * HOUR)
    got, _ = walk(t, status="failed", agent="beta@2", created_after=rfc3339(int(time.time() * 1000) - 4 * HOUR), limit=4,
                  **{"metadata.k": "v"})
    assert ids(got) == want


def test_a_page_examines_a_bounded_number_of_rows(lists):
    """What is rare in a long history comes after empty pages, not after a long scan."""
    t = lists.tenant()
    rare = lists.fill(t, 2, ago_ms=20 * HOUR, status=2)
    lists.fill(t, 25_000, ago_ms=HOUR, step_ms=1)
    p = page(t, status="failed")
    assert p["data"] == [] and p["next_cursor"]
    got, pages = walk(t, status="failed")
    assert ids(got) == rare and 3 <= pages <= 5
    got, pages = walk(t, agent="beta")
    assert got == [] and 3 <= pages <= 5
    lists.stack.psql("analyze")


def test_a_small_tenant_does_not_pay_for_a_large_one(lists):
    """The planner must not walk the primary key, in the right order but over everybody's rows."""
    small, large, s = lists.tenant(), lists.tenant(), lists.stack
    made = lists.fill(small, 3, ago_ms=2 * HOUR, priority="n % 3")
    lists.fill(large, 50_000, ago_ms=HOUR, step_ms=1)
    s.psql("analyze")
    gateway = s.add_gateway()  # plans afresh, by those statistics
    client = Client(gateway.port, small.key)

    def read():
        """Rows read by the listing index, and by any other way."""
        ours = s.count("select coalesce(sum(idx_tup_read), 0) from pg_stat_user_indexes where relname like 'invocations_%'"
                       " and indexrelname like '%tenant_priority_id%'")
        return ours, s.count("select sum(seq_tup_read) + sum(idx_tup_fetch) from pg_stat_user_tables"
                             " where relname like 'invocations_%'") + s.count(
            "select sum(idx_tup_read) from pg_stat_user_indexes where relname like 'invocations_%' and indexrelname like '%pkey'")

    before, pages = read(), 0

    def listed():
        nonlocal pages
        pages += 1
        for query in ({}, {"status": "succeeded"}, {"agent": "alpha"}):
            assert ids(page(client, **query)["data"]) == made
        return read()[0] > before[0]

    until("the pages are in the statistics", listed, every=0.2)
    assert read()[1] - before[1] < 100 * pages
    gateway.stop()
    s.gateways.remove(gateway)


def test_open_ones_begin_at_the_mark(lists):
    """What the dispatchers know to have ended is not looked at for what is open."""
    t = lists.tenant()
    made = lists.fill(t, 3, ago_ms=MINUTE, status=0)
    lists.fill(t, 25_000, ago_ms=HOUR, step_ms=1)
    assert walk(t, status="open")[1] > 2
    low = made[-1].removeprefix("inv_")
    lists.stack.psql(f"insert into marks (name, id) values ('open', '{low}') on conflict (name) do update set id = '{low}'")
    try:
        assert walk(t, status="open") == (page(t, status="open")["data"], 1)
        assert ids(page(t, status="open")["data"]) == made
    finally:
        lists.stack.psql("delete from marks where name = 'open'")


# ---- wrong queries ----

@pytest.mark.parametrize("limit", ["0", "201", "-1", "+5", "ten", "", "5.0", "1e2", "99999999999999999999"])
def test_wrong_limits(lists, limit):
    code, detail = problem(lists.me, urllib.parse.urlencode({"limit": limit}))
    assert code == "invalid_query" and "1 to 200" in detail


@pytest.mark.parametrize("query, words", [
    ("status=done", ["open", "succeeded", "failed", "timed_out", "canceled", "expired", "error"]),
    ("status=", ["open", "succeeded"]),
    ("status=running", ["running", "status=open"]),
    ("status=open&status=failed", ["status is given twice"]),
    ("agent=No%20Such", ["name@version"]),
    ("agent=a@0", ["name@version"]),
    ("created_after=yesterday", ["created_after", "RFC 3339"]),
    ("created_before=2026-11-21", ["created_before", "RFC 3339"]),
    ("created_after=2026-02-30T00:00:00Z", ["RFC 3339"]),
    ("created_after=2026-11-21T07:30:00+01:00", ["%2B"]),
    ("created_after=2026-11-21T07:30:00Z&created_before=2026-11-21T07:30:00Z", ["earlier"]),
    ("metadata.=x", ["metadata.KEY=VALUE"]),
    ("metadata.k=1&metadata.k=2", ["metadata.k is given twice"]),
    ("&".join(f"metadata.k{i}=1" for i in range(9)), ["at most 8"]),
    ("metadata.k=" + "v" * 1024, ["1024"]),
    ("stauts=open", ["stauts", "did you mean status?"]),
    ("metadta=1", ["metadata.KEY=VALUE"]),
    ("offset=10", ["offset", "cursor"]),
    ("limit=5&limit=6", ["limit is given twice"]),
    ("status=%ff", ["UTF-8"]),
    ("status=%zz", ["malformed"]),
    ("agent=%00", ["NUL"]),
    ("batch=inv_01a1fd5f-8385-7001-9b66-7ca8a28be6e9", ["bat_"]),
])
def test_wrong_queries(lists, query, words):
    code, detail = problem(lists.me, query)
    assert code == "invalid_query" and all(w in detail for w in words), detail


# ---- cursors ----

def test_cursors_that_do_not_fit(lists):
    t, other = lists.tenant(), lists.tenant()
    lists.fill(t, 5, metadata="""'{"k":"v"}'""")
    cursor = page(t, limit=2)["next_cursor"]
    assert page(t, limit=2, cursor=cursor)["data"]

    def refused(client, **params):
        code, detail = problem(client, urllib.parse.urlencode(params))
        return code == "invalid_cursor" and "next_cursor" in detail

    assert refused(other, cursor=cursor)
    now = int(time.time() * 1000)
    for more in ({"status": "succeeded"}, {"agent": "alpha"}, {"metadata.k": "v"}, {"created_before": rfc3339(now)},
                 {"created_after": rfc3339(now - DAY)}):
        assert refused(t, cursor=cursor, **more), more
        other_filters = page(t, limit=2, **more)["next_cursor"]
        assert refused(t, cursor=other_filters) and page(t, cursor=other_filters, **more)["data"]
    assert page(t, limit=1, cursor=cursor)["data"]  # the limit may change
    for i in range(len(cursor)):  # each character counts, the last one's unused bits too
        for c in "A", "z", "-":
            changed = cursor[:i] + c + cursor[i + 1:]
            assert changed == cursor or refused(t, cursor=changed), (i, c)
    for text in ("", "A", cursor[:-1], cursor + "A", cursor + "=", cursor * 5, "null", "é", "%00", cursor.replace("-", "+")):
        assert text == cursor or refused(t, cursor=text), text
    assert problem(t, f"cursor={cursor}&cursor={cursor}")[0] == "invalid_query"
    agents = t.call("GET", "/v1/agents?limit=1").json["next_cursor"]
    assert refused(t, cursor=agents)


def test_gateways_read_each_others_cursors(lists):
    s = lists.stack
    made = lists.fill(Tenant.of(lists, s.key), 9)
    first = page(lists.me, limit=4)
    second = page(lists.twin, limit=4, cursor=first["next_cursor"])
    third = page(lists.me, limit=4, cursor=second["next_cursor"])
    assert ids(first["data"] + second["data"] + third["data"]) == made
    lists.fill(Tenant.of(lists, lists.other_key), 3)
    assert len(page(lists.other)["data"]) == 3 and not set(ids(page(lists.other)["data"])) & set(made)
    assert ids(walk(lists.me)[0]) == made
    assert lists.me.call("GET", "/v1/invocations?limit=1", key=False).status == 401


class Tenant:
    @staticmethod
    def of(lists, key):
        c = Client(lists.stack.gateways[0].port, key)
        c.tenant = int(lists.stack.psql("select tenant from api_keys where hash = sha256('%s')" % key))
        return c


def test_the_command_line(lists):
    t, s = lists.tenant(), lists.stack
    failed = lists.fill(t, 230, status=2, agent="beta", metadata="""'{"run":"a b"}'""")
    lists.fill(t, 10)
    made = ids(walk(t)[0])

    def ls(*args):
        r = s.cli("ls", *args, env={"SANDPIPER_API_KEY": t.key})
        return r.stdout.decode(), r.stderr.decode()

    lines = ls("--all", "--json")[0].splitlines()
    assert [json.loads(line) for line in lines] == walk(t)[0]
    rows = [line.split() for line in ls()[0].splitlines()]
    assert rows[0][:3] == ["ID", "AGENT", "STATUS"] and [r[0] for r in rows[1:]] == made[:50]
    lines = ls("--status", "failed", "--agent", "beta@1", "--metadata", "run=a b", "--since", "2h", "--limit", "210", "--json")[0]
    assert [json.loads(line)["id"] for line in lines.splitlines()] == failed[:210]
    assert ls("--status", "open") == ("", "sandpiper: no invocation matches\n")
    assert json.loads(s.cli("agents", "--json", env={"SANDPIPER_API_KEY": t.key}).stdout.splitlines()[1])["name"] == "beta"


# ---- live states ----

def test_live_states(stack, client):
    """As the record alone shows them: running, with its attempt."""
    id = client.submit("probe", json.dumps({"sleep": 60})).json["id"]
    try:
        until("it runs", lambda: client.get(id)["status"] == "running")
        (listed,) = [r for r in page(client, status="open")["data"] if r["id"] == id]
        whole = client.get(id)
        for body in ("prompt", "output", "files", "artifacts", "artifacts_truncated"):
            del whole[body]
        assert listed == whole and listed["attempt"] == 1
        assert id not in ids(page(client, status="succeeded")["data"])
    finally:
        client.call("POST", f"/v1/invocations/{id}/cancel")
    client.end(id)
    assert id in ids(page(client, status="canceled")["data"]) and id not in ids(page(client, status="open")["data"])
    (listed,) = [r for r in page(client)["data"] if r["id"] == id]
    whole = client.get(id)
    for body in ("prompt", "output", "files", "artifacts", "artifacts_truncated"):
        del whole[body]
    assert listed == whole and len(listed["attempts"]) == 1


def test_attempts_are_written_like_the_rest(stack, client):
    id = client.run("probe", json.dumps({"text": "x"}))["id"]
    body = client.call("GET", f"/v1/invocations/{id}").body
    assert body == json.dumps(json.loads(body), separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def test_a_list_that_hangs_holds_up_nobody(lists):
    """Its own deadline ends it; what others ask for goes by another connection."""
    s, t = lists.stack, lists.tenant()
    (id,) = lists.fill(t, 1)
    page(t)
    backends = [int(pid) for pid in s.psql("select pid from pg_stat_activity where query like 'WITH c AS MATERIALIZED%'"
                                           "or query like 'SELECT%NULL::bytea%' and pid <> pg_backend_pid()").split()]
    assert backends
    for pid in backends:
        os.kill(pid, signal.SIGSTOP)
    try:
        answers = []
        hanging = threading.Thread(target=lambda: answers.append(t.call("GET", "/v1/invocations")))
        hanging.start()
        assert t.get(id)["status"] == "succeeded" and t.call("GET", "/v1/agents").status == 200
        assert not answers
        hanging.join(30)
        assert answers[0].status == 503 and answers[0].json["code"] == "unavailable"
        assert "created_after" in answers[0].json["detail"] and answers[0].headers["Retry-After"]
    finally:
        for pid in backends:
            os.kill(pid, signal.SIGCONT)
    assert ids(page(t)["data"]) == [id]  # on a new connection


def test_without_redis(lists):
    t = lists.tenant()
    open_ones = lists.fill(t, 2, status=0, ago_ms=0)
    ended = lists.fill(t, 2)
    s = lists.stack
    assert [r["status_stale"] for r in page(t)["data"]] == [False] * 4
    s.redis.kill()
    try:
        until("the loss is seen", lambda: any(r["status_stale"] for r in page(t)["data"]))
        p = page(t)
        assert ids(p["data"]) == open_ones + ended
        assert [(r["status"], r["status_stale"]) for r in p["data"]] == [("queued", True)] * 2 + [("succeeded", False)] * 2
        assert [r["status_stale"] for r in page(t, status="open")["data"]] == [True] * 2
    finally:
        s.start_redis()
    until("Redis is back", lambda: not any(r["status_stale"] for r in page(t)["data"]))


# ---- agents ----

def test_agents_in_pages(lists):
    t = lists.tenant()
    lists.stack.psql(f"""
        with a as (insert into agents (id, tenant, slug, serving, latest)
          select gen_random_uuid(), {t.tenant}, 'many-' || lpad(n::text, 3, '0'), 1, 1 from generate_series(1, 120) n
          returning id, tenant)
        insert into agent_versions (agent, version, id, tenant, status, runtime, entry, install, archive_bytes, archive_sha256)
          select id, 1, gen_random_uuid(), tenant, 1, 'command', 'cat', '', 1, '' from a""")
    want = ["alpha", "beta"] + [f"many-{n:03d}" for n in range(1, 121)]
    for limit, pages in ((None, 3), (61, 2), (1000, 1)):
        names, cursor, count = [], None, 0
        while count == 0 or cursor:
            query = {k: v for k, v in (("limit", limit), ("cursor", cursor)) if v}
            a = t.call("GET", "/v1/agents?" + urllib.parse.urlencode(query))
            assert a.status == 200, a.body
            names += [x["name"] for x in a.json["agents"]]
            cursor, count = a.json["next_cursor"], count + 1
        assert names == want and count == pages
    cursor = t.call("GET", "/v1/agents?limit=1").json["next_cursor"]
    for client, text in ((lists.tenant(), cursor), (t, cursor[:-2] + "AA"), (t, "alpha"), (t, page(t, limit=1)["next_cursor"] or "x")):
        a = client.call("GET", "/v1/agents?" + urllib.parse.urlencode({"cursor": text}))
        assert a.status == 400 and a.json["code"] == "invalid_cursor"
    assert t.call("GET", "/v1/agents?limit=1001").json["code"] == "invalid_query"
