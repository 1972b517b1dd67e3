// Statistics of the document on stdin. No dependencies.
'use strict';

const fs = require('node:fs');

const TOP_TERMS = 8;
const WORDS_PER_MINUTE = 230;
const STOP_WORDS = new Set(
  ('a about after all also an and any are as at be been before but by can could do does each for from had has have ' +
    'if in into is it its may more most no not of on one only or other out over same so some such than that the their ' +
    'them then there these they this those to under until up was were what when where which while who will with ' +
    'without would you your').split(' '),
);

function wordsOf(text) {
  return text.match(/[\p{L}\p{N}]+(?:['’_-][\p{L}\p{N}]+)*/gu) ?? [];
}

function topTerms(words) {
  const counts = new Map();
  for (const word of words.map((w) => w.toLowerCase())) {
    if (word.length > 2 && !STOP_WORDS.has(word) && !/^\d+$/.test(word)) {
      counts.set(word, (counts.get(word) ?? 0) + 1);
    }
  }
  return [...counts].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0])).slice(0, TOP_TERMS);
}

// Markdown's "# headings"; those inside fenced code are comments of some program.
function headingsOf(lines) {
  let fenced = false;
  return lines.filter((line) => {
    if (/^\s*(```|~~~)/.test(line)) fenced = !fenced;
    return !fenced && /^#{1,6}\s+\S/.test(line);
  });
}

function report(text) {
  const lines = text.split('\n');
  const words = wordsOf(text);
  const unique = new Set(words.map((w) => w.toLowerCase()));
  const headings = headingsOf(lines);
  const rows = [
    ['characters', [...text].length],
    ['lines', lines.length - (text.endsWith('\n') ? 1 : 0)],
    ['words', words.length],
    ['unique words', unique.size],
    ['reading time', `${Math.max(1, Math.round(words.length / WORDS_PER_MINUTE))} min`],
    ['headings', headings.length],
  ];
  const out = rows.map(([name, value]) => `${name.padEnd(14)}${value}`);
  const terms = topTerms(words).map(([word, n]) => `${word} (${n})`);
  if (terms.length > 0) out.push(`${'top terms'.padEnd(14)}${terms.join(', ')}`);
  return out.concat(headings.map((h) => `  ${h}`)).join('\n');
}

const text = fs.readFileSync(0, 'utf8');
if (text.trim() === '') {
  console.error('The prompt is empty: give a document to count.');
  process.exit(1);
}
console.log(report(text));
