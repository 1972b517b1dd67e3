-- What each API key may do (model/api_key.h: bits), and when it was used last, to the minute.
-- Keys from before could do everything, and still can.

ALTER TABLE api_keys
    ADD COLUMN scopes int2 NOT NULL DEFAULT 8 CHECK (scopes BETWEEN 1 AND 15),
    ADD COLUMN last_used_at timestamptz;
ALTER TABLE api_keys ALTER COLUMN scopes DROP DEFAULT;
CREATE INDEX api_keys_tenant ON api_keys (tenant, id);
