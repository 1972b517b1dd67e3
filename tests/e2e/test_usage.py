"""Sums of usage: GET /v1/usage and `sandpiper usage`, against what is on record of each invocation, and against the tables."""

import csv
import datetime
import decimal
import io
import json
import os
import pathlib
import signal
import subprocess
import threading
import uuid

import pytest

from e2e_agents import AGENTS
from stack import PG_BIN, Client, Stack, archive, in_threads, until
from usage_sums import COUNTS, differences, flat, truth

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root")

REPORTER = """
import json, os, sys
order = json.loads(sys.stdin.read())
json.dump(order["report"], open(os.environ["SANDPIPER_USAGE_FILE"], "w"))
sys.exit(order.get("exit", 0))
"""
FORGETFUL = {"agent.json": '{"runtime": "command", "entry": "cat", "secrets": ["API_TOKEN"]}'}
MIGRATIONS = pathlib.Path(__file__).resolve().parents[2] / "deploy/migrations"
NDJSON = {"Content-Type": "application/x-ndjson"}
ENDED = COUNTS[:6]
DAY = datetime.timedelta(days=1)


def order(**kw):
    return json.dumps(kw)


@pytest.fixture(scope="module")
def stack():
    s = Stack().start(dispatchers=2)
    for name, files in AGENTS.items():
        s.client.deploy(name, files)
    s.client.deploy("reporter", {"agent.json": '{"runtime": "python", "usage": "file"}', "main.py": REPORTER})
    s.client.deploy("forgetful", FORGETFUL)
    s.second = Client(s.gateways[0].port, s.new_key())
    yield s
    s.stop()


def usage(client, query=""):
    a = client.call("GET", f"/v1/usage?{query}")
    assert a.status == 200, (a.status, a.body)
    return json.loads(a.body, parse_float=decimal.Decimal)


def folded(stack):
    until("all is folded", lambda: stack.count("select count(*) from usage_deltas") == 0)


def exact(stack):
    wrong = differences(stack.psql)
    assert not wrong, wrong


def running(stack, id):
    return until("it runs", lambda: stack.client.get(id)["status"] == "running" and stack.sandboxes())


def canceled(client, id):
    assert client.call("POST", f"/v1/invocations/{id}/cancel").status in (200, 202)
    return id


def later():
    return (datetime.datetime.now(datetime.timezone.utc) + DAY).strftime("%Y-%m-%dT%H:%M:%SZ")


# ---- everything that can become of an invocation ----


def plain_ends(s):
    c, second = s.client, s.second
    run = [(c, "echo", "x", {}), (second, "echo", "y", {}), (c, "probe", order(exit=3), {}), (c, "probe", order(kill=9), {}),
           (second, "probe", order(sleep=30), {"timeout_s": 1}), (c, "forgetful", "x", {}),
           (c, "probe", order(exit=7), {"retry": {"max_attempts": 3, "on": ["failed"]}}),
           (c, "reporter", order(report={"input_tokens": 100, "output_tokens": 7, "cost_usd": 0.1}), {}),
           (c, "reporter", order(report={"input_tokens": 20, "cost_usd": 0.2}), {}),
           (c, "reporter", order(report={"output_tokens": 3, "cost_usd": 0.0000125}, exit=1), {})]
    return [client.submit(agent, prompt, **fields).json["id"] for client, agent, prompt, fields in run]


def canceled_ones(s):
    scheduled = canceled(s.client, s.client.submit("echo", "x", not_before=later()).json["id"])
    id = s.client.submit("probe", order(sleep=30)).json["id"]
    running(s, id)
    return [scheduled, canceled(s.second, id)]


def batches(s):
    """One that runs, and one whose items are canceled: waiting for their time behind the cursor, fed, and not fed."""
    line = json.dumps({"agent": "echo", "prompt": "x"}) + "\n"
    a = s.second.call("POST", "/v1/batches", line.encode() * 20, NDJSON).json["id"]
    items = [{"agent": "echo", "prompt": "x", "not_before": later()}] * 4 + [{"agent": "probe", "prompt": order(sleep=60)}] * 3 + \
        [{"agent": "echo", "prompt": "x"}] * 40
    b = s.client.call("POST", "/v1/batches?max_concurrency=1", "\n".join(map(json.dumps, items)).encode(), NDJSON).json["id"]
    until("it runs", lambda: s.client.call("GET", f"/v1/batches/{b}").json["counts"]["running"])
    assert s.client.call("POST", f"/v1/batches/{b}/cancel").status == 202
    for id in (a, b):
        until("the batch ends", lambda id=id: s.client.call("GET", f"/v1/batches/{id}").json["ended_at"], 60)
    got = [json.loads(x) for id in (a, b) for x in s.client.call("GET", f"/v1/batches/{id}/results").body.splitlines()]
    return [r["id"] for r in got]


