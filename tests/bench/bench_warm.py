"""A warm pool of ten at fifty invocations a second, on real sandboxes: from the claim to the program's start, next to the same
load without a pool. The sandbox host's log tells whether one was ever used twice."""

import http.client
import json
import os
import threading
import time

from harness import say
from stack import Stack, free_port, until

POOL, RATE, SECONDS, CALLERS = 10, 50, 20, 25


def metrics(port):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    c.request("GET", "/metrics")
    text = c.getresponse().read().decode()
    c.close()
    rows = [line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in rows}


def load(stack, agent):
    """RATE jobs a second, whatever they take; the milliseconds from claim to start of each."""
    due, lock, starts, wrong = iter(range(RATE * SECONDS)), threading.Lock(), [], []
    began = time.monotonic()

    def caller():
        while not wrong:
            with lock:
                n = next(due, None)
            if n is None:
                return
            time.sleep(max(0.0, began + n / RATE - time.monotonic()))
            r = stack.client.submit(agent, "x", wait=60).json
            if r["status"] != "succeeded":
                wrong.append(r)
            starts.append(r["usage"]["sandbox_start_ms"])

    threads = [threading.Thread(target=caller) for _ in range(CALLERS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if wrong:
        raise RuntimeError(f"a job ended otherwise: {wrong[0]}")
    return sorted(starts), RATE * SECONDS / (time.monotonic() - began)


def used_twice(stack, warm):
    """Of the sandboxes made for jobs, those in which more than one program was started, by the host's log."""
    snapshots, ended = {}, {}
    for line in stack.sandboxd.text().splitlines():
        row = json.loads(line)
        if row["msg"] == "sandbox started":
            snapshots[row["sandbox"]] = row["template"]
        elif row["msg"] == "sandbox ended":
            ended[row["sandbox"]] = row["programs"]
    jobs = [n for box, n in ended.items() if snapshots[box] != "base"]
    return len(jobs), sum(n > 1 for n in jobs)


def run(figures):
    if os.geteuid() != 0:
        figures.absent("warm", "sandboxes need root")
        return
    port = free_port()
    s = Stack()
    try:
        s.start(executors=0)
        s.add_executor(SANDPIPER_EXECUTOR_LISTEN=f"127.0.0.1:{port}")
        s.client.deploy("echo", {"agent.json": '{"runtime": "command", "entry": "cat"}'})
        say("warm: without a pool")
        cold, cold_rate = load(s, "echo")
        s.psql(f"update agent_versions set warm_min = {POOL}, warm_max = {POOL}")
        until("the pool is full", lambda: metrics(port)["sandpiper_warm_sandboxes"] == POOL, 60)
        say("warm: with a pool")
        warm, warm_rate = load(s, "echo")
        m = metrics(port)
        s.psql("update agent_versions set warm_min = 0, warm_max = 0")
        until("they are gone", lambda: not s.sandboxes(), 60)
        boxes, twice = used_twice(s, warm)
    finally:
        s.stop()

    def at(values, share):
        return values[min(len(values) - 1, int(len(values) * share))]

    figures.row(f"warm pool of {POOL}, {RATE}/s: start p50", at(warm, 0.5), unit="ms", at_most=5)
    figures.row("  p99", at(warm, 0.99), unit="ms")
    figures.row("  without a pool: p50", at(cold, 0.5), unit="ms")
    figures.row("  p99", at(cold, 0.99), unit="ms")
    figures.row("  rate kept", warm_rate)
    figures.row("  sandboxes used twice", twice, unit="", at_most=0)
    figures.note(f"warm: {m['sandpiper_warm_hits_total']:.0f} hits, {m['sandpiper_warm_misses_total']:.0f} misses; "
                 f"{m['sandpiper_warm_idle_seconds_total']:.0f} sandbox-seconds of waiting; {boxes} sandboxes in the host's log; "
                 f"{cold_rate:.0f}/s without")
