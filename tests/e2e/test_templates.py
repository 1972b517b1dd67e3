"""Agents on templates of the provider: alone, below an archive and below a repository; what may not be named; and that a template
is its owner's, whatever becomes of versions."""

import json
import os
import subprocess
import uuid

import pytest

from neighbour import Neighbour
from sandboxd_client import Daemon
from sim_stack import SimStack
from stack import E2B_KEY, Stack, archive, free_port, until
from test_git import commit, git

GZIP = {"Content-Type": "application/gzip"}


class Provider(Daemon):
    """The stack's sandboxd as somebody else with the same key uses it."""

    def __init__(self, stack):
        self.port, self.process = stack.sandboxd_port, True

    def call(self, method, path, body=None, headers=None, key=E2B_KEY):
        return super().call(method, path, body, headers, key)

    def template(self, name, script, base="base"):
        """Makes one; its id."""
        with self.create(base) as sandbox:
            sandbox.out(script, user="root")
            a = self.call("POST", f"/sandboxes/{sandbox.id}/snapshots", {"name": name})
            assert a.status == 201, a.body
            return a.json["snapshotID"]

    def snapshots(self):
        return {s["snapshotID"]: s["names"][0] for s in self.call("GET", "/snapshots").json if s["names"]}


ANSWER = "cd ~user && printf '#!/bin/sh\\necho {0}; cat\\n' > answer && chmod 755 answer && echo {0} > what"
RUN = "$HOME/answer"


@pytest.fixture(scope="module")
def own():
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    s = Stack().start()
    try:
        s.provider = Provider(s)
        s.template = s.provider.template("toolbox", ANSWER.format("first"))
        yield s
        s.quiet()
    finally:
        s.stop()


def send(client, name, template="toolbox", **manifest):
    return client.call("POST", "/v1/agents", {"name": name, "template": template, "manifest": {"entry": RUN, **manifest}})


def built(client, name, version):
    return until(f"{name}'s build has ended", lambda: (b := client.call("GET", f"/v1/agents/{name}").json["latest_build"])
                 and b["version"] == version and b["status"] != "building" and b, 60)


def deploy(client, name, template="toolbox", **manifest):
    a = send(client, name, template, **manifest)
    assert a.status == 202, a.body
    return built(client, name, a.json["deployed_version"])


def upload(client, name, files, **manifest):
    return client.call("POST", f"/v1/agents?name={name}", archive({**files, "agent.json": json.dumps(manifest)}), GZIP)


# ---- what they are for ----


def test_a_template_alone(own):
    c = own.client
    b = deploy(c, "alone", install="pwd; cat $HOME/what > made", check="test -s made && echo checked", timeout_s=33, env={"A": "1"})
    assert b["status"] == "ready", b
    assert b["source"] == {"type": "template", "template": "toolbox"} and b["archive_bytes"] == 0
    assert b["manifest"] == {"template": "toolbox", "runtime": "command", "entry": RUN, "egress": "allow", "env": {"A": "1"},
                             "install": "pwd; cat $HOME/what > made", "check": "test -s made && echo checked", "timeout_s": 33}
    assert "/agent\n" in b["log"] and b["log"].endswith("checked\n")
    r = c.run("alone", "and the prompt")
    assert (r["output"], r["version"], r["timeout_s"]) == ("first\nand the prompt", 1, 33)
    v = c.call("GET", "/v1/agents/alone/versions").json["data"][0]
    assert v["source"] == b["source"] and v["source_sha256"] is None and v["manifest"] == b["manifest"]
    assert own.count("select count(*) from agent_files f join agent_versions v on v.id = f.id where v.template is not null") == 0


def test_by_its_id_and_with_a_tag(own):
    for name, template in (("by-id", own.template), ("tagged", "toolbox:latest")):
        assert deploy(own.client, name, template)["source"]["template"] == template
        assert own.client.run(name, "")["output"] == "first\n"


def test_a_program_of_the_agents_own_directory(own):
    """The working directory of runs may be there already."""
    own.provider.template("with-agent", "mkdir -p ~user/agent && echo 'print(open(\"word\").read())' > ~user/agent/main.py && "
                          "echo kept > ~user/agent/word && chown -R user: ~user/agent")
    b = deploy(own.client, "inside", "with-agent", runtime="python", entry="main.py")
    assert b["status"] == "ready" and own.client.run("inside", "")["output"] == "kept\n\n", b
    b = deploy(own.client, "inside", "with-agent", runtime="python", entry="other.py")
    assert (b["status"], b["error"]["code"]) == ("failed", "entry_missing")


