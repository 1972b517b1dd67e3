-- Puts jobs that may run now on their streams. Used by gateways (first: a fresh commit) and dispatchers (feed).
-- KEYS: epoch hold live windows backlog backlog_gen
-- ARGV: source ('g' or 'd'), window, announce channel or '', then for each job: id, tenant, stream, attempt, body
-- Returns one number a job: 1 enqueued, 0 known already, 2 left to the dispatcher (window full, tenant has a
-- backlog, or Redis is being rebuilt).
-- A gateway's job that must wait marks its tenant's backlog with the lowest id that waits: the feeder starts there.
-- Each tenant is read once and written once, and so are the live records: calls from Lua are what costs here.
local source, window = ARGV[1], tonumber(ARGV[2])
local epoch = redis.call('GET', KEYS[1])
local closed = not epoch or redis.call('EXISTS', KEYS[2]) == 1
local ids, tenants, live, out = {}, {}, {}, {}
for i = 4, #ARGV, 5 do
  ids[#ids + 1] = ARGV[i]
end
if #ids == 0 then
  return out
end
local known = closed and {} or redis.call('HMGET', KEYS[3], unpack(ids))

local function look_up(tenant)
  local t = tenants[tenant]
  if not t then
    t = {entries = tonumber(redis.call('HGET', KEYS[4], tenant) or '0'), added = 0, waiting = 0}
    t.low = source == 'g' and redis.call('HGET', KEYS[5], tenant)
    tenants[tenant] = t
  end
  return t
end

local seen = {}
for n, id in ipairs(ids) do
  local at = n * 5 - 1
  local tenant, stream, attempt = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local t, build = look_up(tenant), stream == 'sp:q:build' -- builds have no window
  local verdict = 2
  if not closed and not (source == 'g' and t.low) then
    if known[n] or seen[id] then
      verdict = 0
    elseif build or t.entries + t.added < window then
      local entry = redis.call('XADD', stream, '*', 'e', epoch, 's', source, 'b', ARGV[at + 4])
      live[#live + 1] = id
      live[#live + 1] = 'q ' .. attempt .. ' - ' .. stream .. ' ' .. entry .. ' ' .. tenant
      seen[id] = true
      t.added = t.added + (build and 0 or 1)
      verdict = 1
    end
  end
  if verdict == 2 and source == 'g' and epoch then
    t.waiting = t.waiting + 1
    if not t.low or t.low == '' or id < t.low then
      t.low, t.lowered = id, true
    end
  end
  out[n] = verdict
end

if #live > 0 then
  redis.call('HSET', KEYS[3], unpack(live))
end
for tenant, t in pairs(tenants) do
  if t.added > 0 then
    redis.call('HINCRBY', KEYS[4], tenant, t.added)
  end
  if t.lowered then
    redis.call('HSET', KEYS[5], tenant, t.low)
  end
  if t.waiting > 0 then
    redis.call('HINCRBY', KEYS[6], tenant, t.waiting)
  end
end
return out
