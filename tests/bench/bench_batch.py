"""A batch of 100,000 NDJSON lines: accepted, next to COPY of the same rows; then run to its end against the simulated E2B.

The clock of the first runs from the first byte sent to the 202. COPY loads the very rows that the gateway made, from a file in
COPY's binary form, through psql, into the same tables with the same indexes. The rows are counted; so are the results."""

import http.client
import json
import pathlib
import subprocess
import threading
import time

from bench_stack import AGENT, bench_stack
from harness import Cpu, median, pause, say
from stack import PG_BIN, until

LINES, ROUNDS, PROMPT = 100_000, 3, "p" * 100
COLUMNS = ("id, agent, version, timeout_ms, queue_timeout_ms, priority, tenant, api_key, max_attempts, retry_on, batch, "
           "prompt_bytes, prompt, metadata, custom_id")


def body():
    return b"".join(b'{"custom_id":"item-%06d","agent":"%s","prompt":"%s"}\n' % (i, AGENT.encode(), PROMPT.encode())
                    for i in range(LINES))


class Memory:
    """The most memory of a process while it is watched, over what it had before, in MiB."""

    def __init__(self, pid):
        self.pid, self.stop = pid, threading.Event()

    def resident(self):
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1024
        return 0

    def __enter__(self):
        self.before = self.most = self.resident()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while not self.stop.wait(0.01):
            self.most = max(self.most, self.resident())

    def __exit__(self, *exc):
        self.stop.set()
        self.thread.join()
        self.grown = self.most - self.before


def submit(s, data):
    """The batch's id, and the seconds it took."""
    c = http.client.HTTPConnection("127.0.0.1", s.gateways[0].port, timeout=120)
    began = time.perf_counter()
    c.request("POST", "/v1/batches", data, {**s.headers, "Content-Type": "application/x-ndjson"})
    r = c.getresponse()
    answer = r.read()
    took = time.perf_counter() - began
    c.close()
    if r.status != 202:
        raise RuntimeError(f"{r.status}: {answer[:300]}")
    id = json.loads(answer)["id"]
    rows = s.count(f"select count(*) from invocations where batch = '{id[4:]}'")
    if rows != LINES:
        raise RuntimeError(f"{rows} rows of {LINES}")
    return id, took


def psql(s, command, **kw):
    return subprocess.run([str(PG_BIN / "psql"), "-h", str(s.dir / "run"), "-U", "sandpiper", "-XAtq", "-v", "ON_ERROR_STOP=1",
                           "-d", "sandpiper", "-c", command], check=True, **kw)


def copy(s, id):
    """The same rows, taken away and loaded again: the seconds that takes. They are gone afterwards."""
    rows, where = s.dir / "rows", f"where batch = '{id[4:]}'"
    with open(rows, "wb") as f:
        psql(s, f"copy (select {COLUMNS} from invocations {where} order by id) to stdout (format binary)", stdout=f)
    s.psql(f"delete from invocations {where}; delete from batches where id = '{id[4:]}'")
    s.psql("vacuum invocations")
    pause(0.5)
    began = time.perf_counter()
    with open(rows, "rb") as f:
        psql(s, f"copy invocations ({COLUMNS}) from stdin (format binary)", stdin=f)
    took = time.perf_counter() - began
    if s.count(f"select count(*) from invocations {where}") != LINES:
        raise RuntimeError("COPY lost rows")
    s.psql(f"delete from invocations {where}")
    s.psql("vacuum invocations")
    return took


def accept(figures, s, data):
    mine, theirs, grown = [], [], []
    cpu, spent = Cpu(gateway=[s.gateways[0].pid], postgres=[s.postgres.pid]), {}
    submit(s, data)  # what only the first one pays
    for i in range(ROUNDS):
        say(f"batch: round {i + 1} of {ROUNDS}")
        with Memory(s.gateways[0].pid) as memory, cpu:
            id, took = submit(s, data)
        spent = {k: spent.get(k, 0) + v for k, v in cpu.spent.items()}
        mine.append({"per_second": LINES / took})
        grown.append(memory.grown)
        theirs.append({"per_second": LINES / copy(s, id)})
        pause(0.5)
    cpu.spent = spent
    figures.row(f"batch of {LINES:,} lines of {len(data) // LINES} bytes, accepted (peer: COPY of the same rows)",
                median(mine)["per_second"], median(theirs)["per_second"], ratio_of=0.5)
    figures.row("  the gateway's memory meanwhile, over before", max(grown), unit="MiB", at_most=16)
    figures.share("a line of a batch, accepted", cpu, ROUNDS * LINES)


def look(s, id):
    c = http.client.HTTPConnection("127.0.0.1", s.gateways[0].port, timeout=60)
    c.request("GET", f"/v1/batches/{id}", headers=s.headers)
    r = json.loads(c.getresponse().read())
    c.close()
    if sum(r["counts"].values()) != r["total"]:
        raise RuntimeError(f"the counts do not add up: {r}")
    return r


def results(s, id):
    c = http.client.HTTPConnection("127.0.0.1", s.gateways[0].port, timeout=300)
    c.request("GET", f"/v1/batches/{id}/results", headers=s.headers)
    seen = {json.loads(line)["custom_id"] for line in c.getresponse()}
    c.close()
    if len(seen) != LINES:
        raise RuntimeError(f"{len(seen)} results of {LINES}")


def whole(figures, s, data):
    """From the 202 to the batch's end, polled ten times a second, each count checked; then all results read."""
    say("batch: running one to its end")
    cpu = Cpu(gateway=[s.gateways[0].pid], dispatcher=[s.dispatchers[0].pid], executor=[s.executors[0].pid],
              postgres=[s.postgres.pid], redis=[s.redis.pid], sim=[s.sandboxd.pid])
    with Memory(s.gateways[0].pid) as memory, cpu:
        id, _ = submit(s, data)
        began = time.perf_counter()
        until("the batch ends", lambda: look(s, id)["ended_at"], 300, every=0.1)
        took = time.perf_counter() - began
        began = time.perf_counter()
        results(s, id)
        read = time.perf_counter() - began
    if s.count("select count(*) from batch_ended") != s.count("select count(*) from results"):
        raise RuntimeError("results and what is told of them differ")
    figures.row(f"batch of {LINES:,}, run against the simulated E2B, polled ten times a second", LINES / took)
    figures.row("  its results, read as NDJSON", LINES / read)
    figures.row("  the gateway's memory meanwhile, over before", memory.grown, unit="MiB", at_most=16)
    figures.share("an item of a batch, run and read", cpu, LINES)


def run(figures):
    data = body()
    with bench_stack() as s:
        executor, dispatcher = s.executors[0], s.dispatchers[0]
        s.end(executor)
        s.end(dispatcher)
        accept(figures, s, data)
    with bench_stack() as s:
        whole(figures, s, data)
    figures.note(f"batch: {LINES:,} lines; the peer is COPY through psql of the rows that the gateway made, with the same indexes. "
                 "Every accepted line is checked to be a row, every item to have one result.")