def schedules(s):
    s.second.call("POST", "/v1/schedules", {"name": "often", "cron": "0 8 1 1 *", "agent": "echo", "prompt": "x"})
    s.psql("update schedules set next_at = now() - interval '1 second'")
    id = until("it fires", lambda: s.psql("select last_invocation from schedules where last_invocation is not null"))
    return [f"inv_{id}"]


def lost_ones(s):
    id = s.client.submit("probe", order(sleep=2)).json["id"]
    s.destroy(running(s, id)[0]["sandboxID"])
    s.client.end(id)
    dead = s.client.submit("probe", order(sleep=2)).json["id"]
    running(s, dead)
    s.executors[-1].kill()
    s.add_executor()
    s.client.end(dead)
    until("the reaper has written its usage", lambda: s.client.get(dead)["attempts"][0]["usage"], 40)
    return [id, dead]


def expired_one(s):
    """Nobody is there to claim it."""
    s.executors[-1].stop()
    id = s.client.submit("echo", "x", queue_timeout_s=1).json["id"]
    assert s.client.end(id)["status"] == "expired"
    s.add_executor()
    return [id]


@pytest.fixture(scope="module")
def ran(stack):
    """The records of one of each; meanwhile the sums are looked at: they are right at every moment."""
    stop, looks, wrong = threading.Event(), [0], []

    def look():
        while not stop.is_set():
            wrong.extend(differences(stack.psql))
            looks[0] += 1

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        ids = plain_ends(stack)
        for what in (canceled_ones, batches, schedules):
            ids += what(stack)
        records = in_threads([lambda id=id: stack.client.end(id) for id in ids], 8)
        ids = lost_ones(stack) + expired_one(stack)
        records += [stack.client.end(id) for id in ids]
    finally:
        stop.set()
        watcher.join()
    assert not wrong, wrong[:5]
    assert looks[0] > 20
    return records


def of_records(records):
    """The sums as the records tell them: an invocation by its status, every attempt by its usage."""
    sums = dict.fromkeys(COUNTS, 0)
    for r in records:
        sums[r["status"]] += 1
        sums["attempts"] += sum(a["usage"] is not None for a in r["attempts"])
        for c in ("sandbox_ms", "run_ms", "cpu_ms"):
            sums[c] += sum(a["usage"][c] or 0 for a in r["attempts"] if a["usage"])
        for c in ("input_tokens", "output_tokens", "cost_usd"):
            sums[c] += decimal.Decimal(str(r["usage"][c] or 0))
    return sums


def test_sums_are_those_of_the_records(stack, ran):
    got, want = flat(usage(stack.client)["totals"]), of_records(ran)
    assert got == want
    assert all(got[s] > 0 for s in ENDED) and got["canceled"] > 40 and got["attempts"] > 30, got
    assert got["input_tokens"] == 120 and got["output_tokens"] == 10 and got["cpu_ms"] > 0
    assert got["cost_usd"] == decimal.Decimal("0.3000125"), "decimals, without drift"
    folded(stack)
    assert flat(usage(stack.client)["totals"]) == want, "folding changes no sum"
    exact(stack)
    assert got == truth(stack.psql)


