"""/openapi.json against the gateway that serves it.

A property-based run sends each operation requests made from the document, right ones and spoiled ones: no answer may be
one that the document does not tell of, and none a fault of ours. And each status that an operation names is brought about.
SP_PROPERTY_EXAMPLES sets the number of requests an operation (60), SP_PROPERTY_SEED another course."""

import contextlib
import gzip
import json
import os
import re
import signal
import socket

import pytest

import files_client
from contract import Contract, anything, random_of, raw, spoiled, text_of, value_of
from sim_stack import AGENT, SimStack
from stack import Client, archive, in_threads, until

EXAMPLES = int(os.environ.get("SP_PROPERTY_EXAMPLES", "60"))
SEED = os.environ.get("SP_PROPERTY_SEED", "sandpiper")
NDJSON = {"Content-Type": "application/x-ndjson"}
UNKNOWN = "inv_01a1fd5f-0000-7001-9b66-7ca8a28be6e9"
UNKNOWN_WEBHOOK = "whk_01a1fd5f-0000-7001-9b66-7ca8a28be6e9"


@pytest.fixture(scope="module")
def stack():
    s = SimStack(SANDPIPER_WEBHOOK_ALLOW_ADDRESSES="127.0.0.0/8", SANDPIPER_WEBHOOK_PORTS="1-65535")
    try:
        yield s.start()
    finally:
        s.stop()


@pytest.fixture(scope="module")
def contract(stack):
    return Contract(stack.client.call("GET", "/openapi.json", key=False).body)


def documented():
    """The operations' names, for test ids, without a gateway."""
    path = os.path.join(os.path.dirname(__file__), "../../gateway/api/openapi.json")
    with open(path) as f:
        return Contract(f.read())


DOCUMENTED = documented()
OPERATIONS = [o.id for o in DOCUMENTED.operations]


# ---- the document ----


def test_the_document_served_is_the_one_in_the_tree(stack):
    answer = stack.client.call("GET", "/openapi.json", key=False)
    assert answer.headers["Content-Type"] == "application/json" and json.loads(answer.body) == DOCUMENTED.root


def test_names_are_unique_and_every_reference_leads_somewhere():
    assert len(OPERATIONS) == len(set(OPERATIONS))
    text = json.dumps(DOCUMENTED.root)
    for ref in set(json.loads(f'"{r}"') for r in re.findall(r'"\$ref": "([^"]+)"', text)):
        DOCUMENTED.resolve({"$ref": ref})


def test_docs_tell_of_every_operation_and_load_nothing(stack):
    answer = stack.client.call("GET", "/docs", key=False)
    page = answer.body.decode()
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    for name in OPERATIONS:
        assert f'id="{name}"' in page
    assert "<script" not in page and "http://" not in page and " src=" not in page


def test_every_problem_has_a_page(stack):
    problem = stack.client.call("GET", "/v1/nothing").json
    page = stack.client.call("GET", problem["type"], key=False)
    assert page.status == 200 and page.headers["Content-Type"].startswith("text/html") and b"not_found" in page.body
    assert stack.client.call("GET", "/problems/%3Cscript%3E", key=False).status == 404


def batch_of(client, n, query="", **fields):
    line = json.dumps({"agent": AGENT, "prompt": "x", **fields}).encode() + b"\n"
    answer = client.call("POST", f"/v1/batches{query}", line * n, NDJSON)
    assert answer.status == 202, (answer.status, answer.body)
    return answer.json


# ---- the property-based run ----


def path_value(r, stack, name, ids):
    good = {"id": ids, "webhook": stack.webhooks, "name": [AGENT], "code": ["invalid_field", "poison"], "secret": ["TOKEN"], "key": stack.keys, "version": ["1"]}.get(name, [text_of(r, 8)])
    return r.choice(good) if r.random() < 0.6 else r.choice([UNKNOWN, text_of(r, 1 + r.randrange(30)), "%00", "..", "x" * 200])


def make_webhooks(stack):
    """One that has an address (which does not resolve), and a stream. A tenant's number is bounded: those before go."""
    for old in stack.client.call("GET", "/v1/webhooks?limit=200").json["data"]:
        stack.client.call("DELETE", f"/v1/webhooks/{old['id']}")
    stack.webhooks = [stack.client.call("POST", "/v1/webhooks", body).json["id"]
                      for body in ({"url": "https://hooks.example/x"}, {"stream": True})]


