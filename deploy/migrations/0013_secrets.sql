-- Secrets: of agents, and the `env` of submissions. Sealed by gateways, opened by executors alone (shared/crypto/place.h).

CREATE TABLE agent_secrets (
    agent uuid NOT NULL REFERENCES agents,
    name text NOT NULL,
    tenant int4 NOT NULL,
    key_id text NOT NULL,                                 -- which key sealed it
    sealed bytea NOT NULL,
    bytes int4 NOT NULL,                                  -- of the value: what the agent's secrets may have together is limited
    set_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (agent, name)
);
ALTER TABLE agent_secrets ALTER COLUMN sealed SET STORAGE EXTERNAL; -- nothing in it can be compressed

-- The environment that came with a submission. Kept as long as the invocation, which may be run again.
CREATE TABLE invocation_env (
    id uuid NOT NULL,
    tenant int4 NOT NULL,
    key_id text NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
ALTER TABLE invocation_env ALTER COLUMN sealed SET STORAGE EXTERNAL;

ALTER TABLE invocations ADD COLUMN env bool;              -- true: there is a row above. Nobody else pays for the look
ALTER TABLE results ADD COLUMN output_redacted bool;      -- true: values of secrets were taken out of the output

CREATE OR REPLACE FUNCTION sandpiper_partitions(ahead int) RETURNS int
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
        FOREACH parent IN ARRAY ARRAY['invocations', 'results', 'attempts', 'usage', 'cancels', 'blobs', 'batch_ended', 'webhook_hooks',
                                      'webhook_attempts', 'invocation_env'] LOOP
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

-- Sets a secret. Limits are looked at with the agent's row locked, in a snapshot taken after that: two that come at once
-- cannot exceed them together. 1: set; 0: no such agent; -1: it has as many as it may; -2: they would be too long together.
CREATE FUNCTION sandpiper_secret_put(of_tenant int4, of_slug text, secret_name text, by_key text, sealed_value bytea,
                                     value_bytes int4, max_count int4, max_bytes int8, OUT verdict int4, OUT at timestamptz)
LANGUAGE plpgsql AS $$
DECLARE
    agent_id uuid;
    others int8;
    their_bytes int8;
BEGIN
    SELECT id INTO agent_id FROM agents WHERE tenant = of_tenant AND slug = of_slug FOR NO KEY UPDATE;
    IF agent_id IS NULL THEN
        verdict := 0;
        RETURN;
    END IF;
    SELECT count(*), coalesce(sum(s.bytes), 0) INTO others, their_bytes
    FROM agent_secrets s WHERE s.agent = agent_id AND s.name <> secret_name;
    IF others >= max_count THEN
        verdict := -1;
    ELSIF their_bytes + value_bytes > max_bytes THEN
        verdict := -2;
    ELSE
        INSERT INTO agent_secrets AS s (agent, name, tenant, key_id, sealed, bytes, set_at)
        VALUES (agent_id, secret_name, of_tenant, by_key, sealed_value, value_bytes, clock_timestamp())
        ON CONFLICT (agent, name) DO UPDATE
            SET key_id = excluded.key_id, sealed = excluded.sealed, bytes = excluded.bytes, set_at = excluded.set_at
        RETURNING s.set_at INTO at;
        verdict := 1;
    END IF;
END
$$;
