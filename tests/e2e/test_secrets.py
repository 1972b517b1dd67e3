"""Secrets of agents and the `env` of submissions: who gets them, who does not, and that they are seen nowhere."""

import base64
import json
import os
import secrets as dice
import subprocess
import time

import pytest

from e2e_agents import make_stack
from stack import BIN, Client, Stack, in_threads, until

# Prints the variables that the prompt asks for, as base64, so that nothing is taken out of what the test reads.
SHOW = {"agent.json": '{"runtime": "python"}', "main.py": """
import base64, json, os, sys
order = json.load(sys.stdin)
for name in order.get("say", []):
    sys.stderr.write(f"{name} is {os.environ.get(name)}\\n")
for name in order.get("print", []):
    sys.stdout.write(f"{name} is {os.environ.get(name)}\\n")
if "raw" in order:
    value = os.environ[order["raw"]].encode()
    cuts = order.get("cuts", 1)
    for at in range(0, len(value), cuts):
        os.write(2, value[at:at + cuts])
        if order.get("slow"):
            import time; time.sleep(0.01)
for name in order.get("show", []):
    v = os.environ.get(name)
    print(name, "-" if v is None else base64.b64encode(v.encode()).decode())
if "exit" in order:
    sys.exit(order["exit"])
"""}


@pytest.fixture(scope="module")
def stack():
    s = make_stack()
    yield s
    s.quiet()
    s.stop()


@pytest.fixture
def client(stack):
    """A tenant of its own for each test, with an agent that shows its environment."""
    c = Client(stack.gateways[0].port, stack.new_key(f"t{dice.token_hex(4)}"))
    c.deploy("show", SHOW)
    return c


def put(client, name, value, agent="show", status=200):
    a = client.call("PUT", f"/v1/agents/{agent}/secrets/{name}", {"value": value})
    assert a.status == status, (a.status, a.body)
    return a.json


def shown(record):
    assert record["status"] == "succeeded", record
    if record["output"] is None:
        record["output"] = record["client"].call("GET", record["output_url"]).body.decode()
    pairs = dict(line.split(" ") for line in record["output"].splitlines())
    return {k: None if v == "-" else base64.b64decode(v).decode() for k, v in pairs.items()}


def show(client, *names, **fields):
    return shown({**client.run("show", json.dumps({"show": names}), **fields), "client": client})


def logs(client, id):
    return client.call("GET", f"/v1/invocations/{id}/logs").body


def test_a_secret_reaches_the_program_and_is_never_shown(client):
    assert client.call("GET", "/v1/agents/show/secrets").json == {"data": []}
    value = "s3cret \"quoted\" \\ ä\n\tlast"
    set_at = put(client, "TOKEN", value)["set_at"]
    put(client, "A", "x")
    assert show(client, "TOKEN", "A", "MISSING") == {"TOKEN": value, "A": "x", "MISSING": None}
    listed = client.call("GET", "/v1/agents/show/secrets")
    assert [s["name"] for s in listed.json["data"]] == ["A", "TOKEN"] and listed.json["data"][1]["set_at"] == set_at
    assert b"s3cret" not in listed.body
    for path in ("/v1/agents/show", "/v1/agents/show/versions"):
        assert b"s3cret" not in client.call("GET", path).body
    assert client.call("DELETE", "/v1/agents/show/secrets/A").status == 204
    assert client.call("DELETE", "/v1/agents/show/secrets/A").status == 404
    time.sleep(1.0)  # the promise: a second later at the latest
    assert show(client, "TOKEN", "A") == {"TOKEN": value, "A": None}


def test_setting_takes_effect_within_a_second(client):
    for n in range(3):
        put(client, "TOKEN", f"value {n}")
        time.sleep(1.0)
        assert show(client, "TOKEN") == {"TOKEN": f"value {n}"}