def test_an_archive_on_it(own):
    c, files = own.client, {"run.sh": "$HOME/answer; cat $HOME/what"}
    own.provider.template("second", ANSWER.format("other"))
    assert upload(c, "upon", files, template="toolbox").status == 202
    b = built(c, "upon", 1)
    assert (b["status"], b["source"], b["manifest"]["template"]) == ("ready", {"type": "archive"}, "toolbox")
    assert c.run("upon", "x\n")["output"] == "first\nx\nfirst\n"
    same = upload(c, "upon", files, template="toolbox")
    assert (same.status, same.json["deployed_version"]) == (200, 1)
    assert upload(c, "upon", files, template="second").status == 202
    assert built(c, "upon", 2)["status"] == "ready" and c.run("upon", "")["output"] == "other\nother\n"
    again = upload(c, "upon&rebuild=true", files, template="second")
    assert (again.status, again.json["deployed_version"]) == (202, 3)
    built(c, "upon", 3)


def test_an_entry_may_be_the_templates(own):
    own.provider.template("has-main", "mkdir -p ~user/agent && echo 'print(7)' > ~user/agent/main.py && chown -R user: ~user/agent")
    assert upload(own.client, "mixed", {"data.txt": ""}, runtime="python", entry="main.py", template="has-main").status == 202
    assert built(own.client, "mixed", 1)["status"] == "ready" and own.client.run("mixed", "")["output"] == "7\n"


def test_a_version_stays_what_it_was(own):
    """The template goes, and another comes under its name: what was built runs on, what is deployed then is of the other."""
    c = own.client
    old = own.provider.template("moving", ANSWER.format("before"))
    deploy(c, "pinned", "moving")
    assert own.provider.call("DELETE", f"/templates/{old}").status == 204
    own.provider.template("moving", ANSWER.format("after"))
    assert c.run("pinned", "")["output"] == "before\n"
    assert deploy(c, "pinned", "moving")["version"] == 2
    assert [c.run(f"pinned@{n}", "")["output"] for n in (1, 2)] == ["before\n", "after\n"]


# ---- what goes wrong ----


@pytest.mark.parametrize("template, manifest, code, words", [
    ("no-such-template", {}, "template_unusable", "template no-such-template cannot be used: the provider answered 404: template 'no-such-template' not found"),
    ("toolbox", {"install": "exit 3"}, "build_failed", "exit code 3"),
    ("toolbox", {"check": "exit 4"}, "check_failed", "exit code 4"),
])
def test_a_failure_leaves_what_serves(own, template, manifest, code, words):
    c = own.client
    c.deploy("steady", {"run.sh": "echo serves"})
    before = c.run("steady", "")
    b = deploy(c, "steady", template, **manifest)
    assert (b["status"], b["error"]["code"]) == ("failed", code) and words in b["error"]["message"], b
    after = c.run("steady", "")
    assert (after["output"], after["version"]) == (before["output"], before["version"])


def test_the_same_below_an_archive(own):
    assert upload(own.client, "missing", {"run.sh": ""}, template="no-such").status == 202
    b = built(own.client, "missing", 1)
    assert (b["status"], b["error"]["code"]) == ("failed", "template_unusable") and "'no-such' not found" in b["error"]["message"]


LONG = "a" * 128
BODIES = [
    ({"template": "a b"}, "invalid_field", "team/name"),
    ({"template": ""}, "invalid_field", "template"),
    ({"template": LONG + "a"}, "invalid_field", "template"),
    ({"template": 7}, "invalid_field", "string"),
    ({"template": "a/b/c"}, "invalid_field", "template"),
    ({"template": "../base"}, "invalid_field", "template"),
    ({"template": "base:"}, "invalid_field", "template"),
    ({"template": "base", "manifest": {}}, "invalid_manifest", "entry"),
    ({"template": "base", "manifest": None}, "invalid_manifest", "object"),
    ({"template": "base", "manifest": {"entry": "x", "entyr": "x"}}, "invalid_manifest", "did you mean"),
    ({"template": "base", "manifest": {"entry": "x", "memory_mb": 512}}, "unsupported_feature", '"template"'),
    ({"template": "base", "manifest": {"entry": "x", "template": "other"}}, "invalid_manifest", "another"),
    ({"template": "base", "git_url": "https://git.example/a"}, "invalid_field", "agent.json"),
    ({"template": "base", "ref": "main"}, "unknown_field", "ref"),
    ({"template": "base", "name": "Upper"}, "invalid_field", "lower-case"),
    ({"template": "base", "name": None}, "invalid_field", "name"),
    ({"manifest": {"entry": "x"}}, "missing_field", "template"),
]