def make_keys(stack):
    """Two that nobody needs."""
    stack.keys = [stack.client.call("POST", "/v1/keys", {"name": "passing"}).json["id"] for _ in range(2)]


def request_of(r, stack, contract, operation, ids):
    path = {p["name"]: path_value(r, stack, p["name"], ids) for p in operation.of("path")}
    if operation.id == "deleteAgent" and path["name"] == AGENT:  # which others need
        path["name"] = "passing"
    query, headers, body = [], {}, None
    for p in operation.of("query"):
        if r.random() < 0.4:
            v = value_of(contract, r, p["schema"])
            query.append((p["name"], v if r.random() < 0.7 else spoiled(r, v)))
    if r.random() < 0.1:
        query.append((text_of(r, 5), text_of(r, 5)))
    for p in operation.of("header"):
        if r.random() < 0.4:
            v = str(value_of(contract, r, p["schema"])).encode("ascii", "ignore").decode()
            headers[p["name"]] = r.choice([v, v, "wait=0", "\x7f", "bytes=1-", "bytes=9-1"])
    for kind, media in operation.content.items():
        headers["Content-Type"] = kind
        if kind == "application/json":
            value = value_of(contract, r, media["schema"])
            if isinstance(value, dict) and "agent" in value and r.random() < 0.8:
                value["agent"] = AGENT
            body = json.dumps(value if r.random() < 0.4 else spoiled(r, value)).encode()
        else:
            body = r.choice([b"", b"\0" * 20, archive({"x": "y"}), archive({"agent.json": json.dumps(anything(r))}),
                             gzip.compress(b"no archive")])
        body = body[:r.randrange(len(body) + 1)] if r.random() < 0.1 else body
    if "wait" in dict(query) or "Prefer" in headers:  # not here: nobody looks for long waits
        query = [(k, v if k != "wait" else 0) for k, v in query]
        headers.pop("Prefer", None)
    return operation.target(path, query), headers, body


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_answer_but_what_the_document_tells(stack, contract, name):
    operation = contract.by_id[name]
    make_webhooks(stack)
    make_keys(stack)
    ids = [stack.client.run(AGENT, "a prompt")["id"], stack.client.submit(AGENT, "other").json["id"]]
    if operation.path.startswith("/v1/batches"):
        ids = [batch_of(stack.client, n)["id"] for n in (1, 3)]
    r = random_of(f"{SEED}/{name}")
    for n in range(EXAMPLES):
        target, headers, body = request_of(r, stack, contract, operation, ids)
        with_key = operation.open or r.random() < 0.95
        answer = stack.client.call(operation.method, target, body, headers, key=with_key)
        assert answer.status < 500, (n, operation.method, target, headers, body, answer.body)
        contract.check(operation, answer.status, answer.headers, answer.body)


# ---- every status ----


def bearer(stack):
    return f"Authorization: Bearer {stack.key}\r\n"


