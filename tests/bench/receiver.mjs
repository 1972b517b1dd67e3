// The receiver of bench_webhooks: one process, no package. Counts what comes, tells ids apart, and how long after the job's
// end (finished_at in the payload: the moment before its commit) each came. GET / tells, and begins anew.
import http from "node:http";

let count, ids, first, last, waits;

function begin() {
  count = 0;
  ids = new Set();
  first = last = null;
  waits = [];
}

function take(request, body) {
  const now = performance.timeOrigin + performance.now();
  const at = body.indexOf('"finished_at":"');
  count++;
  ids.add(request.headers["webhook-id"]);
  first ??= now;
  last = now;
  if (at >= 0) waits.push(now - Date.parse(body.slice(at + 15, at + 39)));
}

function tell(response) {
  waits.sort((a, b) => a - b);
  const part = (q) => (waits.length > 0 ? waits[Math.min(waits.length - 1, Math.floor(waits.length * q))] : null);
  response.end(JSON.stringify({ count, distinct: ids.size, seconds: (last - first) / 1000, p50_ms: part(0.5), p99_ms: part(0.99), max_ms: part(1) }));
  begin();
}

begin();
const server = http.createServer((request, response) => {
  if (request.method === "GET") {
    tell(response);
    return;
  }
  let body = "";
  request.setEncoding("utf8");
  request.on("data", (piece) => (body += piece));
  request.on("end", () => {
    take(request, body);
    response.writeHead(204).end();
  });
});
server.keepAliveTimeout = 60000;
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
