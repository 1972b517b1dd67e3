-- Strikes a dead executor off, with its cancel set, its will and its consumers.
-- KEYS: lease executors cancels(of boot) will(of boot), then every stream; ARGV: boot
-- Returns 1 done; 0 when it lives after all, or entries are still pending for it: deleting the consumer would
-- strand them (redis#9745).
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
for i = 5, #KEYS do
  local pending = redis.pcall('XPENDING', KEYS[i], 'executors', '-', '+', 1, ARGV[1])
  if not pending.err and #pending > 0 then
    return 0
  end
end
for i = 5, #KEYS do
  redis.pcall('XGROUP', 'DELCONSUMER', KEYS[i], 'executors', ARGV[1])
end
redis.call('SREM', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[3], KEYS[4])
return 1
