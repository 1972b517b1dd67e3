"""A private Sandpiper on a sandbox service that takes no time."""

import contextlib

from sim_stack import SimStack

PROMPT = "p" * 500
AGENT = "bench"


class BenchStack(SimStack):
    agent = AGENT

    def __init__(self, **kw):
        super().__init__(sim={"output": "ok\n"}, **kw)

    def twin_gateway(self, first, **env):
        """Another gateway on the first one's port (both with SANDPIPER_GATEWAY_REUSE_PORT)."""
        p = self._daemon("gateway", {"SANDPIPER_GATEWAY_LISTEN": f"127.0.0.1:{first.port}", **env}, len(self.gateways))
        p.port = first.port
        self.gateways.append(p)
        p.said('"msg":"listening"')
        return p

    def end(self, process):
        process.stop()
        for group in (self.gateways, self.executors, self.dispatchers):
            if process in group:
                group.remove(process)

    @property
    def headers(self):
        return {"Authorization": f"Bearer {self.key}"}


@contextlib.contextmanager
def bench_stack(**kw):
    """A stack with the agent `bench` deployed; executors can be stopped afterwards."""
    s = BenchStack(**kw)
    try:
        yield s.start()
    finally:
        s.stop()
