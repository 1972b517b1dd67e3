"""Webhooks: how soon a receiver hears of an end while jobs run, and how fast a backlog of deliveries is worked off."""

import contextlib
import http.client
import json
import shutil
import subprocess

from bench_stack import AGENT, PROMPT, bench_stack
from harness import HERE, Cpu, Missing, median, pause, say, wrk
from stack import until

BODY = json.dumps({"agent": AGENT, "prompt": PROMPT})
CALLERS, SECONDS, ROUNDS, BACKLOG = 16, 5, 3, 20000
OPEN = {"SANDPIPER_WEBHOOK_ALLOW_ADDRESSES": "127.0.0.0/8", "SANDPIPER_WEBHOOK_PORTS": "1-65535"}


@contextlib.contextmanager
def receiver():
    if shutil.which("node") is None:
        raise Missing("node is not installed: there is no receiver")
    p = subprocess.Popen(["node", "--no-warnings", HERE / "receiver.mjs"], stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, text=True)
    try:
        p.port = int(p.stdout.readline())
        yield p
    finally:
        p.kill()
        p.wait()


def told(r):
    """What came since the last look."""
    c = http.client.HTTPConnection("127.0.0.1", r.port, timeout=30)
    c.request("GET", "/")
    f = json.loads(c.getresponse().read())
    c.close()
    return f


def settled(stack, seconds=120):
    until("the outbox is empty", lambda: stack.count("select count(*) from outbox") == 0, seconds, 0.1)


def while_jobs_run(stack, r, callers, seconds):
    """Every job's end must have come, once."""
    told(r)
    f = wrk(stack.gateways[0].port, "/v1/invocations", dict(stack.headers, Prefer="wait=60"), BODY, callers, seconds)
    settled(stack)
    got = told(r)
    if got["distinct"] < f["requests"] or got["count"] != got["distinct"]:
        raise RuntimeError(f"{f['requests']} jobs were answered; {got['count']} webhooks came, {got['distinct']} of them distinct")
    return dict(got, per_second=f["per_second"])


def backlog(stack, r, endpoint, since):
    """The same events again, queued as fast as a replay does it."""
    told(r)
    queued, after = 0, since
    while after is not None:
        a = stack.client.call("POST", f"/v1/webhooks/{endpoint}/replay", {"since": after, "only": "all"}).json
        queued, after = queued + a["queued"], a["next_after"]
    settled(stack)
    got = told(r)
    if got["distinct"] != queued:
        raise RuntimeError(f"{queued} deliveries were queued, {got['distinct']} came")
    return dict(got, per_second=got["count"] / got["seconds"])


def plain_cost(stack, figures):
    """The same jobs of a tenant without webhooks, before there are any: what the outbox costs those who do not use it."""
    f = [wrk(stack.gateways[0].port, "/v1/invocations", dict(stack.headers, Prefer="wait=60"), BODY, CALLERS, SECONDS)
         for _ in range(ROUNDS)]
    figures.row(f"{CALLERS} callers, nobody is told", median(f)["per_second"])


def measure(stack, r, figures):
    a = stack.client.call("POST", "/v1/webhooks", {"url": f"http://127.0.0.1:{r.port}/"})
    assert a.status == 201, a.body
    endpoint = a.json["id"]
    while_jobs_run(stack, r, CALLERS, 1)
    runs = []
    for i in range(ROUNDS):
        say(f"webhooks: round {i + 1} of {ROUNDS}")
        runs.append(while_jobs_run(stack, r, CALLERS, SECONDS))
        pause(0.5)
    one = median(runs)
    figures.row(f"{CALLERS} callers, each end told", one["per_second"])
    figures.row("  job's end to first attempt, p50", one["p50_ms"], unit="ms")
    figures.row("  job's end to first attempt, p99", one["p99_ms"], unit="ms", at_most=20)
    say("webhooks: one caller")
    alone = while_jobs_run(stack, r, 1, SECONDS)
    figures.row("one caller: job's end to first attempt, p50", alone["p50_ms"], unit="ms")
    figures.row("  p99", alone["p99_ms"], unit="ms", at_most=20)
    since = stack.psql("select to_char(now() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')")
    pause(1)
    say("webhooks: backlog")
    items = [{"agent": AGENT, "prompt": "x"}] * BACKLOG
    assert stack.client.call("POST", "/v1/batches", {"items": items}).status == 202
    until("the batch has ended", lambda: stack.count("select count(*) from batches where ended_at is null") == 0, 180, 0.2)
    settled(stack)
    pids = {"dispatcher": [stack.dispatchers[0].pid], "postgres": [stack.postgres.pid], "receiver": [r.pid]}
    drained = []
    for _ in range(ROUNDS):
        cpu = Cpu(**pids)
        with cpu:
            f = backlog(stack, r, endpoint, since)
        drained.append(dict(f, cpu=cpu))
        pause(1)
    best = median(drained)
    figures.row(f"deliveries of a backlog of {best['count']:,}", best["per_second"], at_least=5000)
    figures.share("webhooks, backlog", best["cpu"], best["count"])


def run(figures):
    with bench_stack(**OPEN) as s:
        wrk(s.gateways[0].port, "/v1/invocations", dict(s.headers, Prefer="wait=60"), BODY, CALLERS, 1)
        plain_cost(s, figures)
        try:
            with receiver() as r:
                measure(s, r, figures)
        except Missing as e:
            figures.absent("webhooks", str(e))
    figures.note("webhooks: one dispatcher, one receiver (a process of Node.js) on the same machine. An end's time is taken before "
                 "its commit, so the commit is in the figures.")