def test_groups(stack, ran):
    whole = usage(stack.client)
    keys = dict(line.split("|") for line in stack.psql("select id, name from api_keys").splitlines())
    names = dict(line.split("|") for line in stack.psql("select id, slug from agents").splitlines())
    for by in ("day", "agent", "key", "day,agent", "agent,key", "key,agent,day"):
        a = usage(stack.client, f"by={by}")
        assert a["totals"] == whole["totals"] and a["next_cursor"] is None
        assert {k: sum(flat(g)[k] for g in a["data"]) for k in COUNTS} == flat(a["totals"])
        for g in a["data"]:
            assert g.keys() & {"day", "agent", "key"} == set(by.split(","))
            where = ["true"]
            if "day" in g:
                where.append(f"day = '{g['day']}'")
            if "agent" in g:
                where.append(f"agent = '{g['agent']['id'][4:]}'")
                assert names[g["agent"]["id"][4:]] == g["agent"]["name"]
            if "key" in g:
                where.append(f"api_key = '{g['key']['id'][4:]}'")
                assert keys[g["key"]["id"][4:]] == g["key"]["name"]
            assert flat(g) == truth(stack.psql, " and ".join(where)), (by, g)
            assert g["invocations"]["total"] == sum(g["invocations"][s] for s in ENDED)
    assert len(usage(stack.client, "by=agent")["data"]) == 4 and len(usage(stack.client, "by=key")["data"]) == 2


def test_filters(stack, ran):
    for g in usage(stack.client, "by=agent")["data"]:
        assert flat(usage(stack.client, f"agent={g['agent']['name']}")["totals"]) == flat(g)
    for g in usage(stack.client, "by=key")["data"]:
        assert flat(usage(stack.client, f"key={g['key']['id']}")["totals"]) == flat(g)
    both = usage(stack.client, "agent=forgetful&by=key")
    assert flat(both["totals"]) == {**dict.fromkeys(COUNTS, 0), "error": 1} and len(both["data"]) == 1


def test_pages(stack, ran):
    query = "by=agent,key"
    whole, got, cursor = usage(stack.client, query), [], ""
    while cursor is not None:
        page = usage(stack.client, f"{query}&limit=2{cursor}")
        assert len(page["data"]) <= 2 and page["totals"] == whole["totals"]
        got += page["data"]
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
    assert got == whole["data"] and len(got) >= 5
    cursor = usage(stack.client, f"{query}&limit=1")["next_cursor"]
    stranger = Client(stack.client.port, stack.new_key("stranger"))
    for client, other in ((stack.client, "by=agent"), (stack.client, "by=agent,key&agent=echo"), (stranger, query)):
        a = client.call("GET", f"/v1/usage?{other}&cursor={cursor}")
        assert (a.status, a.json["code"]) == (400, "invalid_cursor")


def test_other_tenants_see_nothing(stack, ran):
    other = Client(stack.client.port, stack.new_key("others"))
    a = usage(other, "by=day,agent,key")
    assert a["data"] == [] and set(flat(a["totals"]).values()) == {0}
    key = usage(stack.client, "by=key")["data"][0]["key"]["id"]
    for query in ("agent=echo", f"key={key}"):
        assert other.call("GET", f"/v1/usage?{query}").status == 404


@pytest.mark.parametrize("query, word", [
    ("from=yesterday", "from must be a day"), ("to=2026-02-30", "to must be a day"), ("from=2026-11-21T00:00:00Z", "from must be a day"),
    ("from=1969-12-31", "from must be a day"), ("from=2026-11-02&to=2026-11-01", "from is later than to"),
    ("from=2999-01-01", "later than today"), ("from=2025-01-01&to=2026-01-02", "367 days are too many; at most 366"),
    ("by=", "by takes day, agent and key"), ("by=hour", 'not "hour"'), ("by=day,", 'not ""'), ("by=day,agent,day", "names day twice"),
    ("agent=echo@2", "not summed by version"), ("agent=", "an agent's name"), ("key=nonsense", "the id of an API key"),
    ("limit=0", "from 1 to 1000"), ("limit=1001", "from 1 to 1000"), ("day=2026-11-21", "unknown query parameter"), ("form=2026-11-21", 'did you mean "from"'),
    ("from=2026-11-01&from=2026-11-02", "from")])
def test_parameters_that_cannot_be_used(stack, query, word):
    a = stack.client.call("GET", f"/v1/usage?{query}")
    assert (a.status, a.json["code"]) == (400, "invalid_query") and word in a.json["detail"], a.body


def test_a_key_that_is_given_for_its_id_is_not_repeated(stack):
    a = stack.client.call("GET", f"/v1/usage?key={stack.key}")
    assert a.status == 400 and stack.key.encode() not in a.body


