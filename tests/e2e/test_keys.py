"""API keys: what each may do, how long, and who sees them."""

import json
import os
import subprocess
import time
from datetime import datetime, timedelta, timezone

import pytest

from sim_stack import AGENT, SimStack
from stack import BIN, Client, until
from test_contract import DOCUMENTED

SCOPES = ["read", "invoke", "deploy", "admin"]


@pytest.fixture(scope="module")
def stack():
    s = SimStack()
    try:
        yield s.start(gateways=2)
    finally:
        s.stop()


def with_key(stack, key, n=0):
    return Client(stack.gateways[n].port, key)


def create(stack, **fields):
    a = stack.client.call("POST", "/v1/keys", {"name": "a key", **fields})
    assert a.status == 201, a.body
    return a.json


def listed(client, query=""):
    rows, cursor = [], ""
    while cursor is not None:
        page = client.call("GET", f"/v1/keys?limit=2{query}{cursor}").json
        rows += page["data"]
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
    return rows


def test_a_key_is_shown_once_and_works(stack):
    a = stack.client.call("POST", "/v1/keys", {"name": "nightly – batches", "scopes": ["invoke", "read"]})
    made = a.json
    assert a.status == 201 and a.headers["Cache-Control"] == "no-store" and made["key"].startswith("sp_") and made["prefix"] == made["key"][:7]
    assert made["scopes"] == ["read", "invoke"] and made["expires_at"] is None and made["last_used_at"] is None
    key = made.pop("key")
    assert with_key(stack, key).run(AGENT, "x")["status"] == "succeeded"
    until("its use is noted", lambda: stack.client.call("GET", f"/v1/keys/{made['id']}").json["last_used_at"])
    shown = stack.client.call("GET", f"/v1/keys/{made['id']}").json
    assert {**shown, "last_used_at": None} == made and shown in listed(stack.client)
    assert key not in stack.psql("select * from api_keys")


def test_who_names_no_scope_gets_one_that_submits(stack):
    made = create(stack)
    assert made["scopes"] == ["invoke"]
    mine = with_key(stack, made["key"])
    id = mine.run(AGENT, "x")["id"]
    assert mine.get(id)["status"] == "succeeded"
    a = mine.call("POST", "/v1/agents?name=x", b"x", {"Content-Type": "application/gzip"})
    assert (a.status, a.json["code"]) == (403, "forbidden") and a.json["detail"] == "this asks for a key with the scope deploy; yours has: invoke"
    assert a.headers["WWW-Authenticate"] == 'Bearer realm="sandpiper", error="insufficient_scope", scope="deploy"'


@pytest.mark.parametrize("scope", SCOPES)
def test_a_scope_opens_what_the_document_says_and_nothing_else(stack, scope):
    """Each operation is asked for things that are not there: what may be done is answered with anything but 403."""
    mine = with_key(stack, create(stack, scopes=[scope])["key"])
    for o in DOCUMENTED.operations:
        target = o.target({p["name"]: "inv_01a1fd5f-0000-7001-9b66-7ca8a28be6e9" if p["name"] == "id" else "nothing" for p in o.of("path")})
        may = o.open or scope == "admin" or scope in {s for a in o.security for s in a["key"]}
        assert (mine.call(o.method, target, b"" if o.content else None).status != 403) == may, (scope, o.id)


def test_a_key_sees_and_ends_itself_but_no_other(stack):
    one, other = create(stack, scopes=["deploy"]), create(stack)
    mine = with_key(stack, one["key"])
    assert mine.call("GET", "/v1/keys/self").json["id"] == mine.call("GET", f"/v1/keys/{one['id']}").json["id"] == one["id"]
    for method in ("GET", "DELETE"):
        a = mine.call(method, f"/v1/keys/{other['id']}")
        assert (a.status, a.json["code"]) == (403, "forbidden") and "admin" in a.json["detail"]
    assert mine.call("DELETE", "/v1/keys/self").status == 204
    assert mine.call("GET", "/v1/keys/self").status == 401
    assert with_key(stack, other["key"]).call("GET", "/v1/keys/self").status == 200


def test_a_revoked_key_is_refused_by_every_gateway(stack):
    made = create(stack)
    first, second = (with_key(stack, made["key"], n) for n in (0, 1))
    assert first.call("GET", "/v1/keys/self").status == 200
    begin = time.monotonic()
    assert second.call("GET", "/v1/keys/self").status == 200  # now it is kept there, for five seconds
    assert stack.client.call("DELETE", f"/v1/keys/{made['id']}").status == 204
    assert first.call("GET", "/v1/keys/self").status == 401
    until("the other refuses it", lambda: second.call("GET", "/v1/keys/self").status == 401, seconds=begin + 4 - time.monotonic())
    row = stack.client.call("GET", f"/v1/keys/{made['id']}").json
    assert row["revoked_at"] and stack.client.call("DELETE", f"/v1/keys/{made['id']}").status == 204
    assert stack.client.call("GET", f"/v1/keys/{made['id']}").json == row, "twice is as once"
    assert made["id"] not in {k["id"] for k in listed(stack.client)} and row in listed(stack.client, "&revoked=true")


