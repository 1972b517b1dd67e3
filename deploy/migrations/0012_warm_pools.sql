-- Warm pools: how many sandboxes a version wants kept ready, of the whole fleet. Equal: so many, always; else as many as
-- its arrivals call for, within these. 0 and 0: none.

ALTER TABLE agent_versions
    ADD COLUMN warm_min int4 NOT NULL DEFAULT 0,
    ADD COLUMN warm_max int4 NOT NULL DEFAULT 0 CHECK (warm_max >= warm_min AND warm_min >= 0);
CREATE INDEX agent_versions_warm ON agent_versions (agent, version) WHERE warm_max > 0;
