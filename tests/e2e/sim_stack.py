"""A whole Sandpiper on the simulated E2B: no sandbox is made, no program runs, so thousands of jobs fit on one machine."""

import http.client
import json
import os

from stack import BIN, Process, Stack

AGENT = "simulated"


class SimStack(Stack):
    """sim: SANDPIPER_SIM_* settings without that prefix, in lower case."""

    agent = AGENT

    def __init__(self, sim=None, **kw):
        super().__init__(**kw)
        self.sim = sim or {}

    def start_sandboxd(self):
        env = {**os.environ, "SANDPIPER_SIM_LISTEN": f"127.0.0.1:{self.sandboxd_port}",
               **{f"SANDPIPER_SIM_{k.upper()}": str(v) for k, v in self.sim.items()}}
        self.sandboxd = Process("e2b-sim", [str(BIN / "sandpiper-e2b-sim")], env, self.dir / "e2b-sim.log").start()
        self.sandboxd.said('"msg":"ready"')

    def start(self, **kw):
        super().start(**kw)
        self.client.deploy(self.agent, {"agent.json": '{"runtime": "command", "entry": "cat"}'})
        return self

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
