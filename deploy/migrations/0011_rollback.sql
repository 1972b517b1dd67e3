-- Rollbacks. Which version serves was so far always the newest that was ready; now it can be chosen, and a choice holds
-- against builds that were under way when it was made.

ALTER TABLE agents
    ADD COLUMN serves_after int4 NOT NULL DEFAULT 0,      -- only versions above it begin to serve when they are ready
    ADD COLUMN rolled_back_from int4;                     -- the newest version that an older one was put in place of
