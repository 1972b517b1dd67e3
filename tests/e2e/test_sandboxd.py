"""sandpiper-sandboxd, the real binary through its real protocol. Needs root; Debian's python3-pytest."""

import base64
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.parse

import pytest

from sandboxd_client import Daemon, Sandbox, in_threads, leftovers, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root")


@pytest.fixture(scope="module")
def daemon():
    d = Daemon().start()
    yield d
    d.stop()
    left = leftovers(d)
    d.remove()
    assert not left


@pytest.fixture
def box(daemon):
    with daemon.create() as s:
        yield s


# ---- the control plane ----


def test_create_on_both_paths(daemon):
    with daemon.create(path="/v2/sandboxes") as two, daemon.create(path="/sandboxes") as one:
        assert two.token and len(two.token) == 64
        assert one.token is None  # v1 is not secure unless asked
        assert two.info["domain"] is None and two.info["envdVersion"]
        assert two.id.isalnum() and two.id.islower() and len(two.id) == 21
    with daemon.create(path="/sandboxes", secure=True) as three:
        assert three.token


def test_defaults_of_the_time_to_live(daemon):
    def seconds(path):
        info = daemon.call("POST", path, {"templateID": "base"}).json
        detail = daemon.call("GET", "/sandboxes/" + info["sandboxID"]).json
        daemon.call("DELETE", "/sandboxes/" + info["sandboxID"])
        stamp = lambda t: time.mktime(time.strptime(t[:19], "%Y-%m-%dT%H:%M:%S"))  # noqa: E731
        return stamp(detail["endAt"]) - stamp(detail["startedAt"])

    assert seconds("/sandboxes") == 15
    assert seconds("/v2/sandboxes") == 300


def test_create_refuses_what_it_cannot_do(daemon):
    for body, status in (
        ({}, 400),
        ({"templateID": "base", "timeout": 0}, 400),
        ({"templateID": "base", "timeout": 10**9}, 400),
        ({"templateID": "base", "metadata": {"a": 1}}, 400),
        ({"templateID": "nobody-made-this"}, 404),
        ({"templateID": "base", "autoPause": True}, 501),
        ({"templateID": "base", "volumeMounts": [{"name": "a", "path": "/a"}]}, 501),
    ):
        answer = daemon.call("POST", "/v2/sandboxes", body)
        assert answer.status == status, (body, answer.body)
        assert answer.json["code"] == status and answer.json["message"]
    assert daemon.call("POST", "/v2/sandboxes", b"{nonsense").status == 400


def test_a_key_is_required(daemon):
    assert daemon.call("GET", "/v2/sandboxes", key=None).status == 401
    assert daemon.call("GET", "/v2/sandboxes", key="e2b_00").status == 401
    assert daemon.call("GET", "/health", key=None).status == 204


def test_get_list_and_filter(daemon):
    with daemon.create(metadata={"job": "1 2", "k": "a/b"}) as a, daemon.create(metadata={"job": "3"}) as b:
        detail = daemon.call("GET", "/sandboxes/" + a.id).json
        assert detail["metadata"] == {"job": "1 2", "k": "a/b"} and detail["state"] == "running"

        def ids(query):
            answer = daemon.call("GET", "/v2/sandboxes?" + query)
            assert answer.status == 200, answer.body
            return [s["sandboxID"] for s in answer.json]

        assert ids("metadata=job%3D1%2525202") == [a.id]  # three layers, as the SDK sends it
        assert ids("metadata=job%3D1%2525202%26k%3Da%25252Fb") == [a.id]
        assert ids("metadata=job%3D3&state=running,paused") == [b.id]
        assert ids("metadata=job%3D3&state=paused") == []
        assert daemon.call("GET", "/v2/sandboxes?metadata=job").status == 400
        assert {a.id, b.id} <= {s["sandboxID"] for s in daemon.call("GET", "/sandboxes").json}


