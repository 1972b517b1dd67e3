"""Thousands of callers in one process: watch_client.py PORT KEY, ids on stdin (`wait ID`, `stream ID`, and `go` after
each group), one line of JSON on stdout when a group is connected, and one at the end: when each was told, by id.

Plain sockets and epoll, so that the callers cost as little as may be of the cores that they share with the server."""

import json
import re
import resource
import select
import socket
import sys
import time

ID = re.compile(rb"inv_[0-9a-f-]{36}")


class Callers:
    def __init__(self, port, key):
        self.port, self.key = port, key
        self.poll = select.epoll()
        self.open, self.told, self.failed = {}, {}, []

    def connect(self, kind, id):
        s = socket.create_connection(("127.0.0.1", self.port))
        path = f"/v1/invocations/{id}" + ("?wait=300" if kind == "wait" else "/events")
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.key}\r\n\r\n".encode())
        s.setblocking(False)
        self.open[s.fileno()] = [s, kind, id, b""]
        self.poll.register(s.fileno(), select.EPOLLIN)

    def turn(self, timeout):
        """Reads what has come; returns how many streams began."""
        began = 0
        events = self.poll.poll(timeout)
        now = time.time()
        for fd, _ in events:
            caller = self.open[fd]
            s, kind, id, head = caller
            data = s.recv(65536)
            caller[3] = (head + data)[-4096:]
            done = b"event: result" in head + data if kind == "stream" else b'"finished_at":"' in data
            if done:
                self.told[id] = now
            elif kind == "stream" and b"event: status" in data and b"event: status" not in head:
                began += 1
            if kind == "wait" and not done and data:
                raise RuntimeError(f"answered before the end: {data[-200:]}")
            if not data and not done:
                self.failed.append(id)
            if done or not data:
                self.poll.unregister(fd)
                s.close()
                del self.open[fd]
        return began


def say(value):
    print(json.dumps(value), flush=True)


def main(port, key):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    callers, waiting = Callers(int(port), key), 0
    for line in sys.stdin:
        kind, _, id = line.strip().partition(" ")
        if kind != "go":
            callers.connect(kind, id)
            waiting += kind == "stream"
            waiting -= callers.turn(0)
            continue
        end = time.monotonic() + 60
        while waiting > 0 and time.monotonic() < end:
            waiting -= callers.turn(0.1)
        say({"open": len(callers.open), "not_begun": waiting})
    end = time.monotonic() + 300
    while callers.open and time.monotonic() < end:
        callers.turn(0.1)
    say({"told": callers.told, "failed": callers.failed, "left": len(callers.open)})


if __name__ == "__main__":
    main(*sys.argv[1:])
