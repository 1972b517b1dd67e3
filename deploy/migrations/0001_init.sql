-- Sandpiper's first schema.
--
-- Rows of invocations, results, attempts, usage, cancels, outbox and blobs are insert-only and live in daily partitions by
-- the invocation's UUIDv7, which leads every primary key: the fence "first result wins" is the primary key of
-- results. There is no default partition; sandpiper_partitions() keeps the coming days ready.

CREATE TABLE deployment (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO deployment DEFAULT VALUES;

CREATE TABLE tenants (
    id int4 PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO tenants (name) VALUES ('default');

CREATE TABLE api_keys (
    id uuid PRIMARY KEY,
    tenant int4 NOT NULL REFERENCES tenants,
    hash bytea NOT NULL UNIQUE CHECK (length(hash) = 32), -- SHA-256 of the key; the key itself is never stored
    name text NOT NULL,
    prefix text NOT NULL,                                 -- the first characters, for people to tell keys apart
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz
);

CREATE TABLE agents (
    id uuid PRIMARY KEY,
    tenant int4 NOT NULL REFERENCES tenants,
    slug text NOT NULL CHECK (slug ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    serving int4,                                         -- the version that new invocations get
    latest int4 NOT NULL DEFAULT 0,                       -- the newest version's number
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant, slug)
);

-- Immutable once it has left `building`.
CREATE TABLE agent_versions (
    agent uuid NOT NULL REFERENCES agents,
    version int4 NOT NULL,
    id uuid NOT NULL UNIQUE,                              -- names the build job and the archive's chunks
    tenant int4 NOT NULL,
    status int2 NOT NULL DEFAULT 0,                       -- 0 building, 1 ready, 2 failed
    runtime text NOT NULL,
    entry text NOT NULL,
    install text NOT NULL,                                -- the command; '' for none
    timeout_ms int4,                                      -- the agent's own default limit
    archive_bytes int8 NOT NULL,
    archive_sha256 bytea NOT NULL,
    snapshot text,                                        -- what sandboxes start from, once ready
    error_code text,
    error_message text,
    build_log text NOT NULL DEFAULT '',                   -- the last 64 KiB
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    PRIMARY KEY (agent, version)
);
CREATE INDEX agent_versions_building ON agent_versions (id) WHERE status = 0;

-- Archives: not partitioned, they live as long as their version.
CREATE TABLE agent_files (
    id uuid NOT NULL,                                     -- agent_versions.id
    chunk int4 NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (id, chunk)
);

CREATE TABLE invocations (
    id uuid NOT NULL,
    tenant int4 NOT NULL,
    agent uuid NOT NULL,
    version int4 NOT NULL,
    api_key uuid NOT NULL,
    priority int2 NOT NULL,                               -- 0 high, 1 normal, 2 low
    timeout_ms int4 NOT NULL,
    queue_timeout_ms int8 NOT NULL,
    max_attempts int2 NOT NULL,
    retry_on int2 NOT NULL,                               -- bits: 1 failed, 2 timed_out
    prompt bytea,                                         -- NULL: in blobs, kind 1
    prompt_bytes int4 NOT NULL,
    metadata text,                                        -- a JSON object as it was sent, validated
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE INDEX invocations_tenant ON invocations (tenant, priority, id);

CREATE TABLE results (
    id uuid NOT NULL,
    tenant int4 NOT NULL,
    attempt int2 NOT NULL,
    boot uuid NOT NULL,                                   -- who wrote it: tells a winner from a loser after a lost COMMIT reply
    status int2 NOT NULL,                                 -- 1 succeeded, 2 failed, 3 timed_out, 4 canceled, 5 expired, 6 error
    exit_code int4,
    signal text,
    error_code text,
    error_message text,
    output bytea,                                         -- NULL: in blobs, kind 2
    output_bytes int8 NOT NULL,
    output_truncated bool NOT NULL,
    logs bytea,                                           -- stderr; NULL: in blobs, kind 3
    logs_bytes int8 NOT NULL,
    logs_truncated bool NOT NULL,
    started_at timestamptz,
    finished_at timestamptz NOT NULL,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);

-- Attempt 1 has no row; every later one is allocated here, by whoever ends the one before.
CREATE TABLE attempts (
    id uuid NOT NULL,
    attempt int2 NOT NULL,
    tenant int4 NOT NULL,
    not_before timestamptz NOT NULL,
    reason text NOT NULL,                                 -- why the attempt before it ended, an error code
    reruns int2 NOT NULL,                                 -- sandboxes lost after the program's start, so far
    blames int2 NOT NULL,                                 -- runs lost with their executor, so far
    PRIMARY KEY (id, attempt)
) PARTITION BY RANGE (id);
CREATE INDEX attempts_due ON attempts (not_before);

-- One row for each attempt that held a sandbox.
CREATE TABLE usage (
    id uuid NOT NULL,
    attempt int2 NOT NULL,
    tenant int4 NOT NULL,
    agent uuid NOT NULL,
    boot uuid NOT NULL,
    sandbox text NOT NULL,
    queue_ms int8 NOT NULL,
    sandbox_start_ms int8 NOT NULL,
    run_ms int8 NOT NULL,
    sandbox_ms int8 NOT NULL,
    cpu_ms int8,
    peak_memory_bytes int8,
    input_tokens int8,
    output_tokens int8,
    cost_usd float8,
    PRIMARY KEY (id, attempt)
) PARTITION BY RANGE (id);

CREATE TABLE cancels (
    id uuid NOT NULL,
    tenant int4 NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);

-- Webhook deliveries, written in the transaction of the result.
CREATE TABLE outbox (
    id uuid NOT NULL,                                     -- the invocation
    endpoint uuid NOT NULL,
    tenant int4 NOT NULL,
    url text NOT NULL,
    due_at timestamptz NOT NULL DEFAULT now(),
    tries int2 NOT NULL DEFAULT 0,
    delivered_at timestamptz,
    PRIMARY KEY (id, endpoint)
) PARTITION BY RANGE (id);

-- Large values of invocations: chunks of 256 KiB.
CREATE TABLE blobs (
    id uuid NOT NULL,
    kind int2 NOT NULL,                                   -- 1 prompt, 2 output, 3 logs
    attempt int2 NOT NULL,                                -- 0 for the prompt; a losing attempt's chunks never mix with the winner's
    chunk int4 NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (id, kind, attempt, chunk)
) PARTITION BY RANGE (id);
ALTER TABLE blobs ALTER COLUMN data SET STORAGE EXTERNAL; -- chunks are streamed; do not spend CPU on compressing them

CREATE TABLE idempotency (
    tenant int4 NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,                           -- SHA-256 of method, path and raw body
    invocation uuid NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, key)
);
CREATE INDEX idempotency_expiry ON idempotency (expires_at);

-- One row for each running gateway: everything that it committed below `low` was handed to Redis.
CREATE TABLE gateway_boots (
    boot uuid PRIMARY KEY,
    low uuid NOT NULL,
    lock_key int8 NOT NULL,                               -- the session advisory lock that its connections share
    seen_at timestamptz NOT NULL DEFAULT now()
);

-- Where repeated passes start: names and ids.
CREATE TABLE marks (
    name text PRIMARY KEY,
    id uuid NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION sandpiper_uuid_floor(t timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM t) * 1000)::bigint), 12, '0') || '00000000000000000000')::uuid
$$;

-- Makes the daily partitions from yesterday to `ahead` days from now. Idempotent; safe when run concurrently.
CREATE FUNCTION sandpiper_partitions(ahead int) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    day date;
    child text;
    made int := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(7305141026570190);
    FOR day IN SELECT d::date FROM generate_series((now() AT TIME ZONE 'UTC')::date - 1,
                                                   (now() AT TIME ZONE 'UTC')::date + ahead, interval '1 day') d LOOP
        FOREACH parent IN ARRAY ARRAY['invocations', 'results', 'attempts', 'usage', 'cancels', 'outbox', 'blobs'] LOOP
            child := parent || '_' || to_char(day, 'YYYYMMDD');
            IF to_regclass(child) IS NULL THEN
                EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)', child, parent,
                               sandpiper_uuid_floor(day::timestamp AT TIME ZONE 'UTC'),
                               sandpiper_uuid_floor((day + 1)::timestamp AT TIME ZONE 'UTC'));
                made := made + 1;
            END IF;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;
SELECT sandpiper_partitions(14);
