"""Real documents through the embedded sandbox host, as a batch, with an executor, a dispatcher and a gateway killed on the
way: each item's answer is, byte for byte, what the same program says on this machine. SP_DOCUMENTS sets how many (100).

Not every document has an answer: the program says so, and ends with 1. That is the program's, so the item is `failed`; which
ones these are is known beforehand, and no others may fail."""

import contextlib
import http.client
import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest

from stack import Client, Stack, in_threads, until

pytestmark = pytest.mark.xdist_group("documents")  # their Sandpiper is shared
SUMMARY = pathlib.Path(__file__).resolve().parents[2] / "deploy/examples/summary"
COUNT = int(os.environ.get("SP_DOCUMENTS", "100"))
PLACES = ("/usr/share/doc", "/usr/share/common-licenses", "/usr/share/perl", "/usr/lib/python3", "/usr/lib/python3.11", "/usr/share")
KINDS = (".txt", ".md", ".rst", ".html", ".py", ".pod", ".tex")


def documents(n):
    """Texts of 1 to 200 KiB that this machine has, none twice; always the same ones."""
    found, seen = [], set()
    for place in PLACES:
        for path in sorted(pathlib.Path(place).rglob("*")):
            if len(found) == n:
                return found
            with contextlib.suppress(OSError, UnicodeDecodeError):
                if not path.is_file() or (path.suffix not in KINDS and path.name not in ("copyright", "README")):
                    continue
                if not 1024 <= path.stat().st_size <= 200 * 1024:
                    continue
                text = path.read_bytes().decode("utf-8")
                if "\0" not in text and hash(text) not in seen:
                    seen.add(hash(text))
                    found.append((str(path), text))
    pytest.skip(f"this machine has only {len(found)} documents")


def answer_here(text):
    """What the program says: exit code, stdout, stderr."""
    p = subprocess.run([sys.executable, str(SUMMARY / "main.py")], input=text.encode(), capture_output=True, timeout=60,
                       env={"PYTHONIOENCODING": "utf-8", "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"})
    return p.returncode, p.stdout.decode(), p.stderr.decode()


@pytest.fixture(scope="module")
def known():
    """[(path, text, answer)]"""
    docs = documents(COUNT)
    answers = in_threads([lambda t=t: answer_here(t) for _, t in docs], 2)
    return [(path, text, a) for (path, text), a in zip(docs, answers)]


def killer(stack, stop, killed):
    groups = [stack.executors, stack.dispatchers, stack.gateways]
    n = 0
    while not stop.wait(2.5):
        group = groups[n % 3]
        p = group[(n // 3) % 2]
        p.kill()
        killed.append(p.name)
        p.start()
        if group is stack.gateways:
            def ready(p=p):
                with contextlib.suppress(OSError):
                    return Client(p.port, None, 5).call("GET", "/readyz").status == 200
            until("the gateway is ready", ready, 30)
        n += 1


def ended(stack, id):
    for g in stack.gateways:
        with contextlib.suppress(OSError, http.client.HTTPException):
            a = Client(g.port, stack.key, 10).call("GET", f"/v1/batches/{id}")
            if a.status == 200:
                assert sum(a.json["counts"].values()) == a.json["total"]
                return a.json["ended_at"] and a.json
    return None


def check(stack, id, known):
    lines = [json.loads(x) for x in stack.client.call("GET", f"/v1/batches/{id}/results").body.splitlines()]
    assert sorted(int(r["custom_id"]) for r in lines) == list(range(len(known)))
    wrong = []
    for r in lines:
        path, _, (code, out, err) = known[int(r["custom_id"])]
        want = ("succeeded", 0, out) if code == 0 else ("failed", code, out)
        if (r["status"], r["exit_code"], r["output"]) != want:
            logs = stack.client.call("GET", r["logs_url"]).body[:300]
            wrong.append((path, r["id"], r["status"], r["exit_code"], r["error"], (r["output"] or "")[:60], logs,
                          [a["outcome"] for a in r["attempts"]], err[:60]))
    assert not wrong, (len(wrong), wrong[:5])


@pytest.mark.parametrize("kills", [False, True], ids=["undisturbed", "killed on the way"])
def test_each_document_has_its_answer(known, kills):
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    stack = Stack()
    try:
        stack.start(gateways=2, executors=2, dispatchers=2)
        stack.client.deploy("summary", {p.name: p.read_bytes() for p in SUMMARY.iterdir() if p.is_file()})
        body = b"".join(json.dumps({"custom_id": str(i), "prompt": text}).encode() + b"\n" for i, (_, text, _) in enumerate(known))
        a = stack.client.call("POST", "/v1/batches?agent=summary", body, {"Content-Type": "application/x-ndjson"})
        assert a.status == 202, a.body
        stop, killed = threading.Event(), []
        t = threading.Thread(target=killer, args=(stack, stop, killed))
        if kills:
            t.start()
        try:
            until("the batch ends", lambda: ended(stack, a.json["id"]), 900, every=0.5)
        finally:
            stop.set()
            if kills:
                t.join()
        check(stack, a.json["id"], known)
        assert not kills or {k.split("-")[0] for k in killed} >= {"executor"}, killed
    finally:
        stack.stop()
