-- Versions whose source is a git repository: the build clones it, and tells manifest and commit.

ALTER TABLE agent_versions
    ADD COLUMN git_url text,                              -- NULL: an archive
    ADD COLUMN git_ref text,                              -- '' for the repository's HEAD
    ADD COLUMN git_commit text;
