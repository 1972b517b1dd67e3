"""Programs that try to use up a machine, and a neighbour that must not notice. Used by the tests and by the benchmark.

A bomb runs in a sandbox of its own as a Python program. It goes on until a limit stops it: either it is killed, or it says
"at the limit: ERRNO …" and holds on to all that it has until its sandbox is destroyed."""

import threading
import time

from sandboxd_client import until

HEAD = """
import array, ctypes, errno, fcntl, mmap, os, select, signal, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
held = []
leader = os.getpid()

def stop(error, words=''):
    if os.getpid() == leader:
        os.write(1, f'at the limit: {errno.errorcode.get(error, error)} {words}\\n'.encode())

def hold():
    while True:
        time.sleep(1000)

def crowd():
    # As many processes as may be; in each of them (the leader too) the caller goes on.
    while True:
        try:
            if os.fork() == 0:
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
                return
        except OSError:
            return

def call(name, *args):
    value = getattr(libc, name)(*args)
    if value < 0:
        raise OSError(ctypes.get_errno(), name)
    return value

def gather(one):
    n = 0
    try:
        while True:
            one(n)
            n += 1
    except OSError as e:
        stop(e.errno, n)
    hold()
"""


class Bomb:
    def __init__(self, name, what, script, killed=False, says=()):
        self.name, self.what, self.killed, self.says = name, what, killed, says
        self.script = HEAD + script

    def start(self, sandbox, user=None):
        return sandbox.start("/usr/bin/python3", "-c", self.script, user=user)


BOMBS = [
    Bomb("memory", "memory, page after page", "while True: held.append(bytearray(b'x') * (1 << 20))", killed=True),
    Bomb("fork", "processes that fork for ever", """
said = False
while True:
    try:
        os.fork()
    except OSError as e:
        if not said:
            stop(e.errno)
            said = True
""", says=("EAGAIN",)),
    Bomb("threads", "threads", """
def sleeper():
    time.sleep(1000)
n = 0
try:
    while True:
        threading.Thread(target=sleeper, daemon=True).start()
        n += 1
except RuntimeError:
    stop(errno.EAGAIN, n)
hold()
""", says=("EAGAIN",)),
    Bomb("disk", "a file that grows", """
f = os.open('big', os.O_WRONLY | os.O_CREAT)
gather(lambda n: os.write(f, b'x' * (1 << 20)))
""", says=("ENOSPC",)),
    Bomb("inodes", "empty files", "gather(lambda n: os.close(os.open(f'f{n}', os.O_WRONLY | os.O_CREAT)))", says=("ENOSPC",)),
    Bomb("sparse", "a file of terabytes without content, read", """
f = os.open('sparse', os.O_RDWR | os.O_CREAT)
size = 1 << 62
while size:
    try:
        os.ftruncate(f, size)
        break
    except OSError:
        size >>= 1
def one(n):
    if n * (1 << 20) >= min(size, 1 << 30):
        raise OSError(errno.EFBIG, 'read enough')
    os.pread(f, 1 << 20, n << 20)
gather(one)
""", says=("EFBIG",)),
    Bomb("shm", "files in /dev/shm", """
f = os.open('/dev/shm/big', os.O_WRONLY | os.O_CREAT)
gather(lambda n: os.write(f, b'x' * (1 << 20)))
""", says=("ENOSPC",)),
    Bomb("descriptors", "open files, in every process", """
crowd()
gather(lambda n: os.open('/dev/null', os.O_RDONLY))
""", says=("EMFILE",)),
    Bomb("pipes", "full pipes as large as may be, in every process", """
crowd()
def one(n):
    r, w = os.pipe()
    try:
        fcntl.fcntl(w, 1031, 1 << 20)
    except OSError:
        pass
    os.set_blocking(w, False)
    try:
        while os.write(w, b'x' * 65536):
            pass
    except BlockingIOError:
        pass
gather(one)
""", killed=None, says=("EMFILE",)),
    Bomb("sockets", "connections full of bytes, in every process", """
crowd()
server = socket.socket()
server.bind(('127.0.0.1', 0))
server.listen()
def one(n):
    a = socket.create_connection(server.getsockname(), 5)
    held.extend((a, server.accept()[0]))
    a.setblocking(False)
    try:
        while a.send(b'x' * 65536):
            pass
    except BlockingIOError:
        pass
gather(one)
""", killed=None, says=("EMFILE", "ENOBUFS", "ENOMEM", "ETIMEDOUT", "None")),
    Bomb("epoll", "epoll watches, in every process", """
crowd()
pipes = [os.pipe() for _ in range(20)]
def one(n):
    e = select.epoll()
    held.append(e)
    for r, w in pipes:
        e.register(r)
        e.register(w)
gather(one)
""", killed=None, says=("EMFILE", "ENOSPC")),
    Bomb("inotify", "inotify instances", "gather(lambda n: call('inotify_init'))", says=("EMFILE",)),
    Bomb("flight", "descriptors on their way through sockets", """
f = os.open('/dev/null', os.O_RDONLY)
def one(n):
    a, b = socket.socketpair()
    held.extend((a, b))
    a.setblocking(False)
    try:
        while True:
            a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [f] * 250))])
    except BlockingIOError:
        pass
gather(one)
""", says=("ETOOMANYREFS",)),
    Bomb("terminals", "terminals", "gather(lambda n: held.append(os.openpty()))", says=("ENOSPC", "EMFILE", "ENOENT", "EIO")),
    Bomb("queues", "POSIX message queues", """
def one(n):
    call('mq_open', f'/q{n}'.encode(), os.O_RDWR | os.O_CREAT, 0o600, None)
gather(one)
""", says=("EMFILE", "ENOSPC")),
    Bomb("segments", "System V shared memory, which outlives its maker", """
libc.shmat.restype = ctypes.c_void_p
def one(n):
    where = libc.shmat(call('shmget', 0, 16 << 20, 0o1600), None, 0)
    ctypes.memset(where, 1, 16 << 20)
gather(one)
""", killed=True),
    Bomb("signals", "signals that wait", """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
def one(n):
    value = ctypes.c_void_p(0)
    if libc.sigqueue(os.getpid(), int(signal.SIGRTMIN), value) < 0:
        raise OSError(ctypes.get_errno(), 'sigqueue')
gather(one)
""", says=("EAGAIN",)),
    Bomb("crashes", "programs that crash and would leave dumps", """
import resource
print('at the limit:', resource.getrlimit(resource.RLIMIT_CORE), flush=True)
while True:
    if os.fork() == 0:
        os.kill(os.getpid(), signal.SIGSEGV)
    os.wait()
""", says=("(0, 0)",)),
    Bomb("cpu", "endless loops, in every process", """
stop(0)
crowd()
while True:
    pass
""", says=("0",)),
    Bomb("flood", "output without end", """
stop(0)
while True:
    os.write(1, b'x' * 65536)
""", says=("0",)),
]

