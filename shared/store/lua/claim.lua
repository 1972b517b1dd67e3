-- Turns entries that XREADGROUP delivered into leases.
-- KEYS: epoch live windows
-- ARGV: boot, then for each entry: id, attempt, stream, entry id, epoch of the entry
-- Returns one number an entry: 1 leased to boot, 0 not ours to run (canceled, superseded, from before a rebuild):
-- it was acknowledged and deleted here.
local boot = ARGV[1]
local epoch = redis.call('GET', KEYS[1])
local ids, leased, left, taken, out = {}, {}, {}, {}, {}
for i = 2, #ARGV, 5 do
  ids[#ids + 1] = ARGV[i]
end
if #ids == 0 then
  return out
end
local records = redis.call('HMGET', KEYS[2], unpack(ids))
for n, id in ipairs(ids) do
  local at = n * 5 - 3
  local attempt, stream, entry = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local live = taken[id] or records[n]
  local ok = 0
  if live and epoch == ARGV[at + 4] then
    local state, att, owner, _, its, tenant = string.match(live, '^(%S) (%S+) (%S+) (%S+) (%S+) (%S+)$')
    if att == attempt and its == entry then
      if state == 'q' then
        taken[id] = 's ' .. attempt .. ' ' .. boot .. ' ' .. stream .. ' ' .. entry .. ' ' .. tenant
        leased[#leased + 1] = id
        leased[#leased + 1] = taken[id]
        if stream ~= 'sp:q:build' then
          left[tenant] = (left[tenant] or 0) + 1
        end
        ok = 1
      elseif owner == boot then
        ok = 1 -- the reply to an earlier claim was lost
      end
    end
  end
  if ok == 0 then
    redis.call('XACK', stream, 'executors', entry)
    redis.call('XDEL', stream, entry)
  end
  out[n] = ok
end
if #leased > 0 then
  redis.call('HSET', KEYS[2], unpack(leased))
end
for tenant, n in pairs(left) do
  if redis.call('HINCRBY', KEYS[3], tenant, -n) <= 0 then
    redis.call('HDEL', KEYS[3], tenant) -- an empty hash says that nothing waits
  end
end
return out
