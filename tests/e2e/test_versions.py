"""Versions of an agent: listed, pinned, promoted, rolled back; and nobody notices but by the version in the record."""

import json
import threading
import time

import pytest

from sim_stack import SimStack
from stack import Client, archive, in_threads, until

GZIP = {"Content-Type": "application/gzip"}
LOAD = 2000
WORKERS = 24


@pytest.fixture(scope="module")
def stack():
    s = SimStack()
    try:
        yield s.start(gateways=2)
    finally:
        s.stop()


def files(n, **manifest):
    return {"agent.json": json.dumps({"runtime": "command", "entry": "cat", **manifest}), "n": str(n)}


def deployed(stack, name, versions):
    for n in range(versions):
        stack.client.deploy(name, files(n))
    return name


def deploy_slowly(client, name, n, run_ms=0, exit_code=0):
    """A deploy whose build takes that long; the version."""
    a = client.call("POST", f"/v1/agents?name={name}", archive(files(n, install=json.dumps({"sim": {"run_ms": run_ms, "exit_code": exit_code}}))), GZIP)
    assert a.status == 202, a.body
    return a.json["latest_build"]["version"]


def versions(client, name, query=""):
    a = client.call("GET", f"/v1/agents/{name}/versions{query}")
    assert a.status == 200, a.body
    return a.json["data"]


def status_of(client, name, version):
    return next(v["status"] for v in versions(client, name) if v["version"] == version)


def rollback(client, name, version=None):
    a = client.call("POST", f"/v1/agents/{name}/rollback", {} if version is None else {"version": version})
    assert a.status == 200, (a.status, a.body)
    return a.json["version"], a.json["rolled_back_from"]


def refused(client, name, body):
    a = client.call("POST", f"/v1/agents/{name}/rollback", body)
    return a.status, a.json["code"]


def runs(client, agent):
    return client.run(agent, "x")["version"]


# ---- the list ----


def test_versions_are_listed_newest_first(stack):
    name = deployed(stack, "listed", 2)
    deploy_slowly(stack.client, name, 3, exit_code=1)
    until("the build fails", lambda: status_of(stack.client, name, 3) == "failed")
    third, second, first = versions(stack.client, name)
    assert [v["version"] for v in (third, second, first)] == [3, 2, 1]
    assert [v["status"] for v in (third, second, first)] == ["failed", "ready", "ready"]
    assert [v["serving"] for v in (third, second, first)] == [False, True, False]
    assert third["error"]["code"] == "build_failed" and first["error"] is None
    assert len(first["source_sha256"]) == 64 and first["source_sha256"] != second["source_sha256"]
    assert first["created_at"] < second["created_at"] < third["created_at"] and first["finished_at"]
    assert stack.client.call("GET", "/v1/agents/nobody/versions").json["code"] == "agent_not_found"


def test_a_cursor_is_of_one_agent(stack):
    deployed(stack, "one-of-two", 3), deployed(stack, "two-of-two", 3)
    a = stack.client.call("GET", "/v1/agents/one-of-two/versions?limit=2").json
    assert [v["version"] for v in a["data"]] == [3, 2]
    b = stack.client.call("GET", f"/v1/agents/one-of-two/versions?limit=2&cursor={a['next_cursor']}").json
    assert [v["version"] for v in b["data"]] == [1] and b["next_cursor"] is None
    wrong = stack.client.call("GET", f"/v1/agents/two-of-two/versions?cursor={a['next_cursor']}")
    assert (wrong.status, wrong.json["code"]) == (400, "invalid_cursor")


def test_another_tenant_sees_and_changes_nothing(stack):
    name = deployed(stack, "private", 2)
    stranger = Client(stack.client.port, stack.new_key("stranger"))
    assert stranger.call("GET", f"/v1/agents/{name}/versions").status == 404
    assert refused(stranger, name, {}) == refused(stranger, name, {"version": 1}) == (404, "agent_not_found")
    assert runs(stack.client, name) == 2


# ---- rollback ----


def test_a_rollback_goes_back_once_however_often_it_is_sent(stack):
    name, c = deployed(stack, "back", 3), stack.client
    assert runs(c, name) == 3
    for _ in range(3):
        assert rollback(c, name) == (2, 3)
    assert runs(c, name) == 2
    assert rollback(c, name, 1) == (1, 3) and runs(c, name) == 1
    assert rollback(c, name) == (1, 3)  # to go further back a version is named
    assert rollback(c, name, 3) == (3, None) and runs(c, name) == 3
    assert in_threads([lambda: rollback(c, name)] * 8, workers=8) == [(2, 3)] * 8


