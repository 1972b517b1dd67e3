-- The secret that signs the cursors of lists: one for all gateways, so that any of them reads what another wrote.
-- gen_random_uuid() takes its 122 bits from the system's generator.
ALTER TABLE deployment ADD COLUMN cursor_key bytea NOT NULL CHECK (length(cursor_key) = 32)
    DEFAULT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
