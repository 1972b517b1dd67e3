"""The example agent that asks Claude, with Anthropic's SDK as npm has it, in a real sandbox of a whole Sandpiper. The Messages
API is messages_api.mjs, inside the sandbox: nothing of this leaves the machine."""

import json
import os
import pathlib
import shutil
import subprocess
import traceback

from stack import Stack, until

HERE = pathlib.Path(__file__).resolve().parent
EXAMPLE = HERE.parents[1] / "deploy" / "examples" / "claude"
KEY = "sk-ant-stand-in-0123456789"


def packed(node, home):
    """The example, its packages installed as its lock says, started by the stand-in."""
    directory = home / "claude"
    shutil.copytree(EXAMPLE, directory, ignore=shutil.ignore_patterns("node_modules"))
    env = {**os.environ, "PATH": f"{pathlib.Path(node).parent}:{os.environ['PATH']}"}
    r = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=directory, env=env, stdin=subprocess.DEVNULL,
                       capture_output=True, text=True, timeout=300)
    assert r.returncode == 0, r.stderr
    manifest = {**json.loads((EXAMPLE / "agent.json").read_text()), "runtime": "command", "install": "",
                "entry": "node messages_api.mjs node index.js"}
    files = {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file() and not p.is_symlink()}
    return {**files, "agent.json": json.dumps(manifest), "messages_api.mjs": (HERE / "messages_api.mjs").read_bytes()}


def talk(s, agent):
    """What a user would do, and what a user would do wrong."""
    def run(prompt):
        return s.client.run(agent, prompt)

    r = run("hello")
    assert (r["status"], r["error"]["code"]) == ("error", "missing_secret"), r
    for key, output in (("sk-ant-wrong-0123456789", ""), (KEY, "You said: hello äöü\n")):
        a = s.client.call("PUT", f"/v1/agents/{agent}/secrets/ANTHROPIC_API_KEY", {"value": key})
        assert a.status in (200, 201, 204), a.body
        r = until("attempts have the new key", lambda o=output: (x := run("hello"))["exit_code"] == int(o == "") and x)
        assert r["output"] == output, r
    assert (r["usage"]["input_tokens"], r["usage"]["output_tokens"]) == (12, 34), r
    log = s.client.call("GET", f"/v1/invocations/{r['id']}/logs").body.decode()
    assert log == "", log
    assert run("busy")["output"] == "You said: busy äöü\n"
    r = run("refuse")
    assert (r["status"], r["exit_code"], r["output"]) == ("failed", 1, ""), r


def claude_agrees(node, home):
    s = Stack(SANDPIPER_SANDBOXD_NODE_DIR=str(pathlib.Path(node).resolve().parents[1]))
    try:
        s.start()
        s.client.deploy("claude", packed(node, home))
        talk(s, "claude")
        print("the example that asks Claude does what it says")
        return True
    except Exception:  # noqa: BLE001 - counted, and told
        print(f"the example that asks Claude does not do what it says:\n{traceback.format_exc()}")
        return False
    finally:
        s.stop()
