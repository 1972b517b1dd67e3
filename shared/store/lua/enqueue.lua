-- Puts jobs that may run now on their streams. Used by gateways ('g': fresh commits) and dispatchers ('f': found by
-- looking through PostgreSQL, 'd': known to be no gateway's).
-- KEYS: epoch hold live windows backlog backlog_gen fence
-- ARGV: source, window, fence, then for each job: id, tenant, stream, attempt, body
-- Returns one number a job: 1 enqueued, 0 known already, 2 left to the dispatcher (window full, tenant has a
-- backlog, or Redis is being rebuilt); and then the fence.
-- What a dispatcher finds may be on its way here from its gateway too (which was frozen, or cut off), and may have run and
-- ended when that arrives. So 'f' sets a new fence, and a gateway names the fence that it knew before the commit: with
-- another one its entries are marked as fed, which executors check in PostgreSQL first.
-- A gateway's job that must wait marks its tenant's backlog with the lowest id that waits: the feeder starts there.
-- Each tenant is read once and written once, and so are the live records: calls from Lua are what costs here.
local source, window = ARGV[1], tonumber(ARGV[2])
local fence = redis.call('GET', KEYS[7]) or ''
local mark = source == 'g' and fence == ARGV[3] and 'g' or 'd'
local epoch = redis.call('GET', KEYS[1])
local closed = not epoch or redis.call('EXISTS', KEYS[2]) == 1 or redis.call('HGET', KEYS[3], '') ~= epoch
local tenants, live, out = {}, {}, {}

local function look_up(tenant)
  local t = tenants[tenant]
  if not t then
    t = {entries = tonumber(redis.call('HGET', KEYS[4], tenant) or '0'), added = 0, waiting = 0}
    t.low = source == 'g' and redis.call('HGET', KEYS[5], tenant)
    tenants[tenant] = t
  end
  return t
end

local function may_go(t, stream) -- builds have no window
  return not closed and not t.low and (stream == 'sp:q:build' or t.entries + t.added < window)
end

local asked, known = {}, {} -- which jobs have a record already, unless they wait in any case
for i = 4, #ARGV, 5 do
  if not closed and not look_up(ARGV[i + 1]).low then
    asked[#asked + 1] = ARGV[i]
  end
end
if #asked > 0 then
  for n, record in ipairs(redis.call('HMGET', KEYS[3], unpack(asked))) do
    known[asked[n]] = record
  end
end

for i = 4, #ARGV, 5 do
  local id, tenant, stream, attempt = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local t = look_up(tenant)
  local verdict = 2
  if known[id] then
    verdict = 0
  elseif may_go(t, stream) then
    local entry = redis.call('XADD', stream, '*', 'e', epoch, 's', mark, 'b', ARGV[i + 4])
    known[id] = 'q ' .. attempt .. ' - ' .. stream .. ' ' .. entry .. ' ' .. tenant
    live[#live + 1] = id
    live[#live + 1] = known[id]
    if stream ~= 'sp:q:build' then
      t.added = t.added + 1
    end
    verdict = 1
  elseif source == 'g' and epoch then
    t.waiting = t.waiting + 1
    if not t.low or t.low == '' or id < t.low then
      t.low, t.lowered = id, true
    end
  end
  out[#out + 1] = verdict
end

if #live > 0 then
  redis.call('HSET', KEYS[3], unpack(live))
  if source == 'f' then
    redis.call('SET', KEYS[7], ARGV[3])
  end
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
out[#out + 1] = fence
return out
