"""Builds in real sandboxes: install, entry, check; what fails says so, and what served goes on serving."""

import json
import os

import pytest

from stack import Stack, archive, until

GZIP = {"Content-Type": "application/gzip"}


@pytest.fixture(scope="module")
def own():
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    s = Stack(SANDPIPER_CHECK_LIMIT="3s").start()
    try:
        yield s
        s.quiet()
    finally:
        s.stop()


def send(client, name, files, **manifest):
    return client.call("POST", f"/v1/agents?name={name}", archive({**files, "agent.json": json.dumps(manifest)}), GZIP)


def built(client, name):
    """The newest build, ended."""
    return until(f"{name} has ended", lambda: (b := client.call("GET", f"/v1/agents/{name}").json["latest_build"])
                 and b["status"] != "building" and b, 60)


def build(client, name, files, **manifest):
    a = send(client, name, files, **manifest)
    assert a.status == 202, a.body
    return built(client, name)


def test_a_check_runs_in_the_agents_directory_after_install(own):
    b = build(own.client, "checked", {"main.py": "print('ran')"}, install="echo $WORD > made", env={"WORD": "a word"},
              check="grep -q 'a word' made && python3 main.py && echo $WORD")
    assert (b["status"], b["log"]) == ("ready", "$ echo $WORD > made\n"
                                       "$ grep -q 'a word' made && python3 main.py && echo $WORD\nran\na word\n"), b
    assert own.client.run("checked", "")["output"] == "ran\n"


FAILURES = {
    "a failing install": ({}, {"install": "echo no network >&2; exit 7"}, "build_failed", "exit code 7", "no network"),
    "a check that fails": ({}, {"check": "echo two and two; exit 5"}, "check_failed", "exit code 5", "two and two"),
    "a check that does not end": ({}, {"check": "echo begun; sleep 600"}, "check_failed", "limit of 3 s", "begun"),
    "a check that is killed": ({}, {"check": "kill -9 $$"}, "check_failed", "signal KILL", ""),
    "an entry that install does not make": ({}, {"entry": "dist/main.py", "install": "mkdir dist"}, "entry_missing", "dist/main.py", ""),
}


@pytest.mark.parametrize("what", FAILURES)
def test_a_failure_says_why_and_the_serving_version_is_untouched(own, what):
    files, manifest, code, words, log = FAILURES[what]
    c, name = own.client, "serving"
    c.deploy(name, {"main.py": "print('serves')"})
    before = c.call("GET", f"/v1/agents/{name}").json["version"]
    assert c.run(name, "")["output"] == "serves\n"
    b = build(c, name, {"main.py": "print('other')", **files}, **manifest)
    assert (b["status"], b["error"]["code"]) == ("failed", code) and words in b["error"]["message"] and log in b["log"], b
    assert c.call("GET", f"/v1/agents/{name}").json["version"] == before
    assert (c.run(name, "")["output"], c.run(name, "")["version"]) == ("serves\n", before)
    assert c.submit(f"{name}@{b['version']}", "").status == 409


def test_a_file_that_may_be_executed_is_a_program(own, tmp_path):
    (tmp_path / "answer").write_text("#!/bin/sh\ntr a-z A-Z\n")
    (tmp_path / "answer").chmod(0o755)
    own.cli("deploy", str(tmp_path), "--name", "executable")
    assert own.client.run("executable", "loud")["output"] == "LOUD"


def test_an_entry_that_install_makes(own):
    b = build(own.client, "made", {"source.txt": "print('made')"}, runtime="python", entry="dist/main.py",
              install="mkdir dist && cp source.txt dist/main.py")
    assert b["status"] == "ready", b
    assert own.client.run("made", "")["output"] == "made\n"


def test_an_entry_that_nothing_makes_is_refused_at_once(own):
    c = own.client
    a = send(c, "nothing", {"main.py": ""}, entry="mian.py")
    assert (a.status, a.json["code"]) == (400, "invalid_manifest") and '"mian.py"' in a.json["detail"], a.body
    assert c.call("GET", "/v1/agents/nothing").status == 404