class Maker:
    """Brings statuses about. A special one: a method named OPERATION_STATUS; one for all operations: any_STATUS."""

    def __init__(self, stack, contract):
        self.stack, self.contract, self.client = stack, contract, stack.client
        self.done = self.client.run(AGENT, "0123456789")["id"]
        make_webhooks(stack)
        self.webhook, self.stream = stack.webhooks
        make_keys(stack)
        self.key = stack.keys[0]
        self.narrow = {s: stack.new_key(scope=s) for s in ("invoke", "deploy")}
        self.batch = batch_of(self.client, 2)["id"]
        until("the batch ends", lambda: self.client.call("GET", f"/v1/batches/{self.batch}").json["ended_at"])

    def values(self, operation, id=None):
        done = self.batch if operation.path.startswith("/v1/batches") else self.done
        known = {"id": id or done, "name": "doomed" if operation.id == "deleteAgent" else AGENT, "code": "poison", "webhook": self.webhook, "secret": "TOKEN", "key": self.key, "version": 1}
        return {p["name"]: known.get(p["name"], "x") for p in operation.of("path")}

    def send(self, operation, target=None, headers="", body=b"", port=None, keyed=True, key=None):
        target = target or operation.target(self.values(operation))
        key = f"Authorization: Bearer {key or self.stack.key}\r\n" if keyed and not operation.open else ""
        head = f"{operation.method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{key}{headers}"
        if body:
            head += f"Content-Length: {len(body)}\r\n"
        return raw(port or self.stack.gateways[0].port, head.encode() + b"\r\n" + body)

    def call(self, operation, body=None, headers=None, query=(), **path):
        target = operation.target({**self.values(operation), **path}, query)
        a = self.client.call(operation.method, target, body, headers)
        return a.status, a.headers, a.body

    # ---- what any operation answers ----

    def any_200(self, operation):
        return self.call(operation)

    def any_400(self, operation):
        return self.send(operation, headers="No colon here\r\n")

    @staticmethod
    def kind(operation):
        return next(iter(operation.content), "application/json")

    def any_401(self, operation):
        return self.send(operation, keyed=False)

    def any_403(self, operation):
        """With a key that has none of the scopes; or, where each has one that would do, that asks for another key."""
        enough = {scope for a in operation.security for scope in a["key"]}
        return self.send(operation, key=self.narrow["invoke" if "invoke" not in enough else "deploy"])

    def any_404(self, operation):
        return self.send(operation, target=operation.target(self.values(operation, UNKNOWN) | {"name": "nobody", "code": "no", "webhook": UNKNOWN_WEBHOOK, "key": UNKNOWN_WEBHOOK.replace("whk", "key")}))

    def any_408(self, operation):
        if operation.content:
            return self.send(operation, headers=f"Content-Type: {self.kind(operation)}\r\nContent-Length: 50\r\n")
        with socket.create_connection(("127.0.0.1", self.stack.gateways[0].port), timeout=60) as s:
            s.sendall(f"{operation.method} {operation.target(self.values(operation))} HTTP/1.1\r\n".encode())
            got = b""
            while piece := s.recv(65536):
                got += piece
        head, _, body = got.partition(b"\r\n\r\n")
        return int(head.split()[1]), {"Content-Type": "application/problem+json"}, body

    def any_413(self, operation):
        return self.send(operation, headers=f"Content-Type: {self.kind(operation)}\r\nContent-Length: 99999999999\r\n")

    def any_414(self, operation):
        return self.send(operation, target=operation.target(self.values(operation)) + "?" + "x" * 20000)

    def any_415(self, operation):
        return self.send(operation, headers="Content-Type: text/css\r\n", body=b"x")

    def any_416(self, operation):
        return self.call(operation, headers={"Range": "bytes=100-200"})

    def any_417(self, operation):
        return self.send(operation, headers="Expect: wonders\r\n", body=b"x")

    def any_429(self, operation):
        """A gateway that lets a tenant send one request a second."""
        for _ in range(20):
            answer = self.send(operation, port=self.stack.strict.port)
            if answer[0] == 429:
                break
        return answer

    def any_431(self, operation):
        return self.send(operation, headers=f"X: {'x' * 20000}\r\n")

    def any_503(self, operation):
        """A gateway that has no connection left."""
        port = self.stack.full.port
        with contextlib.ExitStack() as held:
            for _ in range(2):
                s = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
                s.sendall(f"GET /v1/invocations/{self.open_id}?wait=60 HTTP/1.1\r\nHost: x\r\n{bearer(self.stack)}\r\n".encode())
            until("both wait", lambda: self.waiting(self.stack.full) >= 2)
            return self.send(operation, port=port)

    @staticmethod
    def waiting(gateway):
        return sum(1 for f in os.listdir(f"/proc/{gateway.pid}/fd") if _is_socket(gateway.pid, f)) - gateway.sockets

    # ---- what a particular one answers ----

    def createKey_201(self, operation):
        return self.call(operation, {"name": "made", "scopes": ["read", "invoke"], "expires_at": "2099-01-01T00:00:00Z"})

    def createKey_409(self, operation):
        tenant = Client(self.client.port, self.stack.new_key("many-keys"))
        self.stack.psql("insert into api_keys (id, tenant, hash, name, prefix, scopes) select gen_random_uuid(), t.id, sha256(n::text::bytea), "
                        "'one of many', 'sp_', 1 from generate_series(1, 999) n, tenants t where t.name = 'many-keys'")
        a = tenant.call("POST", "/v1/keys", {"name": "one too many"})
        return a.status, a.headers, a.body

    def revokeKey_204(self, operation):
        return self.call(operation, key=self.stack.keys[1])

    def createWebhook_201(self, operation):
        return self.call(operation, {"url": "https://hooks.example/y"})

    def createWebhook_409(self, operation):
        tenant = Client(self.client.port, self.stack.new_key("many-webhooks"))
        for _ in range(51):
            a = tenant.call("POST", "/v1/webhooks", {"url": "https://hooks.example/z"})
        return a.status, a.headers, a.body

    def setSecret_200(self, operation):
        return self.call(operation, {"value": "a value"})

    def setSecret_404(self, operation):
        return self.call(operation, {"value": "a value"}, name="nobody")

    def setSecret_409(self, operation):
        tenant = Client(self.client.port, self.stack.new_key("many-secrets"))
        tenant.deploy(AGENT, {"agent.json": '{"runtime": "command", "entry": "cat"}'})
        for n in range(65):
            a = tenant.call("PUT", f"/v1/agents/{AGENT}/secrets/N{n}", {"value": "x"})
        return a.status, a.headers, a.body

    def setSecret_501(self, operation):
        a = Client(self.stack.keyless.port, self.stack.key).call("PUT", operation.target(self.values(operation)), {"value": "x"})
        return a.status, a.headers, a.body

    def deleteSecret_204(self, operation):
        self.client.call("PUT", f"/v1/agents/{AGENT}/secrets/GOING", {"value": "x"})
        return self.call(operation, secret="GOING")

    def any_501(self, operation):
        body = {"createWebhook": {"url": "https://hooks.example/"}, "submitInvocation": {
            "agent": AGENT, "prompt": "x", "webhook": {"url": "https://hooks.example/"}}, "submitBatch": [
            {"agent": AGENT, "prompt": "x", "webhook": {"url": "https://hooks.example/"}}]}.get(operation.id, {})
        a = Client(self.stack.keyless.port, self.stack.key).call("POST", operation.target(self.values(operation)), body)
        return a.status, a.headers, a.body

    def deleteWebhook_204(self, operation):
        return self.call(operation, webhook=self.client.call("POST", "/v1/webhooks", {"stream": True}).json["id"])

    def listInvocationDeliveries_404(self, operation):
        return self.call(operation, id="nonsense")

    def listWebhookDeliveries_404(self, operation):
        return self.call(operation, webhook="nonsense")

    def testWebhook_202(self, operation):
        return self.call(operation)

    def hooked(self):
        return self.client.submit(AGENT, "x", wait=30, webhook={"url": "http://127.0.0.1:9/"}).json["id"]

    def redeliverInvocation_202(self, operation):
        id = self.hooked()
        until("it was tried", lambda: self.client.call("GET", f"/v1/invocations/{id}/deliveries").json["data"])
        return self.call(operation, id=id)

    def redeliverWebhook_202(self, operation):
        self.client.call("POST", f"/v1/webhooks/{self.webhook}/test")
        tried = until("it was tried", lambda: self.client.call("GET", f"/v1/webhooks/{self.webhook}/deliveries").json["data"])
        return self.call(operation, {"webhook_id": tried[0]["webhook_id"]})

    def redeliverWebhook_404(self, operation):
        tail = UNKNOWN_WEBHOOK.replace("-", "")[-16:]
        return self.call(operation, {"webhook_id": f"msg_{UNKNOWN[4:]}_{tail}"}, webhook=UNKNOWN_WEBHOOK)

    def replayWebhook_202(self, operation):
        return self.call(operation, {"since": self.client.get(self.done)["created_at"]})

    def replayWebhook_404(self, operation):
        return self.call(operation, {"since": self.client.get(self.done)["created_at"]}, webhook=UNKNOWN_WEBHOOK)

    def listenWebhook_200(self, operation):
        return self.call(operation, webhook=self.stream)

    def submitInvocation_200(self, operation):
        return self.call(operation, {"agent": AGENT, "prompt": "x"}, {"Prefer": "wait=30"})

    def submitInvocation_202(self, operation):
        return self.call(operation, {"agent": AGENT, "prompt": "x"})

    def submitInvocation_404(self, operation):
        return self.call(operation, {"agent": "nobody", "prompt": "x"})

    def listInvocations_404(self, operation):
        return self.call(operation, query=[("agent", "nobody")])

    def getUsage_404(self, operation):
        return self.call(operation, query=[("agent", "nobody")])

    def submitInvocation_409(self, operation):
        self.client.call("POST", "/v1/agents?name=not-ready", archive({"agent.json": json.dumps(
            {"runtime": "command", "entry": "cat", "install": json.dumps({"sim": {"run_ms": 100, "exit_code": 1}})})}),
            {"Content-Type": "application/gzip"})
        return self.call(operation, {"agent": "not-ready", "prompt": "x"})

    def submitInvocation_422(self, operation):
        for prompt in ("one", "two"):
            answer = self.call(operation, {"agent": AGENT, "prompt": prompt}, {"Idempotency-Key": "the same"})
        return answer

    def submitBatch_202(self, operation):
        return self.call(operation, b'{"prompt": "x"}', NDJSON, [("agent", AGENT), ("metadata.k", "v")])

    def submitBatch_400(self, operation):
        return self.call(operation, b'{"prompt": "x"}\n{"agent": 7}\n', NDJSON)

    def submitBatch_422(self, operation):
        for n in (1, 2):
            answer = self.call(operation, b'{"agent": "%s", "prompt": "x"}\n' % AGENT.encode() * n,
                               {**NDJSON, "Idempotency-Key": "the same batch"})
        return answer

    def submitBatch_429(self, operation):
        """A tenant with as many open batches as one may have."""
        many = Client(self.client.port, self.stack.new_key("many"))
        many.deploy(AGENT, {"agent.json": '{"runtime": "command", "entry": "cat"}'})
        order = json.dumps({"sim": {"run_ms": 600_000}})
        ids = in_threads([lambda: batch_of(many, 1, prompt=order)["id"]] * 256, 8)
        answer = many.call("POST", "/v1/batches", json.dumps({"agent": AGENT, "prompt": "x"}), NDJSON)
        in_threads([lambda id=id: many.call("POST", f"/v1/batches/{id}/cancel") for id in ids], 8)
        return answer.status, answer.headers, answer.body

    def cancelBatch_202(self, operation):
        b = batch_of(self.client, 1, prompt=json.dumps({"sim": {"run_ms": 60000}}))
        until("it runs", lambda: self.client.call("GET", f"/v1/batches/{b['id']}").json["counts"]["running"])
        return self.call(operation, id=b["id"])

    def schedule(self, name):
        return {"name": name, "cron": "0 8 * * *", "agent": AGENT, "prompt": "x"}

    def createSchedule_201(self, operation):
        return self.call(operation, self.schedule("made"))

    def createSchedule_409(self, operation):
        self.call(operation, self.schedule("twice"))
        return self.call(operation, self.schedule("twice"))

    def of_schedule(self, operation):
        self.client.call("POST", "/v1/schedules", self.schedule("there"))
        return self.call(operation, name="there")

    getSchedule_200 = deleteSchedule_204 = pauseSchedule_200 = resumeSchedule_200 = of_schedule

    def getInvocation_304(self, operation):
        etag = self.call(operation)[1]["ETag"]
        return self.call(operation, headers={"If-None-Match": f'"other", W/{etag}'})

    def cancelInvocation_202(self, operation):
        """One that runs: it ends when its executor has heard of it, which is frozen for the moment."""
        id = self.client.submit(AGENT, json.dumps({"sim": {"run_ms": 60000}})).json["id"]
        until("it runs", lambda: self.client.get(id)["status"] == "running")
        self.stack.executors[0].signal(signal.SIGSTOP)
        try:
            return self.call(operation, id=id)
        finally:
            self.stack.executors[0].signal(signal.SIGCONT)

    def retryInvocation_200(self, operation):
        return self.call(operation, headers={"Prefer": "wait=30"})

    def retryInvocation_409(self, operation):
        return self.call(operation, id=self.open_id)

    def retryInvocation_422(self, operation):
        for version in ("same", "serving"):
            answer = self.call(operation, {"version": version}, {"Idempotency-Key": "the same retry"})
        return answer

    def retryInvocation_202(self, operation):
        return self.call(operation, {"version": "serving"})

    def getInvocationOutput_206(self, operation):
        return self.call(operation, headers={"Range": "bytes=2-4"})

    def getInvocationOutput_409(self, operation):
        return self.call(operation, id=self.open_id)

    # ---- of one that left an artifact of 10 bytes: the simulator shows what came along as if it were left ----

    def left(self):
        if not hasattr(self, "left_id"):
            self.client.deploy("leaver", {"agent.json": '{"runtime": "command", "entry": "cat", "artifacts": "out"}'})
            self.left_id = files_client.run(self.client, "leaver", {}, [("out/x", b"0123456789")])["id"]
        return self.left_id

    def listArtifacts_409(self, operation):
        return self.call(operation, id=self.open_id)

    getArtifact_409 = listArtifacts_409

    def getArtifact_200(self, operation):
        return self.call(operation, id=self.left())

    def getArtifact_206(self, operation):
        return self.call(operation, headers={"Range": "bytes=2-4"}, id=self.left())

    def getArtifact_304(self, operation):
        return self.call(operation, headers={"If-None-Match": "*"}, id=self.left())

    def getArtifact_416(self, operation):
        return self.call(operation, headers={"Range": "bytes=10-"}, id=self.left())

    def getBuildLog_416(self, operation):
        return self.call(operation, query=[("offset", 100_000_000)])

    def rollbackAgent_200(self, operation):
        return self.call(operation, {"version": 1})

    def rollbackAgent_409(self, operation):
        return self.call(operation, {})

    def getInvocationLogs_206(self, operation):
        noisy = self.client.run(AGENT, json.dumps({"sim": {"stderr": "0123456789"}}))["id"]
        return self.call(operation, headers={"Range": "bytes=2-4"}, id=noisy)

    getInvocationLogs_409 = getInvocationOutput_409

    def deployAgent_202(self, operation, rebuild="true"):
        return self.call(operation, archive({"agent.json": '{"runtime": "command", "entry": "cat"}'}),
                         {"Content-Type": "application/gzip"}, [("name", "deployed"), ("rebuild", rebuild)])

    def doomed(self):
        self.client.deploy("doomed", {"agent.json": '{"runtime": "command", "entry": "cat"}'})

    def deleteAgent_204(self, operation):
        self.doomed()
        return self.call(operation, name="doomed")

    def deleteAgent_409(self, operation):
        self.doomed()
        self.client.call("POST", "/v1/schedules", {"name": "holds", "agent": "doomed", "prompt": "", "cron": "0 0 1 1 *"})
        answer = self.call(operation, name="doomed")
        self.client.call("DELETE", "/v1/schedules/holds")
        return answer

    def deployAgent_403(self, operation):
        deployment = self.stack.psql("select id from deployment")
        return self.call(operation, {"name": "deployed", "template": f"{deployment}-x", "manifest": {"entry": "cat"}})

    def deployAgent_200(self, operation):
        self.deployAgent_202(operation, "false")
        until("it is ready", lambda: self.client.call("GET", "/v1/agents/deployed").json["version"])
        return self.deployAgent_202(operation, "false")


