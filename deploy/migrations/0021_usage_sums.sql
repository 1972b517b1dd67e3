-- Sums of usage, a row a tenant, day, agent and key.
--
-- Whoever inserts results or usage inserts rows of usage_deltas in the same statement, made from what it really inserted
-- (shared/store/usage_sql.h): a repeat and a loser add nothing. Dispatchers fold them into usage_daily, each once; who reads adds
-- up both tables in one snapshot. So sums are exact at every moment, and no row is written by every job.

-- When the attempt ended: it counts for that day, in UTC. NULL: its writer knows nothing of sums.
ALTER TABLE usage ADD COLUMN ended_at timestamptz;
-- Its writer has put it into usage_deltas. A result counts for the day of finished_at.
ALTER TABLE results ADD COLUMN counted bool NOT NULL DEFAULT false;

CREATE TABLE usage_deltas (
    tenant int4 NOT NULL,
    day date NOT NULL,
    agent uuid NOT NULL,
    api_key uuid NOT NULL,
    succeeded int8 NOT NULL DEFAULT 0,                    -- invocations, by how they ended
    failed int8 NOT NULL DEFAULT 0,
    timed_out int8 NOT NULL DEFAULT 0,
    canceled int8 NOT NULL DEFAULT 0,
    expired int8 NOT NULL DEFAULT 0,
    error int8 NOT NULL DEFAULT 0,
    attempts int8 NOT NULL DEFAULT 0,                     -- that held a sandbox
    sandbox_ms int8 NOT NULL DEFAULT 0,
    run_ms int8 NOT NULL DEFAULT 0,
    cpu_ms int8 NOT NULL DEFAULT 0,                       -- as far as it is known
    input_tokens numeric NOT NULL DEFAULT 0,              -- programs tell these three: nothing that they say overflows
    output_tokens numeric NOT NULL DEFAULT 0,
    cost_usd numeric NOT NULL DEFAULT 0                   -- decimals, to 12 places: sums of binary fractions drift
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000); -- rows come and go

CREATE TABLE usage_daily (
    LIKE usage_deltas,
    PRIMARY KEY (tenant, day, agent, api_key)
) WITH (fillfactor = 70);                                 -- a day's rows change, no indexed column among what changes

-- When an attempt ended; of a row without ended_at, as far as its other columns tell.
CREATE FUNCTION sandpiper_usage_ended(id uuid, ended_at timestamptz, started_at timestamptz, queue_ms int8, sandbox_start_ms int8,
                                      run_ms int8) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT coalesce(ended_at, coalesce(started_at,
            to_timestamp(('x' || left(replace(id::text, '-', ''), 12))::bit(48)::int8 / 1000.0)
                + (queue_ms + sandbox_start_ms) * interval '1 ms') + run_ms * interval '1 ms')
$$;

-- Daemons of the release before run on while others have this schema: their rows are counted for them, one by one.
CREATE FUNCTION sandpiper_count_result() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_deltas (tenant, day, agent, api_key, succeeded, failed, timed_out, canceled, expired, error)
    SELECT NEW.tenant, (NEW.finished_at AT TIME ZONE 'UTC')::date, i.agent, i.api_key, (NEW.status = 1)::int, (NEW.status = 2)::int,
        (NEW.status = 3)::int, (NEW.status = 4)::int, (NEW.status = 5)::int, (NEW.status = 6)::int
    FROM invocations i WHERE i.id = NEW.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER results_count AFTER INSERT ON results
    FOR EACH ROW WHEN (NOT NEW.counted) EXECUTE FUNCTION sandpiper_count_result();

CREATE FUNCTION sandpiper_count_usage() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_deltas (tenant, day, agent, api_key, attempts, sandbox_ms, run_ms, cpu_ms, input_tokens, output_tokens, cost_usd)
    SELECT NEW.tenant, (sandpiper_usage_ended(NEW.id, NULL, NEW.started_at, NEW.queue_ms, NEW.sandbox_start_ms, NEW.run_ms)
            AT TIME ZONE 'UTC')::date, i.agent, i.api_key, 1, NEW.sandbox_ms, NEW.run_ms, coalesce(NEW.cpu_ms, 0),
        coalesce(NEW.input_tokens, 0), coalesce(NEW.output_tokens, 0), coalesce(round(NEW.cost_usd::numeric, 12), 0)
    FROM invocations i WHERE i.id = NEW.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER usage_count AFTER INSERT ON usage
    FOR EACH ROW WHEN (NEW.ended_at IS NULL) EXECUTE FUNCTION sandpiper_count_usage();

-- What is there already. Making the triggers has shut writers out, so nothing is counted twice or left out. One statement over
-- all results and usage: some hundred thousand rows a second, while submissions go on and results wait for it. A history that would
-- take longer than a migration may (two minutes) is to be cut before, by dropping old partitions of both tables.
INSERT INTO usage_daily (tenant, day, agent, api_key, succeeded, failed, timed_out, canceled, expired, error, attempts, sandbox_ms,
                         run_ms, cpu_ms, input_tokens, output_tokens, cost_usd)
SELECT e.tenant, (e.at AT TIME ZONE 'UTC')::date, i.agent, i.api_key, count(*) FILTER (WHERE e.status = 1),
    count(*) FILTER (WHERE e.status = 2), count(*) FILTER (WHERE e.status = 3), count(*) FILTER (WHERE e.status = 4),
    count(*) FILTER (WHERE e.status = 5), count(*) FILTER (WHERE e.status = 6), count(*) FILTER (WHERE e.status = 0),
    coalesce(sum(e.sandbox_ms), 0), coalesce(sum(e.run_ms), 0), coalesce(sum(e.cpu_ms), 0), coalesce(sum(e.input_tokens), 0),
    coalesce(sum(e.output_tokens), 0), coalesce(sum(round(e.cost_usd::numeric, 12)), 0)
FROM (SELECT r.id, r.tenant, r.finished_at AS at, r.status, NULL::int8 AS sandbox_ms, NULL::int8 AS run_ms, NULL::int8 AS cpu_ms,
          NULL::int8 AS input_tokens, NULL::int8 AS output_tokens, NULL::float8 AS cost_usd
      FROM results r
      UNION ALL
      SELECT u.id, u.tenant, sandpiper_usage_ended(u.id, u.ended_at, u.started_at, u.queue_ms, u.sandbox_start_ms, u.run_ms), 0::int2,
          u.sandbox_ms, u.run_ms, u.cpu_ms, u.input_tokens, u.output_tokens, u.cost_usd
      FROM usage u) e
JOIN invocations i ON i.id = e.id
GROUP BY 1, 2, 3, 4;
