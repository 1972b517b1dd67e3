-- What a record tells of each attempt, and retries by hand.

-- Of the attempt before: the executor that had it (NULL: none), and when it ended.
ALTER TABLE attempts ADD COLUMN executor uuid, ADD COLUMN ended_at timestamptz;
-- When the attempt's program started; of one that was lost with its executor, when its sandbox did.
ALTER TABLE usage ADD COLUMN started_at timestamptz;
-- The executor of an attempt that ended without having held a sandbox; else its usage says it.
ALTER TABLE results ADD COLUMN executor uuid;

-- The ended invocation that somebody wanted run again. Only such rows pay for the index.
ALTER TABLE invocations ADD COLUMN retry_of uuid;
CREATE INDEX invocations_retries ON invocations (retry_of, id) WHERE retry_of IS NOT NULL;
