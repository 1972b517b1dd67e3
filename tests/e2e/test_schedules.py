"""Schedules: planned rightly, fired once an instant whoever dies, paused, refused."""

import datetime
import json
import time
import zoneinfo

import pytest

from sim_stack import AGENT, SimStack
from stack import Client, in_threads, until


@pytest.fixture(scope="module")
def stack():
    s = SimStack()
    try:
        yield s.start(dispatchers=2)
    finally:
        s.stop()


@pytest.fixture(autouse=True)
def clean(stack):
    yield
    stack.psql("delete from schedules")


def create(stack, name="a", cron="0 8 * * *", client=None, **fields):
    body = {"name": name, "cron": cron, "agent": AGENT, "prompt": "x", **fields}
    a = (client or stack.client).call("POST", "/v1/schedules", body)
    assert a.status == 201, a.body
    return a.json


def get(stack, name="a"):
    return stack.client.call("GET", f"/v1/schedules/{name}").json


def due(stack, where="true"):
    """Their instant has come, a second ago."""
    stack.psql(f"update schedules set next_at = now() - interval '1 second' where {where}")


def made(stack, **metadata):
    query = "&".join(f"metadata.{k}={v}" for k, v in metadata.items())
    return stack.client.call("GET", f"/v1/invocations?limit=200&{query}").json["data"]


