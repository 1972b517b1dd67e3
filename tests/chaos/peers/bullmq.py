"""BullMQ under three of the faults that Sandpiper's chaos runner injects, at an equal load: jobs of a second each, a steady
stream of them, a little more than its two workers keep up with, so that some wait; its defaults as its documentation tells them to a user. A JSON line for each cell:

    {"system": "bullmq 6.7.0", "fault": "kill worker", "jobs": 600, "lost": 0, "doubled": 50, "recovery_ms": [...]}

jobs      accepted ones: add() had answered
lost      those that had not ended when the fault came, or came later, and whose result nobody can get in the end
not_run   those of them that were never finished by any worker either
forgotten those that had ended before, and whose result nobody can get any more
doubled   finished by workers twice or more
rerun     started by workers twice or more
recovery  of each job that was accepted and unfinished when the fault came, and was started after it: from the fault to
          that start
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "bench"))

import harness  # noqa: E402

DRAIN_SECONDS = 75  # a lock of 30 s, then two looks for stalled jobs, 30 s apart


def lines(path):
    with contextlib.suppress(FileNotFoundError):
        return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return []


class Cell:
    def __init__(self, where, options):
        self.where, self.o = where, options
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="sp", dir="/tmp"))
        self.socket, self.redis, self.workers, self.others = self.dir / "redis.sock", None, [], []

    def start_redis(self):
        self.redis = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "yes",
             "--appendfsync", "everysec", "--dir", str(self.dir)], stdout=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while self.cli("ping") != "PONG":
            assert time.monotonic() < end, "Redis does not start"
            time.sleep(0.02)

    def cli(self, *argv):
        r = subprocess.run(["redis-cli", "-s", str(self.socket), *argv], capture_output=True, text=True)
        return r.stdout.strip()

    def node(self, program, *argv, **kw):
        return subprocess.Popen(["node", "--no-warnings", f"chaos-{program}.js", str(self.socket), "chaos", *map(str, argv)],
                                cwd=self.where, stdout=subprocess.PIPE, text=True, **kw)

    def add_worker(self):
        w = self.node("worker", self.o.concurrency, self.dir / "work", self.o.run_ms)
        assert w.stdout.readline().strip() == "ready"
        self.workers.append(w)

    def run(self, fault):
        self.start_redis()
        for _ in range(2):
            self.add_worker()
        submit = self.node("submit", self.o.rate, self.o.seconds, self.dir / "accepted")
        self.others.append(submit)
        assert submit.stdout.readline().strip() == "ready"
        time.sleep(self.o.seconds / 2)
        at = time.time() * 1000
        fault(self)
        submit.wait(timeout=self.o.seconds + 30)
        self.drain()
        return self.figures(at)

    def unfinished(self):
        done = {x["n"] for x in lines(self.dir / "work") if x["what"] == "done"}
        return {x["n"] for x in lines(self.dir / "accepted")} - done

    def drain(self):
        """Until all is done, or nothing more is to be expected."""
        end = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < end and self.unfinished():
            time.sleep(0.5)
        time.sleep(2)  # the last ones' results are on their way

    def figures(self, at):
        accepted, work = lines(self.dir / "accepted"), lines(self.dir / "work")
        told = self.check(accepted)
        starts, done = {}, {}
        for x in work:
            (starts if x["what"] == "start" else done).setdefault(x["n"], []).append(x["at"])
        recovery = []
        for job in accepted:
            n = job["n"]
            if job["at"] > at or any(t <= at for t in done.get(n, ())):
                continue
            later = [t for t in starts.get(n, ()) if t > at]
            recovery += [round(min(later) - at)] if later else []
        gone = [x["n"] for x in accepted if told.get(x["n"]) != ("completed", x["n"])]
        lost = [n for n in gone if not any(t <= at for t in done.get(n, ()))]
        return {"jobs": len(accepted), "lost": len(lost), "not_run": sum(n not in done for n in lost),
                "forgotten": len(gone) - len(lost), "doubled": sum(len(times) > 1 for times in done.values()),
                "rerun": sum(len(times) > 1 for times in starts.values()), "recovery_ms": sorted(recovery)}

    def check(self, accepted):
        p = self.node("check", stdin=subprocess.PIPE)
        self.others.append(p)
        out, _ = p.communicate("".join(json.dumps(x) + "\n" for x in accepted), timeout=60)
        return {x["n"]: (x["state"], x["result"]) for x in map(json.loads, out.splitlines())}

    def close(self):
        for p in [*self.workers, *self.others, self.redis]:
            if p is not None and p.poll() is None:
                p.kill()
                p.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def kill_worker(cell):
    """And its supervisor starts another one."""
    cell.workers[0].kill()
    cell.workers[0].wait()
    cell.add_worker()


def kill_redis(cell):
    cell.redis.kill()
    cell.redis.wait()
    cell.start_redis()


def flush_redis(cell):
    assert cell.cli("flushall") == "OK"


FAULTS = {"kill worker": kill_worker, "kill redis": kill_redis, "flush redis": flush_redis}


def main():
    p = argparse.ArgumentParser(description="BullMQ under faults; a JSON line for each")
    p.add_argument("fault", nargs="*", help=f"of: {', '.join(FAULTS)}; default: all")
    p.add_argument("--rate", type=int, default=60, help="jobs a second")
    p.add_argument("--seconds", type=int, default=10, help="how long they are submitted; the fault comes in the middle")
    p.add_argument("--concurrency", type=int, default=28, help="of each of the two workers")
    p.add_argument("--run-ms", type=int, default=1000, help="how long a job takes")
    o = p.parse_args()
    unknown = [f for f in o.fault if f not in FAULTS]
    if unknown:
        p.error(f'"{unknown[0]}" is no fault; known: {", ".join(FAULTS)}')
    try:
        where = harness.peers()
    except harness.Missing as e:
        sys.exit(f"peers: {e}")
    for program in HERE.glob("*.js"):
        shutil.copy(program, where / f"chaos-{program.name}")
    version = json.loads((where / "node_modules" / "bullmq" / "package.json").read_text())["version"]
    for name in o.fault or FAULTS:
        cell = Cell(where, o)
        try:
            print(json.dumps({"system": f"bullmq {version}", "fault": name, **cell.run(FAULTS[name])}), flush=True)
        finally:
            cell.close()


if __name__ == "__main__":
    os.environ.pop("NODE_OPTIONS", None)
    main()
