"""Every kind of wrong input has its answer: a problem+json with a status and a stable code, whose detail says what to mend.

Rows of (name, request, status, code, a word of the detail). They go to a gateway of their own, one after another; then that
gateway is the same process, holds about as much memory as before, has left no file behind, and a healthy job runs."""

import contextlib
import gzip
import io
import json
import os
import pathlib
import re
import socket
import struct
import tarfile
import threading
import time

import pytest

from stack import Client, Stack, in_threads, until

ROOT = pathlib.Path(__file__).resolve().parents[2]
MIB = 1024 * 1024
GROWTH = 96 * MIB  # of resident memory, with AddressSanitizer's own included
PEAK = 512 * MIB   # the most that one request may cost for a moment, the same

UNKNOWN_ID = "inv_01900000-0000-7000-8000-000000000000"


# ---- requests ----

class Request:
    """What a row sends. key: None the right one, "" none, else a header's value."""

    def __init__(self, method="POST", path="/v1/invocations", body=b"", headers=(), key=None, chunked=False):
        self.method, self.path, self.body = method, path, body
        self.headers, self.key, self.chunked = list(headers), key, chunked

    def bytes(self, key):
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: x", "Connection: close"]
        if self.key != "":
            lines.append(f"Authorization: {self.key if self.key is not None else 'Bearer ' + key}")
        names = [n.lower() for n, _ in self.headers]
        if self.chunked:
            lines.append("Transfer-Encoding: chunked")
        elif "content-length" not in names and (self.body or self.method in ("POST", "PUT", "PATCH")):
            lines.append(f"Content-Length: {len(self.body)}")
        lines += [f"{n}: {v}" for n, v in self.headers]
        body = self.body
        if self.chunked:
            body = b"".join(b"%x\r\n%s\r\n" % (len(body[i:i + 65536]), body[i:i + 65536])
                            for i in range(0, len(body), 65536)) + b"0\r\n\r\n"
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def read_answer(s):
    got = b""
    try:
        while piece := s.recv(65536):
            got += piece
    except ConnectionResetError:
        pass
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 "), got[:200]
    headers = dict(line.lower().split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:])
    return int(head[9:12]), headers, body


