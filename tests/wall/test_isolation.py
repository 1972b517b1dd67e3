"""What a program in a sandbox cannot see or do: other processes, files, networks, the kernel's doors; and its limits."""

import os
import pathlib
import socket
import subprocess
import time

import pytest

from sandboxd_client import Daemon, until


def test_only_its_own_processes(box):
    seen = set(box.out("ps -e -o comm=").split())
    assert {"init", "ps"} <= seen <= {"init", "ps", "bash"}
    assert box.out("hostname") == box.id + "\n"


def test_no_files_of_the_host(box):
    assert box.out("ls /home; ls /opt /srv /mnt /media") .split("\n")[0] == "user"
    assert "root" not in box.out("ls -d /root/* /var/lib/* /boot 2>/dev/null; true")
    assert box.run("cat /etc/shadow").code != 0
    assert box.run("touch /usr/bin/x").code != 0
    assert box.out("test -e /sys/kernel && echo yes || echo no") == "no\n"


def test_no_capabilities(box):
    status = box.out("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status")
    for line in status.splitlines():
        name, value = line.split(":")
        assert int(value, 16) == {"NoNewPrivs": 1, "Seccomp": 2}.get(name, 0), status


@pytest.mark.parametrize("user", ["user", "root"])
def test_kernel_doors_are_shut(box, user):
    for command in ("mount -t tmpfs x /mnt", "unshare -r true", "unshare -n true", "chroot / true", "dmesg",
                    "mknod /tmp/disk b 8 0", "hostname other", "date -s 2001-01-01",
                    "echo 1 > /proc/sys/kernel/panic", "cat /proc/1/environ /proc/1/mem", "kill -9 1 && kill -0 99999"):
        assert box.run(command, user=user).code != 0, command
    assert box.out("echo alive") == "alive\n"
    probe = ("import ctypes,errno; libc=ctypes.CDLL(None,use_errno=True)\n"
             "for n in (321,250,165,175,310): pass\n"
             "bad=[n for n in (321,250,165,175,298) if libc.syscall(n,0,0,0,0,0)!=-1 or ctypes.get_errno()!=errno.EPERM]\n"
             "print(bad)")
    if os.uname().machine == "x86_64":  # bpf keyctl mount init_module perf_event_open
        assert box.start("/usr/bin/python3", "-c", probe, user=user).finish().stdout == b"[]\n"


def test_no_way_to_the_hosts_loopback(box):
    with socket.socket() as s:
        s.bind(("0.0.0.0", 0))
        s.listen()
        port = s.getsockname()[1]
        own = subprocess.run(["hostname", "-I"], capture_output=True, text=True).stdout.split()
        addresses = ["127.0.0.1", "10.0.2.2"] + [a for a in own if "." in a]
        probe = ("import socket,sys\n"
                 "for a in sys.argv[2:]:\n"
                 "  s=socket.socket(); s.settimeout(2)\n"
                 "  print(a, s.connect_ex((a,int(sys.argv[1])))!=0)\n")
        r = box.start("/usr/bin/python3", "-c", probe, str(port), *addresses, "169.254.169.254").finish()
        assert r.stdout.decode().split("\n")[:-1] == [f"{a} True" for a in [*addresses, "169.254.169.254"]]


def test_sandboxes_do_not_see_each_other(daemon, box):
    with daemon.create() as other:
        box.start("/usr/bin/python3", "-m", "http.server", "8000").wait_start()
        until(lambda: box.run("curl -s -o /dev/null http://127.0.0.1:8000/").code == 0, 10, "its own server answers")
        assert other.run("curl -s -m 2 -o /dev/null http://127.0.0.1:8000/").code != 0
        assert other.run("curl -s -m 2 -o /dev/null http://10.0.2.100:8000/").code != 0
        box.out("touch /tmp/mine")
        assert other.run("test -e /tmp/mine").code != 0


def test_no_internet_when_told(daemon):
    with daemon.create(allow_internet_access=False) as s:
        assert s.out("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' \\n'") == "lo"
    with daemon.create() as s:
        assert "tap0" in s.out("cat /proc/net/dev")


def test_memory_limit(box):
    r = box.start("/usr/bin/python3", "-c", "x = bytearray(1 << 30)\nfor i in range(0, len(x), 4096): x[i] = 1").finish()
    assert r.end["status"] == "signal: killed" and r.end["sandpiper"]["oomKilled"] is True
    assert int(r.end["sandpiper"]["peakMemoryBytes"]) > 200 << 20
    again = box.run("echo alive")
    assert again.stdout == b"alive\n" and "oomKilled" not in again.end["sandpiper"]


def test_disk_limit(box):
    r = box.run("head -c 200m /dev/zero > big")
    assert r.code != 0 and b"No space left" in r.stderr
    box.out("rm big; echo ok > small")
    full = box.call("POST", "/files?path=f", b"x" * (80 << 20), **{"Content-Type": "application/octet-stream"})
    assert full.status == 507, full.body


def test_cpu_limit():
    d = Daemon(cpus=1).start()
    try:
        with d.create() as s:
            began = time.monotonic()
            r = s.run("for i in 1 2 3 4; do timeout 2 sh -c 'while :; do :; done' & done; wait")
            used, spent = int(r.end["sandpiper"]["cpuMs"]) / 1000, time.monotonic() - began
            assert used <= 1.3 * spent + 0.2
    finally:
        d.remove()
