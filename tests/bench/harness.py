"""What every benchmark uses: building, the private stack, wrk, the peers, CPU accounting and the table."""

import contextlib
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TICK = os.sysconf("SC_CLK_TCK")


class Missing(Exception):
    """Something outside the project is not there (wrk, npm): the figure that needs it is left out, saying so."""


def say(text):
    """Progress: for people only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="" if text else "\r", file=sys.stderr, flush=True)


# ---- building ----

def build():
    """Release binaries; SP_BIN names others. Returns their directory."""
    if "SP_BIN" in os.environ:
        bin = pathlib.Path(os.environ["SP_BIN"]).resolve()
    else:
        say("building …")
        out = ROOT / "build-release"
        for argv in (["cmake", "-S", ROOT, "-B", out, "-DCMAKE_BUILD_TYPE=Release"],
                     ["cmake", "--build", out, "--parallel", str(os.cpu_count())]):
            r = subprocess.run(argv, capture_output=True, text=True)
            if r.returncode != 0:
                sys.exit(f"the build failed:\n{(r.stdout + r.stderr)[-4000:]}")
        bin = out / "bin"
    if not (bin / "sandpiper-e2b-sim").exists():
        sys.exit(f"{bin} has no sandpiper-e2b-sim: build it whole")
    return bin


# ---- CPU ----

def _stat(pid):
    """(parent, ticks of CPU) of a process; None when it is gone."""
    with contextlib.suppress(OSError, IndexError):
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[1]), int(fields[11]) + int(fields[12])
    return None


class Cpu:
    """CPU seconds of named processes (each with its children) between `with` and its end."""

    def __init__(self, **pids):
        self.pids = pids
        self.spent = {}

    def _now(self):
        by_parent, ticks = {}, {}
        for p in os.listdir("/proc"):
            if p.isdigit() and (s := _stat(int(p))):
                ticks[int(p)] = s[1]
                by_parent.setdefault(s[0], []).append(int(p))
        out = {}
        for name, roots in self.pids.items():
            todo, out[name] = list(roots), {}
            while todo:
                pid = todo.pop()
                if pid in ticks:
                    out[name][pid] = ticks[pid]
                    todo += by_parent.get(pid, [])
        return out

    def __enter__(self):
        self._before = self._now()
        self._client = resource.getrusage(resource.RUSAGE_CHILDREN)
        return self

    def __exit__(self, *exc):
        after = self._now()
        for name, pids in after.items():
            self.spent[name] = sum(t - self._before[name].get(p, 0) for p, t in pids.items()) / TICK
        c = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.spent["load generator"] = c.ru_utime + c.ru_stime - self._client.ru_utime - self._client.ru_stime


# ---- load ----

def wrk(port, path, headers, body, connections, seconds, frame=False):
    """A closed loop of one POST; the figures of post.lua, with `per_second`. frame: the body in a Connect envelope."""
    if shutil.which("wrk") is None:
        raise Missing("wrk is not installed (Debian package wrk)")
    env = dict(os.environ, BENCH_PATH=path, BENCH_BODY=body, BENCH_HEADERS="\n".join(f"{k}: {v}" for k, v in headers.items()))
    env.update({"BENCH_FRAME": "1"} if frame else {})
    r = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", HERE / "post.lua",
                        f"http://127.0.0.1:{port}"], env=env, capture_output=True, text=True)
    if r.returncode != 0:
        raise RuntimeError(f"wrk failed: {r.stderr}")
    figures = json.loads(r.stdout.splitlines()[-1])
    if figures["refused"] or figures["broken"] or figures["late"]:
        raise RuntimeError(f"requests failed: {figures}")
    figures["per_second"] = figures["requests"] / figures["seconds"]
    return figures


# ---- Redis ----

class RedisWork:
    """What Redis did between `with` and its end: commands (those inside scripts included), requests, CPU in µs."""

    def __init__(self, stack):
        self.stack = stack

    def _now(self):
        text = self.stack.redis_cli("info", "commandstats") + "\n" + self.stack.redis_cli("info", "cpu")
        calls = {m[1]: (int(m[2]), int(m[3])) for m in
                 re.finditer(r"^cmdstat_(\S+):calls=(\d+),usec=(\d+)", text, re.M)}
        cpu = sum(float(m[1]) for m in re.finditer(r"^used_cpu_(?:user|sys):([\d.]+)", text, re.M))
        return calls, cpu

    def __enter__(self):
        self._before = self._now()
        return self

    def __exit__(self, *exc):
        (before, cpu), (after, cpu_after) = self._before, self._now()
        self.cpu_us = (cpu_after - cpu) * 1e6
        self.calls = {k: (n - before.get(k, (0, 0))[0], us - before.get(k, (0, 0))[1]) for k, (n, us) in after.items()}
        self.commands = sum(n for k, (n, us) in self.calls.items() if k not in ("info", "evalsha", "eval"))
        self.scripts = sum(n for k, (n, us) in self.calls.items() if k in ("evalsha", "eval"))


# ---- peers ----

def peers():
    """The directory where the peers of package.json are installed."""
    where = ROOT / ".cache" / "bench-peers"
    stamp = where / "installed"
    lock = (HERE / "package-lock.json").read_text()
    if not stamp.exists() or stamp.read_text() != lock:
        if shutil.which("npm") is None or shutil.which("node") is None:
            raise Missing("node and npm are not installed: no peers to compare with")
        say("installing the peers from npm …")
        where.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, where)
        r = subprocess.run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
                           cwd=where, capture_output=True, text=True, timeout=120)
        if r.returncode != 0:
            raise Missing(f"npm cannot install the peers: {r.stderr.strip().splitlines()[-1:]}")
        stamp.write_text(lock)
    for program in (HERE / "peers").glob("*.js"):
        shutil.copy(program, where)
    return where


@contextlib.contextmanager
def node(program, *argv):
    """A peer's program running; yields (process, its first line)."""
    where = peers()
    p = subprocess.Popen(["node", "--no-warnings", program, *map(str, argv)], cwd=where, stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, text=True)
    try:
        yield p, p.stdout.readline().strip()
    finally:
        p.kill()
        p.wait()


