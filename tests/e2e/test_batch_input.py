"""What a batch may not be: refused whole, with the lines and the reasons."""

import contextlib
import gzip
import http.client
import json
import os
import socket

import pytest

from stack import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes need root")
NDJSON = {"Content-Type": "application/x-ndjson"}
JSON = {"Content-Type": "application/json"}
GOOD = b'{"agent":"echo","prompt":"x"}\n'


def good(**more):
    return json.dumps({"agent": "echo", "prompt": "x", **more}).encode() + b"\n"


def rows(stack):
    return stack.count("select (select count(*) from batches) + (select count(*) from invocations where batch is not null) "
                       "+ (select count(*) from blobs)")


def refused(stack, client, body, headers=None, query=""):
    before = rows(stack)
    a = client.call("POST", f"/v1/batches{query}", body, headers or NDJSON)
    assert a.status >= 400, (a.status, a.body)
    assert a.headers["Content-Type"] == "application/problem+json"
    assert rows(stack) == before, "nothing of it was kept"
    return a


# body, then for each fault: line, code, words of the detail
FAULTS = [
    (b'{"agent":"echo"}\n', [(1, "missing_field", "prompt is required")]),
    (b'{"prompt":"x"}\n', [(1, "missing_field", "agent is required")]),
    (GOOD + b"nonsense\n" + GOOD, [(2, "invalid_json", "column 1: not a JSON value")]),
    (GOOD + b'{"agent":"echo","prompt":"x"\n', [(2, "invalid_json", "ends too early")]),
    (GOOD + b'[1]\n', [(2, "invalid_json", "must be a JSON object")]),
    (b'\n\n' + good(promt="x") + b'\n' + good(agent="echo@x"),
     [(3, "unknown_field", 'did you mean "prompt"'), (5, "invalid_field", "agent must be")]),
    (good(custom_id="a") + good(custom_id="b") + good(custom_id="a"), [(3, "invalid_field", '"a" is that of item 1')]),
    (good(custom_id="2") + GOOD, [(2, "invalid_field", '"2" is that of item 1')]),
    (good(custom_id=""), [(1, "invalid_field", "custom_id must be")]),
    (good(custom_id=7), [(1, "invalid_field", "custom_id must be")]),
    (good(custom_id="x" * 257), [(1, "invalid_field", "custom_id must be")]),
    (good(custom_id="a\nb"), [(1, "invalid_field", "custom_id must be")]),
    (good(priority="high"), [(1, "invalid_field", "priority is the batch's")]),
    (good(timeout_s=0), [(1, "invalid_field", "timeout_s must be")]),
    (good(metadata=[1]), [(1, "invalid_field", "metadata must be an object")]),
    (good(metadata={"k": "v" * 17000}), [(1, "metadata_too_large", "the limit is 16384")]),
    (good(env={"A": "b"}), [(1, "unsupported_feature", "env")]),
    (good(webhook={"url": "https://10.0.0.1"}), [(1, "invalid_field", "webhook")]),
    (good(not_before="2099-01-01T00:00:00Z"), [(1, "invalid_field", "not_before")]),
    (good(agent="nobody") + GOOD + good(agent="nobody") + good(agent="echo@99"),
     [(1, "agent_not_found", 'no agent "nobody"'), (4, "agent_not_found", "no version 99")]),
    (b'{"agent":"echo","prompt":"\xff"}\n', [(1, "invalid_json", "not UTF-8")]),
    (b'{"agent":"echo","prompt":"\\u0000"}\n', [(1, "invalid_json", "u0000")]),
    (b'{"agent":"echo","prompt":"x","prompt":"y"}\n', [(1, "invalid_json", "occurs twice")]),
    (GOOD * 3 + b'{"agent":"echo","prompt":"' + b"a" * (4 << 20) + b'"}\n' + GOOD + b"x",
     [(4, "body_too_large", "an item has at most"), (6, "invalid_json", "not a JSON value")]),
]


