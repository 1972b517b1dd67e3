"""sandpiper, the command line, against a gateway of a few lines that answers as the API does."""

import http.server
import io
import json
import os
import pathlib
import signal
import subprocess
import tarfile
import threading

import pytest

from sandboxd_client import BIN, free_port

ID = "inv_01a1fd4a-54f5-7001-ac3b-0ecdad472b4f"


def record(**more):
    base = {"id": ID, "agent": "a", "version": 1, "status": "running", "output": None, "output_size": None,
            "exit_code": None, "signal": None, "error": None, "usage": {}}
    return {**base, **more}


class FakeGateway:
    """Answers are looked up by "METHOD path" (without the query): (status, JSON or bytes), or a function of the request."""

    def __init__(self):
        self.answers, self.seen = {}, []
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                path = self.path.split("?")[0]
                fake.seen.append((self.command, self.path, dict(self.headers), body))
                answer = fake.answers.get(f"{self.command} {path}", (404, {"code": "not_found", "title": "No."}))
                if callable(answer):
                    answer = answer()
                status, content = answer
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = handle_any

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *args: None  # a client may hang up
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def submitted(self):
        return [(h, json.loads(b)) for m, p, h, b in self.seen if (m, p) == ("POST", "/v1/invocations")]


@pytest.fixture
def gateway():
    g = FakeGateway()
    yield g
    g.server.shutdown()
    g.server.server_close()


def env(gateway=None, **more):
    e = {k: v for k, v in os.environ.items() if not k.startswith("SANDPIPER_")}
    if gateway is not None:
        e["SANDPIPER_URL"] = gateway.url
    return {**e, **more}


def cli(gateway, *args, stdin=b"", cwd=None, **more):
    return subprocess.run([BIN / "sandpiper", *args], input=stdin, capture_output=True, cwd=cwd, timeout=60,
                          env=env(gateway, **more))


def test_invoke_prints_the_answer(gateway):
    gateway.answers["POST /v1/invocations"] = (200, record(status="succeeded", output="hé", output_size=3, exit_code=0))
    r = cli(gateway, "invoke", "a", "say \"x\"\n", "--metadata", "k=v", "--metadata", "u=a=b", "--timeout", "7",
            "--priority", "high", SANDPIPER_API_KEY="sp_secret")
    assert (r.returncode, r.stdout, r.stderr) == (0, "hé".encode(), b"")
    headers, body = gateway.submitted()[0]
    assert body == {"agent": "a", "prompt": "say \"x\"\n", "timeout_s": 7, "priority": "high",
                    "metadata": {"k": "v", "u": "a=b"}}
    assert headers["Authorization"] == "Bearer sp_secret"
    assert headers["Prefer"].startswith("wait=") and headers["Idempotency-Key"]


def test_invoke_reads_stdin_and_waits(gateway):
    states = iter(["queued", "running", "succeeded"])
    gateway.answers["POST /v1/invocations"] = (202, record(status="queued"))
    gateway.answers[f"GET /v1/invocations/{ID}"] = lambda: (200, record(status=next(states), output="done\n"))
    r = cli(gateway, "invoke", "a", stdin=b"from a pipe")
    assert (r.returncode, r.stdout) == (0, b"done\n")
    assert gateway.submitted()[0][1]["prompt"] == "from a pipe"


def test_invoke_fetches_bytes(gateway):
    data = bytes(range(256)) * 5000
    gateway.answers["POST /v1/invocations"] = (200, record(status="succeeded", output_size=len(data)))
    gateway.answers[f"GET /v1/invocations/{ID}/output"] = (200, data)
    assert cli(gateway, "invoke", "a", "x").stdout == data


def test_invoke_reports_failure(gateway):
    gateway.answers["POST /v1/invocations"] = (200, record(status="failed", output="half\n", output_size=5, exit_code=3))
    gateway.answers[f"GET /v1/invocations/{ID}/logs"] = (206, b"Traceback")
    r = cli(gateway, "invoke", "a", "x")
    assert (r.returncode, r.stdout) == (1, b"half\n")
    assert b"Traceback\n" in r.stderr and b"failed, exit code 3" in r.stderr
    r = cli(gateway, "invoke", "a", "x", "--json")
    assert r.returncode == 1 and json.loads(r.stdout)["status"] == "failed" and r.stderr == b""


