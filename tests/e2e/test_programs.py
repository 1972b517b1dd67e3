"""Programs as they are: every exit, odd ones, greedy ones. What the record says is what happened."""

import base64
import json
import signal
import time

import pytest

from stack import in_threads, until

AGENTS = {
    # Runs the prompt as a shell script, in the very process that Sandpiper started.
    "script": {"agent.json": '{"runtime": "command", "entry": "cat >/tmp/script; . /tmp/script"}'},
    "missing": {"agent.json": '{"runtime": "command", "entry": "there-is-no-such-program --at-all"}'},
    "not-there": {"agent.json": '{"runtime": "command", "entry": "exec /nowhere/at/all"}'},
    "directory": {"agent.json": '{"runtime": "command", "entry": "exec /tmp"}'},
    "broken": {"agent.json": '{"runtime": "python"}', "main.py": "def oops(:\n"},
    "deaf": {"agent.json": '{"runtime": "command", "entry": "exec <&-; echo heard nothing"}'},
    "idle": {"agent.json": '{"runtime": "command", "entry": "echo read nothing"}'},
}


@pytest.fixture(scope="module")
def run(stack):
    for name, files in AGENTS.items():
        stack.client.deploy(name, files)

    def run(agent, prompt="", **kw):
        return stack.client.run(agent, prompt, **kw)

    return run


@pytest.fixture(scope="module")
def sh(run):
    return lambda script, **kw: run("script", script, **kw)


def logs(stack, r):
    return stack.client.call("GET", r["logs_url"]).body


def test_every_exit_code(sh):
    records = in_threads([lambda n=n: sh(f"exit {n}") for n in range(256)], 32)
    for n, r in enumerate(records):
        want = ("succeeded", 0, None, None) if n == 0 else ("failed", n, None, None)
        assert (r["status"], r["exit_code"], r["signal"], r["error"]) == want, n


DEADLY = sorted(set(signal.Signals) - {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH, signal.SIGSTOP,
                                       signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGRTMIN, signal.SIGRTMAX})


def test_every_signal(sh):
    records = in_threads([lambda n=n: sh(f"trap - {int(n)} 2>/dev/null; kill -{int(n)} $$; sleep 5") for n in DEADLY], 16)
    for n, r in zip(DEADLY, records):
        assert (r["status"], r["exit_code"], r["signal"], r["error"]) == ("failed", None, n.name[3:], None), n


def test_real_time_signals_have_a_name_too(sh):
    for n in (34, 40, 64):
        r = sh(f"kill -{n} $$; sleep 5")
        assert (r["status"], r["exit_code"]) == ("failed", None) and r["signal"], (n, r["signal"])


def test_signals_that_do_nothing_do_nothing(sh):
    r = sh("for n in CHLD URG WINCH CONT; do kill -$n $$; done; echo alive")
    assert (r["status"], r["output"]) == ("succeeded", "alive\n")


def test_a_stopped_program_runs_into_its_limit(sh):
    r = sh("echo here; kill -STOP $$; echo never", timeout_s=2)
    assert (r["status"], r["error"]["code"], r["output"]) == ("timed_out", "run_timeout", "here\n")


def test_a_program_that_ignores_signals_ends_at_its_limit(sh):
    r = sh("trap '' TERM INT HUP; echo here; while :; do sleep 0.1; done", timeout_s=2)
    assert (r["status"], r["output"]) == ("timed_out", "here\n")
    assert 2000 <= r["usage"]["run_ms"] < 4000


def test_an_exit_like_a_signals_is_still_an_exit(sh):
    r = sh("exit 137")
    assert (r["status"], r["exit_code"], r["signal"], r["error"]) == ("failed", 137, None, None)
    r = sh("sh -c 'kill -9 $$'; echo its end was $?")
    assert (r["status"], r["output"]) == ("succeeded", "its end was 137\n"), "a child's death is the program's business"


@pytest.mark.parametrize("agent, code", [("missing", 127), ("not-there", 127), ("directory", 126), ("broken", 1)])
def test_what_cannot_be_started_says_why(stack, run, agent, code):
    r = run(agent, "x")
    assert (r["status"], r["exit_code"], r["signal"], r["attempt"]) == ("failed", code, None, 1)
    assert logs(stack, r).strip(), "the shell or the interpreter says why"


def test_an_out_of_memory_kill_is_told(stack, run):
    r = run("script", "exec python3 -c \"x = []\nwhile True: x.append(bytearray(b'x' * (1 << 20)))\"")
    assert (r["status"], r["signal"], r["exit_code"], r["error"]["code"]) == ("failed", "KILL", None, "out_of_memory")
    assert r["usage"]["peak_memory_bytes"] > 100 << 20