def test_list_in_pages(daemon):
    boxes = [daemon.create(metadata={"page": "x"}) for _ in range(5)]
    seen, token = [], None
    while True:
        query = "metadata=page%3Dx&limit=2&order=asc" + (f"&nextToken={token}" if token else "")
        answer = daemon.call("GET", "/v2/sandboxes?" + query)
        seen += [s["sandboxID"] for s in answer.json]
        token = answer.headers.get("X-Next-Token")
        if not token:
            break
    assert seen == [s.id for s in boxes]
    for s in boxes:
        s.kill()


def test_kill_then_everything_says_so(daemon):
    s = daemon.create()
    assert s.call("GET", "/health").status == 204
    assert s.kill() == 204
    assert s.kill() == 404
    assert daemon.call("GET", "/sandboxes/" + s.id).status == 404
    for method, path in (("GET", "/health"), ("GET", "/files?path=a"), ("POST", "/process.Process/List")):
        answer = s.call(method, path, b"{}" if method == "POST" else None)
        assert answer.status == 502
        assert answer.json == {"sandboxId": s.id, "message": "The sandbox was not found", "code": 502}


def test_kill_ends_running_streams(daemon):
    s = daemon.create()
    stream = s.start("/bin/sleep", "1000").wait_start()
    s.kill()
    stream.finish()
    assert stream.end is None and stream.error["code"] == "unavailable"


def test_time_to_live(daemon):
    s = daemon.create(timeout=2)
    until(lambda: s.call("GET", "/health").status == 502, 6, "the sandbox ends")
    with daemon.create(timeout=100) as t:
        assert daemon.call("POST", f"/sandboxes/{t.id}/timeout", {"timeout": 1}).status == 204
        until(lambda: t.call("GET", "/health").status == 502, 5, "the shortened sandbox ends")
    assert daemon.call("POST", f"/sandboxes/{s.id}/timeout", {"timeout": 1}).status == 404


def test_connect_and_refresh_only_extend(daemon):
    with daemon.create(timeout=200) as s:
        end = lambda: daemon.call("GET", "/sandboxes/" + s.id).json["endAt"]  # noqa: E731
        before = end()
        assert daemon.call("POST", f"/sandboxes/{s.id}/refreshes", {"duration": 20}).status == 204
        answer = daemon.call("POST", f"/v2/sandboxes/{s.id}/connect", {"timeout": 10})
        assert answer.status == 200 and answer.json["sandboxID"] == s.id and answer.json["envdAccessToken"] == s.token
        assert end() == before
        daemon.call("POST", f"/sandboxes/{s.id}/connect", {"timeout": 1000})
        assert end() > before


def test_metrics(daemon, box):
    box.out("head -c 9000000 /dev/urandom > f; python3 -c 'x = bytearray(50 << 20)'")
    (one,) = daemon.call("GET", f"/sandboxes/{box.id}/metrics").json
    assert one["cpuCount"] == 2 and one["cpuUsedMs"] > 0 and one["oomKills"] == 0
    assert one["memoryPeakBytes"] > 50 << 20 and one["memTotal"] == 256 << 20
    assert 9000000 <= one["diskUsed"] < one["diskTotal"] == 64 << 20
    assert box.id in daemon.call("GET", f"/sandboxes/metrics?sandbox_ids={box.id},nobody").json["sandboxes"]


def test_unknown_calls(daemon, box):
    assert daemon.call("POST", f"/sandboxes/{box.id}/pause", {}).status == 501
    assert daemon.call("POST", "/v3/templates", {}).status == 501
    assert daemon.call("GET", "/nothing").status == 404
    assert box.rpc("process.Process/Nothing", {}).status == 501


def test_chunked_create(daemon):
    c = daemon.connection()
    c.request("POST", "/v2/sandboxes", body=iter([b'{"templateID":', b'"base"}']), encode_chunked=True,
              headers={"Transfer-Encoding": "chunked", "X-API-Key": "e2b_0123456789abcdef0123456789abcdef01234567"})
    r = c.getresponse()
    info = json.loads(r.read())
    assert r.status == 201
    Sandbox(daemon, info).kill()


