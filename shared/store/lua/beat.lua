-- An executor's heartbeat.
-- KEYS: lease executors epoch cancels(of boot)
-- ARGV: boot, TTL ms, jobs running
-- Returns {epoch or '', 1 when the lease key was missing, ids to cancel}.
-- PEXPIRE works when SET is refused for want of memory; the key is set only when it is absent.
-- One that was struck off the register while it was away registers again: nobody would notice its death otherwise.
local missing = 0
if redis.call('PEXPIRE', KEYS[1], ARGV[2]) == 0 then
  missing = 1
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2])
end
if redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 0 then
  missing = 1
  redis.call('SADD', KEYS[2], ARGV[1])
end
return {redis.call('GET', KEYS[3]) or '', missing, redis.call('SMEMBERS', KEYS[4])}