@pytest.mark.parametrize("name,value,status,code,words", [
    ("lower", "x", 400, "invalid_field", "capital letters"), ("1A", "x", 400, "invalid_field", "no digit"),
    ("A" * 65, "x", 400, "invalid_field", "64"), ("PATH", "x", 400, "invalid_field", "set by the system"),
    ("LD_PRELOAD", "x", 400, "invalid_field", "set by the system"), ("SANDPIPER_X", "x", 400, "invalid_field", "set by"),
    ("A", "", 400, "invalid_field", "not empty"), ("A", 5, 400, "invalid_field", "must be a string"),
    ("A", None, 400, "invalid_field", "must be a string"), ("A", "x" * 32769, 413, "secret_too_large", "32768"),
    ("A", "a\0b", 400, "invalid_json", "u0000"),
], ids=lambda v: str(v)[:12])
def test_what_cannot_be_set_is_said(client, name, value, status, code, words):
    a = client.call("PUT", f"/v1/agents/show/secrets/{name}", {"value": value})
    assert a.status == status and a.json["code"] == code and words in a.json["detail"], a.body
    assert client.call("GET", "/v1/agents/show/secrets").json == {"data": []}


def test_an_agent_has_so_many_and_so_much(client):
    big = "x" * 32768
    for n in range(3):
        put(client, f"BIG{n}", big)
    put(client, "LAST", "y" * 32767)
    a = put(client, "MORE", "zz", status=409)
    assert a["code"] == "too_many_secrets" and "131072" in a["detail"]
    put(client, "LAST", "y" * 32768)  # itself does not count twice
    assert show(client, "BIG0", "BIG2", "LAST") == {"BIG0": big, "BIG2": big, "LAST": "y" * 32768}
    for n in range(3):
        client.call("DELETE", f"/v1/agents/show/secrets/BIG{n}")
    in_threads([lambda n=n: client.call("PUT", f"/v1/agents/show/secrets/N{n}", {"value": str(n)}) for n in range(70)])
    names = [s["name"] for s in client.call("GET", "/v1/agents/show/secrets").json["data"]]
    assert len(names) == 64  # however many came at once
    assert put(client, "MORE", "x", status=409)["detail"].startswith("an agent has at most 64")


def test_tenants_and_agents_do_not_meet(stack, client):
    other = Client(client.port, stack.new_key(f"o{dice.token_hex(4)}"))
    other.deploy("show", SHOW)
    client.deploy("second", SHOW)
    put(client, "TOKEN", "of the first tenant")
    put(other, "TOKEN", "of the other tenant")
    assert show(client, "TOKEN") == {"TOKEN": "of the first tenant"}
    assert show(other, "TOKEN") == {"TOKEN": "of the other tenant"}
    assert shown(client.run("second", '{"show": ["TOKEN"]}')) == {"TOKEN": None}
    for method, body in (("GET", None), ("PUT", {"value": "x"}), ("DELETE", None)):
        path = "/v1/agents/second/secrets" + ("" if method == "GET" else "/TOKEN")
        a = other.call(method, path, body)
        assert a.status == 404 and a.json["code"] == "agent_not_found"


