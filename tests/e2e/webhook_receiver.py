"""A receiver of webhooks for tests: keeps what it got, answers as told, and verifies as the specification says."""

import base64
import hashlib
import hmac
import http.server
import json
import socket
import threading
import time

from stack import until

OPEN = {"SANDPIPER_WEBHOOK_ALLOW_ADDRESSES": "127.0.0.0/8", "SANDPIPER_WEBHOOK_PORTS": "1-65535"}


class Got:
    def __init__(self, path, headers, body):
        self.path, self.headers, self.body, self.at = path, headers, body, time.monotonic()

    @property
    def id(self):
        return self.headers["webhook-id"]

    @property
    def json(self):
        return json.loads(self.body)

    def verify(self, secret):
        """Whether one of its signatures is by this secret (Standard Webhooks, v1)."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        signed = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        want = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return want in self.headers["webhook-signature"].split(" ")


class Receiver:
    """`answer(got)` gives (status, headers, body), or None to close without an answer; it may block."""

    def __init__(self, answer=lambda got: (200, {}, b"ok")):
        self.got, self.lock, self.answer = [], threading.Lock(), answer
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                got = Got(self.path, self.headers, body)
                with outer.lock:
                    outer.got.append(got)
                answer = outer.answer(got)
                if answer is None:
                    self.close_connection = True
                    return
                status, headers, text = answer
                self.send_response(status)
                for k, v in headers.items():
                    self.send_header(k, v)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST

            def log_message(self, *args):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 512

            def handle_error(self, request, address):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path="/hook"):
        return f"http://127.0.0.1:{self.port}{path}"

    def count(self):
        with self.lock:
            return len(self.got)

    def wait(self, n, seconds=20):
        until(f"{n} webhooks have come", lambda: self.count() >= n, seconds)
        with self.lock:
            return list(self.got)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class RawReceiver:
    """A listener that does as `behave(connection)` says; counts connections. The honeypot, without one."""

    def __init__(self, behave=None, host="127.0.0.1", port=0, family=socket.AF_INET):
        self.socket = socket.socket(family)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((host, port))
        self.socket.listen(512)
        self.port, self.connections, self.behave = self.socket.getsockname()[1], 0, behave
        self.open = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                c, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            self.open.append(c)
            if self.behave:
                threading.Thread(target=self.run, args=(c,), daemon=True).start()

    def run(self, c):
        try:
            self.behave(c)
        except OSError:
            pass
        c.close()

    def url(self, path="/hook"):
        return f"http://127.0.0.1:{self.port}{path}"

    def close(self):
        self.socket.close()
        for c in self.open:
            c.close()
