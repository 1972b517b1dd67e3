"""Durable single submissions over HTTP against Fastify with BullMQ's queue.add, which has no fsync.

No executor runs: jobs beyond the tenant's window stay in PostgreSQL, as in life under a flood."""

import contextlib
import json

from bench_stack import AGENT, PROMPT, bench_stack
from harness import Cpu, Missing, median, node, pause, say, wrk

CONNECTIONS, SECONDS, ROUNDS = 64, 4, 3
BODY = json.dumps({"agent": AGENT, "prompt": PROMPT})


def ours(stack, port, *meters):
    """One round; every 202 must be a row."""
    pause(0.3)  # what an earlier run left under way
    before = stack.count("select count(*) from invocations")
    with contextlib.ExitStack() as measured:
        for m in meters:
            measured.enter_context(m)
        f = wrk(port, "/v1/invocations", stack.headers, BODY, CONNECTIONS, SECONDS)
    pause(0.3)
    rows = stack.count("select count(*) from invocations") - before
    # wrk hangs up on what is under way when its time is over: committed, but not counted by it
    if not f["requests"] <= rows <= f["requests"] + CONNECTIONS:
        raise RuntimeError(f"{f['requests']} answers of 202, {rows} rows")
    return f


def run(figures):
    with bench_stack() as s:
        for executor in list(s.executors):
            s.end(executor)
        mine, theirs, peer_cpu, peer_jobs = [], [], None, 0
        gateway = s.gateways[0]
        wrk(gateway.port, "/v1/invocations", s.headers, BODY, CONNECTIONS, 1)
        cpu = Cpu(gateway=[gateway.pid], postgres=[s.postgres.pid], redis=[s.redis.pid],
                  dispatcher=[s.dispatchers[0].pid])
        total, spent = 0, {}
        for i in range(ROUNDS):
            say(f"submit: round {i + 1} of {ROUNDS}")
            mine.append(ours(s, gateway.port, cpu))
            total += mine[-1]["requests"]
            spent = {k: spent.get(k, 0) + v for k, v in cpu.spent.items()}
            pause(0.5)
            try:
                with node("submit.js", s.dir / "redis.sock") as (p, line):
                    port = int(line.split()[1])
                    wrk(port, "/jobs", {}, BODY, CONNECTIONS, 1)
                    peer_cpu = Cpu(node=[p.pid], redis=[s.redis.pid])
                    with peer_cpu:
                        theirs.append(wrk(port, "/jobs", {}, BODY, CONNECTIONS, SECONDS))
                    peer_jobs = theirs[-1]["requests"]
            except Missing as e:
                figures.note(f"no peer: {e}")
            pause(0.5)
        cpu.spent = spent
        say("submit: two gateways")
        s.end(gateway)
        first = s.add_gateway(SANDPIPER_GATEWAY_REUSE_PORT="true")
        s.twin_gateway(first, SANDPIPER_GATEWAY_REUSE_PORT="true")
        wrk(first.port, "/v1/invocations", s.headers, BODY, CONNECTIONS, 1)
        two = ours(s, first.port)
        one, peer = median(mine), median(theirs)["per_second"] if theirs else None
        what = f"durable submissions, {CONNECTIONS} connections"
        figures.row(f"{what}, 1 gateway", one["per_second"], peer, ratio_of=3)
        figures.row(f"{what}, 2 gateways", two["per_second"], peer, ratio_of=3)
        figures.row("  p50 of one, 1 gateway", one["p50_ms"], median(theirs)["p50_ms"] if theirs else None, unit="ms")
        figures.row("  p99 of one, 1 gateway", one["p99_ms"], median(theirs)["p99_ms"] if theirs else None, unit="ms")
        figures.share("submit, ours", cpu, total)
        if peer_cpu:
            figures.share("submit, Fastify + BullMQ", peer_cpu, peer_jobs)
        figures.note("submissions: peer is Fastify + BullMQ queue.add in one process, the same Redis, no fsync; ours "
                     "are committed with fsync in PostgreSQL (defaults) before the 202; rows were counted.")
