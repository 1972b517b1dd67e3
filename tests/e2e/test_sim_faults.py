"""The simulated E2B's faults, each as a client without any help sees it."""

import base64
import contextlib
import http.client
import json
import os
import socket
import struct
import subprocess
import threading
import time

import pytest

from sim_stack import Sim
from stack import BIN, free_port, in_threads, until

CALLS = ("create", "list", "info", "timeout", "kill", "snapshot", "start", "connect", "upload", "download", "health", "signal")
BROKEN = (http.client.IncompleteRead, ConnectionError, http.client.BadStatusLine)


@pytest.fixture(scope="module")
def sim():
    s = Sim()
    yield s
    s.close()


@pytest.fixture(autouse=True)
def clean(request):
    yield
    if "sim" in request.fixturenames:
        s = request.getfixturevalue("sim")
        s.heal()
        for box in s.ledger().values():
            if not box["ended_at"]:
                s.sim_call("DELETE", f"/sandboxes/{box['sandbox']}")


# ---- the calls, as E2B's clients make them ----


class Box:
    def __init__(self, sim, **metadata):
        status, _, body = sim.sim_call("POST", "/v2/sandboxes", {"templateID": "base", "timeout": 300, "metadata": metadata})
        assert status == 201, body
        made = json.loads(body)
        self.sim, self.id = sim, made["sandboxID"]
        self.envd = {"E2b-Sandbox-Id": self.id, "X-Access-Token": made["envdAccessToken"]}

    @property
    def line(self):
        return self.sim.ledger()[self.id]


def rpc(message):
    body = json.dumps(message).encode()
    return struct.pack(">BI", 0, len(body)) + body


def order(**kw):
    return rpc({"process": {"cmd": "/bin/sh", "args": ["-c", json.dumps({"sim": kw})]}})


def request_of(call, box, **program):
    """(method, path, headers, body)"""
    stream = {**box.envd, "Content-Type": "application/connect+json"}
    return {
        "create": ("POST", "/v2/sandboxes", {}, json.dumps({"templateID": "base", "metadata": {"who": "made"}}).encode()),
        "list": ("GET", "/v2/sandboxes", {}, None),
        "info": ("GET", f"/sandboxes/{box.id}", {}, None),
        "timeout": ("POST", f"/sandboxes/{box.id}/timeout", {}, b'{"timeout": 60}'),
        "kill": ("DELETE", f"/sandboxes/{box.id}", {}, None),
        "snapshot": ("POST", f"/sandboxes/{box.id}/snapshots", {}, b'{"name": "snap"}'),
        "start": ("POST", "/process.Process/Start", stream, order(**program)),
        "connect": ("POST", "/process.Process/Connect", stream, rpc({"process": {"pid": 1001}})),
        "upload": ("POST", "/files?path=/tmp/f", {**box.envd, "Content-Type": "application/octet-stream"}, b"content"),
        "download": ("GET", "/files?path=/tmp/f", box.envd, None),
        "health": ("GET", "/health", box.envd, None),
        "signal": ("POST", "/process.Process/List", box.envd, b"{}"),
    }[call]


@contextlib.contextmanager
def asking(sim, call, box, timeout=20, **program):
    method, path, headers, body = request_of(call, box, **program)
    c = http.client.HTTPConnection("127.0.0.1", sim.sandboxd_port, timeout=timeout)
    try:
        c.request(method, path, body, headers)
        yield c
    finally:
        c.close()


def ask(sim, call, box, **program):
    """(status, headers, body) of a whole answer."""
    with asking(sim, call, box, **program) as c:
        r = c.getresponse()
        return r.status, r.headers, r.read()


def frames(data):
    out = []
    while data:
        flags, n = struct.unpack(">BI", data[:5])
        out.append((flags, data[5:5 + n]))
        data = data[5 + n:]
    return out


def kinds(data):
    """The events of a stream: start, data, end, and eos for its last frame."""
    return ["eos" if flags == 2 else next(iter(json.loads(body)["event"])) for flags, body in frames(data)]


def ready(sim):
    """A sandbox that every call makes sense for."""
    box = Box(sim)
    assert ask(sim, "upload", box)[0] == 200
    assert kinds(ask(sim, "start", box, output="x")[2]) == ["start", "data", "end", "eos"]
    return box


# ---- instead of an answer ----


