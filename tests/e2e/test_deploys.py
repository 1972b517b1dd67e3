"""Deploys: what is the same source, and that it is built once."""

import gzip
import io
import json
import tarfile

import pytest

from sim_stack import SimStack
from stack import archive, in_threads, until

GZIP = {"Content-Type": "application/gzip"}
FILES = {"agent.json": '{"runtime": "command", "entry": "cat"}', "a/b.txt": "b", "c.txt": "c"}


@pytest.fixture(scope="module")
def sim():
    s = SimStack()
    try:
        yield s.start()
    finally:
        s.stop()


def post(client, name, data, query=""):
    a = client.call("POST", f"/v1/agents?name={name}{query}", data, GZIP)
    assert a.status in (200, 202), a.body
    return a.status, a.json["deployed_version"]


def deployed(client, name, data=None):
    """Its version 1, ready."""
    assert post(client, name, data or archive(FILES)) == (202, 1)
    until("it is ready", lambda: agent(client, name)["version"] == 1)
    return name


def agent(client, name):
    return client.call("GET", f"/v1/agents/{name}").json


def versions(client, name):
    return [v["version"] for v in client.call("GET", f"/v1/agents/{name}/versions").json["data"]]


def tar(entries, level=9, mtime=0, kind=tarfile.PAX_FORMAT):
    """entries: (name, content), (name, content, rights), (name, None) for a directory, (name, "->", target)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as t:
        for name, content, *more in entries:
            info = tarfile.TarInfo(name)
            info.mtime, info.mode = mtime, 0o644
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                t.addfile(info)
            elif content == "->":
                info.type, info.linkname = tarfile.SYMTYPE, more[0]
                t.addfile(info)
            else:
                info.size, info.mode = len(content), more[0] if more else 0o644
                t.addfile(info, io.BytesIO(content.encode()))
    return gzip.compress(out.getvalue(), level, mtime=mtime)


BASE = [(k, v) for k, v in FILES.items()]
SAME = {
    "byte for byte": tar(BASE),
    "later, and compressed less": tar(BASE, level=1, mtime=1_700_000_000),
    "in another order": tar(BASE[::-1]),
    "as another kind of tar": tar(BASE, kind=tarfile.USTAR_FORMAT),
    "with directories and ./": tar([("./", None), ("a/", None), *[(f"./{k}", v) for k, v in BASE]]),
    "with rights of others": tar([(k, v, 0o666) for k, v in BASE]),
}
OTHER = {
    "another content": tar([*BASE[:2], ("c.txt", "d")]),
    "another name": tar([*BASE[:2], ("d.txt", "c")]),
    "one more file": tar([*BASE, ("d.txt", "")]),
    "one less": tar(BASE[:2]),
    "an empty directory": tar([*BASE, ("d", None)]),
    "a program that may be run": tar([*BASE[:2], ("c.txt", "c", 0o755)]),
    "a link": tar([*BASE[:2], ("c.txt", "->", "a/b.txt")]),
    "agent.json with a space more": tar([("agent.json", FILES["agent.json"] + " "), *BASE[1:]]),
    "contents that have changed places": tar([BASE[0], ("a/b.txt", "c"), ("c.txt", "b")]),
}


def test_the_same_source_is_built_once(sim):
    c, name = sim.client, deployed(sim.client, "same", tar(BASE))
    before = sim.stats()["created"]
    for what, data in SAME.items():
        assert post(c, name, data) == (200, 1), what
    assert versions(c, name) == [1] and sim.stats()["created"] == before
    sums = set()
    for n, (what, data) in enumerate(OTHER.items(), 2):
        assert post(c, name, data) == (202, n), what
        until("it is ready", lambda n=n: agent(c, name)["version"] == n)
        sums.add(c.call("GET", f"/v1/agents/{name}/versions?limit=1").json["data"][0]["source_sha256"])
    assert len(sums) == len(OTHER)


def test_links_to_different_places_differ(sim):
    c = sim.client
    name = deployed(c, "links", tar([*BASE, ("l", "->", "c.txt")]))
    assert post(c, name, tar([*BASE, ("l", "->", "a/b.txt")])) == (202, 2)


def test_a_rebuild_is_asked_for(sim):
    c, name = sim.client, deployed(sim.client, "again")
    assert post(c, name, archive(FILES), "&rebuild=false") == (200, 1)
    assert post(c, name, archive(FILES), "&rebuild=true") == (202, 2)
    a = c.call("POST", f"/v1/agents?name={name}&rebuild=yes", archive(FILES), GZIP)
    assert (a.status, a.json["code"]) == (400, "invalid_query")


def test_a_name_of_its_own_is_another_agent(sim):
    deployed(sim.client, "here"), deployed(sim.client, "there")


def test_another_tenants_deploy_is_not_looked_at(sim):
    from stack import Client
    deployed(sim.client, "mine")
    deployed(Client(sim.client.port, sim.new_key("elsewhere")), "mine")


def test_what_is_being_built_is_not_begun_twice(sim):
    c = sim.client
    slow = archive({**FILES, "agent.json": json.dumps({"runtime": "command", "entry": "cat", "install": json.dumps({"sim": {"run_ms": 4000}})})})
    assert post(c, "slow", slow) == (202, 1)
    assert in_threads([lambda: post(c, "slow", slow)] * 4) == [(202, 1)] * 4
    until("it is ready", lambda: agent(c, "slow")["version"] == 1, 30)
    assert post(c, "slow", slow) == (200, 1)


def test_a_build_that_failed_is_begun_again(sim):
    c = sim.client
    bad = archive({**FILES, "agent.json": json.dumps({"runtime": "command", "entry": "cat", "install": json.dumps({"sim": {"exit_code": 1}})})})
    assert post(c, "bad", bad) == (202, 1)
    until("it fails", lambda: agent(c, "bad")["latest_build"]["status"] == "failed")
    assert post(c, "bad", bad) == (202, 2)


def test_a_failure_in_between_does_not_hide_what_is_ready(sim):
    c, name = sim.client, deployed(sim.client, "behind")
    bad = {**FILES, "agent.json": json.dumps({"runtime": "command", "entry": "cat", "install": json.dumps({"sim": {"exit_code": 1}})})}
    assert post(c, name, archive(bad)) == (202, 2)
    until("it fails", lambda: agent(c, name)["latest_build"]["status"] == "failed")
    assert post(c, name, archive(FILES)) == (200, 1) and agent(c, name)["version"] == 1


def test_what_is_deployed_again_serves(sim):
    c, name = sim.client, deployed(sim.client, "serves")
    second = archive({**FILES, "c.txt": "two"})
    assert post(c, name, second) == (202, 2)
    until("it is ready", lambda: agent(c, name)["version"] == 2)
    assert c.call("POST", f"/v1/agents/{name}/rollback", {}).json["version"] == 1
    assert post(c, name, second) == (200, 2)
    a = agent(c, name)
    assert (a["version"], a["rolled_back_from"]) == (2, None) and c.run(name, "x")["version"] == 2
    assert post(c, name, archive(FILES)) == (202, 3)  # the newest is another: it is not looked for among all


def test_so_does_what_is_still_being_built(sim):
    c, name = sim.client, deployed(sim.client, "later")
    slow = archive({**FILES, "agent.json": json.dumps({"runtime": "command", "entry": "cat", "install": json.dumps({"sim": {"run_ms": 3000}})})})
    assert post(c, name, slow) == (202, 2)
    assert c.call("POST", f"/v1/agents/{name}/rollback", {"version": 1}).status == 200
    assert post(c, name, slow) == (202, 2)
    until("it serves", lambda: agent(c, name)["version"] == 2, 30)


def test_a_manifest_read_in_another_way_is_built(sim):
    """A newer Sandpiper may fill in other defaults: then the version is another, though the files are the same."""
    c, name = sim.client, deployed(sim.client, "newer")
    sim.psql("update agent_versions v set manifest = replace(manifest, '\"allow\"', '\"deny\"') from agents a where a.id = v.agent and a.slug = 'newer'")
    assert post(c, name, archive(FILES)) == (202, 2)


@pytest.mark.parametrize("entries, runtime, entry", [
    ([("package.json", '{"main": "./src/a.js"}'), ("src/a.js", "")], "node", "src/a.js"),
    ([("package.json", '{"bin": {"x": "b.js"}}'), ("b.js", ""), ("index.js", "")], "node", "b.js"),
    ([("package.json", '{"scripts": {"start": "node x"}}'), ("x.js", "")], "command", "npm start --silent"),
    ([("pyproject.toml", ""), ("agent.py", "")], "python", "agent.py"),
    ([("answer", "", 0o755), ("README", "")], "command", "exec ./answer"),
    ([("agent", "", 0o755), ("other", "", 0o755)], "command", "exec ./agent"),
    ([("run.sh", "", 0o755), ("other", "", 0o755)], "command", "sh run.sh"),
], ids=["main", "bin", "start", "pyproject", "executable", "agent", "run"])
def test_the_files_tell_what_to_run(sim, request, entries, runtime, entry):
    name = "told-" + request.node.callspec.id
    assert post(sim.client, name, tar(entries)) == (202, 1)
    b = agent(sim.client, name)["latest_build"]
    assert (b["runtime"], b["entry"]) == (runtime, entry)


@pytest.mark.parametrize("entries", [[("one", "", 0o755), ("two", "", 0o755)], [("sub/one", "", 0o755)], [("package.json", "{}")]])
def test_files_that_tell_nothing_are_refused(sim, entries):
    a = sim.client.call("POST", "/v1/agents?name=nothing", tar(entries), GZIP)
    assert (a.status, a.json["code"]) == (400, "invalid_manifest"), a.body


def test_the_command_line(sim, tmp_path):
    (tmp_path / "run.sh").write_text("cat\n")
    first = sim.cli("deploy", str(tmp_path), "--name", "by-hand").stdout.decode()
    assert first.startswith("deployed by-hand version 1 in ")
    (tmp_path / "run.sh").touch()
    assert sim.cli("deploy", str(tmp_path), "--name", "by-hand").stdout.decode() == "by-hand version 1 has the same source: nothing to build\n"
    assert sim.cli("deploy", str(tmp_path), "--name", "by-hand", "--rebuild").stdout.decode().startswith("deployed by-hand version 2 in ")
    again = json.loads(sim.cli("deploy", str(tmp_path), "--name", "by-hand", "--json").stdout)
    assert again["deployed_version"] == 2
