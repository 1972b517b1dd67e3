"""What the command line shows of a build: live to a person and to --log, nothing more to a pipe; and kept ones."""

import json
import os
import pty
import re
import select
import signal
import subprocess

import pytest

from builds_client import Gate, ended, log_of, send
from stack import BIN, Stack, until


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    g = Gate(tmp_path_factory.mktemp("gate"))
    yield g
    g.close()


@pytest.fixture(scope="module")
def own(gate):
    s = Stack().start()
    try:
        yield s
        s.quiet()
    finally:
        s.stop()


def agent(where, install, **more):
    where.mkdir(exist_ok=True)
    (where / "main.py").write_text("print('ran')")
    (where / "agent.json").write_text(json.dumps({"install": install, **more}))
    return str(where)


class Command:
    """One that runs: in a terminal, or with its streams in files."""

    def __init__(self, stack, *argv, terminal=False, directory=None):
        env = {**stack.env, "SANDPIPER_URL": f"http://127.0.0.1:{stack.gateways[0].port}", "SANDPIPER_API_KEY": stack.key}
        self.seen, self.master, self.directory = b"", None, directory
        if terminal:
            self.master, slave = pty.openpty()
            streams = {"stdin": slave, "stdout": slave, "stderr": slave}
        else:
            streams = {"stdout": open(directory / "out", "wb"), "stderr": open(directory / "err", "wb")}
        self.child = subprocess.Popen([str(BIN / "sandpiper"), *argv], env=env, start_new_session=True, **streams)
        if terminal:
            os.close(slave)

    def text(self):
        while self.master and select.select([self.master], [], [], 0)[0]:
            try:
                piece = os.read(self.master, 65536)
            except OSError:
                break
            if not piece:
                break
            self.seen += piece
        return self.seen.decode()

    def err(self):
        return (self.directory / "err").read_text()

    def out(self):
        return (self.directory / "out").read_text()

    def sees(self, words, of=None, seconds=30):
        of = of or (self.text if self.master else self.err)
        until(f"{words!r} in {of()!r}", lambda: words in of(), seconds)

    def end(self, seconds=60):
        until("it ends", lambda: (self.text(), self.child.poll() is not None)[1], seconds)
        return self.child.returncode


def test_a_terminal_shows_the_log_as_it_comes(own, gate, tmp_path):
    install = f"printf 'one\\n\\033]0;title\\007\\033[2Jtwo\\r'; {gate.wait('terminal')}; echo three"
    c = Command(own, "deploy", agent(tmp_path / "shown", install), terminal=True)
    c.sees("one\r\ntwo\r\n")
    assert own.client.call("GET", "/v1/agents/shown/versions/1").json["status"] == "building"
    gate.open("terminal")
    assert c.end() == 0
    text = c.text()
    log = text[text.index("The build of shown version 1:\r\n"):]
    assert log.startswith(f"The build of shown version 1:\r\n$ {install}\r\none\r\ntwo\r\nthree\r\n"), log
    assert "deployed shown version 1 in" in log and "title" not in log.split("\r\n", 2)[2] and "\x1b[2J" not in text
    assert "\x1b]0" in log_of(own.client, "/v1/agents/shown/versions/1").decode()  # the log itself is as it was written


def test_a_build_that_writes_nothing_shows_nothing(own, tmp_path):
    c = Command(own, "deploy", agent(tmp_path / "silent", ""), terminal=True)
    assert c.end() == 0
    shown = re.sub(r"\r\x1b\[K([|/\\-] [a-z]+ \d+s)?", "", c.text())  # without the spinner
    assert re.fullmatch(r"deployed silent version 1 in [\d.]+ s\r\nTry: sandpiper invoke silent 'a prompt'\r\n", shown), shown


def test_a_pipe_is_as_it_was_and_log_shows_it(own, gate, tmp_path):
    where = agent(tmp_path / "piped", "echo one; echo two")
    r = own.cli("deploy", where)
    assert r.stderr == b"" and r.stdout.startswith(b"deployed piped version 1 in ") and r.stdout.count(b"\n") == 1
    r = own.cli("deploy", where, "--rebuild", "--log")
    assert r.stderr == b"The build of piped version 2:\n$ echo one; echo two\none\ntwo\n"
    assert r.stdout.startswith(b"deployed piped version 2 in ")
    r = own.cli("deploy", where, "--rebuild", "--log", "--json")
    assert json.loads(r.stdout)["latest_build"]["version"] == 3
    assert r.stderr.endswith(b"\none\ntwo\n")
    assert own.cli("deploy", where, "--log").stderr == b""  # the same again: nothing is built
    c = Command(own, "deploy", agent(tmp_path / "live", f"echo one; {gate.wait('live')}"), "--log", directory=tmp_path)
    c.sees("\none\n")
    gate.open("live")
    assert c.end() == 0 and c.out().startswith("deployed live version 1 in ")


