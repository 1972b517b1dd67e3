"""Agents are deleted: nobody finds them any more, what was accepted runs, nothing of them stays; and what comes at the same time."""

import collections
import datetime
import json
import os
import pty
import random
import subprocess

import pytest

from sim_stack import SimStack
from stack import BIN, Client, Stack, archive, in_threads, until
from test_retire import provider, snapshots

GZIP = {"Content-Type": "application/gzip"}
FAST = {"SANDPIPER_AGENT_RETIRE_GRACE": "1s"}  # a pass each 200 ms, a look for orphans each 6 s


@pytest.fixture(scope="module")
def own():
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    s = Stack(**FAST).start(gateways=2)
    try:
        yield s
        s.quiet()
    finally:
        s.stop()


def deploy(stack, name, entry="cat", **manifest):
    stack.client.deploy(name, {"agent.json": json.dumps({"runtime": "command", "entry": entry, **manifest})})
    return id_of(stack, name)


def id_of(stack, name):
    return stack.psql(f"select id from agents where name = '{name}' and deleted_at is null")


def remove(stack, name):
    a = stack.client.call("DELETE", f"/v1/agents/{name}")
    assert (a.status, a.body) == (204, b""), a.body


def refused(answer, status=404, code="agent_not_found"):
    assert (answer.status, answer.json["code"]) == (status, code), answer.body


def snapshots_of(stack, agent):
    """Of an agent by its id, the names at the provider that are left."""
    made = stack.psql("select d.id || '-' || v.id from deployment d, agent_versions v where v.agent = "
                      f"'{agent}'").splitlines()
    return snapshots(stack) & set(made)


def rows(stack, agent):
    """Secrets, chunks of archives, and logs."""
    return (stack.count(f"select count(*) from agent_secrets where agent = '{agent}'"),
            stack.count(f"select count(*) from agent_files f join agent_versions v on v.id = f.id where v.agent = '{agent}'"),
            stack.count(f"select count(*) from build_logs l join agent_versions v on v.id = l.id where v.agent = '{agent}'"))


def gone(stack, agent, seconds=30):
    until("its snapshots are gone", lambda: not snapshots_of(stack, agent), seconds)
    until("and its secrets, archives and logs", lambda: rows(stack, agent) == (0, 0, 0))


# ---- from the answer on ----


def test_nobody_finds_it_any_more(own):
    c, name = own.client, "going"
    other = Client(own.gateways[1].port, own.key)
    agent = deploy(own, name)
    ended = [x.run(name, "a prompt")["id"] for x in (c, other)]
    remove(own, name)
    refused(c.submit(name, ""))
    refused(c.submit(f"{name}@1", ""))
    until("nor by the other gateway", lambda: other.submit(name, "").status == 404, 5)
    refused(c.call("GET", f"/v1/agents/{name}"))
    refused(c.call("GET", f"/v1/agents/{name}/versions"))
    refused(c.call("GET", f"/v1/agents/{name}/secrets"))
    refused(c.call("PUT", f"/v1/agents/{name}/secrets/TOKEN", {"value": "x"}))
    refused(c.call("DELETE", f"/v1/agents/{name}/secrets/TOKEN"))
    refused(c.call("POST", f"/v1/agents/{name}/rollback", {"version": 1}))
    refused(c.call("GET", f"/v1/invocations?agent={name}"))
    refused(c.call("DELETE", f"/v1/agents/{name}"))
    batch = c.call("POST", "/v1/batches", {"items": [{"agent": name, "prompt": ""}]})
    assert batch.status == 400 and batch.json["errors"][0]["code"] == "agent_not_found"
    for id in ended:
        assert (c.get(id)["agent"], c.get(id)["version"], c.get(id)["output"]) == (name, 1, "a prompt")
        for body in ({}, {"version": "serving"}):
            refused(c.call("POST", f"/v1/invocations/{id}/retry", body))
    assert c.call("GET", f"/v1/usage?agent={name}").json["totals"]["invocations"]["total"] >= 2
    listed = {i["id"]: i["agent"] for i in c.call("GET", "/v1/invocations?limit=50").json["data"]}
    assert [listed[id] for id in ended] == [name, name]
    names = [a["name"] for a in c.call("GET", "/v1/agents?limit=1000").json["agents"]]
    assert name not in names and not any("~" in n for n in names)
    gone(own, agent)


