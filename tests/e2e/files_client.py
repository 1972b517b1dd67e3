"""Forms with files, sent whole or in pieces, and the agent that looks at files and leaves some."""

import hashlib
import http.client
import json
import os
import socket

MAKER = {
    "agent.json": '{"runtime": "python", "artifacts": "out"}',
    "own.txt": "the agent's own",
    "main.py": """
import hashlib, json, os, shutil, stat, sys, time
order = json.loads(sys.stdin.read())
for source, target in order.get("copy", []):
    os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
    shutil.copyfile(source, target)
for path, size in order.get("make", {}).items():
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "wb") as f:
        f.write(os.urandom(size))
for path, target in order.get("link", {}).items():
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    os.symlink(target, path)
for path in order.get("fifo", []):
    os.mkfifo(path)
seen = {}
for path in order.get("look", []):
    s = os.stat(path)
    with open(path, "rb") as f:
        seen[path] = [s.st_size, hashlib.sha256(f.read()).hexdigest(), stat.S_IMODE(s.st_mode) & 0o111 != 0]
print(json.dumps(seen))
sys.stdout.flush()
time.sleep(order.get("sleep", 0))
sys.exit(order.get("exit", 0))
""",
}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def form(invocation, files, boundary="boundary-7f3a"):
    """The body of a form: the document, then (path, bytes) each."""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{{}}"'
    parts = [head.format("invocation").encode() + b"\r\nContent-Type: application/json\r\n\r\n"
             + (invocation if isinstance(invocation, bytes) else json.dumps(invocation).encode()) + b"\r\n"]
    for path, data in files:
        name = path if isinstance(path, bytes) else path.encode()
        parts.append(head.format("files").encode() + b'; filename="' + name + b'"\r\n\r\n' + data + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def submit(client, invocation, files, wait=60, headers=None):
    body, content_type = form(invocation, files)
    h = {"Content-Type": content_type, **(headers or {})}
    if wait:
        h["Prefer"] = f"wait={wait}"
    return client.call("POST", "/v1/invocations", body, h)


def run(client, agent, order, files, **fields):
    a = submit(client, {"agent": agent, "prompt": json.dumps(order), **fields}, files)
    assert a.status == 200, (a.status, a.body)
    return a.json


class Upload:
    """A form that is sent bit by bit over a socket of its own."""

    def __init__(self, client, body, content_type, headers=""):
        self.socket = socket.create_connection(("127.0.0.1", client.port), 60)
        self.body, self.sent = body, 0
        self.socket.sendall((f"POST /v1/invocations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.key}\r\n"
                             f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{headers}\r\n").encode())

    def send(self, n):
        self.socket.sendall(self.body[self.sent:self.sent + n])
        self.sent += n

    def answer(self):
        self.send(len(self.body) - self.sent)
        r = http.client.HTTPResponse(self.socket)
        r.begin()
        return r.status, r.read()

    def cut(self):
        self.socket.close()


def stray_rows(stack):
    """Sets that nothing refers to yet, and chunks that no list names."""
    return (stack.count("select count(*) from file_sets"),
            stack.count("select count(*) from blobs b where kind = 4 and not exists (select from files f where f.id = b.id "
                        "and f.attempt = b.attempt and b.chunk >= f.chunk and "
                        "b.chunk < f.chunk + (f.bytes + 262143) / 262144)"),
            stack.count("select count(*) from files f where f.attempt = 0 and not exists (select from invocations i where "
                        "i.files = f.id)"))


def random_bytes(n):
    return os.urandom(n)
