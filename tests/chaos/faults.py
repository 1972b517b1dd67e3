"""What is done to a world. A fault is a generator: it breaks something, yields while that lasts, and heals it.

`hit` is called at the moment from which recovery is counted: the kill for what others take over, the healing for what nobody
could have worked without. `lasts` is how long the fault stays: short ones fit the deadlines that a lease has, long ones outlive them all."""

import contextlib
import os
import pathlib
import resource
import signal
import subprocess
import time

from failpoints import table
from stack import PG_BIN, until

FAULTS = {}
SHORT, LONG = (0.3, 2.0), (6.0, 9.0)


class Fault:
    def __init__(self, name, run, lasts):
        self.name, self.run, self.lasts = name, run, lasts


def fault(name, lasts=SHORT):
    def put(run):
        FAULTS[name] = Fault(name, run, lasts)
        return run
    return put


def descendants(pid):
    """Of a server that forks: itself and its children, by pid."""
    found, parents = [pid], {}
    for p in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            stat = pathlib.Path(f"/proc/{p}/stat").read_text()
            parents[int(p)] = int(stat.rsplit(")", 1)[1].split()[1])
    for p in found:
        found += [child for child, parent in parents.items() if parent == p]
    return found


def send(pids, number):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


# ---- daemons ----

def killed(kind, restart):
    def run(w, rng, hit):
        victim = rng.choice(w.kinds()[kind])
        victim.kill()
        hit()
        yield
        if restart:
            victim.start()
    return run


def frozen(kind):
    def run(w, rng, hit):
        victim = rng.choice([p for p in w.kinds()[kind] if p.alive()])
        victim.signal(signal.SIGSTOP)
        hit()
        yield
        victim.signal(signal.SIGCONT)
    return run


def rolled(kind):
    """Told to stop, waited for, started again: an upgrade."""
    def run(w, rng, hit):
        victim = rng.choice([p for p in w.kinds()[kind] if p.alive()])
        child = victim.child
        victim.signal(signal.SIGTERM)
        hit()
        yield

        def gone():
            if child.poll() is None:
                send([child.pid], signal.SIGCONT)  # a fail-point beside this may have frozen it
            return child.poll() is not None

        until(f"{victim.name} has stopped", gone, 30, 0.1)
        if not victim.alive():  # else that one has started it again
            victim.start()
    return run


for kind in ("gateway", "dispatcher", "executor"):
    fault(f"{kind}: kill -9, restarted")(killed(kind, True))
    fault(f"{kind}: frozen")(frozen(kind))
    fault(f"{kind}: frozen for long", LONG)(frozen(kind))
    fault(f"{kind}: SIGTERM, restarted")(rolled(kind))
fault("executor: kill -9, gone", LONG)(killed("executor", False))


@fault("all executors: kill -9")
def all_executors(w, rng, hit):
    for p in w.executors:
        p.kill()
    yield
    for p in w.executors:
        p.start()
    hit()


@fault("every daemon: kill -9")
def every_daemon(w, rng, hit):
    everyone = w.gateways + w.dispatchers + w.executors
    for p in everyone:
        p.kill()
    yield
    for p in rng.sample(everyone, len(everyone)):
        p.start()
    hit()


# ---- Redis ----

def redis_back(w):
    w.launch_redis()
    until("Redis answers", lambda: w.redis_cli("ping", check=False) == "PONG", 10)


@fault("redis: kill -9, restarted empty")
def redis_killed(w, rng, hit):
    w.redis.kill()
    yield
    (w.dir / "dump.rdb").unlink(missing_ok=True)
    redis_back(w)
    hit()


@fault("redis: restarted from an old dump", (1.0, 2.0))
def redis_old_dump(w, rng, hit):
    w.redis_cli("save")
    yield  # the dump ages meanwhile
    w.redis.kill()
    redis_back(w)
    hit()
    (w.dir / "dump.rdb").unlink(missing_ok=True)


@fault("redis: FLUSHALL")
def redis_flushed(w, rng, hit):
    w.redis_cli("flushall")
    hit()
    yield


def redis_stopped(w, rng, hit):
    w.redis.signal(signal.SIGSTOP)
    yield
    w.redis.signal(signal.SIGCONT)
    hit()


fault("redis: frozen")(redis_stopped)
fault("redis: frozen for long", LONG)(redis_stopped)


