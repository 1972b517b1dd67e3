/* Inside the store only: the part of a statement that counts what it inserts into results and usage. */
#ifndef STORE_USAGE_SQL_H
#define STORE_USAGE_SQL_H

/* For every statement that inserts results (`r` with id, attempt, tenant, status, finished_at; it sets
 * results.counted) and usage (`u`; it sets usage.ended_at): one row of usage_deltas for each tenant, day,
 * agent and key among what was really inserted. low and high: parameters that bound the ids. Rows without
 * those marks are counted by triggers (migration 0021), as of daemons that do not know of sums.
 *
 * Agent and key are the invocation's: one probe of one partition, fenced with OFFSET 0. An attempt's usage is
 * joined to its result first, which halves the probes: nearly all end together. */
#define USAGE_OF_RESULTS                                                                                    \
    "SELECT r.id, r.tenant, r.finished_at AS at, r.status, NULL::int2 AS held, NULL::int8 AS sandbox_ms, "  \
    "NULL::int8 AS run_ms, NULL::int8 AS cpu_ms, NULL::int8 AS input_tokens, NULL::int8 AS output_tokens, " \
    "NULL::float8 AS cost_usd FROM r"
#define USAGE_OF_ENDS                                                                                     \
    "SELECT coalesce(r.id, u.id) AS id, coalesce(r.tenant, u.tenant) AS tenant, coalesce(r.finished_at, " \
    "u.ended_at) AS at, r.status, u.attempt AS held, u.sandbox_ms, u.run_ms, u.cpu_ms, u.input_tokens, "  \
    "u.output_tokens, u.cost_usd FROM r FULL JOIN u ON u.id = r.id AND u.attempt = r.attempt AND "        \
    "u.ended_at = r.finished_at"
#define USAGE_DELTAS_SQL(of, low, high)                                                                  \
    "sums AS (INSERT INTO usage_deltas (tenant, day, agent, api_key, succeeded, failed, timed_out, "     \
    "canceled, expired, error, attempts, sandbox_ms, run_ms, cpu_ms, input_tokens, output_tokens, "      \
    "cost_usd) SELECT v.tenant, (v.at AT TIME ZONE 'UTC')::date, i.agent, i.api_key, "                   \
    "count(*) FILTER (WHERE v.status = 1), count(*) FILTER (WHERE v.status = 2), "                       \
    "count(*) FILTER (WHERE v.status = 3), count(*) FILTER (WHERE v.status = 4), "                       \
    "count(*) FILTER (WHERE v.status = 5), count(*) FILTER (WHERE v.status = 6), "                       \
    "count(v.held), coalesce(sum(v.sandbox_ms), 0), coalesce(sum(v.run_ms), 0), "                        \
    "coalesce(sum(v.cpu_ms), 0), coalesce(sum(v.input_tokens), 0), coalesce(sum(v.output_tokens), 0), "  \
    "coalesce(sum(round(v.cost_usd::numeric, 12)), 0) "                                                  \
    "FROM (" of ") v JOIN LATERAL (SELECT agent, api_key FROM invocations i WHERE i.id = v.id AND i.id " \
    "BETWEEN " low " AND " high " OFFSET 0) i ON true GROUP BY 1, 2, 3, 4), "

#endif