@pytest.mark.parametrize("call", CALLS)
def test_an_error_is_answered_and_nothing_is_done(sim, call):
    box = ready(sim)
    made = sim.stats()["created"]
    for fault in ("429_rate", "429_limit", "500", "502", "503", "504"):
        sim.faults({"on": call, "fault": fault, "times": 1})
        status, headers, body = ask(sim, call, box)
        assert status == int(fault[:3]) and json.loads(body)["code"] == status and json.loads(body)["message"]
        assert (headers["Retry-After"] == "1") == (fault == "429_rate"), "the two kinds are told apart by this"
        assert ("concurrent" in json.loads(body)["message"]) == (fault == "429_limit")
        assert sim.injected()[call][fault] >= 1
    assert sim.stats()["created"] == made and box.line["ended_at"] is None and box.line["programs"] == 1
    assert ask(sim, call, box)[0] in (200, 201, 204), "healed by its count"


@pytest.mark.parametrize("call", CALLS)
def test_a_reset_before_anything_is_done(sim, call):
    box = ready(sim)
    made = sim.stats()["created"]
    sim.faults({"on": call, "fault": "reset"})
    with pytest.raises(BROKEN):
        ask(sim, call, box)
    assert sim.stats()["created"] == made and box.line["ended_at"] is None and box.line["programs"] == 1


@pytest.mark.parametrize("call", CALLS)
def test_a_hang_is_served_when_it_is_healed(sim, call):
    box = ready(sim)
    made = sim.stats()["created"]
    sim.faults({"on": call, "fault": "hang", "for_ms": 600_000})
    with asking(sim, call, box) as c:
        until("it hangs", lambda: sim.held() == 1)
        assert sim.stats()["created"] == made and box.line["ended_at"] is None
        sim.heal()
        assert c.getresponse().status in (200, 201, 204)
    assert sim.held() == 0


def test_a_hang_ends_in_a_reset(sim):
    box = ready(sim)
    sim.faults({"on": "kill", "fault": "hang", "for_ms": 300})
    with pytest.raises(BROKEN):
        ask(sim, "kill", box)
    assert sim.held() == 0 and box.line["ended_at"] is None


def test_who_hangs_up_on_a_hang_leaves_nothing(sim):
    box = ready(sim)
    sim.faults({"on": "any", "fault": "hang", "for_ms": 600_000})
    with asking(sim, "start", box):
        until("it hangs", lambda: sim.held() == 1)
    until("it is forgotten", lambda: sim.held() == 0)


# ---- done, and told badly ----


@pytest.mark.parametrize("fault", ["lost", "mute", "cut", "trickle", "bad_json"])
def test_a_sandbox_whose_answer_is_lost_lives(sim, fault):
    box = Box(sim)
    made = sim.stats()["created"]
    sim.faults({"on": "create", "fault": fault, "for_ms": 200, "rate": 50} if fault == "mute" else {"on": "create", "fault": fault})
    if fault == "bad_json":
        status, _, body = ask(sim, "create", box)
        assert status == 201
        with pytest.raises(ValueError):
            json.loads(body)
    elif fault == "trickle":
        with asking(sim, "create", box) as c:
            r = c.getresponse()
            assert r.status == 201 and r.read(1) == b"{"
    else:
        with pytest.raises(BROKEN):
            ask(sim, "create", box)
    assert sim.stats()["created"] == made + 1
    lost = [x for x in sim.ledger().values() if x["metadata"] == {"who": "made"} and not x["ended_at"]]
    assert len(lost) == 1 and lost[0]["programs"] == 0


@pytest.mark.parametrize("fault", ["lost", "mute"])
def test_a_kill_whose_answer_is_lost_was_done(sim, fault):
    box = Box(sim)
    sim.faults({"on": "kill", "fault": fault, "times": 1} | ({"for_ms": 100} if fault == "mute" else {}))
    with pytest.raises(BROKEN):
        ask(sim, "kill", box)
    assert box.line["ended_by"] == "deleted"
    assert ask(sim, "kill", box)[0] == 404


def test_a_mute_answer_comes_when_it_is_healed(sim):
    box = Box(sim)
    sim.faults({"on": "kill", "fault": "mute", "for_ms": 600_000})
    with asking(sim, "kill", box) as c:
        until("it is done", lambda: box.line["ended_at"])
        assert sim.held() == 1
        sim.heal()
        assert c.getresponse().status == 204


