-- Versions that are built on a template of the provider's, and nothing else.

ALTER TABLE agent_versions ADD COLUMN template text;      -- NULL: an archive or a repository, whatever it is built on

-- A template's name without team, tag and case: the provider takes each form of it for the same. No agent may name what
-- another's version starts from.
CREATE FUNCTION sandpiper_template_key(name text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT lower(split_part(regexp_replace(name, '^.*/', ''), ':', 1))
$$;
CREATE INDEX agent_versions_snapshot ON agent_versions (sandpiper_template_key(snapshot)) WHERE snapshot IS NOT NULL;