@fault("redis: out of memory")
def redis_full(w, rng, hit):
    w.redis_cli("config", "set", "maxmemory", "1")
    yield
    w.redis_cli("config", "set", "maxmemory", "0")
    hit()


@fault("redis: NOGROUP")
def redis_nogroup(w, rng, hit):
    for p in ("high", "normal", "low"):
        w.redis_cli("xgroup", "destroy", f"sp:q:{p}:0", "executors", check=False)
    hit()
    yield


@fault("redis: a stream deleted")
def redis_partial(w, rng, hit):
    """A partial loss: the server is the same, its epoch is there, some keys are not."""
    w.redis_cli("del", f"sp:q:{rng.choice(('normal', 'low'))}:0")
    hit()
    yield


@fault("redis: live records deleted")
def redis_live(w, rng, hit):
    w.redis_cli("del", "sp:live")
    hit()
    yield


@fault("redis: NOSCRIPT")
def redis_noscript(w, rng, hit):
    w.redis_cli("script", "flush")
    hit()
    yield


@fault("redis: LOADING")
def redis_loading(w, rng, hit):
    w.redis_cli("debug", "populate", "1000000", "chaos", "64")
    w.redis_cli("save")
    w.redis.kill()
    w.launch_redis()
    yield
    until("Redis has loaded", lambda: w.redis_cli("ping", check=False) == "PONG", 20)
    (w.dir / "dump.rdb").unlink(missing_ok=True)
    w.redis_cli("eval", "for i = 0, 999999 do redis.call('unlink', 'chaos:' .. i) end", "0")
    hit()


@fault("redis: READONLY")
def redis_readonly(w, rng, hit):
    w.redis_cli("config", "set", "replica-serve-stale-data", "yes")
    w.redis_cli("replicaof", "127.0.0.1", "1")
    yield
    w.redis_cli("replicaof", "no", "one")
    hit()


@fault("redis: connections cut")
def redis_cut(w, rng, hit):
    for kind in ("normal", "pubsub"):
        w.redis_cli("client", "kill", "type", kind, check=False)
    hit()
    yield


# ---- PostgreSQL ----

def postgres_back(w):
    until("the old server is gone", lambda: not w.postgres.alive(), 20)
    w.launch_postgres()
    until("PostgreSQL answers", lambda: w.psql("select 1", check=False) == "1", 30)


@fault("postgres: kill -9, restarted")
def postgres_killed(w, rng, hit):
    send(reversed(descendants(w.postgres.pid)), signal.SIGKILL)
    yield
    postgres_back(w)
    hit()


@fault("postgres: restarted")
def postgres_restarted(w, rng, hit):
    w.postgres.signal(rng.choice((signal.SIGINT, signal.SIGQUIT)))
    yield
    postgres_back(w)
    hit()


@fault("postgres: a backend killed")
def postgres_crash(w, rng, hit):
    """One backend's death makes the server end all others and recover."""
    pid = w.psql("select pid from pg_stat_activity where backend_type = 'client backend' and datname = 'sandpiper' "
                 "and pid <> pg_backend_pid() order by random() limit 1")
    send([int(pid)], signal.SIGKILL)
    hit()
    yield


@fault("postgres: connections terminated")
def postgres_cut(w, rng, hit):
    w.psql("select pg_terminate_backend(pid) from pg_stat_activity where datname = 'sandpiper' and pid <> pg_backend_pid()")
    hit()
    yield


def postgres_stopped(w, rng, hit):
    pids = descendants(w.postgres.pid)
    send(pids, signal.SIGSTOP)
    yield
    send(pids, signal.SIGCONT)
    hit()


fault("postgres: frozen")(postgres_stopped)
fault("postgres: frozen for long", LONG)(postgres_stopped)


