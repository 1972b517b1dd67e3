-- What agent.json said, with its defaults filled in, is kept with the version; of it, the retry policy that submissions get
-- which say none stands in columns, like the time limit.

ALTER TABLE agent_versions
    ADD COLUMN manifest text NOT NULL DEFAULT '',         -- JSON; '' for versions from before: runtime, entry, install are all
    ADD COLUMN max_attempts int2 NOT NULL DEFAULT 0,      -- 0: not stated
    ADD COLUMN retry_on int2 NOT NULL DEFAULT 0;          -- bits, as in invocations
