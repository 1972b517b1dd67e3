"""Live streams: events of an invocation, resumed byte for byte at any gateway, while it runs and after."""

import contextlib
import hashlib
import http.client
import json
import os
import random
import signal
import socket
import threading
import time

import pytest

from e2e_agents import make_stack
from sim_stack import AGENT, SimStack
from sse import Seen, Stream, submit_stream
from stack import Client, in_threads, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root")

# Does the steps of its prompt: [["out", text], ["err", text], ["hex", bytes], ["sleep", s], ["flood", n, pause],
# ["exit", n], …]. A flood's bytes are those of flood() below, on both streams: n of stdout and n // 8 of stderr.
SPEAKER = """
import json, os, random, sys, time

def put(fd, data):
    while data:
        data = data[os.write(fd, data):]

for step in json.load(sys.stdin):
    what = step[0]
    if what == "out":
        put(1, step[1].encode())
    elif what == "err":
        put(2, step[1].encode())
    elif what == "hex":
        put(1, bytes.fromhex(step[1]))
    elif what == "sleep":
        time.sleep(step[1])
    elif what == "flood":
        r, left, errs = random.Random(7), step[1], step[1] // 8
        while left > 0:
            n = min(left, r.randrange(1, 20000))
            put(1, r.randbytes(n))
            left -= n
            m = min(errs, n // 8)
            put(2, r.randbytes(m))
            errs -= m
            time.sleep(step[2])
    elif what == "exit":
        sys.exit(step[1])
"""


