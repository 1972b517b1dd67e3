"""What must hold once everything is healed, seen from outside: through the API, in PostgreSQL, in Redis, and in E2B's own ledger."""

import collections
import datetime
import json
import os
import pathlib
import re

from campaign import nonce_read
from stack import Client, in_threads, until
from usage_sums import differences

END_S = 60  # until everything accepted has ended, after the last fault is healed
LEFT_S = 75  # until no sandbox is left: the reaper comes by once a minute
QUIET_S = 25  # until streams and live records are empty: the slow pass drops strays that are 10 s old, round by round
BOOT = re.compile(r'"claiming jobs","boot":"([^"]+)"')
STATES = ("succeeded", "failed", "timed_out", "canceled", "expired", "error")
# What stays in Redis when no work is there.
STAYS = ("sp:epoch", "sp:lead", "sp:execs", "sp:x:", "sp:ident", "sp:live", "sp:fence", "sp:gov", "sp:q:")
BUILT_ON = "base"  # the template of builds' sandboxes, which are billed to nobody
CHANGES = ("attempts",)  # of a finished record: an attempt that lost may still leave its usage


class Outcome:
    """What a seed came to: the columns of the table, and what was wrong."""

    def __init__(self, seed, faults):
        self.seed, self.faults = seed, faults
        self.jobs = self.lost = self.doubled = self.leaked = self.rerun = self.twice = 0
        self.refused = self.broken = 0
        self.recovery_ms, self.wrong, self.suspects = [], [], []

    def say(self, what, ids=()):
        self.wrong.append(what)
        self.suspects += list(ids)[:3]

    def row(self):
        return {k: v for k, v in vars(self).items() if k != "suspects"}


def expected(job):
    if job.kind == "fails":
        return {"failed"}
    if job.kind == "retried":
        return {"failed"}
    if job.kind == "canceled":
        return {"canceled", "succeeded"}
    return {"succeeded"}


