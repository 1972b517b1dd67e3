"""Each bomb is stopped by its own sandbox's limits, its neighbours notice nothing, and the machine gets everything back."""

import contextlib
import os
import pathlib
import time

import pytest

from bombs import BOMBS, Neighbour, ended
from sandboxd_client import Daemon, leftovers, until

ROUNDS = 3
OTHER_IDS = 3_200_000_000  # for hosts beside the first: the kernel counts by user id, and equal ids share its limits
# Together the bombs of this file take five times as much; other programs of the machine take and give some meanwhile.
LEAK_BYTES, LEAK_FILES = 1 << 30, 8000


def machine():
    meminfo = dict(line.split(":") for line in pathlib.Path("/proc/meminfo").read_text().splitlines())
    return {
        "memory": int(meminfo["MemAvailable"].split()[0]) << 10,
        "files": int(pathlib.Path("/proc/sys/fs/file-nr").read_text().split()[0]),
    }


@pytest.fixture(scope="module")
def before():
    return machine()


@pytest.fixture(scope="module")
def neighbour(daemon):
    n = Neighbour(daemon)
    yield n
    n.end()


def cells(daemon):
    return sum(len(list(pathlib.Path(p).glob("cell-*"))) for p in (daemon.dir / "data" / "cgroups").read_text().split())


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda b: b.name)
def test_bomb(daemon, before, neighbour, bomb):
    neighbour.well("before " + bomb.name, 1)
    with daemon.create() as target:
        stream = bomb.start(target)
        how, words = ended(stream)
        if bomb.killed is not None:
            assert how == ("killed" if bomb.killed else "held"), (how, words)
        if how == "held":
            assert words.startswith(bomb.says), words
        else:
            assert how == "killed", (how, words)
        neighbour.well("during " + bomb.name, ROUNDS)
    neighbour.well("after " + bomb.name, 1)


def test_what_root_inside_can_do_is_no_more(daemon, neighbour):
    for bomb in BOMBS:
        if bomb.name in ("fork", "descriptors", "inotify", "flight", "terminals", "queues", "shm"):
            with daemon.create() as target:
                how, words = ended(bomb.start(target, user="root"))
                assert how == "held" and words.startswith(bomb.says), (bomb.name, how, words)
                neighbour.well(f"during {bomb.name} as root", 1)


def test_all_at_once(daemon, neighbour):
    neighbour.well("before all", 1)
    with contextlib.ExitStack() as stack:
        targets = [stack.enter_context(daemon.create()) for _ in BOMBS]
        streams = [bomb.start(target) for bomb, target in zip(BOMBS, targets)]
        for bomb, stream in zip(BOMBS, streams):
            assert ended(stream)[0] in ("held", "killed"), bomb.name
        neighbour.well("during all", ROUNDS)
    neighbour.well("after all", 1)


def test_the_machine_has_everything_back(before):
    def back():
        now = machine()
        return now["memory"] > before["memory"] - LEAK_BYTES and now["files"] < before["files"] + LEAK_FILES

    until(back, 60, f"{before} comes back, now {machine()}")


def test_full_disks_come_back():
    d = Daemon(disk="1g", uid_base=OTHER_IDS).start()
    try:
        free = lambda: os.statvfs(d.dir).f_bfree * os.statvfs(d.dir).f_frsize  # noqa: E731
        before = free()
        for _ in range(3):
            with d.create() as s:
                r = s.run("cat /dev/zero > big", timeout_ms=60000)
                assert r.code == 1 and b"No space left" in r.stderr
        until(lambda: free() > before - LEAK_BYTES, 30, f"{before} bytes free again, now {free()}")
    finally:
        d.remove()


def test_the_daemon_is_as_before():
    """Its descriptors, and the cells: as many as it keeps ready."""
    d = Daemon(files="256", uid_base=OTHER_IDS).start()
    try:
        def calm():
            state = (len(os.listdir(f"/proc/{d.process.pid}/fd")), cells(d))
            time.sleep(0.3)  # cells being built come and go: a state counts when it stays
            return state if state == (len(os.listdir(f"/proc/{d.process.pid}/fd")), cells(d)) else None

        before = until(calm, 20, "the daemon is calm")
        for bomb in BOMBS:
            with d.create() as target:
                ended(bomb.start(target))
        until(lambda: calm() == before, 30, f"{before} again")
        d.stop()
        until(lambda: not leftovers(d), 10, "nothing is left")
    finally:
        d.remove()