def test_access_token(daemon, box):
    wrong = Sandbox(daemon, {**box.info, "envdAccessToken": "0" * 64})
    none = Sandbox(daemon, {"sandboxID": box.id})
    for s in (wrong, none):
        assert s.rpc("process.Process/List", {}).status == 401
        assert s.call("GET", "/files?path=x").status == 401
        assert s.call("GET", "/health").status == 204  # health needs none
    assert box.call("GET", "/health", **{"E2b-Sandbox-Port": "3000"}).json["port"] == 3000


# ---- processes ----


def test_output_and_exit_code(box):
    r = box.run("echo out; echo err >&2; exit 3")
    assert (r.stdout, r.stderr, r.code) == (b"out\n", b"err\n", 3)
    assert r.end["exited"] is True and r.end["status"] == "exit status 3" and r.end["error"] == "exit status 3"
    assert r.trailer == {}
    r = box.run("true")
    assert "exitCode" not in r.end and "error" not in r.end and r.end["exited"] is True


def test_the_end_reports_usage(box):
    r = box.run("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")
    usage = r.end["sandpiper"]
    assert int(usage["cpuMs"]) >= 50 and int(usage["peakMemoryBytes"]) > 100000 and "oomKilled" not in usage


def test_signals(box):
    r = box.run("kill -9 $$")
    assert r.end["exitCode"] == -1 and "exited" not in r.end and r.end["status"] == "signal: killed"
    s = box.start("/bin/sleep", "1000").wait_start()
    assert box.rpc("process.Process/SendSignal", {"process": {"pid": s.pid}, "signal": "SIGNAL_SIGTERM"}).status == 200
    assert s.finish().end["status"] == "signal: terminated"
    gone = box.rpc("process.Process/SendSignal", {"process": {"pid": s.pid}, "signal": "SIGNAL_SIGKILL"})
    assert gone.status == 404 and gone.json["code"] == "not_found"


def test_a_signal_does_not_wait_for_grandchildren(box):
    s = box.start("/bin/bash", "-c", "sleep 1000 & echo ready; wait").wait_for(b"ready")
    began = time.monotonic()
    box.rpc("process.Process/SendSignal", {"process": {"pid": s.pid}, "signal": "SIGNAL_SIGKILL"})
    assert s.finish().end["status"] == "signal: killed"
    assert time.monotonic() - began < 5


def test_missing_program_and_directory(box):
    r = box.start("/no/such/program").finish()
    assert r.code == 127 and b"not found" in r.stderr
    r = box.start("/bin/true", cwd="/no/such").finish()
    assert r.error["code"] == "invalid_argument" and "does not exist" in r.error["message"]


def test_environment_user_and_directory(daemon, box):
    assert box.out("id -un; pwd; echo $HOME $USER $PATH") == "user\n/home/user\n/home/user user /usr/local/bin:/usr/bin:/bin\n"
    assert box.out("id -u; pwd", user="root", cwd="/tmp") == "0\n/tmp\n"
    assert box.out("echo $A", env={"A": "x=y z"}) == "x=y z\n"
    r = box.run("true", user="nobody-here")
    assert r.error["code"] == "unauthenticated"
    with daemon.create(envVars={"G": "global", "H": "global"}) as s:
        assert s.out("echo $G $H", env={"H": "own"}) == "global own\n"
        assert s.call("GET", "/envs").json == {"G": "global", "H": "global"}


def test_environment_is_in_no_argument_on_the_host(box):
    box.start("/bin/sleep", "1000", env={"SECRET": "tell-nobody-4711"}).wait_start()
    for args in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert b"tell-nobody-4711" not in args.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            pass


