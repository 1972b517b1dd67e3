"""The simulated E2B: it answers as told, tells of what it made, and refuses as E2B does."""

import base64
import contextlib
import http.client
import json
import os
import struct
import subprocess

import pytest

from sim_stack import AGENT, SimStack
from stack import BIN, in_threads, until


@pytest.fixture(scope="module")
def sim():
    with running(sim={"ledger": "LEDGER"}) as s:
        yield s


@contextlib.contextmanager
def running(sim=None, **kw):
    s = SimStack(sim=sim, **kw)
    if s.sim.get("ledger"):
        s.sim["ledger"] = s.dir / "ledger"
    try:
        yield s.start()
    finally:
        s.stop()


def parallel(n, job):
    return in_threads([lambda i=i: job(i) for i in range(n)], workers=n)


def ask(**kw):
    return json.dumps({"sim": kw})


def frames(data):
    """The messages of a Connect stream."""
    while data:
        flags, n = struct.unpack(">BI", data[:5])
        yield flags, json.loads(data[5:5 + n])
        data = data[5 + n:]


def start(s, box, *args, headers=None):
    """The whole stream of a program."""
    message = json.dumps({"process": {"cmd": "/bin/sh", "args": list(args)}}).encode()
    c = http.client.HTTPConnection("127.0.0.1", s.sandboxd_port, timeout=30)
    try:
        c.request("POST", "/process.Process/Start", struct.pack(">BI", 0, len(message)) + message, {
            "Content-Type": "application/connect+json", "E2b-Sandbox-Id": box["sandboxID"],
            "X-Access-Token": box["envdAccessToken"], **(headers or {})})
        return list(frames(c.getresponse().read()))
    finally:
        c.close()


def make(s, **fields):
    status, headers, body = s.sim_call("POST", "/v2/sandboxes", {"templateID": "base", "timeout": 60, **fields})
    return status, headers, json.loads(body)


# ---- through Sandpiper ----


@pytest.mark.parametrize("prompt", ["a prompt", "grüße €", "x" * 300_000])
def test_a_program_echoes_its_prompt(sim, prompt):
    r = sim.client.run(AGENT, prompt)
    assert r["status"] == "succeeded"
    out = r["output"] if r["output"] is not None else sim.client.call("GET", r["output_url"]).body.decode()
    assert out == prompt


@pytest.mark.parametrize("order, status, fields", [
    ({"exit_code": 7, "output": "no"}, "failed", {"exit_code": 7, "output": "no"}),
    ({"signal": "KILL"}, "failed", {"signal": "KILL"}),
    ({"run_ms": 300, "output": "later"}, "succeeded", {"output": "later"}),
    ({"run_ms": 400, "pieces": 8, "output_bytes": 200_000}, "succeeded", {"output_size": 200_000}),
])
def test_a_prompt_says_how_its_program_goes(sim, order, status, fields):
    r = sim.client.run(AGENT, ask(**order))
    assert r["status"] == status and {k: r[k] for k in fields} == fields, r
    assert r["usage"]["run_ms"] >= order.get("run_ms", 0)


def test_stderr_becomes_the_log(sim):
    r = sim.client.run(AGENT, ask(stderr="a line\n"))
    assert sim.client.call("GET", f"/v1/invocations/{r['id']}/logs").body == b"a line\n"


def test_a_program_that_runs_too_long_is_timed_out_and_its_sandbox_is_gone(sim):
    r = sim.client.run(AGENT, ask(run_ms=60_000), timeout_s=1)
    assert r["status"] == "timed_out" and 1000 <= r["usage"]["run_ms"] < 5000
    until("nothing is live", lambda: sim.stats()["live"] == 0)


def test_the_ledger_has_a_line_for_each_sandbox(sim):
    before = sim.stats()["created"]
    ids = [r["id"] for r in parallel(20, lambda i: sim.client.run(AGENT, ask(run_ms=50)))]
    until("nothing is live", lambda: sim.stats()["live"] == 0)
    assert len(set(ids)) == 20 and sim.stats()["created"] >= before + 20

    def lines():
        found = [json.loads(line) for line in (sim.dir / "ledger").read_text().splitlines()]
        return len(found) == sim.stats()["created"] and found

    deployment = sim.psql("select id from deployment").strip()
    for line in until("the ledger is whole", lines)[-20:]:
        assert line["metadata"]["deployment"].replace("-", "") == deployment.replace("-", "")
        assert line["ended_by"] == "deleted" and line["lived_ms"] >= 50 and line["programs"] == 1, line


# ---- its own protocol ----


def test_a_sandbox_that_nobody_kills_expires(sim):
    _, _, box = make(sim, timeout=1, metadata={"who": "expiry"})
    gone = {"E2b-Sandbox-Id": box["sandboxID"]}
    until("it has expired", lambda: sim.sim_call("GET", "/health", headers=gone)[0] == 502)
    assert sim.sim_call("DELETE", f"/sandboxes/{box['sandboxID']}")[0] == 404
    line = until("the ledger tells", lambda: next(
        (x for x in map(json.loads, (sim.dir / "ledger").read_text().splitlines()) if x["sandbox"] == box["sandboxID"]), None))
    assert line["ended_by"] == "expired" and line["metadata"] == {"who": "expiry"}


