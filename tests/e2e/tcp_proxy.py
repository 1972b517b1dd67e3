"""A TCP proxy that fails as it is told: what a network does on a bad day, between any two parts of a Sandpiper.

It knows nothing of what it carries. Each direction of a connection is a pump of its own: "up" is what the client says,
"down" is what the server answers. What holds is said for one direction or for both, at any moment, and holds for
connections that are open and for those to come:

    delay(20, jitter=5)   each piece arrives so many ms later, in order
    trickle(100)          so many bytes a second, for each connection
    hold()                nothing is forwarded, nor read: half-open, and both ends believe in the connection
    drop()                what is said goes nowhere, and both ends stay connected: what was dropped is lost for good, so
                          a connection that lost something is of no use afterwards and is reset when that heals
    cut(1000)             reset after so many more bytes of this direction, on each connection
    refuse()              new connections are reset at once
    reset()               all that are open are reset, now
    heal()                everything passes again; what was held goes on

One thread, epoll; about 100 MB/s, thousands of connections. Buffers are bounded: a slow reader slows its writer down."""

import collections
import contextlib
import heapq
import random
import selectors
import socket
import struct
import threading
import time

PIECE = 256 * 1024
WAITING_BYTES = 1024 * 1024  # of one direction of one connection
UP, DOWN, BOTH = "up", "down", "both"


class Way:
    """What holds for one direction."""

    def __init__(self):
        self.delay = self.jitter = 0.0
        self.rate = self.cut_after = None
        self.held = self.dropped = False


class Pump:
    """One direction of a connection."""

    def __init__(self, link, source, target, way):
        self.link, self.source, self.target, self.way = link, source, target, way
        self.waiting = collections.deque()  # (due, bytes)
        self.size = 0
        self.passed = 0  # bytes, for cut
        self.cut_at = None
        self.ended = self.closed = self.lost = False
        self.last_due = 0.0
        self.sent_until = 0.0  # a trickle's clock

    def reading(self):
        return not self.ended and not self.way.held and self.size < WAITING_BYTES

    def writing(self, now):
        return bool(self.waiting) and not self.way.held and self.waiting[0][0] <= now and self.sent_until <= now


class Link:
    """A connection and its other half."""

    def __init__(self, proxy, client, server):
        self.client, self.server = client, server
        self.up = Pump(self, client, server, proxy.ways[UP])
        self.down = Pump(self, server, client, proxy.ways[DOWN])
        self.connected = False
        self.events = {}
        self.woken_at = None

    def pumps(self):
        return (self.up, self.down)