def send(port, data, seconds=60):
    """Sends while it reads: the answer may come before all is sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as s:
        def push():
            try:
                s.sendall(data)
            except OSError:
                pass  # refused before its end

        pusher = threading.Thread(target=push)
        pusher.start()
        try:
            return read_answer(s)
        finally:
            pusher.join()


def text(value):
    return value.encode() if isinstance(value, str) else value


def J(body, **kw):
    """A submission with this body, as it is."""
    return Request(body=text(body), headers=[("Content-Type", "application/json")], **kw)


def S(**fields):
    """A submission with these fields in place of the right ones (None as value: null; ... : left out)."""
    doc = {"agent": "echo", "prompt": "x", **fields}
    return J(json.dumps({k: v for k, v in doc.items() if v is not ...}))


def H(*headers, **kw):
    return Request(body=b'{"agent": "echo", "prompt": "x"}', headers=headers, **kw)


def G(path, method="GET", **kw):
    return Request(method=method, path=path, **kw)


def nested(n, open="[", close="]"):
    return open * n + close * n


# ---- rows: JSON ----

def not_json():
    for name, body, word in [
        ("an empty body", "", "too early"),
        ("blanks only", " \r\n\t ", "too early"),
        ("half an object", '{"agent": "echo", "prompt": ', "too early"),
        ("an unclosed string", '{"agent": "echo', ""),
        ("an unclosed array", "[1, 2", "too early"),
        ("a closing bracket alone", "]", ""),
        ("brackets that do not match", '{"a": [1}', "expected"),
        ("words", "hello", ""),
        ("half a word", '{"a": tru}', ""),
        ("a word in capitals", '{"a": TRUE}', ""),
        ("a byte order mark", b"\xef\xbb\xbf" + b'{"agent": "echo", "prompt": "x"}', ""),
        ("UTF-16", '{"agent": "echo", "prompt": "x"}'.encode("utf-16"), ""),
        ("something behind the object", '{"agent": "echo", "prompt": "x"} x', "follows"),
        ("two objects", '{"agent": "echo", "prompt": "x"}{}', "follows"),
        ("a NUL behind the object", b'{"agent": "echo", "prompt": "x"}\0', "follows"),
        ("a NUL before the object", b'\0{"agent": "echo", "prompt": "x"}', ""),
        ("a comma at the end", '{"agent": "echo", "prompt": "x",}', ""),
        ("two commas", '{"agent": "echo",, "prompt": "x"}', ""),
        ("no comma", '{"agent": "echo" "prompt": "x"}', "expected"),
        ("no colon", '{"agent" "echo"}', ""),
        ("a comma in an array's end", '{"a": [1,]}', ""),
        ("single quotes", "{'agent': 'echo'}", ""),
        ("a name without quotes", '{agent: "echo"}', ""),
        ("a comment", '{"agent": "echo", /* x */ "prompt": "x"}', ""),
        ("NaN", '{"timeout_s": NaN}', ""),
        ("Infinity", '{"timeout_s": Infinity}', ""),
        ("a number in hexadecimal", '{"timeout_s": 0x10}', ""),
        ("a number with a zero first", '{"timeout_s": 007}', ""),
        ("a number with plus", '{"timeout_s": +1}', ""),
        ("a number that ends in a point", '{"timeout_s": 1.}', ""),
        ("a number that begins with a point", '{"timeout_s": .5}', ""),
        ("an exponent without digits", '{"timeout_s": 1e}', ""),
        ("a lone minus", '{"timeout_s": -}', ""),
        ("1e400", '{"timeout_s": 1e400}', ""),
        ("a number of 1,000 digits", '{"timeout_s": ' + "9" * 1000 + "}", ""),
        ("a duplicate name", '{"agent": "echo", "prompt": "x", "prompt": "y"}', "twice"),
        ("a duplicate name by escapes", '{"agent": "echo", "prompt": "x", "\\u0070rompt": "y"}', "twice"),
        ("a duplicate name far down", '{"agent": "echo", "prompt": "x", "metadata": {"a": {"b": 1, "b": 2}}}', "twice"),
        ("a lone high surrogate", '{"agent": "echo", "prompt": "\\ud800"}', "surrogate"),
        ("a lone low surrogate", '{"agent": "echo", "prompt": "\\udc00"}', "surrogate"),
        ("surrogates in the wrong order", '{"agent": "echo", "prompt": "\\udc00\\ud800"}', "surrogate"),
        ("a high surrogate and a letter", '{"agent": "echo", "prompt": "\\ud800x"}', "surrogate"),
        ("an escaped NUL in the prompt", '{"agent": "echo", "prompt": "a\\u0000b"}', "\\u0000"),
        ("an escaped NUL in a name", '{"agent": "echo", "prompt": "x", "metadata": {"a\\u0000": 1}}', "\\u0000"),
        ("a short escape", '{"agent": "echo", "prompt": "\\u12"}', "escape"),
        ("an unknown escape", '{"agent": "echo", "prompt": "\\x41"}', "escape"),
        ("an escape at the end", '{"agent": "echo", "prompt": "\\', ""),
        ("a raw NUL in the prompt", b'{"agent": "echo", "prompt": "a\0b"}', "control"),
        ("a raw newline in the prompt", '{"agent": "echo", "prompt": "a\nb"}', "control"),
        ("a raw tab in the prompt", '{"agent": "echo", "prompt": "a\tb"}', "control"),
        ("a control byte in the prompt", '{"agent": "echo", "prompt": "a\x1fb"}', "control"),
        ("a byte that is no UTF-8", b'{"agent": "echo", "prompt": "a\xffb"}', "UTF-8"),
        ("UTF-8 cut off", b'{"agent": "echo", "prompt": "\xe2\x82"}', "UTF-8"),
        ("an overlong slash", b'{"agent": "echo", "prompt": "\xc0\xaf"}', "UTF-8"),
        ("an overlong NUL", b'{"agent": "echo", "prompt": "\xc0\x80"}', "UTF-8"),
        ("a surrogate in UTF-8", b'{"agent": "echo", "prompt": "\xed\xa0\x80"}', "UTF-8"),
        ("beyond U+10FFFF", b'{"agent": "echo", "prompt": "\xf4\x90\x80\x80"}', "UTF-8"),
        ("Latin-1", '{"agent": "echo", "prompt": "ä"}'.encode("latin-1"), "UTF-8"),
        ("65 arrays deep", '{"metadata": ' + nested(65) + "}", "deep"),
        ("100,000 arrays deep", nested(100000), "deep"),
        ("100,000 objects deep", '{"a":' * 100000, "deep"),
        ("4 MiB of opening brackets", "[" * (4 * MIB), "deep"),
        ("10,001 names", "{" + ",".join(f'"k{i}":1' for i in range(10001)) + "}", ""),
        ("4,000,000 numbers", "[" + "0," * 3999999 + "0]", "too many values"),
        ("2,000,000 empty objects", '{"metadata": [' + "{}," * 1999999 + "{}]}", "too many values"),
        ("an array", "[]", "object"), ("a string", '"x"', "object"), ("a number", "1", "object"),
        ("null", "null", "object"), ("true", "true", "object"),
    ]:
        yield f"JSON: {name}", J(body), 400, "invalid_json", word


def fields():
    for name, extra, word in [
        ("promt", {"promt": "x"}, '"prompt"'),
        ("Prompt", {"Prompt": "x"}, '"prompt"'),
        ("agents", {"agents": "x"}, '"agent"'),
        ("timeout", {"timeout": 5}, '"timeout'),
        ("timeouts", {"timeout_ms": 5}, '"timeout_s"'),
        ("priorty", {"priorty": "low"}, '"priority"'),
        ("meta_data", {"meta_data": {}}, '"metadata"'),
        ("retries", {"retrie": {}}, '"retry"'),
        ("queue_timeout", {"queue_timeout": 5}, '"queue_timeout_s"'),
        ("nothing like it", {"zzzzzz": 1}, '"zzzzzz"'),
        ("an empty name", {"": 1}, '""'),
        ("a long name", {"x" * 5000: 1}, "xxx"),
        ("a name in UTF-8", {"prömpt": 1}, "prömpt"),
        ("a name with quotes", {'"><script>': 1}, "script"),
        ("nested: max_attempt", {"retry": {"max_attempt": 2}}, '"max_attempts"'),
        ("nested: On", {"retry": {"On": []}}, '"on"'),
        ("nested: says where", {"retry": {"zzzzzz": 1}}, "retry"),
    ]:
        yield f"unknown field: {name}", S(**extra), 400, "unknown_field" if name != "timeout" else "unknown_field", word
    yield "files that are no array", S(files={}), 400, "invalid_field", "files"
    for bad in (5, "tomorrow", "2999-01-01T00:00:00Z", {}):
        yield f"not_before of {bad!r}", S(not_before=bad), 400, "invalid_field", "not_before"
    yield "no agent", S(agent=...), 400, "missing_field", "agent"
    yield "no prompt", S(prompt=...), 400, "missing_field", "prompt"
    yield "an empty object", J("{}"), 400, "missing_field", "agent"
    right = {"agent": str, "prompt": str, "timeout_s": int, "queue_timeout_s": int, "priority": str, "metadata": dict,
             "retry": dict, "env": dict}
    values = [("null", None), ("true", True), ("a number", 7), ("a fraction", 1.5), ("a string", "7"), ("an array", []),
              ("an object", {})]
    for field, kind in right.items():
        for what, value in values:
            if type(value) is kind and not (field in ("agent", "priority") and kind is str):
                continue
            word = "agent" if field == "agent" else field
            if field == "agent" and value == "7":
                continue  # a name like any other; "unknown agent" below
            yield f"{field}: {what}", S(**{field: value}), 400, "invalid_field", word
    for what, value in values:
        if not isinstance(value, int) or isinstance(value, bool):
            yield f"retry.max_attempts: {what}", S(retry={"max_attempts": value}), 400, "invalid_field", "retry.max_attempts"
        if not isinstance(value, list):
            yield f"retry.on: {what}", S(retry={"on": value}), 400, "invalid_field", "retry.on"
        yield f"retry.on[0]: {what}", S(retry={"on": [value]}), 400, "invalid_field", "retry.on"
    for field in ("timeout_s", "queue_timeout_s"):
        for n in ("0", "-1", "1e3", "1.0", "99999999", "9223372036854775807", "9223372036854775808", "-9223372036854775809",
                  "1" + "0" * 300):
            yield f"{field}: {n[:25]}", J('{"agent":"echo","prompt":"x","%s":%s}' % (field, n)), 400, "invalid_field", field
    yield "timeout_s: 3601", S(timeout_s=3601), 400, "invalid_field", "3600"
    for n in (0, -1, 1000000, 32768, 65537):
        yield f"retry.max_attempts: {n}", S(retry={"max_attempts": n}), 400, "invalid_field", "max_attempts"
    yield "retry.on: canceled", S(retry={"on": ["failed", "canceled"]}), 400, "invalid_field", "timed_out"
    for p in ("urgent", "HIGH", "", "high ", "normal\u0001"):
        yield f"priority: {p!r}", S(priority=p), 400, "invalid_field", "high"
    for a in ("", "Echo", "echo@", "echo@0", "echo@-1", "echo@+1", "echo@x", "echo@1.0", "echo@1@2", "echo@99999999999", "@1",
              "-echo", "e" * 64, "e" * 100000, "echo ", " echo", "../echo", "echo/1", "écho", "echo\u0001", "echo\n"):
        yield f"agent: {a[:20]!r}{len(a)}", S(agent=a), 400, "invalid_field", "agent"
    yield "unknown agent", S(agent="nobody"), 404, "agent_not_found", "nobody"
    yield "unknown agent of the longest name", S(agent="e" * 63), 404, "agent_not_found", "eee"
    yield "unknown version", S(agent="echo@77777"), 404, "agent_not_found", "77777"
    yield "unknown version of an unknown agent", S(agent="nobody@1"), 404, "agent_not_found", "nobody"
    yield "an injection for an agent", S(agent="a' or '1'='1"), 400, "invalid_field", "agent"


def sizes():
    yield "a prompt over the limit", S(prompt="x" * (4 * MIB + 1)), 413, "prompt_too_large", "4194304"
    yield "a prompt over the limit in UTF-8", J('{"agent": "echo", "prompt": "%s"}' % ("ä" * (2 * MIB + 1))), 413, "prompt_too_large", "4194304"
    yield "metadata over the limit", S(metadata={"a": "x" * 16384}), 413, "metadata_too_large", "16384"
    yield "metadata over the limit by blanks", J('{"agent":"echo","prompt":"x","metadata":{' + " " * 16384 + "}}"), 413, \
        "metadata_too_large", "16384"
    yield "a body over the limit", J("x" * (8 * MIB + 1)), 413, "body_too_large", ""
    yield "a body over the limit, chunked", J(" " * (9 * MIB), chunked=True), 413, "body_too_large", ""
    for n in (8 * MIB + 1, 2**40, 2**62):
        yield f"a length of {n}, and no body", H(("Content-Length", n)), 413, "body_too_large", ""
    yield "a length over the limit, with Expect", H(("Content-Length", 2**40), ("Expect", "100-continue")), 413, \
        "body_too_large", ""


# ---- rows: headers, keys, methods, paths, queries ----

def headers():
    for t in ("text/plain", "application/jsonx", "multipart/mixed; boundary=x", "application/x-ndjson", "json", "",
              "application/json5", "text/json; charset=utf-8"):
        yield f"content type {t!r}", H(("Content-Type", t)), 415, "unsupported_media_type", "application/json"
    for name, v in (("empty", ""), ("empty in quotes", '""'), ("256 long", "k" * 256), ("with a quote", 'a"b'),
                    ("in UTF-8", "k\xc3\xa4"), ("with a tab", "a\tb"), ("with a delete byte", "a\xffb")):
        yield f"Idempotency-Key {name}", H(("Idempotency-Key", v)), 400, "invalid_header", "Idempotency-Key"
    yield "two Idempotency-Keys", H(("Idempotency-Key", "a"), ("Idempotency-Key", "a")), 400, "invalid_header", "more than once"
    for v in ("wait=", "wait=x", "wait=-1", "wait=1.5", "wait=99999999999999999999", "wait=1s", "respond-async, wait=x",
              'wait="5"'):
        yield f"Prefer: {v}", H(("Prefer", v)), 400, "invalid_header", "wait"


def keys():
    key = "sp_" + "A" * 43
    for name, value in [
        ("no key", ""), ("the wrong scheme", "Basic c3A6eA=="), ("no scheme", key), ("an empty key", "Bearer"),
        ("a blank key", "Bearer  "), ("a key without sp_", "Bearer " + "A" * 46), ("a short key", "Bearer sp_AAAA"),
        ("a long key", "Bearer " + key + "A"), ("a very long key", "Bearer sp_" + "A" * 8000),
        ("a key with odd characters", "Bearer sp_" + "!" * 43), ("a key with a blank inside", "Bearer sp_ " + "A" * 42),
        ("an injection for a key", "Bearer sp_' or 1=1 --"), ("an unknown key", "Bearer " + key),
        ("a key in UTF-8", "Bearer sp_\xc3\xa4" + "A" * 41), ("a key and a comma", "Bearer " + key + ","),
    ]:
        yield name, H(key=value), 401, "unauthorized", "key" if value.startswith("Bearer sp_") else ""
    yield "two keys", H(("Authorization", "Bearer " + key)), 401, "unauthorized", "Bearer"
    for path in (f"/v1/invocations/{UNKNOWN_ID}", "/v1/agents", "/v1/agents/echo"):
        yield f"no key: GET {path[:20]}", G(path, key=""), 401, "unauthorized", "Bearer"
    yield "no key, a body over the limit", H(("Content-Length", 2**40), key=""), 401, "unauthorized", "Bearer"


def methods():
    for method, path in [("PUT", "/v1/invocations"), ("DELETE", "/v1/invocations"), ("PATCH", "/v1/invocations"),
                         ("OPTIONS", "/v1/invocations"), ("PROPFIND", "/v1/invocations"),
                         ("POST", f"/v1/invocations/{UNKNOWN_ID}"), ("DELETE", f"/v1/invocations/{UNKNOWN_ID}"),
                         ("GET", f"/v1/invocations/{UNKNOWN_ID}/cancel"), ("POST", f"/v1/invocations/{UNKNOWN_ID}/output"),
                         ("PUT", f"/v1/invocations/{UNKNOWN_ID}/logs"), ("PUT", "/v1/agents"), ("PATCH", "/v1/agents/echo"),
                         ("POST", "/healthz"), ("DELETE", "/metrics"), ("TRACE", "/readyz")]:
        yield f"{method} {path[:24]}{path[-7:]}", G(path, method), 405, "method_not_allowed", None


def paths():
    for path in ("/", "/v1", "/v1/", "/v2/invocations", "/v1/invocation", "/v1/invocations/x/y", "/v1//agents", "/favicon.ico",
                 "/v1/invocations/", "/v1/agents/", "/v1/%61gents", "/.git/config", "/v1/agents/../agents", "/" + "a/" * 2000):
        yield f"path {path[:30]}", G(path), 404, "not_found", "nothing at this path"
    bad_ids = ["x", "inv_", "inv_x", "agt_01900000-0000-7000-8000-000000000000", UNKNOWN_ID.upper(), UNKNOWN_ID + "0",
               UNKNOWN_ID[:-1], UNKNOWN_ID.replace("-", ""), "inv_01900000-0000-7000-8000-00000000000g", "%00", "%zz", "a" * 5000,
               "inv_01900000-0000-7000-8000-000000000000%20", "inv_--------------------------------", "'%20or%201=1"]
    for id in bad_ids:
        yield f"id {id[:44]} of {len(id)}", G(f"/v1/invocations/{id}"), 404, "not_found", "inv_"
    for end, method in (("/cancel", "POST"), ("/output", "GET"), ("/logs", "GET")):
        yield f"a bad id{end}", G(f"/v1/invocations/x{end}", method), 404, "not_found", "inv_"
        yield f"an unknown id{end}", G(f"/v1/invocations/{UNKNOWN_ID}{end}", method), 404, "not_found", None
    yield "an unknown id", G(f"/v1/invocations/{UNKNOWN_ID}"), 404, "not_found", "no invocation"
    yield "an unknown id, waited for", G(f"/v1/invocations/{UNKNOWN_ID}?wait=5"), 404, "not_found", "no invocation"
    for name in ("nobody", "ECHO", "echo@1", "-", "a" * 64, "a" * 3000, "%65cho", "%00"):
        yield f"agent {name[:10]} of {len(name)}", G(f"/v1/agents/{name}"), 404, "agent_not_found", None


def queries():
    get = f"/v1/invocations/{UNKNOWN_ID}"
    for path, word in [
        (get + "?wait=", "wait"), (get + "?wait", "wait"), (get + "?wait=x", "wait"), (get + "?wait=-1", "wait"),
        (get + "?wait=1.5", "wait"), (get + "?wait=99999999999999999999", "wait"), (get + "?wait=1&wait=1", "more than once"),
        (get + "?wait=1&%77ait=1", "more than once"), (get + "?wiat=1", '"wait"'), (get + "?WAIT=1", "WAIT"),
        (get + "?waits=1", '"wait"'), (get + "?verbose=1", "verbose"), (get + "?wait=1&x=2", '"x"'), (get + "?=", '""'),
        (get + "?%zz=1", "%"), (get + "?wait=%2", "%"), (get + "?wait=%", "%"), (get + "?wait[]=1", "wait"),
        (get + "?" + "a" * 8000 + "=1", "aaa"), (get + "?%00=1", "unknown"), (get + "?wait=1;x=2", "wait"),
        ("/v1/agents?limit=0", "limit"), ("/v1/agents?limit=1001", "limit"), ("/v1/agents?limit=x", "limit"),
        ("/v1/agents?limit=-1", "limit"), ("/v1/agents?limt=5", '"limit"'),
        ("/v1/agents?curser=a", '"cursor"'), ("/v1/agents?limit=1&limit=2", "more than once"),
        ("/v1/invocations?status=running", "status"), ("/v1/invocations?stats=open", "status"), ("/v1/invocations?limit=0", "limit"),
        ("/v1/invocations?agent=ECHO", "agent"), ("/v1/invocations?created_after=yesterday", "created_after"),
        ("/v1/invocations?metadata.=1", "metadata"), ("/v1/invocations?metadata.a=%00", "NUL"), ("/v1/invocations?agent=%ff", "UTF-8"),
        ("/v1/invocations?status=open&status=open", "twice"), ("/v1/invocations?%zz", "malformed"),
        ("/v1/agents/echo?version=1", "version"), (get + "/output?download=1", "download"), (get + "/logs?tail=1", "tail"),
    ]:
        yield f"query {path[len(get):] if path.startswith(get) else path[10:]}"[:60], G(path), 400, "invalid_query", word
    for list in ("agents", "invocations"):
        for cursor in ("NOT%20OURS", "a", "A" * 3000, ""):
            yield f"cursor {cursor[:10]} of {list}", G(f"/v1/{list}?cursor={cursor}"), 400, "invalid_cursor", "next_cursor"
    for path, word in (("/v1/invocations?wait=5", "wait"), ("/v1/invocations?agent=echo", "agent"), (get + "/cancel?force=1", "force")):
        yield f"query of a POST {path[-14:]}", Request(path=path, body=b"{}"), 400, "invalid_query", word


# ---- rows: archives ----

def tar(*entries, compress=True):
    """Each entry: a name and bytes, or a TarInfo (with bytes)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as t:
        for e in entries:
            info, data = e if isinstance(e, tuple) else (e, b"")
            if isinstance(info, str):
                info = tarfile.TarInfo(info)
                info.mode = 0o644
            if info.isreg():
                info.size = len(data)
            t.addfile(info, io.BytesIO(data))
    return gzip.compress(out.getvalue(), 1) if compress else out.getvalue()