@pytest.mark.parametrize("n", range(len(FAULTS)))
def test_faults_are_named_with_their_lines(stack, client, n):
    body, want = FAULTS[n]
    a = refused(stack, client, body)
    assert (a.status, a.json["code"]) == (400, "invalid_batch")
    got = a.json["errors"]
    assert [(e["line"], e["code"]) for e in got] == [(line, code) for line, code, _ in want], got
    for e, (_, _, words) in zip(got, want):
        assert words in e["detail"], e


def test_the_first_twenty_faults_are_named_and_the_rest_is_read_away(stack, client):
    a = refused(stack, client, b"{}\n" * 60000)
    assert [e["line"] for e in a.json["errors"]] == list(range(1, 21))
    assert a.json["detail"].startswith("at least 20 of the items")


# body, headers, query, status, code, words
WHOLES = [
    (b"", NDJSON, "", 400, "missing_field", "no items"),
    (b"\n \n", NDJSON, "", 400, "missing_field", "no items"),
    (b"[]", JSON, "", 400, "missing_field", "no items"),
    (b'{"items": []}', JSON, "", 400, "missing_field", "no items"),
    (b'{"agent": "echo"}', JSON, "", 400, "missing_field", "items is required"),
    (b'{"items": 7}', JSON, "", 400, "missing_field", "items is required"),
    (b"", JSON, "", 400, "invalid_json", "ends too early"),
    (b"7", JSON, "", 400, "invalid_json", "expected an array"),
    (b"[" + GOOD, JSON, "", 400, "invalid_json", "ends too early"),
    (b"[" + GOOD + b",]", JSON, "", 400, "invalid_json", "expected an item"),
    (b"[" + GOOD + GOOD + b"]", JSON, "", 400, "invalid_json", "line 2: expected ','"),
    (b"[" + GOOD + b"]x", JSON, "", 400, "invalid_json", "something follows"),
    (b"[7]", JSON, "", 400, "invalid_json", "expected an item"),
    (b'{"items": [' + GOOD + b'], "items": []}', JSON, "", 400, "invalid_json", "occurs twice"),
    (b'{"items": [' + GOOD + b'], "max_concurency": 1}', JSON, "", 400, "unknown_field", '"max_concurrency"'),
    (b'{"items": [' + GOOD + b'], "max_concurrency": 0}', JSON, "", 400, "invalid_field", "max_concurrency"),
    (b'{"items": [' + GOOD + b'], "webhook": {}}', JSON, "", 400, "missing_field", "webhook"),
    (b'{"x": "' + b"y" * 70000 + b'", "items": []}', JSON, "", 400, "invalid_json", "besides the items"),
    (GOOD, NDJSON, "?max_concurency=1", 400, "invalid_query", "max_concurrency"),
    (GOOD, NDJSON, "?max_concurrency=x", 400, "invalid_query", "max_concurrency"),
    (GOOD, NDJSON, "?priority=urgent", 400, "invalid_query", "priority"),
    (GOOD, NDJSON, "?agent=No+Such", 400, "invalid_query", "agent"),
    (GOOD, NDJSON, "?timeout_s=4000", 400, "invalid_query", "timeout_s"),
    (GOOD, {"Content-Type": "text/csv"}, "", 415, "unsupported_media_type", "x-ndjson"),
    (GOOD, {**NDJSON, "Content-Encoding": "br"}, "", 415, "unsupported_media_type", "gzip"),
    (GOOD, {**NDJSON, "Content-Encoding": "gzip"}, "", 400, "bad_request", "not gzip"),
    (gzip.compress(GOOD * 100)[:-9], {**NDJSON, "Content-Encoding": "gzip"}, "", 400, "bad_request", "ends too early"),
    (GOOD, {**NDJSON, "Idempotency-Key": "x" * 300}, "", 400, "invalid_header", "255"),
    (gzip.compress(b"[" + b" " * (260 << 20), 1), {**JSON, "Content-Encoding": "gzip"}, "", 413, "body_too_large",
     "unpacked"),
    (GOOD * 100001, NDJSON, "", 413, "body_too_large", "100000 items"),
]


