"""Agents from git repositories: cloned in the build's sandbox at a branch, a tag or a commit; and what cannot be."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from neighbour import Neighbour
from stack import Stack, archive, until

LOCKED = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="members"')
        self.end_headers()
http.server.ThreadingHTTPServer((sys.argv[1], 8000), Handler).serve_forever()
"""


def git(where, *argv):
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org",
           "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.org"}
    r = subprocess.run(["git", "-C", str(where), *argv], check=True, capture_output=True, text=True, env=env)
    return r.stdout.strip()


def commit(where, files):
    for name, text in files.items():
        (where / name).write_text(text)
    git(where, "add", "-A")
    git(where, "commit", "-q", "-m", "x")
    return git(where, "rev-parse", "HEAD")


class Remote:
    def __init__(self, root):
        self.neighbour = Neighbour()
        work = root / "agent"
        work.mkdir()
        git(root, "init", "-q", "-b", "main", "agent")
        self.commits = [commit(work, {"main.py": f"print({n})", "agent.json": json.dumps({"env": {"N": str(n)}, "timeout_s": 60 + n})})
                        for n in range(3)]
        git(work, "tag", "-a", "v1", "-m", "one", self.commits[1])
        git(work, "checkout", "-q", "-b", "feature/x")
        self.feature = commit(work, {"main.py": "print('feature')", "install.txt": ""})
        git(work, "checkout", "-q", "main")
        for name, files in {"plain": {"main.py": "print('plain')"}, "empty": {"README": "x"},
                            "faulty": {"main.py": "", "agent.json": '{\n"timeuot_s": 5}'},
                            "unkept": {"main.py": "", "agent.json": '{"memory_mb": 512}'}}.items():
            (root / name).mkdir()
            git(root, "init", "-q", "-b", "main", name)
            commit(root / name, files)
        for path in (root, *root.iterdir()):
            os.chmod(path, 0o755)
        self.neighbour.start("git", "-c", "safe.directory=*", "daemon", "--export-all", f"--base-path={root}",
                             f"--listen={self.neighbour.address}", "--reuseaddr")
        self.neighbour.start(sys.executable, "-c", LOCKED, self.neighbour.address)
        for port in (9418, 8000):
            until(f"port {port} answers", lambda port=port: self.answers(port))

    def answers(self, port):
        with socket.socket() as s:
            s.settimeout(1)
            return s.connect_ex((self.neighbour.address, port)) == 0

    def url(self, name):
        return f"git://{self.neighbour.address}/{name}"


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    root = tmp_path_factory.mktemp("git")
    for parent in (root, root.parent, root.parent.parent):
        os.chmod(parent, 0o755)
    r = Remote(root)
    yield r
    r.neighbour.close()


@pytest.fixture(scope="module")
def own(remote):
    s = Stack().start()
    try:
        yield s
        s.quiet()
    finally:
        s.stop()


def send(client, **body):
    return client.call("POST", "/v1/agents", body)


def built(client, name, version):
    return until(f"{name}'s build has ended", lambda: (b := client.call("GET", f"/v1/agents/{name}").json["latest_build"])
                 and b["version"] == version and b["status"] != "building" and b, 60)


def deploy(client, name, url, **more):
    a = send(client, name=name, git_url=url, **more)
    assert a.status == 202, a.body
    return built(client, name, a.json["deployed_version"])


def test_a_branch_a_tag_a_commit_and_what_head_is(own, remote):
    c, url, (first, second, third) = own.client, remote.url("agent"), remote.commits
    for ref, at, output in ((None, third, "2\n"), ("main", third, "2\n"), ("v1", second, "1\n"), (first, first, "0\n"),
                            (second[:12], second, "1\n"), ("feature/x", remote.feature, "feature\n")):
        b = deploy(c, "cloned", url, **({} if ref is None else {"ref": ref}))
        assert b["status"] == "ready", (ref, b)
        assert b["source"] == {"type": "git", "url": url, "ref": ref, "commit": at}
        r = c.run("cloned", "")
        assert (r["output"], r["version"]) == (output, b["version"])
    listed = c.call("GET", "/v1/agents/cloned/versions").json["data"]
    assert listed[0]["source"]["commit"] == remote.feature and listed[0]["source_sha256"] is None


def test_its_agent_json_counts(own, remote):
    b = deploy(own.client, "described", remote.url("agent"))
    assert b["manifest"] == {"runtime": "python", "entry": "main.py", "install": "", "env": {"N": "2"}, "timeout_s": 62, "egress": "allow"}
    assert (b["runtime"], b["entry"]) == ("python", "main.py") and own.client.run("described", "")["timeout_s"] == 62
    b = deploy(own.client, "plain", remote.url("plain"))
    assert b["manifest"]["entry"] == "main.py" and own.client.run("plain", "")["output"] == "plain\n"


def test_the_command_line(own, remote):
    r = own.cli("deploy", remote.url("agent") + "/", "--ref", "v1").stdout.decode()
    assert r.startswith("deployed agent version 1 in "), r
    assert own.client.run("agent", "")["output"] == "1\n"
    r = own.cli("deploy", remote.url("agent"), "--ref", "none", "--name", "agent", check=False)
    assert r.returncode == 1 and b"no branch, tag or commit none (clone_failed)" in r.stderr, r
    for argv in (["deploy", "/tmp", "--ref", "v1"], ["deploy", remote.url("agent"), "--rebuild"]):
        assert own.cli(*argv, check=False).returncode == 2


