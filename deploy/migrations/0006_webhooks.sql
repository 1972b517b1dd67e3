-- Webhooks: endpoints, hooks of single submissions, the outbox, and the log of attempts.
--
-- An outbox row is one event that one receiver is yet to get; it is written in the transaction of what it tells of,
-- and deleted when the receiver has it or the attempts are spent. `lane` says whose requests share a receiver: an
-- endpoint's own, or one for all hooks of a tenant to the same origin. Secrets are sealed; only dispatchers can open them.

CREATE TABLE webhook_endpoints (
    id uuid PRIMARY KEY,
    tenant int4 NOT NULL REFERENCES tenants,
    url text,                                             -- NULL: a stream, for `sandpiper listen`
    lane int8 NOT NULL,
    events int4 NOT NULL,                                 -- bits, 1 << event
    description text NOT NULL DEFAULT '',
    enabled bool NOT NULL DEFAULT true,
    disabled_reason text,
    disabled_at timestamptz,
    failing_since timestamptz,                            -- no delivery has succeeded since
    key_id text NOT NULL,                                 -- which key sealed the secret
    secret bytea NOT NULL,
    previous_key_id text,                                 -- the secret before a rotation, signed with until then
    previous_secret bytea,
    previous_until timestamptz,
    seen_at timestamptz NOT NULL DEFAULT now(),           -- of a stream: when somebody last listened
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX webhook_endpoints_tenant ON webhook_endpoints (tenant, id);

-- The hook that came with a submission or a batch, by its id.
CREATE TABLE webhook_hooks (
    id uuid NOT NULL,
    tenant int4 NOT NULL,
    url text NOT NULL,
    lane int8 NOT NULL,
    key_id text NOT NULL,
    secret bytea NOT NULL,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);

DROP TABLE outbox;
CREATE TABLE outbox (
    id uuid NOT NULL,                                     -- the event: the invocation's or the batch's id, or one of its own
    endpoint uuid NOT NULL,                               -- the event's own id: its hook
    tenant int4 NOT NULL,
    event int2 NOT NULL,                                  -- model/webhook.h
    lane int8 NOT NULL,
    due_at timestamptz NOT NULL DEFAULT now(),            -- or until when its owner may take
    tries int2 NOT NULL DEFAULT 0,
    parked bool NOT NULL DEFAULT false,                   -- its lane was full: taken by lane, when there is room
    owner uuid,                                           -- the dispatcher that has it in hand
    queued_at timestamptz NOT NULL DEFAULT now(),
    data text,                                            -- JSON; NULL: the invocation's record, read when it is sent
    PRIMARY KEY (id, endpoint)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1);
CREATE INDEX outbox_due ON outbox (due_at) WHERE NOT parked;
CREATE INDEX outbox_parked ON outbox (lane, due_at) WHERE parked;

-- One row for each attempt; its id carries the time. Days are dropped when their time is over.
CREATE TABLE webhook_attempts (
    endpoint uuid NOT NULL,
    id uuid NOT NULL,
    event_id uuid NOT NULL,
    tenant int4 NOT NULL,
    event int2 NOT NULL,
    try int2 NOT NULL,
    url text NOT NULL,
    body_bytes int4 NOT NULL,
    duration_ms int4 NOT NULL,
    status int2,                                          -- NULL: no answer
    error text,
    response bytea NOT NULL,                              -- its first kilobyte
    verdict int2 NOT NULL,                                -- 1 delivered, 2 will be tried again, 3 given up, 4 gone
    next_at timestamptz,
    data text,                                            -- the event's, for redelivery
    PRIMARY KEY (endpoint, id)
) PARTITION BY RANGE (id);

-- What streams are to hand out: signed, in order.
CREATE TABLE webhook_streamed (
    endpoint uuid NOT NULL REFERENCES webhook_endpoints ON DELETE CASCADE,
    id uuid NOT NULL,
    webhook_id text NOT NULL,
    sent_at int8 NOT NULL,
    signature text NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (endpoint, id)
);

-- Writes an event's outbox rows: one for each enabled endpoint of the tenant that wants it, and one for the hook that
-- came with it. Called in the transaction of what the event tells of. For events that are no invocation's end: those are
-- written by the statement that settles invocations.
CREATE FUNCTION sandpiper_event(event_id uuid, of_tenant int4, what int2, event_data text) RETURNS int
LANGUAGE sql AS $$
    WITH w AS (
        INSERT INTO outbox (id, endpoint, tenant, event, lane, data)
        SELECT event_id, e.id, of_tenant, what, e.lane, event_data FROM webhook_endpoints e
        WHERE e.tenant = of_tenant AND e.enabled AND e.events & (1 << what) <> 0
        UNION ALL
        SELECT event_id, event_id, of_tenant, what, h.lane, event_data FROM webhook_hooks h WHERE h.id = event_id
        ON CONFLICT DO NOTHING RETURNING 1
    ) SELECT count(*)::int FROM w
$$;

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
                                      'webhook_attempts'] LOOP
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

-- Drops the log's days that ended more than `keep` days ago: one a call, so that the lock is short.
CREATE FUNCTION sandpiper_webhook_log_trim(keep int) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    child text;
BEGIN
    SELECT c.relname INTO child FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'webhook_attempts'::regclass
        AND c.relname < 'webhook_attempts_' || to_char((now() AT TIME ZONE 'UTC')::date - keep, 'YYYYMMDD')
    ORDER BY c.relname LIMIT 1;
    IF child IS NOT NULL THEN
        SET LOCAL lock_timeout = '2s';
        EXECUTE format('DROP TABLE %I', child);
    END IF;
    RETURN child;
END
$$;
