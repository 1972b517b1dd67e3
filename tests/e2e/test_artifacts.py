"""Artifacts: what a program leaves in the directory that agent.json names, listed, served, and what failures leave."""

import json
import signal

import pytest

from files_client import MAKER, random_bytes, run, sha256, stray_rows
from stack import Client, until
from e2e_agents import make_stack
from webhook_receiver import OPEN, Receiver


@pytest.fixture(scope="module")
def maker(stack):
    stack.client.deploy("maker", MAKER)
    return stack


def get(client, record, path, headers=None, method="GET"):
    return client.call(method, f"/v1/invocations/{record['id']}/artifacts/{path}", None, headers)


def test_fifty_megabytes_go_in_and_come_out(maker):
    data = random_bytes(50_000_000)
    r = run(maker.client, "maker", {"copy": [["in.bin", "out/copy.bin"]]}, [("in.bin", data)])
    assert r["status"] == "succeeded" and not r["artifacts_truncated"], r
    assert r["files"] == [{"path": "in.bin", "bytes": 50_000_000, "sha256": sha256(data)}]
    assert r["artifacts"] == [{"path": "copy.bin", "bytes": 50_000_000, "sha256": sha256(data),
                               "url": f"/v1/invocations/{r['id']}/artifacts/copy.bin"}]
    a = maker.client.call("GET", r["artifacts"][0]["url"])
    assert a.status == 200 and sha256(a.body) == sha256(data)
    until("nothing is left to look after", lambda: stray_rows(maker) == (0, 0, 0))


def test_what_counts_as_an_artifact(maker):
    order = {"make": {"out/b": 300_000, "out/a": 0, "out/deep/er/ü ö+%.txt": 7, "elsewhere": 9, "out/1/2/3/4/5/6/7/in": 1,
                      "out/1/2/3/4/5/6/7/8/beyond": 1},
             "link": {"out/link": "/etc/passwd", "out/dir": "/etc"}, "fifo": ["out/fifo"]}
    r = run(maker.client, "maker", order, [])
    assert [(f["path"], f["bytes"]) for f in r["artifacts"]] == [
        ("1/2/3/4/5/6/7/in", 1), ("a", 0), ("b", 300_000), ("deep/er/ü ö+%.txt", 7)], r
    assert not r["artifacts_truncated"]
    for f in r["artifacts"]:
        a = maker.client.call("GET", f["url"])
        assert (a.status, sha256(a.body)) == (200, f["sha256"])
    a = maker.client.call("GET", f"/v1/invocations/{r['id']}/artifacts")
    assert a.json == {"id": r["id"], "artifacts": r["artifacts"], "artifacts_truncated": False}
    line = next(x for x in maker.client.call("GET", "/v1/invocations?agent=maker").json["data"] if x["id"] == r["id"])
    assert "artifacts" not in line


def test_a_failed_program_leaves_artifacts_and_others_do_not(maker):
    r = run(maker.client, "maker", {"make": {"out/a": 5}, "exit": 4}, [])
    assert (r["status"], r["exit_code"], [f["path"] for f in r["artifacts"]]) == ("failed", 4, ["a"])
    r = run(maker.client, "maker", {"make": {"out/a": 5}, "sleep": 60}, [], timeout_s=1)
    assert (r["status"], r["artifacts"]) == ("timed_out", [])
    assert get(maker.client, r, "a").status == 404
    r = run(maker.client, "maker", {}, [])
    assert (r["artifacts"], r["artifacts_truncated"]) == ([], False)


def test_a_retried_attempts_artifacts_are_the_last_ones(maker):
    r = run(maker.client, "maker", {"make": {"out/a": 5}, "exit": 1}, [], retry={"max_attempts": 2})
    assert (r["attempt"], [f["path"] for f in r["artifacts"]]) == (2, ["a"])
    assert maker.count(f"select count(*) from files where id = '{r['id'][4:]}'") == 1
    assert maker.count(f"select count(*) from blobs where id = '{r['id'][4:]}' and kind = 4") == 1