@pytest.mark.parametrize("call", ["create", "list", "info", "download", "start"])
def test_an_answer_is_cut_where_it_was_said(sim, call):
    box = ready(sim)
    sim.faults({"on": call, "fault": "cut", "bytes": 3})
    with asking(sim, call, box) as c:
        r = c.getresponse()
        assert r.status in (200, 201)
        got = b""
        with pytest.raises(BROKEN) as broken:
            while piece := r.read1(100):
                got += piece
            raise http.client.IncompleteRead(got) if r.length else AssertionError("it looked whole")
        got += getattr(broken.value, "partial", b"")[len(got):] if isinstance(broken.value, http.client.IncompleteRead) else b""
    assert len(got) == 3


def read_until(c, end):
    got = b""
    while end not in got:
        piece = c.recv(65536)
        if not piece:
            break
        got += piece
    return got


@pytest.mark.parametrize("call", ["info", "start"])
def test_a_trickle_is_a_byte_at_a_time_until_it_is_healed(sim, call):
    box = ready(sim)
    sim.faults({"on": call, "fault": "trickle"})
    with asking(sim, call, box, output="slow") as c:
        r = c.getresponse()
        assert [len(r.read1(100)) for _ in range(2)] == [1, 1]
        assert sim.held() == 1
        sim.heal()
        rest = r.read()
    assert sim.held() == 0
    if call == "info":
        assert rest.endswith(b"}") and b'"state":"running"' in rest
    else:
        assert rest.endswith(b"\x02\x00\x00\x00\x02{}")


def test_a_trickled_program_is_told_whole(sim):
    box = Box(sim)
    sim.faults({"on": "start", "fault": "trickle", "rate": 2000})
    data = ask(sim, "start", box, run_ms=300, pieces=3, output="word " * 100)[2]
    assert kinds(data) == ["start", "data", "data", "data", "end", "eos"]


# ---- streams ----


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("fault", ["bad_json", "bad_length", "bad_flags"])
def test_a_frame_is_broken(sim, fault, at):
    box = Box(sim)
    sim.faults({"on": "start", "fault": fault, "bytes": at})
    data = ask(sim, "start", box, run_ms=100, output="x")[2]
    good = kinds(ask_plainly(sim, box))
    assert good == ["start", "data", "end", "eos"]
    first = frames(data)[0]
    if at == 1:
        assert b'"start"' in first[1]
        data = data[5 + len(first[1]):]
    flags, n = struct.unpack(">BI", data[:5])
    if fault == "bad_length":
        assert n == 0xffffffff
    elif fault == "bad_flags":
        assert flags not in (0, 1, 2, 3)
    else:
        with pytest.raises(ValueError):
            json.loads(data[5:5 + n])


def ask_plainly(sim, box):
    sim.heal()
    return ask(sim, "start", box, run_ms=50, output="x")[2]


def test_an_end_is_missing(sim):
    box = Box(sim)
    sim.faults({"on": "start", "fault": "no_end"})
    assert kinds(ask(sim, "start", box, output="x")[2]) == ["start", "data", "eos"]
    sim.faults({"on": ["start", "connect"], "fault": "no_end_stream"})
    assert kinds(ask(sim, "start", box, run_ms=100, output="x")[2]) == ["start", "data", "end"]
    assert kinds(ask(sim, "connect", box)[2]) == ["start", "end"]
    sim.faults({"on": "connect", "fault": "no_end"})
    assert kinds(ask(sim, "connect", box)[2]) == ["start", "eos"]


def test_a_stalled_stream_tells_the_start_and_then_nothing(sim):
    box = Box(sim)
    sim.faults({"on": "start", "fault": "stall", "for_ms": 300})
    with asking(sim, "start", box, run_ms=10, output="x") as c:
        r = c.getresponse()
        assert kinds(r.read1(65536)) == ["start"]
        with pytest.raises(BROKEN):
            r.read()
    assert kinds(ask(sim, "connect", box)[2]) == ["start", "end", "eos"], "the program has gone on"


