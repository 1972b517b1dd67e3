"""Runs, as callers see them: states that tell the truth, bytes that arrive as they were."""

import hashlib
import json
import threading
import time

from stack import in_threads, until


def order(**kw):
    return json.dumps(kw)


def test_a_prompt_becomes_an_answer_with_usage(client):
    r = client.run("echo", "what is said is said back")
    assert r["status"] == "succeeded" and r["exit_code"] == 0 and r["signal"] is None and r["error"] is None
    assert r["output"] == "what is said is said back" and r["output_truncated"] is False
    u = r["usage"]
    assert u["run_ms"] >= 0 and u["sandbox_ms"] >= u["run_ms"] and u["queue_ms"] >= 0
    assert u["cpu_ms"] >= 0 and u["peak_memory_bytes"] > 0
    assert r["attempt"] == 1 and len(r["attempts"]) == 1
    assert r["created_at"] <= r["started_at"] <= r["finished_at"]


def test_exit_codes_are_the_programs_own(client):
    r = client.run("probe", order(exit=7, stderr="why it failed\n"))
    assert (r["status"], r["exit_code"], r["signal"]) == ("failed", 7, None)
    assert client.call("GET", r["logs_url"]).body == b"why it failed\n"


def test_signals_are_named(client):
    r = client.run("probe", order(kill=9))
    assert (r["status"], r["signal"], r["exit_code"]) == ("failed", "KILL", None)
    r = client.run("probe", order(kill=15))
    assert (r["status"], r["signal"]) == ("failed", "TERM")


def test_the_time_limit_counts_from_the_start(client):
    began = time.monotonic()
    r = client.run("probe", order(text="before", sleep=60), timeout_s=2)
    assert r["status"] == "timed_out" and r["error"]["code"] == "run_timeout"
    assert r["output"] == "before"
    assert 2000 <= r["usage"]["run_ms"] < 3000
    assert time.monotonic() - began < 5


def test_a_running_job_is_canceled_within_a_second(stack, client):
    id = client.submit("probe", order(sleep=100)).json["id"]
    until("the job runs", lambda: client.get(id)["status"] == "running")
    began = time.monotonic()
    a = client.call("POST", f"/v1/invocations/{id}/cancel")
    assert a.status in (200, 202)
    r = client.end(id, 5)
    assert time.monotonic() - began < 1
    assert r["status"] == "canceled" and r["usage"]["run_ms"] > 0
    until("its sandbox is gone", lambda: not stack.sandboxes(), 2)
    again = client.call("POST", f"/v1/invocations/{id}/cancel")
    assert again.status == 200 and again.json["status"] == "canceled"


