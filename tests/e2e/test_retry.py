"""Ended invocations run again by hand: what is repeated, how old and new find each other, and what is refused."""

import datetime
import json
import os
import pty
import subprocess

import pytest

from sim_stack import AGENT, SimStack
from stack import BIN, Client, in_threads, until
from webhook_receiver import Receiver


@pytest.fixture(scope="module")
def stack():
    s = SimStack(SANDPIPER_WEBHOOK_ALLOW_ADDRESSES="127.0.0.0/8", SANDPIPER_WEBHOOK_PORTS="1-65535")
    try:
        yield s.start()
    finally:
        s.stop()


@pytest.fixture(scope="module")
def client(stack):
    return stack.client


def order(**kw):
    return json.dumps({"sim": kw})


def retry(client, id, body=None, **headers):
    return client.call("POST", f"/v1/invocations/{id}/retry", body, {k.replace("_", "-"): v for k, v in headers.items()})


def retries_of(client, id):
    page = client.call("GET", f"/v1/invocations?retry_of={id}&limit=200").json
    assert page["next_cursor"] is None
    return [r["id"] for r in page["data"]]


def deploy(client, name, n=1):
    client.deploy(name, {"agent.json": '{"runtime": "command", "entry": "cat"}', "n": str(n)})


def test_a_failed_one_is_repeated(client):
    old = client.run(AGENT, order(exit_code=3), priority="high", timeout_s=7, metadata={"a": [1, {"b": "ü"}]},
                     retry={"max_attempts": 2, "on": ["failed"]})
    a = retry(client, old["id"])
    assert a.status == 202, a.body
    assert a.headers["Location"] == f"/v1/invocations/{a.json['id']}"
    assert (a.json["retry_of"], a.json["version"], a.json["status"]) == (old["id"], old["version"], "queued")
    new = client.end(a.json["id"])
    same = ("agent", "version", "prompt", "priority", "timeout_s", "metadata", "status", "exit_code", "attempt")
    assert {k: new[k] for k in same} == {k: old[k] for k in same} and new["attempt"] == 2
    assert (new["retry_of"], old["retry_of"]) == (old["id"], None) and new["id"] > old["id"]
    assert client.get(old["id"]) == old, "the old one stays as it was"


