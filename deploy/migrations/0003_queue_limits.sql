-- Jobs whose queue limit is shorter than the default of 24 h: dispatchers settle them as expired when it has passed,
-- also when nobody claims anything. The others are left to the slow pass. Only such jobs pay for the index.

CREATE FUNCTION sandpiper_queue_deadline(id uuid, queue_timeout_ms int8) RETURNS timestamptz
LANGUAGE sql IMMUTABLE AS $$
    SELECT to_timestamp((('x' || left(replace(id::text, '-', ''), 12))::bit(48)::int8 + queue_timeout_ms) / 1000.0)
$$;

CREATE INDEX invocations_queue_deadline ON invocations (sandpiper_queue_deadline(id, queue_timeout_ms), id)
WHERE queue_timeout_ms < 86400000;
