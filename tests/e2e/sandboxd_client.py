"""A small client of sandpiper-sandboxd for the tests: E2B's wire protocol by hand, standard library only."""

import base64
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

BIN = pathlib.Path(os.environ.get("SP_BIN", pathlib.Path(__file__).resolve().parents[2] / "build" / "bin"))
KEY = "e2b_0123456789abcdef0123456789abcdef01234567"
ENVD_PORT = "49983"


def until(check, seconds=10.0, what="condition"):
    """Waits until check() gives something true, and returns it; fails after the deadline."""
    end = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.02)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body) if self.body else None


class Daemon:
    """One sandboxd on a port and data directory of its own."""

    def __init__(self, **config):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="sbd", dir="/tmp"))
        self.port = free_port()
        self.config = config
        self.process = None

    def start(self, *flags, wait=True, preexec_fn=None):
        env = {
            "PATH": os.environ["PATH"],
            "E2B_API_KEY": KEY,
            "SANDPIPER_SANDBOXD_LISTEN": f"127.0.0.1:{self.port}",
            "SANDPIPER_SANDBOXD_DATA_DIR": str(self.dir / "data"),
            "SANDPIPER_SANDBOXD_SPARE_CELLS": "2",
            "SANDPIPER_SANDBOXD_DISK": "64m",
            "SANDPIPER_SANDBOXD_MEMORY": "256m",
            "SANDPIPER_SANDBOXD_PIDS": "64",
        }
        env.update({"SANDPIPER_SANDBOXD_" + k.upper(): str(v) for k, v in self.config.items()})
        self.log = open(self.dir / "log", "ab")
        self.process = subprocess.Popen([BIN / "sandpiper-sandboxd", *flags], env=env, stdout=self.log, stderr=self.log,
                                        preexec_fn=preexec_fn)
        if wait:
            until(self.answers, 20, "sandboxd answers")
        return self

    def answers(self):
        assert self.process.poll() is None, "sandboxd ended: " + self.text()
        try:
            return self.call("GET", "/health").status == 204
        except OSError:
            return False

    def text(self):
        return (self.dir / "log").read_text(errors="replace")

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(15) == 0, self.text()[-4000:]
        self.process = None

    def crash(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def remove(self):
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    # ---- HTTP ----

    def connection(self, timeout=120):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def call(self, method, path, body=None, headers=None, key=KEY):
        headers = dict(headers or {})
        if key is not None:
            headers.setdefault("X-API-Key", key)
        if body is not None and not isinstance(body, (bytes, bytearray)):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        c = self.connection()
        try:
            c.request(method, path, body=body, headers=headers)
            r = c.getresponse()
            return Answer(r.status, r.headers, r.read())
        finally:
            c.close()

    def create(self, template="base", timeout=120, path="/v2/sandboxes", **fields):
        answer = self.call("POST", path, {"templateID": template, "timeout": timeout, **fields})
        assert answer.status == 201, answer.body
        return Sandbox(self, answer.json)


class Sandbox:
    def __init__(self, daemon, info):
        self.daemon, self.info = daemon, info
        self.id = info["sandboxID"]
        self.token = info.get("envdAccessToken")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.daemon.process is not None:
            self.kill()

    def kill(self):
        return self.daemon.call("DELETE", f"/sandboxes/{self.id}").status

    def headers(self, user=None, **extra):
        h = {"E2b-Sandbox-Id": self.id, "E2b-Sandbox-Port": ENVD_PORT}
        if self.token:
            h["X-Access-Token"] = self.token
        if user:
            h["Authorization"] = "Basic " + base64.b64encode(f"{user}:".encode()).decode()
        h.update(extra)
        return h

    def rpc(self, method, message, user=None, **headers):
        return self.daemon.call("POST", "/" + method, message, self.headers(user, **headers), key=None)

    def call(self, method, path, body=None, user=None, **headers):
        return self.daemon.call(method, path, body, self.headers(user, **headers), key=None)

    def start(self, *argv, user=None, stdin=False, env=None, cwd=None, timeout_ms=None, **fields):
        process = {"cmd": argv[0], "args": list(argv[1:]), "envs": env or {}}
        if cwd is not None:
            process["cwd"] = cwd
        return self.stream("Start", {"process": process, "stdin": stdin, **fields}, user, timeout_ms)

    def stream(self, method, message, user=None, timeout_ms=None, keepalive=None):
        extra = {"Content-Type": "application/connect+json", "Connect-Protocol-Version": "1"}
        if timeout_ms is not None:
            extra["Connect-Timeout-Ms"] = str(timeout_ms)
        if keepalive is not None:
            extra["Keepalive-Ping-Interval"] = str(keepalive)
        return Stream(self, method, message, self.headers(user, **extra))

    def run(self, script, **kw):
        return self.start("/bin/bash", "-l", "-c", script, **kw).finish()

    def out(self, script, **kw):
        result = self.run(script, **kw)
        assert result.code == 0, (result.code, result.stdout, result.stderr, result.error)
        return result.stdout.decode()


class Stream:
    """A server stream of process.Process: frames as they come."""

    def __init__(self, sandbox, method, message, headers):
        payload = json.dumps(message).encode()
        self.connection = sandbox.daemon.connection()
        self.connection.request("POST", "/process.Process/" + method, b"\0" + struct.pack(">I", len(payload)) + payload, headers)
        self.response = self.connection.getresponse()
        self.status = self.response.status
        self.pid = None
        self.stdout = self.stderr = self.pty = b""
        self.end = self.trailer = None
        self.keepalives = 0

    def frame(self):
        """(flags, message), or None at the end of the body."""
        head = self.response.read(5)
        if not head:
            return None
        flags, n = struct.unpack(">BI", head)
        return flags, json.loads(self.response.read(n))

    def step(self):
        f = self.frame()
        if f is None:
            return False
        flags, message = f
        if flags & 2:
            self.trailer = message
            return True
        event = message["event"]
        if "start" in event:
            self.pid = event["start"]["pid"]
        self.keepalives += "keepalive" in event
        for name, text in event.get("data", {}).items():
            setattr(self, name, getattr(self, name) + base64.b64decode(text))
        self.end = event.get("end", self.end)
        return True

    def wait_start(self):
        while self.pid is None and self.step():
            pass
        assert self.pid is not None, self.trailer
        return self

    def wait_for(self, text):
        while text not in self.stdout + self.pty:
            assert self.step(), (self.stdout, self.pty, self.trailer)
        return self

    def finish(self):
        while self.step():
            pass
        self.connection.close()
        return self

    def close(self):
        self.connection.close()
        self.response.close()

    @property
    def error(self):
        return (self.trailer or {}).get("error")

    @property
    def code(self):
        if self.end is None:
            return None
        return self.end.get("exitCode", 0)


def in_threads(count, fn):
    """Runs fn(0..count-1) at the same time; returns the results in order, raises the first failure."""
    results, errors = [None] * count, []

    def one(i):
        try:
            results[i] = fn(i)
        except BaseException as e:  # noqa: BLE001 - reported below
            errors.append(e)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if errors:
        raise errors[0]
    return results


def leftovers(daemon):
    """What a daemon of this data directory still holds of the machine."""
    found = []
    data = str(daemon.dir)
    for line in subprocess.run(["losetup", "-a"], capture_output=True, text=True).stdout.splitlines():
        if data in line:
            found.append(line)
    found += [m for m in pathlib.Path("/proc/mounts").read_text().splitlines() if data in m]
    state = daemon.dir / "data" / "cgroups"
    if state.exists():
        for parent in state.read_text().splitlines():
            if os.path.isdir(parent):
                found += [str(p) for p in pathlib.Path(parent).iterdir() if p.is_dir()]
    return found
