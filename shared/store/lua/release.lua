-- Ends leases after their outcome is durable, and tells the callers.
-- KEYS: live cancels(of boot) done-channel
-- ARGV: boot, message for the channel ('' for none), then for each job: id, attempt, stream, entry id ('-': none)
-- Touches a job's live record only while it still names this boot and attempt.
local boot, message = ARGV[1], ARGV[2]
for i = 3, #ARGV, 4 do
  local id, attempt, stream, entry = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if entry ~= '-' then
    redis.call('XACK', stream, 'executors', entry)
    redis.call('XDEL', stream, entry)
  end
  local live = redis.call('HGET', KEYS[1], id)
  if live then
    local att, owner = string.match(live, '^%S (%S+) (%S+)')
    if att == attempt and owner == boot then
      redis.call('HDEL', KEYS[1], id)
    end
  end
  redis.call('SREM', KEYS[2], id)
end
if message ~= '' then
  redis.call('PUBLISH', KEYS[3], message)
end
return redis.status_reply('OK')
