"""Secrets are nowhere but in the programs: PostgreSQL's files, Redis's AOF and commands, all logs, and what /proc tells of
the daemons, taken under load, hold none. What is looked for is found where it is meant to be: the search is tried, too."""

import base64
import contextlib
import os
import pathlib
import secrets as dice
import subprocess
import threading

import pytest

from stack import Stack, in_threads, until

# Says its secrets on stderr, in pieces, among much else, and in the way that its prompt asks for.
TELLS = {"agent.json": '{"runtime": "python"}', "main.py": """
import os, sys, time
how = sys.stdin.read().split()[0]
values = [v for k, v in os.environ.items() if k.startswith("S_")]
for v in values:
    for at in range(0, len(v), 5):
        os.write(2, v[at:at + 5].encode())
    os.write(2, b" ordinary words\\n" * (6000 if how == "much" else 1))
time.sleep(0.2)
if how == "fails":
    sys.exit(3)
if how == "hangs":
    time.sleep(60)
print("done")
"""}
JOBS = 120


@pytest.fixture
def stack():
    s = Stack(SANDPIPER_LOG_LEVEL="debug").start(executors=2)
    s.psql("alter system set log_statement = 'all'")
    s.psql("select pg_reload_conf()")
    for setting in (("appendonly", "yes"), ("appendfsync", "always")):
        s.redis_cli("config", "set", *setting)
    yield s
    s.stop()


def forms(secret):
    """As it is, and as logs and dumps may write bytes."""
    raw = secret.encode()
    for skip in range(3):  # in base64 at each of its three places
        text = base64.b64encode(b"\0" * skip + raw)
        yield text[(0, 2, 3)[skip]:len(text) - 4].strip(b"=")
    yield from (raw, raw.hex().encode(), raw.hex().upper().encode())


def holds(data, secrets):
    return [s for s in secrets if any(f in data for f in forms(s))]


def files_with(root, secrets):
    found = {}
    for path in pathlib.Path(root).rglob("*"):
        if path.is_file() and not path.is_symlink():
            with contextlib.suppress(FileNotFoundError):
                if hit := holds(path.read_bytes(), secrets):
                    found[str(path)] = hit
    return found


def children(pid):
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                yield int(child)
                yield from children(int(child))


def is_first_inside(pid):
    """Pid 1 of a sandbox: bubblewrap until it has become the supervisor."""
    return any(line.split()[-1] == "1" for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
               if line.startswith("NSpid:"))


def look_at_processes(stack, secrets, seen, found):
    """Arguments of everything; the environment of the daemons and of all that is ours around a sandbox's programs."""
    ours = {p.pid for p in stack.daemons()}
    around = set(children(stack.sandboxd.pid))
    for pid in [int(p) for p in os.listdir("/proc") if p.isdigit()]:
        with contextlib.suppress(OSError):
            exe = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
            pieces = {"cmdline": pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()}
            first = pid in around and is_first_inside(pid)
            if pid in ours or first or (pid in around and exe.startswith(("sandpiper", "bwrap", "slirp4netns"))):
                pieces["environ"] = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
                seen.add("the supervisor" if first and exe != "bwrap" else exe)
            for what, data in pieces.items():
                if hit := holds(data, secrets):
                    found[f"{exe} {what}"] = hit


def test_secrets_are_nowhere_else(stack, tmp_path):
    client = stack.client
    client.deploy("tells", TELLS)
    agents = [dice.token_hex(20) for _ in range(4)]
    own = [dice.token_hex(20) for _ in range(JOBS)]
    canary = "canary-" + dice.token_hex(20)
    for n, value in enumerate(agents):
        assert client.call("PUT", f"/v1/agents/tells/secrets/S_{n}", {"value": value}).status == 200
    secrets = agents + own
    seen, found, over = set(), {}, threading.Event()
    with open(tmp_path / "monitor", "wb") as out:
        monitor = subprocess.Popen(["redis-cli", "-s", str(stack.dir / "redis.sock"), "monitor"], stdout=out)

    def watch():
        while not over.is_set():
            look_at_processes(stack, secrets, seen, found)

    def job(n):
        how = ("succeeds", "fails", "much", "succeeds", "hangs")[n % 5]
        # One who looks at it live, one whose key is used twice, one that is tried again, one that is refused.
        fields = {"env": {"S_OWN": own[n]}, "timeout_s": 5 if how == "hangs" else 60}
        if n % 7 == 0:
            client.submit("tells", how, env={"S_OWN": own[n], "bad name": own[n]})
        a = client.submit("tells", f"{how} {canary}", idempotency_key=f"k{n}" if n % 3 == 0 else None,
                          retry={"max_attempts": 2}, **fields)
        assert a.status == 202, a.body
        if n % 4 == 0:
            events = client.call("GET", f"/v1/invocations/{a.json['id']}/events").body
            assert not holds(events, secrets)
        r = client.end(a.json["id"])
        assert r["status"] == {"fails": "failed", "hangs": "timed_out"}.get(how, "succeeded"), r
        log = client.call("GET", f"/v1/invocations/{r['id']}/logs").body
        assert not holds(log, secrets) and log.count(b"[redacted:S_") == 5, log[:500]
        return r["id"]

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        ids = in_threads([lambda n=n: job(n) for n in range(JOBS)], workers=24)
        a = client.call("POST", f"/v1/invocations/{ids[0]}/retry", {}, {"Prefer": "wait=60"})
        assert a.json["status"] == "succeeded"
    finally:
        over.set()
        watcher.join()
    assert {"the supervisor", *(f"sandpiper-{d}" for d in ("gateway", "dispatcher", "executor", "sandboxd"))} <= seen, seen
    assert not found, found
    monitor.terminate()
    monitor.wait()
    stack.psql("checkpoint")
    pg, rest = files_with(stack.dir / "pg", [*secrets, canary]), {}
    for path in [*stack.dir.glob("*.log"), *stack.dir.glob("append*/*"), tmp_path / "monitor"]:
        if path.is_file() and (hit := holds(path.read_bytes(), [*secrets, canary])):
            rest[str(path)] = hit
    everywhere = {**pg, **rest}
    assert not {p: h for p, h in everywhere.items() if set(h) != {canary}}
    # The search is one that finds: the prompt is in tables and in the WAL, in the log of statements, and in the stream.
    assert any("/base/" in p for p in pg) and any("/pg_wal/" in p for p in pg)
    assert any(p.endswith("postgres.log") for p in rest) and any("append" in p for p in rest)
    assert str(tmp_path / "monitor") in rest
    dump = subprocess.run(["/usr/lib/postgresql/15/bin/pg_dump", "-h", str(stack.dir / "run"), "-U", "sandpiper", "sandpiper"],
                          capture_output=True, check=True).stdout
    assert holds(dump, [*secrets, canary]) == [canary]
    until("everything has ended", lambda: not stack.sandboxes())