def at(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


# ---- planning ----


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Auckland", "Etc/GMT+3"])
def test_the_next_instant_is_that_minute_on_that_wall(stack, zone):
    tz = zoneinfo.ZoneInfo(zone)
    s = create(stack, cron="17 5 * * *", time_zone=zone)
    wall = at(s["next_at"]).astimezone(tz)
    now = datetime.datetime.now(tz)
    assert (wall.hour, wall.minute, wall.second) == (5, 17, 0)
    assert now < wall and wall.replace(tzinfo=None) - now.replace(tzinfo=None) <= datetime.timedelta(days=1)
    assert s["time_zone"] == zone and s["enabled"] and s["last_at"] is None and get(stack) == s


def test_the_next_minute_is_at_most_a_minute_away(stack):
    s = create(stack, cron="* * * * *", time_zone="Asia/Kathmandu")
    ahead = at(s["next_at"]) - datetime.datetime.now(datetime.timezone.utc)
    assert datetime.timedelta(0) < ahead <= datetime.timedelta(seconds=60) and s["next_at"].endswith(":00.000Z")


def test_changes_of_the_clock_leave_no_instant_out_and_fire_none_twice(stack):
    def instant(minute, every_hour="false"):
        return stack.psql(f"select sandpiper_instant('{minute}', 'Europe/Berlin', {every_hour}) at time zone 'UTC'").strip()
    assert instant("2027-03-28 02:30") == "2027-03-28 01:30:00"  # there is no 02:30 on that day: 03:30 in summer
    assert instant("2027-03-28 03:30") == "2027-03-28 01:30:00"
    assert instant("2027-10-31 02:30") == "2027-10-31 01:30:00"  # comes twice: the second
    assert instant("2027-10-31 02:30", "true") == "2027-10-31 01:30:00"  # far away


# ---- firing ----


def test_an_instant_fires_once_however_many_dispatchers_there_are(stack):
    for _ in range(2):
        stack.add_dispatcher()
    for n in range(40):
        create(stack, f"s{n}", metadata={"flock": "yes"})
    for round in range(1, 4):
        due(stack)
        until("all have fired", lambda: stack.count("select count(*) from schedules where next_at < now()") == 0)
        until("all have run", lambda: len(made(stack, flock="yes")) >= 40 * round)
        assert len(made(stack, flock="yes")) == 40 * round
    until("all have ended", lambda: all(r["status"] == "succeeded" for r in made(stack, flock="yes")))


def test_nothing_is_lost_or_doubled_when_dispatchers_die(stack):
    for n in range(150):
        create(stack, f"s{n}", metadata={"deaths": "yes"})
    due(stack)
    for _ in range(3):
        until("some have fired", lambda: stack.count("select count(*) from schedules where last_at is not null") > 0)
        victim = stack.dispatchers[0]
        victim.kill()
        stack.dispatchers.remove(victim)
        stack.add_dispatcher()
    until("all have fired", lambda: stack.count("select count(*) from schedules where last_at is null") == 0)
    until("all have run", lambda: sum(r["status"] == "succeeded" for r in made(stack, deaths="yes")) == 150, 60)
    names = stack.psql("select count(*), count(distinct last_invocation) from schedules").split("|")
    assert names == ["150", "150\n"] or [n.strip() for n in names] == ["150", "150"]


def test_an_invocation_is_as_the_schedule_says(stack):
    create(stack, prompt=json.dumps({"sim": {"output": "hello"}}), metadata={"of": "schedule"}, priority="low", timeout_s=7,
           queue_timeout_s=900)
    due(stack)
    s = until("it has fired", lambda: get(stack)["last_at"] and get(stack))
    r = stack.client.end(s["last_invocation"])
    assert (r["status"], r["output"], r["metadata"], r["priority"], r["timeout_s"]) == (
        "succeeded", "hello", {"of": "schedule"}, "low", 7)
    assert at(s["next_at"]) > datetime.datetime.now(datetime.timezone.utc) and s["last_error"] is None


def test_what_was_missed_fires_once(stack):
    create(stack, cron="* * * * *", metadata={"missed": "yes"})
    stack.psql("update schedules set next_at = now() - interval '3 hours'")
    until("it has fired", lambda: get(stack)["last_at"])
    assert at(get(stack)["next_at"]) > datetime.datetime.now(datetime.timezone.utc)
    assert len(until("it is there", lambda: made(stack, missed="yes"))) == 1


def test_an_agent_that_is_not_there_is_said(stack):
    create(stack, agent="not-yet")
    due(stack)
    s = until("it has tried", lambda: get(stack)["last_at"] and get(stack))
    assert s["last_error"] == "agent_not_ready" and s["last_invocation"] is None
    stack.client.deploy("not-yet", {"agent.json": '{"runtime": "command", "entry": "cat"}'})
    due(stack)
    s = until("it has fired", lambda: get(stack)["last_invocation"] and get(stack))
    assert s["last_error"] is None and stack.client.end(s["last_invocation"])["status"] == "succeeded"


def test_a_paused_one_fires_nothing_and_a_resumed_one_looks_ahead(stack):
    create(stack, metadata={"paused": "yes"})
    paused = stack.client.call("POST", "/v1/schedules/a/pause").json
    assert paused["enabled"] is False and paused["next_at"] is None
    due(stack)
    other = create(stack, "b")
    due(stack, "name = 'b'")
    until("another has fired", lambda: get(stack, "b")["last_at"])
    assert get(stack)["last_at"] is None and other["enabled"]
    stack.client.call("POST", "/v1/schedules/a/resume")
    again = until("it is planned", lambda: get(stack)["next_at"] and get(stack))
    assert again["enabled"] and at(again["next_at"]) > datetime.datetime.now(datetime.timezone.utc)
    assert stack.client.call("POST", "/v1/schedules/a/resume").json["next_at"] == again["next_at"]
    assert made(stack, paused="yes") == []


def test_a_redis_that_is_away_only_delays(stack):
    create(stack, metadata={"redis": "away"})
    stack.redis.kill()
    try:
        due(stack)
        until("it has fired", lambda: get(stack)["last_at"])
    finally:
        stack.start_redis()
    id = get(stack)["last_invocation"]
    assert stack.client.end(id, 60)["status"] == "succeeded"


# ---- names, lists, tenants ----


def test_lists_go_by_name_in_pages(stack):
    names = sorted(f"n{n}" for n in range(25))
    in_threads([lambda n=n: create(stack, n) for n in names], 8)
    seen, query = [], "?limit=10"
    while query:
        page = stack.client.call("GET", f"/v1/schedules{query}").json
        seen += [s["name"] for s in page["data"]]
        assert all("prompt" not in s for s in page["data"])
        query = page["next_cursor"] and f"?limit=10&cursor={page['next_cursor']}"
    assert seen == names


def test_a_name_is_taken_once_even_at_once(stack):
    def post():
        return stack.client.call("POST", "/v1/schedules", {"name": "same", "cron": "@daily", "agent": AGENT, "prompt": "x"}).status
    assert sorted(in_threads([post] * 16, 16)) == [201] + [409] * 15


def test_a_tenant_has_its_own(stack):
    create(stack)
    other = Client(stack.gateways[0].port, stack.new_key("elsewhere"))
    for method, path in (("GET", "/v1/schedules/a"), ("DELETE", "/v1/schedules/a"), ("POST", "/v1/schedules/a/pause")):
        assert other.call(method, path).status == 404
    assert other.call("GET", "/v1/schedules").json["data"] == []
    create(stack, client=other)  # the same name
    assert stack.client.call("DELETE", "/v1/schedules/a").status == 204
    assert stack.client.call("DELETE", "/v1/schedules/a").status == 404
    assert other.call("GET", "/v1/schedules/a").status == 200


def test_there_is_an_end_to_how_many(stack):
    create(stack, "first")
    stack.psql("insert into schedules (id, tenant, api_key, name, cron, time_zone, agent, version, priority, timeout_ms, "
               "queue_timeout_ms, max_attempts, retry_on, prompt) select gen_random_uuid(), tenant, api_key, 'x' || n, cron, "
               "time_zone, agent, version, priority, timeout_ms, queue_timeout_ms, max_attempts, retry_on, prompt "
               "from schedules, generate_series(1, 999) n")
    a = stack.client.call("POST", "/v1/schedules", {"name": "one-more", "cron": "@daily", "agent": AGENT, "prompt": "x"})
    assert a.status == 409 and "1,000" in a.json["detail"]


@pytest.mark.parametrize("field, value, code, word", [
    ("cron", "61 * * * *", "invalid_field", "minute"),
    ("cron", "0 0 30 2 *", "invalid_field", "never"),
    ("cron", 5, "invalid_field", "string"),
    ("cron", None, "missing_field", "cron"),
    ("name", "Not A Slug", "invalid_field", "hyphens"),
    ("name", None, "missing_field", "name"),
    ("time_zone", "Mars/Olympus", "invalid_field", "none of that name"),
    ("time_zone", "FOO3", "invalid_field", "Europe/Berlin"),
    ("time_zone", "", "invalid_field", "Europe/Berlin"),
    ("time_zone", "../etc/passwd", "invalid_field", "Europe/Berlin"),
    ("prompt", "x" * 70_000, "prompt_too_large", "65536"),
    ("agent", None, "missing_field", "agent"),
    ("tme_zone", "UTC", "unknown_field", "time_zone"),
    ("webhook", {"url": "http://x"}, "unsupported_feature", "schedule"),
])
def test_what_cannot_be_used_is_said(stack, field, value, code, word):
    body = {"name": "a", "cron": "@daily", "agent": AGENT, "prompt": "x", field: value}
    if value is None:
        del body[field]
    a = stack.client.call("POST", "/v1/schedules", body)
    assert a.json["code"] == code and word in a.json["detail"], a.body
    assert stack.client.call("GET", "/v1/schedules").json["data"] == []


# ---- the command line ----


def test_the_command_line(stack):
    out = stack.cli("schedules", "create", "morning", AGENT, "a prompt", "--cron", "0 8 * * *", "--time-zone", "Europe/Berlin",
                    "--metadata", "by=cli").stdout.decode()
    assert "morning" in out and "08:00" in out or "next" in out
    assert json.loads(stack.cli("schedules", "show", "morning", "--json").stdout)["metadata"] == {"by": "cli"}
    assert "morning" in stack.cli("schedules").stdout.decode() and "0 8 * * *" in stack.cli("schedules", "list").stdout.decode()
    assert "paused" in stack.cli("schedules", "pause", "morning").stdout.decode()
    assert "paused" in stack.cli("schedules").stdout.decode()
    assert "resumed" in stack.cli("schedules", "resume", "morning").stdout.decode()
    assert "deleted" in stack.cli("schedules", "delete", "morning").stdout.decode()
    assert stack.cli("schedules", "show", "morning", check=False).returncode == 3
    bad = stack.cli("schedules", "create", "x", AGENT, "p", "--cron", "nonsense", check=False)
    assert bad.returncode == 3 and b"five fields" in bad.stderr
    assert stack.cli("schedules", "create", "x", AGENT, "p", check=False).returncode == 2
    assert stack.cli("schedules", "destroy", check=False).returncode == 2