def test_large_binary_output_is_exact(box):
    r = box.start("/usr/bin/python3", "-c",
                  "import sys\nfor i in range(256): sys.stdout.buffer.write(bytes((j*i) % 256 for j in range(65536)))").finish()
    want = b"".join(bytes((j * i) % 256 for j in range(65536)) for i in range(256))
    assert len(r.stdout) == 16 << 20 and r.stdout == want and r.code == 0


def test_a_slow_reader_loses_nothing(box):
    s = box.start("/bin/bash", "-c", "head -c 20000000 /dev/zero | tr '\\0' x; echo; echo done >&2").wait_start()
    time.sleep(0.5)  # the reader is slow on purpose
    assert s.finish().stdout == b"x" * 20000000 + b"\n"


def test_stdin(box):
    s = box.start("/bin/cat", stdin=True).wait_start()
    data = os.urandom(300000)
    for i in range(0, len(data), 60000):
        piece = base64.b64encode(data[i:i + 60000]).decode()
        reader = threading.Thread(target=lambda: [s.step() for _ in range(1)])
        reader.start()
        assert box.rpc("process.Process/SendInput", {"process": {"pid": s.pid}, "input": {"stdin": piece}}).status == 200
        reader.join()
    assert box.rpc("process.Process/CloseStdin", {"process": {"pid": s.pid}}).status == 200
    assert box.rpc("process.Process/CloseStdin", {"process": {"pid": s.pid}}).status in (200, 404)
    assert s.finish().stdout == data
    quiet = box.start("/bin/cat").finish()  # stdin false: nothing to read
    assert quiet.code == 0 and quiet.stdout == b""


def test_input_to_a_closed_stdin(box):
    s = box.start("/bin/sleep", "1000").wait_start()
    r = box.rpc("process.Process/SendInput", {"process": {"pid": s.pid}, "input": {"stdin": "YQ=="}})
    assert r.status == 500 and r.json["code"] == "internal"
    assert box.rpc("process.Process/SendInput", {"process": {"pid": 99999}, "input": {"stdin": "YQ=="}}).status == 404


def test_the_time_limit_kills(box):
    s = box.start("/bin/sleep", "1000", timeout_ms=300).finish()
    assert s.end is None and s.error["code"] == "deadline_exceeded"
    until(lambda: not any(p["config"]["cmd"] == "/bin/sleep" and p["pid"] == s.pid
                          for p in box.rpc("process.Process/List", {}).json["processes"]), 5, "the process is gone")
    bad = box.start("/bin/true", timeout_ms="12345678901").finish()
    assert bad.error["code"] == "invalid_argument"


def test_leaving_does_not_kill_and_connect_comes_back(box):
    s = box.start("/bin/bash", "-c", "while [ ! -e /tmp/go ]; do sleep 0.05; done; echo late", tag="job").wait_start()
    s.close()
    listed = box.rpc("process.Process/List", {}).json["processes"]
    assert [(p["pid"], p["tag"]) for p in listed] == [(s.pid, "job")]
    again = box.stream("Connect", {"process": {"tag": "job"}}).wait_start()
    assert again.pid == s.pid
    box.out("touch /tmp/go")
    assert again.finish().stdout == b"late\n"
    after = box.stream("Connect", {"process": {"pid": s.pid}}).finish()  # kept for 30 s
    assert after.pid == s.pid and after.end["exited"] is True
    nobody = box.stream("Connect", {"process": {"pid": 77777}}).finish()
    assert nobody.error["code"] == "not_found"


def test_keepalives(box):
    s = box.stream("Start", {"process": {"cmd": "/bin/sleep", "args": ["2.5"]}}, keepalive=1).finish()
    assert s.keepalives == 2


def test_terminal(box):
    s = box.start("/bin/bash", "-i", pty={"size": {"cols": 91, "rows": 33}}, env={"TERM": "xterm", "PS1": "> "}).wait_start()
    say = lambda text: box.rpc("process.Process/SendInput",  # noqa: E731
                               {"process": {"pid": s.pid}, "input": {"pty": base64.b64encode(text).decode()}})
    assert say(b"stty size; tty\n").status == 200
    s.wait_for(b"33 91")
    assert box.rpc("process.Process/Update", {"process": {"pid": s.pid}, "pty": {"size": {"cols": 50, "rows": 20}}}).status == 200
    say(b"stty size\n")
    s.wait_for(b"20 50")
    say(b"exit 4\n")
    assert s.finish().code == 4


