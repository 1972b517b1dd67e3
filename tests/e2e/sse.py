"""A reader of server-sent events, strict about their form, that resumes where it was cut. Standard library only."""

import base64
import http.client
import json


class Event:
    def __init__(self, id, name, data):
        self.id, self.name, self.data = id, name, data

    def __repr__(self):
        return f"<{self.name} {self.id} {str(self.data)[:80]}>"

    @property
    def position(self):
        return tuple(int(n) for n in self.id.split("."))

    @property
    def bytes(self):
        return self.data.encode() if isinstance(self.data, str) else base64.b64decode(self.data["base64"])


class Stream:
    """One connection. Iterating gives its events until the server ends it, or `budget` bytes have come: `cut_inside`
    says whether that was inside an event. `comments` counts heartbeats."""

    def __init__(self, client, id, last=None, timeout=60, headers=None, method="GET", port=None, body=None, sock=None):
        h = {"Authorization": f"Bearer {client.key}", "Accept": "text/event-stream", **(headers or {})}
        if last is not None:
            h["Last-Event-ID"] = last
        if body is not None:
            h["Content-Type"] = "application/json"
        self.connection = http.client.HTTPConnection("127.0.0.1", port or client.port, timeout=timeout)
        if sock:
            sock(self.connection)
        path = f"/v1/invocations/{id}/events" if id else "/v1/invocations"
        self.connection.request(method, path, body=body and json.dumps(body), headers=h)
        self.response = self.connection.getresponse()
        self.status, self.headers = self.response.status, self.response.headers
        self.comments, self.retry, self.budget, self.cut_inside = 0, None, None, False
        if self.status == 200:
            assert self.headers["Content-Type"] == "text/event-stream", self.headers["Content-Type"]

    def __iter__(self):
        return self

    def __next__(self):
        """The next event. What a cut connection left incomplete is no event."""
        id = name = data = None
        while True:
            line = self.response.readline()
            if self.budget is not None:
                self.budget -= len(line)
            if not line.endswith(b"\n") or (self.budget is not None and self.budget < 0):
                self.cut_inside = id is not None
                raise StopIteration
            assert b"\r" not in line, line
            line = line[:-1].decode()
            if line == "":
                if data is not None:
                    return Event(id, name, json.loads(data))
                id = name = data = None
            elif line.startswith(":"):
                self.comments += 1
            else:
                field, _, value = line.partition(": ")
                if field == "id":
                    id = value
                elif field == "event":
                    name = value
                elif field == "data":
                    assert data is None, "data of more than one line"
                    data = value
                elif field == "retry":
                    self.retry = int(value)
                else:
                    raise AssertionError(f"unknown field {field!r}")

    def close(self):
        if self.connection.sock:
            self.connection.sock.close()
        self.response.close()
        self.connection.close()


def submit_stream(client, agent, prompt, headers=None, **fields):
    return Stream(client, None, method="POST", body={"agent": agent, "prompt": prompt, **fields}, headers=headers)


class Seen:
    """What a client knows that keeps to the protocol: the bytes of the attempt it is in, by the events' ids."""

    def __init__(self):
        self.last, self.attempt, self.out, self.err = None, None, b"", b""
        self.statuses, self.gaps, self.result, self.events = [], [], None, []

    def take(self, e):
        assert self.result is None, "an event after the result"
        attempt, out, err = e.position
        self.events.append(e)
        if attempt != self.attempt:
            assert self.attempt is None or (attempt > self.attempt and e.name in ("status", "result", "stdout", "stderr")), e
            self.attempt, self.out, self.err = attempt, b"", b""
        if e.name == "status":
            self.statuses.append((e.data["attempt"], e.data["status"]))
        elif e.name == "stdout":
            self.out += e.bytes
        elif e.name == "stderr":
            self.err += e.bytes
        elif e.name == "gap":
            self.gaps.append(e.data)
        elif e.name == "result":
            self.result = e.data
        else:
            raise AssertionError(f"unknown event {e.name}")
        if e.name != "gap" or "to" not in json.dumps(e.data):
            assert (len(self.out), len(self.err)) == (out, err), (e, len(self.out), len(self.err))
        self.last = e.id
        return e

    def read(self, stream, until=lambda seen: False):
        """Takes events until the stream ends, there is a result, or until(self)."""
        for e in stream:
            self.take(e)
            if self.result is not None or until(self):
                break
        return self