def info(name, kind, link="", **more):
    t = tarfile.TarInfo(name)
    t.type, t.linkname = kind, link
    for k, v in more.items():
        setattr(t, k, v)
    return t


def sym(name, to):
    return info(name, tarfile.SYMTYPE, to)


def hard(name, to):
    return info(name, tarfile.LNKTYPE, to)


def directory(name):
    return info(name, tarfile.DIRTYPE, mode=0o755)


MAIN = ("main.py", b"import sys; sys.stdout.write(sys.stdin.read())\n")


def raw_header(name, size=0, kind=b"0", link=b"", size_field=None, mtime=b"00000000000\0"):
    h = bytearray(512)
    h[0:len(name)] = name
    h[100:108], h[108:116], h[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    h[124:136] = size_field if size_field is not None else b"%011o\0" % size
    h[136:148] = mtime
    h[156:157] = kind
    h[157:157 + len(link)] = link
    h[257:265] = b"ustar\0" + b"00"
    h[148:156] = b"        "
    h[148:156] = b"%06o\0 " % sum(h)
    return bytes(h)


def gz_zeros(n, level=9):
    """Gzipped zeros, made piece by piece."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=level) as g:
        piece = bytes(4 * MIB)
        for _ in range(n // len(piece)):
            g.write(piece)
    return out.getvalue()


def gz_stream(*pieces):
    """Gzips pieces of (bytes, repeat)."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1) as g:
        for data, times in pieces:
            for _ in range(times):
                g.write(data)
    return out.getvalue()


def old_sparse_bomb(blocks):
    """GNU's old map of holes, continued for ever: libarchive would keep every entry of it."""
    head = bytearray(raw_header(b"main.py", 512, b"S"))
    head[257:265] = b"ustar  \0"
    head[482] = 1
    head[148:156] = b"        "
    head[148:156] = b"%06o\0 " % sum(head)
    ext = bytearray(512)
    for i in range(21):
        ext[i * 24:i * 24 + 24] = b"%011o\0" % 0 + b"%011o\0" % 0
    ext[504] = 1
    return gz_stream((bytes(head), 1), (bytes(ext) * 128, blocks // 128))


def nested_gzip(depth, data):
    for _ in range(depth):
        data = gzip.compress(data, 1)
    return data


def D(body, name="?name=bad", type="application/gzip"):
    return Request(path="/v1/agents" + name, body=body, headers=[("Content-Type", type)] if type else [])


def archives():
    rows = [
        ("nothing", b"", "empty"),
        ("words", b"hello, I am an archive", "tar.gz"),
        ("a plain tar", lambda: tar(MAIN, compress=False), "gzip"),
        ("gzipped words", gzip.compress(b"hello"), "tar.gz"),
        ("gzipped nothing", gzip.compress(b""), ""),
        ("a zip", b"PK\x03\x04" + bytes(100), "tar.gz"),
        ("an xz", b"\xfd7zXZ\0" + bytes(100), "tar.gz"),
        ("half a gzip header", b"\x1f\x8b\x08", "tar.gz"),
        ("a gzip cut off", lambda: tar(MAIN, ("big", os.urandom(100000)))[:-50000], "damaged"),
        ("gzip in gzip", lambda: nested_gzip(2, tar(MAIN, compress=False)), "once"),
        ("ten layers of gzip", lambda: nested_gzip(10, tar(MAIN, compress=False)), "once"),
        ("an empty tar", lambda: gzip.compress(bytes(10240)), "empty"),
        ("..", lambda: tar(MAIN, ("../evil", b"x")), "../evil"),
        ("a/../../evil", lambda: tar(MAIN, ("a/../../evil", b"x")), "a/../../evil"),
        ("a/..", lambda: tar(MAIN, ("a/../b", b"x")), "a/../b"),
        (".. as a directory", lambda: tar(MAIN, directory("..")), ".."),
        ("an absolute path", lambda: tar(MAIN, ("/etc/passwd", b"x")), "/etc/passwd"),
        ("an absolute path by pax", lambda: tar(MAIN, info("x", tarfile.REGTYPE, pax_headers={"path": "/etc/shadow"})), "/etc/shadow"),
        ("a link to an absolute path", lambda: tar(MAIN, sym("l", "/etc/passwd")), "links out"),
        ("a link out", lambda: tar(MAIN, sym("l", "../x")), "links out"),
        ("a link out from below", lambda: tar(MAIN, sym("a/l", "../../x")), "links out"),
        ("a link with .. in the middle", lambda: tar(MAIN, sym("l", "a/../../x")), "links out"),
        ("a link to nothing", lambda: tar(MAIN, sym("l", "")), ""),
        ("a file through a link", lambda: tar(MAIN, directory("d"), sym("l", "d"), ("l/x", b"x")), "which is a link"),
        ("a link through a link", lambda: tar(MAIN, directory("d"), sym("l", "d"), sym("l/m", "x")), "which is a link"),
        ("out by two links", lambda: tar(MAIN, directory("a/b/c"), sym("a/b/c/up", "../../.."), sym("m", "a/b/c/up/.."),
                                         ("m/evil", b"x")), "links out"),
        ("a link in a link's place", lambda: tar(MAIN, sym("l", "main.py"), sym("l", "x")), "twice"),
        ("a file in a link's place", lambda: tar(MAIN, sym("l", "main.py"), ("l", b"x")), "twice"),
        ("a hard link out", lambda: tar(MAIN, hard("h", "../x")), "hard link"),
        ("a hard link to an absolute path", lambda: tar(MAIN, hard("h", "/etc/passwd")), "hard link"),
        ("a hard link to what comes later", lambda: tar(hard("h", "main.py"), MAIN), "hard link"),
        ("a hard link to a link", lambda: tar(MAIN, sym("l", "main.py"), hard("h", "l")), "hard link"),
        ("a hard link to a directory", lambda: tar(MAIN, directory("d"), hard("h", "d")), "hard link"),
        ("a hard link to itself", lambda: tar(MAIN, hard("h", "h")), "hard link"),
        ("a character device", lambda: tar(MAIN, info("null", tarfile.CHRTYPE, devmajor=1, devminor=3)), "neither"),
        ("a block device", lambda: tar(MAIN, info("sda", tarfile.BLKTYPE, devmajor=8)), "neither"),
        ("a fifo", lambda: tar(MAIN, info("pipe", tarfile.FIFOTYPE)), "neither"),
        ("a file twice", lambda: tar(MAIN, MAIN), "twice"),
        ("a file twice by another spelling", lambda: tar(MAIN, ("./main.py", b"x")), "twice"),
        ("a file, then a directory of its name", lambda: tar(MAIN, ("a", b"x"), directory("a")), "twice"),
        ("a directory, then a file of its name", lambda: tar(MAIN, directory("a"), ("a", b"x")), "twice"),
        ("a file where a directory is needed", lambda: tar(MAIN, ("a", b"x"), ("a/b", b"x")), "which is a file"),
        ("a file where a directory was", lambda: tar(MAIN, ("a/b", b"x"), ("a", b"x")), "twice"),
        ("a file for the top", lambda: tar(MAIN, ("./", b"x"), (".", b"x")), ""),
        ("a name of 2,000 bytes", lambda: tar(MAIN, ("x" * 2000, b"x")), "xxx"),
        ("a path of 4,000 bytes", lambda: tar(MAIN, ("x/" * 2000, b"x")), "path"),
        ("a name of 500 KiB by pax", lambda: tar(MAIN, info("x", tarfile.REGTYPE, pax_headers={"path": "y" * 500000})), ""),
        ("a comment of 8 MiB by pax", lambda: tar(MAIN, info("x", tarfile.REGTYPE, pax_headers={"comment": "y" * (8 * MIB)})), ""),
        ("a long name of 16 MiB by GNU", lambda: gz_stream((raw_header(b"././@LongLink", 16 * MIB, b"L"), 1), (b"y" * MIB, 16)), ""),
        ("8 EiB in a header", lambda: gz_stream((raw_header(b"main.py", size_field=b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7), 1),
                                                (bytes(1024), 4)), "damaged"),
        ("a negative size", lambda: gz_stream((raw_header(b"main.py", size_field=b"\xff" * 12), 1), (bytes(1024), 4)), ""),
        ("64 GiB announced, nothing there", lambda: gz_stream((raw_header(b"main.py", 8 * 1024**3 - 1), 1), (bytes(1024), 4)), "damaged"),
        ("a wrong header sum", lambda: gzip.compress(raw_header(b"main.py").replace(b"ustar", b"xstar") + bytes(1024)), ""),
        ("a million entries", lambda: gz_stream((raw_header(b"main.py"), 1), *[(b"".join(raw_header(b"f%d" % i) for i in range(k, k + 1000)), 1)
                                                for k in range(0, 101000, 1000)]), "100000 entries"),
        ("names of 100 MiB", lambda: gz_stream(*[(tar(info("x", tarfile.REGTYPE, pax_headers={"path": f"{i}/" + "d/" * 500}), compress=False)[:2048], 1)
                                                 for i in range(2000)]), "names"),
        ("a bomb of 4 GiB", lambda: gz_stream((raw_header(b"main.py", 4 * 1024**3), 1), (bytes(16 * MIB), 256)), "1 GiB"),
        ("a bomb in many files", lambda: gz_stream(*[(raw_header(b"f%d" % i, 256 * MIB) + bytes(256 * MIB), 1) for i in range(5)]), "1 GiB"),
        ("a map of holes without end", lambda: old_sparse_bomb(512 * 1024), ""),
        ("a hole of 1 TiB", lambda: tar(MAIN, (info("x", tarfile.REGTYPE, pax_headers={
            "GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "x", "GNU.sparse.size": str(2**40),
            "GNU.sparse.map": f"{2**40 - 1},1"}), b"x")), "1 GiB"),
    ]
    for name, body, word in rows:
        yield f"archive: {name}", (lambda b=body: D(b() if callable(b) else b)), 400, "invalid_archive", word


def flip(data):
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 0xff]) + data[at + 1:]


def manifests():
    rows = [
        ("no entry", [("README", b"x")], "index.js"),
        ("node without a file", [("package.json", b"{}")], "entry"),
        ("half an object", [MAIN, ("agent.json", b"{")], "agent.json"),
        ("not an object", [MAIN, ("agent.json", b"[]")], "object"),
        ("a byte order mark", [MAIN, ("agent.json", b"\xef\xbb\xbf{}")], "agent.json"),
        ("no UTF-8", [MAIN, ("agent.json", b'{"name": "\xff"}')], "UTF-8"),
        ("deep", [MAIN, ("agent.json", b"[" * 30000)], "deep"),
        ("a duplicate name", [MAIN, ("agent.json", b'{"name": "a", "name": "b"}')], "twice"),
        ("an escaped NUL", [MAIN, ("agent.json", b'{"entry": "a\\u0000b"}')], "u0000"),
        ("over 64 KiB", [MAIN, ("agent.json", b'{"description": "' + b"x" * 70000 + b'"}')], "agent.json has more than"),
        ("an unknown name", [MAIN, ("agent.json", b'{"runtme": "python"}')], '"runtime"'),
        ("an unknown name far from all", [MAIN, ("agent.json", b'{"zzzzzzz": 1}')], "zzzzzzz"),
        ("an unknown runtime", [MAIN, ("agent.json", b'{"runtime": "ruby"}')], "node, python or command"),
        ("a name in capitals", [MAIN, ("agent.json", b'{"name": "Shout"}')], "lower-case"),
        ("a name of 64", [MAIN, ("agent.json", b'{"name": "' + b"a" * 64 + b'"}')], "name"),
        ("an entry of 600 bytes", [MAIN, ("agent.json", b'{"entry": "' + b"a" * 600 + b'"}')], "entry"),
        ("an entry in two lines", [MAIN, ("agent.json", b'{"entry": "a\\nb"}')], "one line"),
        ("timeout_s 0", [MAIN, ("agent.json", b'{"timeout_s": 0}')], "3600"),
        ("timeout_s 3601", [MAIN, ("agent.json", b'{"timeout_s": 3601}')], "3600"),
        ("timeout_s 1.5", [MAIN, ("agent.json", b'{"timeout_s": 1.5}')], "whole"),
        ("command without a command", [("README", b"x"), ("agent.json", b'{"runtime": "command"}')], "entry"),
    ] + [(f"{f} as {v.decode()}", [MAIN, ("agent.json", b'{"' + f.encode() + b'": ' + v + b"}")], f)
         for f in ("name", "runtime", "entry", "install", "timeout_s") for v in (b"null", b"[]", b"{}", b"true", b"1.5")]
    for name, entries, word in rows:
        yield f"agent.json: {name}", D(tar(*entries)), 400, "invalid_manifest", word
    yield "no name anywhere", D(tar(MAIN), name=""), 400, "missing_field", "?name="


def deploys():
    ok = tar(MAIN)
    for q, word in (("?name=", "name"), ("?name=Shout", "lower-case"), ("?name=" + "a" * 64, "63"), ("?name=a%20b", "name"),
                    ("?name=../x", "name"), ("?name=%ff", "name"), ("?name=a%00b", "name"), ("?nam=shout", '"name"'),
                    ("?name=a&name=b", "more than once"), ("?name=a&force=1", "force"), ("?name=%zz", "%")):
        yield f"deploy {q[:20]}", D(ok, name=q), 400, "invalid_query", word
    for t in ("", "text/plain", "application/zip", "multipart/form-data; boundary=x"):
        yield f"deploy as {t!r}", D(ok, type=t), 415, "unsupported_media_type", "application/gzip"
    yield "deploy by git", Request(path="/v1/agents", body=b'{"git_url": "x"}', headers=[("Content-Type", "application/json")]), 400, \
        "missing_field", "name"
    yield "an archive over the limit", Request(path="/v1/agents?name=bad", headers=[
        ("Content-Type", "application/gzip"), ("Content-Length", 100 * MIB + 1)]), 413, "body_too_large", ""


GROUPS = [not_json, fields, sizes, headers, keys, methods, paths, queries, archives, manifests, deploys]
ROWS = [row for group in GROUPS for row in group()]


# ---- the walk ----

class Watched:
    """A gateway of its own: nothing else moves its memory."""

    def __init__(self, stack):
        self.stack = stack
        # AddressSanitizer would else keep freed memory, and so hide or feign growth.
        self.gateway = stack.add_gateway(ASAN_OPTIONS="detect_leaks=0:quarantine_size_mb=1:allocator_release_to_os_interval_ms=0")
        self.port, self.pid, self.key = self.gateway.port, self.gateway.pid, stack.key
        self.client = Client(self.port, self.key)
        for _ in range(3):  # connections to the database, caches
            assert self.client.run("echo", "warm")["status"] == "succeeded"
        send(self.port, D(tar(("x", b"x"))).bytes(self.key))
        self.rss, self.files, self.fds = self.memory("VmRSS"), self.listing(), self.descriptors()

    def memory(self, what):
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"{what}:\s+(\d+) kB", text)[1]) * 1024

    def forget_peak(self):
        pathlib.Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def descriptors(self):
        found = []
        for f in pathlib.Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(f))
        return sorted(found)

    def listing(self):
        return sorted(p.name for p in self.stack.dir.iterdir())