# ---- files ----


def test_files_round_trip(box):
    data = os.urandom(3 << 20)
    answer = box.call("POST", "/files?path=dir/a.bin", data, **{"Content-Type": "application/octet-stream"})
    assert answer.status == 200, answer.body
    assert answer.json == [{"path": "/home/user/dir/a.bin", "name": "a.bin", "type": "file"}]
    back = box.call("GET", "/files?path=/home/user/dir/a.bin")
    assert back.status == 200 and back.body == data
    assert box.out("stat -c '%U %a' dir dir/a.bin") == "user 755\nuser 644\n"
    part = box.call("GET", "/files?path=dir/a.bin", Range="bytes=10-19")
    assert part.status == 206 and part.body == data[10:20] and part.headers["Content-Range"] == f"bytes 10-19/{len(data)}"


def test_empty_and_missing_files(box):
    assert box.call("POST", "/files?path=empty", b"", **{"Content-Type": "application/octet-stream"}).status == 200
    back = box.call("GET", "/files?path=empty")
    assert back.status == 200 and back.headers["Content-Length"] == "0"
    assert box.call("GET", "/files?path=nothing").status == 404
    assert box.call("GET", "/files?path=/home").status == 400
    assert box.call("GET", "/files?path=~/empty").status == 200
    assert box.call("GET", "/files?path=~root/x").status == 400


def test_files_as_a_form(box):
    def part(name, filename, data):
        return (f'--B\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
                "Content-Type: application/octet-stream\r\n\r\n").encode() + data + b"\r\n"

    one, two = os.urandom(200000), b"\r\n--\r\n--A\r\n"
    body = part("file", "/tmp/b.txt", one) + part("other", "x", b"zzz") + part("file", "c", two) + part("file", "d", b"") + b"--B--\r\n"
    answer = box.call("POST", "/files", body, **{"Content-Type": "multipart/form-data; boundary=B"})
    assert answer.status == 200, answer.body
    assert [e["path"] for e in answer.json] == ["/tmp/b.txt", "/home/user/c", "/home/user/d"]
    assert box.call("GET", "/files?path=/tmp/b.txt").body == one
    assert box.call("GET", "/files?path=c").body == two
    twice = part("file", "same", b"1") + part("file", "same", b"2") + b"--B--\r\n"
    assert box.call("POST", "/files", twice, **{"Content-Type": "multipart/form-data; boundary=B"}).status == 400


def test_signed_urls(daemon, box):
    def signature(path, op, user, *more):
        text = ":".join([path, op, user, box.token, *more])
        return "v1_" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")

    box.out("echo hello > 'a b.txt'")
    until_ = str(int(time.time()) + 60)
    query = urllib.parse.urlencode({"path": "a b.txt", "signature": signature("a b.txt", "read", "", until_),
                                    "signature_expiration": until_})
    assert daemon.call("GET", "/files?" + query, key=None).body == b"hello\n"  # no header names the sandbox
    past = str(int(time.time()) - 5)
    query = urllib.parse.urlencode({"path": "a b.txt", "signature": signature("a b.txt", "read", "", past),
                                    "signature_expiration": past})
    assert daemon.call("GET", "/files?" + query, {"E2b-Sandbox-Id": box.id}, key=None).status == 401


def test_links_lead_nowhere_outside(box):
    secret = pathlib.Path("/tmp/sandboxd-test-secret")
    secret.write_text("secret")
    try:
        box.out(f"ln -s {secret} link; ln -s / top")
        assert box.call("GET", "/files?path=link").status == 404
        assert box.call("GET", f"/files?path=top{secret}").status == 404
        assert box.call("GET", f"/files?path=../../../../../..{secret}").status == 404
    finally:
        secret.unlink()


