// The prompt goes to Claude, and what Claude says goes to stdout as it comes. The SDK reads ANTHROPIC_API_KEY, which
// is a secret of the agent, and tries again by itself when the API is busy. What was used goes into the invocation's record.
'use strict';

const fs = require('node:fs');
const Anthropic = require('@anthropic-ai/sdk');

async function main() {
  const prompt = fs.readFileSync(0, 'utf8').trim();
  if (prompt === '') {
    console.error('the prompt is empty');
    return 1;
  }
  const client = new Anthropic();
  const stream = client.messages.stream({
    model: process.env.CLAUDE_MODEL,
    max_tokens: Number(process.env.CLAUDE_MAX_TOKENS),
    messages: [{ role: 'user', content: prompt }],
  });
  stream.on('text', (text) => process.stdout.write(text));
  const message = await stream.finalMessage();
  process.stdout.write('\n');
  if (process.env.SANDPIPER_USAGE_FILE) {
    fs.writeFileSync(process.env.SANDPIPER_USAGE_FILE, JSON.stringify({ usage: message.usage }));
  }
  if (message.stop_reason === 'max_tokens') {
    console.error('the answer was cut: CLAUDE_MAX_TOKENS in agent.json says where');
  }
  return message.stop_reason === 'refusal' ? 1 : 0;
}

main().then(
  (code) => { process.exitCode = code; },
  (error) => {
    console.error(error instanceof Anthropic.APIError ? `the API said: ${error.message}` : error);
    process.exitCode = 1;
  },
);
