-- Items of batches that are to begin later. The cursor passes them; each is fed when its time has come, by the statement
-- that takes its row away. `delayed` is how many rows a batch has: only batches that have any pay for the table.

CREATE TABLE batch_delayed (
    id uuid PRIMARY KEY,                                  -- the invocation
    batch uuid NOT NULL,
    not_before timestamptz NOT NULL
);
CREATE INDEX batch_delayed_due ON batch_delayed (batch, not_before, id);

ALTER TABLE batches ADD COLUMN delayed int4 NOT NULL DEFAULT 0;
