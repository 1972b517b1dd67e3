"""How programs end, and what the host says of it: memory, signals, children left behind, streams nobody reads. And that
nothing at all is left of a sandbox that was destroyed."""

import base64
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading

import pytest

from sandboxd_client import Daemon, leftovers, until

UID_BASE = 2_600_000_000  # of this file's host alone: whose ids lie above it is in one of its sandboxes
UID_END = UID_BASE + 65536 * 8193

EAT = "python3 -c 'held = []\nwhile True: held.append(bytearray(b\"x\") * (1 << 20))'"


class Host(Daemon):
    def start(self, *flags, **kw):
        self.slirp = pathlib.Path(tempfile.mkdtemp(prefix="sbp", dir="/var/tmp")) / "slirp4netns"
        self.slirp.symlink_to("/usr/bin/slirp4netns")
        self.config["slirp"] = self.slirp
        return super().start(*flags, **kw)

    def remove(self):
        super().remove()
        shutil.rmtree(self.slirp.parent)

    def processes(self):
        """Those inside sandboxes."""
        return [pid for pid in os.listdir("/proc") if pid.isdigit() and UID_BASE <= owner(pid) < UID_END]

    def slirps(self):
        return subprocess.run(["pgrep", "-fc", f"^{self.slirp} "], capture_output=True, text=True).stdout.strip()

    def images(self):
        return list((self.dir / "data" / "disks").iterdir())

    def loops(self):
        text = subprocess.run(["losetup", "-a"], capture_output=True, text=True).stdout
        return sum(str(self.dir) in line for line in text.splitlines())

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def cells(self):
        parents = (self.dir / "data" / "cgroups").read_text().split()
        return {p.name for parent in parents for p in pathlib.Path(parent).glob("cell-*")}

    def state(self):
        return len(self.cells()), self.slirps(), self.loops(), self.descriptors(), self.images()


def owner(pid):
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return 0


@pytest.fixture(scope="module")
def daemon():
    d = Host(uid_base=UID_BASE).start()
    try:
        yield d
        d.stop()
        until(lambda: not leftovers(d) and not d.processes() and d.slirps() == "0", 10, "nothing is left")
    finally:
        d.remove()


def own(r):
    return r.end["sandpiper"].get("oomKilled", False)


# ---- memory ----


def test_the_program_itself_is_out_of_memory(box):
    r = box.run("exec " + EAT)
    assert r.end["status"] == "signal: killed" and "exited" not in r.end and own(r)


def test_a_child_is_out_of_memory_and_its_parent_goes_on(box):
    r = box.run(EAT + "; echo going on; exit 0")
    assert (r.code, r.stdout) == (0, b"going on\n") and r.end["exited"] and not own(r)


def test_a_child_is_out_of_memory_and_its_parent_says_something_else(box):
    r = box.run(EAT + " || exit 3")
    assert r.code == 3 and not own(r)


def test_a_shell_tells_of_a_child_out_of_memory_by_137(box):
    r = box.run(EAT + "; exit $?")
    assert r.code == 137 and r.end["exited"] and own(r)


def test_137_without_an_empty_memory_is_only_137(box):
    assert not own(box.run("exit 137"))
    r = box.run("kill -9 $$")
    assert r.end["status"] == "signal: killed" and not own(r)


def test_a_program_beside_one_out_of_memory_is_not_out_of_memory(box):
    s = box.start("/bin/bash", "-c", "while [ ! -e go ]; do sleep 0.05; done; exit 0").wait_start()
    t = box.start("/bin/sleep", "1000").wait_start()
    assert own(box.run("exec " + EAT))
    box.out("touch go")
    assert s.finish().code == 0 and not own(s)
    box.rpc("process.Process/SendSignal", {"process": {"pid": t.pid}, "signal": "SIGNAL_SIGKILL"})
    assert t.finish().end["status"] == "signal: killed" and not own(t)  # its client did that


def test_the_sandbox_outlives_its_programs_memory(box):
    for _ in range(3):
        assert own(box.run("exec " + EAT))
    assert box.out("echo alive") == "alive\n"


# ---- signals and exit codes ----


@pytest.mark.parametrize("command, status", [
    ("kill -SEGV $$", "signal: segmentation fault"),
    ("kill -TERM $$", "signal: terminated"),
    ("exec python3 -c 'import os; os.abort()'", "signal: aborted"),
    ("exit 255", "exit status 255"),
    ("exit 256", "exit status 0"),
])
def test_endings_have_their_names(box, command, status):
    assert box.run(command).end["status"] == status


# ---- children left behind ----


DAEMON = "(setsid sh -c 'sleep 88001 & exec sleep 88002' {} &) ; echo mine"


def test_a_daemon_with_its_output_shut_does_not_hold_the_end_back(box):
    r = box.run(DAEMON.format("</dev/null >/dev/null 2>&1"), timeout_ms=30000)
    assert (r.code, r.stdout, r.error) == (0, b"mine\n", None)
    assert "sleep 88001" in box.out("ps -eo args")  # it lives on, as on any machine


def test_a_child_that_holds_the_output_is_waited_for(box):
    r = box.run("(sleep 0.5; echo late) & echo early")
    assert (r.code, r.stdout) == (0, b"early\nlate\n")