def test_a_child_out_of_memory_is_not_the_program(sh):
    r = sh("python3 -c \"x = []\nwhile True: x.append(bytearray(b'x' * (1 << 20)))\"; echo the child ended with $?")
    assert (r["status"], r["output"]) == ("succeeded", "the child ended with 137\n")


def test_stdin_closed_or_never_read(run):
    assert run("deaf", "x" * 1000)["output"] == "heard nothing\n"
    for size in (0, 1000, 3 * 1024 * 1024):
        r = run("idle", "x" * size)
        assert (r["status"], r["output"]) == ("succeeded", "read nothing\n")


def test_the_prompt_ends(sh):
    """Nothing behind the prompt: reading on gives the end of the file, as often as one likes."""
    r = sh("cat; cat; read x || echo end")
    assert (r["status"], r["output"]) == ("succeeded", "end\n")


@pytest.mark.parametrize("script", [
    "sleep 1000 & echo left a child",
    "sleep 1000 >/dev/null 2>&1 & echo left a child",
    "setsid sh -c 'sleep 1000 & sleep 1000' & echo left a child",
    "(trap '' HUP TERM; (while :; do echo more; sleep 0.1; done) &) ; echo left a child",
    "nohup yes >/tmp/flood & echo left a child",
], ids=["holding stdout", "quiet", "own session", "still writing", "flooding the disk"])
def test_children_left_behind_end_with_the_sandbox(stack, sh, script):
    began = time.monotonic()
    r = sh(script)
    assert r["status"] == "succeeded" and "left a child\n" in r["output"] and r["exit_code"] == 0
    assert time.monotonic() - began < 20, "the program's end is the job's end, whoever holds its stdout"
    until("its sandbox is gone", lambda: not stack.sandboxes(), 10)


def test_a_flood_of_output_is_cut_and_harms_nobody(stack, sh):
    flood = stack.client.submit("script", "exec yes", timeout_s=6).json["id"]
    both = stack.client.submit("script", "exec yes flood >&2", timeout_s=6).json["id"]
    until("both run", lambda: all(stack.client.get(i)["status"] == "running" for i in (flood, both)))
    for n in range(10):
        assert sh(f"echo {n}")["output"] == f"{n}\n"
    r = stack.client.end(flood, 30)
    assert (r["status"], r["output_truncated"], r["output_size"]) == ("timed_out", True, 10 << 20)
    assert stack.client.call("GET", r["output_url"]).body == b"y\n" * (5 << 20)
    r = stack.client.end(both, 30)
    assert (r["status"], r["output_truncated"], r["output_size"]) == ("timed_out", False, 0)
    body = logs(stack, r)
    assert len(body) <= 1 << 20 and len(body) > (1 << 20) - 10 and set(body.split(b"\n")[:-1]) == {b"flood"}


def test_a_flood_ends_with_a_cancel_within_a_second(stack, sh):
    id = stack.client.submit("script", "exec yes").json["id"]
    until("it runs", lambda: stack.client.get(id)["status"] == "running")
    began = time.monotonic()
    stack.client.call("POST", f"/v1/invocations/{id}/cancel")
    r = stack.client.end(id, 10)
    assert r["status"] == "canceled" and time.monotonic() - began < 3


def test_half_a_character_at_the_cut_is_left_out(stack, sh):
    r = sh("exec python3 -c \"import sys; sys.stdout.write('x' + chr(0xe9) * (6 << 20))\"")
    assert (r["status"], r["output_truncated"], r["output_size"]) == ("succeeded", True, (10 << 20) - 1)
    assert stack.client.call("GET", r["output_url"]).body.decode() == "x" + chr(0xe9) * ((10 << 20) // 2 - 1)


def test_half_a_character_of_the_programs_own_is_kept(sh):
    r = sh("printf 'abc\\303'")
    assert r["output"] is None and base64.b64decode(r["output_base64"]) == b"abc\xc3" and not r["output_truncated"]
    r = sh("printf 'a\\000b'")
    assert r["output"] is None and base64.b64decode(r["output_base64"]) == b"a\0b"


def test_output_comes_whole_when_the_program_is_killed_on_writing(sh):
    r = sh("head -c 100000 /dev/zero | tr '\\0' x; kill -9 $$")
    assert (r["status"], r["signal"], r["output_size"]) == ("failed", "KILL", 100000)


def test_what_is_in_the_environment(sh):
    r = sh("env | cut -d= -f1 | sort | tr '\\n' ' '; pwd; id -un; ls -A")
    assert json.dumps(r["output"]).find("SANDPIPER_DATABASE") == -1 and "E2B_API_KEY" not in r["output"]
    assert "root" not in r["output"].split()