@pytest.mark.parametrize("n", range(len(WHOLES)))
def test_a_batch_that_is_none_is_refused(stack, client, n):
    body, headers, query, status, code, words = WHOLES[n]
    a = refused(stack, client, body, headers, query)
    assert (a.status, a.json["code"]) == (status, code), a.body
    assert words in a.json["detail"], a.json


def test_a_body_that_is_announced_too_large_is_refused_unread(client):
    c = http.client.HTTPConnection("127.0.0.1", client.port, timeout=20)
    c.putrequest("POST", "/v1/batches")
    c.putheader("Authorization", f"Bearer {client.key}")
    c.putheader("Content-Type", "application/x-ndjson")
    c.putheader("Content-Length", str((256 << 20) + 1))
    c.endheaders()
    r = c.getresponse()
    assert (r.status, json.loads(r.read())["code"]) == (413, "body_too_large")
    c.close()


def test_a_client_that_hangs_up_leaves_nothing(stack, client):
    before = rows(stack)

    def spooled():
        found, fds = [], f"/proc/{stack.gateways[0].pid}/fd"
        for f in os.listdir(fds):
            with contextlib.suppress(FileNotFoundError):  # closed since
                found += [f] if str(stack.dir) in os.readlink(f"{fds}/{f}") else []
        return found

    idle = len(spooled())
    with socket.create_connection(("127.0.0.1", client.port), timeout=20) as s:
        s.sendall(b"POST /v1/batches HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"
                  b"Authorization: Bearer " + client.key.encode() + b"\r\nContent-Length: 100000000\r\n\r\n")
        s.sendall(GOOD * 20000)
        until("the upload has its file", lambda: len(spooled()) > idle, 10)
    until("the file is gone", lambda: len(spooled()) == idle, 10)
    assert rows(stack) == before


def test_lines_may_come_in_any_pieces(client):
    body = b"".join(b'{"custom_id":"%d","agent":"echo","prompt":"\\"\\u00e9{}[]"}\r\n' % i for i in range(20))
    c = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
    c.putrequest("POST", "/v1/batches")
    c.putheader("Authorization", f"Bearer {client.key}")
    c.putheader("Content-Type", "application/x-ndjson; charset=utf-8")
    c.putheader("Transfer-Encoding", "chunked")
    c.endheaders()
    for at in range(0, len(body), 7):
        piece = body[at:at + 7]
        c.send(b"%x\r\n%s\r\n" % (len(piece), piece))
    c.send(b"0\r\n\r\n")
    r = c.getresponse()
    assert r.status == 202
    id = json.loads(r.read())["id"]
    c.close()
    until("it ends", lambda: client.call("GET", f"/v1/batches/{id}").json["ended_at"], 60)
    got = client.call("GET", f"/v1/batches/{id}/results").body.splitlines()
    assert {json.loads(x)["output"] for x in got} == {'"é{}[]'}


def test_what_batches_hold_on_disk_is_bounded(stack, client):
    gateway = stack.add_gateway(SANDPIPER_GATEWAY_BATCH_SPOOL_BYTES="1m")
    try:
        c = type(client)(gateway.port, client.key)
        a = c.call("POST", "/v1/batches", good(prompt="x" * 30000) * 60, NDJSON)
        assert (a.status, a.json["code"]) == (503, "overloaded") and a.headers["Retry-After"]
        a = c.call("POST", "/v1/batches", GOOD, NDJSON)
        assert a.status == 202, "the room was given back"
        until("it ends", lambda: client.call("GET", f"/v1/batches/{a.json['id']}").json["ended_at"], 60)
    finally:
        gateway.stop()
        stack.gateways.remove(gateway)
