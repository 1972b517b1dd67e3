"""sandpiper secrets: values come from anywhere but the arguments."""

import json
import os
import pty
import secrets as dice
import select
import signal
import subprocess
import time

import pytest

from e2e_agents import make_stack
from stack import BIN, until
from test_secrets import SHOW, show


@pytest.fixture(scope="module")
def stack():
    s = make_stack()
    s.client.deploy("show", SHOW)
    yield s
    s.quiet()
    s.stop()


def test_set_ls_and_rm(stack, tmp_path):
    value = dice.token_hex(16)
    r = stack.cli("secrets", "set", "show", "TOKEN", stdin=f"{value}\n".encode())
    assert b"is set" in r.stdout and value.encode() not in r.stdout + r.stderr
    (tmp_path / "pem").write_text("-----BEGIN\nline\n-----END\n")
    stack.cli("secrets", "set", "show", "PEM", "--from-file", str(tmp_path / "pem"))
    time.sleep(1)
    assert show(stack.client, "TOKEN", "PEM") == {"TOKEN": value, "PEM": "-----BEGIN\nline\n-----END\n"}
    listed = stack.cli("secrets", "ls", "show").stdout.decode()
    assert [line.split()[0] for line in listed.splitlines()] == ["NAME", "PEM", "TOKEN"] and value not in listed
    assert [s["name"] for s in json.loads(stack.cli("secrets", "ls", "show", "--json").stdout)["data"]] == ["PEM", "TOKEN"]
    for name in ("TOKEN", "PEM"):
        assert b"is gone" in stack.cli("secrets", "rm", "show", name).stdout
    again = stack.cli("secrets", "rm", "show", "TOKEN", check=False)
    assert again.returncode == 3 and b"no secret of that name" in again.stderr
    assert stack.cli("secrets", "ls", "show").stdout == b""


@pytest.mark.parametrize("argv,stdin,status,words", [
    (["set", "show", "TOKEN", "value"], b"", 2, "never an argument"), (["set", "show"], b"", 2, "set AGENT NAME"),
    (["set", "show", "TOKEN"], b"", 2, "the value is empty"), (["set", "show", "TOKEN"], b"\n", 2, "the value is empty"),
    (["set", "show", "TOKEN"], b"a\0b", 2, "base64"), (["set", "show", "TOKEN"], b"\xff\xfe", 2, "base64"),
    (["set", "show", "TOKEN"], b"x" * 32769, 2, "32768"), (["set", "show", "TOKEN"], b"x" * 100000, 2, "32768"),
    (["set", "show", "token"], b"x", 2, "capital letters"), (["set", "show", "PATH"], b"x", 2, "set by the system"),
    (["set", "../x", "TOKEN"], b"x", 2, "no agent's name"), (["set", "nobody", "TOKEN"], b"x", 3, "agent_not_found"),
    (["set", "show", "TOKEN", "--from-file", "/nonexistent"], b"", 2, "cannot open"), (["ls", "nobody"], b"", 3, "agent_not_found"),
], ids=lambda v: str(v)[:12])
def test_what_is_wrong_is_said(stack, argv, stdin, status, words):
    r = stack.cli("secrets", *argv, stdin=stdin, check=False)
    assert r.returncode == status and words in r.stderr.decode(), r


def terminal(stack, *argv):
    env = {**stack.env, "SANDPIPER_URL": f"http://127.0.0.1:{stack.gateways[0].port}", "SANDPIPER_API_KEY": stack.key}
    master, slave = pty.openpty()
    p = subprocess.Popen([str(BIN / "sandpiper"), "secrets", *argv], env=env, stdin=slave, stdout=slave, stderr=slave,
                         start_new_session=True, preexec_fn=lambda: __import__("fcntl").ioctl(0, 0x540E, 0))
    os.close(slave)
    shown = b""

    def read():
        nonlocal shown
        if not select.select([master], [], [], 30)[0]:
            p.kill()
            raise AssertionError(f"nothing within 30 s after {shown}")
        try:
            shown += os.read(master, 4096)
        except OSError:
            return False
        return True

    while b"Value of" not in shown:
        assert read(), shown
    return p, master, read, lambda: shown


def test_a_prompt_without_echo(stack):
    value = dice.token_hex(16)
    p, master, read, shown = terminal(stack, "set", "show", "TYPED")
    os.write(master, value.encode() + b"\n")
    while read():
        pass
    assert p.wait(30) == 0 and value.encode() not in shown() and b"is set" in shown(), shown()
    time.sleep(1)
    assert show(stack.client, "TYPED") == {"TYPED": value}


def test_a_prompt_that_is_broken_off(stack):
    import termios
    p, master, read, shown = terminal(stack, "set", "show", "TYPED2")
    os.write(master, b"half a val\x03")
    while read():
        pass
    assert p.wait(30) == 130 and b"half" not in shown(), shown()
    os.close(master)
    assert "TYPED2" not in stack.cli("secrets", "ls", "show").stdout.decode() and termios
