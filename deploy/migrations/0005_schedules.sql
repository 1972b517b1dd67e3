-- Recurring invocations. A row's next_at is when it fires; it is moved on in the statement that inserts the invocation,
-- so that an instant fires once however many dispatchers look. NULL: to be planned (just resumed).

CREATE TABLE schedules (
    id uuid PRIMARY KEY,
    tenant int4 NOT NULL REFERENCES tenants,
    api_key uuid NOT NULL,                                -- who made it: its invocations are that key's
    name text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    cron text NOT NULL,
    time_zone text NOT NULL,
    enabled bool NOT NULL DEFAULT true,
    agent text NOT NULL,
    version int4 NOT NULL,                                -- 0: the one that serves when it fires
    priority int2 NOT NULL,
    timeout_ms int4 NOT NULL,                             -- 0: the agent's, or the system's
    queue_timeout_ms int8 NOT NULL,
    max_attempts int2 NOT NULL,
    retry_on int2 NOT NULL,
    prompt bytea NOT NULL,
    metadata text,
    next_at timestamptz,
    last_at timestamptz,                                  -- the instant that fired last
    last_invocation uuid,
    last_error text,                                      -- why it made none
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant, name)
);
CREATE INDEX schedules_due ON schedules (next_at) WHERE enabled;

-- The instant of a minute on the wall that comes after now. A minute that a clock change leaves out is its first instant
-- afterwards; one that comes twice is its second. A schedule of every hour goes by elapsed time when it is near: it
-- neither stops nor doubles while the clock is changed.
CREATE FUNCTION sandpiper_instant(local_minute timestamp, zone text, every_hour bool) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN every_hour AND local_minute - (now() AT TIME ZONE zone) < interval '2 hours'
                THEN date_trunc('minute', now()) + (local_minute - date_trunc('minute', now() AT TIME ZONE zone))
                ELSE local_minute AT TIME ZONE zone END
$$;
