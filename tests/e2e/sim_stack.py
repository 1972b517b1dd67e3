"""A whole Sandpiper on the simulated E2B: no sandbox is made, no program runs, so thousands of jobs fit on one machine."""

import http.client
import json
import os
import pathlib
import shutil
import tempfile

from stack import BIN, Process, Stack, free_port

AGENT = "simulated"


class SimCalls:
    """Calls of a simulated E2B on sandboxd_port."""

    def sim_call(self, method, path, body=None, headers=None):
        c = http.client.HTTPConnection("127.0.0.1", self.sandboxd_port, timeout=30)
        try:
            c.request(method, path, body=json.dumps(body) if body is not None else None, headers=headers or {})
            r = c.getresponse()
            return r.status, r.headers, r.read()
        finally:
            c.close()

    def stats(self):
        return json.loads(self.sim_call("GET", "/sim/stats")[2])

    def faults(self, *rules, **top):
        """Replaces the rules; what was injected so far."""
        status, _, body = self.sim_call("POST", "/sim/faults", {"rules": list(rules), **top})
        assert status == 200, body
        return json.loads(body)

    def heal(self):
        assert self.sim_call("POST", "/sim/faults", {})[0] == 200

    def injected(self, call=None):
        """{call: {fault: n}}, or how many faults a call has met."""
        found = json.loads(self.sim_call("GET", "/sim/faults")[2])
        return sum(found["injected"][call].values()) if call else found["injected"]

    def held(self):
        return json.loads(self.sim_call("GET", "/sim/faults")[2])["held"]

    def ledger(self):
        """{sandbox: its line}, living ones with ended_at None."""
        status, _, body = self.sim_call("GET", "/sim/ledger")
        assert status == 200, body
        return {line["sandbox"]: line for line in map(json.loads, body.splitlines())}


def settings(port, sim):
    return {"SANDPIPER_SIM_LISTEN": f"127.0.0.1:{port}", **{f"SANDPIPER_SIM_{k.upper()}": str(v) for k, v in sim.items()}}


class Sim(SimCalls):
    """The simulated E2B alone."""

    def __init__(self, **sim):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="sp", dir="/tmp"))
        self.sandboxd_port = free_port()
        env = {k: v for k, v in os.environ.items() if not k.startswith(("SANDPIPER_", "E2B_"))}
        env.setdefault("ASAN_OPTIONS", "quarantine_size_mb=4")  # freed memory that the sanitizer keeps is not its own
        self.process = Process("e2b-sim", [str(BIN / "sandpiper-e2b-sim")], {**env, **settings(self.sandboxd_port, sim)},
                               self.dir / "e2b-sim.log").start()
        self.process.said('"msg":"ready"')

    def close(self):
        code, log = self.process.stop(), self.process.text()
        shutil.rmtree(self.dir, ignore_errors=True)
        assert code == 0 and "Sanitizer" not in log and "runtime error" not in log, log


class SimStack(SimCalls, Stack):
    """sim: SANDPIPER_SIM_* settings without that prefix, in lower case."""

    agent = AGENT

    def __init__(self, sim=None, **kw):
        super().__init__(**kw)
        self.sim = sim or {}

    def start_sandboxd(self):
        self.sandboxd = Process("e2b-sim", [str(BIN / "sandpiper-e2b-sim")],
                                {**os.environ, **settings(self.sandboxd_port, self.sim)}, self.dir / "e2b-sim.log").start()
        self.sandboxd.said('"msg":"ready"')

    def start(self, **kw):
        super().start(**kw)
        self.client.deploy(self.agent, {"agent.json": '{"runtime": "command", "entry": "cat"}'})
        return self