# What a program may expect of its sandbox: one of each thing that bombs use up.
PROBE = HEAD + """
r, w = os.pipe()
assert fcntl.fcntl(r, 1032) == 65536, 'pipes are cut short'
e = select.epoll()
e.register(r)
assert libc.inotify_add_watch(call('inotify_init'), b'/tmp', 0x100) > 0
a, b = socket.socketpair()
a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [r]))])
os.openpty()
server = socket.socket()
server.bind(('127.0.0.1', 0))
server.listen()
c = socket.create_connection(server.getsockname(), 10)
c.sendall(b'x' * 65536)
call('mq_unlink', b'/probe') if libc.mq_open(b'/probe', os.O_RDWR | os.O_CREAT, 0o600, None) >= 0 else stop(1)
call('shmctl', call('shmget', 0, 4096, 0o1600), 0, None)
t = threading.Thread(target=len, args=('',))
t.start()
t.join()
with open('probe.out', 'wb') as f:
    f.write(b'x' * 65536)
    os.fsync(f.fileno())
with open('/dev/shm/probe', 'wb') as f:
    f.write(b'x' * 65536)
pid = os.fork()
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
held.append(bytearray(b'x') * (8 << 20))
print('well')
"""


class Neighbour:
    """Does a small command again and again in a sandbox of its own, and makes new sandboxes meanwhile. Failures are kept,
    and so is the time of each create to its first output, by what was going on."""

    def __init__(self, daemon, probe=True):
        self.daemon, self.probe = daemon, probe
        self.sandbox = daemon.create(timeout=3600)
        self.phase, self.rounds, self.times, self.failures = "before", {}, {}, []
        self.ending = False
        self.thread = threading.Thread(target=self.live, daemon=True)
        self.thread.start()

    def once(self):
        phase = self.phase
        if self.probe:
            r = self.sandbox.start("/usr/bin/python3", "-c", PROBE, timeout_ms=60000).finish()
            if r.stdout != b"well\n":
                self.failures.append((phase, r.end, r.error, r.stdout, r.stderr))
        began = time.monotonic()
        with self.daemon.create() as s:
            stream = s.start("/bin/echo", "here").wait_for(b"here\n")
            took = time.monotonic() - began
            stream.finish()
        if phase == self.phase:
            self.times.setdefault(phase, []).append(took)
        self.rounds[phase] = self.rounds.get(phase, 0) + 1

    def live(self):
        while not self.ending:
            try:
                self.once()
            except BaseException as e:  # noqa: BLE001 - reported by well()
                self.failures.append((self.phase, repr(e)))

    def well(self, phase, rounds, seconds=120):
        """It was well in so many whole rounds of a phase."""
        self.phase = phase
        until(lambda: self.failures or self.rounds.get(phase, 0) >= rounds, seconds, f"{rounds} rounds {phase}")
        assert not self.failures, self.failures[:3]

    def end(self):
        self.ending = True
        self.thread.join(120)
        assert not self.failures, self.failures[:3]
        self.sandbox.kill()


def ended(stream):
    """Reads a bomb's stream until it says that it is at its limit, or was killed. (how, words)."""
    while b"\n" not in stream.stdout:
        if not stream.step():
            return "ended", f"{stream.end or stream.error}"
        if stream.end is not None:
            killed = stream.end["status"] == "signal: killed"
            how = "killed" if killed and stream.end["sandpiper"].get("oomKilled") else "ended"
            return how, f"{stream.end['status']} {stream.stderr[-300:].decode(errors='replace')}"
    line = stream.stdout.split(b"\n")[0].decode()
    assert line.startswith("at the limit:"), line
    return "held", line.removeprefix("at the limit: ")