def _is_socket(pid, fd):
    with contextlib.suppress(FileNotFoundError):
        return os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:")
    return False


@pytest.fixture(scope="module")
def maker(stack, contract):
    stack.full = stack.add_gateway(SANDPIPER_GATEWAY_MAX_CONNECTIONS="2")
    stack.strict = stack.add_gateway(SANDPIPER_TENANT_REQUESTS_PER_SECOND="1", SANDPIPER_TENANT_BURST="1")
    stack.keyless = stack.add_gateway(SANDPIPER_WEBHOOK_PUBLIC_KEY_FILE="", SANDPIPER_ENV_PUBLIC_KEY_FILE="")
    m = Maker(stack, contract)
    m.open_id = m.client.submit(AGENT, json.dumps({"sim": {"run_ms": 600_000}}), timeout_s=900).json["id"]
    until("it runs", lambda: m.client.get(m.open_id)["status"] == "running")
    stack.full.sockets = sum(1 for f in os.listdir(f"/proc/{stack.full.pid}/fd") if _is_socket(stack.full.pid, f))
    return m


STATUSES = [(o.id, status) for o in DOCUMENTED.operations for status in sorted(o.responses) if status != 408]


@pytest.mark.parametrize("name,status", STATUSES)
def test_every_documented_status_comes_about(contract, maker, name, status):
    operation = contract.by_id[name]
    make = getattr(maker, f"{name}_{status}", None) or getattr(maker, f"any_{status}", None)
    assert make is not None, f"no test brings about {status} of {name}: add Maker.{name}_{status}"
    got, headers, body = make(operation)
    assert got == status, (got, body[:300])
    contract.check(operation, got, headers, body)


