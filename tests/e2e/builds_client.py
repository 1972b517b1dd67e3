"""Builds that wait for the test: a gate beside the machine that install steps ask, and readers of their logs."""

import contextlib
import http.client
import json
import sys
import threading

from neighbour import Neighbour
from stack import archive, until

# Answers GET /NAME when the file NAME is there.
GATE = """
import http.server, pathlib, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        end = time.monotonic() + 60
        while not pathlib.Path(sys.argv[2] + self.path).exists() and time.monotonic() < end:
            time.sleep(0.02)
        self.send_response(200)
        self.end_headers()
http.server.ThreadingHTTPServer((sys.argv[1], 8000), Handler).serve_forever()
"""
READY = """
import socket, sys
socket.create_connection((sys.argv[1], 8000), 1)
"""


class Gate:
    def __init__(self, directory):
        self.directory, self.neighbour = directory, Neighbour()
        self.neighbour.start(sys.executable, "-c", GATE, self.neighbour.address, directory)
        until("the gate answers", lambda: self.neighbour.start(sys.executable, "-c", READY, self.neighbour.address).wait() == 0)

    def url(self, name):
        return f"http://{self.neighbour.address}:8000/{name}"

    def wait(self, name):
        """What an install step runs to wait until the gate of that name is open."""
        return f"python3 -c 'import urllib.request as r; r.urlopen(\"{self.url(name)}\")'"

    def open(self, name):
        (self.directory / name).touch()

    def close(self):
        self.neighbour.close()


class Follower:
    """Reads a log as it comes, in a thread; what has come is `seen`."""

    def __init__(self, client, path, query="?follow=true"):
        self.seen, self.status, self.whole = b"", None, False
        self.connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
        self.thread = threading.Thread(target=self._read, args=(client, path + query), daemon=True)
        self.thread.start()

    def _read(self, client, path):
        with contextlib.suppress(OSError, http.client.HTTPException, AttributeError, ValueError):
            self.connection.request("GET", path, headers={"Authorization": f"Bearer {client.key}"})
            r = self.connection.getresponse()
            self.status = r.status
            while piece := r.read1(65536):
                self.seen += piece
            self.whole = True

    def sees(self, text, seconds=30):
        until(f"{text!r} in {self.seen!r}", lambda: text in self.seen, seconds)

    def end(self, seconds=60):
        self.thread.join(seconds)
        assert not self.thread.is_alive() and self.status == 200 and self.whole, (self.status, self.whole, self.seen[-300:])
        return self.seen

    def hang_up(self):
        with contextlib.suppress(OSError):
            self.connection.sock.shutdown(2)
        self.thread.join(10)


def send(client, name, install, files=(), **manifest):
    """A deploy whose build runs that; its version's path."""
    files = {**dict(files), "main.py": "print('ran')", "agent.json": json.dumps({"install": install, **manifest})}
    a = client.call("POST", f"/v1/agents?name={name}", archive(files), {"Content-Type": "application/gzip"})
    assert a.status == 202, (a.status, a.body)
    return f"/v1/agents/{name}/versions/{a.json['deployed_version']}"


def ended(client, path, seconds=60):
    return until("the build has ended", lambda: (v := client.call("GET", path).json)["status"] != "building" and v, seconds)


def log_of(client, path, query=""):
    a = client.call("GET", f"{path}/log{query}")
    assert a.status == 200, (a.status, a.body)
    assert a.headers["Content-Type"] == "text/plain; charset=utf-8"
    return a.body
