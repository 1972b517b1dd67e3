"""5,000 clients with a key that never finish their body: a byte a second each; who is refused comes back. Until killed.

They do not know of each other: each second is 0.5 to 1.5 s long, so that their bytes come as they would from 5,000 machines.

slow_bodies.py HOST PORT KEY CONNECTIONS; says "ready" when all have been connected once."""

import contextlib
import heapq
import random
import resource
import selectors
import socket
import sys
import time


def main(host, port, key, count):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    head = (f"POST /v1/invocations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            "Content-Type: application/json\r\nContent-Length: 65536\r\n\r\n").encode()
    poll, due, ready = selectors.EpollSelector(), [], False
    missing = count
    while True:
        now = time.monotonic()
        for _ in range(min(missing, 50)):  # not all at once: the test is not of the backlog
            s = socket.socket()
            s.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                s.connect((host, port))
            poll.register(s, selectors.EVENT_READ)
            heapq.heappush(due, (now + 0.2, id(s), s, head))
            missing -= 1
        if missing == 0 and not ready:
            ready = True
            print("ready", flush=True)
        while due and due[0][0] <= now:
            _, _, s, data = heapq.heappop(due)
            if s.fileno() < 0:
                continue
            with contextlib.suppress(OSError):
                s.send(data)
            heapq.heappush(due, (now + random.uniform(0.5, 1.5), id(s), s, b" "))
        for k, _ in poll.select(min(0.01, max(0.0, due[0][0] - time.monotonic())) if due else 0.01):
            with contextlib.suppress(OSError):
                if k.fileobj.recv(65536):
                    continue
            poll.unregister(k.fileobj)
            k.fileobj.close()
            missing += 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
