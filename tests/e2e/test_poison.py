"""Nothing that one caller sends can fail another's commit. Submissions of the same moment share a commit: odd ones are put
into the middle of 63 plain ones, and each gets its own answer, once.

As no value that passes the checks should be one that PostgreSQL refuses, a constraint of the tests refuses marked prompts:
so the splitting of groups is seen at work."""

import json
import random
import re
import threading

import pytest

from stack import in_threads
from test_http_limits import add_agent, quiet_stack

PLAIN = 63
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def stack():
    s = quiet_stack()
    add_agent(s, "a" * 63)
    yield s
    s.stop()


def accepted(stack, mark):
    """How many invocations of this mark there are, and how many differ in their prompts."""
    return tuple(map(int, stack.psql(f"select count(*), count(distinct prompt) from invocations where "
                                     f"metadata like '%{mark}%'").split("|")))


def shoot(stack, mark, poison):
    """63 plain submissions and the odd one among them, let go at one moment: (answers of the plain, of the odd one)."""
    go, client = threading.Barrier(PLAIN + 1), stack.client
    at = random.randrange(PLAIN + 1)
    n = iter(range(PLAIN))

    def plain(i):
        go.wait(30)
        return client.submit("echo", f"{mark} {i}", metadata={"mark": mark})

    def odd():
        go.wait(30)
        return poison(client)

    jobs = [odd if i == at else (lambda i=next(n): plain(i)) for i in range(PLAIN + 1)]
    answers = in_threads(jobs, PLAIN + 1)
    return answers[:at] + answers[at + 1:], answers[at]


def raw(body, headers=None):
    data = body if isinstance(body, bytes) else body.encode()
    return lambda c: c.call("POST", "/v1/invocations", data, {"Content-Type": "application/json", **(headers or {})})


def doc(**fields):
    return raw(json.dumps({"agent": "echo", "prompt": "x", **fields}, ensure_ascii=False))


def nested(depth):
    return '{"a":' * depth + "1" + "}" * depth


ODD = [
    ("an empty prompt", doc(prompt=""), 202),
    ("U+FFFF", doc(prompt="\uffff"), 202),
    ("U+FFFE and U+FEFF", doc(prompt="\ufffe\ufeff"), 202),
    ("U+10FFFF", doc(prompt="\U0010ffff" * 100), 202),
    ("every control character, escaped", raw('{"agent":"echo","prompt":"%s"}' % "".join(f"\\u{i:04x}" for i in range(1, 32))), 202),
    ("delete and C1 controls", doc(prompt="".join(map(chr, range(0x7f, 0xa0)))), 202),
    ("bytea's escapes", doc(prompt="\\x", metadata={"\\x": "\\x00", "b": "\\000"}), 202),
    ("backslashes", doc(prompt="\\" * 1000, metadata={"\\": "\\\\"}), 202),
    ("an array's text", doc(prompt='{NULL,"a",\\"}', metadata={"{": '{"}', ",": "NULL"}), 202),
    ("quotes and dollars", doc(prompt="'; drop table invocations; --", metadata={"'": "$1 $$ $a$ %s %n"}), 202),
    ("COPY's end", doc(prompt="\\.\n", metadata={"a": "\\."}), 202),
    ("combining marks", doc(prompt="a" + "\u0300" * 1000), 202),
    ("right to left", doc(prompt="\u202e\u2066\u05d0", metadata={"\u202e": "\u200f"}), 202),
    ("a surrogate pair, escaped", raw('{"agent":"echo","prompt":"\\ud83d\\ude00","metadata":{"\\ud83d\\ude00":"\\udbff\\udfff"}}'), 202),
    ("a lone surrogate", raw('{"agent":"echo","prompt":"\\ud83d"}'), 400),
    ("an escaped NUL in metadata", raw('{"agent":"echo","prompt":"x","metadata":{"a":"\\u0000"}}'), 400),
    ("a raw NUL in metadata", raw(b'{"agent":"echo","prompt":"x","metadata":{"a":"\0"}}'), 400),
    ("no UTF-8 in metadata", raw(b'{"agent":"echo","prompt":"x","metadata":{"a":"\xff"}}'), 400),
    ("numbers at the ends of double", raw('{"agent":"echo","prompt":"x","metadata":{"a":1e308,"b":-1.7976931348623157e308,"c":5e-324,'
                                          '"d":1e-400,"e":-0,"f":-0.0e-0}}'), 202),
    ("a number of 300 digits", raw('{"agent":"echo","prompt":"x","metadata":{"a":%s}}' % ("9" * 300)), 202),
    ("60 levels of metadata", raw('{"agent":"echo","prompt":"x","metadata":%s}' % nested(60)), 202),
    ("64 levels of metadata", raw('{"agent":"echo","prompt":"x","metadata":%s}' % nested(64)), 400),
    ("metadata at its limit", doc(metadata={"a": "x" * 16370}), 202),
    ("metadata over its limit", doc(metadata={"a": "x" * 16384}), 413),
    ("metadata of 4,000 names", raw('{"agent":"echo","prompt":"x","metadata":{%s}}' % ",".join(f'"{i:x}":0' for i in range(2000))), 202),
    ("metadata with an empty name", doc(metadata={"": ""}), 202),
    ("64 KiB, the last that shares a commit", doc(prompt="x" * (64 * 1024 - 200)), 202),
    ("64 KiB and a byte", doc(prompt="x" * (64 * 1024 + 1)), 202),
    ("a chunk's length", doc(prompt="x" * (256 * 1024)), 202),
    ("a chunk and a byte", doc(prompt="x" * (256 * 1024 + 1)), 202),
    ("4 MiB", doc(prompt="x" * (4 * MIB)), 202),
    ("4 MiB of escapes", raw('{"agent":"echo","prompt":"%s"}' % ("\\n" * (3 * MIB))), 202),
    ("4 MiB and a byte", doc(prompt="x" * (4 * MIB + 1)), 413),
    ("the least numbers", doc(timeout_s=1, queue_timeout_s=1, retry={"max_attempts": 1, "on": []}), 202),
    ("the greatest numbers", doc(timeout_s=3600, queue_timeout_s=86400, retry={"max_attempts": 10}), 202),
    ("numbers beyond 64 bits", raw('{"agent":"echo","prompt":"x","timeout_s":99999999999999999999}'), 400),
    ("an agent's longest name", doc(agent="a" * 63), 202),
    ("an agent's name too long", doc(agent="a" * 64), 400),
    ("an unknown agent", doc(agent="nobody"), 404),
    ("version 2147483647", doc(agent="echo@2147483647"), 404),
    ("version 2147483648", doc(agent="echo@2147483648"), 400),
    ("a key of odd characters", raw('{"agent":"echo","prompt":"x"}', {"Idempotency-Key": "'\\x00;--$1{}%n%s\\"}), 202),
    ("a key of 255", raw('{"agent":"echo","prompt":"x"}', {"Idempotency-Key": "~" * 255}), 202),
    ("a key and 4 MiB", raw('{"agent":"echo","prompt":"%s"}' % ("y" * 4 * MIB), {"Idempotency-Key": "large"}), 202),
]