class Checks:
    def __init__(self, world, load, outcome, before):
        self.w, self.load, self.o, self.before = world, load, outcome, before

    # ---- every accepted job has one outcome, the one that it should have ----

    def open_jobs(self):
        return self.w.count("select count(*) from invocations i where not exists (select from results r where r.id = i.id)")

    def all_end(self):
        try:
            until("everything accepted has ended", lambda: self.open_jobs() == 0, END_S, 0.2)
        except AssertionError:
            rows = self.w.rows("select id from invocations i where not exists (select from results r where r.id = i.id) limit 100")
            self.o.lost += self.open_jobs()
            self.o.say(f"{self.o.lost} jobs have not ended {END_S} s after everything was healed", [r["id"] for r in rows])

    def outcomes(self):
        jobs = {j.id[4:]: j for j in self.load.jobs}
        rows = self.w.rows("select id, status, attempt, convert_from(output, 'UTF8') as output, output_bytes, output_truncated, error_code from results")
        results = {r["id"]: r for r in rows}
        self.o.jobs = len(jobs)
        lost = [i for i in jobs if i not in results]
        if lost:
            self.o.lost = max(self.o.lost, len(lost))
            self.o.say(f"{len(lost)} accepted jobs have no result", lost)
        for id, job in jobs.items():
            if id in results:
                self.outcome(id, job, results[id])
        changed = self.w.count("select coalesce(sum(n_tup_upd + n_tup_del), 0) from pg_stat_user_tables where relname like 'results%'")
        if changed:
            self.o.doubled += changed
            self.o.say(f"{changed} recorded outcomes were changed")

    def outcome(self, id, job, row):
        state = STATES[row["status"] - 1]
        if state == "error" and row["error_code"] == "job_sandbox_lost" and any(f.startswith("e2b: ") for f in self.o.faults):
            return  # lost after its start four times
        if state not in expected(job):
            self.o.say(f"{job.kind} job {id} is {state} ({row['error_code']})", [id])
        elif state == "canceled" or row["output_truncated"]:
            return  # some of it may be missing, and the record says so
        elif job.kind == "large" and row["output_bytes"] != job.order["output_bytes"]:
            self.o.say(f"large job {id} has {row['output_bytes']} bytes of output", [id])
        elif job.kind != "large" and row["output"] != job.order["output"]:
            self.o.say(f"{job.kind} job {id} has another's output: {row['output']!r}", [id])
        if job.kind == "retried" and row["attempt"] < 2:
            self.o.say(f"job {id} asked for a second attempt and had {row['attempt']}", [id])

    def told(self):
        """Whoever was given a finished record was given what is on record."""
        client = Client(self.w.gateways[0].port, self.w.key, 30)
        jobs = [j for j in self.load.jobs if j.told]
        for job, now in zip(jobs, in_threads([lambda j=j: client.get(j.id) for j in jobs], 8)):
            for then in job.told:
                if any(then[k] != now[k] for k in now if k not in CHANGES):
                    self.o.doubled += 1
                    self.o.say(f"{job.id}: a caller was told something else than what is on record", [job.id[4:]])

    # ---- sandboxes and what they are billed as ----

    def sandboxes(self):
        self.w.warm(0)
        try:
            until("no sandbox is left", lambda: self.w.stats()["live"] == 0, LEFT_S, 0.1)
        except AssertionError:
            self.o.leaked = self.w.stats()["live"]
            self.o.say(f"{self.o.leaked} sandboxes are left")
        made = {i: d for i, d in self.w.ledger().items() if i not in self.before and d["template"] != BUILT_ON}
        known = {r["id"] for r in self.w.rows("select id from invocations")}
        ahead = {i: d for i, d in made.items() if nonce_read(d["metadata"]["nonce"])[0] not in known}
        made = {i: d for i, d in made.items() if i not in ahead}
        attempts = {nonce_read(d["metadata"]["nonce"]): d for d in made.values()}
        self.ran_twice(made)
        self.o.twice = len(made) - len(attempts)  # creates whose answer was lost, and were asked for again

        def usage():
            return self.w.rows("select u.id, attempt, sandbox from usage u")

        def missing():
            rows = usage()
            billed, boxes = {(r["id"], r["attempt"]) for r in rows}, {r["sandbox"] for r in rows}
            return [a for a in attempts if a not in billed] + [i for i, d in ahead.items() if d["programs"] and i not in boxes]

        try:
            until("usage is written", lambda: not missing(), 20, 0.2)
        except AssertionError:
            left = missing()
            self.o.say(f"{len(left)} of {len(attempts) + len(ahead)} attempts that had a sandbox have no usage record: {left[:3]}",
                       [a[0] for a in left if isinstance(a, tuple)])
        rows = usage()
        keys = [(r["id"], r["attempt"]) for r in rows]
        boxes = [r["sandbox"] for r in rows if r["sandbox"]]
        if len(set(boxes)) != len(boxes) or len(set(keys)) != len(keys):
            self.o.say("an attempt or a sandbox has two usage records")
        if max([d["programs"] for d in ahead.values()], default=0) > 1:
            self.o.say("a sandbox that was made ahead was used twice")
        made.update(ahead)
        return made, [r for r in rows if r["sandbox"] in made]

    def ran_twice(self, made):
        """An attempt runs once. But who loses Redis and an executor at once knows nothing of what that one ran."""
        ran = {}
        for d in made.values():
            if d["programs"] > 0:
                ran.setdefault(nonce_read(d["metadata"]["nonce"]), []).append(d["metadata"]["executor_boot"])
        living = {boot for p in self.w.executors for boot in BOOT.findall(p.text())[-1:]}
        forgotten = any(f.startswith("redis: ") for f in self.o.faults)
        again = [a for a, boots in ran.items() if len(boots) > 1 and not (forgotten and set(boots) - living)]
        if again:
            self.o.say(f"{len(again)} attempts ran twice: {[(a, ran[a]) for a in again[:3]]}", [id for id, _ in again])

    def run_again(self, usage):
        asked = {j.id[4:] for j in self.load.jobs if j.kind == "retried"}
        ran = collections.Counter(r["id"] for r in usage)
        self.o.rerun = sum(1 for i, n in ran.items() if n > 1 and i not in asked)

    def sums(self):
        """Of usage: what is folded and what is not, as results and usage have it, before and after the last fold."""
        for when in ("at once", "when all is folded"):
            wrong = differences(self.w.psql)
            if wrong:
                self.o.say(f"{len(wrong)} sums of usage are not what ran, {when}: {wrong[:3]}")
            try:
                until("all is folded", lambda: self.w.count("select count(*) from usage_deltas") == 0, 20, 0.2)
            except AssertionError as e:
                self.o.say(str(e))

    # ---- webhooks and batches ----

    def webhooks(self):
        try:
            until("all webhooks are delivered", lambda: self.w.count("select count(*) from outbox") == 0, END_S, 0.2)
        except AssertionError:
            self.o.say(f"{self.w.count('select count(*) from outbox')} webhooks are not delivered")
        with self.w.receiver.lock:
            got = list(self.w.receiver.got)
        ids = {}
        for g in got:
            ids.setdefault(g.path, set()).add(g.id)
        double = {p: len(i) for p, i in ids.items() if len(i) > 1}
        if double:
            self.o.say(f"an end has several webhook ids: {dict(list(double.items())[:3])}")
        hooked = {f"/inv/{j.order['output'].removeprefix('out of ')}": j.id[4:] for j in self.load.jobs if j.kind == "hooked"}
        hooked.update({f"/batch/{self.load.seed}": id for id, _ in self.load.batches})
        missing = [p for p in hooked if p not in ids]
        if missing:
            self.o.lost += len(missing)
            self.o.say(f"{len(missing)} of {len(hooked)} webhooks never came: {missing[:3]}", [hooked[p] for p in missing])

    def batches(self):
        results = self.load.end_batches(END_S)
        for id, names in self.load.batches:
            lines = results.get(id, [])
            got = [r["custom_id"] for r in lines]
            if sorted(got) != sorted(names):
                self.o.say(f"batch {id}: {len(got)} results, {len(set(got))} different, of {len(names)}", [id])
            wrong = [r for r in lines if r["status"] != "succeeded" or
                     (r["output"] != f"out of {r['custom_id']}" and not r["output_truncated"])]
            if wrong:
                self.o.say(f"batch {id}: {len(wrong)} items ended as they should not: {json.dumps(wrong[0])[:400]}",
                           [wrong[0]["id"][4:]])
            self.o.jobs += len(names)

    def builds(self):
        client = Client(self.w.gateways[0].port, self.w.key, 30)
        for name in self.load.builds:
            try:
                until(f"{name} is built", lambda n=name: client.call("GET", f"/v1/agents/{n}").json["status"] == "ready", END_S, 0.2)
            except AssertionError as e:
                self.o.say(f"{e}: {client.call('GET', f'/v1/agents/{name}').json}")

    # ---- nothing is left over ----

    def quiet(self):
        try:
            self.w.quiet(QUIET_S)
        except AssertionError as e:
            left = {s: self.w.redis_cli("xlen", s) for s in ("sp:q:high:0", "sp:q:normal:0", "sp:q:low:0", "sp:q:build")}
            self.o.say(f"{e}: {left}, sp:live {self.w.redis_cli('hgetall', 'sp:live')[:500]!r}")
        strange = [k for k in self.w.redis_cli("keys", "*").split() if not k.startswith(STAYS)]
        if strange:
            self.o.say(f"keys are left in Redis: {strange[:5]}")

    def daemons(self):
        for p in self.w.daemons():
            if not p.alive():
                self.o.say(f"{p.name} has ended by itself")
        try:
            until("descriptors are back", lambda: not self.too_many(), 20, 0.2)
        except AssertionError:
            self.o.say(f"descriptors, and before: {self.too_many()}")
        bad = [f"{p.name}: {line[:300]}" for p in self.w.daemons() for line in p.text().splitlines()
               if "ERROR: AddressSanitizer" in line or "runtime error:" in line or '"level":"fatal"' in line]
        if bad:
            self.o.say(f"a daemon's log: {bad[:2]}")
        self.w.calm = self.w.calm or descriptors(self.w)

    def too_many(self):
        calm = self.w.calm or descriptors(self.w)
        most = {p: max(n for q, n in calm.items() if q.split("-")[0] == p.split("-")[0]) for p in calm}
        return {p: (n, most[p]) for p, n in descriptors(self.w).items() if n > most[p] * 1.5 + 128}

    def recover(self, hits, made, usage):
        """From a fault's moment to the start of each job that was there and had not (or in vain) been started."""
        began = {}
        for r in usage:
            began[r["id"]] = max(began.get(r["id"], 0), moment(made[r["sandbox"]]["created_at"]))
        for hit, _ in hits:
            for j in self.load.jobs:
                start = began.get(j.id[4:])
                if start and j.at < hit < start and j.kind != "retried":
                    self.o.recovery_ms.append(round((start - hit) * 1000))

    def all(self, hits):
        self.o.wrong += list(dict.fromkeys(self.load.wrong))[:5]
        self.o.refused, self.o.broken = self.load.refused, self.load.broken
        self.all_end()
        self.batches()
        self.builds()
        self.outcomes()
        self.told()
        self.webhooks()
        made, usage = self.sandboxes()
        self.sums()
        self.quiet()
        self.daemons()
        self.run_again(usage)
        self.recover(hits, made, usage)


def moment(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def descriptors(world):
    return {p.name: len(os.listdir(f"/proc/{p.pid}/fd")) for p in world.daemons() if p.alive()}


def resident(world):
    found = {}
    for p in world.daemons():
        for line in pathlib.Path(f"/proc/{p.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                found[p.name] = int(line.split()[1]) * 1024
    return found


def history(world, id):
    """All that is known of an invocation."""
    text = [f"== {id}"]
    for table in ("invocations", "attempts", "results", "usage", "cancels", "outbox", "batches"):
        rows = world.rows(f"select * from {table} where id = '{id}'")
        text += [f"{table}: {json.dumps(r)[:1500]}" for r in rows]
        text += [f"ledger: {json.dumps(world.ledger().get(r['sandbox']))}" for r in rows if table == "usage"]
    live = world.redis_cli("hget", "sp:live", id, check=False)
    text.append(f"sp:live: {live!r}")
    for p in world.daemons():
        text += [f"{p.name}: {line[:600]}" for line in p.text().splitlines() if id in line]
    return "\n".join(text)
