"""Prints the most telling sentences of the document on stdin, in their order. Standard library only.

A sentence scores by how often its words occur in the whole document, damped by its length; the first sentences of a
document get a little more. No model is involved: this is extraction, not writing."""

import collections
import math
import re
import sys
import textwrap

SENTENCES = 5
SHORTEST, LONGEST = 6, 60  # words
STOP_WORDS = frozenset(
    """a about above after again all also an and any are as at be because been before being below between both but by
    can could did do does doing down during each few for from further had has have having he her here hers him his how i
    if in into is it its itself may me more most my no nor not of off on once only or other our out over own same shall
    she should so some such than that the their them then there these they this those through to too under until up
    very was we were what when where which while who whom why will with within would you your""".split())


def paragraphs(text):
    """The prose of a document: no code blocks, headings, tables, list markers."""
    text = re.sub(r"^(```|~~~).*?^\1[^\n]*$", "", text, flags=re.M | re.S)
    for block in re.split(r"\n\s*\n", text):
        lines = [line for line in block.splitlines() if not re.match(r"\s*(#|\||={3,}|-{3,})", line)]
        if lines and not all(line.startswith("    ") for line in lines if re.search("[`$={};]", line)) or len(lines) > 1:
            yield re.sub(r"\s+", " ", " ".join(re.sub(r"^\s*([-*+]|\(?\w\)|\d+\.)\s+", "", line) for line in lines)).strip()


def sentences(text):
    for paragraph in paragraphs(text):
        for sentence in re.split(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9])", paragraph):
            if SHORTEST <= len(sentence.split()) <= LONGEST and re.search(r"[.!?][\"')\]]*$", sentence):
                yield sentence


def terms(text):
    return [w for w in re.findall(r"[^\W\d_]{3,}", text.lower()) if w not in STOP_WORDS]


def scores(found):
    frequency = collections.Counter(term for sentence in found for term in set(terms(sentence)))
    for i, sentence in enumerate(found):
        words = terms(sentence)
        weight = math.fsum(math.log1p(frequency[w]) for w in set(words)) / (len(words) + 4)  # exact: in any order the same
        yield weight * (1.2 if i < 3 else 1.0), i


def summarize(text, count=SENTENCES):
    found = list(dict.fromkeys(sentences(text)))  # repeated ones once
    best = sorted(sorted(scores(found), reverse=True)[:count], key=lambda pair: pair[1])
    return found, [found[i] for _, i in best]


def main():
    text = sys.stdin.read()
    found, chosen = summarize(text)
    if not chosen:
        print("There is no sentence to choose from in this document.", file=sys.stderr)
        return 1
    for sentence in chosen:
        print(textwrap.fill(sentence, 100, initial_indent="- ", subsequent_indent="  "))
    print(f"chose {len(chosen)} of {len(found)} sentences", file=sys.stderr)
    return 0


sys.exit(main())
