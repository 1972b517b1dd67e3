// Webhooks of the real gateway and dispatcher, verified by the libraries that receivers use: `standardwebhooks`, which the
// specification comes with, and `svix`. 10,000 deliveries, with a rotation of the secret in the middle.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { createRequire } from "node:module";
import http from "node:http";
import path from "node:path";
import test, { after, before } from "node:test";

const require = createRequire(path.join(process.env.SP_E2B_DIR, "x.js"));
const verifiers = { standardwebhooks: require("standardwebhooks").Webhook, svix: require("svix").Webhook };
const DELIVERIES = Number(process.env.SP_WEBHOOK_DELIVERIES ?? 10000);
const PATIENCE_MS = 300000;

const seen = new Map(); // webhook-id -> what each library said
let secrets = [];
let agent, server, endpoint;

async function api(method, target, body) {
  const r = await fetch(process.env.SANDPIPER_URL + target, {
    method,
    headers: { authorization: `Bearer ${process.env.SANDPIPER_API_KEY}`, "content-type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await r.text();
  assert.ok(r.ok, `${method} ${target}: ${r.status} ${text}`);
  return text === "" ? null : JSON.parse(text);
}

function verdict(Webhook, secret, body, headers) {
  try {
    new Webhook(secret).verify(body, headers);
    return true;
  } catch {
    return false;
  }
}

function look(body, headers) {
  const got = { signatures: headers["webhook-signature"].split(" ").length, event: JSON.parse(body).data.id };
  for (const [name, Webhook] of Object.entries(verifiers)) got[name] = secrets.map((s) => verdict(Webhook, s, body, headers));
  seen.set(headers["webhook-id"], [...(seen.get(headers["webhook-id"]) ?? []), got]);
}

function receive(request, response) {
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    look(Buffer.concat(pieces).toString(), request.headers);
    response.writeHead(204).end();
  });
}

async function until(what, check) {
  const end = Date.now() + PATIENCE_MS;
  while (!(await check())) {
    assert.ok(Date.now() < end, `not within ${PATIENCE_MS} ms: ${what}`);
    await new Promise((go) => setTimeout(go, 20));
  }
}

before(async () => {
  agent = process.env.SP_AGENT;
  server = http.createServer(receive);
  await new Promise((go) => server.listen(0, "127.0.0.1", go));
  endpoint = await api("POST", "/v1/webhooks", {
    url: `http://127.0.0.1:${server.address().port}/hook`,
    events: ["invocation.*"],
  });
  secrets = [endpoint.secret];
});

after(() => server.close());

test("a test event verifies, and a changed one does not", async () => {
  const { webhook_id: id } = await api("POST", `/v1/webhooks/${endpoint.id}/test`);
  await until("the test event comes", () => seen.has(id));
  for (const name of Object.keys(verifiers)) assert.deepEqual(seen.get(id)[0][name], [true]);
  const now = String(Math.floor(Date.now() / 1000));
  const key = Buffer.from(endpoint.secret.slice(6), "base64");
  const signature = "v1," + createHmac("sha256", key).update(`${id}.${now}.{}`).digest("base64");
  const headers = { "webhook-id": id, "webhook-timestamp": now, "webhook-signature": signature };
  for (const Webhook of Object.values(verifiers)) {
    assert.ok(verdict(Webhook, endpoint.secret, "{}", headers));
    assert.ok(!verdict(Webhook, endpoint.secret, "{ }", headers));
  }
  seen.clear();
});

test(`${DELIVERIES} of ${DELIVERIES} deliveries verify, across a rotation`, async () => {
  const half = DELIVERIES / 2;
  const submit = (n) => api("POST", "/v1/batches", { items: Array.from({ length: n }, (_, i) => ({ agent, prompt: `job ${i}` })) });
  await submit(half);
  await until("a quarter has come", () => seen.size >= half / 2);
  const rotated = await api("POST", `/v1/webhooks/${endpoint.id}/rotate-secret`, { overlap_s: 3600 });
  secrets.push(rotated.secret);
  await submit(half);
  await until("all have come", () => seen.size >= DELIVERIES);
  const all = [...seen.values()].flat();
  assert.equal(seen.size, DELIVERIES);
  assert.equal(new Set(all.map((g) => g.event)).size, DELIVERIES);
  const twice = all.filter((g) => g.signatures === 2);
  assert.ok(twice.length >= half && twice.length < all.length, `${twice.length} carry two signatures`);
  for (const name of Object.keys(verifiers)) {
    const old = all.filter((g) => g[name][0]).length;
    const fresh = twice.filter((g) => g[name].at(-1)).length;
    console.log(`${name}: ${old} of ${all.length} verified; of ${twice.length} with two signatures, ${fresh} by the new secret`);
    assert.equal(old, all.length);
    assert.equal(fresh, twice.length);
  }
});