@pytest.fixture(scope="module")
def watched(stack):
    w = Watched(stack)
    yield w
    stack.gateways.remove(w.gateway)
    assert w.gateway.stop() == 0
    assert "Sanitizer" not in w.gateway.text() and "runtime error" not in w.gateway.text()


def check(answer, status, code, word):
    got, headers, body = answer
    problem = json.loads(body)  # strictly UTF-8, too
    assert (got, problem["code"]) == (status, code), (got, problem)
    assert headers["content-type"] == "application/problem+json"
    assert problem["status"] == status and problem["type"] == f"/problems/{code}" and problem["title"]
    if word is not None:
        assert word.lower() in problem.get("detail", "").lower(), problem
    if status == 401:
        assert headers["www-authenticate"].startswith("bearer")
    if status == 405:
        assert headers["allow"]
    if status in (408, 429, 503):
        assert int(headers["retry-after"]) > 0
    return problem


@pytest.mark.parametrize("name,request_of,status,code,word", ROWS, ids=[r[0] for r in ROWS])
def test_refused(watched, name, request_of, status, code, word):
    r = request_of() if callable(request_of) else request_of
    before = watched.memory("VmRSS")
    watched.forget_peak()
    check(send(watched.port, r.bytes(watched.key)), status, code, word)
    peak = watched.memory("VmHWM") - before
    assert peak < PEAK, f"{peak / MIB:.0f} MiB for this request"


