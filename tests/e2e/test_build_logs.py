"""Logs of builds: they stream while the build runs, they are kept byte for byte, and neither a death nor a loss mixes them."""

import os
import re
import signal
import socket

import pytest

from builds_client import Follower, Gate, ended, log_of, send
from stack import Stack, until
from tcp_proxy import DOWN, UP

MIB = 1 << 20


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


def test_lines_are_seen_while_the_build_runs_and_kept(own, gate):
    c, install = own.client, f"echo one; echo two; {gate.wait('seen')}; echo three"
    path = send(c, "slow", install, check="echo checked")
    f = Follower(c, path + "/log")
    f.sees(b"one\n")
    f.sees(b"two\n")
    before = log_of(c, path)
    assert c.call("GET", path).json["status"] == "building" and b"three" not in f.seen.split(b"\n")[1:]
    late = Follower(c, path + "/log", f"?follow=true&offset={len(before)}")
    gate.open("seen")
    whole = f.end()
    kept = log_of(c, path)
    assert kept == whole == before + late.end()
    assert kept.decode() == f"$ {install}\none\ntwo\nthree\n$ echo checked\nchecked\n"
    v = c.call("GET", path).json
    assert (v["status"], v["serving"]) == ("ready", True)
    assert v == c.call("GET", "/v1/agents/slow/versions").json["data"][0]
    assert c.call("GET", "/v1/agents/slow").json["latest_build"]["log"] == kept.decode()
    for offset in (1, len(kept) - 1, len(kept)):
        assert log_of(c, path, f"?offset={offset}") == kept[offset:]
    assert Follower(c, path + "/log").end() == kept  # of one that has ended
    beyond = c.call("GET", f"{path}/log?offset={len(kept) + 1}")
    assert (beyond.status, f"{len(kept)} bytes" in beyond.json["detail"]) == (416, True)
    head = c.call("HEAD", path + "/log?follow=true")
    assert (head.status, head.body) == (200, b"")


def test_a_failing_build_and_what_does_not_exist(own):
    c = own.client
    path = send(c, "failing", "echo before; echo no network >&2; exit 7")
    f = Follower(c, path + "/log")
    assert ended(c, path)["error"]["code"] == "build_failed"
    assert log_of(c, path) == f.end() and {b"before", b"no network"} <= set(f.seen.splitlines())
    other = type(c)(c.port, own.new_key("other"))
    for p in (path, path + "/log", path + "/log?follow=true"):
        assert other.call("GET", p).status == 404
    for p in ("/v1/agents/failing/versions/2", "/v1/agents/failing/versions/x", "/v1/agents/failing/versions/01",
              "/v1/agents/nobody/versions/1"):
        assert (c.call("GET", p).status, c.call("GET", p + "/log").status) == (404, 404), p
    for query in ("?follow=perhaps", "?offset=-1", "?offset=x", "?offst=1"):
        assert c.call("GET", path + "/log" + query).status == 400


WORDS = r"""
import os, sys, urllib.request
os.write(1, b"\x1b[31mred\x1b[0m \xc3\xa9\n\xe2\x82")
urllib.request.urlopen(sys.argv[1])
os.write(1, b"\xac \xff\x00\r\n")
os.write(2, b"\xf0\x9f")
os.write(1, b"end\n")
"""


def test_text_is_kept_as_it_is_and_a_character_in_pieces_stays_whole(own, gate):
    """Control characters, too: what a log may do to a terminal is the terminal's side's business."""
    c = own.client
    path = send(c, "text", f"python3 words.py {gate.url('half')}", {"words.py": WORDS})
    f = Follower(c, path + "/log")
    f.sees("\x1b[31mred\x1b[0m é\n".encode())
    gate.open("half")
    text = f.end().decode()
    assert text.split("\n", 1)[1] == "\x1b[31mred\x1b[0m é\n€ \ufffd\ufffd\r\nend\n\ufffd\ufffd"
    assert log_of(c, path).decode() == text == c.call("GET", "/v1/agents/text").json["latest_build"]["log"]


