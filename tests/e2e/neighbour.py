"""A machine beside this one, as sandboxes see it: a network namespace with an address that is not the host's, so that
sandboxes, which never reach the host itself, reach what listens there."""

import os
import secrets
import subprocess

import pytest


class Neighbour:
    def __init__(self):
        self.name = f"sp{secrets.token_hex(4)}"
        net = f"198.18.{secrets.randbelow(250)}.{4 * secrets.randbelow(62)}".rsplit(".", 1)
        here, there = (f"{net[0]}.{int(net[1]) + i}" for i in (1, 2))
        self.address, self.children = there, []
        ip = ["ip", "-n", self.name]
        try:
            for argv in (["ip", "netns", "add", self.name],
                         ["ip", "link", "add", f"{self.name}h", "type", "veth", "peer", "name", "eth0", "netns", self.name],
                         ["ip", "addr", "add", f"{here}/30", "dev", f"{self.name}h"], ["ip", "link", "set", f"{self.name}h", "up"],
                         [*ip, "addr", "add", f"{there}/30", "dev", "eth0"], [*ip, "link", "set", "eth0", "up"],
                         [*ip, "link", "set", "lo", "up"]):
                subprocess.run(argv, check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as e:
            self.close()
            pytest.skip(f"no network namespace can be made here: {e.stderr}")

    def start(self, *argv, **kw):
        child = subprocess.Popen(["ip", "netns", "exec", self.name, *map(str, argv)], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **kw)
        self.children.append(child)
        return child

    def close(self):
        for child in self.children:
            if child.poll() is None:
                os.killpg(child.pid, 15)
                child.wait(timeout=10)
        subprocess.run(["ip", "link", "del", f"{self.name}h"], capture_output=True)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True)