def test_allow_names_the_methods(watched):
    for path, allowed in (("/v1/agents", {"POST", "GET", "HEAD"}), ("/v1/agents/echo", {"GET", "HEAD", "DELETE"}), ("/healthz", {"GET", "HEAD"}),
                          (f"/v1/invocations/{UNKNOWN_ID}/cancel", {"POST"})):
        status, headers, _ = send(watched.port, G(path, "PATCH").bytes(watched.key))
        assert (status, set(headers["allow"].upper().split(", "))) == (405, allowed), path


def test_every_parameter_that_is_known_still_works(watched):
    id = watched.client.run("echo", "x")["id"]
    cursor = watched.client.call("GET", "/v1/agents?limit=1").json["next_cursor"]
    for path in (f"/v1/agents?limit=1&cursor={cursor}", f"/v1/invocations/{id}?wait=1", f"/v1/invocations/{id}?%77ait=0", f"/v1/invocations/{id}?", f"/v1/invocations/{id}?&",
                 "/v1/agents?limit=1000", "/v1/invocations?limit=1", "/healthz?x=y", "/metrics?x&x", "/readyz?%zz"):
        assert watched.client.call("GET", path).status == 200, path


def keys_rows():
    fine = {"name": "x"}
    yield "no name", {}, "missing_field", "name is required"
    yield "name: number", {"name": 7}, "invalid_field", "name must be"
    yield "name: empty", {"name": ""}, "invalid_field", "1 to 100 bytes"
    yield "name: long", {"name": "x" * 101}, "invalid_field", "1 to 100 bytes"
    yield "name: control", {"name": "a\nb"}, "invalid_field", "control"
    for v in ("invoke", [], ["Invoke"], ["invoke", 7], {"invoke": True}, [["invoke"]], 7, None):
        yield f"scopes: {v}", {**fine, "scopes": v}, "invalid_field", "scopes"
    for v in ("tomorrow", 7, "2027-01-31", "2027-13-01T00:00:00Z", {}):
        yield f"expires_at: {v}", {**fine, "expires_at": v}, "invalid_field", "expires_at must be a time"
    yield "expires_at: past", {**fine, "expires_at": "2020-01-01T00:00:00Z"}, "invalid_field", "in the past"
    yield "unknown", {**fine, "scope": ["read"]}, "unknown_field", '"scopes"'
    yield "no object", [], "invalid_json", "object"


