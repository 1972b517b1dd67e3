// Adds jobs at a steady rate; a line for each that was accepted: its number, its id, and when.
import fs from "node:fs";
import { Queue } from "bullmq";

const [socket, name, rate, seconds, log] = process.argv.slice(2);
const file = fs.openSync(log, "a");
const queue = new Queue(name, { connection: { path: socket } });
queue.on("error", () => {});
await queue.waitUntilReady();
console.log("ready");

const began = performance.now(), total = Number(rate) * Number(seconds), pending = new Set();
for (let n = 0; n < total; ) {
  const due = Math.min(total, Math.floor(((performance.now() - began) / 1e3) * Number(rate)));
  for (; n < due; n++) {
    const number = n;
    const added = queue.add("invocation", { n: number }).then(
      (job) => fs.writeSync(file, JSON.stringify({ n: number, id: job.id, at: Date.now() }) + "\n"),
      () => {}, // refused: not accepted, so not lost
    );
    pending.add(added);
    added.finally(() => pending.delete(added));
  }
  await new Promise((go) => setTimeout(go, 5));
}
await Promise.race([Promise.all(pending), new Promise((go) => setTimeout(go, 20_000))]);
console.log("done");
process.exit(0);
