// BullMQ's add-and-wait: N callers, each adds a job and waits for its end, over and over.
import { Queue, QueueEvents } from "bullmq";

const [socket, name, callers, seconds] = process.argv.slice(2);
const connection = { path: socket };
const queue = new Queue(name, { connection });
const events = new QueueEvents(name, { connection });
events.setMaxListeners(0);
await Promise.all([queue.waitUntilReady(), events.waitUntilReady()]);

const prompt = "p".repeat(500);
let latencies = [];

async function run(seconds) {
  latencies = [];
  const began = performance.now(), end = began + seconds * 1e3;
  const caller = async () => {
    while (performance.now() < end) {
      const from = performance.now();
      const job = await queue.add("invocation", { agent: "bench", prompt });
      await job.waitUntilFinished(events);
      latencies.push(performance.now() - from);
    }
  };
  await Promise.all(Array.from({ length: Number(callers) }, caller));
  return (performance.now() - began) / 1e3;
}

await run(1); // warm
console.log("warm");
const took = await run(Number(seconds));
latencies.sort((a, b) => a - b);
const at = (q) => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * q))];
console.log(JSON.stringify({ requests: latencies.length, seconds: took, p50_ms: at(0.5), p99_ms: at(0.99) }));
process.exit(0);
