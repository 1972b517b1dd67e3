"""invoke --attach and artifacts: what goes in and comes out by the command line."""

import json
import os

import pytest

from files_client import MAKER, random_bytes, sha256
from stack import until


@pytest.fixture(scope="module")
def maker(stack):
    stack.client.deploy("maker", MAKER)
    return stack


def test_attach(maker, tmp_path):
    big, odd = random_bytes(9_000_000), b"x"
    (tmp_path / "big.bin").write_bytes(big)
    (tmp_path / "a=b").write_bytes(odd)
    order = json.dumps({"look": ["big.bin", "sub/other", "a=b"]})
    argv = ["invoke", "maker", order, "--attach", f"{tmp_path}/big.bin", "--attach", f"{tmp_path}/big.bin=sub/other",
            "--attach", f"{tmp_path}/a=b"]
    seen = json.loads(maker.cli(*argv).stdout)
    assert seen == {"big.bin": [len(big), sha256(big), False], "sub/other": [len(big), sha256(big), False],
                    "a=b": [1, sha256(odd), False]}
    assert json.loads(maker.cli(*argv, "--stream").stdout) == seen
    keyed = [maker.cli(*argv, "--no-wait", "--idempotency-key", "attach-1").stdout for _ in range(2)]
    assert keyed[0] == keyed[1]


@pytest.mark.parametrize("item, says", [("nowhere", "No such file"), ("{dir}", "is no file"), ("{dir}/f=../up", "cannot be the name"),
                                        ('{dir}/f=a"b', "cannot be the name")])
def test_attach_refuses(maker, tmp_path, item, says):
    (tmp_path / "f").write_text("x")
    r = maker.cli("invoke", "maker", "{}", "--attach", item.format(dir=tmp_path), check=False)
    assert r.returncode == 2 and says in r.stderr.decode(), r.stderr


@pytest.fixture(scope="module")
def left(maker):
    return maker.client.run("maker", json.dumps({"make": {"out/big": 5_000_000, "out/d/e/small": 3, "out/empty": 0}}))


def test_listing(maker, left):
    lines = maker.cli("artifacts", left["id"]).stdout.decode().splitlines()
    assert [line.split()[::2] for line in lines] == [["BYTES", "PATH"], ["5000000", "big"], ["3", "d/e/small"], ["0", "empty"]]
    assert json.loads(maker.cli("artifacts", left["id"], "ls", "--json").stdout)["artifacts"] == left["artifacts"]
    assert maker.cli("artifacts", "inv_nonsense", check=False).returncode == 3
    assert maker.cli("artifacts", left["id"], "put", check=False).returncode == 2


def hashes(directory):
    return {str(p.relative_to(directory)): sha256(p.read_bytes()) for p in directory.rglob("*") if p.is_file()}


def test_downloading_all(maker, left, tmp_path):
    to = tmp_path / "to"
    want = {f["path"]: f["sha256"] for f in left["artifacts"]}
    maker.cli("artifacts", left["id"], "-o", str(to))
    assert hashes(to) == want
    maker.cli("artifacts", left["id"], "-o", str(to))
    (to / "empty").write_text("mine")
    r = maker.cli("artifacts", left["id"], "-o", str(to), check=False)
    assert r.returncode == 1 and "differs" in r.stderr.decode() and (to / "empty").read_text() == "mine"


def test_a_download_is_gone_on_with_and_verified(maker, left, tmp_path):
    to = tmp_path / "big"
    maker.cli("artifacts", left["id"], "get", "big", "-o", str(to))
    whole = to.read_bytes()
    assert sha256(whole) == left["artifacts"][0]["sha256"]
    to.unlink()
    (tmp_path / "big.part").write_bytes(whole[:3_000_000])
    maker.cli("artifacts", left["id"], "get", "big", "-o", str(to))
    assert to.read_bytes() == whole and not (tmp_path / "big.part").exists()
    to.unlink()
    (tmp_path / "big.part").write_bytes(b"\0" * 3_000_000)
    r = maker.cli("artifacts", left["id"], "get", "big", "-o", str(to), check=False)
    assert r.returncode == 1 and "SHA-256" in r.stderr.decode() and not to.exists()
    assert maker.cli("artifacts", left["id"], "get", "none", check=False).returncode == 1


def test_nothing_is_written_outside_the_directory(maker, left, tmp_path):
    to, outside = tmp_path / "to", tmp_path / "outside"
    to.mkdir()
    outside.mkdir()
    os.symlink(outside, to / "d")
    r = maker.cli("artifacts", left["id"], "-o", str(to), check=False)
    assert r.returncode == 1 and not list(outside.iterdir()), r.stderr
    (to / "d").unlink()
    victim = tmp_path / "victim"
    victim.write_text("kept")
    os.symlink(victim, to / "empty.part")
    maker.cli("artifacts", left["id"], "-o", str(to), check=False)
    assert victim.read_text() == "kept"


def test_nothing_is_left(maker):
    until("all files belong to something", lambda: maker.count("select count(*) from file_sets") == 0)
