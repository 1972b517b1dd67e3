"""A whole Sandpiper to be broken: two of each daemon and more, on the simulated E2B, in a network of its own.

Each daemon reaches PostgreSQL, Redis and E2B at addresses of its own (127.N.1.1, 127.N.2.1 and 127.N.3.1): a packet filter can part any pair
and leave all others together. PostgreSQL has a small file system of its own, so that its disk can be full."""

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))

from failpoints import Failpoints  # noqa: E402
from sim_stack import SimStack  # noqa: E402
from stack import BIN, Client, PG_BIN, Process, free_port, until  # noqa: E402
from webhook_receiver import OPEN, Receiver  # noqa: E402

GATEWAYS, EXECUTORS, DISPATCHERS = 2, 3, 2
PG_DISK = "768m"
SERVICES = {"postgres": 1, "redis": 2, "e2b": 3}

# What a user may set, set so that one seed is seconds and not minutes.
QUICK = {
    "SANDPIPER_EXECUTOR_JOBS": "64",
    "SANDPIPER_E2B_CREATES_PER_SECOND": "2000",
    "SANDPIPER_CREATE_DEADLINE": "5s",
    "SANDPIPER_START_DEADLINE": "5s",
    "SANDPIPER_EXECUTOR_DRAIN": "10s",
    "SANDPIPER_GATEWAY_DRAIN": "5s",
    "SANDPIPER_WEBHOOK_SCHEDULE": "100ms,200ms,500ms,1s,1s,1s,2s,2s,2s,5s,5s,5s,10s,10s,10s,20s,20s",
    "SANDPIPER_WEBHOOK_TIMEOUT": "2s",
    "SANDPIPER_WEBHOOK_PAUSE": "500ms",
    **OPEN,
}


