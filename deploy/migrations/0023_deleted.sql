-- Agents can be deleted. Records name them for as long as they are kept, so the row stays. Its slug gives way to one that is no
-- name: so whatever looks a name up, daemons of before among them, finds it no more, and the name is free for another agent.

ALTER TABLE agents DROP CONSTRAINT agents_slug_check;
ALTER TABLE agents
    ADD COLUMN deleted_at timestamptz,
    ADD COLUMN deleted_name text,                         -- what it was called
    ADD COLUMN name text GENERATED ALWAYS AS (coalesce(deleted_name, slug)) STORED; -- what is shown
ALTER TABLE agents ADD CONSTRAINT agents_slug_check CHECK (
    CASE WHEN deleted_at IS NULL THEN slug ~ '^[a-z0-9][a-z0-9-]{0,62}$' AND deleted_name IS NULL
         ELSE slug = '~' || id::text AND deleted_name IS NOT NULL END);

-- Deletes an agent, unless schedules name it: then these are told, some by name, and nothing is done. Its row is locked first, as by
-- deploys, ends of builds, rollbacks and whoever sets a secret: each of them comes before, and what it made goes with the agent, or
-- after, and finds none. Builds that are under way are over; what they end as counts no more. Versions are retired, so what was
-- accepted runs, and dispatchers do the rest: snapshots, archives, logs, secrets (dispatcher/retire.c).
CREATE FUNCTION sandpiper_agent_delete(of_tenant int4, of_slug text, OUT there bool, OUT schedule_count int8, OUT schedule_names text)
LANGUAGE plpgsql AS $$
DECLARE
    agent_id uuid;
BEGIN
    SELECT id INTO agent_id FROM agents WHERE tenant = of_tenant AND slug = of_slug FOR UPDATE;
    there := agent_id IS NOT NULL;
    SELECT count(*), string_agg(s.name, ', ' ORDER BY s.name) FILTER (WHERE s.n <= 5) INTO schedule_count, schedule_names
    FROM (SELECT name, row_number() OVER (ORDER BY name) AS n FROM schedules WHERE tenant = of_tenant AND agent = of_slug) s;
    IF NOT there OR schedule_count > 0 THEN
        RETURN;
    END IF;
    UPDATE agents SET slug = '~' || id::text, deleted_name = of_slug, deleted_at = clock_timestamp(), serving = NULL,
                      rolled_back_from = NULL WHERE id = agent_id;
    UPDATE agent_versions SET status = 3, retired_at = clock_timestamp() WHERE agent = agent_id AND status = 1;
    UPDATE agent_versions SET status = 2, error_code = 'agent_not_found', finished_at = clock_timestamp(),
                              error_message = 'the agent was deleted while this was built'
    WHERE agent = agent_id AND status = 0;
END
$$;
