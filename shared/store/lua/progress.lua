-- Notes that leased jobs have started to run, so that their records say so.
-- KEYS: live; ARGV: boot, then for each job: id, attempt
local ids, running = {}, {}
for i = 2, #ARGV, 2 do
  ids[#ids + 1] = ARGV[i]
end
if #ids > 0 then
  local records = redis.call('HMGET', KEYS[1], unpack(ids))
  for n, id in ipairs(ids) do
    if records[n] then
      local st, att, owner, rest = string.match(records[n], '^(%S) (%S+) (%S+) (.*)$')
      if st == 's' and att == ARGV[n * 2 + 1] and owner == ARGV[1] then
        running[#running + 1] = id
        running[#running + 1] = 'r ' .. att .. ' ' .. owner .. ' ' .. rest
      end
    end
  end
end
if #running > 0 then
  redis.call('HSET', KEYS[1], unpack(running))
end
return redis.status_reply('OK')
