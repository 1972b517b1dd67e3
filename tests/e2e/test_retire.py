"""Old versions go: what is kept, who may still run, and that nothing of them stays with the provider."""

import datetime
import http.client
import json
import os
import signal
import uuid

import pytest

from stack import E2B_KEY, Stack, archive, until

GZIP = {"Content-Type": "application/gzip"}


@pytest.fixture(scope="module")
def stack():
    if os.geteuid() != 0:
        pytest.skip("sandboxes need root")
    s = Stack(SANDPIPER_AGENT_KEEP_VERSIONS="2", SANDPIPER_AGENT_RETIRE_GRACE="1s").start(dispatchers=2)
    try:
        yield s
        s.quiet()
    finally:
        s.stop()


def provider(stack, method, path, body=None):
    c = http.client.HTTPConnection("127.0.0.1", stack.sandboxd_port, timeout=30)
    c.request(method, path, body=json.dumps(body) if body is not None else None, headers={"X-API-Key": E2B_KEY})
    r = c.getresponse()
    data = r.read()
    c.close()
    assert r.status < 300, (r.status, data)
    return json.loads(data) if data else None


def snapshots(stack):
    """The names at the provider."""
    return {s["names"][0] for s in provider(stack, "GET", "/snapshots") if s["names"]}


def name_of(stack, name, version):
    return stack.psql("select d.id || '-' || v.id from deployment d, agent_versions v join agents a on a.id = v.agent "
                      f"where a.slug = '{name}' and v.version = {version}")


def deploy(stack, name, n, **manifest):
    stack.client.deploy(name, {"agent.json": json.dumps({"runtime": "command", "entry": f"echo {n}", **manifest})})


def status(stack, name):
    return {v["version"]: v["status"] for v in stack.client.call("GET", f"/v1/agents/{name}/versions").json["data"]}


def chunks(stack, name, version):
    return stack.count("select count(*) from agent_files f join agent_versions v on v.id = f.id join agents a on a.id = v.agent "
                       f"where a.slug = '{name}' and v.version = {version}")


def gone(stack, name, version):
    at = name_of(stack, name, version)
    until(f"the snapshot of {name}@{version} is gone", lambda: at not in snapshots(stack), 30)
    until("and so is its archive", lambda: chunks(stack, name, version) == 0)


def refused(answer):
    return answer.status, answer.json["code"]


def test_the_newest_stay_and_the_old_ones_go(stack):
    c, name = stack.client, "many"
    for n in range(1, 6):
        deploy(stack, name, n)
        if n == 1:
            ended = c.run(name, "x")["id"]
    until("old ones are retired", lambda: status(stack, name) == {5: "ready", 4: "ready", 3: "ready", 2: "retired", 1: "retired"})
    for n in (1, 2):
        gone(stack, name, n)
    assert all(name_of(stack, name, n) in snapshots(stack) and chunks(stack, name, n) for n in (3, 4, 5))
    assert [c.run(f"{name}@{n}", "")["output"] for n in (3, 4, 5)] == ["3\n", "4\n", "5\n"]
    retired = (409, "version_retired")
    assert refused(c.submit(f"{name}@1", "")) == retired
    batch = c.call("POST", "/v1/batches", {"items": [{"agent": f"{name}@2", "prompt": ""}]})
    assert refused(batch) == (400, "invalid_batch") and batch.json["errors"][0]["code"] == "version_retired"
    assert refused(c.call("POST", f"/v1/agents/{name}/rollback", {"version": 1})) == retired
    assert refused(c.call("POST", f"/v1/invocations/{ended}/retry")) == retired
    assert c.call("POST", f"/v1/invocations/{ended}/retry", {"version": "serving"}).status == 202
    assert c.run(name, "")["version"] == 5


def test_what_serves_stays_however_old(stack):
    c, name = stack.client, "rolled"
    for n in (1, 2, 3):
        deploy(stack, name, n)
    assert c.call("POST", f"/v1/agents/{name}/rollback", {"version": 1}).json["version"] == 1
    for d in stack.dispatchers:  # no pass in between, which would retire 1 while 4 serves
        d.signal(signal.SIGSTOP)
    try:
        deploy(stack, name, 4)
        assert c.call("POST", f"/v1/agents/{name}/rollback", {"version": 1}).json["version"] == 1
    finally:
        for d in stack.dispatchers:
            d.signal(signal.SIGCONT)
    until("the oldest of the others is retired", lambda: status(stack, name)[2] == "retired")
    assert status(stack, name) == {4: "ready", 3: "ready", 2: "retired", 1: "ready"}
    gone(stack, name, 2)
    assert (c.run(name, "")["output"], name_of(stack, name, 1) in snapshots(stack)) == ("1\n", True)


