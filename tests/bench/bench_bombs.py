"""Hostile programs in one sandbox, and what their neighbours feel: the time from a create to its first output, before and
while each bomb holds all that it can get. No peer: the figure to compare with is the one before."""

import os
import pathlib
import sys
import time

from harness import say

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "wall"))

from bombs import BOMBS, Neighbour, ended  # noqa: E402
from sandboxd_client import Daemon  # noqa: E402

SECONDS, FEWEST = 3, 20  # of a phase; creates in it
LIMITS = {"memory": "1g", "disk": "1g", "pids": 512, "files": 1024, "cpus": 2, "spare_cells": 8}


def phase(neighbour, name):
    neighbour.phase = name
    end = time.monotonic() + SECONDS
    while time.monotonic() < end or len(neighbour.times.get(name, [])) < FEWEST:
        time.sleep(0.05)
        if neighbour.failures:
            raise RuntimeError(f"the neighbour failed: {neighbour.failures[:2]}")
    times = sorted(neighbour.times[name])
    return [1000 * times[min(len(times) - 1, len(times) * p // 100)] for p in (50, 99)] + [len(times)]


def one(daemon, neighbour, bomb):
    before = phase(neighbour, "before " + bomb.name)
    neighbour.phase = "beginning"
    with daemon.create(timeout=600) as target:
        began = time.monotonic()
        how, words = ended(bomb.start(target))
        took = time.monotonic() - began
        during = phase(neighbour, "during " + bomb.name)
    if how == "killed":
        words = "out of memory"
    return [bomb.what, f"{how}: {words.strip()}", f"{took:.1f}", *(f"{t:.0f}" for t in before[:2]),
            *(f"{t:.0f}" for t in during[:2]), str(during[2])]


def run(figures):
    if os.geteuid() != 0:
        figures.absent("bombs", "sandboxes need root")
        return
    daemon = Daemon(**LIMITS)
    lines = []
    try:
        daemon.start()
        neighbour = Neighbour(daemon, probe=False)
        for bomb in BOMBS:
            say(f"bombs: {bomb.name} …")
            lines.append(one(daemon, neighbour, bomb))
        neighbour.end()
    finally:
        daemon.remove()
    figures.table("Bombs: how each ended, after how long, and its neighbours' create → first output in ms",
                  ["bomb", "ended", "s", "before p50", "p99", "during p50", "p99", "creates"], lines)