def test_a_log_over_its_bound_keeps_its_beginning_and_its_end(own):
    c = own.client
    path = send(c, "large", "python3 -c 'for i in range(100000): print(i, \"x\" * 60)'; echo the error >&2; exit 3")
    ended(c, path)
    kept = log_of(c, path)
    cut = re.search(rb"\n-- (\d+) bytes are left out here: of a log the first 4 MiB are kept, and its end\n", kept)
    head, tail = kept[:cut.start()], kept[cut.end():]
    assert len(head) == 4 * MIB and 60 * 1024 < len(tail) <= 64 * 1024
    lines = "".join(f"{i} {'x' * 60}\n" for i in range(100000)).encode()
    written = head[:head.index(b"\n") + 1] + lines + b"the error\n"
    assert written.startswith(head) and written.endswith(tail) and tail.startswith(tail.split(b" ")[0] + b" xxx")
    assert len(written) == len(head) + int(cut[1]) + len(tail)
    assert c.call("GET", "/v1/agents/large").json["latest_build"]["log"].endswith("the error\n")
    assert own.count("select length(build_log) from agent_versions v join agents a on a.id = agent where slug = 'large'") == 64 * 1024
    assert Follower(c, path + "/log", "?offset=4000000").end() == kept[4000000:]


def test_a_log_just_over_its_bound_is_whole(own):
    c = own.client
    path = send(c, "fitting", f"head -c {4 * MIB + 30000} /dev/zero | tr '\\0' x; echo; echo end")
    ended(c, path)
    kept = log_of(c, path)
    assert kept.split(b"\n", 1)[1] == b"x" * (4 * MIB + 30000) + b"\nend\n"


def test_a_slow_reader_is_behind_and_loses_nothing(own, gate):
    """It takes nothing while 4 MiB are written, more than there is room for on the way; the build does not wait for it."""
    c = own.client
    path = send(c, "loud", f"echo begun; {gate.wait('loud')}; head -c 4190000 /dev/zero | tr '\\0' y; echo; echo end")
    s = socket.socket()
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # so that the kernel holds little of it
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.settimeout(60)
    s.connect(("127.0.0.1", c.port))
    s.sendall(f"GET {path}/log?follow=true HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer {c.key}\r\n\r\n".encode())
    got = b""
    while b"begun\n" not in got:
        got += s.recv(100)
    gate.open("loud")
    assert ended(c, path)["status"] == "ready"
    while piece := s.recv(65536):
        got += piece
    s.close()
    assert got.split(b"\r\n\r\n", 1)[1] == log_of(c, path)


def test_followers_are_bounded_and_those_who_hang_up_are_not_counted(own, gate):
    c = own.client
    path = send(c, "crowd", f"echo begun; {gate.wait('crowd')}; echo end")
    crowd = [Follower(c, path + "/log") for _ in range(256)]
    for f in crowd:
        f.sees(b"begun\n")
    assert c.call("GET", path + "/log?follow=true").status == 503
    assert log_of(c, path).endswith(b"begun\n")  # whoever does not wait is served
    for f in crowd[1:]:
        f.hang_up()

    def again():
        f = Follower(c, path + "/log")
        until("it is answered", lambda: f.status)
        return f.status == 200 and f

    late = until("there is room", again)
    gate.open("crowd")
    assert crowd[0].end() == late.end() == log_of(c, path)


def test_a_build_that_is_tried_again_says_why(own, gate):
    c, install = own.client, f"echo begun; {gate.wait('again')}; echo end"
    path = send(c, "again", install)
    f = Follower(c, path + "/log")
    f.sees(b"begun\n")
    for s in own.sandboxes():
        own.destroy(s["sandboxID"])
    f.sees(b"; the build will be tried again\n")
    gate.open("again")
    text = f.end().decode()
    assert ended(c, path)["status"] == "ready" and log_of(c, path).decode() == text
    first = f"$ {install}\nbegun\n"
    assert re.fullmatch(re.escape(first) + r"-- [^\n]+; the build will be tried again\n" + re.escape(first + "end\n"), text), text