def test_a_row_that_was_moved_is_refused(stack, client):
    """Whoever can write the database cannot have a secret opened for somebody else."""
    other = Client(client.port, stack.new_key(f"o{dice.token_hex(4)}"))
    other.deploy("show", SHOW)
    client.deploy("second", SHOW)
    put(client, "TOKEN", "not for others")
    mine = "(select tenant from api_keys where id = '{}')"
    agents = {row.split("|")[0]: row.split("|")[1:] for row in stack.psql(
        "select a.slug || '@' || a.tenant, a.id, a.tenant from agents a join agent_secrets s on s.agent = a.id").splitlines()}
    agent, tenant = next(v for k, v in agents.items() if stack.psql(
        f"select count(*) from agent_secrets where agent = '{v[0]}' and name = 'TOKEN'") == "1"
        and k.split("@")[1] == stack.psql(f"select tenant from agents where slug = 'second' order by created_at desc limit 1"))
    theirs = stack.psql("select id from agents where slug = 'show' order by created_at desc limit 1")
    assert theirs != agent and mine
    stack.psql(f"insert into agent_secrets (agent, name, tenant, key_id, sealed, bytes) select a.id, 'TOKEN', a.tenant, "
               f"s.key_id, s.sealed, s.bytes from agent_secrets s, agents a where s.agent = '{agent}' and s.name = 'TOKEN' "
               f"and (a.id = '{theirs}' or (a.slug = 'second' and a.tenant = {tenant}))")
    stack.psql(f"insert into agent_secrets (agent, name, tenant, key_id, sealed, bytes) select agent, 'OTHER', tenant, "
               f"key_id, sealed, bytes from agent_secrets where agent = '{agent}' and name = 'TOKEN'")
    time.sleep(1)
    for c, name in ((other, "show"), (client, "second"), (client, "show")):
        r = c.run(name, '{"show": ["TOKEN", "OTHER"]}')
        assert r["status"] == "error" and r["error"]["code"] == "secret_unreadable", r
        assert "cannot be opened" in r["error"]["message"] and "not for others" not in json.dumps(r)
        assert len(r["attempts"]) == 1  # in vain another time, too


# ---- env of a submission ----


def test_env_wins_over_secrets_and_is_in_no_record(stack, client):
    put(client, "TOKEN", "the agent's value")
    env = {"TOKEN": "the caller's value", "OWN": "own värdet", "EMPTY": ""}
    r = client.run("show", '{"show": ["TOKEN", "OWN", "EMPTY"]}', env=env)
    assert shown(r) == env
    assert show(client, "TOKEN", "OWN") == {"TOKEN": "the agent's value", "OWN": None}
    assert "env" not in r
    whole = stack.psql(f"select row_to_json(i) from invocations i where id = '{r['id'][4:]}'")
    assert "caller" not in whole and json.loads(whole)["env"] is True
    assert stack.count(f"select count(*) from invocation_env where id = '{r['id'][4:]}'") == 1


def test_env_goes_with_a_retry_and_with_every_attempt(client):
    env = {"OWN": "carried over, sealed"}
    r = client.run("show", '{"show": ["OWN"], "exit": 3}', env=env, retry={"max_attempts": 2})
    assert r["status"] == "failed" and len(r["attempts"]) == 2
    assert base64.b64encode(env["OWN"].encode()).decode() in r["output"]
    for _ in range(2):  # and with the retry's retry
        a = client.call("POST", f"/v1/invocations/{r['id']}/retry", {}, {"Prefer": "wait=60"})
        assert a.status == 200, a.body
        r = a.json
        assert base64.b64encode(env["OWN"].encode()).decode() in r["output"]


def test_env_with_an_idempotency_key_and_a_later_start(client):
    body = {"agent": "show", "prompt": '{"show": ["OWN"]}', "env": {"OWN": "keyed value"}}
    first = client.call("POST", "/v1/invocations", body, {"Idempotency-Key": "k1", "Prefer": "wait=60"})
    again = client.call("POST", "/v1/invocations", body, {"Idempotency-Key": "k1", "Prefer": "wait=60"})
    assert first.json["id"] == again.json["id"] and shown(first.json) == {"OWN": "keyed value"}
    other = {**body, "env": {"OWN": "another value"}}
    a = client.call("POST", "/v1/invocations", other, {"Idempotency-Key": "k1"})
    assert a.status == 422 and b"another value" not in a.body
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    late = client.submit("show", body["prompt"], env=body["env"], not_before=at).json
    assert late["status"] == "scheduled" and shown(client.end(late["id"])) == {"OWN": "keyed value"}


