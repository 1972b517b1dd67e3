-- Begins a rebuild: a new epoch over empty transport. Executors see the epoch change in their next heartbeat and
-- assert what they run; until the hold ends nobody enqueues.
-- KEYS: epoch hold live windows, then every stream, then ident; ARGV: new epoch, hold ms, identity of this Redis
for i = 3, #KEYS do
  redis.call('DEL', KEYS[i])
end
redis.call('SET', KEYS[#KEYS], ARGV[3])
redis.call('SET', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])
for i = 5, #KEYS - 1 do
  redis.call('XGROUP', 'CREATE', KEYS[i], 'executors', '0', 'MKSTREAM')
end
return redis.status_reply('OK')