def test_the_tree(box):
    made = box.rpc("filesystem.Filesystem/MakeDir", {"path": "d/e"})
    assert made.status == 200 and made.json["entry"]["type"] == "FILE_TYPE_DIRECTORY"
    assert box.rpc("filesystem.Filesystem/MakeDir", {"path": "d/e"}).json["code"] == "already_exists"
    box.out("echo twelve bytes > d/f; ln -s f d/l")
    entry = box.rpc("filesystem.Filesystem/Stat", {"path": "d/f"}).json["entry"]
    assert entry["name"] == "f" and entry["path"] == "/home/user/d/f" and entry["size"] == "13"
    assert entry["mode"] == 0o644 and entry["permissions"] == "-rw-r--r--" and entry["owner"] == entry["group"] == "user"
    names = lambda **k: sorted(e["name"] for e in box.rpc("filesystem.Filesystem/ListDir", k).json["entries"])  # noqa: E731
    assert names(path="d") == ["e", "f", "l"]
    assert names(path=".", depth=2)[-4:] == ["d", "e", "f", "l"]
    moved = box.rpc("filesystem.Filesystem/Move", {"source": "d/f", "destination": "g/h"})
    assert moved.json["entry"]["path"] == "/home/user/g/h"
    assert box.rpc("filesystem.Filesystem/Stat", {"path": "d/f"}).status == 404
    assert box.rpc("filesystem.Filesystem/ListDir", {"path": "g/h"}).status == 400
    assert box.rpc("filesystem.Filesystem/Remove", {"path": "d"}).json == {}
    assert box.rpc("filesystem.Filesystem/Remove", {"path": "d"}).status == 200
    assert box.rpc("filesystem.Filesystem/Stat", {"path": "d"}).json["code"] == "not_found"


def test_programs_that_must_be_there(box):
    for command in ("node --version", "npm --version", "git --version", "curl --version", "python3 --version", "bash --version"):
        r = box.run(command)
        assert r.code == 0, (command, r.stderr)
    if shutil.which("wget"):
        assert box.run("wget --version").code == 0
    assert box.out("node -e 'process.stdout.write(String(6*7))'") == "42"
    assert box.out("git init -q r && cd r && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x && git log --oneline | wc -l") == "1\n"
    assert box.out("mkdir p && cd p && npm init -y >/dev/null && ls") == "package.json\n"
    assert box.out("readlink -f $(command -v python3) | cut -d/ -f1-3") == "/usr/bin\n"


# ---- snapshots ----


def test_snapshots(daemon):
    with daemon.create() as s:
        s.out("mkdir app && echo one > app/v && ln -s v app/l && echo gone > app/x")
        s.out("mkdir /opt/tool && echo t > /opt/tool/t", user="root")
        made = daemon.call("POST", f"/sandboxes/{s.id}/snapshots", {"name": "dep-1"})
        assert made.status == 201 and made.json["names"] == ["dep-1"], made.body
        first = made.json["snapshotID"]
        assert s.out("cat app/v") == "one\n"  # it goes on
    with daemon.create(template=first) as t:
        assert t.out("cat app/l app/x /opt/tool/t; stat -c %U app/v") == "one\ngone\nt\nuser\n"
        t.out("rm -r app/x && echo two > app/v && rm -rf app/l && mkdir app/l")
        second = daemon.call("POST", f"/sandboxes/{t.id}/snapshots").json["snapshotID"]
    assert {first, second} <= {x["snapshotID"] for x in daemon.call("GET", "/snapshots").json}
    assert daemon.call("DELETE", "/templates/" + first).status == 204  # the second still builds on it
    assert daemon.call("DELETE", "/templates/" + first).status == 404
    assert daemon.call("POST", "/v2/sandboxes", {"templateID": "dep-1"}).status == 404
    with daemon.create(template=second) as u:
        assert u.out("cat app/v; ls app; ls app/l") == "two\nl\nv\n"
        assert daemon.call("DELETE", "/templates/" + second).status == 204
        assert u.out("cat app/v") == "two\n"


