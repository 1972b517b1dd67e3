"""The TCP fault proxy: what each order does to connections that are open, and to those to come."""

import contextlib
import os
import socket
import threading
import time

import pytest

from stack import until
from tcp_proxy import DOWN, UP, TcpProxy

RESET = (ConnectionResetError, BrokenPipeError)


class Echo:
    """Says back what it hears; counts who is connected."""

    def __init__(self, path=None):
        self.listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self.listener.bind(path or ("127.0.0.1", 0))
        self.listener.listen(4096)
        self.address = path or self.listener.getsockname()
        self.open = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                c, _ = self.listener.accept()
                self.open += 1
                threading.Thread(target=self.serve, args=(c,), daemon=True).start()

    def serve(self, c):
        with c, contextlib.suppress(OSError):
            while data := c.recv(1 << 20):
                c.sendall(data)
        self.open -= 1

    def close(self):
        self.listener.close()


@pytest.fixture
def echo():
    e = Echo()
    yield e
    e.close()


@pytest.fixture
def proxy(echo):
    p = TcpProxy(echo.address)
    yield p
    p.close()


def connect(proxy, timeout=10):
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=timeout)


def say(c, data):
    c.sendall(data)
    got = b""
    while len(got) < len(data):
        piece = c.recv(1 << 20)
        assert piece, "the connection has ended"
        got += piece
    assert got == data


def silent(c, seconds=0.15):
    c.settimeout(seconds)
    try:
        with pytest.raises(TimeoutError):
            c.recv(1)
    finally:
        c.settimeout(10)


def test_it_passes_what_is_said(proxy):
    with connect(proxy) as c:
        for size in (1, 1000, 3_000_000):
            data = os.urandom(size)
            sender = threading.Thread(target=c.sendall, args=(data,))
            sender.start()
            got = b""
            while len(got) < size:
                got += c.recv(1 << 20)
            sender.join()
            assert got == data


def test_the_end_of_a_direction_is_passed_on(proxy, echo):
    with connect(proxy) as c:
        c.sendall(b"last words")
        c.shutdown(socket.SHUT_WR)
        got = b""
        while piece := c.recv(100):
            got += piece
        assert got == b"last words"
    until("nobody is connected", lambda: echo.open == 0 and proxy.open == 0)


def test_sockets_in_the_file_system(tmp_path):
    echo = Echo(str(tmp_path / "echo"))
    p = TcpProxy(echo.address, listen=str(tmp_path / "proxy"))
    with socket.socket(socket.AF_UNIX) as c:
        c.connect(str(tmp_path / "proxy"))
        say(c, b"hello")
    p.close()
    echo.close()


def test_a_server_that_is_not_there_is_a_reset():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        free = s.getsockname()
    p = TcpProxy(free)
    with pytest.raises(RESET):
        with connect(p) as c:
            c.recv(1)
            pytest.fail("an end instead of a reset")
    p.close()


def test_a_delay_is_waited_for_in_order(proxy):
    with connect(proxy) as c:
        proxy.delay(60, jitter=20)
        begin = time.monotonic()
        for i in range(20):
            c.sendall(b"%02d" % i)
            time.sleep(0.002)
        got = b""
        while len(got) < 40:
            got += c.recv(100)
        assert got == b"".join(b"%02d" % i for i in range(20))
        assert time.monotonic() - begin >= 2 * 0.04, "each way"
        proxy.heal()
        say(c, b"again")


def test_a_trickle_lets_little_through(proxy):
    with connect(proxy) as c:
        proxy.trickle(100, direction=DOWN)
        c.sendall(b"x" * 10_000)
        begin, got = time.monotonic(), 0
        while time.monotonic() - begin < 0.5:
            got += len(c.recv(10_000))
        assert 1 <= got <= 100
        proxy.heal()
        while got < 10_000:
            got += len(c.recv(10_000))
        say(c, b"and on")


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_what_is_held_goes_on_when_it_heals(proxy, echo, direction):
    with connect(proxy) as old:
        say(old, b"before")
        proxy.hold(direction)
        with connect(proxy) as new:
            for c in (old, new):
                c.sendall(b"into the void")
                silent(c)
            assert proxy.open == 2, "both ends believe in it"
            proxy.heal()
            for c in (old, new):
                assert c.recv(100) == b"into the void"
                say(c, b"after")


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_what_is_dropped_is_lost_and_its_connection_with_it(proxy, echo, direction):
    with connect(proxy) as c, connect(proxy) as idle:
        say(c, b"before")
        say(idle, b"before")
        proxy.drop(direction)
        c.sendall(b"into the void")
        silent(c)
        assert proxy.open == 2 and echo.open == 2
        proxy.heal()
        with pytest.raises(RESET):
            c.recv(100)
        say(idle, b"lost nothing")


def test_a_cut_comes_at_its_byte(proxy):
    with connect(proxy) as old:
        say(old, b"before")
        proxy.cut(5)
        with connect(proxy) as new:
            for c in (old, new):
                c.sendall(b"0123456789")
                got = b""
                with pytest.raises(RESET):
                    while len(got) < 10:
                        got += c.recv(100) or pytest.fail("an end instead of a reset")
                assert got == b"01234"


def test_cuts_are_drawn_from_a_seed(echo):
    def places(seed):
        p = TcpProxy(echo.address, seed=seed)
        p.cut((1, 1000))
        out = []
        for _ in range(10):
            with connect(p) as c:
                got = 0
                with contextlib.suppress(*RESET):
                    c.sendall(b"x" * 2000)
                    while piece := c.recv(4096):
                        got += len(piece)
                out.append(got)
        p.close()
        return out

    first = places(1)
    assert first == places(1) != places(2) and all(1 <= n <= 1000 for n in first) and len(set(first)) > 5


def test_a_reset_breaks_all_that_is_open(proxy, echo):
    with connect(proxy) as a, connect(proxy) as b:
        say(a, b"x"), say(b, b"x")
        proxy.reset()
        for c in (a, b):
            with pytest.raises(RESET):
                c.recv(1)
    until("the server knows, too", lambda: echo.open == 0)
    with connect(proxy) as c:
        say(c, b"new ones pass")


def test_refused_are_new_connections_only(proxy):
    with connect(proxy) as old:
        say(old, b"x")
        proxy.refuse()
        with pytest.raises(RESET):
            with connect(proxy) as new:
                new.recv(1)
                new.sendall(b"x")
                new.recv(1)
        say(old, b"still there")
        proxy.heal()
    with connect(proxy) as new:
        say(new, b"again")


def test_two_thousand_connections(proxy, echo):
    held = [connect(proxy) for _ in range(2000)]
    try:
        for c in held:
            c.sendall(b"x")
        for c in held:
            assert c.recv(1) == b"x"
        assert proxy.open == 2000
        proxy.reset()
    finally:
        for c in held:
            c.close()
    until("all are gone", lambda: echo.open == 0 and proxy.open == 0)


def test_a_slow_reader_slows_its_writer_down(proxy):
    with connect(proxy, timeout=0.5) as c:
        with pytest.raises(TimeoutError):
            for _ in range(2000):
                c.sendall(b"x" * 65536)  # nobody reads the echo
        assert sum(p.size for link in proxy.links for p in link.pumps()) < 4 << 20