class World(SimStack):
    def __init__(self, env=None, hasty=True, disk=PG_DISK):
        """hasty: one of the executors hands back what it runs when it is told to stop. disk: of PostgreSQL; None: the machine's."""
        super().__init__(sim={"create": "2..20ms", "start": "1..5ms", "run": "10..200ms", "kill": "1..5ms"},
                         **{**QUICK, **(env or {})})
        self.sim["ledger"] = self.dir / "ledger"
        self.pg_port, self.redis_port = free_port(), free_port()
        self.hasty, self.disk = hasty, disk
        self.points = {}  # daemon name: its fail-points and its clock
        self.numbers = {}  # daemon name: its N in 127.N.x.1
        self.receiver = None
        self.calm = None  # descriptors by daemon after the first seed: connections that are kept are open then

    # ---- servers ----

    def start_postgres(self):
        data, run = self.dir / "pg", self.dir / "run"
        run.mkdir(exist_ok=True)
        if not data.exists():
            data.mkdir()
            if self.disk:
                subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self.disk},mode=0700", "chaos", str(data)], check=True)
            (data / "pg").mkdir()
            for d in (data, data / "pg", run):
                shutil.chown(d, "nobody", "nogroup")
            subprocess.run(self._as_other_uid([str(PG_BIN / "initdb"), "-D", str(data / "pg"), "-A", "trust", "-U", "sandpiper",
                                               "--no-sync"]), check=True, capture_output=True)
        self.launch_postgres()
        until("PostgreSQL answers", lambda: self.psql("select 1", check=False) == "1", 30)

    def launch_postgres(self):
        self.postgres = Process("postgres", self._as_other_uid(
            [str(PG_BIN / "postgres"), "-D", str(self.dir / "pg" / "pg"), "-k", str(self.dir / "run"), "-p", str(self.pg_port),
             "-c", "listen_addresses=0.0.0.0", "-c", "max_connections=200", "-c", "max_wal_size=128MB",
             "-c", "min_wal_size=64MB", "-c", "restart_after_crash=on"]), dict(os.environ), self.dir / "postgres.log").start()

    def allow_tcp(self):
        hba = self.dir / "pg" / "pg" / "pg_hba.conf"
        hba.write_text(hba.read_text() + "host all all 127.0.0.0/8 trust\n")
        self.psql("select pg_reload_conf()", check=False)

    def psql(self, sql, database="sandpiper", check=True):
        r = subprocess.run([str(PG_BIN / "psql"), "-h", str(self.dir / "run"), "-p", str(self.pg_port), "-U", "sandpiper", "-XAtq",
                            "-d", database if check else "postgres", "-c", sql], capture_output=True, text=True, timeout=60)
        assert not check or r.returncode == 0, r.stderr
        return r.stdout.strip()

    def rows(self, sql):
        text = self.psql(f"select coalesce(json_agg(t), '[]') from ({sql}) t")
        return json.loads(text)

    def start_redis(self):
        self.launch_redis()
        until("Redis answers", lambda: self.redis_cli("ping", check=False) == "PONG")

    def launch_redis(self):
        self.redis = Process("redis", ["redis-server", "--port", str(self.redis_port), "--bind", "0.0.0.0", "--protected-mode", "no",
                                       "--unixsocket", str(self.dir / "redis.sock"), "--save", "", "--dir", str(self.dir),
                                       "--enable-debug-command", "yes"], dict(os.environ), self.dir / "redis.log").start()

    def start_sandboxd(self):
        env = {**os.environ, "SANDPIPER_SIM_LISTEN": f"0.0.0.0:{self.sandboxd_port}",
               **{f"SANDPIPER_SIM_{k.upper()}": str(v) for k, v in self.sim.items()}}
        self.sandboxd = Process("e2b-sim", [str(BIN / "sandpiper-e2b-sim")], env, self.dir / "e2b-sim.log").start()
        self.sandboxd.said('"msg":"ready"')

    # ---- daemons ----

    def address(self, name, service):
        n = self.numbers.setdefault(name, len(self.numbers) + 1)
        return f"127.{n}.{SERVICES[service]}.1"

    def links(self, name):
        e2b = f"http://{self.address(name, 'e2b')}:{self.sandboxd_port}"
        return {"SANDPIPER_DATABASE_URL": f"postgresql://sandpiper@{self.address(name, 'postgres')}:{self.pg_port}/sandpiper",
                "SANDPIPER_REDIS_URL": f"redis://{self.address(name, 'redis')}:{self.redis_port}",
                "E2B_API_URL": e2b, "E2B_SANDBOX_URL": e2b, "NO_PROXY": "*"}

    def cli(self, *argv, env=None, **kw):
        return super().cli(*argv, env={**self.links("cli"), **(env or {})}, **kw)

    def _daemon(self, kind, env=None, n=0):
        name = f"{kind}-{n}"
        if name not in self.points:
            self.points[name] = Failpoints(self.dir / f"{name}.points")
        return super()._daemon(kind, {**self.links(name), **self.points[name].env, **(env or {})}, n)

    def kinds(self):
        return {"gateway": self.gateways, "executor": self.executors, "dispatcher": self.dispatchers}

    def begin(self):
        """Starts everything, in the order that a careful operator would use."""
        self.start_postgres()
        self.allow_tcp()
        self.psql("create database sandpiper", database="postgres", check=False)
        self.start_redis()
        self.cli("migrate")
        self.cli("secrets", "init", str(self.dir))
        self.key = self.new_key()
        self.start_sandboxd()
        for _ in range(DISPATCHERS):
            self.add_dispatcher()
        for _ in range(GATEWAYS):
            self.add_gateway()
        for n in range(EXECUTORS):
            self.add_executor(**({"SANDPIPER_EXECUTOR_DRAIN": "200ms"} if self.hasty and n == EXECUTORS - 1 else {}))
        self.client.deploy(self.agent, {"agent.json": '{"runtime": "command", "entry": "cat"}'})
        self.receiver = Receiver()
        a = self.client.call("POST", "/v1/schedules", {"name": "each-minute", "cron": "* * * * *", "agent": self.agent, "prompt": "tick"})
        assert a.status == 201, a.body
        return self

    def warm(self, n):
        """So many sandboxes are made ahead for the agent."""
        self.psql(f"update agent_versions set warm_min = {n}, warm_max = {n} where (warm_min, warm_max) <> ({n}, {n})")

    def revive(self):
        """Whatever died lives again, and is ready."""
        for kind, daemons in self.kinds().items():
            for p in daemons:
                if not p.alive():
                    p.start()
        for p in self.gateways:
            until(f"{p.name} is ready", lambda p=p: self.is_ready(p), 40)
        for p in self.executors:
            until(f"{p.name} has registered", lambda p=p: p.alive() and "claiming jobs" in p.text(), 40)

    def is_ready(self, gateway):
        assert gateway.alive(), f"{gateway.name} ended: {gateway.text()[-2000:]}"
        with contextlib.suppress(OSError, http.client.HTTPException):
            return Client(gateway.port, None, 5).call("GET", "/readyz").status == 200
        return False

    def ledger(self):
        """Sandboxes that have ended, by id."""
        path = self.dir / "ledger"
        lines = path.read_text().splitlines() if path.exists() else []
        return {d["sandbox"]: d for d in map(json.loads, lines)}

    def filter(self, *rule):
        subprocess.run(["iptables", "-w", "5", *rule], check=True)

    def unfilter(self):
        subprocess.run(["iptables", "-w", "5", "-F"], check=True)

    def end(self):
        for p in self.daemons() + [self.redis, self.postgres]:
            if p is not None and p.alive():
                with contextlib.suppress(ProcessLookupError):
                    p.signal(signal.SIGCONT)
                p.kill()
        if self.receiver:
            self.receiver.close()
        subprocess.run(["umount", "-l", str(self.dir / "pg")], capture_output=True)

    def remove(self):
        self.end()
        shutil.rmtree(self.dir, ignore_errors=True)
