"""The prompt goes to Claude, and what Claude says goes to stdout as it comes. The SDK reads ANTHROPIC_API_KEY, which is a
secret of the agent, and tries again by itself when the API is busy. What was used goes into the invocation's record."""

import json
import os
import sys

import anthropic


def main():
    prompt = sys.stdin.read().strip()
    if not prompt:
        print("the prompt is empty", file=sys.stderr)
        return 1
    client = anthropic.Anthropic()
    with client.messages.stream(
            model=os.environ["CLAUDE_MODEL"],
            max_tokens=int(os.environ["CLAUDE_MAX_TOKENS"]),
            messages=[{"role": "user", "content": prompt}]) as stream:
        for text in stream.text_stream:
            print(text, end="", flush=True)
        message = stream.get_final_message()
    print()
    if "SANDPIPER_USAGE_FILE" in os.environ:
        with open(os.environ["SANDPIPER_USAGE_FILE"], "w") as f:
            json.dump({"usage": message.usage.model_dump(mode="json")}, f)
    if message.stop_reason == "max_tokens":
        print("the answer was cut: CLAUDE_MAX_TOKENS in agent.json says where", file=sys.stderr)
    return 1 if message.stop_reason == "refusal" else 0


try:
    sys.exit(main())
except anthropic.APIError as error:
    print(f"the API said: {error.message}", file=sys.stderr)
    sys.exit(1)