@pytest.mark.parametrize("body, code, word", BODIES)
def test_what_is_refused_at_once(own, body, code, word):
    a = own.client.call("POST", "/v1/agents", {"name": "refused", "manifest": {"entry": "x"}, **body})
    assert (a.status, a.json["code"]) == (400, code) and word in a.json["detail"], a.body
    assert own.client.call("GET", "/v1/agents/refused").status == 404


def test_a_name_may_stand_in_the_manifest(own):
    c, manifest = own.client, {"entry": RUN, "name": "named-within"}
    a = c.call("POST", "/v1/agents", {"template": "toolbox", "manifest": manifest})
    assert (a.status, a.json["name"]) == (202, "named-within")
    a = c.call("POST", "/v1/agents", {"template": "toolbox", "manifest": {"entry": RUN}})
    assert (a.status, a.json["code"]) == (400, "missing_field") and "name" in a.json["detail"]
    built(c, "named-within", 1)


# ---- snapshots of versions ----


def forms(snapshot):
    return [snapshot, snapshot.upper(), f"{snapshot}:latest", f"team/{snapshot}", f"Team/{snapshot.upper()}:v1"]


@pytest.fixture(scope="module")
def foreign(own):
    """What another tenant's version starts from, and how it is named at the provider."""
    from stack import Client
    other = Client(own.gateways[0].port, own.new_key("other"))
    other.deploy("private", {"run.sh": "cat secret", "secret": "of another tenant"})
    return own.psql("select v.snapshot, d.id || '-' || v.id, d.id from deployment d, agent_versions v join agents a on a.id = v.agent "
                    "where a.slug = 'private'").split("|")


def test_another_tenants_agent_is_no_template(own, foreign):
    snapshot, name, deployment = foreign
    assert own.provider.snapshots()[snapshot] == name
    for form in [*forms(snapshot), *forms(name), deployment, f"x-{deployment}-{uuid.uuid4()}"]:
        for a in (send(own.client, "thief", form), upload(own.client, "thief", {"run.sh": ""}, template=form)):
            assert (a.status, a.json["code"]) == (403, "template_not_allowed"), (form, a.body)
    assert own.client.call("GET", "/v1/agents/thief").status == 404


def test_nor_is_ones_own(own):
    own.client.deploy("mine", {"run.sh": "echo mine"})
    a = send(own.client, "thief", own.psql("select snapshot from agent_versions v join agents a on a.id = v.agent where slug = 'mine'"))
    assert (a.status, a.json["code"]) == (403, "template_not_allowed")


def test_an_executor_looks_for_itself(own, foreign):
    """What became a version's snapshot after the gateway had looked: here, by another row's hand."""
    c = own.client
    own.provider.template("becomes-one", "true")
    c.deploy("decoy", {"run.sh": ""})
    executor = own.executors[0]
    executor.signal(19)
    try:
        assert send(c, "looked-at", "becomes-one").status == 202
        own.psql("update agent_versions v set snapshot = 'becomes-one' from agents a where a.id = v.agent and a.slug = 'decoy'")
    finally:
        executor.signal(18)
    b = built(c, "looked-at", 1)
    assert (b["status"], b["error"]["code"]) == ("failed", "template_not_allowed"), b


# ---- the command line ----


def test_the_command_line(own, tmp_path):
    r = own.cli("deploy", "--template", "toolbox", "--name", "typed", "--entry", RUN, "--install", "echo installed",
                "--check", "test -e $HOME/what").stdout.decode()
    assert r.startswith("deployed typed version 1 in "), r
    assert own.client.run("typed", "")["output"] == "first\n"
    (tmp_path / "agent.json").write_text(json.dumps({"name": "filed", "entry": RUN, "description": "d"}))
    assert own.cli("deploy", "--template", "toolbox", str(tmp_path / "agent.json")).stdout.startswith(b"deployed filed version 1 in ")
    assert own.client.call("GET", "/v1/agents/filed").json["latest_build"]["manifest"]["description"] == "d"
    r = own.cli("versions", "typed").stdout.decode().splitlines()
    assert r[1].endswith(" template toolbox"), r
    assert any(line.split()[:4] == ["typed", "ready", "1", "template"] for line in own.cli("agents").stdout.decode().splitlines())
    r = own.cli("deploy", "--template", "no-such", "--name", "typed", "--entry", RUN, check=False)
    assert r.returncode == 1 and b"'no-such' not found (template_unusable)" in r.stderr, r


