"""An agent: the prompt comes on stdin, the answer goes to stdout, the log to stderr. Exit code 0 means that it went well."""

import sys


def answer(prompt):
    return prompt.upper()  # your program


def main():
    prompt = sys.stdin.read().strip()
    if not prompt:
        print("the prompt is empty", file=sys.stderr)
        return 1
    print(f"a prompt of {len(prompt)} characters", file=sys.stderr)
    print(answer(prompt))
    return 0


sys.exit(main())
