"""README.md, followed to the letter: its commands are run as printed, in a fresh copy, and print what it says.

A ```sh block is typed into a terminal; the ```text block after it is what then stands there. In such a text

  * "…", with the white space around it, stands for anything, line ends included;
  * ids (inv_…) stand for any id, times for any time;
  * a span of time (0.5 s, 45s, 2m) stands for any, and a number for any number where it is the value of a key that ends in _ms or
    _bytes;
  * white space stands for white space: columns may be wider.

Everything else must be there, in this order, and nothing before or after it. A ```json block shows data that nobody prints.

All of it happens in namespaces of its own: there port 8080 is free, /tmp is empty, and what runs ends with the test. A developer's
quickstart beside it is not touched. The way out is slirp4netns's, for quickstart may have to fetch something."""

import os
import pathlib
import pty
import re
import select
import shutil
import subprocess
import tempfile
import termios
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
SKIPPED = {"tests/run"}  # this test is a part of it
FOREGROUND = {"deploy/quickstart": "running until Ctrl-C"}  # stays; and what it says when it is there
BUILD_SECONDS, COMMAND_SECONDS, STOP_SECONDS = 420, 120, 60

# ---- the page ----


class Block:
    def __init__(self, kind, line):
        self.kind, self.line, self.lines = kind, line, []

    @property
    def text(self):
        return "\n".join(self.lines)


def blocks_of(page):
    """The fenced blocks, and the indented ones (kind "indented")."""
    blocks, fenced = [], None
    for n, line in enumerate(page.splitlines(), 1):
        if fenced is None and line.startswith("```"):
            fenced = Block(line[3:].strip(), n)
            blocks.append(fenced)
        elif fenced is not None and line == "```":
            fenced = None
        elif fenced is not None:
            fenced.lines.append(line)
        elif line.startswith("    "):
            if not blocks or blocks[-1].kind != "indented" or blocks[-1].line + len(blocks[-1].lines) != n:
                blocks.append(Block("indented", n))
            blocks[-1].lines.append(line)
    assert fenced is None, f"README.md:{fenced.line}: the block has no end"
    return blocks


def bare(command):
    """Without the comment behind it."""
    return re.sub(r"\s+#.*", "", command).strip()


WILD = [(r"\s*…\s*", ".*"),
        (r"(?<=inv_|agt_)[0-9a-f]{8}-[0-9a-f-]{27}\b", "[0-9a-f-]{36}"),
        (r"\b\d{4}-\d\d-\d\dT[0-9:.]+Z", "[0-9T:.-]+Z"),
        (r'(?<=_ms":)\d+|(?<=_bytes":)\d+', "[0-9]+"),
        (r"\b\d+(?:\.\d+)? ?[smh]\b", "[0-9.]+ ?[smh]"),
        (r"\b\d+ ms\b", "[0-9.]+ m?s"),
        (r"\s+", r"\s+")]


def pattern(text):
    """A text of README.md as a regular expression."""
    out, at = "", 0
    for m in re.finditer("|".join(f"({source})" for source, _ in WILD), text):
        out += re.escape(text[at:m.start()]) + WILD[m.lastindex - 1][1]
        at = m.end()
    return re.compile(out + re.escape(text[at:]), re.DOTALL)


def test_the_rules():
    def same(expected, printed):
        return pattern(expected).fullmatch(printed) is not None

    assert same("words  6", "words   6") and not same("words  6", "words  7") and not same("words 6", "words 66")
    assert same("a\nb", "a\nb") and not same("a\nb", "a\nb\nc") and not same("a\nb", "x\na\nb")
    assert same("a, …\n b", "a,\"k\":1,\n\nb") and not same("a, … b", "a, c")
    assert same("deployed shout version 1 in 0.5 s", "deployed shout version 1 in 12.3 s")
    assert not same("deployed shout version 1 in 0.5 s", "deployed shout version 2 in 0.5 s")
    assert same('{"run_ms":1,"n":1}', '{"run_ms":222,"n":1}') and not same('{"run_ms":1,"n":1}', '{"run_ms":1,"n":2}')
    one, other = "inv_01a1fd5f-8385-7001-9b66-7ca8a28be6e9", "inv_00000000-8385-7001-9b66-7ca8a28be6e9"
    assert same(one, other) and not same(one, other[:-1]) and not same(one, other.replace("inv", "agt"))
    assert same("3  112 ms  0", "3  7 ms   0") and same("112 ms", "1.2 s") and not same("3 112 ms", "4 112 ms")
    assert same("2s  0.03s  1", "45s 1.20s 1") and not same("2s  0.03s  1", "2s 0.03s 2")
    assert same("45s 1", "3m 1") and not same("reading time 1 min", "reading time 2 min")
    assert same("at 2026-11-21T07:30:00.123Z.", "at 2027-01-01T00:00:00Z.") and not same("a.b", "axb")