@pytest.mark.parametrize("argv, words", [
    (["--template", "base"], b"--entry"),
    (["--template", "base", "--entry", "cat"], b"--name"),
    (["--template", "base", "--name", "x", "--entry", "cat", "--ref", "main"], b"--ref"),
    (["--template", "base", "--name", "x", "--entry", "cat", "--rebuild"], b"--rebuild"),
    (["--template", "base", "."], b'"template": "base"'),
    (["--template", "base", "https://git.example/a"], b'"template": "base"'),
    (["--template", "base", "/no/such/agent.json"], b"/no/such/agent.json: No such file"),
    (["--template", "base", "--entry", "cat", "agent.json"], b"not both"),
    (["--entry", "cat", "."], b"--template"),
    ([], b"--template ID"),
])
def test_what_the_command_line_refuses(own, argv, words):
    r = own.cli("deploy", *argv, check=False)
    assert r.returncode == 2 and words in r.stderr, r


def test_a_file_that_is_no_json(own, tmp_path):
    (tmp_path / "agent.json").write_text('{"entry": "x",}')
    r = own.cli("deploy", "--template", "base", str(tmp_path / "agent.json"), check=False)
    assert r.returncode == 2 and b"agent.json: line 1" in r.stderr, r


# ---- repositories, and the operator's list ----


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """A deployment that allows some templates, and repositories that name them."""
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    root = tmp_path_factory.mktemp("git")
    for parent in (root, root.parent, root.parent.parent):
        os.chmod(parent, 0o755)
    for name, manifest in {"allowed": {"template": "toolbox"}, "other": {"template": "forbidden"},
                           "missing": {"template": "absent"}}.items():
        (root / name).mkdir()
        git(root, "init", "-q", "-b", "main", name)
        commit(root / name, {"run.sh": "$HOME/answer; cat word", "word": name, "agent.json": json.dumps(manifest)})
    for path in (root, *root.iterdir()):
        os.chmod(path, 0o755)
    neighbour = Neighbour()
    s = Stack(SANDPIPER_TEMPLATES="toolbox, absent,tagged:v1").start()
    try:
        s.root, s.provider = root, Provider(s)
        neighbour.start("git", "-c", "safe.directory=*", "daemon", "--export-all", f"--base-path={root}",
                        f"--listen={neighbour.address}", "--reuseaddr")
        s.url = lambda name: f"git://{neighbour.address}/{name}"
        until("git answers", lambda: subprocess.run(["git", "ls-remote", s.url("allowed")], capture_output=True).returncode == 0)
        s.provider.template("toolbox", ANSWER.format("first"))
        s.provider.template("forbidden", ANSWER.format("forbidden"))
        yield s
        s.quiet()
    finally:
        s.stop()
        neighbour.close()


def clone(stack, name):
    a = stack.client.call("POST", "/v1/agents", {"name": name, "git_url": stack.url(name)})
    assert a.status == 202, a.body
    return built(stack.client, name, a.json["deployed_version"])


def test_a_repository_on_it(listed):
    at = git(listed.root / "allowed", "rev-parse", "HEAD")
    b = clone(listed, "allowed")
    assert (b["status"], b["source"]["commit"], b["manifest"]["template"]) == ("ready", at, "toolbox"), b
    assert b["log"] == f"$ git fetch {listed.url('allowed')}\n$ git fetch {listed.url('allowed')} {at}\n"
    assert listed.client.run("allowed", "")["output"] == "first\nallowed"
    until("one sandbox after the other", lambda: not listed.sandboxes())


@pytest.mark.parametrize("name, code", [("other", "template_not_allowed"), ("missing", "template_unusable")])
def test_a_repository_on_one_that_cannot_be(listed, name, code):
    b = clone(listed, name)
    assert (b["status"], b["error"]["code"]) == ("failed", code), b


