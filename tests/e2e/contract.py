"""The OpenAPI document as the tests use it: its operations, and whether an answer is one that it tells of."""

import json
import random
import re
import socket
import string
import urllib.parse

import jsonschema


class Operation:
    def __init__(self, doc, path, method, item, body):
        self.doc, self.path, self.method, self.body = doc, path, method.upper(), body
        self.id = body["operationId"]
        self.parameters = [doc.resolve(p) for p in item.get("parameters", []) + body.get("parameters", [])]
        self.security = body["security"]
        self.open = self.security == []
        self.responses = {int(s): doc.resolve(r) for s, r in body["responses"].items()}
        self.content = body.get("requestBody", {}).get("content", {})

    def __repr__(self):
        return self.id

    def of(self, where):
        return [p for p in self.parameters if p["in"] == where]

    def target(self, path=None, query=()):
        """path: values by name; the query: pairs."""
        text = re.sub(r"\{(\w+)\}", lambda m: urllib.parse.quote(str((path or {})[m[1]]), safe=""), self.path)
        return text + ("?" + urllib.parse.urlencode(list(query)) if query else "")


class Contract:
    def __init__(self, text):
        self.root = json.loads(text)
        self.operations = [Operation(self, path, method, item, body) for path, item in self.root["paths"].items()
                           for method, body in item.items() if method in ("get", "put", "post", "delete", "patch")]
        self.by_id = {o.id: o for o in self.operations}

    def resolve(self, v):
        while isinstance(v, dict) and "$ref" in v:
            at = self.root
            for name in v["$ref"][2:].split("/"):
                at = at[name]
            v = at
        return v

    def validate(self, value, schema):
        whole = {**schema, "components": self.root["components"]}
        jsonschema.Draft202012Validator(whole).validate(value)

    def check(self, operation, status, headers, body):
        """That the document tells of this answer: its status, its type, its form, its headers."""
        assert status in operation.responses, (operation.id, status, body[:300])
        response = operation.responses[status]
        for name, header in response.get("headers", {}).items():
            value = headers.get(name)
            if value is not None and self.resolve(header)["schema"].get("type") == "integer":
                assert value.isdigit(), (operation.id, status, name, value)
        content = response.get("content")
        if content is None:
            assert body == b"", (operation.id, status, body[:300])
            return
        kind = headers.get("Content-Type", "").split(";")[0]
        assert kind in content, (operation.id, status, kind)
        if operation.method != "HEAD" and kind in ("application/json", "application/problem+json"):
            value = json.loads(body)
            self.validate(value, content[kind]["schema"])
            if kind == "application/problem+json":
                assert value["status"] == status and value["type"] == f"/problems/{value['code']}"


# ---- values by schema ----


def text_of(r, n):
    return "".join(r.choice(string.ascii_letters + string.digits + " -_.@:/%é€\U0001f600") for _ in range(n))


def anything(r, depth=0):
    kinds = [None, True, False, r.randrange(-10**12, 10**12), r.random() * 1e6, "", text_of(r, r.randrange(12))]
    if depth < 3:
        kinds += [[anything(r, depth + 1) for _ in range(r.randrange(3))],
                  {text_of(r, 4): anything(r, depth + 1) for _ in range(r.randrange(3))}]
    return r.choice(kinds)


def value_of(doc, r, schema):
    """Something that the schema allows, mostly."""
    schema = doc.resolve(schema)
    for key in ("oneOf", "anyOf"):
        if key in schema:
            return value_of(doc, r, r.choice(schema[key]))
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return r.choice(schema["enum"])
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        kind = r.choice(kind)
    if kind == "object":
        known = schema.get("properties", {})
        some = {k for k in known if k in schema.get("required", []) or r.random() < 0.3}
        return {k: value_of(doc, r, known[k]) for k in some} or {text_of(r, 3): anything(r) for _ in range(r.randrange(3))}
    if kind == "array":
        return [value_of(doc, r, schema.get("items", {})) for _ in range(r.randrange(4))]
    if kind == "integer":
        low, high = schema.get("minimum", -5), schema.get("maximum", 10**6)
        return r.choice([low, high, r.randint(low, high), schema.get("default", low)])
    if kind == "number":
        return r.uniform(schema.get("minimum", 0), schema.get("maximum", 100))
    if kind == "boolean":
        return r.random() < 0.5
    if kind == "null":
        return None
    if schema.get("format") == "date-time":
        return f"2026-{r.randint(1, 12):02}-{r.randint(1, 28):02}T{r.randint(0, 23):02}:00:00Z"
    if "examples" in schema and r.random() < 0.5:
        return r.choice(schema["examples"])
    if "pattern" in schema:
        return "".join(r.choice(string.ascii_lowercase + string.digits) for _ in range(r.randint(1, 20)))
    return text_of(r, r.randrange(schema.get("minLength", 0), 40))


def spoiled(r, value):
    """The same with one thing that is not as it should be."""
    if isinstance(value, dict) and value and r.random() < 0.8:
        key = r.choice(sorted(value))
        change = r.randrange(4)
        rest = {k: v for k, v in value.items() if k != key}
        if change == 0:
            return rest
        if change == 1:
            return {**value, text_of(r, 5): anything(r)}
        return {**value, key: spoiled(r, value[key]) if change == 2 else anything(r)}
    if isinstance(value, int) and not isinstance(value, bool):
        return r.choice([-1, 0, value * 10**9, value + 0.5, str(value)])
    return anything(r)


# ---- raw requests ----


def raw(port, data, timeout=60):
    """What comes back until the end: status, headers, body."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as s:
        s.sendall(data)
        got = b""
        while piece := s.recv(65536):
            got += piece
            head, _, body = got.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            if length and len(body) >= int(length[1]):
                break
    head, _, body = got.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = Headers({k.lower(): v.strip() for k, v in (x.split(":", 1) for x in lines[1:])})
    return int(lines[0].split()[1]), headers, body


class Headers(dict):
    def get(self, name, default=None):
        return super().get(name.lower(), default)


def random_of(seed):
    return random.Random(seed)