# ---- results ----

class Figures:
    """Rows of the table, CPU shares, and notes; printed once at the end."""

    def __init__(self):
        self.rows, self.shares, self.tables, self.notes = [], [], [], []

    def row(self, what, ours, peer=None, unit="/s", ratio_of=None, ratio_at_most=None, at_least=None, at_most=None):
        """The target, if any: the ratio to the peer (without a peer it stays open), or a value of ours."""
        ratio = ours / peer if peer else None
        met, target = None, ""
        if ratio_of is not None:
            met, target = ratio and ratio >= ratio_of, f"≥ {ratio_of:g} ×"
        elif ratio_at_most is not None:
            met, target = ratio and ratio <= ratio_at_most, f"≤ {ratio_at_most:g} ×"
        elif at_least is not None:
            met, target = ours >= at_least, f"≥ {at_least:,}{unit}"
        elif at_most is not None:
            met, target = ours <= at_most, f"≤ {at_most:g} {unit}".rstrip()
        self.rows.append({"what": what, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "met": met,
                          "target": target})

    def absent(self, what, why, target=""):
        self.rows.append({"what": what, "ours": None, "peer": None, "ratio": None, "unit": "", "met": None,
                          "target": target, "why": why})

    def share(self, what, cpu, jobs):
        """CPU µs a job for each process."""
        self.shares.append({"what": what, "jobs": jobs,
                            "us_per_job": {k: round(v * 1e6 / jobs, 1) for k, v in cpu.spent.items()}})

    def table(self, title, head, lines):
        """One of its own, of texts: what is no rate with a peer."""
        self.tables.append({"title": title, "head": head, "lines": lines})

    def note(self, text):
        self.notes.append(text)

    def print(self):
        def number(v, unit):
            if v is None:
                return "–"
            text = f"{v:,.0f}" if abs(v) >= 100 else f"{v:.3g}"
            return f"{text} {unit}".rstrip() if not unit.startswith("/") else text + unit

        def table(head, lines):
            widths = [max(len(l[i]) for l in [head] + lines) for i in range(len(head))]
            for l in [head, ["-" * w for w in widths]] + lines:
                print("  ".join(c.ljust(w) for c, w in zip(l, widths)).rstrip())

        head = ["what", "ours", "peer", "ratio", "target", "met?"]
        lines = [[r["what"], r.get("why") or number(r["ours"], r["unit"]), number(r["peer"], r["unit"]),
                  "–" if r["ratio"] is None else f"{r['ratio']:.2f} ×", r["target"] or "–",
                  {True: "yes", False: "NO", None: "–"}[r["met"]]] for r in self.rows]
        if lines:
            table(head, lines)
        for t in self.tables:
            print(f"\n{t['title']}:")
            table(t["head"], t["lines"])
        if self.shares:
            print("\nCPU, µs a job (user + system):")
        for s in self.shares:
            total = sum(s["us_per_job"].values())
            print(f"  {s['what']} ({s['jobs']:,} jobs): " +
                  ", ".join(f"{k} {v:g}" for k, v in s["us_per_job"].items()) + f"; all {total:.0f}")
        for n in self.notes:
            print(f"\n{n}")


def median(figures, key="per_second"):
    return sorted(figures, key=lambda f: f[key])[len(figures) // 2]


def pause(seconds):
    """Lets a turn's aftermath (checkpoints, feeding) settle before the next figure."""
    time.sleep(seconds)
