"""`sandpiper batch`, as people and scripts use it."""

import gzip
import json
import os
import pty
import select
import signal
import subprocess

import pytest

from sim_stack import AGENT, SimStack
from stack import BIN, until


@pytest.fixture(scope="module")
def sim():
    s = SimStack(SANDPIPER_EXECUTOR_JOBS="20")
    try:
        yield s.start()
    finally:
        s.stop()


def lines(n, run_ms=0, agent=AGENT, **order):
    prompt = json.dumps({"sim": {"run_ms": run_ms, **order}})
    return "".join(json.dumps({"custom_id": f"c{i}", **({"agent": agent} if agent else {}), "prompt": prompt}) + "\n"
                   for i in range(n)).encode()


def batch(sim, *argv, **kw):
    return sim.cli("batch", *argv, **kw)


class Terminal:
    """A command with a terminal of its own for everything."""

    def __init__(self, sim, *argv):
        self.seen = b""
        env = {**sim.env, "SANDPIPER_URL": f"http://127.0.0.1:{sim.gateways[0].port}", "SANDPIPER_API_KEY": sim.key}
        self.master, slave = pty.openpty()
        self.child = subprocess.Popen([str(BIN / "sandpiper"), "batch", *argv], env=env, stdin=slave, stdout=slave, stderr=slave,
                                      start_new_session=True)
        os.close(slave)

    def text(self):
        while select.select([self.master], [], [], 0)[0]:
            try:
                piece = os.read(self.master, 65536)
            except OSError:
                break
            if not piece:
                break
            self.seen += piece
        return self.seen.decode()

    def end(self, seconds=30):
        until("it ends", lambda: self.text() and self.child.poll() is not None, seconds)
        text = self.text()
        os.close(self.master)
        return self.child.returncode, text


def test_submit_tells_how_to_go_on_and_each_hint_works(sim, tmp_path):
    file = tmp_path / "items.ndjson"
    file.write_bytes(lines(30))
    out = batch(sim, "submit", str(file)).stdout.decode()
    id = out.split(":")[0]
    assert out.splitlines()[0] == f"{id}: 30 items accepted"
    assert f"sandpiper batch status {id}" in out and f"sandpiper batch results {id} --follow" in out
    got = [json.loads(x) for x in batch(sim, "results", id, "--follow").stdout.splitlines()]
    assert sorted(x["custom_id"] for x in got) == sorted(f"c{i}" for i in range(30))
    rest = batch(sim, "results", id, "--cursor", got[20]["cursor"]).stdout.splitlines()
    assert [json.loads(x)["id"] for x in rest] == [x["id"] for x in got[21:]]
    status = batch(sim, "status", id).stdout.decode()
    assert "completed" in status and "30 of 30" in status and "succeeded" in status
    assert json.loads(batch(sim, "status", id, "--json").stdout)["counts"]["succeeded"] == 30
    table = batch(sim, "ls").stdout.decode().splitlines()
    assert table[0].split()[0] == "ID" and table[1].startswith(id)
    assert json.loads(batch(sim, "ls", "--json", "--limit", "1").stdout)["id"] == id


def test_wait_in_a_pipe_prints_the_end_alone(sim, tmp_path):
    file = tmp_path / "items"
    file.write_bytes(lines(20))
    r = batch(sim, "submit", str(file), "--wait")
    assert r.stderr == b"", "no progress in a pipe"
    assert r.stdout.decode().splitlines()[0].endswith(": completed; 20 succeeded")
    file.write_bytes(lines(3) + b'{"agent": "%s", "prompt": "{\\"sim\\": {\\"exit_code\\": 3}}"}\n' % AGENT.encode())
    r = batch(sim, "submit", str(file), "--wait", check=False)
    assert r.returncode == 1 and b"3 succeeded 1 failed" in r.stdout
    r = batch(sim, "submit", str(file), "--wait", "--json", check=False)
    assert r.returncode == 1 and json.loads(r.stdout)["counts"]["failed"] == 1


def test_wait_in_a_terminal_shows_how_far_it_is(sim, tmp_path):
    file = tmp_path / "items"
    file.write_bytes(lines(60, 1000))
    t = Terminal(sim, "submit", str(file), "--wait")
    status, text = t.end(60)
    assert status == 0 and "60 of 60 done, 0 failed" in text
    assert "[........................] 0 of 60 done" in text and "s left" in text and "#" in text


