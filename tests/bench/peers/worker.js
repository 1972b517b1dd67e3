// BullMQ's worker: jobs that take no time.
import { Worker } from "bullmq";

const [socket, name, concurrency] = process.argv.slice(2);
const worker = new Worker(name, async () => "ok", { connection: { path: socket }, concurrency: Number(concurrency) });
await worker.waitUntilReady();
console.log("ready");