def test_every_operation_names_what_any_may_answer():
    for o in DOCUMENTED.operations:
        enough = {scope for a in o.security for scope in a["key"]}
        always = {400, 408, 414, 431, 503} | (set() if o.open else {401, 429}) | (set() if o.open or {"read", "invoke", "deploy"} <= enough else {403})
        assert always <= set(o.responses), (o, always - set(o.responses))


def test_requests_that_do_not_arrive_get_408(contract, maker):
    """All at once: it takes the seconds of the deadline."""
    late = [o for o in contract.operations if 408 in o.responses]
    answers = in_threads([lambda o=o: maker.any_408(o) for o in late], workers=len(late))
    for operation, (status, headers, body) in zip(late, answers):
        assert status == 408, (operation, body)
        contract.check(operation, status, headers, body)


# ---- waiting ----


def test_a_wait_that_is_honoured_is_said(stack):
    open_id = stack.client.submit(AGENT, json.dumps({"sim": {"run_ms": 3000}})).json["id"]
    a = stack.client.call("GET", f"/v1/invocations/{open_id}", headers={"Prefer": "respond-async, wait=0"})
    assert a.headers["Preference-Applied"] == "wait=0" and a.json["finished_at"] is None and a.headers["Retry-After"] == "1"
    a = stack.client.call("GET", f"/v1/invocations/{open_id}", headers={"Prefer": "wait=20"})
    assert a.headers["Preference-Applied"] == "wait=20" and a.json["status"] == "succeeded"
    assert "Retry-After" not in a.headers and "Preference-Applied" not in stack.client.call("GET", f"/v1/invocations/{open_id}").headers
    a = stack.client.submit(AGENT, "x", wait=900)
    assert a.headers["Preference-Applied"] == "wait=300" and a.status == 200