def test_ctrl_c_detaches_and_says_how_to_come_back(sim, tmp_path):
    file = tmp_path / "items"
    file.write_bytes(lines(40, 2000))
    t = Terminal(sim, "submit", str(file), "--wait")
    until("it waits", lambda: "of 40 done" in t.text())
    t.child.send_signal(signal.SIGINT)
    status, text = t.end()
    assert status == 130 and "the batch goes on" in text
    id = next(w for w in text.split() if w.startswith("bat_"))
    assert json.loads(batch(sim, "status", id, "--json").stdout)["status"] == "running"
    assert f"sandpiper batch results {id} --follow" in text
    r = json.loads(batch(sim, "cancel", id, "--json").stdout)
    assert r["status"] in ("canceling", "canceled")
    until("it is canceled", lambda: json.loads(batch(sim, "status", id, "--json").stdout)["status"] == "canceled")


@pytest.mark.parametrize("name, data", [
    ("items.json", json.dumps({"items": [{"agent": AGENT, "prompt": "x"}] * 2, "max_concurrency": 1}).encode()),
    ("items", b" [" + lines(1) + b"," + lines(1).replace(b"c0", b"c1") + b"]"),
    ("items.gz", gzip.compress(lines(2), mtime=0)),
    ("items.json.gz", gzip.compress(json.dumps([{"agent": AGENT, "prompt": "x"}] * 2).encode(), mtime=0)),
], ids=["object", "array", "gzipped lines", "gzipped array"])
def test_other_forms_are_recognised(sim, tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert b"; 2 succeeded" in batch(sim, "submit", str(tmp_path / name), "--wait").stdout


def test_items_from_a_pipe_and_options(sim):
    r = batch(sim, "submit", "-", "--agent", AGENT, "--max-concurrency", "3", "--priority", "high", "--metadata", "team=a&b",
              "--timeout", "9", "--wait", "--json", stdin=lines(5, agent=None))
    record = json.loads(r.stdout)
    assert (record["priority"], record["max_concurrency"], record["metadata"]) == ("high", 3, {"team": "a&b"})
    one = json.loads(batch(sim, "results", record["id"]).stdout.splitlines()[0])
    assert one["timeout_s"] == 9


def test_faults_are_shown_line_by_line(sim, tmp_path):
    file = tmp_path / "items"
    file.write_bytes(lines(1) + b"{}\n" + b'{"agent": "nobody", "prompt": "x"}\nno\n')
    r = batch(sim, "submit", str(file), check=False)
    assert r.returncode == 3 and r.stdout == b""
    err = r.stderr.decode()
    assert "line 2: agent is required" in err or "line 2: prompt is required" in err
    assert "line 4: column 1" in err and "invalid_batch" in err


@pytest.mark.parametrize("argv, words", [
    ([], b"batch needs one of"),
    (["sumbit"], b"batch needs one of"),
    (["submit"], b"submit"),
    (["submit", "/no/such/file"], b"cannot read /no/such/file"),
    (["status", "inv_1"], b"is no batch's id"),
    (["results", "bat_x"], b"is no batch's id"),
    (["results", "bat_01a1fd5f-8385-7001-9b66-7ca8a28be6e9", "--cursor", "a&b"], b"is no cursor"),
])
def test_wrong_usage(sim, argv, words):
    r = batch(sim, *argv, check=False)
    assert r.returncode == 2 and words in r.stderr, r.stderr


def test_results_go_on_where_the_gateway_broke_off(sim, tmp_path):
    file = tmp_path / "items"
    file.write_bytes(lines(60, 500))
    id = batch(sim, "submit", str(file), "--max-concurrency", "5").stdout.decode().split(":")[0]
    env = {**sim.env, "SANDPIPER_URL": f"http://127.0.0.1:{sim.gateways[0].port}", "SANDPIPER_API_KEY": sim.key}
    out = tmp_path / "out"
    with open(out, "wb") as f:
        child = subprocess.Popen([str(BIN / "sandpiper"), "batch", "results", id, "--follow"], env=env, stdout=f)
    for n in (5, 25):
        until("some results", lambda n=n: out.read_bytes().count(b"\n") >= n, 30)
        sim.gateways[0].kill()
        sim.gateways[0].start()
    assert child.wait(60) == 0
    got = [json.loads(x)["custom_id"] for x in out.read_bytes().splitlines()]
    assert sorted(got) == sorted(f"c{i}" for i in range(60)), "each once"