def test_a_large_prompt_arrives_byte_for_byte(client):
    text = "".join(chr(0x20 + i % 90) + "é€" for i in range(4 * 1024 * 1024 // 6 - 1))
    r = client.run("echo", text, wait=120)
    assert r["status"] == "succeeded" and r["prompt"] is None and r["output"] is None
    out = client.call("GET", r["output_url"])
    assert out.status == 200
    assert hashlib.sha256(out.body).digest() == hashlib.sha256(text.encode()).digest()


def test_middling_prompts_arrive_byte_for_byte(client):
    for size in (0, 1, 4096, 4097, 65535, 65536, 65537, 131073):
        text = ("0123456789abcdef" * (size // 16 + 1))[:size]
        r = client.run("echo", text)
        body = client.call("GET", r["output_url"]).body
        assert body.decode() == text, size


def test_binary_output_comes_back_byte_for_byte(client):
    want = bytes(i * 7 % 256 for i in range(300000))
    r = client.run("probe", order(bytes=300000))
    assert r["output_size"] == 300000
    assert client.call("GET", r["output_url"]).body == want
    part = client.call("GET", r["output_url"], headers={"Range": "bytes=262140-262150"})
    assert part.status == 206 and part.body == want[262140:262151]
    r = client.run("probe", order(bytes=1000))
    import base64

    assert r["output"] is None and base64.b64decode(r["output_base64"]) == want[:1000]


def test_output_past_the_cap_is_cut_and_said(stack, client):
    r = client.run("probe", order(bytes=11 * 1024 * 1024), wait=120)
    assert r["status"] == "succeeded" and r["output_truncated"] is True
    assert r["output_size"] == 10 * 1024 * 1024


def test_five_hundred_by_sixty_four_connections(stack, client):
    before = {t: stack.count(f"select count(*) from {t}") for t in ("invocations", "results", "usage")}
    jobs = [lambda i=i: client.run("echo", f"number {i}", wait=120) for i in range(500)]
    records = in_threads(jobs, 64)
    assert [r["status"] for r in records] == ["succeeded"] * 500
    assert [r["output"] for r in records] == [f"number {i}" for i in range(500)]
    after = {t: stack.count(f"select count(*) from {t}") for t in before}
    assert {t: after[t] - before[t] for t in before} == {"invocations": 500, "results": 500, "usage": 500}
    stack.quiet()


def test_one_key_makes_one_invocation(stack, client):
    before = stack.count("select count(*) from invocations")
    jobs = [lambda: client.submit("echo", "once", idempotency_key="the-same") for _ in range(64)]
    answers = in_threads(jobs, 64)
    assert [a.status for a in answers] == [202] * 64
    assert len({a.json["id"] for a in answers}) == 1
    assert stack.count("select count(*) from invocations") == before + 1
    other = client.submit("echo", "something else", idempotency_key="the-same")
    assert other.status == 422 and other.json["code"] == "idempotency_key_reused"
    quoted = client.submit("echo", "once", idempotency_key='"the-same"')
    assert quoted.json["id"] == answers[0].json["id"]
    assert client.end(answers[0].json["id"])["status"] == "succeeded"


def test_tenants_do_not_see_each_other(stack, client):
    from stack import Client

    other = Client(client.port, stack.new_key("other"))
    id = client.run("echo", "mine")["id"]
    for path in (f"/v1/invocations/{id}", f"/v1/invocations/{id}/output", f"/v1/invocations/{id}/logs"):
        assert other.call("GET", path).status == 404
    assert other.call("POST", f"/v1/invocations/{id}/cancel").status == 404
    assert other.submit("echo", "x").json["code"] == "agent_not_found"


def test_keys_are_required(client):
    for header in (None, "Bearer", "Bearer sp_short", "Basic abc", "Bearer sp_" + "A" * 43):
        a = client.call("GET", "/v1/agents", headers={"Authorization": header} if header else {}, key=False)
        assert a.status == 401 and a.headers["Content-Type"] == "application/problem+json"
        assert a.json["code"] == "unauthorized"


def test_bad_submissions_say_what_is_wrong(client):
    for body, status, code in (
        (b"{", 400, "invalid_json"),
        (b'{"agent":"echo","prompt":"a","prompt":"b"}', 400, "invalid_json"),
        ({"prompt": "x"}, 400, "missing_field"),
        ({"agent": "echo"}, 400, "missing_field"),
        ({"agent": "echo", "prompt": 7}, 400, "invalid_field"),
        ({"agent": "echo", "prompt": "x", "promt": 1}, 400, "unknown_field"),
        ({"agent": "echo", "prompt": "x", "timeout_s": 0}, 400, "invalid_field"),
        ({"agent": "echo", "prompt": "x", "timeout_s": 3601}, 400, "invalid_field"),
        ({"agent": "echo", "prompt": "x", "priority": "urgent"}, 400, "invalid_field"),
        ({"agent": "echo", "prompt": "x", "metadata": []}, 400, "invalid_field"),
        ({"agent": "echo", "prompt": "x", "webhook": {"url": "http://localhost/x"}}, 400, "invalid_field"),
            ({"agent": "echo", "prompt": "x", "env": []}, 400, "invalid_field"),
        ({"agent": "nobody", "prompt": "x"}, 404, "agent_not_found"),
        ({"agent": "echo@99", "prompt": "x"}, 404, "agent_not_found"),
        ({"agent": "echo", "prompt": "x" * (4 * 1024 * 1024 + 1)}, 413, "prompt_too_large"),
        ({"agent": "echo", "prompt": "x", "metadata": {"k": "v" * 17000}}, 413, "metadata_too_large"),
    ):
        a = client.call("POST", "/v1/invocations", body)
        assert (a.status, a.json["code"]) == (status, code), a.body
    assert "did you mean \"prompt\"" in client.call(
        "POST", "/v1/invocations", {"agent": "echo", "prompt": "x", "promt": 1}).json["detail"]


def test_a_waiter_that_hangs_up_frees_its_slot(stack, client):
    import http.client as h

    c = h.HTTPConnection("127.0.0.1", client.port)
    c.request("POST", "/v1/invocations", json.dumps({"agent": "probe", "prompt": order(sleep=3)}),
              {"Authorization": f"Bearer {client.key}", "Prefer": "wait=60", "Content-Type": "application/json"})

    def waiters():
        text = client.call("GET", "/metrics", key=False).body.decode()
        return int(float([line for line in text.splitlines() if line.startswith("sandpiper_waiters ")][0].split()[1]))

    until("somebody waits", lambda: waiters() == 1)
    c.sock.close()
    until("nobody waits", lambda: waiters() == 0, 2)
    stack.quiet()


def test_a_retry_is_asked_for(client):
    r = client.run("probe", order(exit=3), retry={"max_attempts": 2, "on": ["failed"]}, wait=60)
    assert (r["status"], r["exit_code"], r["attempt"]) == ("failed", 3, 2)
    assert [a["attempt"] for a in r["attempts"]] == [1, 2]


def test_a_flood_of_waiters_is_told_by_pub_sub(client):
    done = []

    def wait(i):
        done.append(client.run("echo", str(i), wait=60)["status"])

    threads = [threading.Thread(target=wait, args=(i,)) for i in range(50)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert done == ["succeeded"] * 50


def test_a_build_that_fails_says_why_and_the_old_version_serves(stack, client):
    client.deploy("builder", {"agent.json": '{"runtime":"command","entry":"echo one"}'})
    from stack import archive

    a = client.call("POST", "/v1/agents?name=builder",
                    archive({"agent.json": '{"runtime":"command","entry":"echo two","install":"echo sorry; exit 4"}'}),
                    {"Content-Type": "application/gzip"})
    assert a.status == 202
    build = until("the build failed", lambda: (b := client.call("GET", "/v1/agents/builder").json["latest_build"])[
        "status"] == "failed" and b, 60)
    assert build["error"]["code"] == "build_failed" and "exit code 4" in build["error"]["message"]
    assert "sorry" in build["log"]
    assert client.run("builder", "")["output"] == "one\n"
    assert client.submit("builder@2", "").status == 409


def test_file_names_are_utf8_whatever_the_locale(stack, client, tmp_path):
    agent = tmp_path / "names"
    agent.mkdir()
    (agent / "agent.json").write_text('{"runtime": "command", "entry": "cat *.txt"}')
    (agent / "Főtanúsítvány ☃.txt").write_text("found")
    stack.cli("deploy", str(agent), "--name", "names", env={"LC_ALL": "C"})
    assert client.run("names", "")["output"] == "found"


def test_a_new_version_serves_as_soon_as_it_is_seen_to_be_ready(client):
    for n in ("one", "two", "three"):
        client.deploy("edited", {"agent.json": '{"runtime":"command","entry":"echo %s"}' % n})
        assert client.run("edited", "")["output"] == n + "\n"
    assert "no version 9" in client.submit("edited@9", "").json["detail"]


def test_archives_that_lead_out_are_refused(client):
    import io
    import tarfile

    def tar(make):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as t:
            make(t)
        return out.getvalue()

    def member(name, kind=tarfile.REGTYPE, link=""):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        return info

    for bad in (b"not gzip", b"", tar(lambda t: None), tar(lambda t: t.addfile(member("../x"))),
                tar(lambda t: t.addfile(member("/etc/x"))), tar(lambda t: t.addfile(member("a/../../x"))),
                tar(lambda t: t.addfile(member("l", tarfile.SYMTYPE, "../../etc/passwd"))),
                tar(lambda t: t.addfile(member("l", tarfile.SYMTYPE, "/etc/passwd"))),
                tar(lambda t: t.addfile(member("l", tarfile.LNKTYPE, "../x"))),
                tar(lambda t: t.addfile(member("d", tarfile.CHRTYPE)))):
        a = client.call("POST", "/v1/agents?name=bad", bad, {"Content-Type": "application/gzip"})
        assert (a.status, a.json["code"]) == (400, "invalid_archive"), (bad[:20], a.body)
    a = client.call("POST", "/v1/agents?name=bad", tar(lambda t: t.addfile(member("notes.txt"))),
                    {"Content-Type": "application/gzip"})
    assert (a.status, a.json["code"]) == (400, "invalid_manifest")
    assert client.call("GET", "/v1/agents/bad").status == 404