def test_what_is_not_there(stack):
    for query, code in (("agent=nobody", "agent_not_found"), (f"key=key_{uuid.uuid4()}", "not_found")):
        a = stack.client.call("GET", f"/v1/usage?{query}")
        assert (a.status, a.json["code"]) == (404, code)


# ---- days ----


@pytest.fixture
def year(stack):
    """A tenant with one job a day, and more tokens than 64 bits hold; in the sums alone."""
    client = Client(stack.client.port, stack.new_key(f"t{uuid.uuid4().hex[:8]}"))
    tenant = stack.psql("select max(id) from tenants")
    stack.psql("insert into usage_daily (tenant, day, agent, api_key, succeeded, failed, timed_out, canceled, expired, error, attempts, "
               "sandbox_ms, run_ms, cpu_ms, input_tokens, output_tokens, cost_usd) select "
               f"{tenant}, (now() at time zone 'UTC')::date - n, gen_random_uuid(), gen_random_uuid(), 1, 0, 0, 0, 0, 0, 1, 3600000, 1, 1, "
               "9000000000000000000, 1500, 0.001 from generate_series(0, 399) n")
    client.today = datetime.date.fromisoformat(stack.psql("select (now() at time zone 'UTC')::date"))
    client.tenant = tenant
    yield client
    stack.psql(f"delete from usage_daily where tenant = {tenant}")


def days(client, query):
    return [datetime.date.fromisoformat(g["day"]) for g in usage(client, query)["data"]]


def test_days_are_inclusive_and_thirty_without_bounds(year):
    t = year.today
    assert days(year, "") == [t - DAY * n for n in range(29, -1, -1)]
    assert days(year, f"to={t - DAY * 10}") == [t - DAY * n for n in range(39, 9, -1)]
    assert days(year, f"from={t - DAY * 40}&to={t - DAY * 40}") == [t - DAY * 40]
    assert days(year, f"from={t - DAY * 2}") == [t - DAY * 2, t - DAY, t]
    assert len(days(year, f"from={t - DAY * 365}&to={t}")) == 366
    assert days(year, "from=1970-01-01&to=1970-12-31") == [] and days(year, "from=9999-12-31&to=9999-12-31") == []


def test_sums_of_any_size(year):
    a = usage(year, "by=day,agent")
    assert (a["totals"]["input_tokens"], a["totals"]["sandbox_ms"]) == (30 * 9 * 10 ** 18, 30 * 3600000)
    assert a["totals"]["cost_usd"] == decimal.Decimal("0.03")
    assert {(g["agent"]["name"], g["invocations"]["total"]) for g in a["data"]} == {(None, 1)}


def test_a_cursor_keeps_the_days_that_it_began_with(stack, year):
    """A default that means today does not move between pages."""
    first = usage(year, "limit=29")
    stack.psql("update usage_daily set day = day where false")
    last = usage(year, f"limit=29&cursor={first['next_cursor']}")
    assert (last["from"], last["to"]) == (first["from"], first["to"])
    assert [g["day"] for g in last["data"]] == [first["to"]] and last["next_cursor"] is None


# ---- folding ----


def delta(stack, n=1):
    return in_threads([lambda: stack.client.run("echo", "x")] * n, 4)


def test_a_fold_that_breaks_off_changes_nothing(stack):
    """Its server process is ended while it is in the middle: deltas deleted, the day's row not written."""
    folded(stack)
    before = usage(stack.client)["totals"]["invocations"]["succeeded"]
    lock = subprocess.Popen([str(PG_BIN / "psql"), "-h", str(stack.dir / "run"), "-U", "sandpiper", "-XAtqc",
                             "begin; lock table usage_daily in exclusive mode; select pg_sleep(60)", "sandpiper"])
    folding = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%DELETE FROM usage_deltas%'"
    try:
        delta(stack)
        until("a fold waits in its middle", lambda: stack.count(folding) > 0)
        exact(stack)
        assert usage(stack.client)["totals"]["invocations"]["succeeded"] == before + 1
        assert stack.psql("select bool_and(pg_terminate_backend(pid)) from pg_stat_activity where pid in (select pid from pg_stat_activity "
                          "where wait_event_type = 'Lock' and query like '%DELETE FROM usage_deltas%')") == "t"
        exact(stack)
        until("somebody tries again", lambda: stack.count(folding) > 0)
        stack.dispatchers[0].kill()
        exact(stack)
    finally:
        stack.psql("select pg_terminate_backend(pid) from pg_stat_activity where query like '%lock table usage_daily%' and pid <> pg_backend_pid()")
        lock.wait(20)
    folded(stack)
    exact(stack)
    assert usage(stack.client)["totals"]["invocations"]["succeeded"] == before + 1
    stack.dispatchers[0].start()


