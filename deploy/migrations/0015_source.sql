-- A version's source, whatever archive brought it: deploying the same again finds the version that it made.

ALTER TABLE agent_versions ADD COLUMN source_sha256 bytea;  -- NULL: from before it was kept