def test_ranges_and_conditions(maker):
    data = random_bytes(700_000)
    r = run(maker.client, "maker", {"copy": [["in", "out/x y.bin"]]}, [("in", data)])
    c, path, etag = maker.client, "x%20y.bin", f'"{sha256(data)}"'
    a = get(c, r, path)
    assert (a.headers["ETag"], a.headers["Accept-Ranges"], a.headers["X-Content-Type-Options"]) == (etag, "bytes", "nosniff")
    assert a.headers["Content-Disposition"] == "attachment; filename*=UTF-8''x%20y.bin"
    assert a.headers["Content-Type"] == "application/octet-stream" and a.body == data
    for spec, want in (("0-0", data[:1]), ("262143-262144", data[262143:262145]), ("699999-", data[-1:]), ("-5", data[-5:]),
                       ("100-9999999", data[100:])):
        a = get(c, r, path, {"Range": f"bytes={spec}"})
        assert (a.status, a.body) == (206, want), spec
    assert get(c, r, path, {"Range": "bytes=1-1"}).headers["Content-Range"] == "bytes 1-1/700000"
    assert get(c, r, path, {"Range": "bytes=700000-"}).status == 416
    assert get(c, r, path, {"Range": "bytes=5-6", "If-Range": etag}).body == data[5:7]
    assert get(c, r, path, {"Range": "bytes=5-6", "If-Range": '"other"'}).body == data
    assert (get(c, r, path, {"If-None-Match": etag}).status, get(c, r, path, {"If-None-Match": '"x"'}).status) == (304, 200)
    a = get(c, r, path, method="HEAD")
    assert (a.status, a.headers["Content-Length"], a.body) == (200, "700000", b"")


def test_paths_that_lead_nowhere(maker):
    r = run(maker.client, "maker", {"make": {"out/d/a": 5}}, [])
    assert get(maker.client, r, "d/a").status == get(maker.client, r, "d%2Fa").status == 200
    for path in ("", "d", "d/", "/d/a", "d//a", "../artifacts/d/a", "d/%2e%2e/d/a", "%00", "%ff", "d%", "D/a", "x" * 2000):
        assert get(maker.client, r, path).status == 404, path
    open_one = maker.client.submit("maker", json.dumps({"sleep": 5})).json
    assert get(maker.client, open_one, "a").status == 409
    assert maker.client.call("GET", f"/v1/invocations/{open_one['id']}/artifacts").status == 409
    maker.client.call("POST", f"/v1/invocations/{open_one['id']}/cancel")


def test_another_tenant_sees_none_of_it(maker):
    r = run(maker.client, "maker", {"make": {"out/a": 5}}, [("in", b"x")])
    other = Client(maker.gateways[0].port, maker.new_key("strangers"))
    assert get(other, r, "a").status == 404
    assert other.call("GET", f"/v1/invocations/{r['id']}/artifacts").status == 404
    assert other.call("POST", f"/v1/invocations/{r['id']}/retry").status == 404


def test_more_than_a_hundred(maker):
    r = run(maker.client, "maker", {"make": {f"out/{i:03}": 1 for i in range(103)}}, [])
    assert [f["path"] for f in r["artifacts"]] == [f"{i:03}" for i in range(100)]
    assert r["artifacts_truncated"]
    assert "sandpiper: 3 artifacts were left out: 100: there are more than 100" in maker.client.call("GET", r["logs_url"]).body.decode()


def test_a_file_in_place_of_the_directory(maker):
    r = run(maker.client, "maker", {"make": {"out": 4}}, [])
    assert (r["status"], r["artifacts"], r["artifacts_truncated"]) == ("succeeded", [], True)
    assert "it is no directory" in maker.client.call("GET", r["logs_url"]).body.decode()


def test_events_hold_them(maker):
    order = {"make": {"out/a": 5}}
    a = maker.client.call("POST", "/v1/invocations", {"agent": "maker", "prompt": json.dumps(order)},
                          {"Accept": "text/event-stream"})
    result = json.loads(a.body.decode().split("event: result\ndata: ")[1].split("\n")[0])
    assert [f["path"] for f in result["artifacts"]] == ["a"]


