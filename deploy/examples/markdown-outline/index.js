// The outline of the Markdown document on stdin: its headings, and what stands under each.
'use strict';

const fs = require('node:fs');
const { lexer } = require('marked');

const COUNTED = { paragraph: 'paragraph', list: 'list', code: 'code block', table: 'table', blockquote: 'quotation' };

function sectionsOf(tokens) {
  const sections = [{ depth: 0, title: '(before the first heading)', counts: new Map(), words: 0 }];
  for (const token of tokens) {
    if (token.type === 'heading') {
      sections.push({ depth: token.depth, title: token.text, counts: new Map(), words: 0 });
      continue;
    }
    const section = sections.at(-1);
    const kind = COUNTED[token.type];
    if (kind) section.counts.set(kind, (section.counts.get(kind) ?? 0) + 1);
    if (token.type !== 'code') section.words += (token.raw.match(/\S+/g) ?? []).length;
  }
  return sections.filter((s) => s.depth > 0 || s.counts.size > 0);
}

function line(section) {
  const parts = [...section.counts].map(([kind, n]) => `${n} ${kind}${n === 1 ? '' : 's'}`);
  const holds = section.words > 0 ? [`${section.words} words`, ...parts] : parts;
  const title = '  '.repeat(Math.max(0, section.depth - 1)) + section.title;
  return holds.length > 0 ? `${title}  [${holds.join(', ')}]` : title;
}

console.log(sectionsOf(lexer(fs.readFileSync(0, 'utf8'))).map(line).join('\n'));
