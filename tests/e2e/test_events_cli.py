"""`sandpiper invoke --stream` and `logs -f`: what they print, over connections that break."""

import json
import os
import signal
import subprocess
import threading

import pytest

import fault_proxy as fault
from e2e_agents import make_stack
from stack import BIN, until
from test_events import SPEAKER, flood

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root")


@pytest.fixture(scope="module")
def stack():
    s = make_stack()
    s.client.deploy("speaker", {"agent.json": '{"runtime": "python"}', "main.py": SPEAKER})
    yield s
    s.quiet()
    s.stop()


@pytest.fixture
def proxy(stack):
    p = fault.FaultProxy(stack.gateways[0].port)
    yield p
    p.close()


def through(proxy):
    return {"SANDPIPER_URL": f"http://127.0.0.1:{proxy.port}"}


def steps(*s):
    return json.dumps(s).encode()


def popen(stack, *argv, **kw):
    env = dict(stack.env, SANDPIPER_URL=f"http://127.0.0.1:{stack.gateways[0].port}", SANDPIPER_API_KEY=stack.key)
    return subprocess.Popen([str(BIN / "sandpiper"), *argv], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, **kw)


def test_output_and_log_come_as_they_are_written(stack):
    p = popen(stack, "invoke", "speaker", "--stream", "-")
    p.stdin.write(steps(["out", "one\n"], ["err", "two\n"], ["sleep", 2], ["out", "three\n"]))
    p.stdin.close()
    assert p.stdout.readline() == b"one\n" and p.stderr.readline() == b"two\n"
    assert p.poll() is None, "it was to be printed while it runs"
    assert p.stdout.read() == b"three\n" and p.stderr.read() == b""
    assert p.wait(10) == 0


def test_the_exit_status_is_the_job_s(stack):
    r = stack.cli("invoke", "speaker", "--stream", "-", stdin=steps(["out", "x"], ["err", "why\n"], ["exit", 3]), check=False)
    assert (r.returncode, r.stdout) == (1, b"x")
    err = r.stderr.decode()
    assert err.startswith("why\nsandpiper: inv_") and err.count("why") == 1 and "failed, exit code 3" in err
    r = stack.cli("invoke", "nobody", "--stream", "x", check=False)
    assert r.returncode == 3 and b"agent_not_found" in r.stderr
    r = stack.cli("invoke", "speaker", "--stream", "--no-wait", "[]", check=False)
    assert r.returncode == 2 and b"--stream waits" in r.stderr


@pytest.mark.parametrize("size", [0, 40, 300, 5_000])
def test_broken_connections_are_resumed(stack, proxy, size):
    proxy.on("POST", "/v1/invocations$", fault.cut(size))
    proxy.on("POST", "/v1/invocations$", fault.cut(60_000))  # it is sent again until its id is known
    proxy.on("GET", "/events$", fault.cut(20_000), times=10)
    before = stack.count("select count(*) from invocations")
    r = stack.cli("invoke", "speaker", "--stream", "-", stdin=steps(["flood", 400_000, 0.005]), env=through(proxy))
    out, err = flood(400_000)
    assert (r.stdout, r.stderr) == (out, err)
    assert proxy.count("GET", "/events$") >= 10
    assert stack.count("select count(*) from invocations") == before + 1


def test_json_is_one_event_a_line(stack):
    r = stack.cli("invoke", "speaker", "--stream", "--json", "-", stdin=steps(["out", "a"], ["err", "b"]))
    events = [json.loads(line) for line in r.stdout.splitlines()]
    assert {e["event"] for e in events} == {"status", "stdout", "stderr", "result"} and r.stderr == b""
    assert events[-1]["event"] == "result" and events[-1]["data"]["output"] == "a" and events[-1]["id"] == "1.1.1"


def test_an_attempt_that_begins_again_is_told(stack):
    retry = {"max_attempts": 2, "on": ["failed"]}
    # What an attempt wrote can be had while it runs, and for seconds afterwards: the first one gives the follower time.
    id = stack.client.submit("speaker", json.dumps([["err", "again\n"], ["sleep", 3], ["exit", 1]]), retry=retry).json["id"]
    r = stack.cli("logs", "-f", id)
    assert r.stdout == b"again\nagain\n" and b"attempt 2 begins" in r.stderr


def test_logs_are_followed(stack):
    id = stack.client.submit("speaker", json.dumps([["err", "one\n"], ["out", "x"], ["sleep", 2], ["err", "two\n"]])).json["id"]
    p = popen(stack, "logs", "--follow", id)
    assert p.stdout.readline() == b"one\n" and p.poll() is None
    assert p.stdout.read() == b"two\n" and p.wait(10) == 0
    assert stack.cli("logs", "-f", id).stdout == stack.cli("logs", id).stdout == b"one\ntwo\n"
    assert stack.cli("get", "-f", id, check=False).returncode == 2


def test_ctrl_c_cancels(stack):
    p = popen(stack, "invoke", "speaker", "--stream", "-")
    p.stdin.write(steps(["out", "begun\n"], ["sleep", 60]))
    p.stdin.close()
    assert p.stdout.readline() == b"begun\n"
    p.send_signal(signal.SIGINT)
    err = p.stderr.read().decode()
    assert p.wait(20) == 1 and "inv_" in err
    id = next(word for word in err.replace(";", " ").split() if word.startswith("inv_"))
    assert stack.client.end(id)["status"] == "canceled"


def test_a_gateway_that_is_away_for_a_moment(stack, proxy):
    """The connection breaks, and for some tries nobody answers."""
    proxy.on("POST", "/v1/invocations$", fault.cut(400))
    proxy.on("GET", "/events$", fault.status(503, Retry_After=1), times=2)
    proxy.on("GET", "/events$", fault.lose(), times=1)
    r = stack.cli("invoke", "speaker", "--stream", "-", stdin=steps(["flood", 100_000, 0.01]), env=through(proxy))
    assert r.stdout == flood(100_000)[0]