@pytest.mark.parametrize("name,poison,status", ODD, ids=[r[0] for r in ODD])
def test_an_odd_value_among_63(stack, name, poison, status):
    mark = "m" + re.sub(r"\W", "", name)
    plain, odd = shoot(stack, mark, poison)
    assert odd.status == status, odd.body
    assert [a.status for a in plain] == [202] * PLAIN
    assert len({a.json["id"] for a in plain}) == PLAIN
    assert accepted(stack, mark) == (PLAIN, PLAIN)


def test_the_prompt_comes_back_as_it_was_sent(stack):
    """What the odd rows rest on: values go to PostgreSQL and back unchanged."""
    prompt = "\uffff\\x00{NULL}'\u0301\U0010ffff\x01\x7f\\.\n"
    metadata = {"\\x": ["\uffff", 1e308, {"": None}]}
    a = stack.client.submit("echo", prompt, metadata=metadata)
    record = stack.client.get(a.json["id"])
    assert record["prompt"] == prompt and record["metadata"] == metadata


@pytest.mark.parametrize("large", [False, True], ids=["shared commits", "large ones"])
@pytest.mark.parametrize("how", ["23514", "22023", "22021"])
def test_a_row_that_postgresql_refuses_fails_alone(stack, how, large):
    """A check (class 23) or a trigger (class 22) refuses the marked row: its sender is told, the other 63 are accepted, once."""
    if how == "23514":
        stack.psql("alter table invocations add constraint refuses check (metadata not like '%poison%') not valid")
    else:
        stack.psql(f"create function refuse() returns trigger language plpgsql as $$ begin if new.metadata like '%poison%' then "
                   f"raise exception 'refused' using errcode = '{how}'; end if; return new; end $$; "
                   "create trigger refuses before insert on invocations for each row execute function refuse()")
    try:
        for turn in range(3):
            mark = f"r{how}{large}{turn}"
            plain, odd = shoot(stack, mark, doc(prompt="p" * (100000 if large else 10), metadata={"poison": f"{how}{large}"}))
            assert (odd.status, odd.json["code"]) == (400, "bad_request"), odd.body
            assert "cannot be stored" in odd.json["detail"]
            assert [a.status for a in plain] == [202] * PLAIN
            assert accepted(stack, mark) == (PLAIN, PLAIN)
        assert accepted(stack, f'poison": "{how}{large}')[0] == 0
        answers = in_threads([lambda i=i: stack.client.submit("echo", "x", metadata={"poison" if i % 2 else "fine": f"half{how}{large}"})
                              for i in range(64)], 64)
        assert [a.status for a in answers] == [400 if i % 2 else 202 for i in range(64)]
        assert accepted(stack, f"half{how}{large}")[0] == 32
        keyed = stack.client.submit("echo", "x", metadata={"poison": 1}, idempotency_key=f"k{how}{large}")
        assert keyed.status == 400
    finally:
        stack.psql("alter table invocations drop constraint refuses" if how == "23514" else
                   "drop trigger refuses on invocations; drop function refuse()")
    again = stack.client.submit("echo", "x", metadata={"poison": 1}, idempotency_key=f"k{how}{large}")
    assert again.status == 202, "a refused submission must leave its key free"


def test_an_agent_that_goes_between_resolving_and_committing(stack):
    """Its row vanishes while submissions to it are under way: each of the others is accepted, and that one has one answer."""
    for turn in range(3):
        name, mark = f"brief-{turn}", f"brief{turn}"
        add_agent(stack, name)
        assert stack.client.submit(name, "resolved").status == 202  # and remembered by the gateway
        stack.psql(f"delete from agent_versions where agent = (select id from agents where slug = '{name}'); "
                   f"delete from agents where slug = '{name}'")
        plain, odd = shoot(stack, mark, doc(agent=name))
        assert odd.status in (202, 404), odd.body  # accepted as resolved, or found missing: never another's failure
        assert [a.status for a in plain] == [202] * PLAIN
        assert accepted(stack, mark) == (PLAIN, PLAIN)


def test_the_gateway_lived_through_it(stack):
    assert stack.gateways[0].alive()
    assert stack.client.call("GET", "/readyz").status == 200