def test_a_busy_gateway_is_asked_again_under_the_same_key(gateway):
    answers = iter([(503, {"code": "unavailable", "title": "No."}), (200, record(status="succeeded", output="ok"))])
    gateway.answers["POST /v1/invocations"] = lambda: next(answers)
    assert cli(gateway, "invoke", "a", "x").stdout == b"ok"
    first, second = (h["Idempotency-Key"] for h, _ in gateway.submitted())
    assert first == second


def test_env_comes_from_the_environment_alone(gateway):
    gateway.answers["POST /v1/invocations"] = (200, record(status="succeeded", output="x", output_size=1))
    assert cli(gateway, "invoke", "a", "x", "--env", "ONE", "--env", "TWO", ONE="1 \"é\"", TWO="").returncode == 0
    assert gateway.submitted()[0][1]["env"] == {"ONE": "1 \"é\"", "TWO": ""}
    for value, words in (("ONE=1", b"NAME=\xe2\x80\xa6 sandpiper invoke"), ("NOT_THERE", b"no such variable"), ("BROKEN", b"UTF-8")):
        r = cli(gateway, "invoke", "a", "x", "--env", value, BROKEN="\udcff")
        assert r.returncode == 2 and words in r.stderr, r.stderr
    assert len(gateway.submitted()) == 1


def test_a_prompt_from_a_file(gateway, tmp_path):
    gateway.answers["POST /v1/invocations"] = (200, record(status="succeeded", output="x", output_size=1))
    path = tmp_path / "prompt.txt"
    path.write_text("from a file\n")
    assert cli(gateway, "invoke", "a", "--file", path, "--wait").returncode == 0
    assert cli(gateway, "invoke", "a", "--file", "-", stdin=b"from stdin").returncode == 0
    assert [b["prompt"] for _, b in gateway.submitted()] == ["from a file\n", "from stdin"]
    path.write_bytes(b"\xff")
    for args, words in ((["--file", path], b"UTF-8"), (["--file", tmp_path / "none"], b"No such file"), (["--file", tmp_path], b"directory"),
                        (["x", "--file", path], b"not both"), (["x", "--detach", "--wait"], b"leave out --detach")):
        r = cli(gateway, "invoke", "a", *args)
        assert r.returncode == 2 and words in r.stderr, r.stderr
    assert len(gateway.submitted()) == 2


@pytest.mark.parametrize("option", ["--detach", "--no-wait"])
def test_detach(gateway, option):
    gateway.answers["POST /v1/invocations"] = (202, record(status="queued"))
    r = cli(gateway, "invoke", "a", "x", option, "--idempotency-key", "mine")
    assert (r.returncode, r.stdout) == (0, ID.encode() + b"\n")
    assert gateway.submitted()[0][0]["Idempotency-Key"] == "mine" and "Prefer" not in gateway.submitted()[0][0]