class TcpProxy:
    """behind: ("127.0.0.1", port), or the path of a socket. Listens on a port of its own, or on listen (a path)."""

    def __init__(self, behind, listen=None, seed=0):
        self.behind, self.ways, self.refusing = behind, {UP: Way(), DOWN: Way()}, False
        self.random, self.links, self.timers, self.count = random.Random(seed), set(), [], 0
        self.accepted = self.refused = 0
        self.bytes = {UP: 0, DOWN: 0}
        self.orders, self.lock, self.closing = collections.deque(), threading.Lock(), False
        self.listener = socket.socket(socket.AF_UNIX if listen else socket.AF_INET)
        if not listen:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(listen or ("127.0.0.1", 0))
        self.listener.listen(4096)
        self.listener.setblocking(False)
        self.port = None if listen else self.listener.getsockname()[1]
        self.selector = selectors.EpollSelector()
        self.wake_out, self.wake_in = socket.socketpair()
        self.wake_out.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ, None)
        self.selector.register(self.wake_out, selectors.EVENT_READ, None)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    # ---- orders; each has taken effect when it returns ----

    def _order(self, fn):
        done = threading.Event()
        self.orders.append((fn, done))
        self.wake_in.send(b"x")
        assert done.wait(10), "the proxy does not answer"

    def _set(self, direction, **what):
        def change():
            for name in (UP, DOWN) if direction == BOTH else (direction,):
                for key, value in what.items():
                    setattr(self.ways[name], key, value)
            for link in list(self.links):
                self._update(link)
        self._order(change)

    def delay(self, ms, jitter=0, direction=BOTH):
        self._set(direction, delay=ms / 1000, jitter=jitter / 1000)

    def trickle(self, bytes_per_second, direction=BOTH):
        self._set(direction, rate=bytes_per_second)

    def hold(self, direction=BOTH):
        self._set(direction, held=True)

    def drop(self, direction=BOTH):
        self._set(direction, dropped=True)

    def cut(self, after, direction=DOWN):
        """after: bytes, or (least, most) to draw from for each connection."""
        def change():
            self.ways[direction].cut_after = after
            for link in self.links:
                self._aim(link.up if direction == UP else link.down)
        self._order(change)

    def refuse(self, refusing=True):
        self._order(lambda: setattr(self, "refusing", refusing))

    def reset(self):
        self._order(lambda: [self._abort(link) for link in list(self.links)])

    def heal(self):
        def change():
            self.refusing = False
            for way in self.ways.values():
                Way.__init__(way)
            for link in list(self.links):
                if link.up.lost or link.down.lost:
                    self._abort(link)
                    continue
                for pump in link.pumps():
                    pump.cut_at, pump.sent_until = None, 0.0
                    pump.waiting = collections.deque((0.0, piece) for _, piece in pump.waiting)
                self._update(link)
        self._order(change)

    @property
    def open(self):
        return len(self.links)

    def close(self):
        self._order(lambda: setattr(self, "closing", True))
        self.thread.join(10)

    # ---- the loop ----

    def _run(self):
        while not self.closing:
            for key, mask in self.selector.select(self._patience()):
                if key.data is not None:
                    self._ready(key.data, key.fileobj, mask)
                elif key.fileobj is self.listener:
                    self._accept()
                else:
                    self._obey()
            self._wake_due()
        for link in list(self.links):
            self._abort(link)
        for s in (self.listener, self.wake_out, self.wake_in, self.selector):
            s.close()

    def _patience(self):
        return max(0.0, self.timers[0][0] - time.monotonic()) if self.timers else None

    def _obey(self):
        with contextlib.suppress(BlockingIOError):
            self.wake_out.recv(4096)
        while self.orders:
            fn, done = self.orders.popleft()
            fn()
            done.set()

    def _wake_due(self):
        now = time.monotonic()
        while self.timers and self.timers[0][0] <= now:
            _, _, link = heapq.heappop(self.timers)
            link.woken_at = None
            if link in self.links:
                self._move(link)

    def _wake_at(self, link, when):
        if link.woken_at is None or when < link.woken_at:
            self.count += 1
            link.woken_at = when
            heapq.heappush(self.timers, (when, self.count, link))

    def _accept(self):
        for _ in range(256):
            try:
                client, _ = self.listener.accept()
            except BlockingIOError:
                return
            except OSError:
                return
            self.accepted += 1
            if self.refusing:
                self.refused += 1
                reset(client)
                continue
            self._connect(client)

    def _connect(self, client):
        server = socket.socket(socket.AF_UNIX if isinstance(self.behind, str) else socket.AF_INET)
        for s in (client, server):
            s.setblocking(False)
            if s.family != socket.AF_UNIX:
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = Link(self, client, server)
        self.links.add(link)
        for pump in link.pumps():
            self._aim(pump)
        try:
            server.connect(self.behind)
            link.connected = True
        except BlockingIOError:
            pass
        except OSError:
            self._abort(link)
            return
        self._update(link)

    def _aim(self, pump):
        after = pump.way.cut_after
        after = self.random.randint(*after) if isinstance(after, tuple) else after
        pump.cut_at = None if after is None else pump.passed + after

    # ---- one connection ----

    def _update(self, link):
        """Watches for what can go on."""
        now = time.monotonic()
        wanted = {link.client: 0, link.server: 0}
        for pump in link.pumps():
            if pump.reading() and link.connected:
                wanted[pump.source] |= selectors.EVENT_READ
            if pump.writing(now) and link.connected:
                wanted[pump.target] |= selectors.EVENT_WRITE
            elif pump.waiting and not pump.way.held:
                self._wake_at(link, max(pump.waiting[0][0], pump.sent_until))
        if not link.connected:
            wanted[link.server] = selectors.EVENT_WRITE
        for s, events in wanted.items():
            had = link.events.get(s, 0)
            if events == had:
                continue
            link.events[s] = events
            if not events:
                self.selector.unregister(s)
            elif had:
                self.selector.modify(s, events, link)
            else:
                self.selector.register(s, events, link)

    def _ready(self, link, s, mask):
        if link not in self.links:
            return
        if not link.connected:
            if link.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0:
                self._abort(link)
                return
            link.connected = True
        if mask & selectors.EVENT_READ:
            pump = link.up if s is link.client else link.down
            if not self._read(pump):
                self._abort(link)
                return
        self._move(link)

    def _read(self, pump):
        try:
            data = pump.source.recv(PIECE)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            pump.ended = True
            return True
        if pump.way.dropped:
            pump.lost = True
            return True
        now, way = time.monotonic(), pump.way
        due = 0.0
        if way.delay or pump.last_due > now:
            due = max(pump.last_due, now + max(0.0, way.delay + self.random.uniform(-way.jitter, way.jitter)))
            pump.last_due = due
        pump.waiting.append((due, data))
        pump.size += len(data)
        return True

    def _move(self, link):
        """Writes what is due, both ways."""
        now = time.monotonic()
        for pump in link.pumps():
            while pump.writing(now):
                sent = self._write(pump, now)
                if sent is None:
                    self._abort(link)
                    return
                if not sent:
                    break
            if pump.ended and not pump.waiting and not pump.closed and not pump.way.held:
                pump.closed = True
                with contextlib.suppress(OSError):
                    pump.target.shutdown(socket.SHUT_WR)
        if link.up.closed and link.down.closed:
            self._forget(link)
            return
        self._update(link)

    def _write(self, pump, now):
        """Bytes that went, 0: not now, None: broken, or cut."""
        due, data = pump.waiting[0]
        most = len(data)
        if pump.way.rate is not None:
            most = min(most, max(1, pump.way.rate // 20))
        if pump.cut_at is not None:
            most = min(most, pump.cut_at - pump.passed)
        try:
            n = pump.target.send(data if most == len(data) else memoryview(data)[:most]) if most > 0 else 0
        except BlockingIOError:
            return 0
        except OSError:
            return None
        pump.passed += n
        pump.size -= n
        self.bytes[UP if pump is pump.link.up else DOWN] += n
        if pump.way.rate is not None:
            pump.sent_until = now + n / pump.way.rate
        if n == len(data):
            pump.waiting.popleft()
        else:
            pump.waiting[0] = (due, memoryview(data)[n:])
        if pump.cut_at is not None and pump.passed >= pump.cut_at:
            return None
        return n

    def _forget(self, link):
        self.links.discard(link)
        for s in (link.client, link.server):
            if link.events.get(s):
                self.selector.unregister(s)
            s.close()

    def _abort(self, link):
        if link not in self.links:
            return
        self.links.discard(link)
        for s in (link.client, link.server):
            if link.events.get(s):
                self.selector.unregister(s)
            reset(s)


def reset(s):
    with contextlib.suppress(OSError):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
