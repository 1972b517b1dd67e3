"""A whole Sandpiper for tests: private PostgreSQL and Redis, the real binaries, and a client. Standard library only.

Everything lives in one short-named directory and is ended by pid. Waiting is always for an event, with a deadline."""

import contextlib
import http.client
import io
import itertools
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import threading
import time

from tcp_proxy import TcpProxy

BIN = pathlib.Path(os.environ.get("SP_BIN", "build/bin")).resolve()
PG_BIN = pathlib.Path(os.environ.get("SP_PG_BIN", "/usr/lib/postgresql/15/bin"))
E2B_KEY = "e2b_" + "0" * 39 + "7"


def until(what, check, seconds=20.0, every=0.02):
    """Waits for check() to be true (its value is returned); fails naming what was waited for."""
    end = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(every)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def in_threads(jobs, workers=64):
    """Runs the callables at most `workers` at once; their results in order. The first failure is raised."""
    results, errors, turn = [None] * len(jobs), [], iter(range(len(jobs)))
    lock = threading.Lock()

    def work():
        while True:
            with lock:
                i = next(turn, None)
            if i is None or errors:
                return
            try:
                results[i] = jobs[i]()
            except BaseException as e:  # noqa: B036 - reported below
                errors.append(e)

    threads = [threading.Thread(target=work) for _ in range(min(workers, len(jobs)))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if errors:
        raise errors[0]
    return results


class Process:
    """A program with its log, ended by pid."""

    def __init__(self, name, argv, env, log):
        self.name, self.argv, self.env, self.log = name, argv, env, log
        self.child = None

    def start(self):
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                self.argv, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        return self

    @property
    def pid(self):
        return self.child.pid

    def alive(self):
        return self.child is not None and self.child.poll() is None

    def signal(self, number):
        os.kill(self.child.pid, number)

    def kill(self):
        if self.alive():
            self.child.kill()
        if self.child is not None:
            self.child.wait(timeout=20)

    def stop(self, seconds=30):
        if self.alive():
            self.child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(timeout=seconds)
        self.kill()
        return self.child.returncode

    def text(self):
        return pathlib.Path(self.log).read_text(errors="replace")

    def said(self, words, seconds=20):
        until(f"{self.name} says {words!r}", lambda: words in self.text(), seconds)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)


class Client:
    """One tenant's view of a gateway. Thread-safe: a connection a call."""

    def __init__(self, port, key, timeout=120):
        self.port, self.key, self.timeout = port, key, timeout

    def call(self, method, path, body=None, headers=None, key=True):
        h = dict(headers or {})
        if key and self.key:
            h.setdefault("Authorization", f"Bearer {self.key}")
        if isinstance(body, (dict, list)):
            body = json.dumps(body, ensure_ascii=False).encode()
            h.setdefault("Content-Type", "application/json")
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.timeout)
        try:
            c.request(method, path, body=body, headers=h)
            r = c.getresponse()
            return Answer(r.status, r.headers, r.read())
        finally:
            c.close()

    def submit(self, agent, prompt, wait=None, idempotency_key=None, **fields):
        headers = {}
        if wait is not None:
            headers["Prefer"] = f"wait={wait}"
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        return self.call("POST", "/v1/invocations", {"agent": agent, "prompt": prompt, **fields}, headers)

    def run(self, agent, prompt, wait=60, **fields):
        """Submits and waits for the end; the record."""
        a = self.submit(agent, prompt, wait=wait, **fields)
        assert a.status == 200, (a.status, a.body)
        return a.json

    def get(self, id, wait=None):
        a = self.call("GET", f"/v1/invocations/{id}" + (f"?wait={wait}" if wait else ""))
        assert a.status == 200, (a.status, a.body)
        return a.json

    def end(self, id, seconds=60):
        """The record of an invocation that has ended, waited for."""
        stop = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                r = self.get(id, wait=max(1, min(20, int(stop - time.monotonic()))))
                if r["finished_at"]:
                    return r
            assert time.monotonic() < stop, f"{id} has not ended within {seconds} s"

    def deploy(self, name, files, seconds=120):
        """Deploys {path: text} and waits until it is ready; the newest build."""
        a = self.call("POST", f"/v1/agents?name={name}", archive(files), {"Content-Type": "application/gzip"})
        assert a.status in (200, 202), (a.status, a.body)
        if a.status == 200:  # the same again
            return a.json["latest_build"]
        version = a.json["deployed_version"]

        def built():
            b = self.call("GET", f"/v1/agents/{name}").json["latest_build"]
            assert b["version"] > version or b["status"] != "failed", b
            return b["status"] == "ready" and b

        return until(f"agent {name} is ready", built, seconds)


