-- Versions that are not kept: status 3, retired. `snapshot` is emptied when it is gone at the provider.

ALTER TABLE agent_versions ADD COLUMN retired_at timestamptz;
CREATE INDEX agent_versions_retired ON agent_versions (retired_at) WHERE status = 3 AND snapshot IS NOT NULL;
