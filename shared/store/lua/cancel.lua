-- Takes a job off the queue, or tells its executor.
-- KEYS: live windows epoch hold
-- ARGV: id, prefix of the cancel sets, prefix of the control channels, 'tell' or 'leave' (the executor alone)
-- Returns 'absent' (waits in PostgreSQL, or has ended), 'removed' (was queued, is gone), 'running' (an executor has
-- it), 'unknown' (a rebuild is under way: executors have yet to say what they run).
if redis.call('EXISTS', KEYS[3]) == 0 or redis.call('EXISTS', KEYS[4]) == 1 then
  return 'unknown'
end
local live = redis.call('HGET', KEYS[1], ARGV[1])
if not live then
  return 'absent'
end
local st, _, owner, stream, entry, tenant = string.match(live, '^(%S) (%S+) (%S+) (%S+) (%S+) (%S+)$')
if st == 'q' then
  redis.call('XACK', stream, 'executors', entry)
  redis.call('XDEL', stream, entry)
  redis.call('HDEL', KEYS[1], ARGV[1])
  if stream ~= 'sp:q:build' and redis.call('HINCRBY', KEYS[2], tenant, -1) <= 0 then
    redis.call('HDEL', KEYS[2], tenant)
  end
  return 'removed'
end
if ARGV[4] == 'tell' then
  redis.call('SADD', ARGV[2] .. owner, ARGV[1])
  redis.call('EXPIRE', ARGV[2] .. owner, 7200)
  redis.call('PUBLISH', ARGV[3] .. owner, ARGV[1])
end
return 'running'