def test_a_daemon_that_holds_the_output_is_not_the_programs_failure(box):
    r = box.run(DAEMON.format(""), timeout_ms=1500)
    assert (r.code, r.stdout, r.error) == (0, b"mine\n", None) and r.end["exited"]
    r = box.run("sleep 88003 & exit 7", timeout_ms=1500)
    assert (r.code, r.error) == (7, None)


def test_a_limit_that_comes_after_the_end_changes_nothing(box):
    r = box.run("sleep 0.3; sleep 88004 & exit 6", timeout_ms=800)  # while its output is still awaited
    assert (r.code, r.error) == (6, None)


def test_a_program_beyond_its_limit_is_beyond_its_limit(box):
    r = box.run("sleep 88005 & sleep 88006", timeout_ms=500)
    assert r.end is None and r.error["code"] == "deadline_exceeded"


# ---- stdin ----


def send(box, pid, data):
    return box.rpc("process.Process/SendInput", {"process": {"pid": pid}, "input": {"stdin": base64.b64encode(data).decode()}})


def test_input_that_is_never_read(box):
    s = box.start("/bin/bash", "-c", "while [ ! -e go ]; do sleep 0.05; done; echo done", stdin=True).wait_start()
    assert send(box, s.pid, b"x" * 1000).status == 200
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(send(box, s.pid, b"x" * 1_000_000)))  # more than a pipe holds
    waiting.start()
    box.out("touch go")
    assert s.finish().stdout == b"done\n" and s.code == 0
    waiting.join(20)
    assert answers and answers[0].status in (404, 500), answers


def test_a_program_that_shuts_its_input(box):
    s = box.start("/bin/bash", "-c", "exec <&-; echo shut; while [ ! -e go2 ]; do sleep 0.05; done", stdin=True).wait_for(b"shut\n")
    assert send(box, s.pid, b"x").status == 500
    box.out("touch go2")
    assert s.finish().code == 0


# ---- output ----


def test_a_flood_that_is_read_arrives_whole(box):
    size, seen = 256 << 20, 0
    s = box.start("/bin/bash", "-c", f"head -c {size} /dev/zero")
    while (f := s.frame()) is not None:
        seen += len(base64.b64decode(f[1].get("event", {}).get("data", {}).get("stdout", "")))
        s.end = f[1].get("event", {}).get("end", s.end)
    assert (seen, s.code) == (size, 0)


def resident(daemon):
    status = pathlib.Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) << 10


def test_a_flood_that_nobody_reads_waits(daemon):
    with daemon.create() as s:
        before = resident(daemon)
        floods = [s.start("/bin/bash", "-c", "cat /dev/zero").wait_start() for _ in range(8)]
        for _ in range(20):  # work goes on meanwhile
            assert s.out("echo fine") == "fine\n"
        assert resident(daemon) - before < 48 << 20
        for f in floods[:4]:
            f.close()  # output of these is dropped from now on
        assert s.out("echo fine") == "fine\n"
        s.kill()
        for f in floods[4:]:
            f.finish()
            assert f.end is None and f.error["code"] == "unavailable"


# ---- nothing is left ----


LEAVE = {
    "a daemon": DAEMON.format("</dev/null >/dev/null 2>&1"),
    "a daemon that holds the output": DAEMON.format(""),
    "deaf to signals": "(trap '' HUP INT TERM; sleep 88007) & (trap '' HUP INT TERM; setsid sleep 88008 &)",
    "stopped": "sleep 88009 & kill -STOP $!",
    "zombies": "python3 -c 'import os, time\nfor i in range(20):\n  if os.fork() == 0: os._exit(0)\nos.fork() or time.sleep(1000)' &",
    "sockets": "python3 -m http.server 9000 >/dev/null 2>&1 &",
    "open and removed": "exec 9>gone; rm gone; head -c 20000000 /dev/zero >&9; sleep 88010 &",
    "mapped": "python3 -c 'import mmap, time; m = mmap.mmap(-1, 50 << 20); m.write(b\"x\" * (50 << 20)); time.sleep(1000)' &",
    "a fork bomb": ":(){ :|:& };: 2>/dev/null",
}


@pytest.mark.parametrize("left", LEAVE)
def test_nothing_is_left(daemon, left):
    until(lambda: not daemon.processes() and len(daemon.cells()) == 2 and not daemon.images(), 20, "the host is calm")
    before = daemon.state()
    with daemon.create() as s:
        s.start("/bin/bash", "-c", LEAVE[left] + "\necho left").wait_start()
        until(lambda: len(daemon.processes()) > 1, 10, "it lives")
    until(lambda: not daemon.processes(), 10, "every process has ended")
    until(lambda: daemon.state() == before, 20, f"{before}, now {daemon.state()}")


def test_nothing_is_left_when_its_time_to_live_ends(daemon):
    until(lambda: not daemon.processes() and len(daemon.cells()) == 2, 20, "the host is calm")
    before = daemon.state()
    s = daemon.create(timeout=1)
    s.start("/bin/bash", "-c", LEAVE["deaf to signals"]).wait_start()
    until(lambda: s.call("GET", "/health").status == 502, 10, "it ends")
    until(lambda: not daemon.processes() and daemon.state() == before, 20, "nothing is left")
