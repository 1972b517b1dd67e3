"""Files that come with a submission: in the document or as a form; what is refused; what failures leave."""

import base64
import json
import signal

import pytest

from files_client import MAKER, Upload, form, random_bytes, run, sha256, stray_rows, submit
from stack import Client, until
from e2e_agents import make_stack


@pytest.fixture(scope="module")
def maker(stack):
    stack.client.deploy("maker", MAKER)
    return stack


def test_inline_files_are_in_the_working_directory(maker):
    data = bytes(range(256)) * 40
    files = [{"path": "note.txt", "content": "grüße\n"},
             {"path": "deep/er/data.bin", "content_base64": base64.b64encode(data).decode()},
             {"path": "bin/tool", "content": "#!/bin/sh\n", "mode": "0755"},
             {"path": "-odd name", "content": "x", "mode": "0755"},
             {"path": "empty", "content": ""}]
    order = {"look": [f["path"] for f in files]}
    r = maker.client.run("maker", json.dumps(order), files=files)
    assert r["status"] == "succeeded", r
    note = "grüße\n".encode()
    assert json.loads(r["output"]) == {
        "note.txt": [len(note), sha256(note), False], "deep/er/data.bin": [len(data), sha256(data), False],
        "bin/tool": [10, sha256(b"#!/bin/sh\n"), True], "-odd name": [1, sha256(b"x"), True],
        "empty": [0, sha256(b""), False]}
    assert {f["path"]: f["sha256"] for f in r["files"]} == {
        "note.txt": sha256(note), "deep/er/data.bin": sha256(data), "bin/tool": sha256(b"#!/bin/sh\n"), "-odd name": sha256(b"x"),
        "empty": sha256(b"")}


def test_a_form_brings_files(maker):
    files = [("a.bin", random_bytes(700_001)), ("b/ü ö.txt", b"text"), ("edge", b"x" * 262144), ("many\r".strip() + "/0", b"")]
    r = run(maker.client, "maker", {"look": [p for p, _ in files]}, files)
    assert r["status"] == "succeeded", r
    assert json.loads(r["output"]) == {p: [len(d), sha256(d), False] for p, d in files}
    until("nothing is left to look after", lambda: stray_rows(maker) == (0, 0, 0))


def test_a_form_without_files_is_a_plain_submission(maker):
    a = submit(maker.client, {"agent": "echo", "prompt": "hi"}, [])
    assert (a.status, a.json["output"], a.json["files"]) == (200, "hi", [])
    assert maker.psql(f"select files from invocations where id = '{a.json['id'][4:]}'") == ""


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../b", "a//b", "./a", "a/", "", "a\x01b", "x" * 256, "y/" * 512 + "y"])
def test_paths_that_are_refused(maker, path):
    before = maker.count("select count(*) from invocations")
    a = maker.client.call("POST", "/v1/invocations",
                          {"agent": "maker", "prompt": "{}", "files": [{"path": path, "content": "x"}]})
    assert (a.status, a.json["code"]) == (400, "invalid_file"), a.body
    a = submit(maker.client, {"agent": "maker", "prompt": "{}"}, [("fine", b"1"), (path.replace("\n", ""), b"x")])
    assert (a.status, a.json["code"]) == (400, "invalid_file"), a.body
    assert maker.count("select count(*) from invocations") == before
    until("nothing is left", lambda: stray_rows(maker) == (0, 0, 0))


def test_paths_that_are_not_utf8_or_clash(maker):
    a = submit(maker.client, {"agent": "maker", "prompt": "{}"}, [(b"\xff\xfe", b"x")])
    assert (a.status, a.json["code"]) == (400, "invalid_file"), a.body
    for second in ("same", "same/below"):
        a = submit(maker.client, {"agent": "maker", "prompt": "{}"}, [("same", b"x"), (second, b"y")])
        assert (a.status, a.json["code"]) == (400, "invalid_file"), a.body
        assert "same" in a.json["detail"]


@pytest.mark.parametrize("files, code", [
    ("x", "invalid_field"), ([1], "invalid_field"), ([{"content": "x"}], "missing_field"),
    ([{"path": "a"}], "invalid_field"), ([{"path": "a", "content": "x", "content_base64": "eA=="}], "invalid_field"),
    ([{"path": "a", "content_base64": "!"}], "invalid_field"), ([{"path": "a", "content": 1}], "invalid_field"),
    ([{"path": "a", "content": "", "mode": "0777"}], "invalid_field"), ([{"path": "a", "contents": ""}], "unknown_field"),
    ([{"path": f"f{i}", "content": ""} for i in range(101)], "files_too_large"),
    ([{"path": "a", "content": "x" * 1048577}], "files_too_large")])
def test_documents_that_are_refused(maker, files, code):
    a = maker.client.call("POST", "/v1/invocations", {"agent": "maker", "prompt": "{}", "files": files})
    assert a.json["code"] == code, a.body
    until("nothing is left", lambda: stray_rows(maker) == (0, 0, 0))