def test_what_was_accepted_runs(stack):
    c, name = stack.client, "late"
    deploy(stack, name, 1)
    begin = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=25)
    later = c.submit(name, "", not_before=begin.isoformat()).json["id"]
    for n in (2, 3, 4, 5):
        deploy(stack, name, n)
    until("version 1 is retired", lambda: status(stack, name)[1] == "retired")
    gone(stack, name, 2)  # which nobody waits for: so the pass has been over version 1, too
    assert name_of(stack, name, 1) in snapshots(stack)
    r = c.end(later, 90)
    assert (r["status"], r["version"], r["output"]) == ("succeeded", 1, "1\n")
    gone(stack, name, 1)


def test_what_a_schedule_names_stays(stack):
    c, name = stack.client, "planned"
    deploy(stack, name, 1)
    s = c.call("POST", "/v1/schedules", {"name": "pins", "cron": "0 8 * * *", "agent": f"{name}@1", "prompt": ""})
    assert s.status == 201, s.body
    for n in (2, 3, 4, 5):
        deploy(stack, name, n)
    until("another is retired", lambda: status(stack, name) == {5: "ready", 4: "ready", 3: "ready", 2: "retired", 1: "ready"})
    c.call("DELETE", "/v1/schedules/pins")
    until("it goes, too", lambda: status(stack, name)[1] == "retired")
    gone(stack, name, 1)


def test_a_failed_build_keeps_no_archive(stack):
    a = stack.client.call("POST", "/v1/agents?name=broken", archive({"agent.json": json.dumps(
        {"runtime": "command", "entry": "cat", "install": "exit 1"})}), GZIP)
    assert a.status == 202
    until("it fails", lambda: status(stack, "broken") == {1: "failed"}, 60)
    assert chunks(stack, "broken", 1) == 0


def test_snapshots_that_no_version_has_go(stack):
    deploy(stack, "known", 1)
    deployment = stack.psql("select id from deployment")
    failed = stack.psql("select v.id from agent_versions v join agents a on a.id = v.agent where a.slug = 'broken'")
    nobodys, others = f"{deployment}-{uuid.uuid4()}", f"{uuid.uuid4()}-{uuid.uuid4()}"
    names = {nobodys, others, f"{deployment}-{failed}", "by-hand"}
    box = provider(stack, "POST", "/v2/sandboxes", {"templateID": "base", "timeout": 120})["sandboxID"]
    for name in names:
        provider(stack, "POST", f"/sandboxes/{box}/snapshots", {"name": name})
    provider(stack, "DELETE", f"/sandboxes/{box}")
    until("ours are gone", lambda: not {nobodys, f"{deployment}-{failed}"} & snapshots(stack), 40)
    assert {others, "by-hand", name_of(stack, "known", 1)} <= snapshots(stack)
    for s in provider(stack, "GET", "/snapshots"):
        if s["names"] and s["names"][0] in names:
            provider(stack, "DELETE", f"/templates/{s['snapshotID']}")


def pieces(stack, name):
    rows = stack.psql("select v.version, count(p.id) from agents a join agent_versions v on v.agent = a.id "
                      f"left join build_log_pieces p on p.id = v.id where a.slug = '{name}' group by 1 order by 1").splitlines()
    return {int(v): int(n) for v, n in (row.split("|") for row in rows)}


def test_logs_go_with_what_is_done_away_with_and_their_end_stays(stack):
    for n in (1, 2, 3, 4):
        deploy(stack, "logged", n, install=f"echo built {n}; head -c 70000 /dev/zero | tr '\\0' x; echo; echo end")
    until("the oldest log is gone", lambda: pieces(stack, "logged")[1] == 0, 60)
    assert all(pieces(stack, "logged")[v] for v in (2, 3, 4)), "the serving one and the two before keep theirs"
    log = stack.client.call("GET", "/v1/agents/logged/versions/1/log")
    assert log.status == 200 and len(log.body) == 64 * 1024 and log.body.endswith(b"x\nend\n")
    assert stack.client.call("GET", "/v1/agents/logged/versions/1/log?follow=true&offset=65530").body == b"x\nend\n"
    assert b"built 2" in stack.client.call("GET", "/v1/agents/logged/versions/2/log").body


def test_logs_of_failed_builds_are_kept_for_the_newest(stack):
    for n in (1, 2, 3, 4):
        a = stack.client.call("POST", "/v1/agents?name=unlucky", archive(
            {"agent.json": json.dumps({"runtime": "command", "entry": "true", "install": f"echo try {n}; exit 1"})}), GZIP)
        assert a.status == 202
        until("it has failed", lambda n=n: status(stack, "unlucky")[n] == "failed", 60)
    until("the older logs are gone", lambda: pieces(stack, "unlucky")[1] == pieces(stack, "unlucky")[2] == 0, 60)
    assert pieces(stack, "unlucky")[3] and pieces(stack, "unlucky")[4]
    assert stack.client.call("GET", "/v1/agents/unlucky/versions/1/log").body.endswith(b"try 1\n")