@pytest.mark.parametrize("env,status,code,words", [
    ([], 400, "invalid_field", "object of strings"), ("A=B", 400, "invalid_field", "object of strings"),
    ({"A": 1}, 400, "invalid_field", "env.A must be a string"), ({"a": "x"}, 400, "invalid_field", "capital letters"),
    ({"HOME": "x"}, 400, "invalid_field", "HOME is set by the system"),
    ({f"N{n}": "x" for n in range(129)}, 400, "invalid_field", "128 variables"),
    ({"A": "x" * 65536}, 413, "secret_too_large", "65536"),
], ids=lambda v: str(v)[:12])
def test_env_that_cannot_be_given_is_said(client, env, status, code, words):
    a = client.submit("show", "{}", env=env)
    assert a.status == status and a.json["code"] == code and words in a.json["detail"], a.body


def test_env_up_to_its_limit(client):
    env = {"A": "x" * (65536 - 3), "BB": ""}
    assert show(client, "A", "BB", env=env) == env
    worst = {"A": "\x01" * 30000}  # six bytes each in JSON
    put(client, "W", "\x02" * 32768)
    time.sleep(1)
    assert show(client, "A", "W", env=worst) == {**worst, "W": "\x02" * 32768}


def test_env_is_refused_where_it_does_not_go_yet(client):
    a = client.call("POST", "/v1/batches", [{"agent": "show", "prompt": "{}", "env": {"A": "x"}}])
    assert a.status == 400 and a.json["errors"][0]["code"] == "unsupported_feature"
    assert "POST /v1/invocations" in a.json["errors"][0]["detail"]
    a = client.call("POST", "/v1/schedules", {"name": "s", "cron": "@daily", "agent": "show", "prompt": "{}", "env": {"A": "x"}})
    assert a.status == 400 and a.json["code"] == "unsupported_feature"


def test_without_a_key_it_is_said_what_to_set(stack, client):
    bare = Client(stack.add_gateway(SANDPIPER_ENV_PUBLIC_KEY_FILE="").port, client.key)
    for a in (bare.call("PUT", "/v1/agents/show/secrets/A", {"value": "x"}), bare.submit("show", "{}", env={"A": "x"})):
        assert a.status == 501 and a.json["code"] == "not_configured"
        assert "SANDPIPER_ENV_PUBLIC_KEY_FILE" in a.json["detail"] and "sandpiper secrets init" in a.json["detail"]
    assert bare.submit("show", "{}").status == 202
    stack.gateways.pop().stop()


# ---- redaction ----


def test_stderr_is_redacted_however_it_is_cut(client):
    value = "correct-horse-battery-staple"
    put(client, "TOKEN", value)
    put(client, "LONG", value + "-and-" + value + "!")
    put(client, "SHORT", "seven77")
    time.sleep(1)
    r = client.run("show", '{"say": ["TOKEN", "LONG", "SHORT"], "print": ["TOKEN"]}')
    assert logs(client, r["id"]) == b"TOKEN is [redacted:TOKEN]\nLONG is [redacted:LONG]\nSHORT is seven77\n"
    assert r["output"] == f"TOKEN is {value}\n" and r["output_redacted"] is False  # it did not ask for that
    for cuts in (1, 3, 7, 27):
        r = client.run("show", json.dumps({"raw": "LONG", "cuts": cuts, "slow": cuts > 1}))
        assert logs(client, r["id"]) == b"[redacted:LONG]", cuts
    own = dice.token_hex(16)
    r = client.run("show", '{"say": ["OWN", "TOKEN"]}', env={"OWN": own})
    assert logs(client, r["id"]) == b"OWN is [redacted:OWN]\nTOKEN is [redacted:TOKEN]\n"


