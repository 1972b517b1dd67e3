-- Puts jobs that may run now on their streams. Used by gateways (first: a fresh commit) and dispatchers (feed).
-- KEYS: epoch hold live windows backlog backlog_gen
-- ARGV: source ('g' or 'd'), window, announce channel or '', then for each job: id, tenant, stream, attempt, body
-- Returns one number a job: 1 enqueued, 0 known already, 2 left to the dispatcher (window full, tenant has a
-- backlog, or Redis is being rebuilt).
-- A gateway's job that must wait marks its tenant's backlog with the lowest id that waits: the feeder starts there.
local source, window = ARGV[1], tonumber(ARGV[2])
local epoch = redis.call('GET', KEYS[1])
local closed = not epoch or redis.call('EXISTS', KEYS[2]) == 1
local out = {}
for i = 4, #ARGV, 5 do
  local id, tenant, stream, attempt, body = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local verdict = 2
  local wait = closed
  if not wait and source == 'g' then
    wait = redis.call('HEXISTS', KEYS[5], tenant) == 1
  end
  if not wait then
    if redis.call('HEXISTS', KEYS[3], id) == 1 then
      verdict = 0
    elseif stream ~= 'sp:q:build' and tonumber(redis.call('HGET', KEYS[4], tenant) or '0') >= window then
      wait = true
    else
      local entry = redis.call('XADD', stream, '*', 'e', epoch, 's', source, 'b', body)
      redis.call('HSET', KEYS[3], id, 'q ' .. attempt .. ' - ' .. stream .. ' ' .. entry .. ' ' .. tenant)
      if stream ~= 'sp:q:build' then -- builds have no window
        redis.call('HINCRBY', KEYS[4], tenant, 1)
      end
      verdict = 1
    end
  end
  if wait and source == 'g' and epoch then
    local low = redis.call('HGET', KEYS[5], tenant)
    if not low or low == '' or id < low then
      redis.call('HSET', KEYS[5], tenant, id)
    end
    redis.call('HINCRBY', KEYS[6], tenant, 1)
  end
  out[#out + 1] = verdict
end
return out
