"""sandpiper ls and agents: pages, tables, lines of JSON."""

import json
import os
import pty
import re
import select
import subprocess
import time
import urllib.parse

import pytest

from sandboxd_client import BIN
from test_cli import ID, build, cli, env, gateway  # noqa: F401 - a fixture


def ago(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(time.time() - seconds))


def listed(n=0, **more):
    started = more.pop("started", 100)
    return {"id": f"inv_{n:08d}" + ID[12:], "agent": "word-count", "version": 3, "status": "succeeded",
            "status_stale": False, "attempt": 1, "created_at": ago(started + 1), "started_at": ago(started),
            "finished_at": ago(started - 2), "metadata": {"k": "v, \"w\" {["}, **more}


class Pages:
    """Serves records as a gateway does: limit, and the offset as its cursor. With `empty`, first so many empty pages."""

    def __init__(self, gateway, records, path="/v1/invocations", member="data", empty=0):
        self.gateway, self.records, self.path, self.member, self.empty = gateway, records, path, member, empty
        gateway.answers[f"GET {path}"] = self.answer

    @property
    def queries(self):
        return [urllib.parse.parse_qs(p.partition("?")[2], keep_blank_values=True, strict_parsing=True)
                for _, p, _, _ in self.gateway.seen if p.split("?")[0] == self.path]

    def answer(self):
        q = self.queries[-1]
        at, limit = int(q.get("cursor", ["0"])[0]), int(q["limit"][0])
        if self.empty > 0:
            self.empty -= 1
            return 200, {self.member: [], "next_cursor": "0"}
        more = at + limit < len(self.records)
        return 200, {self.member: self.records[at:at + limit], "next_cursor": str(at + limit) if more else None}


def test_a_table(gateway):  # noqa: F811
    Pages(gateway, [listed(1), listed(2, status="running", finished_at=None, attempt=2, started=7200, agent="a" * 30),
                    listed(3, status="queued", status_stale=True, started_at=None, finished_at=None),
                    listed(4, status="timed_out", finished_at=ago(-200))])
    r = cli(gateway, "ls")
    assert r.returncode == 0 and r.stderr == b""
    rows = [line.split() for line in r.stdout.decode().splitlines()]
    assert rows[0] == ["ID", "AGENT", "STATUS", "AGE", "DURATION", "ATTEMPTS"]
    assert rows[1] == [listed(1)["id"], "word-count@3", "succeeded", "101s", "2.00s", "1"]
    assert rows[2][1:4] == ["a" * 30 + "@3", "running", "2h"] and rows[2][4] in ("2h", "120m") and rows[2][5] == "2"
    assert rows[3][2:5] == ["queued?", "101s", "-"] and rows[4][4] == "5m"
    assert len({len(line) for line in r.stdout.decode().splitlines()}) == 1


def test_lines_of_json(gateway):  # noqa: F811
    records = [listed(n) for n in range(5)]
    text = json.dumps({"data": records, "next_cursor": None}, indent=2).encode()
    gateway.answers["GET /v1/invocations"] = (200, text)
    r = cli(gateway, "ls", "--json")
    assert r.returncode == 0 and [json.loads(line) for line in r.stdout.decode().splitlines()] == records
    assert r.stdout.splitlines()[0] == json.dumps(records[0], separators=(",", ":")).encode()


def test_ls_walks_pages(gateway):  # noqa: F811
    p = Pages(gateway, [listed(n) for n in range(450)])
    ids = lambda r: [json.loads(line)["id"] for line in r.stdout.decode().splitlines()]  # noqa: E731
    assert ids(cli(gateway, "ls", "--json", "--all")) == [r["id"] for r in p.records]
    assert [q["limit"] for q in p.queries] == [["200"]] * 3
    gateway.seen.clear()
    assert ids(cli(gateway, "ls", "--json", "--limit", "210")) == [r["id"] for r in p.records[:210]]
    assert [q["limit"] for q in p.queries] == [["200"], ["10"]]
    gateway.seen.clear()
    assert len(ids(cli(gateway, "ls", "--json"))) == 50 and len(p.queries) == 1
    p.empty = 3  # what is rare comes after empty pages
    assert ids(cli(gateway, "ls", "--json", "--limit", "1")) == [p.records[0]["id"]]