def test_a_backlog_is_folded_in_steps_by_several(stack):
    """More than a step takes, while both dispatchers were away; sums are right before, meanwhile and after."""
    for d in stack.dispatchers:
        d.signal(signal.SIGSTOP)
    try:
        key = stack.psql("select id from api_keys order by created_at limit 1")
        stack.psql("insert into usage_deltas (tenant, day, agent, api_key, succeeded, cost_usd) select 1, date '2001-01-01' + n % 7, "
                   f"'00000000-0000-0000-0000-000000000001', '{key}', 1, 0.1 from generate_series(1, 30000) n")
        query = "from=2001-01-01&to=2001-01-07"
        before = usage(stack.client, query)
        assert before["totals"]["invocations"]["succeeded"] == 30000 and before["totals"]["cost_usd"] == 3000
    finally:
        for d in stack.dispatchers:
            d.signal(signal.SIGCONT)
    until("all is folded", lambda: usage(stack.client, query) == before and stack.count("select count(*) from usage_deltas") == 0, 30, 0)
    assert usage(stack.client, query) == before and stack.count("select count(*) from usage_daily where day < '2002-01-01'") == 7
    stack.psql("delete from usage_daily where day < '2002-01-01'")


def test_without_dispatchers_sums_are_exact_and_grow(stack):
    for d in stack.dispatchers:
        d.signal(signal.SIGSTOP)
    try:
        before = usage(stack.client)["totals"]["invocations"]["succeeded"]
        delta(stack, 8)
        assert stack.count("select count(*) from usage_deltas") > 0
        assert usage(stack.client)["totals"]["invocations"]["succeeded"] == before + 8
        exact(stack)
    finally:
        for d in stack.dispatchers:
            d.signal(signal.SIGCONT)


# ---- releases before ----


def unmarked(stack, id, attempt, started="now() - interval '1 minute'", result=True):
    """What a daemon writes that does not know of sums."""
    stack.psql("insert into usage (id, attempt, tenant, agent, boot, sandbox, queue_ms, sandbox_start_ms, run_ms, sandbox_ms, cpu_ms, "
               f"started_at, input_tokens, cost_usd) select id, {attempt}, tenant, agent, gen_random_uuid(), 's', 1, 2, 30, 40, null, {started}, "
               f"5, 0.1 from invocations where id = '{id}' on conflict do nothing")
    if result:
        stack.psql("insert into results (id, tenant, attempt, boot, status, output, output_bytes, output_truncated, logs, logs_bytes, "
                   f"logs_truncated, finished_at) select id, tenant, {attempt}, gen_random_uuid(), 2, '', 0, false, '', 0, false, now() "
                   f"from invocations where id = '{id}' on conflict do nothing")


def test_rows_of_daemons_that_know_nothing_of_sums_are_counted(stack):
    before = flat(usage(stack.client)["totals"])
    id = stack.client.submit("echo", "x", not_before=later()).json["id"][4:]
    for attempt, started in ((1, "now()"), (2, "null"), (2, "null")):  # the last one is a repeat
        unmarked(stack, id, attempt, started)
    exact(stack)
    after = flat(usage(stack.client)["totals"])
    assert {k: after[k] - before[k] for k in COUNTS if after[k] != before[k]} == {
        "failed": 1, "attempts": 2, "sandbox_ms": 80, "run_ms": 60, "input_tokens": 10, "cost_usd": decimal.Decimal("0.2")}


# ---- the command line ----