def test_without_redis_a_revoked_key_lasts_some_seconds_at_most(stack):
    made = create(stack)
    second = with_key(stack, made["key"], 1)
    stack.redis.signal(19)
    try:
        assert second.call("GET", "/v1/keys/self").status == 200
        assert stack.client.call("DELETE", f"/v1/keys/{made['id']}").status == 204
        until("the other refuses it", lambda: second.call("GET", "/v1/keys/self").status == 401)
    finally:
        stack.redis.signal(18)


def test_a_key_expires_when_it_says_whatever_is_cached(stack):
    at = datetime.now(timezone.utc) + timedelta(seconds=2)
    mine = with_key(stack, create(stack, expires_at=at.isoformat())["key"])
    seen = []

    def refused():
        seen.append(mine.call("GET", "/v1/keys/self").status)
        return seen[-1] == 401
    until("it is refused", refused)
    over = datetime.now(timezone.utc) - at
    assert seen[0] == 200 and timedelta(0) <= over < timedelta(seconds=3), (seen, over)


def test_another_tenants_keys_are_unknown(stack):
    made = create(stack)
    other = with_key(stack, stack.new_key("keys-other"))
    for method in ("GET", "DELETE"):
        assert other.call(method, f"/v1/keys/{made['id']}").status == 404
    assert [k["name"] for k in listed(other)] == ["cli"]
    assert with_key(stack, made["key"]).call("GET", "/v1/keys/self").status == 200
    cursor = stack.client.call("GET", "/v1/keys?limit=1").json["next_cursor"]
    for query in (f"cursor={cursor}&revoked=true", "revoked=1", "revokd=true"):
        assert stack.client.call("GET", f"/v1/keys?{query}").status == 400
    assert other.call("GET", f"/v1/keys?cursor={cursor}").json["code"] == "invalid_cursor"


# ---- the command line ----


def sandpiper(stack, *argv, key=None, status=0, cwd="/", **more):
    e = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "SANDPIPER_URL": f"http://127.0.0.1:{stack.gateways[0].port}", **more}
    if key is not None:
        e["SANDPIPER_API_KEY"] = key
    r = subprocess.run([str(BIN / "sandpiper"), *argv], capture_output=True, text=True, env=e, cwd=cwd, timeout=60)
    assert r.returncode == status, (r.stdout, r.stderr)
    return r


def test_the_command_line_makes_shows_and_revokes(stack):
    admin = stack.new_key("keys-cli")
    r = sandpiper(stack, "keys", "create", "--name", "ci", "--scope", "read,deploy", "--expires", "90d", key=admin)
    key = r.stdout.strip()
    assert key.startswith("sp_") and r.stderr == "A key with the scopes read, deploy; it is shown this once only.\n"
    mine = json.loads(sandpiper(stack, "keys", "show", "--json", key=key).stdout)
    left = datetime.fromisoformat(mine["expires_at"].replace("Z", "+00:00")) - datetime.now(timezone.utc)
    assert mine["scopes"] == ["read", "deploy"] and timedelta(days=89) < left < timedelta(days=91)
    assert "scopes        read,deploy" in sandpiper(stack, "keys", "show", mine["id"], key=admin).stdout
    lines = sandpiper(stack, "keys", "ls", key=admin).stdout.splitlines()
    assert len(lines) == 3 and lines[1].startswith(mine["id"]) and lines[1].endswith(" ci") and " never " in lines[2]
    r = sandpiper(stack, "keys", "revoke", mine["id"], key=admin)
    assert r.stderr == f"{mine['id']} is revoked\n"
    assert "revoked" in sandpiper(stack, "keys", "ls", "--revoked", key=admin).stdout
    assert len(sandpiper(stack, "keys", "ls", "--json", key=admin).stdout.splitlines()) == 1
    assert "SANDPIPER_API_KEY" in sandpiper(stack, "keys", "show", key=key, status=3).stderr


def test_the_first_key_is_made_in_the_database(stack, tmp_path):
    r = sandpiper(stack, "keys", "create", cwd=tmp_path, SANDPIPER_DATABASE_URL=stack.env["SANDPIPER_DATABASE_URL"])
    assert with_key(stack, r.stdout.strip()).call("GET", "/v1/keys/self").json["scopes"] == ["admin"]
    assert "of tenant default with the scope admin" in r.stderr
    assert "SANDPIPER_DATABASE_URL" in sandpiper(stack, "keys", "create", cwd=tmp_path, status=2).stderr


@pytest.mark.parametrize("argv, words", [
    (["create", "--scope", "write"], "--scope takes read, invoke, deploy and admin"),
    (["create", "--scope", ""], "--scope takes"),
    (["create", "--expires", "soon"], "--expires needs a span"),
    (["create", "--name", ""], "--name takes"),
    (["revoke", "inv_01a1fd5f-0000-7001-9b66-7ca8a28be6e9"], "is no key's id"),
    (["destroy"], "keys create | ls"),
    (["revoke"], "keys create | ls"),
])
def test_wrong_usage(stack, argv, words):
    assert words in sandpiper(stack, "keys", *argv, key=stack.key, status=2).stderr
