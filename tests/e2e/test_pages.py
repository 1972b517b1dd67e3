"""Lists in pages, all of them alike: every row once, the last page says so, a cursor is of its list and tenant."""

import pytest

from sim_stack import AGENT, SimStack
from stack import Client, until
from webhook_receiver import OPEN, Receiver

ROWS = 7
LISTS = {"agents": "/v1/agents", "schedules": "/v1/schedules", "webhooks": "/v1/webhooks", "batches": "/v1/batches",
         "versions": f"/v1/agents/{AGENT}/versions",
         "deliveries": None}


@pytest.fixture(scope="module")
def stack():
    s, receiver = SimStack(**OPEN), Receiver()
    try:
        s.start()
        c = s.client
        for i in range(ROWS - 1):
            c.deploy(f"agent-{i}", {"agent.json": '{"runtime": "command", "entry": "cat"}'})
            c.deploy(AGENT, {"agent.json": '{"runtime": "command", "entry": "cat"}', "n": str(i)})
        for i in range(ROWS):
            assert c.call("POST", "/v1/schedules", {"name": f"s-{i}", "cron": "@daily", "agent": AGENT, "prompt": "x"}).status == 201
            a = c.call("POST", "/v1/webhooks", {"url": receiver.url(), "events": ["invocation.error"]})
            assert a.status == 201
            assert c.call("POST", f"/v1/batches?agent={AGENT}", b'{"prompt": "x"}', {"Content-Type": "application/x-ndjson"}).status == 202
        LISTS["deliveries"] = f"/v1/webhooks/{a.json['id']}/deliveries"
        for _ in range(ROWS):
            c.call("POST", f"/v1/webhooks/{a.json['id']}/test")
        until("all were tried", lambda: len(page(c, "deliveries")["rows"]) >= ROWS)
        yield s
    finally:
        s.stop()
        receiver.close()


def page(client, name, query=""):
    a = client.call("GET", LISTS[name] + query)
    assert a.status == 200, (a.status, a.body)
    return {"rows": a.json["agents" if name == "agents" else "data"], "next": a.json["next_cursor"]}


def row_id(row):
    return row.get("id") or row["version"]


@pytest.mark.parametrize("name", list(LISTS))
@pytest.mark.parametrize("limit", [1, 3, "all"])
def test_a_walk_meets_every_row_once(stack, name, limit):
    whole = page(stack.client, name)
    assert whole["next"] is None and len(whole["rows"]) >= ROWS
    limit = len(whole["rows"]) if limit == "all" else limit
    rows, cursor, pages = [], "", 0
    while cursor is not None:
        p = page(stack.client, name, f"?limit={limit}" + (cursor and f"&cursor={cursor}"))
        assert len(p["rows"]) == limit or p["next"] is None
        rows, cursor, pages = rows + p["rows"], p["next"], pages + 1
    assert [row_id(r) for r in rows] == [row_id(r) for r in whole["rows"]]
    assert pages == -(-len(rows) // limit), "the last page says that it is the last"


@pytest.mark.parametrize("name", list(LISTS))
def test_a_cursor_is_of_its_list_and_tenant(stack, name):
    cursor = page(stack.client, name, "?limit=1")["next"]
    stranger = Client(stack.client.port, stack.new_key("another"))
    tries = [(stack.client, other) for other in LISTS if other != name] + [(stranger, name)]
    for client, where in tries:
        a = client.call("GET", LISTS[where] + f"?cursor={cursor}")
        assert (a.status, a.json["code"]) == (400, "invalid_cursor"), where
    for bad in ("", "x", cursor[:-2], cursor + "A"):
        assert stack.client.call("GET", LISTS[name] + f"?cursor={bad}").json["code"] == "invalid_cursor", bad
    for bad in ("0", "-1", "1001", "x", ""):
        assert stack.client.call("GET", LISTS[name] + f"?limit={bad}").json["code"] == "invalid_query", bad
