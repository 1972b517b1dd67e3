-- The fleet-wide governor of one provider key: creates a second (token bucket) and live sandboxes (semaphore).
-- KEYS: bucket live pause windows build-stream
-- ARGV: verb, boot, n, creates a second (0: unlimited), burst, live limit (0: unlimited), 'build' when they are for one,
--   'any' when they are for no entry
--   take n    : returns {granted, ms until more may be had}; nothing is granted while no entry waits on a stream,
--               so that idle executors hold no permits
--   give n    : n sandboxes of boot are gone
--   return n  : n permits were not used: their tokens go back too
--   set n     : boot holds exactly n (after a loss)
--   pause n   : the provider said no: nobody creates for n ms
--   drop 0    : boot is dead and its sandboxes are gone
local verb, boot, n = ARGV[1], ARGV[2], tonumber(ARGV[3])
local rate, burst, limit = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local function held(by)
  local left = redis.call('HINCRBY', KEYS[2], boot, by)
  if left < 0 then
    redis.call('HSET', KEYS[2], boot, 0)
  end
end
if verb == 'give' then
  held(-n)
elseif verb == 'set' then
  redis.call('HSET', KEYS[2], boot, n)
elseif verb == 'drop' then
  redis.call('HDEL', KEYS[2], boot)
elseif verb == 'pause' then
  if redis.call('PTTL', KEYS[3]) < n then
    redis.call('SET', KEYS[3], '1', 'PX', n)
  end
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000
local tokens, at = burst, now
if rate > 0 then
  tokens = tonumber(redis.call('HGET', KEYS[1], 'tokens') or burst)
  at = tonumber(redis.call('HGET', KEYS[1], 'at') or now)
  tokens = math.min(burst, tokens + math.max(0, now - at) * rate / 1000)
end
if verb == 'return' then
  held(-n)
  tokens = math.min(burst, tokens + n)
end
local granted, wait = 0, 0
if verb == 'take' then
  local pause = redis.call('PTTL', KEYS[3])
  granted = n
  local waiting = ARGV[7] == 'any' and 1 or ARGV[7] == 'build' and redis.call('XLEN', KEYS[5]) or redis.call('HLEN', KEYS[4])
  if waiting == 0 then
    granted, wait = 0, 20
  end
  if pause > 0 then
    granted, wait = 0, pause
  end
  if rate > 0 and granted > math.floor(tokens) then
    granted = math.floor(tokens)
    wait = math.max(wait, math.ceil((1 - (tokens - granted)) * 1000 / rate))
  end
  if limit > 0 and granted > 0 then
    local live = 0
    for _, v in ipairs(redis.call('HVALS', KEYS[2])) do
      live = live + tonumber(v)
    end
    if granted > limit - live then
      granted = math.max(0, limit - live)
      wait = math.max(wait, 50)
    end
  end
  if granted > 0 then
    held(granted)
    tokens = tokens - granted
  end
end
if rate > 0 then
  redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', tostring(now))
end
return {granted, math.floor(wait)}