def test_blocks_are_commands_and_outputs():
    """A block of commands that this test would not see is a mistake."""
    blocks = blocks_of(README.read_text())
    assert {b.kind for b in blocks} <= {"sh", "text", "json", "indented"}
    for before, b in zip([None] + blocks, blocks):
        assert b.kind != "text" or before.kind == "sh", f"README.md:{b.line}: the output of which command?"
        assert b.kind != "indented" or "──" in b.text, f"README.md:{b.line}: commands go into a fenced block"
    commands = [bare(line) for b in blocks if b.kind == "sh" for line in b.lines]
    assert SKIPPED | set(FOREGROUND) <= set(commands)


# ---- the machine ----


class Machine:
    """Namespaces with a fresh copy of this tree."""

    SETUP = r"""
        mount -t tmpfs -o mode=1777 tmpfs /tmp && mkdir /tmp/home && ip link set lo up || exit 1
        if grep -Eq '^nameserver (127\.|::1)' /etc/resolv.conf; then
            echo 'nameserver 10.0.2.3' >/tmp/home/resolv.conf
            mount --bind /tmp/home/resolv.conf "$(readlink -f /etc/resolv.conf)"
        fi
        echo ready
        sleep infinity & wait"""  # bash as the first process takes in orphans

    def __init__(self):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="sp-readme-", dir="/var/tmp"))
        self.dir = self.home / "sandpiper"
        self.copy()
        self.unshare = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc",
             "bash", "-c", self.SETUP], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.slirp = None
        assert self.unshare.stdout.readline() == "ready\n"
        self.pid = int(pathlib.Path(f"/proc/{self.unshare.pid}/task/{self.unshare.pid}/children").read_text().split()[0])
        self.connect()

    def copy(self):
        """What a clone would have, changes that are not committed included."""
        r = subprocess.run(["git", "-c", "safe.directory=*", "-C", ROOT, "ls-files", "-z", "-co", "--exclude-standard"],
                           capture_output=True, text=True)
        if r.returncode != 0:  # no repository: an archive of one
            shutil.copytree(ROOT, self.dir, symlinks=True, ignore=shutil.ignore_patterns("build*", ".sandpiper", ".cache", ".git"))
            return
        for name in filter(None, r.stdout.split("\0")):
            source, target = ROOT / name, self.dir / name
            if source.is_symlink() or source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)

    def connect(self):
        read, write = os.pipe()
        self.slirp = subprocess.Popen(
            ["slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback", f"--ready-fd={write}", str(self.pid), "tap0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=[write])
        os.close(write)
        assert select.select([read], [], [], 20)[0] and os.read(read, 1) == b"1", "slirp4netns does not start"
        os.close(read)

    def enter(self, argv):
        return ["nsenter", "-t", str(self.pid), "-a", f"--wd={self.dir}", "--", *argv]

    @property
    def env(self):
        kept = {k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")}
        return {**kept, "PATH": os.environ["PATH"], "HOME": "/tmp/home", "TERM": "xterm", "LANG": "C.UTF-8"}

    def processes(self):
        r = subprocess.run(self.enter(["ps", "-eo", "args="]), env=self.env, capture_output=True, text=True)
        return [line for line in r.stdout.splitlines() if not line.startswith(("ps -eo", "sleep infinity", "bash -c"))]

    def close(self):
        self.unshare.kill()  # and with it everything inside
        self.unshare.wait()
        self.unshare.stdout.close()
        if self.slirp:
            self.slirp.kill()
            self.slirp.wait()
        shutil.rmtree(self.home)


class Terminal:
    """A shell in a terminal. Blocks of commands come to it by a descriptor of its own, so that the terminal shows outputs alone."""

    # Ctrl-C is for the command that runs, as in a shell that one types into
    LOOP = r"""set -eo pipefail; trap : INT
        while IFS= read -r -d '' block <&3; do eval "$block" 3<&-; printf '\037'; done"""

    def __init__(self, machine):
        self.leader, follower = pty.openpty()
        mode = termios.tcgetattr(follower)
        mode[1] &= ~termios.OPOST
        mode[3] &= ~termios.ECHO
        termios.tcsetattr(follower, termios.TCSANOW, mode)
        read, self.blocks = os.pipe()

        # setsid: the terminal is the shell's, inside; nsenter would leave at Ctrl-C, and take the terminal along
        self.shell = subprocess.Popen(
            machine.enter(["setsid", "--ctty", "--wait", "bash", "--noprofile", "--norc", "-c",
                           f"exec 3<&{read} {read}<&-; {self.LOOP}"]),
            env=machine.env, stdin=follower, stdout=follower, stderr=follower, start_new_session=True, pass_fds=[read])
        os.close(follower)
        os.close(read)
        self.shown = b""

    def type(self, commands):
        os.write(self.blocks, commands.encode() + b"\0")

    def key(self, byte):
        os.write(self.leader, byte)

    def until(self, sign, seconds):
        """What is shown up to a sign, which is taken away with it."""
        end = time.monotonic() + seconds
        while sign not in self.shown:
            left = end - time.monotonic()
            assert left > 0, f"not within {seconds} s; so far: {self.clean(self.shown)}"
            if not select.select([self.leader], [], [], left)[0]:
                continue
            try:
                piece = os.read(self.leader, 65536)
            except OSError:  # its last process is gone
                piece = b""
            assert piece, f"a command failed: {self.clean(self.shown)}"
            self.shown += piece
        before, _, self.shown = self.shown.partition(sign)
        return self.clean(before)

    def run(self, commands):
        self.type(commands)
        return self.until(b"\037", COMMAND_SECONDS)

    @staticmethod
    def clean(shown):
        """As it stands there in the end: what a line's erasing left, without colours."""
        lines = (line.rpartition("\r\x1b[K")[2] for line in shown.decode(errors="replace").split("\n"))
        return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(lines)).strip()

    def close(self):
        os.close(self.blocks)
        os.close(self.leader)
        self.shell.wait(timeout=STOP_SECONDS)


@pytest.fixture
def machine():
    if os.geteuid() != 0:
        pytest.skip("namespaces and sandboxes need root")
    m = Machine()
    yield m
    m.close()


def special(block):
    """The commands of a block that are not simply run."""
    return [c for c in map(bare, block.lines) if c in SKIPPED or c in FOREGROUND]


def test_the_commands_work_as_printed(machine):
    blocks = blocks_of(README.read_text())
    first, second = Terminal(machine), Terminal(machine)
    compared = 0
    for block, after in zip(blocks, blocks[1:] + [None]):
        if block.kind != "sh":
            continue
        if special(block):
            assert special(block) == [bare(line) for line in block.lines], f"README.md:{block.line}: one by one, please"
            for command in special(block):
                if command in FOREGROUND:
                    first.type(command)
                    first.until(FOREGROUND[command].encode(), BUILD_SECONDS)
            continue
        printed = second.run(block.text)
        if after is not None and after.kind == "text":
            assert pattern(after.text.strip()).fullmatch(printed), (
                f"README.md:{after.line} says:\n{after.text}\n\nbut this was printed:\n{printed}")
            compared += 1
    assert compared == sum(b.kind == "text" for b in blocks) > 0
    first.key(b"\x03")
    first.until(b"\037", STOP_SECONDS)  # quickstart ended, with status 0
    second.close()
    first.close()
    left = machine.processes()
    assert left == [], left
