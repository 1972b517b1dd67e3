"""A Sandpiper on the simulated E2B whose daemons die at fail-points and are started again, and what must hold afterwards,
looked at from the outside."""

import http.client
import json
import os
import shutil
import threading
import time
import uuid

from failpoints import Failpoints
from sim_stack import AGENT, SimStack
from stack import Client, archive, in_threads, until
from usage_sums import differences
from webhook_receiver import OPEN, Receiver

DAEMONS = ("gateway", "executor", "dispatcher")
QUICK = {"SANDPIPER_TENANT_WINDOW": "8", "SANDPIPER_E2B_CREATES_PER_SECOND": "2000", "SANDPIPER_EXECUTOR_DRAIN": "300ms",
         "SANDPIPER_WEBHOOK_TIMEOUT": "500ms"}


def nonce_read(text):
    """(invocation or version, attempt) of a sandbox's nonce (shared/store/nonce.c)."""
    b = bytearray(uuid.UUID(text).bytes)
    attempt = (b[6] >> 4) << 2 | b[8] >> 6
    b[6], b[8] = b[6] & 0x0F | 0x70, b[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(b))), attempt


class Lane:
    """Two of each daemon; who dies is started again at once. Daemons of a kind share a file of fail-points."""

    def __init__(self, each=2, sim=None, **env):
        self.stack = s = SimStack(sim={"output": "ok", "creates_per_second": 20, **(sim or {})}, **{**QUICK, **OPEN, **env})
        s.sim["ledger"] = s.dir / "ledger"
        self.files = {d: Failpoints(s.dir / f"{d}.failpoints") for d in DAEMONS}
        self.receiver = Receiver()
        self.ended, self.lock = threading.Event(), threading.Lock()
        self.each = each
        self.accepted, self.once = {}, []
        self.deaths = []  # exit statuses
        self.n = 0

    # ---- its processes ----

    def start(self):
        s = self.stack
        s.start_postgres()
        s.psql("create database sandpiper", database="postgres", check=False)
        s.start_redis()
        s.cli("migrate")
        s.cli("secrets", "init", str(s.dir))
        s.key = s.new_key()
        s.start_sandboxd()
        for _ in range(self.each):
            s.add_dispatcher(**self.files["dispatcher"].env)
            s.add_gateway(**self.files["gateway"].env)
            s.add_executor(**self.files["executor"].env)
        s.client.deploy(AGENT, {"agent.json": '{"runtime": "command", "entry": "cat"}'})
        a = s.client.call("POST", "/v1/webhooks", {"url": self.receiver.url()})
        assert a.status == 201, a.body
        self.nurse = threading.Thread(target=self._nurse)
        self.nurse.start()
        return self

    def processes(self):
        return self.stack.gateways + self.stack.executors + self.stack.dispatchers

    def _nurse(self):
        while not self.ended.wait(0.02):
            for p in self.processes():
                if not p.alive():
                    self.deaths.append(p.child.wait())
                    p.start()

    def stop(self):
        if keep := os.environ.get("SP_KEEP"):  # the logs, for whoever looks for a reason
            shutil.copytree(self.stack.dir, keep, dirs_exist_ok=True, ignore=lambda d, n: [x for x in n if not x.endswith("log") and x != "ledger"])
        self.ended.set()
        self.nurse.join()
        self.receiver.close()
        self.stack.stop()

    # ---- load: what is answered is remembered ----

    def call(self, method, path, body=None, headers=None, seconds=30):
        """By any gateway that answers. None when one died with the call in hand: nobody knows what became of it."""
        stop = time.monotonic() + seconds
        while True:
            self.n += 1
            g = self.stack.gateways[self.n % len(self.stack.gateways)]
            try:
                a = Client(g.port, self.stack.key, 20).call(method, path, body, headers)
            except ConnectionRefusedError:
                a = None
            except (OSError, http.client.HTTPException):
                return None
            if a is not None and a.status != 503:
                return a
            assert time.monotonic() < stop, "no gateway answers"
            time.sleep(0.05)

    def submit(self, plan=None, expect="succeeded", key=None, prompt=None, **fields):
        """The id, or None when the answer was lost."""
        body = {"agent": AGENT, "prompt": prompt or json.dumps({"sim": plan or {"run_ms": 20}}), **fields}
        a = self.call("POST", "/v1/invocations", body, {"Idempotency-Key": key} if key else None)
        if a is None:
            return None
        assert a.status == 202, (a.status, a.body)
        with self.lock:
            self.accepted[a.json["id"]] = expect
        return a.json["id"]

    def refusal(self):
        """Why a submission is refused now; None when it is accepted."""
        try:
            a = Client(self.stack.gateways[0].port, self.stack.key).submit(AGENT, "x")
        except OSError:
            return "gone"
        if a.status != 202:
            return a.json["code"]
        self.accepted[a.json["id"]] = "succeeded"

    def jobs(self, n=4, **kw):
        return in_threads([lambda: self.submit(**kw)] * n, 8)

    def batch(self, n=20):
        line = json.dumps({"agent": AGENT, "prompt": json.dumps({"sim": {"run_ms": 20}})}).encode() + b"\n"
        a = self.call("POST", "/v1/batches", line * n, {"Content-Type": "application/x-ndjson"})
        assert a is None or a.status == 202, (a.status, a.body)

    def deploy(self, name):
        """Ready, whoever dies."""
        files = archive({"agent.json": '{"runtime": "command", "entry": "cat", "install": "true"}'})
        self.call("POST", f"/v1/agents?name={name}", files, {"Content-Type": "application/gzip"})

    def build_of(self, name):
        return self.call("GET", f"/v1/agents/{name}").json["latest_build"]

    def is_stopped(self, process):
        with open(f"/proc/{process.pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] == "T"

    def cancel(self, id):
        a = self.call("POST", f"/v1/invocations/{id}/cancel")
        assert a is None or a.status in (200, 202), (a.status, a.body)

    def tables_locked(self, seconds, *tables):
        """For that long no row can be written to them."""
        sql = f"begin; lock table {', '.join(tables)} in exclusive mode; select pg_sleep({seconds}); commit"
        t = threading.Thread(target=self.stack.psql, args=(sql,))
        t.start()
        until("the lock is held", lambda: self.stack.count(
            f"select count(*) from pg_locks where relation = '{tables[-1]}'::regclass and mode = 'ExclusiveLock' and granted") > 0)
        return t

    def running(self, n=1):
        """Waits for so many programs that run, as Redis says."""
        until(f"{n} run", lambda: sum(v.startswith("r ") for v in self.stack.redis_cli("hvals", "sp:live").splitlines()) >= n, 20)

    # ---- what must hold ----

    def quiet(self, seconds=40):
        """Everything ends: invocations, batches, builds, deliveries; and nothing of it is left anywhere."""
        s = self.stack
        open_rows = ("select (select count(*) from invocations i where not exists (select from results r where r.id = i.id)) + "
                     "(select count(*) from batches where ended_at is null) + (select count(*) from agent_versions where status = 0) + "
                     "(select count(*) from outbox)")
        # rows in a dead dispatcher's hand come due 21 s after they were taken: after one, here
        hurry = "update outbox set due_at = now() where owner is not null and due_at < now() + interval '20 s' and due_at > now(); "
        until("everything has ended", lambda: s.psql(hurry + open_rows) == "0", seconds, every=0.1)
        s.quiet(seconds)
        until("no will is left", lambda: s.redis_cli("keys", "sp:will:*") == "", seconds)

    def check(self):
        """Each accepted job has its one result, each sandbox of an attempt its one usage record, each end its one event; sums are
        those of all that."""
        s = self.stack
        names = {"1": "succeeded", "2": "failed", "3": "timed_out", "4": "canceled", "5": "expired", "6": "error"}
        results = {f"inv_{id}": names[status] for id, status in (
            line.split("|") for line in s.psql("select id, status from results").splitlines())}
        wrong = {id: (want, results.get(id)) for id, want in self.accepted.items()
                 if results.get(id) not in ((want,) if isinstance(want, str) else want)}
        assert not wrong, f"accepted jobs with another end: {wrong}"
        for what, sql in self.once:
            assert s.count(sql) == 1, what
        self.check_usage(set(results))
        assert not differences(s.psql), "sums are not those of results and usage"
        self.check_events(results)

    def warm(self, n):
        """So many sandboxes are made ahead for the agent, as soon as an executor looks."""
        self.stack.psql(f"update agent_versions set warm_min = {n}, warm_max = {n}")

    def boxes(self):
        """{sandbox: its line} of all that were made and are gone; it is written a moment later."""
        def lines():
            text, stats = self.stack.sim["ledger"].read_text(), self.stack.stats()
            assert stats["ledger_complete"], stats
            return text.endswith("\n") and text.count("\n") == stats["created"] - stats["live"] and text.splitlines()

        return {box["sandbox"]: box for box in map(json.loads, until("the ledger is written", lines))}

    def ledger(self):
        """{sandbox: (invocation or version, attempt)} of the same."""
        found = {name: nonce_read(box["metadata"]["nonce"]) for name, box in self.boxes().items()}
        return {name: (f"inv_{id}", attempt) for name, (id, attempt) in found.items()}

    def check_usage(self, invocations):
        usage = {}
        for line in self.stack.psql("select sandbox, id, attempt from usage").splitlines():
            box, id, attempt = line.split("|")
            assert box not in usage, f"{box} has two usage records"
            usage[box] = (f"inv_{id}", int(attempt))
        held = {box: of for box, of in self.ledger().items() if of[0] in invocations}
        lost = {box: of for box, of in held.items() if usage.get(box) != of}
        assert not lost, f"sandboxes without their usage record: {lost}"
        ahead = {name: box for name, box in self.boxes().items() if name not in held and box["template"] != "base"}
        unbilled = [name for name, box in ahead.items() if box["programs"] > 0 and name not in usage]
        assert not unbilled, f"sandboxes that were made ahead, used, and have no usage record: {unbilled}"
        assert max([box["programs"] for box in ahead.values()], default=0) <= 1, "a sandbox was used twice"
        assert not usage.keys() - held.keys() - ahead.keys(), "usage of sandboxes that never were"

    def check_events(self, results):
        """As often as need be, but under one webhook-id each."""
        ids = {}
        for got in self.receiver.got:
            if got.json["type"].startswith("invocation."):
                ids.setdefault(got.json["data"]["id"], set()).add(got.id)
                assert got.json["type"] == f"invocation.{results[got.json['data']['id']]}", got.json
        assert all(len(v) == 1 for v in ids.values()), "an event came under two ids"
        missing = set(results) - set(ids)
        assert not missing, f"ends that no webhook told: {missing}"

    def gone(self, daemon, name, seconds=20):
        """The point was reached and what is armed there was done."""
        until(f"{daemon} dies at {name}", lambda: self.files[daemon].left(name) == 0, seconds)

