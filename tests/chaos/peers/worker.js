// BullMQ's worker as its documentation has it, all settings left alone but the concurrency. Each job takes a second. What
// it starts and finishes is written to a file at once, by itself: the truth that its queue is held against.
import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "bullmq";

const [socket, name, concurrency, log, runMs] = process.argv.slice(2);
const file = fs.openSync(log, "a");
const tell = (what, n) => fs.writeSync(file, JSON.stringify({ what, n, at: Date.now() }) + "\n");

const worker = new Worker(
  name,
  async (job) => {
    tell("start", job.data.n);
    await sleep(Number(runMs));
    tell("done", job.data.n);
    return { n: job.data.n };
  },
  { connection: { path: socket }, concurrency: Number(concurrency) },
);
worker.on("error", () => {}); // it must be listened to, else the process ends
await worker.waitUntilReady();
console.log("ready");
