-- What builds write, while they run. Not partitioned: a log lives as long as its version's archive
-- (shared/store/build_logs.h).

CREATE TABLE build_logs (
    id uuid PRIMARY KEY REFERENCES agent_versions (id) ON DELETE CASCADE,
    try int4 NOT NULL,                                    -- the fence: only the newest claim of the build writes
    bytes int8 NOT NULL DEFAULT 0,                        -- how long it is
    open boolean NOT NULL DEFAULT false                   -- that claim wrote, and has not said its last word
);

CREATE TABLE build_log_pieces (
    id uuid NOT NULL REFERENCES build_logs ON DELETE CASCADE,
    at int8 NOT NULL,                                     -- the offset of its first byte
    data bytea NOT NULL,                                  -- whole characters of UTF-8, 64 KiB at most
    PRIMARY KEY (id, at)
);