def test_forms_that_are_refused(maker):
    c = maker.client
    doc = json.dumps({"agent": "maker", "prompt": "{}"}).encode()
    body, content_type = form(doc, [("a", b"x")])

    def code(body, content_type=content_type):
        a = c.call("POST", "/v1/invocations", body, {"Content-Type": content_type})
        return a.status, a.json["code"]

    assert code(body[:-10]) == (400, "bad_request")
    assert code(b"--boundary-7f3a--\r\n") == (400, "missing_field")
    assert code(body.replace(b'name="invocation"', b'name="order"')) == (400, "bad_request")
    assert code(body.replace(b'name="files"', b'name="file"')) == (400, "bad_request")
    assert code(body.replace(b'; filename="a"', b"")) == (400, "invalid_file")
    assert code(form(b"{", [])[0]) == (400, "invalid_json")
    assert code(form({"agent": "maker", "prompt": "", "files": []}, [("a", b"x")])[0]) == (400, "invalid_field")
    assert code(form({"agent": "nobody", "prompt": ""}, [("a", b"x")])[0]) == (404, "agent_not_found")
    assert code(body, "multipart/form-data") == (415, "unsupported_media_type")
    assert code(form(doc, [(f"f{i}", b"") for i in range(101)])[0]) == (413, "files_too_large")
    a = c.call("POST", "/v1/batches?agent=maker", b'{"prompt": "", "files": []}\n', {"Content-Type": "application/x-ndjson"})
    assert a.status == 400 and "single submissions" in a.json["errors"][0]["detail"], a.body
    until("nothing is left", lambda: stray_rows(maker) == (0, 0, 0))


def test_the_agents_own_files_are_not_replaced(maker):
    for path in ("main.py", "own.txt", "own.txt/below"):
        r = run(maker.client, "maker", {}, [(path, b"x")])
        assert (r["status"], r["error"]["code"], len(r["attempts"])) == ("error", "file_exists", 1), r
        assert path in r["error"]["message"]


def test_a_key_makes_one_of_two_forms(maker):
    body, content_type = form({"agent": "maker", "prompt": "{}"}, [("a", b"x" * 300_000)])
    headers = {"Content-Type": content_type, "Idempotency-Key": "form-1"}
    first = maker.client.call("POST", "/v1/invocations", body, headers)
    again = maker.client.call("POST", "/v1/invocations", body, headers)
    assert (first.status, again.status, again.json["id"]) == (202, 202, first.json["id"])
    other = maker.client.call("POST", "/v1/invocations", body.replace(b"xx", b"xy", 1), headers)
    assert (other.status, other.json["code"]) == (422, "idempotency_key_reused")
    until("the files of the others are gone", lambda: stray_rows(maker) == (0, 0, 0))
    assert maker.client.end(first.json["id"])["status"] == "succeeded"


def test_a_retry_has_the_same_files(maker):
    data = random_bytes(400_000)
    r = run(maker.client, "maker", {"look": ["a"], "exit": 3}, [("a", data)])
    assert r["status"] == "failed"
    a = maker.client.call("POST", f"/v1/invocations/{r['id']}/retry", None, {"Prefer": "wait=60"})
    assert a.status == 200 and a.json["retry_of"] == r["id"]
    assert json.loads(a.json["output"])["a"][1] == sha256(data)
    assert a.json["files"] == r["files"]


def test_a_cut_upload_leaves_nothing(maker):
    body, content_type = form({"agent": "maker", "prompt": "{}"}, [("a", random_bytes(8 << 20))])
    u = Upload(maker.client, body, content_type)
    u.send(5 << 20)
    until("some of it is stored", lambda: maker.count("select count(*) from blobs where kind = 4 and id in (select id from file_sets)") > 8)
    u.cut()
    until("all of it is dropped", lambda: stray_rows(maker) == (0, 0, 0))


# ---- what breaks under way: a stack of its own ----

@pytest.fixture(scope="module")
def own():
    s = make_stack(env={"SANDPIPER_GATEWAY_MAX_FILES_BYTES": "12m"})
    s.client.deploy("maker", MAKER)
    yield s
    s.stop()


def test_too_much_is_refused(own):
    a = submit(own.client, {"agent": "maker", "prompt": "{}"}, [("a", b"x" * (6 << 20)), ("b", b"x" * ((6 << 20) + 1))])
    assert (a.status, a.json["code"]) == (413, "files_too_large"), a.body
    r = run(own.client, "maker", {"look": ["b"]}, [("a", b"x" * (6 << 20)), ("b", b"x" * (6 << 20))])
    assert r["status"] == "succeeded"
    until("nothing is left", lambda: stray_rows(own) == (0, 0, 0))


def test_the_database_restarts_under_an_upload(own):
    data = random_bytes(9 << 20)
    body, content_type = form({"agent": "maker", "prompt": json.dumps({"look": ["a"]})}, [("a", data)])
    u = Upload(own.client, body, content_type)
    u.send(4 << 20)
    until("some of it is stored", lambda: own.count("select count(*) from blobs where kind = 4 and id in (select id from file_sets)") > 8)
    own.postgres.signal(signal.SIGQUIT)
    own.postgres.child.wait(timeout=20)
    u.send(2 << 20)
    own.start_postgres()
    status, answer = u.answer()
    assert status == 202, answer
    r = own.client.end(json.loads(answer)["id"])
    assert json.loads(r["output"])["a"][1] == sha256(data), r
    until("nothing is left", lambda: stray_rows(own) == (0, 0, 0))


def test_a_dead_gateways_files_are_swept(own):
    gateway = own.add_gateway()
    body, content_type = form({"agent": "maker", "prompt": "{}"}, [("a", random_bytes(8 << 20))])
    u = Upload(Client(gateway.port, own.key), body, content_type)
    u.send(5 << 20)
    until("some of it is stored", lambda: own.count("select count(*) from blobs where kind = 4 and id in (select id from file_sets)") > 8)
    gateway.kill()
    own.gateways.remove(gateway)
    u.cut()
    assert own.count("select count(*) from file_sets") == 1
    own.add_dispatcher()
    own.psql("update file_sets set created_at = now() - interval '25 hours'")
    until("a dispatcher drops it", lambda: stray_rows(own) == (0, 0, 0), 60)
