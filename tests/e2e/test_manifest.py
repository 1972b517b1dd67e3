"""agent.json: the published schema against the parser, faults with their lines, what is kept with the version and what it does."""

import json

import jsonschema
import pytest

from sim_stack import SimStack
from stack import archive, until

GZIP = {"Content-Type": "application/gzip"}
PROGRAM = {"main.py": ""}
ANY = {"main.py": "", "index.js": "", "run.sh": ""}  # an entry for each runtime


@pytest.fixture(scope="module")
def sim():
    s = SimStack()
    try:
        yield s.start()
    finally:
        s.stop()


def post(client, text, query="", program=PROGRAM):
    files = {**program, "agent.json": text if isinstance(text, str) else json.dumps(text)}
    return client.call("POST", f"/v1/agents{query}", archive(files), GZIP)


def order(**kw):
    return json.dumps({"sim": kw})


# ---- the schema ----

# Of each key: what is good, what is bad. Nothing but ASCII (the schema counts characters, the parser bytes) and no 1.0
# (which is a whole number to the schema).
VALUES = {
    "$schema": (["", "https://example.org/x"], [7, None]),
    "name": (["a", "a-9", "a" * 63], ["", "A", "-a", "a" * 64, "a b", 7, None, ["a"]]),
    "description": (["", "words", "x" * 1023], ["x" * 1024, "a\nb", 7, None, {}]),
    "template": (["a", "A.b_c-1", "team/name", "name:tag", "team/name:tag", "a" * 128],
                 ["", "a b", "/a", "a/", "a/b/c", "a:", ":a", "a:b:c", "-a", ".a", "../a", "a/../b", "a\nb", "a" * 129, 7, None]),
    "runtime": (["node", "python", "command"], ["", "ruby", "Node", 7, None, ["node"]]),
    "entry": (["", "main.py", "x" * 511], ["x" * 512, "a\nb", 7, None, ["main.py"]]),
    "install": (["", "make", "x" * 511], ["x" * 512, "a\nb", False, None, {"cmd": "make"}]),
    "check": (["", "make check", "x" * 511], ["x" * 512, "a\nb", True, None]),
    "env": ([{}, {"A": ""}, {"_": "x", "A_1": "\n"}, {"A" * 64: "x"}, {f"A{i}": "" for i in range(64)}],
            [[], "A=1", None, {"a": ""}, {"1A": ""}, {"": ""}, {"A-B": ""}, {"A": 1}, {"A": None}, {"A" * 65: ""}, {"SANDPIPER_X": ""},
             {"TRACEPARENT": ""}, {"PATH": ""}, {"LD_PRELOAD": ""}, {"BASH_ENV": ""}, {f"A{i}": "" for i in range(65)}, {"A": "x" * 8190}]),
    "secrets": ([[], ["A"], ["A", "B_2"], [f"A{i}" for i in range(32)]],
                [{}, "A", None, [1], ["a"], [""], ["A", "A"], ["SANDPIPER_X"], ["PATH"], [f"A{i}" for i in range(33)]]),
    "redact_output": ([True, False], ["true", 1, None]),
    "timeout_s": ([1, 120, 3600], [0, -1, 3601, 1.5, "60", None, [60], 10**30]),
    "memory_mb": ([128, 65536], [127, 65537, 512.5, "512", None]),
    "cpus": ([1, 64], [0, 65, 0.5, "2", None]),
    "warm_pool": ([0, 1000, "auto", {"min": 0, "max": 0}, {"min": 1, "max": 1000}],
                  [-1, 1001, 1.5, "automatic", "", None, [], {}, {"min": 1}, {"max": 1}, {"min": -1, "max": 1}, {"min": 0, "max": 1001},
                   {"min": 0, "max": 1, "size": 1}, {"min": "0", "max": 1}]),
    "egress": (["allow", "deny"], ["", "none", True, None, {"allow": []}]),
    "output_max_bytes": ([1, 10485760], [0, 10485761, 1.5, "1k", None]),
    "retry": ([{}, {"max_attempts": 1}, {"max_attempts": 20, "on": ["failed", "timed_out"]}, {"on": []}],
              [3, None, [], {"max_attempts": 0}, {"max_attempts": 21}, {"max_attempts": "3"}, {"on": "failed"}, {"on": ["error"]},
               {"on": [1]}, {"attempts": 3}]),
    "artifacts": (["out", "out/", "a/b/c", "a..b", ".out", "x" * 255],
                  ["", "/", "/out", "..", ".", "./a", "a/..", "a/../b", "a//b", "a\tb", "x" * 256, 7, None]),
    "usage": (["file", "stream-json"], ["", "stream", True, None]),
}


