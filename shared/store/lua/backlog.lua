-- The feeder's side of the backlog marks.
-- KEYS: backlog backlog_gen windows
-- ARGV: 'mark' tenant id ...   : these tenants have work waiting from these ids on
--       'take'                 : returns {tenant, low id or '', generation, entries in its window} flattened, and forgets the low ids
--       'clear' tenant gen ... : drops the mark unless something was added since that generation
local verb = ARGV[1]
if verb == 'mark' then
  for i = 2, #ARGV, 2 do
    local low = redis.call('HGET', KEYS[1], ARGV[i])
    if not low or low == '' or ARGV[i + 1] < low then
      redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    end
    redis.call('HINCRBY', KEYS[2], ARGV[i], 1)
  end
  return {}
end
if verb == 'take' then
  local all, out = redis.call('HGETALL', KEYS[1]), {}
  for i = 1, #all, 2 do
    out[#out + 1] = all[i]
    out[#out + 1] = all[i + 1]
    out[#out + 1] = redis.call('HGET', KEYS[2], all[i]) or '0'
    out[#out + 1] = redis.call('HGET', KEYS[3], all[i]) or '0'
    if all[i + 1] ~= '' then
      redis.call('HSET', KEYS[1], all[i], '')
    end
  end
  return out
end
for i = 2, #ARGV, 2 do
  if (redis.call('HGET', KEYS[2], ARGV[i]) or '0') == ARGV[i + 1] then
    redis.call('HDEL', KEYS[1], ARGV[i])
    redis.call('HDEL', KEYS[2], ARGV[i])
  end
end
return {}
