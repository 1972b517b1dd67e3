-- Ends leases after their outcome is durable, and tells the callers.
-- KEYS: live cancels(of boot) done-channel
-- ARGV: boot, message for the channel ('' for none), then for each job: id, attempt, stream, entry id ('-': none)
-- Touches a job's live record only while it still names this boot and attempt.
local boot, message = ARGV[1], ARGV[2]
local ids, entries, ended = {}, {}, {}
for i = 3, #ARGV, 4 do
  local stream, entry = ARGV[i + 2], ARGV[i + 3]
  ids[#ids + 1] = ARGV[i]
  if entry ~= '-' then
    entries[stream] = entries[stream] or {}
    table.insert(entries[stream], entry)
  end
end
for stream, list in pairs(entries) do
  redis.call('XACK', stream, 'executors', unpack(list))
  redis.call('XDEL', stream, unpack(list))
end
if #ids > 0 then
  local records = redis.call('HMGET', KEYS[1], unpack(ids))
  for n, id in ipairs(ids) do
    if records[n] then
      local att, owner = string.match(records[n], '^%S (%S+) (%S+)')
      if att == ARGV[n * 4] and owner == boot then
        ended[#ended + 1] = id
      end
    end
  end
  if #ended > 0 then
    redis.call('HDEL', KEYS[1], unpack(ended))
  end
  redis.call('SREM', KEYS[2], unpack(ids))
end
if message ~= '' then
  redis.call('PUBLISH', KEYS[3], message)
end
return redis.status_reply('OK')