@pytest.mark.parametrize("body, code, words", [r[1:] for r in keys_rows()], ids=[r[0] for r in keys_rows()])
def test_keys(watched, body, code, words):
    before = watched.client.call("GET", "/v1/keys?revoked=true").json
    a = watched.client.call("POST", "/v1/keys", body)
    assert (a.status, a.json["code"]) == (400, code) and words in a.json["detail"], a.body
    assert watched.client.call("GET", "/v1/keys?revoked=true").json["data"] == before["data"]


def test_revoked_and_expired_keys(stack, watched):
    for what in ("revoked_at = now()", "expires_at = now() - interval '1 second'"):
        key = stack.new_key()
        hash = __import__("hashlib").sha256(key.encode()).hexdigest()
        stack.psql(f"update api_keys set {what} where hash = '\\x{hash}'")
        check(send(watched.port, G("/v1/agents").bytes(key)), 401, "unauthorized", "expired or revoked")


def test_another_tenants_things_are_unknown(stack, watched):
    """Reading, cancelling, ranges and states: what is not yours looks as if it were not there."""
    mine = watched.client.run("echo", "private")["id"]
    other = stack.new_key("input-other") if stack.psql("select 1 from tenants where name = 'input-other'") else \
        (stack.psql("insert into tenants (name) values ('input-other')"), stack.new_key("input-other"))[1]
    for method, end in (("GET", ""), ("GET", "?wait=2"), ("GET", "/output"), ("GET", "/logs"), ("POST", "/cancel")):
        check(send(watched.port, G(f"/v1/invocations/{mine}{end}", method).bytes(other)), 404, "not_found", None)
    check(send(watched.port, S().bytes(other)), 404, "agent_not_found", "echo")


