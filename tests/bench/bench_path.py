"""The whole path with a sandbox that takes no time: submit, stream, run, result row, caller told; next to BullMQ's
add-and-wait, which has no HTTP, no database, no fsync and no sandbox calls."""

import contextlib
import json

from bench_stack import AGENT, PROMPT, bench_stack
from harness import Cpu, Missing, RedisWork, median, node, pause, say, wrk

WAITERS, SECONDS, ROUNDS = 256, 5, 3
BODY = json.dumps({"agent": AGENT, "prompt": PROMPT})
BULLMQ_CONCURRENCY = 256


def ours(stack, connections, seconds, *meters):
    """Every answer must be the finished record, and every record a result with its usage."""
    counts = "select (select count(*) from results where status = 1) || ' ' || (select count(*) from usage)"
    before = [int(n) for n in stack.psql(counts).split()]
    with contextlib.ExitStack() as measured:
        for m in meters:
            measured.enter_context(m)
        f = wrk(stack.gateways[0].port, "/v1/invocations", dict(stack.headers, Prefer="wait=60"), BODY, connections,
                seconds)
    after = [int(n) for n in stack.psql(counts).split()]
    if any(a - b < f["requests"] for a, b in zip(after, before)):
        raise RuntimeError(f"{f['requests']} answers, but results and usage went from {before} to {after}")
    return f


def peer(stack, name, waiters, seconds):
    with node("worker.js", stack.dir / "redis.sock", name, BULLMQ_CONCURRENCY) as (worker, _):
        with node("wait.js", stack.dir / "redis.sock", name, waiters, seconds) as (waiter, _):
            cpu, redis = Cpu(worker=[worker.pid], waiter=[waiter.pid], redis=[stack.redis.pid]), RedisWork(stack)
            with cpu, redis:
                f = json.loads(waiter.stdout.readline())
    f["per_second"] = f["requests"] / f["seconds"]
    return f, cpu, redis


def direct_ms(stack):
    """What the sandbox service itself takes for one job: create and run, one after the other (no delete: callers do
    not wait for it)."""
    port, made = stack.sandboxd_port, '{"templateID":"base","timeout":60}'
    box = json.loads(stack.sim_call("POST", "/v2/sandboxes", json.loads(made))[2])
    program = json.dumps({"process": {"cmd": "/bin/sh", "args": ["-c", "cat", "agent", "arg", PROMPT]}})
    to_box = {"E2b-Sandbox-Id": box["sandboxID"], "X-Access-Token": box["envdAccessToken"]}
    return (wrk(port, "/v2/sandboxes", {}, made, 1, 1)["p50_ms"]
            + wrk(port, "/process.Process/Start", to_box, program, 1, 1, frame=True)["p50_ms"])


def run(figures):
    with bench_stack() as s:
        s.end(s.executors[0])
        s.add_executor(SANDPIPER_EXECUTOR_JOBS="512")
        pids = {"gateway": [s.gateways[0].pid], "executor": [s.executors[0].pid], "postgres": [s.postgres.pid],
                "redis": [s.redis.pid], "dispatcher": [s.dispatchers[0].pid], "simulated E2B": [s.sandboxd.pid]}
        ours(s, WAITERS, 1)
        mine, theirs, alone, peer_alone, theirs_alone = [], [], None, None, None
        for i in range(ROUNDS):
            say(f"path: round {i + 1} of {ROUNDS}")
            cpu, redis = Cpu(**pids), RedisWork(s)
            f = ours(s, WAITERS, SECONDS, cpu, redis)
            mine.append(dict(f, cpu=cpu, redis=redis))
            pause(0.5)
            try:
                f, cpu, redis = peer(s, f"bench-path-{i}", WAITERS, SECONDS)
                theirs.append(dict(f, cpu=cpu, redis=redis))
            except Missing as e:
                figures.note(f"no peer: {e}")
            pause(0.5)
        say("path: one caller")
        alone = ours(s, 1, 3)
        direct = direct_ms(s)
        if theirs:
            theirs_alone = peer(s, "bench-path-alone", 1, 3)[0]
        one, other = median(mine), median(theirs) if theirs else None
        figures.row(f"whole path, {WAITERS} waiting", one["per_second"], other and other["per_second"],
                    ratio_of=2.5)
        figures.row("  the same, against a simulated E2B", one["per_second"], at_least=8000)
        figures.row("  p50", one["p50_ms"], other and other["p50_ms"], unit="ms")
        figures.row("  p99", one["p99_ms"], other and other["p99_ms"], unit="ms")

        def a_job(f, what):
            return f and getattr(f["redis"], what) / f["requests"]

        figures.row("Redis CPU a job", a_job(one, "cpu_us"), a_job(other, "cpu_us"), "µs", at_most=12)
        figures.row("Redis commands a job, inside scripts too", a_job(one, "commands"), a_job(other, "commands"), "",
                    at_most=4)
        figures.row("Redis scripts a job", a_job(one, "scripts"), a_job(other, "scripts"), unit="")
        figures.row("one caller alone: p50", alone["p50_ms"], theirs_alone and theirs_alone["p50_ms"], unit="ms")
        figures.row("  overhead over the sandbox service, p50", alone["p50_ms"] - direct, unit="ms", at_most=1.5)
        figures.row("  overhead over the sandbox service, p99", alone["p99_ms"] - direct, unit="ms", at_most=5)
        figures.share("path, ours", one["cpu"], one["requests"])
        if other:
            figures.share("path, BullMQ", other["cpu"], other["requests"])
        calls = sorted(one["redis"].calls.items(), key=lambda c: -c[1][1])[:8]
        figures.note("path, Redis: " + ", ".join(f"{k} {n / one['requests']:.2f} calls {us / one['requests']:.1f} µs"
                                                 for k, (n, us) in calls) + " a job")
        figures.note("path: peer is BullMQ, one node process adds and waits, another works; no HTTP, no database, no "
                     "fsync, no sandbox calls. Ours: four HTTP calls to a sandbox service that takes no time.")