@pytest.fixture
def breakable(gate):
    stacks = []

    def start(**kw):
        stacks.append(Stack(**kw).start())
        return stacks[-1]

    yield start
    for s in stacks:
        s.stop()


AGAIN = "-- the executor that built this is gone; the build begins again\n"


def test_an_executor_that_dies_leaves_its_part_and_another_goes_on(breakable, gate):
    s = breakable()
    c, install = s.client, f"echo begun; {gate.wait('death')}; echo end"
    path = send(c, "dies", install)
    f = Follower(c, path + "/log")
    f.sees(b"begun\n")
    s.executors[0].kill()
    s.add_executor()
    f.sees(AGAIN.encode() + f"$ {install}\nbegun\n".encode())
    gate.open("death")
    assert f.end().decode() == f"$ {install}\nbegun\n{AGAIN}$ {install}\nbegun\nend\n" == log_of(c, path).decode()
    assert c.call("GET", path).json["status"] == "ready"
    s.quiet()


def test_an_executor_that_was_frozen_writes_no_more(breakable, gate):
    """It wakes with output of its sandbox unread, and with the build decided by another."""
    s = breakable()
    c, install = s.client, f"echo begun; {gate.wait('frozen')}; echo end; exit $(cat /tmp/status 2>/dev/null || echo 0)"
    path = send(c, "frozen", install)
    f = Follower(c, path + "/log")
    f.sees(b"begun\n")
    s.executors[0].signal(signal.SIGSTOP)
    gate.open("frozen")
    s.add_executor()
    whole = f.end().decode()
    assert whole == f"$ {install}\nbegun\n{AGAIN}$ {install}\nbegun\nend\n"
    built = c.call("GET", path).json
    assert built["status"] == "ready"
    s.executors[0].signal(signal.SIGCONT)
    assert s.executors[0].stop(60) == 0  # it is through with everything
    assert log_of(c, path).decode() == whole and c.call("GET", path).json == built
    s.quiet()


def test_a_gateway_that_stops_lets_its_followers_go_and_another_goes_on(breakable, gate):
    s = breakable()
    c, install = s.client, f"echo begun; {gate.wait('stops')}; echo end"
    path = send(c, "stops", install)
    f = Follower(c, path + "/log")
    f.sees(b"begun\n")
    s.gateways[0].signal(signal.SIGTERM)
    seen = f.end(10)
    s.gateways[0].child.wait(timeout=10)
    s.add_gateway()
    c = type(c)(s.gateways[1].port, c.key)
    assert c.call("GET", path).json["status"] == "building"
    rest = Follower(c, path + "/log", f"?follow=true&offset={len(seen)}")
    gate.open("stops")
    assert (seen + rest.end()).decode() == f"$ {install}\nbegun\nend\n" == log_of(c, path).decode()


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_the_build_goes_on_without_postgresql_and_its_log_is_whole(breakable, gate, lost):
    """A piece whose request is lost is stored by the second, one whose answer is lost is stored once."""
    s = breakable(via={"executor": ["postgres"]})
    c = s.client
    install = f"echo begun; {gate.wait('away-' + lost)}; seq 1 20000; echo end"
    path = send(c, "away", install)
    f = Follower(c, path + "/log")
    f.sees(b"begun\n")
    proxy = s.proxies["executor", "postgres"]
    proxy.hold(UP if lost == "request" else DOWN)
    gate.open("away-" + lost)
    until("its sandbox has gone: the build waits for its log alone", lambda: not s.sandboxes(), 60)
    stored = s.count("select bytes from build_logs") > len(f"$ {install}\nbegun\n")
    assert stored == (lost == "answer")
    proxy.refuse()
    proxy.reset()
    until("nothing is connected", lambda: proxy.open == 0)
    proxy.heal()
    text = f.end().decode()
    assert text == f"$ {install}\nbegun\n" + "".join(f"{i}\n" for i in range(1, 20001)) + "end\n" == log_of(c, path).decode()
    assert c.call("GET", path).json["status"] == "ready"