@pytest.mark.parametrize("size", [0, 4096, 4097, 65536, 65537, 1 << 20, 4 << 20])
def test_prompts_of_every_size(client, size):
    prompt = ("%07d\n" % size) * (size // 8) + "x" * (size % 8)
    old = client.run(AGENT, prompt)
    for headers in ({}, {"Idempotency_Key": f"size {size}"}):
        new = retry(client, old["id"], Prefer="wait=60", **headers)
        assert new.status == 200, new.body
        out = client.call("GET", new.json["output_url"]).body
        assert (new.json["status"], new.json["prompt_size"], out) == ("succeeded", size, prompt.encode())


def test_all_of_many_are_found_from_the_old_one(client):
    old = client.run(AGENT, "x")["id"]
    made = [a.json["id"] for a in in_threads([lambda: retry(client, old)] * 30, 8)]
    client.run(AGENT, "another")
    assert retries_of(client, old) == sorted(made, reverse=True)
    newest = client.call("GET", f"/v1/invocations?retry_of={old}&limit=1").json
    assert [r["id"] for r in newest["data"]] == [max(made)] and newest["data"][0]["retry_of"] == old
    seen, cursor = [], ""
    while cursor is not None:
        page = client.call("GET", f"/v1/invocations?retry_of={old}&limit=7{cursor and '&cursor=' + cursor}").json
        seen += [r["id"] for r in page["data"]]
        cursor = page["next_cursor"]
    assert seen == sorted(made, reverse=True)
    until("all have ended", lambda: all(client.get(i)["finished_at"] for i in made))
    assert client.call("GET", f"/v1/invocations?retry_of={old}&status=failed").json["data"] == []
    assert len(client.call("GET", f"/v1/invocations?retry_of={old}&status=succeeded").json["data"]) == 30


def test_a_chain(client):
    ids = [client.run(AGENT, "x")["id"]]
    for _ in range(3):
        ids.append(retry(client, ids[-1], Prefer="wait=30").json["id"])
    assert [client.get(i)["retry_of"] for i in ids] == [None, *ids[:-1]]
    assert [retries_of(client, i) for i in ids] == [[i] for i in ids[1:]] + [[]]


def test_every_ended_state_and_no_other(stack, client):
    stops = client.submit(AGENT, order(run_ms=60000)).json["id"]
    until("it runs", lambda: client.get(stops)["status"] == "running")
    later = client.submit(AGENT, "x", not_before=soon(3600)).json["id"]
    for open_one in (stops, later):
        a = retry(client, open_one)
        assert (a.status, a.json["code"]) == (409, "conflict") and "has not ended" in a.json["detail"]
        client.call("POST", f"/v1/invocations/{open_one}/cancel")
    ended = {"canceled": stops, "succeeded": client.run(AGENT, "x")["id"], "failed": client.run(AGENT, order(exit_code=1))["id"],
             "timed_out": client.run(AGENT, order(run_ms=20000), timeout_s=1)["id"]}
    for status, id in ended.items():
        assert client.end(id)["status"] == status
        assert retry(client, id).status == 202, status
    assert retries_of(client, later) == []


def soon(seconds):
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_one_that_began_later_begins_at_once(stack, client):
    old = client.run(AGENT, "x", not_before=soon(2.5), queue_timeout_s=77)
    new = retry(client, old["id"], Prefer="wait=30").json
    assert new["status"] == "succeeded" and new["not_before"] is None
    limits = dict(r.split("|") for r in stack.psql(
        f"select id, queue_timeout_ms from invocations where id in ('{old['id'][4:]}', '{new['id'][4:]}')").splitlines())
    assert int(limits[old["id"][4:]]) > 78000 and int(limits[new["id"][4:]]) == 77000


def test_an_item_of_a_batch(client):
    b = client.call("POST", f"/v1/batches?agent={AGENT}", b'{"custom_id": "one", "prompt": "x"}',
                    {"Content-Type": "application/x-ndjson"}).json
    until("it ends", lambda: client.call("GET", f"/v1/batches/{b['id']}").json["ended_at"])
    item = client.call("GET", f"/v1/invocations?batch={b['id']}").json["data"][0]
    new = retry(client, item["id"], Prefer="wait=30").json
    assert (new["status"], new["batch_id"], new["custom_id"], new["retry_of"]) == ("succeeded", None, None, item["id"])
    assert client.call("GET", f"/v1/batches/{b['id']}").json["counts"]["succeeded"] == 1


def test_which_version(stack, client):
    deploy(client, "moves")
    old = client.run("moves", "x")
    deploy(client, "moves", 2)
    until("the new version serves", lambda: client.run("moves", "x")["version"] == 2)
    for body, version in ((None, 1), ({}, 1), ({"version": "same"}, 1), ({"version": "serving"}, 2)):
        new = retry(client, old["id"], body, Prefer="wait=30").json
        assert (new["status"], new["version"]) == ("succeeded", version), body
    assert retry(client, new["id"], Prefer="wait=30").json["version"] == 2


def test_its_webhook_goes_with_it(stack, client):
    receiver, secret = Receiver(), "whsec_" + "A" * 32
    old = client.run(AGENT, order(exit_code=1), webhook={"url": receiver.url(), "secret": secret})
    for headers in ({}, {"Idempotency_Key": "hooked"}):
        new = retry(client, old["id"], **headers)
        assert new.status == 202 and "Sandpiper-Webhook-Secret" not in new.headers
        got = receiver.wait(2 + len(headers))[-1]
        assert got.verify(secret) and got.json["data"]["id"] == new.json["id"] and got.json["data"]["retry_of"] == old["id"]
    receiver.close()


def test_the_trace_goes_with_it(client):
    mine, other = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    old = client.call("POST", "/v1/invocations", {"agent": AGENT, "prompt": "x"}, {"traceparent": mine, "Prefer": "wait=30"}).json
    assert retry(client, old["id"], Prefer="wait=30").json["traceparent"] == mine
    assert retry(client, old["id"], Prefer="wait=30", traceparent=other).json["traceparent"] == other


def test_a_key_makes_one(client):
    old, other = client.run(AGENT, "x")["id"], client.run(AGENT, "y")["id"]
    answers = in_threads([lambda: retry(client, old, Idempotency_Key="once")] * 20, 20)
    assert {a.status for a in answers} == {202} and len({a.json["id"] for a in answers}) == 1
    assert len(retries_of(client, old)) == 1
    for a in (retry(client, other, Idempotency_Key="once"), retry(client, old, {"version": "serving"}, Idempotency_Key="once"),
              client.submit(AGENT, "x", idempotency_key="once")):
        assert (a.status, a.json["code"]) == (422, "idempotency_key_reused")
    assert len(retries_of(client, old)) == 1 and retries_of(client, other) == []


def test_other_tenants_and_nonsense(stack, client):
    old = client.run(AGENT, "secret")["id"]
    stranger = Client(client.port, stack.new_key("stranger"))
    for id in (old, "inv_01a1fd5f-0000-7001-9b66-7ca8a28be6e9", "nonsense"):
        a = retry(stranger, id)
        assert (a.status, a.json["code"]) == (404, "not_found")
    assert stranger.call("GET", f"/v1/invocations?retry_of={old}").json["data"] == []
    assert retry(client, old).status == 202
    assert stranger.call("GET", f"/v1/invocations?retry_of={old}").json["data"] == []
    for body, code in (({"version": "latest"}, "invalid_field"), ({"version": 2}, "invalid_field"), ([], "invalid_json"),
                       ({"versoin": "same"}, "unknown_field"), (b"{", "invalid_json")):
        a = retry(client, old, body)
        assert (a.status, a.json["code"]) == (400, code), body
    a = client.call("GET", "/v1/invocations?retry_of=nonsense")
    assert (a.status, a.json["code"]) == (400, "invalid_query")


# ---- the dead letters ----


def broken(stack, n):
    """n invocations that the provider failed."""
    stack.sandboxd.stop()
    ids = [stack.client.submit(AGENT, f"dead {i}", queue_timeout_s=2).json["id"] for i in range(n)]
    records = [stack.client.end(i) for i in ids]
    assert {(r["status"], r["error"]["code"]) for r in records} == {("error", "provider_failed")}
    stack.start_sandboxd()
    return ids


def test_dead_letters_are_listed_and_retried(stack, client):
    before = soon(0)
    dead = broken(stack, 5)
    client.run(AGENT, order(exit_code=1))
    listed = client.call("GET", f"/v1/invocations?status=error&created_after={before}").json["data"]
    assert [r["id"] for r in listed] == sorted(dead, reverse=True) and {r["status"] for r in listed} == {"error"}
    shown = stack.cli("ls", "--status", "error", "--since", before).stdout.decode()
    assert all(i in shown for i in dead)
    tried = stack.cli("retry", "--all-errors", "--since", before, "--json")
    made = [json.loads(line) for line in tried.stdout.splitlines()]
    assert sorted(m["retry_of"] for m in made) == sorted(dead)
    assert {client.end(m["id"])["status"] for m in made} == {"succeeded"}
    again = stack.cli("retry", "--all-errors", "--since", before)
    assert again.stdout == b"" and b"retried already" in again.stderr, (again.stdout, again.stderr)
    assert all(len(retries_of(client, i)) == 1 for i in dead)


def test_the_command_line(stack, client):
    old, other = client.run(AGENT, "x")["id"], client.run(AGENT, "y")["id"]
    r = stack.cli("retry", old, other)
    pairs = [line.split(" -> ") for line in r.stdout.decode().splitlines()]
    assert [p[0] for p in pairs] == [old, other] and [client.get(p[1])["retry_of"] for p in pairs] == [old, other]
    r = stack.cli("retry", old, "--serving", "--json")
    assert json.loads(r.stdout)["retry_of"] == old
    open_one = client.submit(AGENT, order(run_ms=60000)).json["id"]
    r = stack.cli("retry", old, open_one, "inv_01a1fd5f-0000-7001-9b66-7ca8a28be6e9", check=False)
    assert r.returncode == 3 and r.stdout.decode().startswith(f"{old} -> inv_"), (r.stdout, r.stderr)
    assert b"has not ended" in r.stderr and b"there is no invocation" in r.stderr and b"1 of 3" in r.stderr
    for argv in ([], ["nonsense"], ["--all-errors", old], ["--since", "1h", old], ["--all-errors", "--since", "soon"]):
        assert stack.cli("retry", *argv, check=False).returncode == 2, argv
    client.call("POST", f"/v1/invocations/{open_one}/cancel")


def test_a_bar_in_a_terminal(stack, client):
    old = client.run(AGENT, "x")["id"]
    ours, theirs = pty.openpty()
    env = {**stack.env, "SANDPIPER_URL": f"http://127.0.0.1:{stack.gateways[0].port}", "SANDPIPER_API_KEY": stack.key}
    p = subprocess.Popen([str(BIN / "sandpiper"), "retry", old, old, old], env=env, stdout=subprocess.PIPE, stderr=theirs)
    out = p.communicate(timeout=60)[0]
    os.close(theirs)
    bar = os.read(ours, 65536)
    os.close(ours)
    assert p.returncode == 0 and len(out.splitlines()) == 3 and b"3 of 3" in bar and b"#" in bar, bar