def test_a_long_value_is_redacted_and_a_live_stream_shows_none(client):
    value = "".join(dice.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(32768))
    put(client, "LONG", value)
    time.sleep(1)
    a = client.call("POST", "/v1/invocations", {"agent": "show", "prompt": json.dumps(
        {"raw": "LONG", "cuts": 1000, "slow": True, "say": ["LONG"]})}, {"Accept": "text/event-stream"})
    assert a.status == 200
    events = [json.loads(line[6:]) for line in a.body.decode().splitlines() if line.startswith("data: ")]
    assert "".join(e for e in events if isinstance(e, str)) == "LONG is [redacted:LONG]\n[redacted:LONG]"
    assert value[:9] not in a.body.decode()
    assert logs(client, events[-1]["id"]) == b"LONG is [redacted:LONG]\n[redacted:LONG]"


def test_a_program_that_is_killed_amid_a_value(client):
    put(client, "TOKEN", "0123456789" * 10)
    time.sleep(1)
    client.deploy("cut", {"agent.json": '{"runtime": "command", "entry": "printf %.60s \\"$TOKEN\\" >&2; kill -9 $$"}', "README": ""})
    put(client, "TOKEN", "0123456789" * 10, agent="cut")
    time.sleep(1)
    r = client.run("cut", "")
    assert r["status"] == "failed" and logs(client, r["id"]) == b"[redacted:TOKEN]"


# ---- what agent.json says ----


def test_a_missing_secret_spends_no_sandbox(stack, client):
    client.deploy("needs", {"agent.json": '{"runtime": "python", "secrets": ["TOKEN", "OTHER"]}', "main.py": SHOW["main.py"]})
    before = stack.count("select count(*) from usage")
    put(client, "TOKEN", "is set", agent="needs")
    r = client.run("needs", '{"show": ["TOKEN", "OTHER"]}', retry={"max_attempts": 3})
    assert r["status"] == "error" and r["error"]["code"] == "missing_secret" and len(r["attempts"]) == 1, r
    assert "OTHER" in r["error"]["message"] and "sandpiper secrets set needs OTHER" in r["error"]["message"]
    assert r["usage"]["sandbox_ms"] is None and stack.count("select count(*) from usage") == before
    given = client.run("needs", '{"show": ["TOKEN", "OTHER"]}', env={"OTHER": "by the caller"})
    assert shown(given) == {"TOKEN": "is set", "OTHER": "by the caller"}
    put(client, "OTHER", "now set", agent="needs")
    time.sleep(1)
    a = client.call("POST", f"/v1/invocations/{r['id']}/retry", {}, {"Prefer": "wait=60"})
    assert shown(a.json) == {"TOKEN": "is set", "OTHER": "now set"}


def test_the_manifests_env_is_the_weakest(client):
    client.deploy("show", {"agent.json": '{"runtime": "python", "env": {"A": "file", "B": "file", "C": "file"}}',
                           "main.py": SHOW["main.py"]})
    put(client, "B", "secret")
    put(client, "C", "secret")
    time.sleep(1)
    assert show(client, "A", "B", "C", env={"C": "caller"}) == {"A": "file", "B": "secret", "C": "caller"}


def test_output_is_redacted_if_the_agent_asks(client):
    client.deploy("show", {"agent.json": '{"runtime": "python", "redact_output": true}', "main.py": SHOW["main.py"]})
    value = dice.token_hex(20)
    put(client, "TOKEN", value)
    time.sleep(1)
    r = client.run("show", '{"print": ["TOKEN"], "say": ["TOKEN"]}')
    assert r["output"] == "TOKEN is [redacted:TOKEN]\n" and r["output_redacted"] is True
    assert logs(client, r["id"]) == b"TOKEN is [redacted:TOKEN]\n"
    again = client.get(r["id"])
    assert again["output_redacted"] is True and value not in json.dumps(again)
    plain = client.run("show", '{"show": []}')
    assert plain["output_redacted"] is False  # nothing was taken out
    much = client.run("show", json.dumps({"print": ["TOKEN"] * 5000}))
    body = client.call("GET", much["output_url"]).body
    assert much["output_redacted"] is True and body == b"TOKEN is [redacted:TOKEN]\n" * 5000