def test_snapshots_survive_a_restart():
    d = Daemon().start()
    try:
        with d.create() as s:
            s.out("echo kept > kept")
            assert d.call("POST", f"/sandboxes/{s.id}/snapshots", {"name": "named"}).status == 201
        d.stop()
        d.start()
        with d.create(template="named") as s:
            assert s.out("cat kept") == "kept\n"
    finally:
        d.remove()


# ---- the daemon ----


def test_a_crash_leaks_nothing():
    d = Daemon().start()
    try:
        boxes = [d.create() for _ in range(5)]
        for s in boxes:
            s.start("/bin/sleep", "98765").wait_start()
        assert leftovers(d)
        d.crash()
        until(lambda: b"\x0098765\x00" not in b"".join(
            p.read_bytes() for p in pathlib.Path("/proc").glob("[0-9]*/cmdline") if p.exists()), 10, "the sandboxes die")
        d.start()
        until(lambda: not [x for x in leftovers(d) if "cell-" not in x and "loop" not in x], 10, "cleaned")
        d.stop()
        until(lambda: not leftovers(d), 10, "nothing is left")
    finally:
        d.remove()


def test_sigterm_ends_sandboxes_within_seconds():
    d = Daemon().start()
    try:
        for _ in range(4):
            d.create().start("/bin/bash", "-c", "trap '' TERM; while :; do sleep 1; done").wait_start()
        began = time.monotonic()
        d.stop()
        assert time.monotonic() - began < 5
        assert not leftovers(d)
    finally:
        d.remove()


def test_the_live_limit():
    d = Daemon(max_sandboxes=2).start()
    try:
        with d.create(), d.create():
            answer = d.call("POST", "/v2/sandboxes", {"templateID": "base"})
            assert answer.status == 429 and "Retry-After" not in answer.headers
        with d.create():
            pass
    finally:
        d.remove()


def test_a_hundred_at_once():
    d = Daemon(max_sandboxes=300).start()
    try:
        def one(i):
            with d.create(metadata={"n": str(i)}) as s:
                return s.out(f"echo {i}")

        assert in_threads(100, one) == [f"{i}\n" for i in range(100)]
        boxes = in_threads(100, lambda i: d.create())
        assert in_threads(100, lambda i: boxes[i].out("echo $$ > f; cat f | wc -l")) == ["1\n"] * 100
        in_threads(100, lambda i: boxes[i].kill())
        assert d.call("GET", "/v2/sandboxes").json == []
        d.stop()
        assert not leftovers(d)
    finally:
        d.remove()


def test_one_daemon_for_a_data_directory(daemon):
    other = Daemon()
    other.dir.rmdir()
    other.dir = daemon.dir
    other.start(wait=False)
    assert other.process.wait(20) != 0


def test_refuses_to_start_without_its_tools():
    d = Daemon(bwrap="/no/such/bwrap")
    try:
        d.start(wait=False)
        assert d.process.wait(20) == 1 and "bubblewrap" in d.text()
    finally:
        d.process = None
        d.remove()


def test_unenforced_limits_are_named():
    d = Daemon(slirp="/no/such/slirp4netns")
    try:
        d.start(wait=False)
        assert d.process.wait(20) == 1 and "slirp4netns" in d.text() and "--allow-unenforced" in d.text()
        d.start("--allow-unenforced")
        with d.create() as s:
            assert s.out("echo ok") == "ok\n"
    finally:
        d.remove()


# ---- readiness: a host that says it is ready can make a sandbox ----


@pytest.fixture
def programs():
    """A directory that cells see too: they have a /tmp of their own."""
    with tempfile.TemporaryDirectory(prefix="sbp", dir="/var/tmp") as directory:
        os.chmod(directory, 0o755)  # bubblewrap is started by the sandbox's root, who is nobody here
        yield pathlib.Path(directory)


