"""Replacing the key that secrets are sealed with, under load: nothing fails, nothing that is set meanwhile is lost."""

import base64
import itertools
import json
import signal
import subprocess
import threading
import time

import pytest

from e2e_agents import make_stack
from stack import BIN, Client, until
from test_secrets import SHOW, put, show


@pytest.fixture
def stack():
    s = make_stack()
    s.client.deploy("show", SHOW)
    yield s
    s.quiet()
    s.stop()


class Load:
    """Runs jobs with secrets, some with an environment, some again by hand, and sets secrets, until it is ended."""

    def __init__(self, stack):
        self.stack, self.gateway = stack, stack.gateways[0]
        self.over, self.done, self.failed, self.numbers = threading.Event(), 0, [], itertools.count()
        self.threads = [threading.Thread(target=self.work, args=(n,)) for n in range(6)]
        for t in self.threads:
            t.start()

    def client(self):
        return Client(self.gateway.port, self.stack.key)

    def once(self, n, turn):
        client = self.client()
        name = f"MOVING_{n}"
        value = f"{turn} {next(self.numbers)}"
        put(client, name, value)
        time.sleep(1.0)
        env = {"OWN": f"own {value}"}
        a = client.submit("show", json.dumps({"show": ["FIXED", name, "OWN"]}), wait=60, env=env)
        assert a.status == 200, a.body
        want = {"FIXED": "stays", name: value, **env}
        for r in (a.json, client.call("POST", f"/v1/invocations/{a.json['id']}/retry", {}, {"Prefer": "wait=60"}).json):
            got = {k: base64.b64decode(v).decode() for k, v in (line.split(" ") for line in (r["output"] or "").splitlines())}
            assert r["status"] == "succeeded" and got == want, (r, want)

    def work(self, n):
        for turn in itertools.count():
            if self.over.is_set():
                return
            try:
                self.once(n, turn)
                self.done += 1
            except BaseException as e:  # noqa: B036 - reported by end()
                self.failed.append(repr(e))
                return

    def some_more(self, n=12):
        want = self.done + n
        until("jobs end", lambda: self.done >= want or self.failed, 60)
        assert not self.failed, self.failed

    def end(self):
        self.over.set()
        for t in self.threads:
            t.join()
        assert not self.failed, self.failed
        return self.done


def key_id(stack, table):
    return set(stack.psql(f"select distinct key_id from {table}").split())


def test_keys_are_rotated_under_load(stack, tmp_path):
    old = {side: stack.dir / f"env-{side}.key" for side in ("public", "private")}
    stack.cli("secrets", "init", str(tmp_path))
    new = {side: tmp_path / f"env-{side}.key" for side in ("public", "private")}
    both = tmp_path / "both.key"
    both.write_text(old["private"].read_text() + new["private"].read_text())
    argv = ["secrets", "rotate-key", "--private-keys", str(both), "--public-key", str(new["public"])]
    put(stack.client, "FIXED", "stays")
    load = Load(stack)
    load.some_more()
    first = key_id(stack, "agent_secrets")
    # Rows of thousands of invocations: the rotation takes a while, and is killed in the middle.
    row = stack.psql("select id from invocation_env limit 1")
    stack.psql(f"insert into invocation_env (id, tenant, key_id, sealed) select (substr(sandpiper_uuid_floor(now())::text, 1, 13) || "
               f"substr(gen_random_uuid()::text, 14))::uuid, tenant, key_id, sealed from invocation_env, generate_series(1, 20000) "
               f"where id = '{row}'")
    # 1. executors get the new private key beside the old one
    before = stack.executors[0]
    stack.add_executor(SANDPIPER_ENV_PRIVATE_KEY_FILE=str(both))
    assert before.stop(60) == 0
    load.some_more()
    # 2. gateways get the new public key
    before = load.gateway
    load.gateway = stack.add_gateway(SANDPIPER_ENV_PUBLIC_KEY_FILE=str(new["public"]))
    load.some_more()
    assert before.stop(60) == 0
    stack.gateways.remove(before)
    assert len(key_id(stack, "agent_secrets")) == 2
    # 3. what the old one sealed is sealed anew; broken off, and begun again
    p = subprocess.Popen([str(BIN / "sandpiper"), *argv], env=stack.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until("some are sealed anew", lambda: stack.count(
        f"select count(*) from invocation_env where key_id <> '{next(iter(first))}'") > 1000)
    p.send_signal(signal.SIGKILL)
    p.wait()
    left = stack.count(f"select count(*) from invocation_env where key_id = '{next(iter(first))}'")
    assert left > 0
    told = json.loads(stack.cli(*argv, "--json").stdout)
    assert told["unreadable"] == 0 and told["left"] == 0 and left <= told["sealed"] + 100, (told, left)
    assert stack.cli(*argv).stdout.startswith(b"0 sealed anew")
    for table in ("agent_secrets", "invocation_env"):
        assert key_id(stack, table) == {told["key_id"]} != first
    # 4. the old key goes
    before = stack.executors[1]
    stack.add_executor(SANDPIPER_ENV_PRIVATE_KEY_FILE=str(new["private"]))
    assert before.stop(60) == 0
    load.some_more()
    assert load.end() >= 48
    assert stack.count("select count(*) from results where status <> 1") == 0
    assert stack.count("select count(*) from attempts where reason like 'secret%'") == 0


def test_what_a_rotation_cannot_do_is_said(stack, tmp_path):
    put(stack.client, "FIXED", "stays")
    stack.cli("secrets", "init", str(tmp_path))
    new = str(tmp_path / "env-public.key")

    def rotate(private, public=new, status=2):
        r = stack.cli("secrets", "rotate-key", "--private-keys", str(private), "--public-key", str(public), check=False)
        assert r.returncode == status, r
        return r.stderr.decode() + r.stdout.decode()

    assert "does not hold the private key of" in rotate(stack.dir / "env-private.key")
    assert "cannot read" in rotate(tmp_path / "nothing") and "not a public key" in rotate(
        tmp_path / "env-private.key", tmp_path / "env-private.key")
    told = rotate(tmp_path / "env-private.key", status=1)  # the old one is missing
    assert "is not in the file" in told and "1 could not be opened" in told
    assert show(stack.client, "FIXED") == {"FIXED": "stays"}
    r = stack.cli("secrets", "rotate-key", check=False)
    assert r.returncode == 2 and b"--private-keys" in r.stderr


def test_an_executor_without_the_key_waits_for_one_that_has_it(stack, tmp_path):
    stack.executors[0].stop()
    stack.cli("secrets", "init", str(tmp_path))
    wrong = stack.add_executor(SANDPIPER_ENV_PRIVATE_KEY_FILE=str(tmp_path / "env-private.key"))
    put(stack.client, "FIXED", "stays")
    id = stack.client.submit("show", '{"show": ["FIXED"]}').json["id"]
    wrong.said("SANDPIPER_ENV_PRIVATE_KEY_FILE names the file of its keys", 30)
    assert stack.client.get(id)["status"] in ("queued", "scheduled", "starting")
    stack.add_executor()
    wrong.stop()
    assert stack.client.end(id)["status"] == "succeeded"
    keyless = stack.client.submit("show", '{"show": ["FIXED"]}', queue_timeout_s=3)
    assert stack.client.end(keyless.json["id"])["status"] == "succeeded"