def test_ranges_and_states(watched):
    id = watched.client.run("echo", "0123456789")["id"]
    for value in ("bytes=10-", "bytes=999-1000", "bytes=-0"):
        r = G(f"/v1/invocations/{id}/output", headers=[("Range", value)])
        check(send(watched.port, r.bytes(watched.key)), 416, "range_not_satisfiable", "outside")
    for value in ("bytes=3-1", "bytes=x", "lines=1-2", "bytes=0-1,3-4", "bytes=--1", "bytes=99999999999999999999-", ""):
        r = G(f"/v1/invocations/{id}/output", headers=[("Range", value)])  # RFC 9110 14.2: what is no range is ignored
        assert send(watched.port, r.bytes(watched.key))[::2] == (200, b"0123456789"), value
    running = watched.client.submit("probe", json.dumps({"sleep": 60})).json["id"]
    check(send(watched.port, G(f"/v1/invocations/{running}/output").bytes(watched.key)), 409, "conflict", "not ended")
    assert watched.client.call("POST", f"/v1/invocations/{running}/cancel").status in (200, 202)
    assert watched.client.end(running)["status"] == "canceled"


def test_odd_archives_that_are_in_order(watched):
    """What looks odd and harms nothing is taken: set-user-id bits, negative times, links that stay inside."""
    entries = [MAIN, (info("suid", tarfile.REGTYPE, mode=0o6755), b"x"), (info("old", tarfile.REGTYPE, mtime=-86400), b"x"),
               directory("a"), directory("a"), sym("a/l", "../main.py"), sym("m", "a/l"), hard("h", "main.py"), ("a/./b//c", b"x"),
               sym("loop", "loop"), ("\u00e4\u4e16", b"x"), (info("who", tarfile.REGTYPE, uid=2**30, gid=2**30, uname="x" * 30), b"x")]
    a = watched.client.call("POST", "/v1/agents?name=odd", tar(*entries), {"Content-Type": "application/gzip"})
    assert a.status == 202, a.body

    def built():
        b = watched.client.call("GET", "/v1/agents/odd").json["latest_build"]
        assert b["status"] != "failed", b
        return b["status"] == "ready"

    until("the odd agent is ready", built, 60)
    assert watched.client.run("odd", "still here")["output"] == "still here"


