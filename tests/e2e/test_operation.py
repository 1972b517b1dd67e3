"""Running it: configuration that says what is wrong, daemons that wait for one another, stops that nobody notices."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time

import pytest

import fault_proxy as fault
from e2e_agents import AGENTS, make_stack
from stack import BIN, PG_BIN, Client, Stack, archive, free_port, until

DAEMONS = ("gateway", "dispatcher", "executor", "sandboxd")
NEEDED = {"SANDPIPER_DATABASE_URL": "postgresql://u@/db?host=/tmp", "SANDPIPER_REDIS_URL": "unix:///tmp/r.sock",
          "E2B_API_KEY": "e2b_" + "0" * 40}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root")


def order(**kw):
    return json.dumps(kw)


# ---- configuration ----

def check(daemon, *argv, **env):
    e = {k: v for k, v in os.environ.items() if not k.startswith(("SANDPIPER_", "E2B_"))}
    e.update({k: v for k, v in {**NEEDED, **env}.items() if v is not None})
    return subprocess.run([str(BIN / f"sandpiper-{daemon}"), *argv], env=e, capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_good_configuration_is_ok(daemon):
    r = check(daemon, "--check-config")
    assert (r.returncode, r.stdout, r.stderr) == (0, "configuration ok\n", "")


@pytest.mark.parametrize("daemon, env, says", [
    ("gateway", {"SANDPIPER_GATEWAY_LISTN": "127.0.0.1:1"}, ["SANDPIPER_GATEWAY_LISTN", "did you mean SANDPIPER_GATEWAY_LISTEN?"]),
    ("executor", {"SANDPIPER_EXECUTER_JOBS": "5"}, ["SANDPIPER_EXECUTER_JOBS", "did you mean SANDPIPER_EXECUTOR_JOBS?"]),
    ("dispatcher", {"SANDPIPER_ELEPHANT": "5"}, ["SANDPIPER_ELEPHANT", "--help lists the keys"]),
    ("sandboxd", {"SANDPIPER_SANDBOXD_MEMROY": "1g"}, ["did you mean SANDPIPER_SANDBOXD_MEMORY?"]),
    ("gateway", {"SANDPIPER_GATEWAY_LISTEN": "localhost:8080"}, ["SANDPIPER_GATEWAY_LISTEN", "address:port"]),
    ("gateway", {"SANDPIPER_GATEWAY_LISTEN": "127.0.0.1:99999"}, ["SANDPIPER_GATEWAY_LISTEN", "address:port"]),
    ("gateway", {"SANDPIPER_GATEWAY_MAX_CONNECTIONS": "many"}, ["SANDPIPER_GATEWAY_MAX_CONNECTIONS", "whole number", "many"]),
    ("executor", {"SANDPIPER_EXECUTOR_JOBS": "0"}, ["SANDPIPER_EXECUTOR_JOBS", "from 1 to 20000"]),
    ("executor", {"SANDPIPER_EXECUTOR_JOBS": "999999999999999999999"}, ["SANDPIPER_EXECUTOR_JOBS", "whole number"]),
    ("executor", {"SANDPIPER_EXECUTOR_DRAIN": "5 parsecs"}, ["SANDPIPER_EXECUTOR_DRAIN", "250ms, 5s, 2m or 24h"]),
    ("executor", {"SANDPIPER_EXECUTOR_SPOOL_BYTES": "1t"}, ["SANDPIPER_EXECUTOR_SPOOL_BYTES", "64k, 10m or 1g"]),
    ("gateway", {"SANDPIPER_GATEWAY_REUSE_PORT": "maybe"}, ["SANDPIPER_GATEWAY_REUSE_PORT", "true or false"]),
    ("executor", {"E2B_API_URL": "somewhere"}, ["E2B_API_URL", "scheme://"]),
    ("executor", {"E2B_API_KEY": None}, ["E2B_API_KEY is required"]),
    ("executor", {"E2B_API_KEY": None, "E2B_API_KEY_FILE": "/no/such/file"}, ["E2B_API_KEY_FILE", "/no/such/file", "No such file"]),
    ("gateway", {"SANDPIPER_DATABASE_URL": None}, ["SANDPIPER_DATABASE_URL is required"]),
    ("gateway", {"SANDPIPER_DATABASE_URL": "mysql://x/y"}, ["SANDPIPER_DATABASE_URL", "postgresql://"]),
    ("dispatcher", {"SANDPIPER_REDIS_URL": "http://x"}, ["SANDPIPER_REDIS_URL", "redis://"]),
    ("dispatcher", {"SANDPIPER_REDIS_URL": "redis://:badport:x/"}, ["SANDPIPER_REDIS_URL"]),
    ("gateway", {"SANDPIPER_LOG_LEVEL": "loud"}, ["SANDPIPER_LOG_LEVEL", "debug, info, warn or error"]),
])
def test_a_fault_names_the_key_and_what_is_wrong(daemon, env, says):
    r = check(daemon, "--check-config", **env)
    assert r.returncode == 2 and "configuration ok" not in r.stdout
    for words in says:
        assert words in r.stderr, r.stderr
    assert check(daemon, **env).returncode == 2, "the daemon does not start with it either"


def test_all_faults_are_told_at_once():
    r = check("executor", "--check-config", SANDPIPER_EXECUTOR_JOBS="x", SANDPIPER_EXECUTOR_DRAIN="y", E2B_API_KEY=None)
    assert r.returncode == 2 and len(r.stderr.splitlines()) == 3


def test_a_file_serves_all_daemons_and_its_faults_have_lines(tmp_path):
    file = tmp_path / "sandpiper.env"
    file.write_text("# shared\n" + "".join(f"{k}={v}\n" for k, v in NEEDED.items()) +
                    'SANDPIPER_GATEWAY_LISTEN="127.0.0.1:0"\nSANDPIPER_EXECUTOR_JOBS=7\n')
    none = {k: None for k in NEEDED}
    for daemon in DAEMONS:
        r = check(daemon, "--check-config", "--config", str(file), **none)
        assert r.returncode == 0, r.stderr
    assert "SANDPIPER_EXECUTOR_JOBS=7\n" in check("executor", "--print-config", "--config", str(file), **none).stdout
    assert "SANDPIPER_EXECUTOR_JOBS=9\n" in check("executor", "--print-config", "--config", str(file),
                                                  SANDPIPER_EXECUTOR_JOBS="9", **none).stdout, "the environment wins"
    file.write_text("SANDPIPER_REDIS_URL=redis://x\nthis is no pair\nSANDPIPER_REDDIS_URL=redis://y\n")
    r = check("gateway", "--check-config", "--config", str(file))
    assert r.returncode == 2
    assert "line 2: expected KEY=value" in r.stderr and "line 3: unknown key SANDPIPER_REDDIS_URL; did you mean " in r.stderr
    r = check("gateway", "--check-config", "--config", str(tmp_path / "none"))
    assert r.returncode == 2 and "none: No such file" in r.stderr


@pytest.mark.parametrize("daemon", DAEMONS)
def test_what_is_printed_holds_no_secret(daemon):
    r = check(daemon, "--print-config", SANDPIPER_DATABASE_URL="postgresql://u:hush@h/db", SANDPIPER_REDIS_URL="redis://:hush@h",
              E2B_API_KEY="e2b_hush")
    assert r.returncode == 0 and "hush" not in r.stdout + r.stderr
    keys = [line.split("=")[0] for line in r.stdout.splitlines()]
    assert keys and len(set(keys)) == len(keys)
    help = check(daemon, "--help").stdout
    assert all(f"  {k} (" in help for k in keys), "help and print know the same keys"


@pytest.mark.parametrize("daemon", DAEMONS)
def test_wrong_options(daemon):
    for argv in (["--no-such-option"], ["--config"], ["stray"]):
        r = check(daemon, *argv)
        assert r.returncode == 2 and argv[0] in r.stderr, (argv, r.stderr)
    assert re.match(rf"sandpiper-{daemon} \d+\.\d+", check(daemon, "--version").stdout)


# ---- start order ----

@as_root
def test_the_start_order_does_not_matter():
    stack = Stack()
    try:
        port = free_port()
        daemons = [stack._daemon("gateway", {"SANDPIPER_GATEWAY_LISTEN": f"127.0.0.1:{port}"}),
                   stack._daemon("executor"), stack._daemon("dispatcher")]
        gateway, executor, dispatcher = daemons
        gateway.port = port
        stack.gateways, stack.executors, stack.dispatchers = [gateway], [executor], [dispatcher]
        for d in daemons:
            d.said("waiting for PostgreSQL")
            d.said("Redis is not available")
        executor.said("waiting for the sandbox service")
        executor.said("does not answer")
        stack.start_sandboxd()
        stack.start_redis()
        for d in daemons:
            d.said("connected to Redis")
        stack.start_postgres()
        stack.psql("create database sandpiper", database="postgres", check=False)
        for d in daemons:
            d.said("run `sandpiper migrate`")
        assert "claiming jobs" not in executor.text()
        stack.cli("migrate")
        stack.key = stack.new_key()
        until("the gateway is ready", lambda: ready(port), 30)
        stack.client.deploy("echo", AGENTS["echo"])
        assert stack.client.run("echo", "all of us are here")["status"] == "succeeded"
        stack.quiet()
    finally:
        stack.stop()


def ready(port):
    with contextlib.suppress(OSError):
        return Client(port, None, 5).call("GET", "/readyz").status == 200


@as_root
def test_a_wrong_key_for_the_sandbox_service_is_said_and_spends_nothing():
    stack = Stack()
    try:
        proxy = fault.FaultProxy(stack.sandboxd_port)
        stack.extra = {"E2B_API_URL": f"http://127.0.0.1:{proxy.port}", "E2B_SANDBOX_URL": f"http://127.0.0.1:{proxy.port}"}
        rule = proxy.on("POST", "^/(v2/)?sandboxes$", fault.status(401), times=10**6)
        stack.start(executors=0)
        executor = stack._daemon("executor")
        stack.executors.append(executor)
        executor.said("refuses the API key (401): check E2B_API_KEY")
        assert "claiming jobs" not in executor.text()
        proxy.heal()
        executor.said("claiming jobs")
        assert rule.hits > 0
        proxy.close()
    finally:
        stack.stop()


# ---- stopping ----

@pytest.fixture
def made():
    stacks = []

    def make(**kw):
        stacks.append(make_stack(**kw))
        return stacks[-1]

    yield make
    for s in stacks:
        s.stop()


@pytest.fixture
def proxied():
    """A Sandpiper whose executors reach the sandbox host through `proxy`."""
    s = Stack()
    proxy = fault.FaultProxy(s.sandboxd_port)
    url = f"http://127.0.0.1:{proxy.port}"
    s.extra = {"E2B_API_URL": url, "E2B_SANDBOX_URL": url, "SANDPIPER_EXECUTOR_DRAIN": "1s"}
    s.start()
    s.client.deploy("echo", AGENTS["echo"])
    yield s, proxy
    proxy.close()
    s.stop()


def attempts(stack, id):
    return stack.count(f"select count(*) from usage where id = '{id[4:]}'")


def struck_off(stack, executor):
    boot = re.search(r'"boot":"([0-9a-f-]+)"', executor.text()).group(1)
    return boot not in stack.redis_cli("smembers", "sp:execs")


@as_root
def test_a_stopping_executor_lets_its_jobs_end(made):
    stack = made()
    executor = stack.executors[0]
    ids = [stack.client.submit("probe", order(sleep=2, text=str(n))).json["id"] for n in range(8)]
    until("all run", lambda: all(stack.client.get(i)["status"] == "running" for i in ids))
    executor.signal(signal.SIGTERM)
    executor.said('"msg":"stopping"')
    late = stack.client.submit("echo", "for another").json["id"]
    assert executor.child.wait(timeout=30) == 0
    for n, id in enumerate(ids):
        r = stack.client.end(id, 5)
        assert (r["status"], r["output"], r["attempt"]) == ("succeeded", str(n), 1)
    assert stack.client.get(late)["status"] == "queued", "nothing more was claimed"
    assert struck_off(stack, executor)
    stack.add_executor()
    assert stack.client.end(late)["attempt"] == 1
    assert "an executor is dead" not in stack.dispatchers[0].text()
    stack.quiet()


@as_root
def test_what_does_not_end_in_time_is_handed_back(made):
    stack = made(env={"SANDPIPER_EXECUTOR_DRAIN": "1s"})
    first = stack.executors[0]
    ids = [stack.client.submit("probe", order(sleep=6, text=str(n)), retry={"max_attempts": 1}).json["id"] for n in range(5)]
    until("all run", lambda: all(stack.client.get(i)["status"] == "running" for i in ids))
    stack.add_executor()
    first.signal(signal.SIGTERM)
    assert first.child.wait(timeout=30) == 0
    assert len(stack.sandboxes()) <= 5, "its own sandboxes are destroyed before it leaves"
    for n, id in enumerate(ids):
        r = stack.client.end(id, 30)
        assert (r["status"], r["output"], r["attempt"]) == ("succeeded", str(n), 2)
        assert attempts(stack, id) == 2, "each attempt that held a sandbox has its usage"
    assert struck_off(stack, first)
    assert "an executor is dead" not in stack.dispatchers[0].text()
    stack.quiet()


@as_root
def test_what_has_no_sandbox_yet_goes_back_as_it_came(proxied):
    stack, proxy = proxied
    first = stack.executors[0]
    proxy.on("POST", "^/(v2/)?sandboxes$", fault.status(429, Retry_After="2"), times=1)
    id = stack.client.submit("echo", "patience").json["id"]
    until("it met the quota", lambda: "quota is reached" in first.text())
    first.signal(signal.SIGTERM)
    assert first.child.wait(timeout=30) == 0
    stack.add_executor()
    r = stack.client.end(id, 30)
    assert (r["status"], r["attempt"]) == ("succeeded", 1)
    assert attempts(stack, id) == 1
    stack.quiet()


@as_root
def test_a_create_under_way_is_waited_for_and_does_not_leak(proxied):
    stack, proxy = proxied
    proxy.on("POST", "^/(v2/)?sandboxes$", fault.delay(3))
    first = stack.executors[0]
    id = stack.client.submit("echo", "slowly").json["id"]
    until("it is starting", lambda: stack.client.get(id)["status"] == "starting")
    first.signal(signal.SIGTERM)
    assert first.child.wait(timeout=30) == 0
    until("no sandbox is left", lambda: not stack.sandboxes(), 5)
    stack.add_executor()
    r = stack.client.end(id, 30)
    assert (r["status"], r["attempt"]) == ("succeeded", 2)
    assert attempts(stack, id) == 2
    stack.quiet()


@as_root
def test_a_second_signal_hands_back_at_once(made):
    stack = made()
    first = stack.executors[0]
    id = stack.client.submit("probe", order(sleep=5, text="done")).json["id"]
    until("it runs", lambda: stack.client.get(id)["status"] == "running")
    stack.add_executor()
    first.signal(signal.SIGTERM)
    first.said('"msg":"stopping"')
    first.signal(signal.SIGTERM)
    assert first.child.wait(timeout=20) == 0
    r = stack.client.end(id, 30)
    assert (r["status"], r["attempt"]) == ("succeeded", 2)
    stack.quiet()


@as_root
def test_builds_survive_a_stopping_executor(made):
    stack = made(env={"SANDPIPER_EXECUTOR_DRAIN": "1s"})
    first = stack.executors[0]
    a = stack.client.call("POST", "/v1/agents?name=slow", tar("sleep 8; echo built >&2"), {"Content-Type": "application/gzip"})
    assert a.status == 202
    until("its install step runs", lambda: len(stack.sandboxes()) == 1)
    stack.add_executor()
    first.signal(signal.SIGTERM)
    assert first.child.wait(timeout=30) == 0
    until("the build is done elsewhere",
          lambda: stack.client.call("GET", "/v1/agents/slow").json["latest_build"]["status"] == "ready", 60)
    stack.quiet()


def tar(install):
    from stack import archive

    return archive({"agent.json": json.dumps({"runtime": "command", "entry": "cat", "install": install})})


@as_root
def test_a_stopping_gateway_answers_everybody(made):
    stack = made(gateways=2)
    going, staying = stack.gateways
    id = stack.client.submit("probe", order(sleep=4)).json["id"]
    answers = []

    def wait():
        answers.append(Client(going.port, stack.key).call("GET", f"/v1/invocations/{id}?wait=60"))

    def submit():
        answers.append(Client(going.port, stack.key).submit("probe", order(sleep=4), wait=60))

    threads = [threading.Thread(target=wait) for _ in range(20)] + [threading.Thread(target=submit) for _ in range(20)]
    for t in threads:
        t.start()
    metric = "sandpiper_waiters"
    until("all wait", lambda: waiting(going, stack, metric) == 40)
    began = time.monotonic()
    going.signal(signal.SIGTERM)
    for t in threads:
        t.join(20)
    assert len(answers) == 40 and {a.status for a in answers} <= {200, 202}
    for a in answers:
        r = Client(staying.port, stack.key).end(a.json["id"])
        assert r["status"] == "succeeded"
    assert going.child.wait(timeout=20) == 0 and time.monotonic() - began < 25
    stack.gateways.remove(going)
    stack.quiet()


def waiting(gateway, stack, name):
    text = Client(gateway.port, stack.key).call("GET", "/metrics").body.decode()
    found = re.search(rf"^{name} (\d+)", text, re.M)
    return found and int(found.group(1))


@as_root
def test_a_rolling_restart_of_gateways_costs_at_most_one_retry(made):
    port = free_port()
    stack = made(env={"SANDPIPER_GATEWAY_LISTEN": f"127.0.0.1:{port}", "SANDPIPER_GATEWAY_REUSE_PORT": "true"})
    done, failed, over = [], [], threading.Event()

    def once(client, n):
        why = []
        for _ in range(2):
            try:
                a = client.submit("echo", f"{n}", idempotency_key=f"roll-{n}")
                if a.status == 202:
                    done.append(a.json["id"])
                    return
                why.append(a.body)
            except (OSError, http.client.HTTPException) as e:
                why.append(repr(e))
        failed.append((n, *why))

    def load(k):
        client, n = Client(port, stack.key), k
        while not over.is_set():
            once(client, n)
            n += 100

    def gateway(n):
        p = stack._daemon("gateway", {}, n)
        p.port = port
        p.said('"msg":"listening"', 30)
        return p

    stack.gateways[0].stop()
    serving = gateway(10)
    stack.gateways = [serving]
    threads = [threading.Thread(target=load, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for round in range(5):
        fresh = gateway(11 + round)
        before = len(done)
        until("it is under load", lambda: len(done) > before + 20)
        serving.signal(signal.SIGTERM)
        assert serving.child.wait(timeout=60) == 0
        serving = fresh
        stack.gateways = [serving]
    over.set()
    for t in threads:
        t.join()
    assert not failed and len(done) > 100
    until("every accepted job has ended", lambda: stack.count("select count(*) from results") >= len(set(done)), 240)
    assert stack.count("select count(*) from invocations") == len(set(done))
    stack.quiet()


@as_root
def test_a_stopping_dispatcher_leaves_the_lead(made):
    stack = made(dispatchers=2, env={"SANDPIPER_TENANT_WINDOW": "2"})
    until("somebody leads", lambda: stack.redis_cli("get", "sp:lead"))
    token = stack.redis_cli("get", "sp:lead")
    leader = until("its leader says so", lambda: next((d for d in stack.dispatchers if '"leading"' in d.text()), None))
    ids = [stack.client.submit("probe", order(sleep=0.1)).json["id"] for _ in range(60)]
    leader.signal(signal.SIGTERM)
    assert leader.child.wait(timeout=10) == 0
    until("another leads", lambda: stack.redis_cli("get", "sp:lead") not in ("", token), 2)
    for id in ids:
        assert stack.client.end(id, 60)["status"] == "succeeded"
    stack.quiet()


def cut_while_it_waits(stack, table, call):
    """The answer to a call whose statement waits for a lock on the table when its connection is ended."""
    lock = subprocess.Popen([str(PG_BIN / "psql"), "-h", str(stack.dir / "run"), "-U", "sandpiper", "-X", "-d", "sandpiper"],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    lock.stdin.write(f"begin; lock table {table} in access exclusive mode; select 'locked';\n")
    lock.stdin.flush()
    while "locked" not in lock.stdout.readline():
        pass
    answers = []
    caller = threading.Thread(target=lambda: answers.append(call()))
    caller.start()
    blocked = "from pg_stat_activity where wait_event_type = 'Lock' and application_name like 'sandpiper-gateway%'"
    until("its statement waits", lambda: stack.count(f"select count(*) {blocked}") > 0)
    stack.psql(f"select pg_terminate_backend(pid) {blocked}")
    caller.join(20)
    lock.stdin.close()
    lock.wait(timeout=10)
    return answers[0]


@as_root
def test_a_read_whose_connection_is_lost_is_unavailable(stack, client):
    """Not `outcome_unknown`: a read has no outcome that anybody would have to look for."""
    id = client.run("echo", "x")["id"]
    a = cut_while_it_waits(stack, "invocations", lambda: client.call("GET", f"/v1/invocations/{id}"))
    assert (a.status, a.json["code"]) == (503, "unavailable") and a.headers["Retry-After"]
    until("it is read again", lambda: client.call("GET", f"/v1/invocations/{id}").status == 200)


@as_root
@pytest.mark.parametrize("table, path, body, type, where", [
    ("agent_versions", "/v1/agents?name=unsure", archive({"agent.json": '{"runtime": "command", "entry": "cat"}'}), "application/gzip",
     "/v1/agents/unsure"),
    ("schedules", "/v1/schedules", json.dumps({"name": "unsure", "cron": "0 0 1 1 *", "agent": "echo", "prompt": "x"}).encode(),
     "application/json", "/v1/schedules"),
], ids=["deploy", "schedule"])
def test_a_write_whose_connection_is_lost_says_where_to_look(stack, client, table, path, body, type, where):
    a = cut_while_it_waits(stack, table, lambda: client.call("POST", path, body, {"Content-Type": type}))
    assert (a.status, a.json["code"]) == (503, "outcome_unknown"), a.body
    assert a.headers["Retry-After"] and a.headers["Location"] == where and where in a.json["detail"]
    until("it is served again", lambda: client.call("GET", "/v1/agents").status == 200)
