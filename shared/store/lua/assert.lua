-- An executor says again what it runs: after a loss, a reconnect, or a pause of its own.
-- KEYS: live windows
-- ARGV: boot, then for each job: id, attempt, state ('s' or 'r'), stream, entry id, tenant
-- Returns one number a job: 1 yours, 0 lost (another attempt or another owner is on record).
local boot = ARGV[1]
local out = {}
for i = 2, #ARGV, 6 do
  local id, attempt, state, tenant = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 5]
  local record = state .. ' ' .. attempt .. ' ' .. boot .. ' ' .. ARGV[i + 3] .. ' ' .. ARGV[i + 4] .. ' ' .. tenant
  local live = redis.call('HGET', KEYS[1], id)
  local ok = 1
  if live then
    local st, att, owner = string.match(live, '^(%S) (%S+) (%S+)')
    if att ~= attempt then
      ok = 0
    elseif st == 'q' then
      -- fed again by a rebuild: that entry will find itself superseded
      if ARGV[i + 3] ~= 'sp:q:build' and redis.call('HINCRBY', KEYS[2], tenant, -1) <= 0 then
        redis.call('HDEL', KEYS[2], tenant)
      end
    elseif owner ~= boot then
      ok = 0
    end
  end
  if ok == 1 then
    redis.call('HSET', KEYS[1], id, record)
  end
  out[#out + 1] = ok
end
return out