def archive(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for path, text in files.items():
            data = text if isinstance(text, bytes) else text.encode()
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Stack:
    """Servers and daemons. `executors` and `gateways` are lists: more can be added, any can be killed.

    via={"executor": ["redis"], ...} puts a TcpProxy between all daemons of that kind and a server (redis, postgres, e2b):
    proxies["executor", "redis"]."""

    def __init__(self, sandboxd=True, via=None, **env):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="sp", dir="/tmp"))
        self.dir.chmod(0o755)
        self.with_sandboxd = sandboxd
        self.postgres = self.redis = self.sandboxd = self.key = None
        self.gateways, self.executors, self.dispatchers = [], [], []
        self.sandboxd_port = free_port()
        self.extra = env
        self.proxies, self.all_proxies = {}, []
        for kind, servers in (via or {}).items():
            for server in servers:
                self.proxies[kind, server] = self.proxy_to(server)

    # ---- servers ----

    def _as_other_uid(self, argv):
        if os.geteuid() != 0:
            return argv
        return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"] + argv

    def start_postgres(self):
        data, run = self.dir / "pg", self.dir / "run"
        run.mkdir(exist_ok=True)
        if not data.exists():
            data.mkdir()
            if os.geteuid() == 0:
                shutil.chown(data, "nobody", "nogroup")
                shutil.chown(run, "nobody", "nogroup")
            subprocess.run(self._as_other_uid([str(PG_BIN / "initdb"), "-D", str(data), "-A", "trust", "-U", "sandpiper",
                                               "--no-sync"]), check=True, capture_output=True)
        self.postgres = Process("postgres", self._as_other_uid(
            [str(PG_BIN / "postgres"), "-D", str(data), "-k", str(run), "-c", "listen_addresses=",
             "-c", "max_connections=200"]), dict(os.environ), self.dir / "postgres.log").start()
        until("PostgreSQL answers", lambda: self.psql("select 1", check=False) == "1", 30)

    def psql(self, sql, database="sandpiper", check=True):
        r = subprocess.run([str(PG_BIN / "psql"), "-h", str(self.dir / "run"), "-U", "sandpiper", "-XAtq",
                            "-d", database if check else "postgres", "-c", sql], capture_output=True, text=True)
        assert not check or r.returncode == 0, r.stderr
        return r.stdout.strip()

    def count(self, sql):
        return int(self.psql(sql))

    def start_redis(self):
        self.redis = Process("redis", ["redis-server", "--port", "0", "--unixsocket", str(self.dir / "redis.sock"),
                                       "--save", "", "--dir", str(self.dir)], dict(os.environ),
                             self.dir / "redis.log").start()
        until("Redis answers", lambda: self.redis_cli("ping", check=False) == "PONG")

    def redis_cli(self, *argv, check=True):
        r = subprocess.run(["redis-cli", "-s", str(self.dir / "redis.sock"), *argv], capture_output=True, text=True, errors="replace")
        assert not check or r.returncode == 0, r.stderr
        return r.stdout.strip()

    # ---- daemons ----

    @property
    def env(self):
        e = {k: v for k, v in os.environ.items() if not k.startswith(("SANDPIPER_", "E2B_"))}
        e.update(SANDPIPER_DATABASE_URL=f"postgresql://sandpiper@/sandpiper?host={self.dir}/run",
                 SANDPIPER_REDIS_URL=f"unix://{self.dir}/redis.sock", SANDPIPER_SPOOL_DIR=str(self.dir),
                 E2B_API_KEY=E2B_KEY, E2B_API_URL=f"http://127.0.0.1:{self.sandboxd_port}",
                 E2B_SANDBOX_URL=f"http://127.0.0.1:{self.sandboxd_port}", NO_PROXY="127.0.0.1")
        e.setdefault("ASAN_OPTIONS", "detect_leaks=1:leak_check_at_exit=0")
        e.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
        for what, side in itertools.product(("webhook", "env"), ("public", "private")):
            if (self.dir / f"{what}-{side}.key").exists():
                e[f"SANDPIPER_{what.upper()}_{side.upper()}_KEY_FILE"] = str(self.dir / f"{what}-{side}.key")
        e.update(self.extra)
        return e

    def proxy_to(self, server):
        """A proxy of one's own to that server; its `env` leads a daemon through it."""
        p = TcpProxy({"redis": f"{self.dir}/redis.sock", "postgres": f"{self.dir}/run/.s.PGSQL.5432",
                      "e2b": ("127.0.0.1", self.sandboxd_port)}[server])
        url = f"http://127.0.0.1:{p.port}"
        p.env = {"redis": {"SANDPIPER_REDIS_URL": f"redis://127.0.0.1:{p.port}"},
                 "postgres": {"SANDPIPER_DATABASE_URL": f"postgresql://sandpiper@127.0.0.1:{p.port}/sandpiper"},
                 "e2b": {"E2B_API_URL": url, "E2B_SANDBOX_URL": url}}[server]
        self.all_proxies.append(p)
        return p

    def _daemon(self, kind, env=None, n=0):
        e = self.env
        for (of, _), proxy in self.proxies.items():
            e.update(proxy.env if of == kind else {})
        e.update(env or {})
        return Process(f"{kind}-{n}", [str(BIN / f"sandpiper-{kind}")], e, self.dir / f"{kind}-{n}.log").start()

    def start_sandboxd(self):
        self.sandboxd = self._daemon("sandboxd", {
            "SANDPIPER_SANDBOXD_LISTEN": f"127.0.0.1:{self.sandboxd_port}",
            "SANDPIPER_SANDBOXD_DATA_DIR": str(self.dir / "sandboxes")})
        self.sandboxd.said('"msg":"ready"', 60)

    def add_gateway(self, host="127.0.0.1", **env):
        port = free_port()
        p = self._daemon("gateway", {"SANDPIPER_GATEWAY_LISTEN": f"{host}:{port}", **env}, len(self.gateways))
        p.port = port
        self.gateways.append(p)

        def ready():
            assert p.alive(), p.text()
            with contextlib.suppress(OSError):
                return Client(port, None, 5).call("GET", "/readyz").status == 200

        until("the gateway is ready", ready, 30)
        return p

    def add_executor(self, **env):
        p = self._daemon("executor", env, len(self.executors))
        self.executors.append(p)
        p.said("claiming jobs", 30)
        return p

    def add_dispatcher(self, **env):
        p = self._daemon("dispatcher", env, len(self.dispatchers))
        self.dispatchers.append(p)
        return p

    def cli(self, *argv, stdin=None, env=None, check=True, timeout=120):
        e = self.env
        if self.gateways:
            e["SANDPIPER_URL"] = f"http://127.0.0.1:{self.gateways[0].port}"
        if self.key:
            e["SANDPIPER_API_KEY"] = self.key
        e.update(env or {})
        r = subprocess.run([str(BIN / "sandpiper"), *argv], input=stdin, env=e, capture_output=True, timeout=timeout)
        assert not check or r.returncode == 0, (argv, r.returncode, r.stdout, r.stderr)
        return r

    def new_key(self, tenant="default", scope="admin"):
        argv = ["keys", "create", "--tenant", tenant, "--scope", scope, "--json"]
        return json.loads(self.cli(*argv).stdout)["key"]

    # ---- the whole ----

    def start(self, gateways=1, executors=1, dispatchers=1):
        self.start_postgres()
        self.psql("create database sandpiper", database="postgres", check=False)
        self.start_redis()
        self.cli("migrate")
        self.cli("secrets", "init", str(self.dir))
        self.key = self.new_key()
        if self.with_sandboxd:
            self.start_sandboxd()
        for _ in range(dispatchers):
            self.add_dispatcher()
        for _ in range(gateways):
            self.add_gateway()
        for _ in range(executors):
            self.add_executor()
        return self

    @property
    def client(self):
        return Client(self.gateways[0].port, self.key)

    def sandboxes(self):
        c = http.client.HTTPConnection("127.0.0.1", self.sandboxd_port, timeout=10)
        c.request("GET", "/v2/sandboxes?limit=100", headers={"X-API-Key": E2B_KEY})
        r = c.getresponse()
        body = r.read()
        c.close()
        assert r.status == 200, body
        return json.loads(body)

    def destroy(self, sandbox_id):
        """Behind everybody's back."""
        c = http.client.HTTPConnection("127.0.0.1", self.sandboxd_port, timeout=10)
        c.request("DELETE", f"/sandboxes/{sandbox_id}", headers={"X-API-Key": E2B_KEY})
        c.getresponse().read()
        c.close()

    def live_records(self):
        """Jobs that Redis knows; the epoch, under the empty name, is none."""
        return sum(1 for line in self.redis_cli("hvals", "sp:live").splitlines() if " " in line)

    def quiet(self, seconds=20):
        """Waits until nothing is left: no sandbox, no stream entry, no pending entry, no live record."""
        def streams_empty():
            for s in ("sp:q:high:0", "sp:q:normal:0", "sp:q:low:0", "sp:q:build"):
                if self.redis_cli("xlen", s) != "0":
                    return False
                if not self.redis_cli("xpending", s, "executors").startswith("0"):
                    return False
            return self.live_records() == 0

        until("streams and pending lists are empty", streams_empty, seconds)
        until("no sandbox is left", lambda: not self.sandboxes(), seconds)

    def daemons(self):
        return self.gateways + self.executors + self.dispatchers + ([self.sandboxd] if self.sandboxd else [])

    def stop(self):
        for p in self.executors:
            if p.alive():
                p.signal(signal.SIGTERM)
        for p in self.all_proxies:
            p.heal()
        codes = {p.name: p.stop() for p in self.daemons()}
        for p in self.all_proxies:
            p.close()
        for p in (self.redis, self.postgres):
            if p:
                p.signal(signal.SIGINT) if p.alive() else None
                p.stop(10)
        bad = [line for p in self.daemons() for line in p.text().splitlines()
               if "ERROR: AddressSanitizer" in line or "runtime error:" in line or "ERROR: LeakSanitizer" in line
               or '"level":"fatal"' in line]
        shutil.rmtree(self.dir, ignore_errors=True) if not bad else None
        assert not bad, (bad, str(self.dir))
        return codes