def test_its_name_is_free(own):
    c, name = own.client, "phoenix"
    first = deploy(own, name, "echo first")
    assert c.call("PUT", f"/v1/agents/{name}/secrets/TOKEN", {"value": "of the first one"}).status == 200
    old = c.run(name, "")
    remove(own, name)
    second = deploy(own, name, "echo second; echo $TOKEN")
    assert second != first and c.call("GET", f"/v1/agents/{name}").json["latest_build"]["version"] == 1
    assert c.call("GET", f"/v1/agents/{name}/secrets").json["data"] == []
    assert c.run(name, "")["output"] == "second\n\n"
    assert (c.get(old["id"])["agent"], c.get(old["id"])["output"]) == (name, "first\n")
    refused(c.call("POST", f"/v1/invocations/{old['id']}/retry", {"version": "serving"}))
    gone(own, first)
    assert c.run(name, "")["output"] == "second\n\n"
    remove(own, name)
    third = deploy(own, name, "echo third")
    assert len({first, second, third}) == 3 and c.run(name, "")["output"] == "third\n"
    assert own.psql(f"select count(*), count(deleted_at) from agents where name = '{name}'") == "3|2"


def test_what_was_accepted_runs_with_its_secrets(own):
    c, name = own.client, "needed"
    agent = deploy(own, name, "sleep 2; echo -n $TOKEN | wc -c", secrets=["TOKEN"])
    c.call("PUT", f"/v1/agents/{name}/secrets/TOKEN", {"value": "17 bytes in them."})
    running = c.submit(name, "").json["id"]
    until("it runs", lambda: c.get(running)["status"] == "running")
    begin = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=15)
    later = c.submit(name, "", not_before=begin.isoformat()).json["id"]
    nothing_open = deploy(own, "unneeded")
    remove(own, name)
    remove(own, "unneeded")
    gone(own, nothing_open)  # so passes have been over the other one, too
    until("another pass", lambda: own.dispatchers[0].text().count("deleting a snapshot"))
    assert snapshots_of(own, agent) and rows(own, agent)[0] == 1
    assert c.get(later)["status"] in ("scheduled", "queued")
    for id in (running, later):
        r = c.end(id, 60)
        assert (r["status"], r["agent"], r["output"].strip()) == ("succeeded", name, "17"), r
    gone(own, agent)


def test_a_build_that_is_under_way(own):
    c, name = own.client, "unbuilt"
    a = c.call("POST", f"/v1/agents?name={name}", archive({"run.sh": "echo old", "agent.json": json.dumps(
        {"install": "echo begun; sleep 3"})}), GZIP)
    assert a.status == 202
    agent = id_of(own, name)
    until("it is being built", own.sandboxes)
    remove(own, name)
    refused(c.call("GET", f"/v1/agents/{name}"))
    assert own.psql(f"select status, error_code, finished_at is null from agent_versions where agent = '{agent}'") == "2|agent_not_found|f"
    deploy(own, name, "echo new")  # while the other build goes on
    until("both builds have ended", lambda: not own.sandboxes(), 30)
    assert own.psql(f"select status, snapshot from agent_versions where agent = '{agent}'") == "2|"
    assert c.run(name, "")["output"] == "new\n"
    gone(own, agent)


def test_an_agent_that_was_never_built(own):
    c, name = own.client, "failed"
    a = c.call("POST", f"/v1/agents?name={name}", archive({"run.sh": "", "agent.json": '{"install": "exit 1"}'}), GZIP)
    assert a.status == 202
    agent = id_of(own, name)
    until("it fails", lambda: c.call("GET", f"/v1/agents/{name}").json["status"] == "failed")
    c.call("PUT", f"/v1/agents/{name}/secrets/TOKEN", {"value": "x"})
    remove(own, name)
    gone(own, agent)


def test_a_warm_pool_goes(own):
    agent = deploy(own, "warm", warm_pool=2)
    until("two wait", lambda: len(own.sandboxes()) == 2, 30)
    assert own.client.run("warm", "x")["output"] == "x"
    remove(own, "warm")
    until("none waits", lambda: not own.sandboxes(), 30)
    gone(own, agent)