def test_installs_that_fail(watched):
    """A failing install is a failed build with its log; one that prints for ever is ended, its log is bounded. So is an
    archive whose bytes are not those that were packed: gzip's own sum is looked at when it is unpacked."""
    def build(name, install, spoil=lambda data: data):
        body = spoil(tar(MAIN, ("noise", os.urandom(50000)), ("agent.json", json.dumps({"install": install}).encode())))
        assert watched.client.call("POST", f"/v1/agents?name={name}", body, {"Content-Type": "application/gzip"}).status == 202
        done = until(f"{name}'s build has ended", lambda: (b := watched.client.call("GET", f"/v1/agents/{name}").json)
                     and b["latest_build"]["status"] != "building" and b, 90)
        check(send(watched.port, S(agent=name).bytes(watched.key)), 409, "agent_not_ready", name)
        return done["latest_build"]

    b = build("install-fails", "echo to be seen; exit 7")
    assert (b["status"], b["error"]["code"]) == ("failed", "build_failed")
    assert "7" in b["error"]["message"] and "to be seen" in b["log"]
    b = build("install-flipped", "", flip)
    assert b["error"]["code"] == "build_failed" and "crc error" in b["log"], b
    b = build("install-sum", "", lambda data: data[:-8] + bytes(8))
    assert b["error"]["code"] == "build_failed" and "gzip" in b["log"], b
    b = build("install-missing", "no-such-program")
    assert b["error"]["code"] == "build_failed" and "not found" in b["log"]
    b = build("install-killed", "kill -9 $$")
    assert b["error"]["code"] == "build_failed" and "KILL" in b["error"]["message"]
    b = build("install-prints", "timeout 5 yes 'a line that never ends'; exit 3")
    assert b["error"]["code"] == "build_failed" and len(b["log"]) <= 64 * 1024 and "never ends" in b["log"]


def test_installs_without_an_end():
    """An install that hangs, or prints for ever, is ended at its limit; nothing of it is left, and the next build is not delayed."""
    stack = Stack(SANDPIPER_INSTALL_LIMIT="3s").start()
    try:
        for name, install in (("hangs", "echo before; sleep 600"), ("prints", "yes 'over and over'"),
                              ("ignores", "trap '' TERM INT HUP; while :; do sleep 1; done")):
            body = tar(MAIN, ("agent.json", json.dumps({"install": install}).encode()))
            a = stack.client.call("POST", f"/v1/agents?name={name}", body, {"Content-Type": "application/gzip"})
            assert a.status == 202, a.body
        for name in ("hangs", "prints", "ignores"):
            b = until(f"{name} has ended", lambda: (b := stack.client.call("GET", f"/v1/agents/{name}").json["latest_build"])
                      and b["status"] != "building" and b, 60)
            assert (b["status"], b["error"]["code"]) == ("failed", "build_failed"), b
            assert "limit of 3 s" in b["error"]["message"] and len(b["log"]) <= 64 * 1024
        stack.client.deploy("fine", {"main.py": MAIN[1]})
        assert stack.client.run("fine", "after them")["output"] == "after them"
        stack.quiet()
    finally:
        stack.stop()


# ---- bodies that come slowly, or not at all ----

def test_a_body_a_byte_a_second_is_refused(watched):
    """Each byte renews the silence, so only a least rate ends it: 408, long before the body is there."""
    head = Request(headers=[("Content-Length", 100000)]).bytes(watched.key)
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", watched.port), timeout=40) as s:
        s.sendall(head)
        s.settimeout(0.5)
        got = b""
        while not got:
            assert time.monotonic() - begun < 60, "a byte a second was taken for a minute"
            s.sendall(b" ")
            try:
                got = s.recv(65536)
            except TimeoutError:
                continue
        s.settimeout(20)
        while piece := s.recv(65536):
            got += piece
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ") and b"\r\nRetry-After: " in head, got
    assert json.loads(body)["code"] == "request_timeout" and "slowly" in json.loads(body)["detail"]


def test_stalled_requests_are_refused(watched):
    """Half a head, half a body of each kind, and a body that was announced and never begun."""
    post = Request(headers=[("Content-Length", 100)]).bytes(watched.key)
    chunked = Request(body=b"x" * 100, chunked=True).bytes(watched.key)
    upload = Request(path="/v1/agents?name=bad", headers=[("Content-Type", "application/gzip"), ("Content-Length", 1000)])

    def one(data):
        with socket.create_connection(("127.0.0.1", watched.port), timeout=60) as s:
            s.sendall(data)
            return read_answer(s)

    for answer in in_threads([lambda d=d: one(d) for d in (post[:40], post[:-2], post, post + b"{", chunked[:-20],
                                                           upload.bytes(watched.key) + b"x" * 10)]):
        check(answer, 408, "request_timeout", "")


# ---- afterwards ----

def test_nothing_was_harmed(watched):
    """The last of all: the same process, its memory and files as before, and a job runs."""
    assert watched.gateway.alive() and watched.gateway.pid == watched.pid
    until("the memory has been given back", lambda: watched.memory("VmRSS") - watched.rss < GROWTH, 20)
    until("no file is held any more", lambda: not [f for f in watched.descriptors() if "deleted" in f])
    assert watched.listing() == watched.files
    assert watched.client.run("echo", "healthy")["output"] == "healthy"
    metrics = watched.client.call("GET", "/metrics").body.decode()
    assert re.search(r"^sandpiper_http_body_bytes 0$", metrics, re.M), metrics


def test_the_table_is_large_and_its_names_differ():
    assert len(ROWS) >= 150 and len({r[0] for r in ROWS}) == len(ROWS)


def test_every_code_is_documented():
    """gateway/api/problems.json tells of each code that a caller can meet, in the one table that makes them."""
    table = (ROOT / "shared/base/err.h").read_text()
    rows = re.findall(r'X\(ERR_\w+,\s*"(\w+)",\s*\d+,\s*RETRY_', table.replace("\\\n", " "))
    known = set(rows)
    library = {"ok", "timeout", "canceled", "no_memory", "limit_exceeded", "invalid_configuration", "io_error", "protocol_error",
               "data_error", "database_error", "redis_error"}  # never shown to callers
    documented = json.loads((ROOT / "gateway/api/problems.json").read_text())
    assert set(documented) == set(known) - library
    assert all(text.endswith(".") for text in documented.values())