def test_a_failure_shows_the_log_once(own, tmp_path):
    where = agent(tmp_path / "broken", "echo begun; echo no network; exit 7")
    for argv in ([], ["--log", "--rebuild"]):
        r = own.cli("deploy", where, *argv, check=False)
        assert (r.returncode, r.stdout, r.stderr.count(b"\nno network\n")) == (1, b"", 1), r
        assert b"the install step ended with exit code 7 (build_failed)" in r.stderr.splitlines()[-1]
    c = Command(own, "deploy", where, "--rebuild", terminal=True)
    assert c.end() == 1 and c.text().count("\r\nno network\r\n") == 1


def test_kept_logs_are_printed_and_followed(own, gate, tmp_path):
    c = own.client
    first = send(c, "kept", "printf '\\033[31mred\\033[0m\\n'")
    assert ended(c, first)["status"] == "ready"
    second = send(c, "kept", f"echo one; {gate.wait('kept')}; echo two")
    follow = Command(own, "logs", "--build", "kept", "-f", directory=tmp_path)
    follow.sees("\none\n", follow.out)
    assert own.cli("logs", "--build", "kept@1").stdout == log_of(c, first)
    assert b"\x1b[31m" in own.cli("logs", "kept@1", "--build").stdout
    now = own.cli("logs", "--build", "kept").stdout  # being built: what there is
    assert now == log_of(c, second) and now.endswith(b"one\n")
    gate.open("kept")
    assert follow.end() == 0 and follow.out().encode() == log_of(c, second)
    ended(c, second)
    for argv in (["logs", "--build", "kept@2", "--json"], ["logs", "--build", "kept", "-f", "--json"]):
        record = json.loads(own.cli(*argv).stdout)
        assert record == {"agent": "kept", "version": 2, "status": "ready", "log": log_of(c, second).decode()}
    shown = Command(own, "logs", "--build", "kept@1", terminal=True)
    assert shown.end() == 0 and shown.text().endswith("\r\nred\r\n")


@pytest.mark.parametrize("of,status,words", [("nobody", 3, b"sandpiper agents"), ("kept@9", 3, b"version_not_found"), ("kept@x", 2, b"kept@x"),
                                             ("Kept", 2, b"logs --build shout@3"), ("kept@0", 2, b"kept@0")])
def test_what_is_no_log(own, of, status, words):
    if not own.client.call("GET", "/v1/agents/kept").status == 200:
        ended(own.client, send(own.client, "kept", ""))
    r = own.cli("logs", "--build", of, check=False)
    assert (r.returncode, r.stdout) == (status, b"") and words in r.stderr, r


def test_a_gateway_that_goes_away_is_waited_for(own, gate, tmp_path):
    """Killed, and started again: nothing is shown twice, nothing is missing."""
    install = f"echo one; {gate.wait('first')}; echo two; {gate.wait('last')}; echo three"
    c = Command(own, "deploy", agent(tmp_path / "waits", install), "--log", directory=tmp_path)
    c.sees("\none\n")
    gateway = own.gateways[0]
    gateway.signal(signal.SIGKILL)
    gateway.child.wait(timeout=10)
    gate.open("first")
    gateway.start()
    c.sees("\ntwo\n")
    gateway.stop()  # told to stop: its answer ends as if it were whole
    gateway.start()
    gate.open("last")
    assert c.end() == 0, c.err()
    assert c.err() == f"The build of waits version 1:\n$ {install}\none\ntwo\nthree\n"
    assert c.out().startswith("deployed waits version 1 in ")


def test_an_interrupted_wait_says_that_the_build_goes_on(own, gate, tmp_path):
    c = Command(own, "deploy", agent(tmp_path / "left", f"echo one; {gate.wait('left')}"), "--log", directory=tmp_path)
    c.sees("\none\n")
    c.child.send_signal(signal.SIGINT)
    assert c.end() == 130 and "the build of left version 1 goes on" in c.err()
    gate.open("left")
    assert ended(own.client, "/v1/agents/left/versions/1")["status"] == "ready"
