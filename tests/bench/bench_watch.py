"""Callers that wait and callers that stream, thousands on one gateway: what each costs it in memory, and how long after
the commit each is told."""

import contextlib
import json
import pathlib
import random
import resource
import subprocess
import sys
import time

from bench_stack import AGENT, BenchStack
from harness import HERE, Cpu, say
from stack import in_threads, until

WAITING, STREAMING = 10_000, 5_000
BEFORE_S, ENDING_S = 90, 60  # all run by then; then they end, evenly
BYTES_MOST, TOLD_MS_MOST = 8 * 1024, 5


class WatchStack(BenchStack):
    """PostgreSQL keeps the moment of each commit."""

    def start_postgres(self):
        super().start_postgres()
        if self.psql("show track_commit_timestamp", check=False) == "off":
            self.psql("alter system set track_commit_timestamp = on", check=False)
            self.postgres.stop()
            super().start_postgres()


def resident(process):
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS")


def settled(process):
    """Bytes, once they have stayed the same for a second: what idles has idled."""
    seen = []

    def steady():
        seen.append(resident(process))
        return len(seen) > 4 and max(seen[-5:]) - min(seen[-5:]) < 65536

    until("the gateway's memory stays as it is", steady, 20, 0.25)
    return seen[-1]


def submit_all(stack, n):
    """Jobs that end from BEFORE_S from now on, one after the other. By another gateway than the one that is measured."""
    began, r = time.monotonic(), random.Random(3)

    def submit():
        left = BEFORE_S - (time.monotonic() - began) + r.uniform(0, ENDING_S)
        order = {"sim": {"run_ms": max(1, int(left * 1000)), "output": "ok\n"}}
        a = stack.client.submit(AGENT, json.dumps(order), timeout_s=600)
        assert a.status == 202, a.body
        return a.json["id"]

    ids = in_threads([submit] * n, 16)
    until("all run", lambda: stack.stats()["programs_running"] == n, 120, 0.5)
    if time.monotonic() - began > BEFORE_S - 20:
        raise RuntimeError("the machine is too slow for this: jobs end before all callers are there")
    return ids, began


def told_after_ms(stack, told):
    """By id, from the commit of its result to its caller's reading it."""
    rows = stack.psql("select 'inv_' || id || ' ' || extract(epoch from pg_xact_commit_timestamp(xmin)) from results")
    commits = dict(line.split() for line in rows.splitlines())
    return {id: (t - float(commits[id])) * 1000 for id, t in told.items()}


def quantile(values, q):
    return sorted(values)[min(len(values) - 1, int(len(values) * q))]


@contextlib.contextmanager
def callers(port, key):
    p = subprocess.Popen([sys.executable, str(HERE / "watch_client.py"), str(port), key], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True)
    try:
        yield p
    finally:
        p.kill()
        p.wait()


def connect(p, kind, ids):
    p.stdin.write("".join(f"{kind} {id}\n" for id in ids) + "go\n")
    p.stdin.flush()
    answer = json.loads(p.stdout.readline())
    if answer["not_begun"]:
        raise RuntimeError(f"streams did not begin: {answer}")
    return answer["open"]


def add_gateway(stack):
    return stack.add_gateway(SANDPIPER_GATEWAY_MAX_CONNECTIONS="16000", SANDPIPER_GATEWAY_MAX_STREAMS="6000")


def streams_alone(stack, streaming):
    """Bytes a stream, on a gateway that has nothing else: beside others they would use memory that those have left."""
    gateway = add_gateway(stack)
    before = resident(gateway)
    with callers(gateway.port, stack.key) as p:
        connect(p, "stream", streaming)
        each = (settled(gateway) - before) / len(streaming)
    stack.end(gateway)
    return each


def measure(stack, figures):
    ids, began = submit_all(stack, WAITING + STREAMING)
    waiting, streaming = ids[:WAITING], ids[WAITING:]
    say("watch: connecting")
    memory = [streams_alone(stack, streaming)]
    gateway = add_gateway(stack)
    with callers(gateway.port, stack.key) as p:
        before = resident(gateway)
        connect(p, "wait", waiting)
        memory.append((settled(gateway) - before) / WAITING)
        open_now = connect(p, "stream", streaming)
        memory.append((settled(gateway) - before) / len(ids))
        if open_now != WAITING + STREAMING:
            raise RuntimeError(f"{open_now} callers are there, not {WAITING + STREAMING}")
        left = BEFORE_S - (time.monotonic() - began)
        if left < 2:
            raise RuntimeError("jobs ended before all callers were there")
        idle = Cpu(gateway=[gateway.pid], redis=[stack.redis.pid], executor=[stack.executors[-1].pid])
        with idle:
            time.sleep(min(5, left - 1))
        say("watch: they end")
        p.stdin.close()
        end = json.loads(p.stdout.readline())
    if end["failed"] or end["left"] or len(end["told"]) != len(ids):
        raise RuntimeError(f"{len(end['told'])} of {len(ids)} were told, {len(end['failed'])} connections broke, "
                           f"{end['left']} still wait; {stack.count('select count(*) from results')} have ended, "
                           f"{stack.count('select count(*) from attempts')} were begun again")
    after = told_after_ms(stack, end["told"])
    report(figures, memory, {"waiting": [after[i] for i in waiting], "streaming": [after[i] for i in streaming]})
    figures.note("watch: CPU while nothing happens, % of a core: " +
                 ", ".join(f"{k} {v / min(5, left - 1) * 100:.1f}" for k, v in idle.spent.items() if k != "load generator"))


def report(figures, memory, after):
    whats = (f"memory a streaming caller, {STREAMING:,} alone", f"memory a waiting caller, {WAITING:,} of them",
             "memory a caller, all together")
    for what, each in zip(whats, memory):
        figures.row(what, each, unit="bytes", at_most=BYTES_MOST)
    for kind, values in after.items():
        figures.row(f"{kind}: told after the commit, p50", quantile(values, 0.5), unit="ms")
        figures.row(f"{kind}: told after the commit, p99", quantile(values, 0.99), unit="ms", at_most=TOLD_MS_MOST)
    figures.note(f"watch: {WAITING + STREAMING:,} jobs ended within {ENDING_S} s, each watched by one caller. The commit's moment is "
                 "PostgreSQL's, taken before it syncs; the caller's is when its process has read the answer.")


def run(figures):
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < WAITING + STREAMING + 2000:
        figures.absent("watch", "raise the limit on open files (ulimit -Hn)")
        return
    stack = WatchStack()
    try:
        stack.start()
        stack.end(stack.executors[0])
        stack.add_executor(SANDPIPER_EXECUTOR_JOBS=str(WAITING + STREAMING + 100))
        measure(stack, figures)
    finally:
        stack.stop()
