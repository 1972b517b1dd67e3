// What a caller can learn of its jobs afterwards: a line for each {n, id} read from stdin.
import readline from "node:readline";
import { Queue } from "bullmq";

const [socket, name] = process.argv.slice(2);
const queue = new Queue(name, { connection: { path: socket } });
for await (const line of readline.createInterface({ input: process.stdin })) {
  const { n, id } = JSON.parse(line);
  const job = await queue.getJob(id);
  const own = job !== undefined && job !== null && job.data.n === n; // an id may have been given twice
  const state = own ? await job.getState() : "unknown";
  console.log(JSON.stringify({ n, state, result: own && job.returnvalue ? job.returnvalue.n : null }));
}
process.exit(0);
