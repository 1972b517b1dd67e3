-- Notes that leased jobs have started to run, so that their records say so.
-- KEYS: live; ARGV: boot, then for each job: id, attempt
for i = 2, #ARGV, 2 do
  local live = redis.call('HGET', KEYS[1], ARGV[i])
  if live then
    local st, att, owner, rest = string.match(live, '^(%S) (%S+) (%S+) (.*)$')
    if st == 's' and att == ARGV[i + 1] and owner == ARGV[1] then
      redis.call('HSET', KEYS[1], ARGV[i], 'r ' .. att .. ' ' .. owner .. ' ' .. rest)
    end
  end
end
return redis.status_reply('OK')