def test_schedules_hold_it(own):
    c, name = own.client, "planned"
    agent = deploy(own, name)
    deploy(own, "planned-otherwise")
    for n in range(7):
        body = {"name": f"each-{n}", "cron": "0 8 1 1 *", "agent": name + ("@1" if n else ""), "prompt": ""}
        assert c.call("POST", "/v1/schedules", body).status == 201
    c.call("POST", "/v1/schedules", {"name": "another", "cron": "0 8 1 1 *", "agent": "planned-otherwise", "prompt": ""})
    a = c.call("DELETE", f"/v1/agents/{name}")
    refused(a, 409, "agent_scheduled")
    assert "each-0, each-1, each-2, each-3, each-4 and 2 more" in a.json["detail"] and "another" not in a.json["detail"]
    c.call("POST", "/v1/schedules/each-0/pause")  # it may go on one day
    for n in range(1, 7):
        c.call("DELETE", f"/v1/schedules/each-{n}")
    a = c.call("DELETE", f"/v1/agents/{name}")
    refused(a, 409, "agent_scheduled")
    assert "each-0." in a.json["detail"] and "more" not in a.json["detail"]
    assert c.run(name, "x")["output"] == "x"
    c.call("DELETE", "/v1/schedules/each-0")
    remove(own, name)
    gone(own, agent)


def test_only_ones_own(own):
    theirs = Client(own.gateways[0].port, own.new_key("others"))
    files = {"run.sh": "echo theirs"}
    theirs.deploy("shared-name", files)
    deploy(own, "shared-name", "echo ours")
    deploy(own, "ours-alone")
    refused(theirs.call("DELETE", "/v1/agents/ours-alone"))
    remove(own, "shared-name")
    assert theirs.run("shared-name", "")["output"] == "theirs\n"
    for name in ("Upper", "%7E", "x%2Fy", "a" * 64):
        refused(own.client.call("DELETE", f"/v1/agents/{name}"))
    deleted = own.psql("select slug from agents where deleted_at is not null limit 1")
    for path in (f"/v1/agents/{deleted}", f"/v1/agents/{deleted[1:]}"):
        refused(own.client.call("GET", path))
        refused(own.client.call("DELETE", path))


# ---- the command line ----


def typed(stack, name, answer):
    """With a terminal for everything."""
    master, slave = pty.openpty()
    env = {**stack.env, "SANDPIPER_URL": f"http://127.0.0.1:{stack.gateways[0].port}", "SANDPIPER_API_KEY": stack.key}
    child = subprocess.Popen([str(BIN / "sandpiper"), "agents", "delete", name], env=env, stdin=slave, stdout=slave, stderr=slave,
                             start_new_session=True)
    os.close(slave)
    seen = b""
    try:
        while b"[y/N]" not in seen:
            seen += os.read(master, 4096)
        os.write(master, answer)
        status = child.wait(30)
        seen += os.read(master, 4096)
    finally:
        child.kill()
        os.close(master)
    return status, seen.decode()


def test_the_command_line(own):
    deploy(own, "typed")
    status, seen = typed(own, "typed", b"\n")
    assert status == 2 and "typed is not deleted" in seen
    assert own.client.run("typed", "x")["output"] == "x"
    status, seen = typed(own, "typed", b"y\n")
    assert status == 0 and "deleted typed" in seen
    refused(own.client.submit("typed", ""))
    r = own.cli("agents", "delete", "typed", "--yes", check=False)
    assert r.returncode == 3 and b"agent_not_found" in r.stderr
    deploy(own, "scripted")
    assert own.cli("agents", "delete", "scripted").stdout == b"deleted scripted\n"
    for argv in (["delete"], ["delete", "a", "b"], ["remove", "a"], ["delete", "Upper"]):
        assert own.cli("agents", *argv, check=False).returncode == 2
    listed = own.cli("agents", "ls").stdout
    assert listed == own.cli("agents").stdout and b"typed" not in listed


# ---- at the same time ----


@pytest.fixture(scope="module")
def sim():
    s = SimStack(**FAST)
    try:
        yield s.start(gateways=2, executors=2, dispatchers=2)
        s.quiet()
    finally:
        s.stop()


ROUNDS, NAMES = 12, 3
MAY = {  # of each call, what it may answer; a deploy, 404 when the agent went before it could be shown
    "delete": {204, 404}, "deploy": {200, 202, 404}, "submit": {202, 404, 409}, "rollback": {200, 404, 409}, "secret": {200, 404},
    "show": {200, 404}, "same": {200, 202, 404},
}


