// Fastify with BullMQ's queue.add behind a POST: submissions into Redis memory, no fsync, one process.
import fastify from "fastify";
import { Queue } from "bullmq";

const [socket] = process.argv.slice(2);
const queue = new Queue("bench-submit", { connection: { path: socket } });
await queue.waitUntilReady();

const app = fastify({ logger: false });
app.post("/jobs", async (request, reply) => {
  const { agent, prompt } = request.body;
  const job = await queue.add("invocation", { agent, prompt });
  reply.code(202);
  return { id: job.id, status: "queued" };
});
await app.listen({ host: "127.0.0.1", port: 0 });
console.log(`ready ${app.server.address().port}`);
