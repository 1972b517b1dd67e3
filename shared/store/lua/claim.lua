-- Turns entries that XREADGROUP delivered into leases.
-- KEYS: epoch live windows
-- ARGV: boot, then for each entry: id, attempt, stream, entry id, epoch of the entry
-- Returns one number an entry: 1 leased to boot, 0 not ours to run (canceled, superseded, from before a rebuild):
-- it was acknowledged and deleted here.
local boot = ARGV[1]
local epoch = redis.call('GET', KEYS[1])
local out = {}
for i = 2, #ARGV, 5 do
  local id, attempt, stream, entry = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local live = redis.call('HGET', KEYS[2], id)
  local ok = 0
  if live and epoch == ARGV[i + 4] then
    local state, att, owner, _, at, tenant = string.match(live, '^(%S) (%S+) (%S+) (%S+) (%S+) (%S+)$')
    if att == attempt and at == entry then
      if state == 'q' then
        redis.call('HSET', KEYS[2], id, 's ' .. attempt .. ' ' .. boot .. ' ' .. stream .. ' ' .. entry .. ' ' .. tenant)
        if stream ~= 'sp:q:build' and redis.call('HINCRBY', KEYS[3], tenant, -1) <= 0 then
          redis.call('HDEL', KEYS[3], tenant) -- an empty hash says that nothing waits
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
  out[#out + 1] = ok
end
return out