def test_everything_at_once(sim):
    """Whatever comes first, each call has a clear answer, and what is left fits together."""
    clients = [Client(g.port, sim.key) for g in sim.gateways]
    accepted, answers, r = [], collections.Counter(), random.Random(7)

    def call(n, what, name):
        c = clients[n % 2]
        manifest = {"runtime": "command", "entry": "cat", "description": str(n) if what == "deploy" else "same"}
        a = {"delete": lambda: c.call("DELETE", f"/v1/agents/{name}"),
             "deploy": lambda: c.call("POST", f"/v1/agents?name={name}", archive({"agent.json": json.dumps(manifest)}), GZIP),
             "same": lambda: c.call("POST", f"/v1/agents?name={name}", archive({"agent.json": json.dumps(manifest)}), GZIP),
             "submit": lambda: c.submit(name, json.dumps({"sim": {"run_ms": 50}})),
             "rollback": lambda: c.call("POST", f"/v1/agents/{name}/rollback", {"version": 1}),
             "secret": lambda: c.call("PUT", f"/v1/agents/{name}/secrets/N{n % 7}", {"value": "x" * 10}),
             "show": lambda: c.call("GET", f"/v1/agents/{name}")}[what]()
        assert a.status in MAY[what], (what, a.status, a.body)
        answers[what, a.status] += 1
        if what == "submit" and a.status == 202:
            accepted.append(a.json["id"])

    for n in range(ROUNDS):
        for k in range(NAMES):  # each is there, and ready, when it begins
            clients[0].deploy(f"busy-{k}", {"agent.json": json.dumps({"runtime": "command", "entry": "cat", "description": f"round {n}"})})
        work = ["submit", "deploy", "rollback", "secret", "submit", "same", "delete", "submit", "rollback", "show", "secret", "deploy"]
        in_threads([lambda k=k, w=w, at=r.randrange(NAMES): call(n * 100 + k, w, f"busy-{at}") for k, w in enumerate(r.sample(work * 4, 4 * len(work)))], workers=16)
    for what in ("delete", "submit", "rollback", "secret", "show"):
        assert answers[what, min(MAY[what])] > 0 and answers[what, 404] > 0, answers
    assert answers["delete", 204] > ROUNDS and answers["submit", 202] > 0, answers
    for id in accepted:
        assert clients[0].end(id, 60)["status"] == "succeeded"
    assert sim.psql("select count(*) from (select 1 from agents where deleted_at is null group by tenant, name having count(*) > 1) x") == "0"
    settled = "select count(*) from agent_versions v join agents a on a.id = v.agent where a.deleted_at is not null and v.status in (0, 1)"
    assert sim.count(settled) == 0
    until("builds are over", lambda: sim.count("select count(*) from agent_versions where status = 0") == 0, 60)
    assert sim.count(settled) == 0
    left = "select count(*) from agent_versions v join agents a on a.id = v.agent where a.deleted_at is not null and v.snapshot is not null"
    until("snapshots are gone", lambda: sim.count(left) == 0, 60)
    secrets = "select count(*) from agent_secrets s join agents a on a.id = s.agent where a.deleted_at is not null"
    until("secrets are gone", lambda: sim.count(secrets) == 0, 30)
    files = ("select count(*) from agent_files f left join agent_versions v on v.id = f.id left join agents a on a.id = v.agent "
             "where v.id is null or a.deleted_at is not null")
    until("and archives", lambda: sim.count(files) == 0, 30)
    assert "deadlock detected" not in (sim.dir / "postgres.log").read_text()
    for n in range(NAMES):  # each name is as good as new
        clients[1].call("DELETE", f"/v1/agents/busy-{n}")
        clients[1].deploy(f"busy-{n}", {"agent.json": '{"runtime": "command", "entry": "cat"}'})
        assert clients[1].run(f"busy-{n}", "x")["status"] == "succeeded"


def test_of_two_that_delete_one_does(sim):
    clients = [Client(sim.gateways[n % 2].port, sim.key) for n in range(8)]
    for _ in range(5):
        clients[0].deploy("once", {"agent.json": '{"runtime": "command", "entry": "cat"}'})
        answers = in_threads([lambda c=c: c.call("DELETE", "/v1/agents/once").status for c in clients])
        assert sorted(answers) == [204] + [404] * 7