# ---- what breaks under way: a stack of its own ----

@pytest.fixture(scope="module")
def own():
    s = make_stack(env={"SANDPIPER_EXECUTOR_MAX_ARTIFACT_BYTES": "80m", **OPEN})
    s.client.deploy("maker", MAKER)
    yield s
    s.stop()


BIG = {"make": {"out/big": 60 << 20, "out/small": 3}}


def collecting(s, id):
    """Waits until a good part of it is stored, and it goes on."""
    until("chunks come", lambda: s.count(f"select count(*) from blobs where kind = 4 and id = '{id[4:]}'") > 20, 60)
    assert not s.client.get(id)["finished_at"]


def test_a_hundred_long_paths_fit_everywhere(own):
    """In the record, the stream's last event, and a webhook."""
    paths = [f"{i:03}/" + "/".join(["ü" * 120] * 3) for i in range(100)]
    order = {"agent": "maker", "prompt": json.dumps({"make": {f"out/{p}": 1 for p in paths}})}
    receiver = Receiver()
    try:
        a = own.client.call("POST", "/v1/invocations", {**order, "webhook": {"url": receiver.url("/long")}}, {"Accept": "text/event-stream"})
        told = [json.loads(a.body.decode().split("event: result\ndata: ")[1].split("\n")[0])]
        told.append(own.client.get(told[0]["id"]))
        until("the webhook comes", lambda: receiver.got)
        told.append(receiver.got[0].json["data"])
    finally:
        receiver.close()
    for record in told:
        assert [f["path"] for f in record["artifacts"]] == paths and not record["artifacts_truncated"]
    assert own.client.call("GET", told[0]["artifacts"][99]["url"]).status == 200


def test_over_the_cap(own):
    r = run(own.client, "maker", {"make": {"out/a": 50 << 20, "out/b": 40 << 20, "out/c": 20 << 20}}, [])
    assert [f["path"] for f in r["artifacts"]] == ["a", "c"] and r["artifacts_truncated"]
    assert "1 artifact was left out: b: they are too large together" in own.client.call("GET", r["logs_url"]).body.decode()


def test_the_database_restarts_while_they_are_gathered(own):
    id = own.client.submit("maker", json.dumps(BIG)).json["id"]
    collecting(own, id)
    own.postgres.signal(signal.SIGQUIT)
    own.postgres.child.wait(timeout=20)
    own.start_postgres()
    r = own.client.end(id)
    assert (r["status"], r["attempt"], r["artifacts_truncated"]) == ("succeeded", 1, False), r
    for f in r["artifacts"]:
        assert sha256(own.client.call("GET", f["url"]).body) == f["sha256"]
    until("nothing is left", lambda: stray_rows(own) == (0, 0, 0))


def test_a_cancel_while_they_are_gathered(own):
    id = own.client.submit("maker", json.dumps(BIG)).json["id"]
    collecting(own, id)
    own.client.call("POST", f"/v1/invocations/{id}/cancel")
    r = own.client.end(id)
    assert (r["status"], r["artifacts"], r["artifacts_truncated"]) == ("succeeded", [], True), r
    until("its chunks are gone", lambda: stray_rows(own) == (0, 0, 0))


def test_an_executor_dies_while_it_gathers_them(own):
    id = own.client.submit("maker", json.dumps(BIG)).json["id"]
    collecting(own, id)
    own.executors[0].kill()
    del own.executors[0]
    own.add_executor()
    r = own.client.end(id)
    assert (r["status"], r["attempt"], len(r["artifacts"])) == ("succeeded", 2, 2), r
    for f in r["artifacts"]:
        assert sha256(own.client.call("GET", f["url"]).body) == f["sha256"]
    assert own.count(f"select count(*) from results where id = '{id[4:]}'") == 1
    own.add_dispatcher()
    until("the dead one's chunks are swept", lambda: stray_rows(own) == (0, 0, 0), 60)
    assert own.count(f"select count(distinct attempt) from blobs where kind = 4 and id = '{id[4:]}'") == 1
