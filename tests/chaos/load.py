"""What users do meanwhile: single jobs of every kind, keyed and repeated ones, callers who wait, webhooks, cancels, batches. Each caller
notes what it was promised and what it was told; the checks compare that with what is on record in the end."""

import contextlib
import http.client
import json
import random
import threading
import time

from stack import Client, archive

CALLERS, BATCH_ITEMS = 16, 120
CALL_S = 2.5  # a caller's patience for one call
KINDS = (("plain", 40), ("wait", 20), ("keyed", 12), ("hooked", 12), ("fails", 5), ("retried", 4), ("canceled", 7),
         ("large", 3))


class Job:
    """An accepted invocation."""

    def __init__(self, id, kind, at, order):
        self.id, self.kind, self.at, self.order = id, kind, at, order
        self.told = []  # finished records that a caller was given


class Load:
    def __init__(self, world, seed):
        self.world, self.seed, self.jobs, self.batches, self.wrong = world, seed, [], [], []
        self.lock, self.stopping = threading.Lock(), threading.Event()
        self.refused, self.broken = 0, 0  # answers that were no 2xx; calls without an answer
        self.threads = [threading.Thread(target=self.caller, args=(n,)) for n in range(CALLERS)]
        self.threads += [threading.Thread(target=self.batch), threading.Thread(target=self.build)]
        self.builds = []  # agents that were deployed

    def start(self):
        for t in self.threads:
            t.start()
        return self

    def stop(self, seconds=40):
        self.stopping.set()
        for t in self.threads:
            t.join(seconds)
        if any(t.is_alive() for t in self.threads):
            self.wrong.append("a caller still waits for an answer after its deadline")

    def client(self, rng):
        g = rng.choice(self.world.gateways)
        return Client(g.port, self.world.key, CALL_S)

    def call(self, rng, *a, **kw):
        try:
            answer = self.client(rng).call(*a, **kw)
        except (OSError, http.client.HTTPException):
            self.broken += 1
            return None
        if answer.status >= 300:
            self.refused += 1
            if answer.status not in (429, 503):
                self.wrong.append(f"{a[:2]}: {answer.status} {answer.body[:300]}")
            elif "Retry-After" not in answer.headers:
                self.wrong.append(f"{a[:2]}: {answer.status} without Retry-After: {answer.body[:300]}")
        return answer

    def keep(self, job):
        with self.lock:
            self.jobs.append(job)

    # ---- single jobs ----

    def caller(self, n):
        rng = random.Random(f"{self.seed}.{n}")
        i = 0
        while not self.stopping.is_set():
            i += 1
            kind = rng.choices([k for k, _ in KINDS], [w for _, w in KINDS])[0]
            getattr(self, kind)(rng, f"{self.seed}.{n}.{i}")
            self.stopping.wait(rng.uniform(0.01, 0.12))

    def submit(self, rng, kind, name, headers=None, run_ms=None, **fields):
        order = {"run_ms": run_ms or int(rng.choice((rng.uniform(5, 150), rng.uniform(5, 150), rng.uniform(200, 1500)))),
                 "output": f"out of {name}"}
        order.update(fields.pop("order", {}))
        order = {k: v for k, v in order.items() if v is not None}
        at = time.time()
        prompt = fields.pop("words", "") + json.dumps({"sim": order})
        body = {"agent": self.world.agent, "prompt": prompt, "metadata": {"name": name}, **fields}
        answer = self.call(rng, "POST", "/v1/invocations", body, headers)
        if answer is None or answer.status >= 300:
            return None
        job = Job(answer.json["id"], kind, at, order)
        if answer.status == 200:
            job.told.append(answer.json)
        self.keep(job)
        return job

    def plain(self, rng, name):
        self.submit(rng, "plain", name)

    def fails(self, rng, name):
        self.submit(rng, "fails", name, order={"exit_code": 3})

    def large(self, rng, name):
        self.submit(rng, "large", name, order={"output_bytes": 300_000, "output": None}, words="x" * 100_000)

    def retried(self, rng, name):
        self.submit(rng, "retried", name, order={"exit_code": 4}, run_ms=20, retry={"max_attempts": 2, "on": ["failed"]})

    def hooked(self, rng, name):
        self.submit(rng, "hooked", name, webhook={"url": self.world.receiver.url(f"/inv/{name}")})

    def wait(self, rng, name):
        job = self.submit(rng, "wait", name, {"Prefer": "wait=2"})
        if job is not None and not job.told and rng.random() < 0.5:
            answer = self.call(rng, "GET", f"/v1/invocations/{job.id}?wait=2")
            if answer is not None and answer.status == 200 and answer.json["finished_at"]:
                job.told.append(answer.json)

    def keyed(self, rng, name):
        """Asks with one key until it is answered, and sometimes once more: always the same invocation."""
        seen, again, run_ms = set(), rng.random() < 0.5, rng.randint(5, 300)
        for _ in range(12):
            job = self.submit(rng, "keyed", name, {"Idempotency-Key": f"key-{name}"}, run_ms)
            if job is not None:
                seen.add(job.id)
                if not again:
                    break
                again = False
            if self.stopping.wait(0.3):
                break
        if len(seen) > 1:
            self.wrong.append(f"one key, {len(seen)} invocations: {sorted(seen)}")

    def canceled(self, rng, name):
        job = self.submit(rng, "canceled", name, run_ms=rng.choice((500, 4000)))
        if job is None:
            return
        self.stopping.wait(rng.uniform(0, 0.4))
        answers = []
        for _ in range(4):
            answers.append(self.call(rng, "POST", f"/v1/invocations/{job.id}/cancel"))
            if answers[-1] is not None and answers[-1].status < 300:
                return
            time.sleep(0.2)
        if None not in answers:
            job.kind = "plain"  # refused each time: nothing is to come of it

    # ---- a deploy ----

    def build(self):
        rng = random.Random(f"{self.seed}.build")
        self.stopping.wait(rng.uniform(0, 1))
        name = f"built-{self.seed}"
        body = archive({"agent.json": '{"runtime": "command", "entry": "cat", "install": "true"}', "seed": str(self.seed)})
        for _ in range(20):
            answer = self.call(rng, "POST", f"/v1/agents?name={name}", body, {"Content-Type": "application/gzip"})
            if answer is not None and answer.status < 300:
                self.builds.append(name)
                return
            if self.stopping.wait(0.3):
                return

    # ---- a batch ----

    def batch(self):
        rng = random.Random(f"{self.seed}.batch")
        self.stopping.wait(rng.uniform(0, 1.5))
        names = [f"{self.seed}.b.{i}" for i in range(BATCH_ITEMS)]
        lines = [json.dumps({"custom_id": n, "agent": self.world.agent, "prompt": json.dumps(
            {"sim": {"run_ms": rng.randint(5, 150), "output": f"out of {n}"}})}) for n in names]
        headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": f"batch-{self.seed}"}
        url = self.world.receiver.url(f"/batch/{self.seed}").replace(":", "%3A").replace("/", "%2F")
        id = None
        for _ in range(40):
            answer = self.call(rng, "POST", f"/v1/batches?webhook={url}", "\n".join(lines).encode(), headers)
            if answer is not None and answer.status < 300:
                id = answer.json["id"]
                break
            if self.stopping.wait(0.3):
                break
        if id is None:
            return
        self.batches.append((id, names))
        while not self.stopping.is_set():
            self.look(rng, id)
            self.stopping.wait(0.15)

    def look(self, rng, id):
        answer = self.call(rng, "GET", f"/v1/batches/{id}")
        if answer is None or answer.status != 200:
            return
        b = answer.json
        if sum(b["counts"].values()) != BATCH_ITEMS or b["total"] != BATCH_ITEMS:
            self.wrong.append(f"a batch's counts do not add up to {BATCH_ITEMS}: {b}")

    def end_batches(self, seconds):
        """Waits for the batches' ends; the results of each."""
        results, stop = {}, time.monotonic() + seconds
        for id, names in self.batches:
            client = Client(self.world.gateways[0].port, self.world.key, 30)
            while time.monotonic() < stop:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    a = client.call("GET", f"/v1/batches/{id}")
                    if a.status == 200 and a.json["ended_at"]:
                        break
                time.sleep(0.1)
            else:
                self.wrong.append(f"batch {id} has not ended")
                continue
            lines = client.call("GET", f"/v1/batches/{id}/results").body.splitlines()
            results[id] = [json.loads(line) for line in lines]
        return results
