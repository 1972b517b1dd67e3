"""Pages of GET /v1/invocations in a history of 1,200,000 records of two tenants, at the top and far down.

The history is written by SQL: 600,000 records a tenant over the last 20 hours, three agents, one in ten failed, one in five with
metadata. A position far down is reached by walking there; then its page is asked for again and again. What is filtered for and not
there shows what a page may cost at most."""

import http.client
import json
import time
import urllib.parse

from bench_stack import bench_stack
from harness import Cpu, say

ROWS, STEP_MS, TIMES = 600_000, 120, 200
FILTERS = [("all", {}, 50), ("agent", {"agent": "agent-1"}, 10), ("status=failed", {"status": "failed"}, 5),
           ("metadata", {"metadata.k": "v0"}, 5)]
NOTHING = [("status=canceled, of which there are none", {"status": "canceled"}),
           ("status=open, of which there are none", {"status": "open"}),
           ("metadata that nothing has", {"metadata.k": "none"})]
SCHEMA = """
create function v7(ms bigint, n bigint) returns uuid language sql immutable as $$
  select (lpad(to_hex(ms), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid $$;
insert into agents (id, tenant, slug, serving, latest)
  select md5(t.id || '-' || n)::uuid, t.id, 'agent-' || n, 1, 1 from tenants t, generate_series(0, 2) n;
insert into agent_versions (agent, version, id, tenant, status, runtime, entry, install, archive_bytes, archive_sha256)
  select a.id, 1, gen_random_uuid(), a.tenant, 1, 'command', 'cat', '', 1, '' from agents a where slug ~ '^agent-'"""


def fill(s):
    """Tenants take turns, as in life: neighbours on a page of the index are the other one's."""
    base = int(time.time() * 1000) - ROWS * STEP_MS
    s.psql(SCHEMA)
    s.psql(f"""
        insert into invocations (id, tenant, agent, version, api_key, priority, timeout_ms, queue_timeout_ms, max_attempts,
                                 retry_on, prompt, prompt_bytes, metadata)
          select v7({base} + n / 2 * {STEP_MS}, n), t.id, md5(t.id || '-' || (n / 2) % 3)::uuid, 1, gen_random_uuid(), (n / 2) % 3,
                 120000, 86400000, 1, 0, convert_to(repeat('p', 200), 'UTF8'), 200,
                 case when (n / 2) % 5 = 0 then '{{"k":"v' || (n / 2) % 10 / 5 || '","run":' || n || '}}' end
          from generate_series(0, {2 * ROWS - 1}) n
          join (select id, row_number() over (order by id) - 1 as turn from tenants
                where name in ('default', 'other')) t on t.turn = n % 2""")
    s.psql("""
        insert into results (id, tenant, attempt, boot, status, exit_code, output, output_bytes, output_truncated, logs, logs_bytes,
                             logs_truncated, started_at, finished_at)
          select id, tenant, 1, gen_random_uuid(), case when get_byte(uuid_send(id), 15) % 10 = 0 then 2 else 1 end, 0,
                 convert_to(repeat('o', 200), 'UTF8'), 200, false, '', 0, false, now(), now() from invocations""")
    s.psql("analyze")
    rows = s.count("select count(*) from results")
    if rows < 2 * ROWS:
        raise RuntimeError(f"{rows} rows were written")


class Lister:
    """One connection, kept."""

    def __init__(self, s):
        self.c, self.headers = http.client.HTTPConnection("127.0.0.1", s.gateways[0].port, timeout=30), s.headers

    def page(self, **params):
        began = time.perf_counter()
        self.c.request("GET", "/v1/invocations?" + urllib.parse.urlencode(params), headers=self.headers)
        r = self.c.getresponse()
        body = r.read()
        took = (time.perf_counter() - began) * 1000
        if r.status != 200:
            raise RuntimeError(f"{r.status}: {body[:200]}")
        answer = json.loads(body)
        return answer["data"], answer["next_cursor"], took

    def descend(self, params, records):
        """The cursor after so many records; each is seen once."""
        cursor, seen, last = {}, 0, "inv_g"
        while seen < records:
            data, following, _ = self.page(**params, **cursor, limit=min(200, records - seen))
            if not following or any(b["id"] >= a["id"] for a, b in zip(data, data[1:])) or (data and data[0]["id"] >= last):
                raise RuntimeError(f"the walk broke after {seen} records")
            last = data[-1]["id"] if data else last
            seen, cursor = seen + len(data), {"cursor": following}
        return cursor

    def times(self, want, **params):
        took = []
        for _ in range(TIMES):
            data, _, ms = self.page(**params)
            if len(data) != want:
                raise RuntimeError(f"{len(data)} records instead of {want}")
            took.append(ms)
        took.sort()
        return took[len(took) // 2], took[len(took) * 99 // 100]


def run(figures):
    with bench_stack() as s:
        for executor in list(s.executors):
            s.end(executor)
        s.new_key("other")
        say(f"lists: writing {2 * ROWS:,} records")
        fill(s)
        lister = Lister(s)
        cpu, pages = Cpu(gateway=[s.gateways[0].pid], postgres=[s.postgres.pid]), 0
        for name, params, limit in FILTERS:
            for number in (1, 100, 10_000):
                say(f"lists: {name}, page {number}")
                cursor = lister.descend(params, (number - 1) * limit) if number > 1 else {}
                with cpu:
                    p50, p99 = lister.times(limit, **params, **cursor, limit=limit)
                pages += TIMES
                what = f"list, {name}, {limit} a page: page {number:,}"
                figures.row(f"{what}, p50", p50, unit="ms")
                figures.row("  p99", p99, unit="ms")
        figures.share("a page of the list (the last position)", cpu, TIMES)
        for name, params in NOTHING:
            p50, p99 = lister.times(0, **params)
            figures.row(f"list, {name}: one page, p50", p50, unit="ms")
        figures.note(f"lists: {2 * ROWS:,} records of two tenants within {ROWS * STEP_MS // 3600_000} hours, one connection; each position "
                     f"was reached by walking there, then its page was asked for {TIMES} times.")