def test_a_rollback_passes_over_what_is_not_ready(stack):
    name, c = deployed(stack, "over", 1), stack.client
    deploy_slowly(c, name, 2, exit_code=1)
    until("the build fails", lambda: status_of(c, name, 2) == "failed")
    c.deploy(name, files(3))
    assert rollback(c, name) == (1, 3)


def test_what_cannot_be_done_is_refused_and_changes_nothing(stack):
    name, c = deployed(stack, "refusing", 1), stack.client
    assert refused(c, name, {}) == (409, "no_older_version")
    deploy_slowly(c, name, 2, exit_code=1)
    until("the build fails", lambda: status_of(c, name, 2) == "failed")
    building = deploy_slowly(c, name, 3, run_ms=20000)
    assert refused(c, name, {"version": 2}) == refused(c, name, {"version": building}) == (409, "version_not_ready")
    assert refused(c, name, {"version": 4}) == refused(c, name, {"version": 2**31 - 1}) == (404, "version_not_found")
    assert refused(c, "nobody", {}) == refused(c, "nobody", {"version": 1}) == (404, "agent_not_found")
    for body in ({"version": 0}, {"version": -1}, {"version": 2**31}, {"version": "1"}, {"version": 1.5}, {"version": None}):
        assert refused(c, name, body) == (400, "invalid_field"), body
    assert refused(c, name, {"versoin": 1}) == (400, "unknown_field")
    assert refused(c, name, []) == (400, "invalid_json")
    assert c.call("GET", f"/v1/agents/{name}").json["rolled_back_from"] is None and runs(c, name) == 1
    never = "never-ready"
    deploy_slowly(c, never, 1, exit_code=1)
    assert refused(c, never, {}) == (409, "no_older_version")


def test_a_pinned_version_stays_and_what_runs_ends_on_its_own(stack):
    name, c = deployed(stack, "pinned", 2), stack.client
    running = c.submit(name, json.dumps({"sim": {"run_ms": 3000}})).json["id"]
    until("it runs", lambda: c.get(running)["status"] == "running")
    assert rollback(c, name) == (1, 2)
    assert c.get(running)["status"] == "running"
    assert runs(c, name) == 1 and runs(c, f"{name}@2") == 2 and runs(c, f"{name}@1") == 1
    ended = c.end(running)
    assert (ended["status"], ended["version"], ended["attempt"]) == ("succeeded", 2, 1)


def test_every_gateway_serves_it_within_a_second(stack):
    name = deployed(stack, "everywhere", 2)
    here, there = (Client(g.port, stack.key) for g in stack.gateways)
    assert runs(here, name) == runs(there, name) == 2  # both know it now
    assert rollback(here, name) == (1, 2)
    assert runs(here, name) == 1
    until("the other gateway asks again", lambda: runs(there, name) == 1, 10)


def test_a_deploy_after_a_rollback_serves_and_one_before_does_not(stack):
    name, c = deployed(stack, "after", 2), stack.client
    before = deploy_slowly(c, name, 3, run_ms=4000)
    assert rollback(c, name) == (1, 2)
    until("the build from before the rollback is ready", lambda: status_of(c, name, before) == "ready", 30)
    assert runs(c, name) == 1 and rollback(c, name) == (1, 2)
    c.deploy(name, files(4))
    agent = c.call("GET", f"/v1/agents/{name}").json
    assert (agent["version"], agent["rolled_back_from"]) == (4, None) and runs(c, name) == 4
    assert rollback(c, name) == (3, 4)


# ---- under load ----


