-- Begins a rebuild: a new epoch over empty transport. Executors see the epoch change in their next heartbeat and
-- assert what they run; until the hold ends nobody enqueues. Only over the epoch that the caller saw: of two dispatchers
-- that see the same loss one resets. `unmarked` stays until the tenants with open work are marked, by whoever does it.
-- KEYS: epoch hold live windows, then every stream, then ident and unmarked
-- ARGV: new epoch, hold ms, identity of this Redis, the epoch seen ('' for none)
-- Returns 1 done, 0 another has.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[4] then
  return 0
end
for i = 3, #KEYS do
  redis.call('DEL', KEYS[i])
end
redis.call('SET', KEYS[#KEYS], '1')
redis.call('SET', KEYS[#KEYS - 1], ARGV[3])
redis.call('HSET', KEYS[3], '', ARGV[1]) -- see identity.lua
redis.call('SET', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])
for i = 5, #KEYS - 2 do
  redis.call('XGROUP', 'CREATE', KEYS[i], 'executors', '0', 'MKSTREAM')
end
return 1