FAULTS = {
    "a repository that is not there": ({"url": "no-such"}, "clone_failed", "cannot be fetched"),
    "a ref that is not there": ({"url": "agent", "ref": "no/such"}, "clone_failed", "no branch, tag or commit no/such"),
    "a commit that is not there": ({"url": "agent", "ref": "0" * 39 + "1"}, "clone_failed", "no branch, tag or commit"),
    "a repository without a program": ({"url": "empty"}, "invalid_manifest", "no program"),
    "a misspelt key": ({"url": "faulty"}, "invalid_manifest", 'line 2: unknown key "timeuot_s"; did you mean "timeout_s"?'),
    "a key that nobody keeps": ({"url": "unkept"}, "unsupported_feature", "memory_mb"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_what_cannot_be_cloned_or_built(own, remote, what):
    source, code, words = FAULTS[what]
    c, name = own.client, "untouched"
    c.deploy(name, {"main.py": "print('serves')"})
    before = c.run(name, "")
    b = deploy(c, name, remote.url(source["url"]), **{k: v for k, v in source.items() if k != "url"})
    assert (b["status"], b["error"]["code"]) == ("failed", code) and words in b["error"]["message"], b
    after = c.run(name, "")
    assert (after["output"], after["version"]) == (before["output"], before["version"]) == ("serves\n", 1)


def test_one_that_asks_for_a_password_fails_within_seconds(own, remote):
    c = own.client
    c.deploy("members", {"main.py": "print('serves')"})
    began = time.monotonic()
    b = deploy(c, "members", f"http://{remote.neighbour.address}:8000/private.git")
    assert (b["status"], b["error"]["code"]) == ("failed", "clone_failed") and "password" in b["error"]["message"], b
    assert time.monotonic() - began < 30  # not the limit of a clone, which is two minutes
    r = c.run("members", "")
    assert (r["output"], r["version"]) == ("serves\n", 1)


@pytest.mark.parametrize("body, code, word", [
    ({"git_url": "https://user:secret@git.example/a"}, "invalid_field", "password"),
    ({"git_url": "https://token@git.example/a"}, "invalid_field", "password"),
    ({"git_url": "file:///etc"}, "invalid_field", "https://"),
    ({"git_url": "/etc"}, "invalid_field", "https://"),
    ({"git_url": "ext::sh -c id"}, "invalid_field", "plain"),
    ({"git_url": "ssh://git@git.example/a"}, "invalid_field", "https://"),
    ({"git_url": "git@git.example:a"}, "invalid_field", "https://"),
    ({"git_url": "https://git.example"}, "invalid_field", "repository"),
    ({"git_url": "https://-upload-pack=x/a"}, "invalid_field", "host"),
    ({"git_url": "https://git.example/a\nb"}, "invalid_field", "plain"),
    ({"git_url": "https://git.example/" + "a" * 1024}, "invalid_field", "1024"),
    ({"git_url": "https://git.example/a", "ref": "--upload-pack=id"}, "invalid_field", "ref"),
    ({"git_url": "https://git.example/a", "ref": "a b"}, "invalid_field", "ref"),
    ({"git_url": "https://git.example/a", "ref": "a..b"}, "invalid_field", "ref"),
    ({"git_url": "https://git.example/a", "ref": "x" * 201}, "invalid_field", "ref"),
    ({"git_url": "https://git.example/a", "ref": 7}, "invalid_field", "ref"),
    ({"git_url": "https://git.example/a", "branch": "x"}, "unknown_field", "branch"),
    ({"git_url": "https://git.example/a", "name": "Upper"}, "invalid_field", "lower-case"),
    ({"git_url": 7}, "invalid_field", "git_url"),
    ({}, "missing_field", "git_url"),
    ({"git_url": "https://git.example/a", "name": None}, "invalid_field", "name"),
])
def test_what_is_refused_at_once(own, body, code, word):
    a = send(own.client, **{"name": "refused", **body})
    assert (a.status, a.json["code"]) == (400, code) and word in a.json["detail"], a.body
    assert own.client.call("GET", "/v1/agents/refused").status == 404


# ---- archives: what is at fault changes nothing for callers ----

PLAIN = {"main.py": "print('serves')"}
AT_FAULT = {
    "no archive": (b"this is no archive", 400, "invalid_archive"),
    "a misspelt key": ({**PLAIN, "agent.json": '{"entyr": "main.py"}'}, 400, "invalid_manifest"),
    "no entry": ({**PLAIN, "agent.json": '{"entry": "other.py"}'}, 400, "invalid_manifest"),
    "an install step that fails": ({**PLAIN, "agent.json": '{"install": "echo broken >&2; exit 3"}'}, 202, "build_failed"),
}


@pytest.mark.parametrize("what", AT_FAULT)
def test_an_archive_at_fault_leaves_what_serves(own, what):
    files, status, code = AT_FAULT[what]
    c = own.client
    c.deploy("steady", PLAIN)
    a = c.call("POST", "/v1/agents?name=steady", files if isinstance(files, bytes) else archive(files), {"Content-Type": "application/gzip"})
    assert a.status == status, a.body
    if status == 202:
        b = until("the build ends", lambda: (b := c.call("GET", "/v1/agents/steady").json["latest_build"])["finished_at"] and b, 60)
        assert b["error"]["code"] == code and "exit code 3" in b["error"]["message"] and "broken" in b["log"], b
    else:
        assert a.json["code"] == code, a.json
    r = c.run("steady", "")
    assert (r["status"], r["output"], r["version"]) == ("succeeded", "serves\n", 1)