def test_a_table(stack, ran):
    text = stack.cli("usage", "--by", "agent").stdout.decode().splitlines()
    a = usage(stack.client, "by=agent")
    assert text[0].split()[:3] == ["AGENT", "INVOCATIONS", "SUCCEEDED"] and "TIMED OUT" in text[0] and text[0].endswith("COST")
    assert [x.split()[0] for x in text[1:]] == [g["agent"]["name"] for g in a["data"]] + ["TOTAL"]
    assert text[-1].split()[1] == str(a["totals"]["invocations"]["total"]) and text[-1].endswith(f"${a['totals']['cost_usd']:.2f}")
    assert len({len(x) for x in text}) == 1, "columns stand under each other"
    day = stack.cli("usage", "--since", "2d", "--by", "day,agent,key", "--agent", "forgetful").stdout.decode().splitlines()
    assert len(day) == 3 and day[0].split()[:3] == ["DAY", "AGENT", "KEY"] and "SUCCEEDED" not in day[0] and "ERROR" in day[0]


def test_units_for_people(stack, year):
    year.call("GET", "/v1/usage")
    line = stack.cli("usage", env={"SANDPIPER_API_KEY": year.key}).stdout.decode().splitlines()[-1]
    assert line.split("  ")[0] == "TOTAL"
    for cell in ("30 h", "30 ms", "270000000000 G", "45 k", "$0.03"):
        assert f" {cell}" in line, (cell, line)


def test_json_and_csv_are_exact(stack, year):
    env = {"SANDPIPER_API_KEY": year.key}
    a = usage(year, "by=day,agent")
    lines = [json.loads(x, parse_float=decimal.Decimal) for x in stack.cli("usage", "--by", "day,agent", "--json", env=env).stdout.splitlines()]
    assert lines == a["data"]
    rows = list(csv.DictReader(io.StringIO(stack.cli("usage", "--by", "day,agent", "--csv", env=env).stdout.decode())))
    assert [(r["day"], r["agent_id"], r["agent"], r["invocations"], r["succeeded"], r["sandbox_ms"], r["input_tokens"], r["cost_usd"]) for r in rows] == \
        [(g["day"], g["agent"]["id"], "", "1", "1", "3600000", "9000000000000000000", "0.001") for g in a["data"]]


def test_csv_quotes_what_needs_it(stack, ran):
    stack.psql("update api_keys set name = 'a, \"b\"' where id = (select api_key from usage_daily limit 1)")
    try:
        rows = list(csv.DictReader(io.StringIO(stack.cli("usage", "--by", "key", "--csv").stdout.decode())))
        assert 'a, "b"' in [r["key"] for r in rows]
    finally:
        stack.psql("update api_keys set name = 'cli' where name like 'a, %'")


@pytest.mark.parametrize("argv, status, words", [
    (["--since", "7d", "--from", "2026-11-01"], 2, "--since, or --from and --to"), (["--since", "soon"], 2, "--since needs a span"),
    (["--csv", "--json"], 2, "--csv or --json"), (["--by", "week"], 3, "by takes day, agent and key"), (["--from", "1.11."], 3, "from must be a day"),
    (["--agent", "nobody"], 3, "agent"), (["--key", "x"], 3, "the id of an API key"), (["more"], 2, "usage")])
def test_wrong_usage(stack, argv, status, words):
    r = stack.cli("usage", *argv, check=False)
    assert r.returncode == status and words in r.stderr.decode(), (r.returncode, r.stderr)


def test_nothing_ran(stack):
    r = stack.cli("usage", "--from", "1980-01-01", "--to", "1980-01-02")
    assert r.stdout == b"" and "nothing ran in those days" in r.stderr.decode()


# ---- the migration: last, for the daemons are stopped ----


def test_the_migration_counts_what_is_there(stack, ran):
    want = usage(stack.client, "by=day,agent,key")
    for p in stack.gateways + stack.executors + stack.dispatchers:
        p.stop()
    stack.psql("drop table usage_daily, usage_deltas; drop function sandpiper_count_result, sandpiper_count_usage cascade; "
               "drop function sandpiper_usage_ended; alter table usage drop column ended_at; alter table results drop column counted")
    script, = MIGRATIONS.glob("*_usage_sums.sql")
    stack.psql(f"begin; {script.read_text()}; commit")
    assert stack.count("select count(*) from usage_daily") == len(want["data"]) and stack.count("select count(*) from usage_deltas") == 0
    exact(stack)
    stack.add_gateway()
    client = Client(stack.gateways[-1].port, stack.key)
    assert usage(client)["totals"] == want["totals"]