def test_filters_reach_the_gateway(gateway):  # noqa: F811
    p = Pages(gateway, [listed(1)])
    r = cli(gateway, "ls", "--status", "failed", "--agent", "a@2", "--since", "90m", "--until", "2026-11-21T10:00:00+01:00",
            "--metadata", "run id=a&b=c%", "--metadata", "é=", "--limit", "7")
    assert r.returncode == 0
    (q,) = p.queries
    since = q.pop("created_after")[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", since)
    assert abs(time.mktime(time.strptime(since[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone - (time.time() - 5400)) < 60
    assert q == {"status": ["failed"], "agent": ["a@2"], "created_before": ["2026-11-21T10:00:00+01:00"],
                 "metadata.run id": ["a&b=c%"], "metadata.é": [""], "limit": ["7"]}


@pytest.mark.parametrize("args", [["--since", "soon"], ["--since", "1y"], ["--since", "h"], ["--until", "2026-11-21"],
                                  ["--metadata", "k"], ["--metadata", "=v"], ["--limit", "0"], ["--limit", "many"],
                                  ["--limit", "5", "--all"], ["extra"], ["--metadata", "k=" + "v" * 20000]])
def test_wrong_usage_of_ls(gateway, args):  # noqa: F811
    r = cli(gateway, "ls", *args)
    assert r.returncode == 2 and r.stdout == b"" and r.stderr and gateway.seen == []


def test_nothing_to_list(gateway):  # noqa: F811
    Pages(gateway, [])
    for args, words in ([], b"no invocations yet"), (["--status", "open"], b"no invocation matches"), (
            ["--metadata", "k=v"], b"24 hours"):
        r = cli(gateway, "ls", *args)
        assert (r.returncode, r.stdout) == (0, b"") and words in r.stderr
        r = cli(gateway, "ls", "--json", *args)
        assert (r.returncode, r.stdout, r.stderr) == (0, b"", b"")


def test_errors_of_ls(gateway):  # noqa: F811
    gateway.answers["GET /v1/invocations"] = (400, {"code": "invalid_query", "detail": "status must be open", "status": 400})
    r = cli(gateway, "ls", "--status", "done")
    assert r.returncode == 3 and r.stdout == b"" and b"status must be open" in r.stderr
    gateway.answers["GET /v1/invocations"] = (200, {"agents": []})
    assert b"check SANDPIPER_URL" in cli(gateway, "ls").stderr


def in_terminal(gateway, *args):  # noqa: F811
    """What a terminal shows of stdout and stderr together."""
    leader, follower = pty.openpty()
    p = subprocess.Popen([BIN / "sandpiper", *args], stdin=follower, stdout=follower, stderr=follower, env=env(gateway))
    os.close(follower)
    out = b""
    while select.select([leader], [], [], 30)[0]:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        out += piece
    os.close(leader)
    return p.wait(timeout=30), out.decode()


def test_a_terminal_is_told_of_the_rest(gateway):  # noqa: F811
    Pages(gateway, [listed(n) for n in range(60)])
    status, out = in_terminal(gateway, "ls")
    assert status == 0 and "There are more: --limit N or --all" in out and "\x1b[3" not in out
    status, out = in_terminal(gateway, "ls", "--all")
    assert status == 0 and "There are more" not in out
    assert b"There are more" not in cli(gateway, "ls").stderr


def test_a_closed_pipe_ends_it(gateway):  # noqa: F811
    Pages(gateway, [listed(n) for n in range(100_000)])
    p = subprocess.Popen([BIN / "sandpiper", "ls", "--all", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         env=env(gateway))
    p.stdout.readline()
    p.stdout.close()
    assert p.stderr.read() == b"" and p.wait(timeout=60) == -13
    assert len(gateway.seen) < 100


def test_agents(gateway):  # noqa: F811
    first = {**build("ready"), "name": "a", "status": "ready", "version": 4}
    second = {**build("failed"), "name": "b", "status": "failed", "version": None}
    many = [first, second] + [{**first, "name": f"n{i}"} for i in range(300)]
    p = Pages(gateway, many, "/v1/agents", "agents")
    r = cli(gateway, "agents")
    rows = [line.split() for line in r.stdout.decode().splitlines()]
    assert rows[0][:3] == ["NAME", "STATUS", "VERSION"] and len(rows) == 303
    assert rows[1][:5] == ["a", "ready", "4", "4", "ready,"] and rows[2][:5] == ["b", "failed", "-", "4", "failed,"]
    assert len(p.queries) == 2
    r = cli(gateway, "agents", "--json")
    assert [json.loads(line) for line in r.stdout.decode().splitlines()] == many
    Pages(gateway, [], "/v1/agents", "agents")
    r = cli(gateway, "agents")
    assert (r.returncode, r.stdout) == (0, b"") and b"sandpiper deploy DIR" in r.stderr
