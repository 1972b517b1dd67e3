"""What 5,000 slow clients cost a healthy one: its submissions and reads before and during each attack.

slowhttptest sends slow heads, slow bodies, ranges and slow reads; slow_bodies.py adds slow bodies with a valid key, which
get past authentication. The healthy client is one, its requests one after another, every tenth on a new connection.

Attackers have machines of their own. Here they get a core of their own, the last, and their end of the network with it
(apart.py); gateway, databases and the healthy client share the others, before the attack as during it. Beside one another
they would measure how long the kernel looks through the attacker's 5,000 descriptors without giving the core away."""

import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time

from apart import apart
from bench_stack import AGENT, PROMPT, bench_stack
from harness import HERE, pause, say
from stack import until

SLOW, SECONDS, ROUNDS = 5000, 5, 3
CORES = sorted(os.sched_getaffinity(0))
MODES = [
    ("slow heads", ["-H", "-i", "3", "-x", "24", "-u", "/v1/invocations"]),
    ("slow bodies", ["-B", "-i", "3", "-s", "65536", "-x", "24", "-u", "/v1/invocations"]),
    ("ranges", ["-R", "-a", "5", "-b", "2000", "-u", "/metrics"]),
    ("slow reads", ["-X", "-w", "10", "-y", "20", "-n", "5", "-z", "5", "-k", "3", "-u", "/metrics"]),
]


class Healthy:
    def __init__(self, port, key):
        self.port, self.count = port, 0
        self.key = f"Authorization: Bearer {key}\r\n"
        body = json.dumps({"agent": AGENT, "prompt": PROMPT})
        self.post = (f"POST /v1/invocations HTTP/1.1\r\nHost: x\r\n{self.key}Content-Type: application/json\r\n"
                     f"Content-Length: {len(body)}\r\n\r\n{body}").encode()
        self.socket = None

    def ask(self, data):
        """One exchange: seconds, status, body. A connection that was closed is made again once, which counts."""
        begun = time.perf_counter()
        for last in (False, True):
            try:
                if self.socket is None:
                    self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=30)
                    self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.socket.sendall(data)
                got = self.socket.recv(65536)
                while b"\r\n\r\n" not in got:
                    piece = self.socket.recv(65536)
                    if not piece:
                        raise ConnectionResetError
                    got += piece
                head, _, body = got.partition(b"\r\n\r\n")
                length = int(re.search(rb"Content-Length: (\d+)", head)[1])
                while len(body) < length:
                    body += self.socket.recv(65536)
                return time.perf_counter() - begun, int(head[9:12]), body
            except OSError:
                self.socket = None
                if last:
                    raise

    def measure(self, seconds):
        """Latencies in ms of submissions and reads."""
        posts, gets, end = [], [], time.monotonic() + seconds
        while time.monotonic() < end:
            self.count += 1
            if self.count % 10 == 0 and self.socket is not None:
                self.socket.close()
                self.socket = None
            t, status, body = self.ask(self.post)
            if status != 202:
                raise RuntimeError(f"a healthy submission got {status}: {body[:200]}")
            posts.append(t * 1000)
            id = json.loads(body)["id"]
            t, status, body = self.ask(f"GET /v1/invocations/{id} HTTP/1.1\r\nHost: x\r\n{self.key}\r\n".encode())
            if status != 200:
                raise RuntimeError(f"a healthy read got {status}: {body[:200]}")
            gets.append(t * 1000)
        return posts, gets


def at(values, part):
    return sorted(values)[int(len(values) * part)]


def connections(stack):
    text = stack.client.call("GET", "/metrics", key=False).body.decode()
    return int(float(re.search(r"^sandpiper_http_connections (\S+)", text, re.M)[1]))


@contextlib.contextmanager
def ended(argv, **kw):
    p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, {CORES[-1]}), **kw)
    try:
        yield p
    finally:
        p.kill()
        p.wait()


@contextlib.contextmanager
def attack(stack, gateway, options, far):
    """slowhttptest (or our own client) at work, all its connections made or its ramp over."""
    if options is None:
        argv = [*far.prefix, sys.executable, HERE / "slow_bodies.py", far.address, str(gateway.port), stack.key, str(SLOW)]
        with ended(argv, stdout=subprocess.PIPE, text=True) as p:
            p.stdout.readline()
            yield
        return
    *options, path = options
    argv = [*far.prefix, "slowhttptest", "-c", str(SLOW), "-r", "2500", "-l", "60", "-p", "5", *options,
            f"http://{far.address}:{gateway.port}{path}"]
    with ended(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as p:
        end = time.monotonic() + 8  # heads live for 10 s; those that are answered at once never add up
        while connections(stack) < 0.9 * SLOW and time.monotonic() < end and p.poll() is None:
            pause(0.1)
        yield


def run(figures):
    modes = MODES if shutil.which("slowhttptest") else []
    if not modes:
        figures.note("slowhttptest is not installed (Debian package slowhttptest): its modes are left out")
    rest = CORES[:-1] or CORES
    os.sched_setaffinity(0, set(rest))  # and all that is started from here
    try:
        with apart(CORES[-1:], rest, figures.note) as far:
            attacked(figures, modes, far)
    finally:
        os.sched_setaffinity(0, set(CORES))


def one_round(s, gateway, healthy, options, far):
    """Before and during one attack: the percentiles of each, and how many connections the attack held."""
    before = healthy.measure(SECONDS)
    with attack(s, gateway, options, far):
        held = connections(s)
        during = healthy.measure(SECONDS)
        held = (held, connections(s))
    until("the slow clients are gone", lambda: connections(s) < 100, 90)
    return before, during, held


def tell(figures, name, rounds):
    """The median of the rounds, each figure by itself."""
    for i, what in enumerate(("submission", "read")):
        for label, part in (("p50", 0.5), ("p99", 0.99)):
            before = statistics.median(at(r[0][i], part) for r in rounds)
            during = statistics.median(at(r[1][i], part) for r in rounds)
            figures.row(f"{name}: {what}, {label}", during, before, unit="ms", ratio_at_most=2 if label == "p99" else None)
    held = sorted(n for r in rounds for n in r[2])
    figures.note(f"{name}: {held[0]:,} to {held[-1]:,} connections; {sum(len(r[0][0]) for r in rounds):,} submissions before, "
                 f"{sum(len(r[1][0]) for r in rounds):,} during")


def attacked(figures, modes, far):
    with bench_stack() as s:
        for process in s.executors + s.gateways:
            s.end(process)
        gateway = s.add_gateway(host="0.0.0.0" if far.prefix else "127.0.0.1")
        healthy = Healthy(gateway.port, s.key)
        healthy.measure(2)
        for name, options in modes + [("slow bodies with a key", None)]:
            rounds = []
            for n in range(ROUNDS):
                say(f"slow: {name}, round {n + 1} of {ROUNDS}")
                rounds.append(one_round(s, gateway, healthy, options, far))
            tell(figures, name, rounds)
    figures.note("slow: the column of the peer is the same client before the attack; one client, one request at a time.")