def test_only_what_the_operator_names(listed):
    c = listed.client
    for template in ("forbidden", "base", "team/toolbox", "TOOLBOX", "tagged", "tagged:v2"):
        for a in (send(c, "unlisted", template), upload(c, "unlisted", {"run.sh": ""}, template=template)):
            assert (a.status, a.json["code"]) == (403, "template_not_allowed") and "SANDPIPER_TEMPLATES" in a.json["detail"], a.body
    assert c.call("GET", "/v1/agents/unlisted").status == 404
    assert send(c, "listed", "toolbox:any").status == 202 and built(c, "listed", 1)["status"] == "ready"
    assert send(c, "listed", "tagged:v1").status == 202 and built(c, "listed", 2)["error"]["code"] == "template_unusable"
    assert c.deploy("plain", {"run.sh": "echo on the base"})["status"] == "ready"  # nothing is named


def test_none_and_lists_that_cannot_be_read(listed):
    g = listed.add_gateway(SANDPIPER_TEMPLATES="none")
    from stack import Client
    assert send(Client(g.port, listed.key), "unlisted", "none").json["code"] == "template_not_allowed"
    for daemon, value in (("gateway", "a b"), ("executor", "x,,y"), ("gateway", "*,base")):
        env = {**listed.env, "SANDPIPER_TEMPLATES": value, "SANDPIPER_GATEWAY_LISTEN": f"127.0.0.1:{free_port()}"}
        r = subprocess.run([os.path.join(os.environ["SP_BIN"], f"sandpiper-{daemon}"), "--check-config"], env=env, capture_output=True)
        assert r.returncode == 2 and b"SANDPIPER_TEMPLATES" in r.stderr, (daemon, value, r)


# ---- a version goes ----


def test_the_template_survives_versions_built_on_it():
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    s = Stack(SANDPIPER_AGENT_KEEP_VERSIONS="1", SANDPIPER_AGENT_RETIRE_GRACE="1s")
    try:
        s.start()
        provider, c = Provider(s), s.client
        made = provider.template("lasting", ANSWER.format("lasts"))
        first = deploy(c, "old", "lasting")
        snapshot = s.psql("select snapshot from agent_versions where version = 1")
        assert first["status"] == "ready" and snapshot in provider.snapshots()
        for _ in range(2):
            deploy(c, "old", "lasting")
        until("version 1 is done away with", lambda: snapshot not in provider.snapshots(), 30)
        until("struck off", lambda: s.psql("select status, snapshot from agent_versions where version = 1") == "3|")
        assert provider.snapshots()[made] == "lasting"
        assert c.run("old", "")["output"] == "lasts\n"
        assert deploy(c, "new", "lasting")["status"] == "ready" and c.run("new", "")["output"] == "lasts\n"
        s.quiet()
    finally:
        s.stop()


# ---- what E2B answers ----


@pytest.fixture(scope="module")
def sim():
    s = SimStack()
    try:
        yield s.start()
    finally:
        s.stop()


@pytest.mark.parametrize("fault, words", [("404", "404: template not found"), ("403", "does not have access")])
def test_a_template_that_the_provider_refuses_is_not_asked_for_again(sim, fault, words):
    before = sim.injected("create")
    sim.faults({"on": "create", "fault": fault})
    try:
        b = deploy(sim.client, f"refused-{fault}", "theirs")
        assert (b["status"], b["error"]["code"]) == ("failed", "template_unusable") and words in b["error"]["message"], b
        assert sim.injected("create") - before == 1
    finally:
        sim.heal()


def test_the_operators_own_template_is_not_the_agents_fault(sim):
    """Until it is mended its builds wait."""
    c = sim.client
    before = sim.injected("create")
    sim.faults({"on": "create", "fault": "404"})
    try:
        assert upload(c, "waits", {"run.sh": ""}).status == 202
        until("the provider has refused it", lambda: sim.injected("create") > before)
        until("it is given back", lambda: "it will be tried again" in sim.executors[0].text())
        assert c.call("GET", "/v1/agents/waits").json["latest_build"]["status"] == "building"
    finally:
        sim.heal()
    assert built(c, "waits", 1)["status"] == "ready"


@pytest.mark.parametrize("fault", ["503", "429_rate", "500", "reset", "lost"])
def test_a_failure_that_passes_is_not_the_templates(sim, fault):
    before = sim.injected("create")
    sim.faults({"on": "create", "fault": fault, "times": 1})
    try:
        assert deploy(sim.client, f"passing-{fault.replace('_', '-')}", "any")["status"] == "ready"
        assert sim.injected("create") - before == 1
    finally:
        sim.heal()
    assert "any" in {line["template"] for line in sim.ledger().values()}
