"""What programs tell of their own usage: a file, or Claude's result events on stdout."""

import json

import pytest

PROGRAM = """
import json, os, sys
order = json.loads(sys.stdin.read())
if "report" in order:
    with open(os.environ["SANDPIPER_USAGE_FILE"], "w") as f:
        f.write(order["report"])
sys.stdout.write(order.get("out", ""))
sys.stdout.flush()
if "env" in order:
    print(os.environ.get("SANDPIPER_USAGE_FILE"))
sys.exit(order.get("exit", 0))
"""

CLAUDE = {"type": "result", "subtype": "success", "is_error": False, "duration_ms": 3100, "num_turns": 2, "result": "done",
          "session_id": "x", "total_cost_usd": 0.0421, "usage": {"input_tokens": 12, "cache_creation_input_tokens": 300,
                                                                 "cache_read_input_tokens": 5000, "output_tokens": 77,
                                                                 "service_tier": "standard"}}


@pytest.fixture(scope="module")
def reporters(stack):
    for name, kind in (("reporter-file", "file"), ("reporter-stream", "stream-json"), ("reporter-none", None)):
        manifest = {"runtime": "python", **({"usage": kind} if kind else {})}
        stack.client.deploy(name, {"agent.json": json.dumps(manifest), "main.py": PROGRAM})
    return stack


def told(record):
    return tuple(record["usage"][k] for k in ("input_tokens", "output_tokens", "cost_usd"))


def log_of(stack, record):
    return stack.client.call("GET", record["logs_url"]).body.decode()


@pytest.mark.parametrize("report, want", [
    ({"input_tokens": 10, "output_tokens": 20, "cost_usd": 0.5}, (10, 20, 0.5)),
    ({"cost_usd": 0}, (None, None, 0)),
    ({"input_tokens": 0}, (0, None, None)),
    (CLAUDE, (5312, 77, 0.0421))])
def test_a_file(reporters, report, want):
    r = reporters.client.run("reporter-file", json.dumps({"report": json.dumps(report)}))
    assert (r["status"], told(r)) == ("succeeded", want)
    assert log_of(reporters, r) == ""
    row = reporters.psql(f"select input_tokens, output_tokens, cost_usd from usage where id = '{r['id'][4:]}'")
    assert row == "|".join("" if v is None else str(v) for v in want)


def test_the_report_of_a_program_that_failed_counts(reporters):
    r = reporters.client.run("reporter-file", json.dumps({"report": '{"input_tokens": 3}', "exit": 9}))
    assert (r["status"], told(r)) == ("failed", (3, None, None))


@pytest.mark.parametrize("report, why", [
    ("", "line 1"), ("nonsense", "line 1"), ("[]", "a JSON object"), ("{}", "neither"), ('{"input_tokens": -1}', "input_tokens"),
    ('{"input_tokens": 1.5}', "input_tokens"), ('{"output_tokens": "7"}', "output_tokens"), ('{"cost_usd": 1e300}', "cost_usd"),
    ('{"input_tokens": 1000000000001}', "input_tokens"), ('{"cost_usd": -0.1}', "cost_usd"), ('{"usage": 7}', "usage"),
    ('{"input_tokens": 1, "input_tokens": 2}', "twice"), ('{"cost_usd": 1}' + " " * 70000, "64 KiB")],
    ids=lambda v: v[:24] if isinstance(v, str) else None)
def test_a_malformed_report_is_ignored(reporters, report, why):
    r = reporters.client.run("reporter-file", json.dumps({"report": report, "out": "fine"}))
    assert (r["status"], r["output"], told(r)) == ("succeeded", "fine", (None, None, None))
    lines = log_of(reporters, r).splitlines()
    assert len(lines) == 1 and lines[0].startswith("sandpiper: the usage report is ignored: ") and why in lines[0], lines


def test_no_report_is_no_fault(reporters):
    for agent in ("reporter-file", "reporter-stream", "reporter-none"):
        r = reporters.client.run(agent, json.dumps({"out": "just text\n"}))
        assert (r["status"], told(r), log_of(reporters, r)) == ("succeeded", (None, None, None), "")
    r = reporters.client.run("reporter-none", json.dumps({"env": True}))
    assert r["output"] == "None\n"


def test_the_last_result_event_counts(reporters):
    first = {**CLAUDE, "total_cost_usd": 7}
    lines = [{"type": "system", "subtype": "init"}, first, {"type": "assistant", "text": '{"type": "result"}'}, CLAUDE,
             {"type": "other", "usage": {"input_tokens": 1}}]
    out = "\n".join(json.dumps(x) for x in lines) + "\nand text"
    r = reporters.client.run("reporter-stream", json.dumps({"out": out}))
    assert (told(r), r["output"]) == ((5312, 77, 0.0421), out)
    r = reporters.client.run("reporter-stream", json.dumps({"out": json.dumps(CLAUDE)}))
    assert told(r) == (5312, 77, 0.0421)


def test_result_events_that_cannot_be_used(reporters):
    bad = {**CLAUDE, "total_cost_usd": -3}
    r = reporters.client.run("reporter-stream", json.dumps({"out": json.dumps(CLAUDE) + "\n" + json.dumps(bad) + "\n"}))
    assert (r["status"], told(r)) == ("succeeded", (None, None, None))
    assert "total_cost_usd" in log_of(reporters, r)
    long = json.dumps({**CLAUDE, "result": "x" * 1100000})
    r = reporters.client.run("reporter-stream", json.dumps({"out": long + "\n" + json.dumps(CLAUDE) + "\n" + long + "\n"}))
    assert told(r) == (5312, 77, 0.0421)


def test_a_batch_and_a_list_hold_it(reporters):
    r = reporters.client.run("reporter-file", json.dumps({"report": '{"input_tokens": 41, "output_tokens": 1}'}))
    line = next(x for x in reporters.client.call("GET", "/v1/invocations?agent=reporter-file").json["data"] if x["id"] == r["id"])
    assert told(line) == (41, 1, None)
