-- Batches: invocations that were accepted together, and are fed to the queue bit by bit.
--
-- A batch's invocations have ids of one series (adjacent, in the order of its items), so a position in the batch is an id:
-- `fed` is the durable cursor. What lies beyond it is not the queue's yet, whatever Redis forgets.

ALTER TABLE invocations ADD COLUMN batch uuid, ADD COLUMN custom_id text;

-- One index for each kind of row: a feeder's scan of plain ones never passes a batch's, nor pays for it.
DROP INDEX invocations_tenant;
CREATE INDEX invocations_tenant ON invocations (tenant, priority, id) WHERE batch IS NULL;
CREATE INDEX invocations_batched ON invocations (tenant, id) WHERE batch IS NOT NULL;

CREATE TABLE batches (
    id uuid PRIMARY KEY,
    tenant int4 NOT NULL,
    api_key uuid NOT NULL,
    priority int2 NOT NULL,
    max_concurrency int4 NOT NULL,                        -- 0: as many as there is room for
    total int4 NOT NULL CHECK (total > 0),
    first uuid NOT NULL,                                  -- the first and the last item's id
    last uuid NOT NULL,
    fed uuid NOT NULL,                                    -- items up to here are the queue's; none: the id before first
    low uuid NOT NULL,                                    -- items below it that were fed have ended
    state int2 NOT NULL DEFAULT 0,                        -- 0 running, 1 canceling, 2 completed, 3 canceled
    -- What ended in transactions before `folded`; batch_ended has the rest.
    folded xid8 NOT NULL DEFAULT '0',
    succeeded int4 NOT NULL DEFAULT 0,
    failed int4 NOT NULL DEFAULT 0,
    timed_out int4 NOT NULL DEFAULT 0,
    canceled int4 NOT NULL DEFAULT 0,
    expired int4 NOT NULL DEFAULT 0,
    error int4 NOT NULL DEFAULT 0,
    metadata text,                                        -- a JSON object as it was sent, validated
    ended_at timestamptz
) WITH (fillfactor = 70);                                 -- changed while it runs, no indexed column among what changes
CREATE INDEX batches_tenant ON batches (tenant, id);
CREATE INDEX batches_open ON batches (tenant) WHERE ended_at IS NULL;

-- One row an item that ended, written with its result. (xid, id) is the order that results are handed out in: transactions
-- commit in another order than they begin, so only rows of transactions before the oldest running one are handed out.
CREATE TABLE batch_ended (
    batch uuid NOT NULL,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    id uuid NOT NULL,                                     -- the invocation
    status int2 NOT NULL,                                 -- as in results
    PRIMARY KEY (batch, xid, id)
) PARTITION BY RANGE (id);

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
        FOREACH parent IN ARRAY ARRAY['invocations', 'results', 'attempts', 'usage', 'cancels', 'outbox', 'blobs',
                                      'batch_ended'] LOOP
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