def flood(size):
    """The same bytes, told from (stdout, stderr)."""
    r, left, errs, out, err = random.Random(7), size, size // 8, b"", b""
    while left > 0:
        n = min(left, r.randrange(1, 20000))
        out += r.randbytes(n)
        left -= n
        m = min(errs, n // 8)
        err += r.randbytes(m)
        errs -= m
    return out, err


@pytest.fixture(scope="module")
def pair():
    """Two gateways, two executors. What is freed goes back at once, so that memory can be looked at."""
    s = make_stack(gateways=2, executors=2,
                   env={"ASAN_OPTIONS": "detect_leaks=1:leak_check_at_exit=0:quarantine_size_mb=1"})
    s.client.deploy("speaker", {"agent.json": '{"runtime": "python"}', "main.py": SPEAKER})
    yield s
    s.quiet()
    s.stop()


@pytest.fixture
def speaker(pair):
    return pair.client


def start(client, *steps, **fields):
    a = client.submit("speaker", json.dumps(steps), **fields)
    assert a.status == 202, a.body
    return a.json["id"]


def ports(stack):
    return [g.port for g in stack.gateways if g.alive()]


# ---- what a stream is ----

def test_a_stream_tells_all_as_it_comes(speaker):
    id = start(speaker, ["out", "one\n"], ["sleep", 0.5], ["err", "two\n"], ["sleep", 0.5], ["out", "three\n"])
    s = Stream(speaker, id)
    assert s.status == 200 and s.headers["Cache-Control"] == "no-store"
    seen = Seen().read(s, lambda x: x.out == b"one\n")
    assert speaker.get(id)["status"] == "running"
    seen.read(s)
    assert s.retry == 1000
    assert (seen.out, seen.err, seen.gaps) == (b"one\nthree\n", b"two\n", [])
    assert seen.statuses[-1] == (1, "running") and seen.events[0].name == "status"
    record = speaker.get(id)
    assert seen.result == record and record["status"] == "succeeded"
    assert list(s) == []


def test_a_submission_may_ask_for_its_stream(pair, speaker):
    s = submit_stream(speaker, "speaker", json.dumps([["out", "hello"], ["exit", 3]]))
    assert s.status == 200
    id = s.headers["Location"].rsplit("/", 1)[1]
    seen = Seen().read(s)
    assert seen.events[0].data["id"] == id == seen.result["id"]
    assert (seen.out, seen.result["status"], seen.result["exit_code"]) == (b"hello", "failed", 3)


def test_a_replayed_submission_streams_the_same_job(pair, speaker):
    body = json.dumps([["out", "once"]])
    first, again = (Seen().read(submit_stream(speaker, "speaker", body, {"Idempotency-Key": "stream-once"}))
                    for _ in range(2))
    assert first.result["id"] == again.result["id"] and first.out == again.out == b"once"


def test_a_stream_of_one_that_has_ended_is_whole(speaker):
    id = start(speaker, ["flood", 300000, 0])
    speaker.end(id)
    seen = Seen().read(Stream(speaker, id))
    assert (seen.out, seen.err) == flood(300000)
    assert seen.statuses == [] and seen.result["status"] == "succeeded"


def test_after_the_result_only_the_result_comes_again(speaker):
    id = start(speaker, ["out", "x"], ["err", "y"])
    last = Seen().read(Stream(speaker, id)).last
    assert last == "1.1.1"
    again = list(Stream(speaker, id, last=last))
    assert [e.name for e in again] == ["result"] and again[0].id == last


def test_head_answers_without_a_stream(speaker):
    id = start(speaker, ["out", "x"])
    for _ in range(2):  # while it runs, and after
        a = speaker.call("HEAD", f"/v1/invocations/{id}/events")
        assert (a.status, a.headers["Content-Type"], a.body) == (200, "text/event-stream", b"")
        speaker.end(id)


def test_a_stream_of_a_job_that_waits_says_so_and_goes_on(pair):
    c = pair.client
    for e in pair.executors:
        e.signal(signal.SIGSTOP)
    try:
        s = submit_stream(c, "speaker", json.dumps([["out", "late"]]))
        seen = Seen().read(s, lambda x: x.statuses)
        assert seen.statuses == [(1, "queued")]
    finally:
        for e in pair.executors:
            e.signal(signal.SIGCONT)
    assert seen.read(s).out == b"late"


def test_a_cancel_ends_the_stream(speaker):
    id = start(speaker, ["out", "begun"], ["sleep", 60])
    s = Stream(speaker, id)
    seen = Seen().read(s, lambda x: x.out == b"begun")
    assert speaker.call("POST", f"/v1/invocations/{id}/cancel").status in (200, 202)
    assert seen.read(s).result["status"] == "canceled"


def test_requests_that_cannot_be_served(pair, speaker):
    id = start(speaker, ["out", "x"])
    speaker.end(id)
    for bad in ("1", "1.0", "1.0.0.0", "0.0.0", "01.0.0", "1.-1.0", "1.x.0", "a.b.c", "1.0.99999999999999999999", "1.0.0 x",
                "40000.0.0", "2.0.0"):
        a = speaker.call("GET", f"/v1/invocations/{id}/events", headers={"Last-Event-ID": bad})
        assert (a.status, a.json["code"]) == (400, "invalid_header"), (bad, a.body)
    other = Client(speaker.port, pair.new_key("other"))
    for c, path in ((other, id), (speaker, "inv_01a1fd5f-8385-7001-9b66-7ca8a28be6e9"), (speaker, "nonsense")):
        assert c.call("GET", f"/v1/invocations/{path}/events").status == 404
    assert speaker.call("GET", f"/v1/invocations/{id}/events?wait=3").json["code"] == "invalid_query"
    assert speaker.call("POST", f"/v1/invocations/{id}/events").status == 405


def test_an_accept_that_refuses_events_gets_none(speaker):
    for accept in ("application/json", "*/*", "text/event-stream;q=0", "text/event-stream; q=0.000, */*"):
        a = speaker.call("POST", "/v1/invocations", {"agent": "echo", "prompt": "x"}, {"Accept": accept})
        assert a.status == 202 and a.headers["Content-Type"] == "application/json"


# ---- text and bytes ----

def test_characters_are_never_split(speaker):
    text = "añ☃😀" * 40
    raw = text.encode()
    steps = []
    for i in range(len(raw)):
        steps.append(["hex", raw[i:i + 1].hex()])
        if i < 24:
            steps.append(["sleep", 0.03])
    id = start(speaker, *steps)
    seen = Seen().read(Stream(speaker, id))
    pieces = [e.data for e in seen.events if e.name == "stdout"]
    assert all(isinstance(p, str) for p in pieces) and "".join(pieces) == text
    assert len(pieces) > 5  # it was live


def test_bytes_come_as_base64(speaker):
    for raw in (b"\xff\xfe\x00", b"a\x00b", b"caf\xc3", b"\xed\xa0\x80", b"\xf0\x9f\x98"):
        id = start(speaker, ["hex", raw.hex()])
        for seen in (Seen().read(Stream(speaker, id)), Seen().read(Stream(speaker, id))):
            assert seen.out == raw
            assert all(set(e.data) == {"base64"} for e in seen.events if e.name == "stdout" and e.bytes == raw)


def test_a_record_with_line_ends_is_one_line(speaker):
    body = b'{"agent": "speaker", "prompt": "[]", "metadata": {\n "a":\r\n 1\n}}'
    id = speaker.call("POST", "/v1/invocations", body).json["id"]
    assert Seen().read(Stream(speaker, id)).result["metadata"] == {"a": 1}


# ---- resuming ----

def test_cut_at_a_hundred_places_and_resumed_elsewhere_it_is_the_same(pair, speaker):
    size = 6_000_000
    id = start(speaker, ["flood", size, 0.01], ["sleep", 0.2])
    out, err = flood(size)
    seen, r, cuts, live, inside = Seen(), random.Random(1), 0, 0, 0
    while seen.result is None:
        s = Stream(speaker, id, last=seen.last, port=ports(pair)[cuts % 2])
        assert s.status == 200
        s.budget = r.randrange(1, 120_000) if cuts < 100 else None  # bytes of the answer, not of events
        seen.read(s)
        inside += s.cut_inside
        live += speaker.get(id)["finished_at"] is None
        s.close()
        cuts += 1
    assert cuts > 100 and live > 50 and inside > 50, (cuts, live, inside)
    assert hashlib.sha256(seen.out).digest() == hashlib.sha256(out).digest()
    assert hashlib.sha256(seen.err).digest() == hashlib.sha256(err).digest()
    assert seen.gaps == [] and seen.result["status"] == "succeeded"


def test_any_offset_may_be_resumed_from_after_the_end(speaker):
    size = 400_000
    id = start(speaker, ["flood", size, 0])
    speaker.end(id)
    out, err = flood(size)
    r = random.Random(2)
    for _ in range(20):
        a, b = r.randrange(size + 1), r.randrange(len(err) + 1)
        events = list(Stream(speaker, id, last=f"1.{a}.{b}"))
        assert b"".join(e.bytes for e in events if e.name == "stdout") == out[a:]
        assert b"".join(e.bytes for e in events if e.name == "stderr") == err[b:]
        assert events[-1].name == "result" and events[-1].position == (1, size, len(err))


def test_a_watcher_that_comes_late_gets_what_was_before(speaker):
    id = start(speaker, ["flood", 500_000, 0], ["out", "MARK"], ["sleep", 3])
    first = Stream(speaker, id)
    Seen().read(first, lambda x: x.out.endswith(b"MARK"))
    late = Seen().read(Stream(speaker, id), lambda x: x.out.endswith(b"MARK"))
    assert speaker.get(id)["finished_at"] is None, "it was to be seen live"
    assert late.out == flood(500_000)[0] + b"MARK"


def test_ten_readers_see_the_same(pair, speaker):
    size = 600_000
    id = start(speaker, ["flood", size, 0.005])
    watchers = in_threads([lambda i=i: Seen().read(Stream(speaker, id, port=ports(pair)[i % 2])) for i in range(10)], 10)
    assert all((s.out, s.err) == flood(size) for s in watchers)
    assert all(s.result == watchers[0].result for s in watchers)


# ---- what nobody watches, and who is slow ----

def test_a_job_that_nobody_watches_sends_nothing(pair, speaker):
    def published():
        text = pair.redis_cli("info", "commandstats")
        return sum(int(line.split("calls=")[1].split(",")[0]) for line in text.splitlines() if line.startswith("cmdstat_publish:"))

    speaker.end(start(speaker, ["out", "warm"]))  # scripts are loaded
    before = published()
    r = speaker.end(start(speaker, ["flood", 400_000, 0.01]))
    assert r["status"] == "succeeded" and r["output_size"] == 400_000
    quiet = published() - before
    before = published()
    id = start(speaker, ["flood", 400_000, 0.01])
    Seen().read(Stream(speaker, id))
    watched = published() - before
    assert quiet <= 1 and watched > 10, (quiet, watched)  # sp:done alone


def resident(process):
    for line in open(f"/proc/{process.pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def test_a_reader_that_reads_no_more_slows_nothing(pair, speaker):
    size = 8_000_000

    def small_window(connection):
        connection.connect()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)

    warm = start(speaker, ["flood", size, 0])
    Seen().read(Stream(speaker, warm))
    before = {p.name: resident(p) for p in pair.gateways + pair.executors}
    id = start(speaker, ["flood", size, 0.001], ["sleep", 0.5])
    with contextlib.ExitStack() as open_streams:
        slow = [open_streams.enter_context(contextlib.closing(Stream(speaker, id, port=ports(pair)[0], sock=small_window)))
                for _ in range(8)]
        fast = Seen().read(Stream(speaker, id, port=ports(pair)[1]))
        assert (fast.out, fast.err) == flood(size) and fast.result["status"] == "succeeded"
        for p in pair.gateways + pair.executors:
            assert resident(p) - before[p.name] < 32 << 20, (p.name, before[p.name], resident(p))
        assert pair.redis_cli("keys", "sp:o*") == pair.redis_cli("keys", "sp:a*") == ""
        slow[0].connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        seen = Seen().read(slow[0])  # and it has lost nothing
        assert (seen.out, seen.err, seen.gaps) == (*flood(size), [])


def test_a_client_that_hangs_up_frees_its_stream(pair, speaker):
    def streams():
        text = speaker.call("GET", "/metrics", key=False).body.decode()
        return int(float(next(line for line in text.splitlines() if line.startswith("sandpiper_streams ")).split()[1]))

    id = start(speaker, ["out", "x"], ["sleep", 3])
    watchers = [Stream(speaker, id) for _ in range(5)]
    for s in watchers:
        Seen().read(s, lambda x: x.out == b"x")
    until("five streams are open", lambda: streams() == 5)
    for s in watchers:
        s.close()
    until("no stream is open", lambda: streams() == 0, 3)


# ---- losses ----

@pytest.fixture
def made():
    stacks = []

    def make(gateways=1, executors=1, **env):
        s = make_stack(gateways=gateways, executors=executors, env=env)
        s.client.deploy("speaker", {"agent.json": '{"runtime": "python"}', "main.py": SPEAKER})
        stacks.append(s)
        return s

    yield make
    for s in stacks:
        s.stop()


def test_a_second_attempt_says_so_and_starts_at_nothing(speaker):
    id = start(speaker, ["flood", 200_000, 0.002], ["out", "the end"], ["exit", 1], retry={"max_attempts": 2, "on": ["failed"]})
    seen = Seen()
    firsts = []

    def keep(x):
        if x.attempt == 1:
            firsts[:] = [(x.out, x.err)]

    for e in Stream(speaker, id):
        seen.take(e)
        keep(seen)
    out, err = flood(200_000)
    assert firsts == [(out + b"the end", err)], "the first attempt's output came whole"
    assert (seen.attempt, seen.out, seen.err, seen.gaps) == (2, out + b"the end", err, [])
    assert (2, "running") in seen.statuses and seen.result["attempt"] == 2


def test_a_client_of_an_attempt_that_is_gone_is_told_of_the_gap(speaker):
    id = start(speaker, ["out", "one"], ["exit", 1], retry={"max_attempts": 2, "on": ["failed"]})
    speaker.end(id)
    events = list(Stream(speaker, id, last="1.2.0"))
    assert [e.name for e in events] == ["gap", "status", "stdout", "result"]
    assert events[0].data == {"attempt": 1, "stdout": {"from": 2, "to": None}, "stderr": {"from": 0, "to": None}}
    assert events[1].data["attempt"] == 2 and events[2].data == "one"


def test_a_killed_executor_gives_a_new_attempt(made):
    s = made(executors=1)
    id = start(s.client, ["out", "abc"], ["sleep", 4], ["out", "def"])
    stream = Stream(s.client, id)
    seen = Seen().read(stream, lambda x: x.out == b"abc")
    s.executors[0].kill()
    s.add_executor()
    seen.read(stream)
    assert (seen.attempt, seen.out, seen.result["status"]) == (2, b"abcdef", "succeeded")
    assert seen.gaps == [{"attempt": 1, "stdout": {"from": 3, "to": None}, "stderr": {"from": 0, "to": None}}]


def test_a_killed_gateway_is_resumed_at_another(made):
    s = made(gateways=2)
    size = 1_500_000
    id = start(s.client, ["flood", size, 0.01])
    seen = Seen().read(Stream(s.client, id), lambda x: len(x.out) > size // 4)
    s.gateways[0].kill()
    seen.read(Stream(s.client, id, last=seen.last, port=s.gateways[1].port))
    assert (seen.out, seen.err, seen.gaps) == (*flood(size), [])


def test_a_gateway_that_stops_ends_its_streams_and_they_are_resumed(made):
    s = made(gateways=2, SANDPIPER_GATEWAY_DRAIN="40s")
    size = 1_500_000
    id = start(s.client, ["flood", size, 0.01])
    stream = Stream(s.client, id)
    seen = Seen().read(stream, lambda x: len(x.out) > size // 4)
    s.gateways[0].signal(signal.SIGTERM)
    assert seen.read(stream).result is None and list(stream) == []
    assert stream.comments == 0, "it was to end at once"
    seen.read(Stream(s.client, id, last=seen.last, port=s.gateways[1].port))
    assert (seen.out, seen.err, seen.gaps) == (*flood(size), [])
    assert s.gateways[0].stop() == 0


def test_a_flush_of_redis_loses_nothing(made):
    s = made()
    size = 1_500_000
    id = start(s.client, ["flood", size, 0.01])
    stream = Stream(s.client, id)
    seen = Seen().read(stream, lambda x: len(x.out) > size // 8)
    s.redis_cli("flushall")
    seen.read(stream, lambda x: len(x.out) > size // 4)
    s.redis_cli("flushall")
    seen.read(stream)
    assert (seen.attempt, seen.out, seen.err, seen.gaps) == (1, *flood(size), [])


def test_without_redis_the_rest_comes_at_the_end(made):
    s = made()
    size = 1_000_000
    id = start(s.client, ["flood", size, 0.01], ["sleep", 1])
    stream = Stream(s.client, id)
    seen = Seen().read(stream, lambda x: len(x.out) > size // 8)
    s.redis.kill()
    seen.read(stream)
    assert (seen.out, seen.err, seen.gaps, seen.result["status"]) == (*flood(size), [], "succeeded")
    late = Stream(s.client, id)
    assert Seen().read(late).out == seen.out
    s.start_redis()


def test_redis_away_for_a_moment_is_caught_up_with(made):
    s = made()
    size = 2_000_000
    id = start(s.client, ["flood", size, 0.01], ["out", "MARK"], ["sleep", 15])
    stream = Stream(s.client, id)
    seen = Seen().read(stream, lambda x: len(x.out) > size // 8)
    s.redis.kill()
    s.start_redis()
    seen.read(stream, lambda x: x.out.endswith(b"MARK"))
    assert s.client.get(id)["finished_at"] is None, "it was to be seen live"
    assert seen.read(stream).gaps == [] and seen.out == flood(size)[0] + b"MARK"


def test_silence_is_broken(made):
    s = made()
    id = start(s.client, ["out", "x"], ["sleep", 19])
    stream = Stream(s.client, id)
    Seen().read(stream)
    assert stream.comments >= 1


def test_streams_are_bounded(made):
    s = made(SANDPIPER_GATEWAY_MAX_STREAMS="2")
    id = start(s.client, ["out", "x"], ["sleep", 2])
    two = [Stream(s.client, id) for _ in range(2)]
    for _ in range(2):
        third = s.client.call("GET", f"/v1/invocations/{id}/events")
        assert (third.status, third.json["code"], third.headers["Retry-After"]) == (503, "overloaded", "1")
        before = s.count("select count(*) from invocations")
        posted = s.client.call("POST", "/v1/invocations", {"agent": "echo", "prompt": "x"}, {"Accept": "text/event-stream"})
        assert posted.status == 503 and s.count("select count(*) from invocations") == before
    assert [Seen().read(t).out for t in two] == [b"x", b"x"]


# ---- many ----

def test_hundreds_of_jobs_are_watched_at_once():
    """More than may fetch at the same time; and an executor that dies under them."""
    s = SimStack()
    try:
        s.start(gateways=2, executors=2)
        order = json.dumps({"sim": {"run_ms": 6000, "pieces": 12, "output_bytes": 150_000, "stderr": "x" * 30_000}})
        ids = [s.client.submit(AGENT, order).json["id"] for _ in range(200)]
        killed = threading.Event()

        def watch(i):
            seen = Seen()
            stream = Stream(s.client, ids[i], port=ports(s)[i % 2])
            seen.read(stream, lambda x: len(x.out) >= 50_000)
            if not killed.is_set():
                with lock:
                    if not killed.is_set():
                        s.executors[0].kill()
                        killed.set()
            return seen.read(stream)

        lock = threading.Lock()
        watchers = in_threads([lambda i=i: watch(i) for i in range(200)], 200)
        for seen in watchers:
            assert seen.result["status"] == "succeeded"
            out = s.client.call("GET", f"/v1/invocations/{seen.result['id']}/output").body
            assert (seen.out, seen.err) == (out, b"x" * 30_000) and len(out) == 150_000
            assert (seen.gaps == []) == (seen.result["attempt"] == 1)
        again = sum(seen.result["attempt"] == 2 for seen in watchers)
        assert 0 < again < 200, again
    finally:
        s.stop()