def stand_in(directory, name, script):
    """A program that takes the place of slirp4netns or bubblewrap."""
    path = directory / name
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("what", ["slirp", "bwrap"])
def test_does_not_start_when_no_sandbox_can_be_made(what, programs):
    d = Daemon()
    try:
        d.config[what] = stand_in(programs, what, "echo 'stand-in: no pivot_root in here' >&2\nexit 1\n")
        d.start(wait=False)
        assert d.process.wait(30) == 3, d.text()
        text = d.text()
        assert "stand-in: no pivot_root in here" in text  # the program's own words
        assert '"ready"' not in text
        (advice,) = [x for x in text.splitlines() if "no sandbox can be made on this machine" in x]
        assert ("SANDPIPER_SANDBOXD_EGRESS=false" if what == "slirp" else "bubblewrap needs") in advice
        assert not leftovers(d)
        if what == "slirp":  # what the advice says, works
            d.config["egress"] = "false"
            d.start()
            with d.create() as s:
                assert s.out("echo ok") == "ok\n"
    finally:
        d.remove()


def test_a_slirp_that_hangs_is_given_up(programs):
    d = Daemon(build_at_once=5)
    try:
        d.config["slirp"] = stand_in(programs, "slirp", "exec sleep 98764\n")
        d.start(wait=False)
        assert d.process.wait(60) == 3, d.text()
        assert "slirp4netns is not ready" in d.text()
        assert not subprocess.run(["pgrep", "-f", "^sleep 98764"], capture_output=True).stdout
        until(lambda: not leftovers(d), 10, "nothing is left")
    finally:
        d.remove()


def test_sigterm_while_starting(programs):
    d = Daemon()
    try:
        d.config["slirp"] = stand_in(programs, "slirp", "exec sleep 1000\n")
        d.start(wait=False)
        until(lambda: (d.dir / "data" / "base").exists(), 10, "it starts")
        with pytest.raises(OSError):  # nobody is served yet
            d.call("GET", "/health")
        d.stop()
        until(lambda: not leftovers(d), 10, "nothing is left")
    finally:
        d.remove()


def test_health_tells_when_sandboxes_cannot_be_made_any_more(programs):
    d = Daemon(spare_cells=0)
    try:
        good = "/usr/bin/slirp4netns"
        d.config["slirp"] = stand_in(programs, "slirp", f'[ -e {programs}/broken ] && exit 1\nexec {good} "$@"\n')
        d.start()
        (programs / "broken").touch()
        answer = d.call("POST", "/v2/sandboxes", {"templateID": "base"})
        assert answer.status == 503 and "slirp4netns" in answer.json["message"], answer.body
        assert d.call("GET", "/health").status == 503
        (programs / "broken").unlink()
        d.create().kill()
        assert d.call("GET", "/health").status == 204
    finally:
        d.remove()


def test_a_supervisor_that_does_not_answer_holds_nobody_up(daemon):
    with daemon.create() as s, daemon.create() as other:
        inits = subprocess.run(["pgrep", "-f", "^/.sandpiper/init"], capture_output=True, text=True).stdout.split()
        (pid,) = [p for p in inits if s.id in subprocess.run(["nsenter", "-t", p, "-u", "hostname"],
                                                             capture_output=True, text=True).stdout]
        os.kill(int(pid), signal.SIGSTOP)
        calls = [lambda: s.rpc("filesystem.Filesystem/Stat", {"path": "."}).json["code"],
                 lambda: s.call("GET", "/files?path=x").status,
                 lambda: s.start("/bin/true").finish().error["code"]]
        began = time.monotonic()
        answers = in_threads(3, lambda i: calls[i]())
        assert answers == ["unavailable", 504, "unavailable"]
        assert time.monotonic() - began < 90
        assert other.out("echo fine") == "fine\n"
