-- Files: those that come with an invocation, and artifacts, which its program leaves.
--
-- A set of files is stored before the row that refers to it: chunks in blobs (kind 4), then its list in `files`, then that
-- row: invocations.files for what came along (a set has an id of its own: invocations' ids are made when they are
-- committed, and an upload may take minutes; a retry refers to the same set), results.artifacts for what an attempt left
-- (the set is the invocation's id and that attempt). `file_sets` names the sets that may not be referred to yet, so whoever
-- dies in between leaves nothing: dispatchers look through them.

ALTER TABLE invocations ADD COLUMN files uuid;
CREATE INDEX invocations_files ON invocations (files) WHERE files IS NOT NULL;
ALTER TABLE results
    ADD COLUMN artifacts int2 NOT NULL DEFAULT 0,         -- how many
    ADD COLUMN artifacts_truncated bool NOT NULL DEFAULT false;

CREATE TABLE files (
    id uuid NOT NULL,                                     -- the set
    attempt int2 NOT NULL,                                -- 0: came along
    path text COLLATE "C" NOT NULL,
    bytes int8 NOT NULL,
    sha256 bytea NOT NULL,
    mode int2 NOT NULL,
    chunk int4 NOT NULL,                                  -- its first one in blobs; the others follow
    PRIMARY KEY (id, attempt, path)
) PARTITION BY RANGE (id);

CREATE TABLE file_sets (
    id uuid NOT NULL,
    attempt int2 NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    dropped bool NOT NULL DEFAULT false,                  -- nothing more is taken into it
    PRIMARY KEY (id, attempt)
);

-- [[path, bytes, sha256 in hex], ...] of a set. Not SQL: then a query that calls it for the few rows that have files would
-- prepare all partitions for every row.
CREATE FUNCTION sandpiper_files(of_set uuid, of_attempt int2) RETURNS text
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT json_agg(json_build_array(f.path, f.bytes, encode(f.sha256, 'hex')) ORDER BY f.path)::text
            FROM files f WHERE f.id = of_set AND f.attempt = of_attempt);
END
$$;

CREATE OR REPLACE FUNCTION sandpiper_partitions(ahead int) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    day date;
    child text;
    made int := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(7305141026570190);
    FOR day IN SELECT d::date FROM generate_series((now() AT TIME ZONE 'UTC')::date - 1,
                                                   (now() AT TIME ZONE 'UTC')::date + ahead, interval '1 day') d LOOP
        FOREACH parent IN ARRAY ARRAY['invocations', 'results', 'attempts', 'usage', 'cancels', 'blobs', 'batch_ended', 'webhook_hooks',
                                      'webhook_attempts', 'invocation_env', 'files'] LOOP
            child := parent || '_' || to_char(day, 'YYYYMMDD');
            IF to_regclass(child) IS NULL THEN
                EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)', child, parent,
                               sandpiper_uuid_floor(day::timestamp AT TIME ZONE 'UTC'),
                               sandpiper_uuid_floor((day + 1)::timestamp AT TIME ZONE 'UTC'));
                made := made + 1;
            END IF;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;
SELECT sandpiper_partitions(14);
