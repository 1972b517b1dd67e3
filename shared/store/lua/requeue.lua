-- Gives jobs back to the queue: of a dead executor, or handed back by a living one.
-- KEYS: epoch live windows
-- ARGV: owner whose lease ends ('-' for entries delivered but never leased), then for each job: id, old attempt,
--       tenant, new attempt, stream, old entry id, body ('' to only drop the lease: the job waits elsewhere)
-- Returns one number a job: 1 done, 0 somebody else has it.
local owner = ARGV[1]
local epoch = redis.call('GET', KEYS[1])
local out = {}
for i = 2, #ARGV, 7 do
  local id, old, tenant, new, stream, entry, body =
    ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6]
  local live = redis.call('HGET', KEYS[2], id)
  local mine, stray = false, not live
  if live then
    local st, att, boot, _, at = string.match(live, '^(%S) (%S+) (%S+) (%S+) (%S+)')
    mine = att == old and boot == owner and (st ~= 'q' or at == entry)
    stray = at ~= entry
    if mine and st == 'q' and stream ~= 'sp:q:build' and redis.call('HINCRBY', KEYS[3], tenant, -1) <= 0 then
      redis.call('HDEL', KEYS[3], tenant)
    end
  end
  if mine then
    if entry ~= '-' then
      redis.call('XACK', stream, 'executors', entry)
      redis.call('XDEL', stream, entry)
    end
    redis.call('HDEL', KEYS[2], id)
    if body ~= '' and epoch then
      local fresh = redis.call('XADD', stream, '*', 'e', epoch, 's', 'd', 'b', body)
      redis.call('HSET', KEYS[2], id, 'q ' .. new .. ' - ' .. stream .. ' ' .. fresh .. ' ' .. tenant)
      if stream ~= 'sp:q:build' then
        redis.call('HINCRBY', KEYS[3], tenant, 1)
      end
    end
  end
  if owner == '-' and stray and entry ~= '-' then -- nobody's: it must not stay pending
    redis.call('XACK', stream, 'executors', entry)
    redis.call('XDEL', stream, entry)
  end
  out[#out + 1] = mine and 1 or 0
end
return out
