"""Attackers on a machine of their own, as far as one machine can give them one: a core, and a network namespace at the end of
a cable (a veth pair) whose packets that core handles. Over loopback the kernel does both ends' work where the sender runs, and
a server's core pays for its clients' network stacks too.

Needs root; without it the attackers have only their core, and that is said."""

import contextlib
import os
import signal
import subprocess

NEAR, FAR, ADDRESS, PEER = "spbench0", "spbench1", "10.213.177.1", "10.213.177.2"


def _run(*argv, check=True):
    return subprocess.run(argv, check=check, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _mask(cores):
    return f"{sum(1 << c for c in cores):x}"


class Apart:
    def __init__(self, cores, rest):
        self.cores, self.rest, self.holder = cores, rest, None
        self.address, self.prefix = "127.0.0.1", []

    def lay(self):
        """The namespace lives as long as its holder, the cable as long as the namespace."""
        self.holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c",
             "mount -t sysfs sysfs /sys && echo ready && exec sleep 3600"], stdout=subprocess.PIPE, text=True,
            start_new_session=True)
        if self.holder.stdout.readline() != "ready\n":
            raise OSError("no namespace")
        inside = ["nsenter", "-t", str(self.holder.pid), "--net", "--mount"]
        _run("ip", "link", "del", NEAR, check=False)
        _run("ip", "link", "add", NEAR, "type", "veth", "peer", "name", FAR, "netns", str(self.holder.pid))
        _run("ip", "addr", "add", f"{ADDRESS}/30", "dev", NEAR)
        _run("ip", "link", "set", NEAR, "up")
        _run(*inside, "ip", "addr", "add", f"{PEER}/30", "dev", FAR)
        _run(*inside, "ip", "link", "set", FAR, "up")
        _run(*inside, "sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65535")
        with open(f"/sys/class/net/{NEAR}/queues/rx-0/rps_cpus", "w") as f:
            f.write(_mask(self.rest))
        _run(*inside, "sh", "-c", f"echo {_mask(self.cores)} > /sys/class/net/{FAR}/queues/rx-0/rps_cpus")
        self.address, self.prefix = ADDRESS, inside

    def close(self):
        _run("ip", "link", "del", NEAR, check=False)
        if self.holder is not None:
            self.holder.send_signal(signal.SIGKILL)
            self.holder.wait()
            self.holder.stdout.close()


@contextlib.contextmanager
def apart(cores, rest, note):
    """What attackers run behind (`prefix`) and see the server at (`address`)."""
    a = Apart(cores, rest)
    try:
        try:
            if os.geteuid() != 0:
                raise OSError("not root")
            a.lay()
        except (OSError, subprocess.CalledProcessError) as e:
            why = (getattr(e, "stderr", None) or str(e)).strip()
            note(f"attackers have a core but no network of their own ({why}): both ends of their connections cost the server's core")
        yield a
    finally:
        a.close()
