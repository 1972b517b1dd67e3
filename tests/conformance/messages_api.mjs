// A stand-in of Anthropic's Messages API, for the example agents: one prompt, one streamed answer. It runs inside the
// sandbox, beside the agent, and becomes its parent: `node messages_api.mjs PROGRAM ARGUMENT...` runs the program with
// ANTHROPIC_BASE_URL pointing here, and ends as it ends. What the prompt says decides the answer.
import { spawn } from "node:child_process";
import http from "node:http";

const KEY = "sk-ant-stand-in-0123456789";

function refuse(res, status, type, message) {
  res.writeHead(status, { "content-type": "application/json", "x-should-retry": "false" });
  res.end(JSON.stringify({ type: "error", error: { type, message } }));
}

function answer(res, model, text) {
  const event = (type, rest) => res.write(`event: ${type}\ndata: ${JSON.stringify({ type, ...rest })}\n\n`);
  res.writeHead(200, { "content-type": "text/event-stream" });
  event("message_start", {
    message: {
      id: "msg_1", type: "message", role: "assistant", model, content: [], stop_reason: null, stop_sequence: null,
      usage: { input_tokens: 12, output_tokens: 1 },
    },
  });
  event("content_block_start", { index: 0, content_block: { type: "text", text: "" } });
  event("ping", {});
  for (const piece of text.match(/.{1,5}/gsu)) event("content_block_delta", { index: 0, delta: { type: "text_delta", text: piece } });
  event("content_block_stop", { index: 0 });
  event("message_delta", { delta: { stop_reason: "end_turn", stop_sequence: null }, usage: { output_tokens: 34 } });
  event("message_stop", {});
  res.end();
}

let busy = 1; // the first request of "busy" meets an overload, the second does not
const server = http.createServer((req, res) => {
  let body = "";
  req.on("data", (piece) => (body += piece));
  req.on("end", () => {
    if (req.method !== "POST" || !req.url.startsWith("/v1/messages")) return refuse(res, 404, "not_found_error", req.url);
    const key = req.headers["x-api-key"] ?? req.headers.authorization?.replace(/^Bearer /, "");
    if (key !== KEY) return refuse(res, 401, "authentication_error", "invalid API key");
    const { model, messages, stream } = JSON.parse(body);
    const prompt = messages[0].content;
    if (!stream || messages.length !== 1) return refuse(res, 400, "invalid_request_error", "not a prompt");
    if (prompt === "refuse") return refuse(res, 400, "invalid_request_error", "I would rather not");
    if (prompt === "busy" && busy-- > 0) {
      res.writeHead(529, { "content-type": "application/json", "retry-after-ms": "10" });
      return res.end('{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}');
    }
    answer(res, model, `You said: ${prompt} äöü`);
  });
});

server.listen(0, "127.0.0.1", () => {
  const env = { ...process.env, ANTHROPIC_BASE_URL: `http://127.0.0.1:${server.address().port}` };
  spawn(process.argv[2], process.argv.slice(3), { stdio: "inherit", env }).on("exit", (code) => process.exit(code ?? 1));
});