def test_a_poll_costs_no_body_while_nothing_changes(stack):
    id = stack.client.submit(AGENT, json.dumps({"sim": {"run_ms": 1500}})).json["id"]
    until("it runs", lambda: stack.client.get(id)["status"] == "running")
    first = stack.client.call("GET", f"/v1/invocations/{id}")
    same = stack.client.call("GET", f"/v1/invocations/{id}", headers={"If-None-Match": first.headers["ETag"]})
    assert same.status == 304 and same.body == b"" and same.headers["ETag"] == first.headers["ETag"]
    done = stack.client.call("GET", f"/v1/invocations/{id}?wait=20", headers={"If-None-Match": first.headers["ETag"]})
    assert done.status == 200 and done.json["status"] == "succeeded" and done.headers["ETag"] != first.headers["ETag"]
    for etag in (done.headers["ETag"], "*", f'"x" , W/{done.headers["ETag"]}'):
        assert stack.client.call("GET", f"/v1/invocations/{id}", headers={"If-None-Match": etag}).status == 304
    assert stack.client.call("GET", f"/v1/invocations/{id}", headers={"If-None-Match": '"x"'}).status == 200


# ---- the rate of a tenant ----


def test_answers_tell_how_many_requests_are_left(stack):
    g = stack.add_gateway(SANDPIPER_TENANT_REQUESTS_PER_SECOND="2", SANDPIPER_TENANT_BURST="5")
    client, other = Client(g.port, stack.key), Client(g.port, stack.new_key("another"))
    answers = [client.call("GET", "/v1/agents") for _ in range(12)]
    first, last = answers[0], answers[-1]
    assert first.status == 200 and first.headers["RateLimit-Policy"] == '"tenant";q=5;w=3'
    assert first.headers["RateLimit"] == '"tenant";r=4;t=1'
    assert last.status == 429 and last.json["code"] == "too_many_requests" and last.headers["Retry-After"] == "1"
    assert last.headers["RateLimit"].startswith('"tenant";r=0;')
    assert other.call("GET", "/v1/agents").status == 200  # another tenant's bucket is full
    assert client.call("GET", "/healthz", key=False).status == 200
    until("there is one again", lambda: client.call("GET", "/v1/agents").status == 200)
    assert "RateLimit" not in stack.client.call("GET", "/v1/agents").headers