def test_interrupting_cancels(gateway):
    polled, release = threading.Event(), threading.Event()

    def hang():
        polled.set()
        release.wait(20)
        return 200, record()

    gateway.answers["POST /v1/invocations"] = (202, record())
    gateway.answers[f"GET /v1/invocations/{ID}"] = hang
    gateway.answers[f"POST /v1/invocations/{ID}/cancel"] = (200, record(status="canceled"))
    p = subprocess.Popen([BIN / "sandpiper", "invoke", "a", "x"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, env=env(gateway))
    assert polled.wait(20)
    p.send_signal(signal.SIGINT)
    _, stderr = p.communicate(timeout=20)
    release.set()
    assert p.returncode == 1 and f"canceled {ID}".encode() in stderr


def test_interrupting_a_submission_cancels(gateway):
    """The id is not known yet: it is asked for under the same key."""
    asked, release = threading.Event(), threading.Event()

    def submit():
        if asked.is_set():
            return 202, record()
        asked.set()
        release.wait(20)
        return 200, record()

    gateway.answers["POST /v1/invocations"] = submit
    gateway.answers[f"POST /v1/invocations/{ID}/cancel"] = (200, record(status="canceled"))
    p = subprocess.Popen([BIN / "sandpiper", "invoke", "a", "x"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, env=env(gateway))
    assert asked.wait(20)
    p.send_signal(signal.SIGINT)
    _, stderr = p.communicate(timeout=20)
    release.set()
    assert p.returncode == 1 and f"canceled {ID}".encode() in stderr
    (one, body), (two, again) = gateway.submitted()
    assert one["Idempotency-Key"] == two["Idempotency-Key"] and body == again and "Prefer" not in two


def test_errors_say_what_to_do(gateway):
    r = cli(None, "agents", SANDPIPER_URL=f"http://127.0.0.1:{free_port()}")
    assert r.returncode == 3 and b"cannot reach http://" in r.stderr and b"deploy/quickstart" in r.stderr
    gateway.answers["GET /v1/agents"] = (401, {"code": "unauthorized", "detail": "Who?", "status": 401})
    r = cli(gateway, "agents")
    assert r.returncode == 3 and b"Who? (unauthorized" in r.stderr and b"SANDPIPER_API_KEY" in r.stderr
    gateway.answers["GET /v1/agents"] = (200, b"<html>")
    assert b"check SANDPIPER_URL" in cli(gateway, "agents").stderr
    gateway.answers["GET /v1/agents"] = (404, b"<html>")
    assert b"check SANDPIPER_URL" in cli(gateway, "agents").stderr


@pytest.mark.parametrize("args", [[], ["nonsense"], ["invoke"], ["invoke", "a", "b", "c"], ["invoke", "a", "b", "--nope"],
                                  ["invoke", "a", "b", "--timeout", "soon"], ["invoke", "a", "b", "--metadata", "k"],
                                  ["get", "a/b"], ["get"], ["keys", "destroy"], ["help", "nonsense"], ["deploy", "/nonexistent"], ["migrate"]])
def test_wrong_usage(gateway, args):
    r = cli(gateway, *args)
    assert r.returncode == 2 and gateway.seen == []


def test_help_everywhere(gateway):
    assert b"invoke" in cli(gateway, "--help").stdout
    assert cli(gateway, "--version").stdout.startswith(b"sandpiper ")
    for command in ["deploy", "invoke", "ls", "agents", "get", "logs", "cancel", "keys", "migrate"]:
        r = cli(gateway, command, "--help")
        assert r.returncode == 0 and b"--json" in r.stdout and cli(gateway, "help", command).stdout == r.stdout


def test_the_key_of_the_quickstart_is_found(gateway, tmp_path):
    gateway.answers["GET /v1/agents"] = (200, {"agents": [], "next_cursor": None})
    (tmp_path / ".sandpiper").mkdir()
    (tmp_path / ".sandpiper/api-key").write_text("sp_file\n")
    cli(gateway, "agents", cwd=tmp_path)
    assert gateway.seen[0][2]["Authorization"] == "Bearer sp_file"


def build(status, **more):
    return {"name": "my-agent", "latest_build": {"version": 4, "status": status, "log": "", "error": None, **more}}


def agent_dir(root: pathlib.Path):
    files = {"agent.js": "x", "node_modules/m/i.js": "x", ".git/HEAD": "x", "sub/a.log": "x", "sub/keep.txt": "x",
             "build/out": "x", "deep/build/out": "x", ".sandpiperignore": "# c\n*.log\n/build/\n", "sub/__pycache__/c": "x"}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("agent.js")
    return root


def test_deploy_packs_and_waits(gateway, tmp_path):
    states = iter(["building", "ready"])
    gateway.answers["POST /v1/agents"] = (202, build("building"))
    gateway.answers["GET /v1/agents/my-agent"] = lambda: (200, build(next(states)))
    r = cli(gateway, "deploy", agent_dir(tmp_path / "My_Agent"))
    assert r.returncode == 0 and b"deployed my-agent version 4" in r.stdout
    _, path, headers, body = gateway.seen[0]
    assert path == "/v1/agents?name=my-agent" and headers["Content-Type"] == "application/gzip"
    with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as tar:
        entries = {m.name: m for m in tar.getmembers()}
        files = sorted(n for n, m in entries.items() if not m.isdir())
        assert files == ["agent.js", "deep/build/out", "link", "run.sh", "sub/keep.txt"]
        assert entries["link"].linkname == "agent.js" and entries["run.sh"].mode == 0o755
        assert entries["agent.js"].uid == 0 and tar.extractfile("agent.js").read() == b"x"


def packed(body):
    with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as tar:
        return sorted(m.name for m in tar.getmembers() if not m.isdir())


def test_deploy_leaves_out_what_git_does(gateway, tmp_path):
    """In a work tree: the files that git would add, nested ignore files and exceptions included."""
    files = {".gitignore": "*.log\n!keep.log\n/out/\ndeep/**/x\n# a comment\n\\#odd\ntrailing  \n", "main.py": "", "a.log": "", "keep.log": "",
             "sub/.gitignore": "!a.log\n/local\n*.tmp\n", "sub/a.log": "", "sub/b.log": "", "sub/local": "", "sub/deeper/local": "",
             "sub/t.tmp": "", "out/x": "", "sub/out/x": "", "deep/x": "", "deep/a/b/x": "", "deep/a/y": "", "#odd": "", "trailing": "",
             "other/t.tmp": "", "sub/deeper/.gitignore": "*\n!.gitignore\n!kept\n", "sub/deeper/kept": "", "sub/deeper/gone": ""}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
    expected = subprocess.run(["git", "-C", str(tmp_path), "ls-files", "--others", "--exclude-standard"], check=True, capture_output=True,
                              text=True, env=env).stdout.splitlines()
    gateway.answers["POST /v1/agents"] = (202, build("building"))
    assert cli(gateway, "deploy", tmp_path, "--name", "my-agent", "--no-wait").returncode == 0
    assert packed(gateway.seen[0][3]) == sorted(expected) and "keep.log" in expected and "sub/a.log" in expected
    (tmp_path / ".sandpiperignore").write_text("*.py\n!/a.log\nsub/\n")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/x").write_text("")
    assert cli(gateway, "deploy", tmp_path, "--name", "my-agent", "--no-wait").returncode == 0
    with_ours = [f for f in expected if not f.endswith(".py") and not f.startswith("sub/")] + ["a.log"]
    assert packed(gateway.seen[1][3]) == sorted(with_ours)


def test_deploy_shows_a_failed_build(gateway, tmp_path):
    error = {"code": "build_failed", "message": "npm install failed"}
    gateway.answers["POST /v1/agents"] = (202, build("building"))
    gateway.answers["GET /v1/agents/my-agent"] = (200, build("failed", log="npm ERR! no\n", error=error))
    r = cli(gateway, "deploy", agent_dir(tmp_path / "x"), "--name", "my-agent")
    assert r.returncode == 1 and b"npm ERR! no\n" in r.stderr and b"npm install failed (build_failed)" in r.stderr


def test_what_cannot_be_deployed(gateway, tmp_path):
    """Each refusal says what to do, and nothing is sent."""
    def refused(path, words, *args):
        r = cli(gateway, "deploy", path, *args)
        return r.returncode == 2 and r.stdout == b"" and all(w in r.stderr for w in words) and gateway.seen == []

    program = tmp_path / "main.py"
    program.write_text("x")
    assert refused(program, [b"main.py is no directory", b"name the directory"])
    assert refused(tmp_path / "absent", [b"No such file"])
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty", [b"no file to deploy", b"main.py"])
    (tmp_path / "My Agent").mkdir()
    (tmp_path / "My Agent/main.py").write_text("x")
    assert refused(tmp_path / "My Agent", [b"My Agent", b"--name"])
    assert refused(tmp_path / "My Agent", [b"--name takes"], "--name", "My")


def test_a_directory_that_cannot_be_read(gateway, tmp_path):
    root = agent_dir(tmp_path / "x")
    (root / "sub/keep.txt").unlink()
    (root / "sub/keep.txt").mkdir()
    tmp_path.chmod(0o755)
    (root / "agent.js").chmod(0)
    argv = [BIN / "sandpiper", "deploy", root]
    if os.geteuid() == 0:
        for p in tmp_path.parents:
            if p != pathlib.Path("/tmp") and str(p).startswith("/tmp/"):
                p.chmod(p.stat().st_mode | 0o111)
        argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--", *argv]
    r = subprocess.run(argv, env=env(gateway), capture_output=True, timeout=60)
    assert r.returncode == 2 and b"agent.js: Permission denied" in r.stderr and b".sandpiperignore" in r.stderr
    assert gateway.seen == []


def test_packing_ends_at_the_limit(gateway, tmp_path):
    """A directory that was not meant (/, say) is not packed to its end: the second file is never read."""
    (tmp_path / "a").write_bytes(os.urandom(1 << 20) * 130)  # does not compress: it repeats beyond gzip's window
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "b").write_text("x")
    (tmp_path / "b").chmod(0)
    r = cli(gateway, "deploy", tmp_path, "--name", "x")
    assert r.returncode == 2 and b"100 MiB" in r.stderr and b".sandpiperignore" in r.stderr and gateway.seen == []


def test_interrupting_a_deploy_says_what_goes_on(gateway, tmp_path):
    polled, release = threading.Event(), threading.Event()

    def hang():
        polled.set()
        release.wait(20)
        return 200, build("building")

    gateway.answers["POST /v1/agents"] = (202, build("building"))
    gateway.answers["GET /v1/agents/my-agent"] = hang
    p = subprocess.Popen([BIN / "sandpiper", "deploy", agent_dir(tmp_path / "my-agent")], stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env(gateway))
    assert polled.wait(20)
    p.send_signal(signal.SIGINT)
    _, stderr = p.communicate(timeout=20)
    release.set()
    assert p.returncode == 130 and b"the build of my-agent version 4 goes on; 'sandpiper agents'" in stderr


@pytest.mark.parametrize("args, words", [
    (["invoke", "a", "b", "--timout", "5"], b"did you mean --timeout?"),
    (["ls", "--stauts=open"], b"did you mean --status?"),
    (["invoke", "a", "b", "--nope"], b"see sandpiper invoke --help"),
    (["invoke", "a", "b", "--timeout", "0"], b"from 1 up"),
    (["keys", "create", "--tenant", "Bad_Name"], b"--tenant takes lower-case letters"),
])
def test_usage_errors_help(gateway, args, words):
    r = cli(gateway, *args, SANDPIPER_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert r.returncode == 2 and words in r.stderr and gateway.seen == []


def test_what_is_no_gateway_is_not_asked_for_a_key(gateway):
    gateway.answers["GET /v1/invocations"] = (401, b"who are you?")
    r = cli(gateway, "ls")
    assert r.returncode == 3 and b"check SANDPIPER_URL" in r.stderr and b"SANDPIPER_API_KEY" not in r.stderr


def test_a_refused_time_names_the_options(gateway):
    gateway.answers["GET /v1/invocations"] = (400, {"code": "invalid_query", "detail": "created_after must be", "status": 400})
    r = cli(gateway, "ls", "--since", "2d", "--metadata", "a=b")
    assert r.returncode == 3 and b"--since is created_after" in r.stderr


def test_without_a_database(gateway):
    r = cli(gateway, "keys", "create", "--tenant", "default", SANDPIPER_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert r.returncode == 3 and b"Is PostgreSQL running?" in r.stderr and b"migrate" not in r.stderr


def test_looking(gateway):
    gateway.answers[f"GET /v1/invocations/{ID}"] = (200, record(status="succeeded", output="text"))
    gateway.answers[f"GET /v1/invocations/{ID}/logs"] = (200, b"log\xff")
    assert b"succeeded" in cli(gateway, "get", ID).stdout
    assert json.loads(cli(gateway, "get", ID, "--json").stdout)["output"] == "text"
    assert cli(gateway, "logs", ID).stdout == b"log\xff"
    gateway.answers["GET /v1/agents"] = (200, {"agents": [{**build("ready"), "status": "ready", "version": 4}],
                                               "next_cursor": None})
    assert b"my-agent" in cli(gateway, "agents").stdout