def test_the_schema_and_the_parser_agree(sim):
    answer = sim.client.call("GET", "/schemas/agent.json", key=False)
    assert answer.status == 200 and answer.headers["Content-Type"] == "application/schema+json"
    schema = answer.json
    jsonschema.Draft202012Validator.check_schema(schema)
    valid = jsonschema.Draft202012Validator(schema).is_valid
    assert set(schema["properties"]) == set(VALUES)
    rows = [({key: v}, good) for key, both in VALUES.items() for good, values in zip((True, False), both) for v in values]
    rows += [({}, True), ({"nmae": "x"}, False), ([], False), ("x", False), ({"timeout_s": 5, "retry": {}, "egress": "deny"}, True)]
    for document, good in rows:
        if "entry" in document:
            document = {**document, "install": "true"}  # which may make the file
        assert valid(document) == good, ("the schema", document, good)
        a = post(sim.client, document, program=ANY)
        # Without a name anywhere nothing is deployed; what is read and cannot be done yet is refused as that.
        expected = ("missing_field", "unsupported_feature") if good else ("invalid_manifest",)
        if good and isinstance(document, dict) and "name" in document:
            assert a.status == 202, (document, a.body)
        else:
            assert a.json["code"] in expected, (document, good, a.body)


@pytest.mark.parametrize("text, words", [
    ('{\n  "runtime": "python",\n  "timeout": 5\n}', 'line 3: unknown key "timeout"; did you mean "timeout_s"?'),
    ('{"retry": {\n"max_atempts": 2}}', 'line 2: unknown key "retry.max_atempts"; did you mean "retry.max_attempts"?'),
    ('{\n"env": {"A": "1",\n "B": 2}}', 'line 3: "env.B" must be a string'),
    ('{\n\n"timeout_s": "5"}', 'line 3: "timeout_s" must be a whole number from 1 to 3600'),
    ('{\n"name": "x",,}', "line 2 column 13"),
])
def test_faults_name_line_and_key(sim, text, words):
    a = post(sim.client, text, "?name=faulty")
    assert (a.status, a.json["code"]) == (400, "invalid_manifest") and words in a.json["detail"], a.json
    assert sim.client.call("GET", "/v1/agents/faulty").status == 404


@pytest.mark.parametrize("key, value, words", [
    ("memory_mb", 512, "template"), ("cpus", 2, "template"),
])
def test_what_nobody_would_keep_is_refused(sim, key, value, words):
    a = post(sim.client, {key: value}, "?name=refused")
    assert (a.status, a.json["code"]) == (400, "unsupported_feature") and f'"{key}"' in a.json["detail"] and words in a.json["detail"]
    assert sim.client.call("GET", "/v1/agents/refused").status == 404


# ---- kept, shown, and what submissions get from it ----

STATED = {"description": "d", "env": {"WORD": "heard"}, "timeout_s": 77, "retry": {"max_attempts": 2, "on": ["failed"]},
          "output_max_bytes": 100}
FILLED = {**STATED, "runtime": "python", "entry": "main.py", "install": "", "egress": "allow"}


@pytest.fixture(scope="module")
def stated(sim):
    sim.client.deploy("stated", {**PROGRAM, "agent.json": json.dumps(STATED)})
    return "stated"


def test_it_is_shown_with_its_defaults(sim, stated):
    assert sim.client.call("GET", f"/v1/agents/{stated}").json["latest_build"]["manifest"] == FILLED
    assert sim.client.call("GET", f"/v1/agents/{stated}/versions").json["data"][0]["manifest"] == FILLED
    assert all("manifest" not in a["latest_build"] for a in sim.client.call("GET", "/v1/agents").json["agents"])


