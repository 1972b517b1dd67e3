"""Fail-points (shared/base/failpoint.h): a file that daemons built for tests map. Arm an action at a named place, read how
often places were hit, step the wall clock. What is written is in force at once, also in daemons that run."""

import mmap
import pathlib
import re
import struct
import uuid

SOURCE = pathlib.Path(__file__).resolve().parents[2] / "shared/base/failpoint.h"
MAGIC = 0x31304B4145525753
HEADER = struct.Struct("<QIIq40x")
SLOT = struct.Struct("<40sQqqIIq16s")
HITS, SKIP, TIMES, ACTION, JOB, ARGUMENT, JOB_ID = 40, 48, 56, 64, 68, 72, 80
ACTIONS = {"kill": 1, "abort": 2, "stop": 3, "sleep": 4}


def table():
    """{name: what is so at that moment}, in the table's order."""
    rows = re.findall(r'^    X\((\w+),\s*(?:\\\n\s*)?"((?:[^"\\]|\\.)*)"\)', SOURCE.read_text(), re.M)
    assert len(rows) == SOURCE.read_text().count("    X("), "a row of the table has another form"
    return dict(rows)


class Failpoints:
    """One file. Give its path to daemons as SANDPIPER_FAILPOINTS; those that share it share its slots."""

    def __init__(self, path):
        self.path, self.names = pathlib.Path(path), list(table())
        slots = b"".join(SLOT.pack(n.encode(), 0, 0, 0, 0, 0, 0, b"") for n in self.names)
        self.path.write_bytes(HEADER.pack(MAGIC, len(self.names), SLOT.size, 0) + slots)
        with open(self.path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 0)

    @property
    def env(self):
        return {"SANDPIPER_FAILPOINTS": str(self.path)}

    def _at(self, name, offset=0):
        return HEADER.size + self.names.index(name) * SLOT.size + offset

    def _put(self, form, name, offset, value):
        struct.pack_into(form, self.map, self._at(name, offset), value)

    def _get(self, form, name, offset):
        return struct.unpack_from(form, self.map, self._at(name, offset))[0]

    def arm(self, name, action, skip=0, times=1, argument=0, job=None):
        """After `skip` more hits, `times` times. argument: of "sleep", milliseconds. job: an invocation's id; its hits alone."""
        self.disarm(name)
        self._put("<I", name, ACTION, ACTIONS[action])
        self._put("<q", name, SKIP, skip)
        self._put("<q", name, ARGUMENT, argument)
        if job:
            self._put("<16s", name, JOB_ID, uuid.UUID(job.split("_")[-1]).bytes)
            self._put("<I", name, JOB, 1)
        self._put("<q", name, TIMES, times)  # last: now it is armed

    def disarm(self, name):
        self._put("<q", name, TIMES, 0)
        self._put("<I", name, JOB, 0)

    def left(self, name):
        """Actions that were not done yet."""
        return self._get("<q", name, TIMES)

    def hits(self, name):
        return self._get("<Q", name, HITS)

    def clock(self, seconds):
        """Moves the daemons' wall clock away from the machine's by so much."""
        struct.pack_into("<q", self.map, 16, int(seconds * 1e6))


def coverage(files, known=None):
    """One line: how many of the table were hit in any of the files, and the names of those that never were."""
    names = list(known or table())
    never = [n for n in names if not any(f.hits(n) for f in files)]
    return f"fail-points: {len(names) - len(never)} of {len(names)} hit" + (f"; never: {' '.join(never)}" if never else "")
