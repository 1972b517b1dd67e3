"""The agents that the tests deploy, and a Sandpiper that has them."""

from stack import Stack

AGENTS = {
    # One small agent that does what its prompt says: the tests' hands inside a sandbox.
    "probe": {
        "agent.json": '{"runtime": "python"}',
        "main.py": """
import json, os, signal, sys, time
raw = sys.stdin.buffer.read()
try:
    order = json.loads(raw)
except ValueError:
    order = None
if not isinstance(order, dict):
    sys.stdout.buffer.write(raw)
    sys.exit(0)
if "stderr" in order:
    sys.stderr.write(order["stderr"])
if "bytes" in order:
    sys.stdout.buffer.write(bytes(i * 7 % 256 for i in range(order["bytes"])))
if "text" in order:
    sys.stdout.write(order["text"])
sys.stdout.flush()
if "sleep" in order:
    time.sleep(order["sleep"])
if "kill" in order:
    os.kill(os.getpid(), order["kill"])
sys.exit(order.get("exit", 0))
""",
    },
    "echo": {"agent.json": '{"runtime": "command", "entry": "cat"}', "README": "says what it hears"},
}


def make_stack(**kw):
    s = Stack(**kw.pop("env", {})).start(**kw)
    for name, files in AGENTS.items():
        s.client.deploy(name, files)
    return s
