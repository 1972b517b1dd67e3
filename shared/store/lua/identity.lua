-- What dispatchers look at to see whether Redis lost something.
-- KEYS: epoch hold ident unmarked live
-- Returns {epoch, hold, ident, unmarked (nil when absent), 1 when the live records are those of the epoch}.
-- The live records can be lost alone (a key deleted, or evicted by a policy that should not be set); without them what runs
-- would be queued again. So they carry the epoch under the empty name, which is no job's.
local values = redis.call('MGET', unpack(KEYS, 1, 4))
values[5] = redis.call('HGET', KEYS[5], '') == values[1] and 1 or 0
return values