def test_a_submission_gets_what_it_does_not_say(sim, stated):
    c, failing = sim.client, order(exit_code=3)
    r = c.run(stated, failing)
    assert (r["status"], r["attempt"], r["timeout_s"]) == ("failed", 2, 77)
    assert c.run(stated, failing, retry={"max_attempts": 1})["attempt"] == 1
    assert c.run(stated, failing, retry={"max_attempts": 3})["attempt"] == 3
    r = c.run(stated, failing, retry={"max_attempts": 2, "on": ["timed_out"]}, timeout_s=5)
    assert (r["attempt"], r["timeout_s"]) == (1, 5)
    assert c.run(sim.agent, failing)["attempt"] == 1  # an agent that states none


def test_so_do_items_of_batches_and_schedules(sim, stated):
    c, failing = sim.client, order(exit_code=3)
    batch = c.call("POST", "/v1/batches", {"items": [
        {"agent": stated, "prompt": failing}, {"agent": stated, "prompt": failing, "retry": {"max_attempts": 1}},
        {"agent": sim.agent, "prompt": failing}]}).json["id"]
    until("the batch ends", lambda: c.call("GET", f"/v1/batches/{batch}").json["status"] == "completed", 60)
    lines = c.call("GET", f"/v1/batches/{batch}/results").body.splitlines()
    assert {r["custom_id"]: (r["attempt"], r["timeout_s"]) for r in map(json.loads, lines)} == {"1": (2, 77), "2": (1, 77), "3": (1, 120)}
    for name, agent, more, attempts in (("own", stated, {}, 2), ("said", stated, {"retry": {"max_attempts": 1}}, 1), ("none", sim.agent, {}, 1)):
        s = c.call("POST", "/v1/schedules", {"name": name, "cron": "0 8 * * *", "agent": agent, "prompt": failing, **more})
        assert s.status == 201 and (s.json["retry"] is None) == (not more), s.body
        sim.psql(f"update schedules set next_at = now() - interval '1 second' where name = '{name}'")
        made = until("it fires", lambda: c.call("GET", f"/v1/schedules/{name}").json["last_invocation"])
        assert c.end(made)["attempt"] == attempts, name
        assert c.call("DELETE", f"/v1/schedules/{name}").status == 204


def test_variables_and_the_cap_reach_the_program(sim, stated):
    r = sim.client.run(stated, order(env="WORD"))
    assert r["output"] == "heard"
    r = sim.client.run(stated, order(output_bytes=101))
    assert (r["output_size"], r["output_truncated"], r["status"]) == (100, True, "succeeded")
    r = sim.client.run(stated, order(output_bytes=100))
    assert (r["output_size"], r["output_truncated"]) == (100, False)


def test_versions_from_before_there_was_one_still_run(sim):
    c = sim.client
    c.deploy("old", {"run.sh": ""})
    sim.psql("update agent_versions v set manifest = '' from agents a where a.id = v.agent and a.slug = 'old'")
    assert c.run("old", "x")["status"] == "succeeded"
    assert "manifest" not in c.call("GET", "/v1/agents/old").json["latest_build"]
    assert c.call("GET", "/v1/agents/old/versions").json["data"][0]["manifest"] is None


# ---- in a real sandbox ----

NETWORKS = "import os, socket; print(os.environ.get('WORD'), sorted(n for _, n in socket.if_nameindex()))"


@pytest.mark.parametrize("egress, output", [("allow", "heard ['lo', 'tap0']\n"), ("deny", "heard ['lo']\n")])
def test_egress_and_variables_in_a_sandbox(client, egress, output):
    manifest = {"egress": egress, "env": {"WORD": "heard"}, "install": "test \"$WORD\" = heard && echo installed"}
    b = client.deploy(f"net-{egress}", {"main.py": NETWORKS, "agent.json": json.dumps(manifest)})
    assert b["log"].endswith("installed\n")
    assert client.run(f"net-{egress}", "")["output"] == output
