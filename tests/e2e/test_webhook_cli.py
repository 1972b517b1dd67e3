"""webhooks and listen of the command line."""

import json
import subprocess

import pytest

from sim_stack import AGENT, SimStack
from stack import BIN, until
from webhook_receiver import OPEN, Receiver


@pytest.fixture(scope="module")
def stack():
    s = SimStack(**OPEN, SANDPIPER_WEBHOOK_SCHEDULE="100ms")
    try:
        yield s.start()
    finally:
        s.stop()


@pytest.fixture
def receiver():
    r = Receiver()
    yield r
    r.close()


def out(r):
    return r.stdout.decode()


def test_an_endpoint_from_its_making_to_its_end(stack, receiver):
    cli = stack.cli
    assert "Try: sandpiper webhooks create" in out(cli("webhooks", "list"))
    made = cli("webhooks", "create", receiver.url(), "--events", "invocation.succeeded,batch.*", "--description", "mine")
    fields = dict(line.split(None, 1) for line in out(made).splitlines())
    assert fields["url"] == receiver.url() and fields["secret"].startswith("whsec_")
    assert b"this once" in made.stderr
    id = fields["id"]
    assert id in out(cli("webhooks", "list")) and "whsec_" not in out(cli("webhooks", "list", "--json"))
    tested = out(cli("webhooks", "test", id))
    got = receiver.wait(1)[0]
    assert got.id in tested and got.verify(fields["secret"])
    stack.client.run(AGENT, "x")
    got = receiver.wait(2)[1]
    until("both are in the log", lambda: out(cli("webhooks", "deliveries", id)).count("delivered") == 2)
    assert got.id in out(cli("webhooks", "deliveries", id, "--limit", "1"))
    assert got.id in out(cli("webhooks", "redeliver", id, got.id))
    assert receiver.wait(3)[2].id == got.id
    until("the outbox is empty", lambda: stack.count("select count(*) from outbox") == 0)
    assert out(cli("webhooks", "replay", id, "--since", "1h")) == "on their way: 0\n"
    assert out(cli("webhooks", "replay", id, "--since", "1h", "--all")) == "on their way: 1\n"
    receiver.wait(4)
    rotated = json.loads(out(cli("webhooks", "rotate", id, "--overlap", "60", "--json")))
    stack.client.run(AGENT, "x")
    got = receiver.wait(5)[4]
    assert got.verify(rotated["secret"]) and got.verify(fields["secret"])
    assert "enabled" in out(cli("webhooks", "enable", id))
    assert out(cli("webhooks", "delete", id)) == f"deleted {id}\n"
    gone = cli("webhooks", "delete", id, check=False)
    assert gone.returncode == 3 and b"there is no webhook of that id" in gone.stderr


@pytest.mark.parametrize("argv,status,words", [
    (["webhooks"], 2, "too few arguments"), (["webhooks", "made"], 2, "there is no command webhooks made"),
    (["webhooks", "create"], 2, "takes 1 argument"), (["webhooks", "test", "../x"], 2, "is no id"),
    (["webhooks", "replay", "whk_1"], 2, "--since"), (["webhooks", "replay", "whk_1", "--since", "soon"], 2, "--since"),
    (["webhooks", "create", "http://10.0.0.1/"], 3, "SANDPIPER_WEBHOOK_ALLOW_ADDRESSES"),
    (["webhooks", "create", "https://x.example/", "--events", "invocation.fail"], 3, "invocation.failed"),
    (["listen", "--forward", "localhost:3000"], 2, "--forward needs"), (["secrets"], 2, "too few"),
    (["secrets", "make", "/tmp"], 2, "there is no command secrets make"),
    (["secrets", "init", "/nonexistent"], 2, "cannot make"),
])
def test_what_is_wrong_is_said(stack, argv, status, words):
    r = stack.cli(*argv, check=False)
    assert r.returncode == status and words in r.stderr.decode(), r.stderr


def test_secrets_init_overwrites_nothing(stack, tmp_path):
    stack.cli("secrets", "init", str(tmp_path))
    private = tmp_path / "webhook-private.key"
    before = private.read_text()
    assert before.startswith("spkey_") and private.stat().st_mode & 0o077 == 0
    assert (tmp_path / "webhook-public.key").read_text().startswith("sppub_")
    (tmp_path / "env-private.key").rename(tmp_path / "kept")
    half = stack.cli("secrets", "init", str(tmp_path), check=False)
    assert half.returncode == 2 and b"is there without" in half.stderr
    (tmp_path / "kept").rename(tmp_path / "env-private.key")
    for what in ("webhook", "env"):
        (tmp_path / f"{what}-private.key").rename(tmp_path / "private")
        (tmp_path / f"{what}-public.key").unlink()
        (tmp_path / "private").unlink()
        others = {p: p.read_text() for p in tmp_path.iterdir()}
        again = stack.cli("secrets", "init", str(tmp_path), "--json")
        made = json.loads(again.stdout)
        assert made[what]["made"] and not all(x["made"] for x in made.values())
        assert all(p.read_text() == text for p, text in others.items()) and len(list(tmp_path.iterdir())) == 4


def listen(stack, *argv):
    env = {**stack.env, "SANDPIPER_URL": f"http://127.0.0.1:{stack.gateways[0].port}", "SANDPIPER_API_KEY": stack.key}
    before = len(stack.client.call("GET", "/v1/webhooks").json["data"])
    p = subprocess.Popen([str(BIN / "sandpiper"), "listen", *argv], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until("it listens", lambda: len(stack.client.call("GET", "/v1/webhooks").json["data"]) > before)
    return p


def test_listen_verifies_prints_and_forwards(stack, receiver):
    p = listen(stack, "--forward", receiver.url("/local"), "--count", "3", "--events", "invocation.*")
    ids = [stack.client.run(AGENT, f"job {i}")["id"] for i in range(3)]
    stdout, stderr = p.communicate(timeout=60)
    assert p.returncode == 0, stderr
    lines = stdout.decode().splitlines()
    assert len(lines) == 3 and all("invocation.succeeded" in x and x.endswith("verified") for x in lines)
    assert [x.split()[2] for x in lines] == ids
    got = receiver.wait(3)
    assert [g.json["data"]["id"] for g in got] == ids and all(g.path == "/local" for g in got)
    assert all(g.headers["webhook-signature"].startswith("v1,") for g in got)
    assert stderr.decode().count("-> ") == 3 and " 200" in stderr.decode()
    assert stack.client.call("GET", "/v1/webhooks").json["data"] == []


def test_listen_as_json_and_ended_by_a_signal(stack):
    p = listen(stack, "--json")
    stack.client.run(AGENT, "as json")
    line = json.loads(p.stdout.readline())
    assert line["verified"] is True and line["body"]["type"] == "invocation.succeeded"
    p.send_signal(2)
    p.communicate(timeout=30)
    assert p.returncode in (0, 130)
    until("its stream is gone", lambda: stack.client.call("GET", "/v1/webhooks").json["data"] == [])