def test_pages_of_a_filtered_list_hold_each_sandbox_once(sim):
    made = {make(sim, metadata={"page": "me"})[2]["sandboxID"] for _ in range(25)}
    make(sim, metadata={"page": "other"})
    seen, token = [], ""
    while token is not None:
        _, headers, body = sim.sim_call(
            "GET", "/v2/sandboxes?metadata=page%3Dme&limit=10" + (f"&nextToken={token}" if token else ""))
        seen += [b["sandboxID"] for b in json.loads(body)]
        token = headers.get("X-Next-Token")
    assert len(seen) == 25 and set(seen) == made
    for b in json.loads(sim.sim_call("GET", "/sandboxes")[2]):
        assert sim.sim_call("DELETE", f"/sandboxes/{b['sandboxID']}")[0] == 204


def test_a_stream_without_the_token_is_refused(sim):
    _, _, box = make(sim)
    headers = {"E2b-Sandbox-Id": box["sandboxID"], "X-Access-Token": "wrong"}
    assert sim.sim_call("POST", "/process.Process/List", {}, headers)[0] == 401
    assert sim.sim_call("POST", "/process.Process/List", {}, {**headers, "X-Access-Token": box["envdAccessToken"]})[0] == 200
    sim.sim_call("DELETE", f"/sandboxes/{box['sandboxID']}")


def test_the_clients_time_limit_ends_a_program(sim):
    _, _, box = make(sim)
    got = start(sim, box, "-c", ask(run_ms=30_000), headers={"Connect-Timeout-Ms": "200"})
    assert "start" in got[0][1]["event"] and got[-1][0] == 2 and got[-1][1]["error"]["code"] == "deadline_exceeded"
    sim.sim_call("DELETE", f"/sandboxes/{box['sandboxID']}")


def test_a_quiet_program_sends_signs_of_life(sim):
    """Who does without them takes the stream for dead, and attaches again."""
    _, _, box = make(sim)
    got = start(sim, box, "-c", ask(run_ms=2500, output="x"), headers={"Keepalive-Ping-Interval": "1"})
    kinds = [next(iter(m["event"])) for flags, m in got if flags == 0]
    assert kinds[0] == "start" and kinds.count("keepalive") == 2 and kinds[-1] == "end", kinds
    sim.sim_call("DELETE", f"/sandboxes/{box['sandboxID']}")


def test_an_order_that_cannot_be_followed_is_refused(sim):
    _, _, box = make(sim)
    for bad in ({"run_mss": 5}, {"exit_code": 256}, {"signal": "HUH"}, {"output_bytes": 1 << 40}):
        got = start(sim, box, "-c", ask(**bad))
        assert got == [(2, {"error": {"code": "invalid_argument", "message": got[0][1]["error"]["message"]}})], bad
    sim.sim_call("DELETE", f"/sandboxes/{box['sandboxID']}")


def test_killing_a_sandbox_breaks_its_stream(sim):
    _, _, box = make(sim)
    message = json.dumps({"process": {"cmd": "sh", "args": [ask(run_ms=60_000)]}}).encode()
    c = http.client.HTTPConnection("127.0.0.1", sim.sandboxd_port, timeout=30)
    c.request("POST", "/process.Process/Start", struct.pack(">BI", 0, len(message)) + message,
              {"E2b-Sandbox-Id": box["sandboxID"], "X-Access-Token": box["envdAccessToken"]})
    r = c.getresponse()
    assert b"start" in r.read1()
    assert sim.sim_call("DELETE", f"/sandboxes/{box['sandboxID']}")[0] == 204
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        while r.read():
            pass
    c.close()


def test_thousands_of_programs_run_at_once(sim):
    boxes = [make(sim)[2] for _ in range(1000)]
    done = parallel(1000, lambda i: start(sim, boxes[i], "-c", ask(run_ms=2000, output=str(i))))
    assert sim.stats()["peak_live"] >= 1000
    for i, got in enumerate(done):
        out = b"".join(base64.b64decode(m["event"]["data"]["stdout"]) for f, m in got if "data" in m.get("event", {}))
        assert out == str(i).encode() and got[-1] == (2, {})
    for b in boxes:
        assert sim.sim_call("DELETE", f"/sandboxes/{b['sandboxID']}")[0] == 204


# ---- its refusals ----


def test_beyond_the_live_limit_e2b_says_429_without_retry_after():
    with running(sim={"max_sandboxes": 2}) as s:
        boxes = [make(s)[2] for _ in range(2)]
        status, headers, body = make(s)
        assert status == 429 and "Retry-After" not in headers and "concurrent" in body["message"]
        for b in boxes:
            s.sim_call("DELETE", f"/sandboxes/{b['sandboxID']}")
        assert all(r["status"] == "succeeded" for r in parallel(12, lambda i: s.client.run(AGENT, ask(run_ms=100))))
        assert s.stats()["peak_live"] == 2


def test_beyond_the_rate_e2b_says_429_with_retry_after():
    with running(sim={"creates_per_second": 3}) as s:
        answers = [make(s) for _ in range(10)]
        late = [h for status, h, _ in answers if status == 429]
        assert late and all(h["Retry-After"] == "1" for h in late)
        assert s.client.run(AGENT, "well")["status"] == "succeeded"


def test_settings_that_are_wrong_are_named():
    r = subprocess.run([BIN / "sandpiper-e2b-sim"], env={**os.environ, "SANDPIPER_SIM_RUN": "50..10"}, capture_output=True,
                       text=True, timeout=30)
    assert r.returncode == 2 and "SANDPIPER_SIM_RUN" in r.stderr and "10..50ms" in r.stderr
