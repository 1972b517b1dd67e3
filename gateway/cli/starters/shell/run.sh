#!/bin/sh
# An agent: the prompt comes on stdin, the answer goes to stdout, the log to stderr. Exit code 0 means that it went well.
set -eu

answer() {
    tr '[:lower:]' '[:upper:]' # your program
}

prompt=$(cat)
if [ -z "$prompt" ]; then
    echo 'the prompt is empty' >&2
    exit 1
fi
echo "a prompt of ${#prompt} characters" >&2
printf '%s\n' "$prompt" | answer