def test_a_stalled_stream_goes_on_when_it_is_healed(sim):
    box = Box(sim)
    sim.faults({"on": "start", "fault": "stall", "for_ms": 600_000})
    with asking(sim, "start", box, run_ms=10, output="x") as c:
        r = c.getresponse()
        assert kinds(r.read1(65536)) == ["start"]
        until("it is held", lambda: sim.held() == 1 and sim.stats()["programs_running"] == 0)
        sim.heal()
        assert kinds(r.read()) == ["data", "end", "eos"]


@pytest.mark.parametrize("fault", ["lost", "mute"])
def test_a_start_that_is_done_and_not_told_runs(sim, fault):
    box = Box(sim)
    sim.faults({"on": "start", "fault": fault} | ({"for_ms": 100} if fault == "mute" else {}))
    with pytest.raises(BROKEN):
        ask(sim, "start", box, run_ms=10, exit_code=3)
    assert box.line["programs"] == 1
    until("it ends", lambda: kinds(ask(sim, "connect", box)[2]) == ["start", "end", "eos"])


def test_a_sandbox_vanishes_under_its_program(sim):
    box = Box(sim)
    sim.faults({"on": "start", "fault": "vanish", "for_ms": 50})
    with asking(sim, "start", box, run_ms=60_000) as c:
        r = c.getresponse()
        assert kinds(r.read1(65536)) == ["start"]
        with pytest.raises(BROKEN):
            r.read()
    assert box.line["ended_by"] == "vanished" and sim.stats()["vanished"] >= 1
    assert ask(sim, "health", box)[0] == 502 and ask(sim, "info", box)[0] == 404


def resident(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))


def test_a_gigabyte_of_output_costs_no_memory(sim):
    box = Box(sim)
    sim.faults({"on": "start", "fault": "flood"})
    before, most, got, tail = resident(sim.process.pid), 0, 0, b""
    with asking(sim, "start", box, timeout=60) as c:
        r = c.getresponse()
        while piece := r.read(1 << 20):
            got += len(piece)
            tail = (tail + piece)[-65536:]
            most = max(most, resident(sim.process.pid))
    assert got > (1 << 30) * 4 // 3, "base64"
    assert b'"end"' in tail and tail.endswith(b"\x02\x00\x00\x00\x02{}")
    assert most - before < 16 * 1024, f"{most - before} KiB"


def test_bytes_that_are_made_as_they_are_written_are_the_right_ones(sim):
    data = ask(sim, "start", Box(sim), output_bytes=200_001, pieces=7)[2]
    out = b"".join(base64.b64decode(json.loads(body)["event"]["data"]["stdout"])
                   for flags, body in frames(data) if b'"data"' in body)
    line = b"the quick brown fox jumps over the lazy dog, and once more back\n"
    assert out == (line * 4000)[:200_001]


# ---- chance ----


def creates(sim, n):
    return [ask(sim, "create", None_box)[0] for _ in range(n)]


class NoneBox:
    id, envd = "none", {}


None_box = NoneBox()


def test_a_seed_repeats_its_faults(sim):
    rules = [{"on": "create", "fault": "500", "p": 0.3}, {"on": "create", "fault": "429_rate", "p": 0.2}]
    runs = []
    for seed in (11, 11, 12):
        sim.faults(*rules, seed=seed)
        runs.append([])
        for i in range(100):
            runs[-1].append(ask(sim, "create", None_box)[0])
            if seed == 11 and len(runs) == 2 and i % 3 == 0:
                ask(sim, "list", None_box)  # other calls do not move it
    assert runs[0] == runs[1] != runs[2]
    assert 15 <= runs[0].count(500) <= 45 and 5 <= runs[0].count(429) <= 25 and runs[0].count(201) >= 30


def test_rules_count_and_the_first_that_fits_wins(sim):
    sim.faults({"on": ["create", "kill"], "fault": "503", "times": 2}, {"on": "any", "fault": "500"})
    assert creates(sim, 3) == [503, 503, 500]
    seen = json.loads(sim.sim_call("GET", "/sim/faults")[2])
    assert [r["hits"] for r in seen["rules"]] == [2, 1] and seen["rules"][0]["times_left"] == 0


def test_a_long_tail_is_drawn_from_the_seed():
    took = []
    for _ in range(2):
        s = Sim(create="p50=50ms,p99=500ms", seed=5)
        try:
            def one():
                begin = time.monotonic()
                ask(s, "create", None_box)
                return time.monotonic() - begin
            took.append(sorted(in_threads([one] * 200, workers=50)))
        finally:
            s.close()
    for t in took:
        assert t[60] < 0.05 < t[140], "half of them lie below the median, as far as a busy machine lets them"
        assert t[-1] >= 0.3, "and there is a tail"