@contextlib.contextmanager
def session(w):
    """A psql that keeps its transaction."""
    p = subprocess.Popen([str(PG_BIN / "psql"), "-h", str(w.dir / "run"), "-p", str(w.pg_port), "-U", "sandpiper", "-XAtq", "-d",
                          "sandpiper"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield p
    finally:
        p.kill()
        p.wait()


def table_locked(w, rng, hit):
    table = rng.choice(("invocations", "results", "usage", "attempts", "outbox", "batches", "agents"))
    with session(w) as s:
        s.stdin.write(f"begin; lock table {table} in access exclusive mode;\n")
        s.stdin.flush()
        yield
    hit()


fault("postgres: a table locked")(table_locked)
fault("postgres: a table locked for long", LONG)(table_locked)


@fault("postgres: disk full")
def postgres_full(w, rng, hit):
    hog = w.dir / "pg" / "hog"
    with open(hog, "wb") as f, contextlib.suppress(OSError):
        while True:
            f.write(b"x" * (1 << 20))
    yield
    hog.unlink()
    if not w.postgres.alive():
        postgres_back(w)
    until("PostgreSQL answers", lambda: w.psql("select 1", check=False) == "1", 30)
    hit()


SLOW = """
create or replace function chaos_slow() returns trigger language plpgsql as 'begin perform pg_sleep({seconds}); return null; end';
create trigger chaos_slow after insert on {table} for each statement execute function chaos_slow();
"""


@fault("postgres: slow writes")
def postgres_slow(w, rng, hit):
    table = rng.choice(("invocations", "results"))
    w.psql(SLOW.format(table=table, seconds=round(rng.uniform(0.05, 0.4), 2)))
    yield
    w.psql(f"drop trigger chaos_slow on {table}")
    hit()


# ---- E2B ----

# What the simulated E2B does to its answers (tests/sim/README.md), to which calls, how likely.
ANSWERS = [
    ("429_rate", ["create"], 0.4), ("429_limit", ["create"], 0.4),
    ("500", ["create", "kill", "list", "start", "upload"], 0.3), ("502", ["create", "kill", "start"], 0.3),
    ("503", ["create", "kill", "start"], 0.4), ("504", ["create", "kill", "list", "start"], 0.3),
    ("reset", ["create", "kill", "list", "start", "upload"], 0.3), ("hang", ["create", "kill", "start"], 0.1),
    ("lost", ["create", "kill"], 0.3), ("mute", ["create", "kill"], 0.1), ("cut", ["create", "start", "list"], 0.2),
    ("trickle", ["create", "kill"], 0.2), ("bad_json", ["create", "list", "start"], 0.2), ("bad_length", ["start"], 0.15),
    ("bad_flags", ["start"], 0.15), ("stall", ["start"], 0.1), ("no_end", ["start"], 0.15), ("no_end_stream", ["start"], 0.15),
    ("vanish", ["start"], 0.15),
]


def e2b_answers(name, on, chance):
    def run(w, rng, hit):
        rules = {"seed": rng.randint(1, 1 << 30), "rules": [{"on": on, "fault": name, "p": chance}]}
        status, _, body = w.sim_call("POST", "/sim/faults", rules)
        assert status < 300, body
        yield
        w.sim_call("POST", "/sim/faults", {})
        hit()
    return run


for name, on, chance in ANSWERS:
    fault(f"e2b: {name}")(e2b_answers(name, on, chance))


@fault("e2b: frozen")
def e2b_frozen(w, rng, hit):
    w.sandboxd.signal(signal.SIGSTOP)
    yield
    w.sandboxd.signal(signal.SIGCONT)
    hit()


# ---- the network between each pair ----

def parted(service, how):
    def run(w, rng, hit):
        kinds = [k for k in w.kinds() if not (service == "e2b" and k == "gateway")]
        victim = rng.choice(w.kinds()[rng.choice(kinds)])
        address = w.address(victim.name, service)
        rules = {"all": [("-d",), ("-s",)], "requests": [("-d",)], "answers": [("-s",)]}
        way = rng.choice(("all", "requests", "answers")) if how == "cut" else "all"
        for (flag,) in rules[way]:
            match = [] if how == "cut" else ["-m", "statistic", "--mode", "random", "--probability", str(round(rng.uniform(0.1, 0.5), 2))]
            w.filter("-A", "INPUT", flag, address, "-p", "tcp", *match, "-j", "DROP")
        yield
        w.unfilter()
        hit()
    return run


for service in ("redis", "postgres", "e2b"):
    fault(f"network: one daemon cut off {service}")(parted(service, "cut"))
    fault(f"network: one daemon cut off {service} for long", LONG)(parted(service, "cut"))
    fault(f"network: packets lost on the way to {service}")(parted(service, "loss"))


# ---- at every step ----

# What must happen besides, that the point is reached at all.
REACHED_BY = {"dispatcher_bury": "executor: kill -9, restarted", "dispatcher_reap": "executor: kill -9, restarted",
              "dispatcher_boot": "gateway: kill -9, restarted", "dispatcher_re": "redis: FLUSHALL",
              "executor_back": "executor: SIGTERM, restarted", "executor_leave": "executor: SIGTERM, restarted",
              "executor_handed": "executor: SIGTERM, restarted"}


def at_point(name):
    kind = name.split("_")[0]

    def run(w, rng, hit):
        kinds = list(w.kinds()) if kind == "commit" else [kind]
        action = rng.choices(("kill", "abort", "stop", "sleep"), (5, 2, 2, 2))[0]
        files = [w.points[p.name] for k in kinds for p in w.kinds()[k]]
        for f in files:
            f.arm(name, action, skip=rng.choice((0, 0, 1, 5)), argument=rng.randint(100, 1500))
        yield
        hit()
        for f in files:
            f.disarm(name)
        for k in kinds:
            for p in w.kinds()[k]:
                if p.alive():
                    p.signal(signal.SIGCONT)
                else:
                    p.start()
    return run


for name in table():
    fault(f"fail-point: {name}", (1.5, 2.5))(at_point(name))


def companion(name):
    """The fault that a fail-point needs beside it, or None."""
    point = name.removeprefix("fail-point: ")
    ways = [way for start, way in REACHED_BY.items() if point.startswith(start)]
    return ways[0] if point != name and ways and "retr" not in point else None


# ---- clocks ----

def stepped(seconds):
    def run(w, rng, hit):
        victim = rng.choice([p for daemons in w.kinds().values() for p in daemons])
        w.points[victim.name].clock(seconds)
        yield
        w.points[victim.name].clock(0)
        hit()
    return run


fault("clock: a daemon's an hour ahead", (1.5, 3.0))(stepped(3600))
fault("clock: a daemon's an hour behind", (1.5, 3.0))(stepped(-3600))


# ---- the machine ----

@fault("machine: a daemon without descriptors")
def no_descriptors(w, rng, hit):
    victim = rng.choice([p for daemons in w.kinds().values() for p in daemons])
    open_now = len(os.listdir(f"/proc/{victim.pid}/fd"))
    before = resource.prlimit(victim.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(victim.pid, resource.RLIMIT_NOFILE, (max(3, open_now - 2), before[1]))
    yield
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(victim.pid, resource.RLIMIT_NOFILE, before)
    hit()


@fault("machine: a daemon without memory")
def no_memory(w, rng, hit):
    victim = rng.choice([p for daemons in w.kinds().values() for p in daemons])
    size = int(pathlib.Path(f"/proc/{victim.pid}/statm").read_text().split()[0]) * resource.getpagesize()
    if size > 1 << 40:  # AddressSanitizer's shadow: its allocator ends the program at a limit, which is another fault's business
        victim.kill()
    else:
        resource.prlimit(victim.pid, resource.RLIMIT_AS, (size + rng.choice((0, 1 << 20, 8 << 20)), resource.RLIM_INFINITY))
    yield
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(victim.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if not victim.alive():
        victim.start()
    hit()


class Play:
    """Faults at their moments: made by a seed, played in a thread's time, healed at the end whatever happens."""

    def __init__(self, names, rng):
        self.names, self.rng = names, rng
        self.plan = []  # (at, until, fault)
        at = rng.uniform(0.4, 1.2)
        for name in names:
            f = FAULTS[name]
            self.plan.append((at, at + rng.uniform(*f.lasts), f))
            at += rng.uniform(0.2, 1.5)
        self.hits = []

    def ends_s(self):
        return max(e for _, e, _ in self.plan)

    def play(self, w):
        began, steps = time.monotonic(), []
        for at, end, f in self.plan:
            steps += [(at, f, "break"), (end, f, "heal")]
        running = {}
        for at, f, what in sorted(steps, key=lambda s: s[0]):
            time.sleep(max(0.0, began + at - time.monotonic()))  # the plan's own time, not an event's
            if what == "break":
                running[f.name] = f.run(w, self.rng, lambda name=f.name: self.hits.append((time.time(), name)))
                next(running[f.name])
            else:
                for _ in running.pop(f.name):
                    raise AssertionError(f"{f.name} yields twice")
