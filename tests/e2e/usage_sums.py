"""Sums of usage, and what they must be: added up anew from the tables of what ran, in one snapshot with the sums."""

import decimal
import json

COUNTS = ("succeeded", "failed", "timed_out", "canceled", "expired", "error", "attempts", "sandbox_ms", "run_ms", "cpu_ms",
          "input_tokens", "output_tokens", "cost_usd")
RAN = """
    select r.tenant, date(r.finished_at at time zone 'UTC') as day, i.agent, i.api_key, case r.status when 1 then 'succeeded'
        when 2 then 'failed' when 3 then 'timed_out' when 4 then 'canceled' when 5 then 'expired' when 6 then 'error' end as what,
        1::numeric as n
    from results r join invocations i using (id)
    union all
    select u.tenant, date(sandpiper_usage_ended(u.id, u.ended_at, u.started_at, u.queue_ms, u.sandbox_start_ms, u.run_ms)
        at time zone 'UTC'), i.agent, i.api_key, w.what, w.n
    from usage u join invocations i using (id), lateral (values ('attempts', 1::numeric), ('sandbox_ms', sandbox_ms), ('run_ms', run_ms),
        ('cpu_ms', cpu_ms), ('input_tokens', input_tokens), ('output_tokens', output_tokens),
        ('cost_usd', round(cost_usd::numeric, 12))) w (what, n)"""
SUMMED = "select s.tenant, s.day, s.agent, s.api_key, w.what, w.n from (select * from usage_daily union all select * from usage_deltas) s, " \
    "lateral (values " + ", ".join(f"('{c}', s.{c}::numeric)" for c in COUNTS) + ") w (what, n)"
DIFFERENCES = f"""
    with ran as ({RAN}), summed as ({SUMMED}), both_of as (
        select tenant, day, agent, api_key, what, n as ran, 0 as summed from ran
        union all select tenant, day, agent, api_key, what, 0, n from summed)
    select json_agg(d) from (select tenant, day, agent, api_key, what, sum(ran) as ran, sum(summed) as summed from both_of
        group by 1, 2, 3, 4, 5 having sum(ran) is distinct from sum(summed)) d"""


def differences(psql):
    """What is summed otherwise than it ran: none, at any moment."""
    return json.loads(psql(DIFFERENCES) or "[]")


def truth(psql, where="true"):
    """Of what ran alone: {count: sum}. where: of tenant, day, agent, api_key."""
    rows = json.loads(psql(f"select json_object_agg(what, n) from (select what, coalesce(sum(n), 0) as n from ({RAN}) x where {where} "
                           "group by what) y") or "{}", parse_float=decimal.Decimal)
    return {c: rows.get(c, 0) for c in COUNTS}


def flat(sums):
    """The API's sums in the form of `truth`."""
    return {c: sums["invocations"].get(c, sums.get(c)) for c in COUNTS}
