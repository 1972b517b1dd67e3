"""The gateway at its limits: bodies held together, connections, descriptors. A stack without sandboxes: nothing is run here."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import resource
import socket
import subprocess
import time

import pytest

from stack import BIN, Client, Process, Stack, free_port, in_threads, until

MIB = 1024 * 1024


def add_agent(stack, name, version=1):
    """An agent that is ready, without a build: submissions to it are accepted and wait."""
    stack.psql(f"""with a as (insert into agents (id, tenant, slug, serving, latest)
                       values (gen_random_uuid(), 1, '{name}', {version}, {version}) returning id)
                   insert into agent_versions (agent, version, id, tenant, status, runtime, entry, install, archive_bytes,
                       archive_sha256) select id, {version}, gen_random_uuid(), 1, 1, 'command', 'cat', '', 1, '\\x00' from a""")


def quiet_stack(**gateway):
    """PostgreSQL, Redis and one gateway."""
    s = Stack(sandboxd=False)
    s.start(gateways=0, executors=0, dispatchers=0)
    s.add_gateway(**gateway)
    add_agent(s, "echo")
    return s


@pytest.fixture(scope="module")
def small():
    s = quiet_stack(SANDPIPER_GATEWAY_MAX_BODY_BYTES="8m", SANDPIPER_GATEWAY_MAX_CONNECTIONS="40")
    yield s
    s.stop()


def head(client, length, path="/v1/invocations", type="application/json"):
    return (f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.key}\r\nContent-Type: {type}\r\n"
            f"Content-Length: {length}\r\n\r\n").encode()


def connect(client):
    return socket.create_connection(("127.0.0.1", client.port), timeout=30)


def metric(client, name):
    text = client.call("GET", "/metrics", key=False).body.decode()
    return float(re.search(rf"^{name} (\S+)$", text, re.M)[1])


def is_taken(client):
    """Whether a submission is answered by 202: a full gateway says 503, or closes at once."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return client.submit("echo", "healthy").status == 202


def submission(bytes):
    return json.dumps({"agent": "echo", "prompt": "x" * bytes})


def test_bodies_share_one_budget(small):
    """Three half-sent bodies fill it: a fourth large one is refused at once, a small one is served, and afterwards all are."""
    c = small.client
    body = submission(2 * MIB - 1000).encode()
    holders = [connect(c) for _ in range(3)]
    for s in holders:
        s.sendall(head(c, len(body)) + body[:-1])
    until("the bodies are held", lambda: metric(c, "sandpiper_http_body_bytes") >= 3 * len(body) - 3)
    begun = time.monotonic()
    a = c.call("POST", "/v1/invocations", body)
    assert (a.status, a.json["code"], a.headers["Retry-After"]) == (503, "overloaded", "1"), a.body
    assert time.monotonic() - begun < 10
    assert c.submit("echo", "small").status == 202
    for s in holders:
        s.sendall(body[-1:])
        assert s.recv(65536).startswith(b"HTTP/1.1 202 ")
        s.close()
    until("the budget is free", lambda: metric(c, "sandpiper_http_body_bytes") == 0)
    assert c.call("POST", "/v1/invocations", body).status == 202


def test_bodies_of_unknown_length_count_as_they_come(small):
    c = small.client
    holders = []
    start = head(c, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    for _ in range(6):  # each doubles its room as it grows; 7 MiB is there for large ones
        s = connect(c)
        holders.append(s)
        s.sendall(start + b"%x\r\n" % (3 * MIB) + b" " * (2 * MIB))
    refused = []

    def is_refused():
        for s in holders:
            s.settimeout(0.1)
            try:
                if s.recv(65536).startswith(b"HTTP/1.1 503 "):
                    refused.append(s)
            except TimeoutError:
                pass
        return refused

    until("some of them are refused", is_refused)
    assert metric(c, "sandpiper_http_body_bytes") <= 8 * MIB
    for s in holders:
        s.close()
    until("the budget is free", lambda: metric(c, "sandpiper_http_body_bytes") == 0)


def test_a_full_gateway_closes_who_moved_least_lately(small):
    """40 connections that do nothing do not keep a 41st out, and none that works is closed."""
    c = small.client
    busy = connect(c)
    ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    slow = [connect(c) for _ in range(39)]
    for i, s in enumerate(slow):
        s.sendall([b"GET / HT", b"", head(c, 100000) + b"{", b"GET / HTTP/1.1\r\nHost: x\r\nA"][i % 4])

    def served():
        busy.sendall(ask)
        assert busy.recv(65536).startswith(b"HTTP/1.1 200 ")
        return is_taken(c)  # not while all are young

    until("a newcomer is served", served)
    for _ in range(20):
        assert served()
    assert metric(c, "sandpiper_http_connections_evicted_total") >= 1
    for s in slow + [busy]:
        s.close()
    until("they are gone", lambda: metric(c, "sandpiper_http_connections") < 5)


def test_uploads_are_bounded(small):
    """33 archives at once would be 33 spooled files: the last is told to come back."""
    c = small.client
    start = head(c, 1000, "/v1/agents?name=x", "application/gzip") + b"\x1f\x8b"
    holders = [connect(c) for _ in range(32)]
    for s in holders:
        s.sendall(start)

    fds = pathlib.Path(f"/proc/{small.gateways[0].pid}/fd")

    def spools():
        n = 0
        for f in fds.iterdir():
            with contextlib.suppress(FileNotFoundError):
                n += "deleted" in os.readlink(f)
        return n

    until("all 32 are under way", lambda: spools() == 32, 8)
    a = c.call("POST", "/v1/agents?name=x", b"x", {"Content-Type": "application/gzip"})
    assert (a.status, a.json["code"]) == (503, "overloaded") and "archives" in a.json["detail"], a.body
    for s in holders:
        s.close()
    until("they are forgotten", lambda: c.call("POST", "/v1/agents?name=x", b"x", {"Content-Type": "application/gzip"}).status == 400)


def test_descriptors_bound_the_connections(small):
    """A low soft limit is raised to the hard one; what that leaves is the cap, said in the log, and the gateway still works
    when more come than it has descriptors for."""
    port = free_port()
    env = {**small.env, "SANDPIPER_GATEWAY_LISTEN": f"127.0.0.1:{port}"}
    limits = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 400))  # noqa: E731
    log = small.dir / "few.log"
    with open(log, "wb") as out:
        child = subprocess.Popen([str(BIN / "sandpiper-gateway")], env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                 preexec_fn=limits)
    p = Process("gateway-few", [], env, log)
    p.child = child
    try:
        p.said('"msg":"listening"')
        said = json.loads(next(line for line in p.text().splitlines() if "fewer connections" in line))
        assert (said["connections"], said["configured"]) == (208, 12000)
        c = Client(port, small.key, 20)
        until("it is ready", lambda: c.call("GET", "/readyz").status == 200)
        crowd = [connect(c) for _ in range(500)]
        until("a healthy submission is taken", lambda: is_taken(c))
        assert metric(c, "sandpiper_http_connections") <= 208 + 64
        for s in crowd:
            s.close()
        until("they are gone", lambda: metric(c, "sandpiper_http_connections") < 100)
        assert [a.status for a in in_threads([lambda: c.submit("echo", "x")] * 50, 10)] == [202] * 50
    finally:
        assert p.stop() == 0
