"""A proxy in front of the sandbox host that fails as it is told: what a provider does on a bad day.

It speaks HTTP/1.1 to both sides, streams answers as they come, and writes down every request. A rule says which
requests it is for (method, pattern of the path), how often it holds, and what happens instead:

    status(503)                       that answer, nothing is forwarded
    nonsense(b"<html>")               200 with that body, nothing is forwarded
    hang()                            no answer until the proxy is closed or the client leaves
    delay(2)                          forwarded, after that long
    lose()                            forwarded; the answer is thrown away and the connection cut
    cut(100)                          forwarded; the connection is cut after that many bytes of the answer
    rewrite(lambda body: body[:-5])   forwarded; the whole answer is changed
"""

import http.client
import http.server
import re
import socket
import threading


class Rule:
    def __init__(self, method, path, act, times):
        self.method, self.path, self.act, self.left, self.hits = method, re.compile(path), act, times, 0

    def fits(self, method, path):
        return self.left > 0 and self.method in (None, method) and self.path.search(path)


def status(code, body=b'{"code":0,"message":"said the proxy"}', **headers):
    def act(handler, request):
        handler.reply(code, [("Content-Type", "application/json"), *((k.replace("_", "-"), v) for k, v in headers.items())],
                      body)
    return act


def nonsense(body, content_type="application/json", code=200):
    return lambda handler, request: handler.reply(code, [("Content-Type", content_type)], body)


def hang():
    return lambda handler, request: handler.hang()


def delay(seconds):
    def act(handler, request):
        handler.server.owner.closing.wait(seconds)
        handler.forward(request)
    return act


def lose():
    def act(handler, request):
        handler.forward(request, keep=0)
    return act


def cut(size):
    return lambda handler, request: handler.forward(request, keep=size)


def rewrite(change):
    return lambda handler, request: handler.forward(request, change=change)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 600

    def log_message(self, *args):
        pass

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        out = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            out += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return out

    def any(self):
        request = (self.command, self.path, dict(self.headers.items()), self.body())
        rule = self.server.owner.take(self.command, self.path)
        try:
            rule.act(self, request) if rule else self.forward(request)
        except OSError:
            self.close_connection = True

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = any

    def reply(self, code, headers, body):
        self.send_response(code)
        for name, value in headers:
            self.send_header(name, str(value))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def hang(self):
        self.connection.settimeout(0.2)
        while not self.server.owner.closing.is_set():
            try:
                if self.connection.recv(1, socket.MSG_PEEK) == b"":
                    break
            except TimeoutError:
                continue
        self.close_connection = True

    def drop(self):
        """Cuts the connection: what was sent so far is all there is."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def forward(self, request, keep=None, change=None):
        method, path, headers, body = request
        headers = {k: v for k, v in headers.items() if k.lower() not in ("transfer-encoding", "content-length", "host")}
        up = http.client.HTTPConnection("127.0.0.1", self.server.owner.port_behind, timeout=600)
        try:
            up.request(method, path, body=body, headers=headers)
            answer = up.getresponse()
            self.relay(answer, keep, change)
        except (ConnectionRefusedError, http.client.HTTPException):
            self.drop()
        finally:
            up.close()

    def relay(self, answer, keep, change):
        names = ("transfer-encoding", "content-length", "connection", "date", "server")
        headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in names]
        if change is not None:
            self.reply(answer.status, headers, change(answer.read()))
            return
        if keep == 0:
            answer.read()
            self.drop()
            return
        self.send_response(answer.status)
        for name, value in headers:
            self.send_header(name, value)
        if answer.status == 204:
            self.end_headers()
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while piece := answer.read1(65536):
            piece = piece if keep is None else piece[:keep]
            keep = None if keep is None else keep - len(piece)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
            if keep == 0:
                self.drop()
                return
        self.wfile.write(b"0\r\n\r\n")


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


class FaultProxy:
    def __init__(self, port_behind):
        self.port_behind, self.rules, self.seen = port_behind, [], []
        self.closing, self.lock = threading.Event(), threading.Lock()
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.owner = self
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def on(self, method, path, act, times=1):
        """From now on, for so many requests that fit; the rule counts its `hits`."""
        rule = Rule(method, path, act, times)
        with self.lock:
            self.rules.append(rule)
        return rule

    def heal(self):
        with self.lock:
            self.rules.clear()

    def take(self, method, path):
        with self.lock:
            self.seen.append((method, path))
            rule = next((r for r in self.rules if r.fits(method, path)), None)
            if rule:
                rule.left -= 1
                rule.hits += 1
            return rule

    def count(self, method, path):
        with self.lock:
            return sum(m == method and re.search(path, p) is not None for m, p in self.seen)

    def close(self):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