class Load:
    """Callers that submit and wait, one after another, until they are told to stop."""

    def __init__(self, stack, name):
        self.name, self.failed, self.over = name, [], False
        self.done = [[] for _ in stack.gateways]  # by gateway: (sent, answered, version)
        clients = [Client(g.port, stack.key) for g in stack.gateways]
        self.threads = [threading.Thread(target=self.work, args=(clients[i % 2], self.done[i % 2])) for i in range(WORKERS)]

    def work(self, client, done):
        while not self.over:
            sent = time.time()
            try:
                a = client.submit(self.name, "x", wait=60)
                r = a.json
                ok = a.status == 200 and r["status"] == "succeeded" and r["attempt"] == 1
            except (OSError, ValueError) as e:
                ok, r = False, repr(e)
            if ok:
                done.append((sent, time.time(), r["version"]))
            else:
                self.failed.append(r)

    def count(self):
        return sum(map(len, self.done))

    def more(self, n):
        want = self.count() + n
        until(f"{n} more have ended", lambda: self.failed or self.count() >= want, 180)
        assert not self.failed, self.failed[:3]

    def all_run(self, version, asked):
        """Waits until each gateway has given that version to something sent since."""
        for done in self.done:
            until(f"version {version} runs", lambda: any(s > asked and v == version for s, _, v in done[-200:]), 10)

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *exc):
        self.over = True
        for t in self.threads:
            t.join()


def check_turns(done, asked):
    """One gateway's invocations: version 1, then 2, then 1 again. Where one has the new version, those sent later have it."""
    deploy, back = asked
    assert all(v == 1 for _, answered, v in done if answered < deploy)
    first = min(answered for _, answered, v in done if v == 2)
    assert all(v == 2 for sent, answered, v in done if sent > first and answered < back)
    first = min(answered for sent, answered, v in done if v == 1 and sent > back)
    assert all(v == 1 for sent, _, v in done if sent > first)


def test_nobody_notices_a_redeploy_and_a_rollback(stack):
    name, c, asked = deployed(stack, "busy", 1), stack.client, []
    with Load(stack, name) as load:
        load.more(LOAD // 4)
        asked.append(time.time())
        c.deploy(name, files(2))
        load.all_run(2, asked[0])
        load.more(LOAD // 4)
        asked.append(time.time())
        assert rollback(c, name) == (1, 2)
        load.all_run(1, asked[1])
        load.more(LOAD // 2)
    assert not load.failed and load.count() >= LOAD
    for done in load.done:
        check_turns(done, asked)
    assert stack.count(f"select count(*) from invocations i join agents a on a.id = i.agent where a.slug = '{name}'") == load.count()


# ---- the command line ----


def test_the_command_line(stack):
    name = deployed(stack, "by-hand", 3)
    rows = [line.split() for line in stack.cli("versions", name).stdout.decode().splitlines()]
    assert rows[0] == ["VERSION", "STATUS", "SERVES", "CREATED", "SOURCE"]
    assert [r[:3] for r in rows[1:]] == [["3", "ready", "yes"], ["2", "ready", "-"], ["1", "ready", "-"]]
    lines = stack.cli("versions", name, "--json", "--limit", "2").stdout.decode().splitlines()
    assert [json.loads(line)["version"] for line in lines] == [3, 2] and rows[1][4] == json.loads(lines[0])["source_sha256"][:12]
    for _ in range(2):
        assert stack.cli("rollback", name).stdout.decode() == f"{name}: version 2 serves, rolled back from version 3\n"
    assert json.loads(stack.cli("rollback", name, "1", "--json").stdout)["version"] == 1
    assert stack.cli("rollback", name, "3").stdout.decode() == f"{name}: version 3 serves\n"


@pytest.mark.parametrize("argv, status, words", [
    (["rollback", "SIM", ], 3, "no_older_version"),
    (["rollback", "SIM", "7"], 3, "version_not_found"),
    (["rollback", "nobody"], 3, "agent_not_found"),
    (["rollback", "SIM", "latest"], 2, "sandpiper versions NAME"),
    (["rollback", "SIM", "0"], 2, "is no version"),
    (["rollback", "No Name"], 2, "no agent's name"),
    (["rollback"], 2, "rollback NAME"),
    (["versions", "nobody"], 3, "agent_not_found"),
    (["versions", "a/b"], 2, "no agent's name"),
    (["versions", "SIM", "--limit", "0"], 2, "--all"),
    (["versions", "SIM", "--limit", "1", "--all"], 2, "not both"),
])
def test_the_command_line_says_what_is_wrong(stack, argv, status, words):
    r = stack.cli(*[stack.agent if a == "SIM" else a for a in argv], check=False)
    assert r.returncode == status and words in r.stderr.decode() and r.stdout == b"", r
