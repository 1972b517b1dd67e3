// An agent: the prompt comes on stdin, the answer goes to stdout, the log to stderr. Exit code 0 means that it went well.
'use strict';

const fs = require('node:fs');

function answer(prompt) {
  return prompt.toUpperCase(); // your program
}

const prompt = fs.readFileSync(0, 'utf8').trim();
if (prompt === '') {
  console.error('the prompt is empty');
  process.exit(1);
}
console.error(`a prompt of ${prompt.length} characters`);
console.log(answer(prompt));