# ---- the control call ----


@pytest.mark.parametrize("rules, says", [
    ({"rules": [{"on": "creat", "fault": "500"}]}, '"creat" is no call; known: any, create, list'),
    ({"rules": [{"on": "create", "fault": "501"}]}, '"501" is not one of these calls; known for them: 429_rate'),
    ({"rules": [{"on": "create", "fault": "vanish"}]}, '"vanish" is not one of these calls'),
    ({"rules": [{"on": "create", "fault": "500", "probability": 1}]}, 'unknown field "probability"'),
    ({"rules": [{"on": "create", "fault": "500", "p": 2}]}, "p: 0 to 1"),
    ({"rules": [{"on": "create", "fault": "500", "times": -1}]}, "times"),
    ({"rules": [{"on": [], "fault": "500"}]}, "no call is named"),
    ({"rules": [{"fault": "500"}]}, "known: any"),
    ({"rules": ["500"]}, "a rule is an object"),
    ({"rules": {}}, "is expected"),
    ({"rules": [{"on": "any", "fault": "500"}] * 65}, "64 rules"),
    ({"seed": -1}, "seed"),
    ({"faults": []}, 'unknown field "faults"'),
])
def test_rules_that_cannot_be_followed_change_nothing(sim, rules, says):
    sim.faults({"on": "list", "fault": "500"})
    status, _, body = sim.sim_call("POST", "/sim/faults", rules)
    assert status == 400 and says in json.loads(body)["message"], body
    assert ask(sim, "list", None_box)[0] == 500
    assert creates(sim, 1) == [201]


def test_rules_come_from_the_environment(tmp_path):
    rules = {"rules": [{"on": "create", "fault": "503"}]}
    (tmp_path / "rules.json").write_text(json.dumps(rules))
    for where in (json.dumps(rules), tmp_path / "rules.json"):
        s = Sim(faults=where)
        try:
            assert creates(s, 1) == [503]
        finally:
            s.close()
    for bad in ('{"rules": [{"on": "create", "fault": "506"}]}', tmp_path / "none.json"):
        env = {**os.environ, "SANDPIPER_SIM_FAULTS": str(bad), "SANDPIPER_SIM_LISTEN": f"127.0.0.1:{free_port()}"}
        r = subprocess.run([BIN / "sandpiper-e2b-sim"], env=env, capture_output=True, text=True, timeout=30)
        assert r.returncode != 0 and "SANDPIPER_SIM_FAULTS" in r.stderr and ("506" in r.stderr or "none.json" in r.stderr)


# ---- the ledger ----


def test_the_ledger_shows_the_living_and_the_dead(sim):
    before = set(sim.ledger())
    boxes = [Box(sim, n=str(i)) for i in range(30)]
    for box in boxes[:20]:
        ask(sim, "start", box, output="x")
    for box in boxes[:10]:
        ask(sim, "kill", box)
    lines = {k: v for k, v in sim.ledger().items() if k not in before}
    assert len(lines) == 30
    for i, box in enumerate(boxes):
        line = lines[box.id]
        assert line["metadata"] == {"n": str(i)} and line["programs"] == (i < 20)
        assert (line["ended_at"] is not None) == (i < 10) and line["ended_by"] == ("deleted" if i < 10 else None)


def test_the_ledger_is_whole_while_sandboxes_come_and_go(sim):
    stop, made = threading.Event(), []

    def churn():
        while not stop.is_set():
            box = Box(sim)
            made.append(box.id)
            ask(sim, "kill", box)

    threads = [threading.Thread(target=churn) for _ in range(8)]
    for t in threads:
        t.start()
    try:
        for _ in range(30):
            known = len(made)
            missing = set(made[:known]) - set(sim.ledger())
            assert not missing
    finally:
        stop.set()
        for t in threads:
            t.join()
    assert len(made) > 100


def test_a_reader_of_the_ledger_that_leaves_harms_nothing(sim):
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", sim.sandboxd_port)) as c:
            c.sendall(b"GET /sim/ledger HTTP/1.1\r\nHost: x\r\n\r\n")
            c.recv(10)
    assert sim.ledger() is not None
