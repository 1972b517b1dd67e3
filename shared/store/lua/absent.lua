-- Whether jobs are surely neither queued nor run by anybody.
-- KEYS: epoch hold live; ARGV: ids. Returns one number an id: 1 absent; 0 held, or a rebuild is under way and
-- executors have yet to say what they run.
local out = {}
local sure = redis.call('EXISTS', KEYS[1]) == 1 and redis.call('EXISTS', KEYS[2]) == 0
for i = 1, #ARGV do
  out[i] = sure and redis.call('HEXISTS', KEYS[3], ARGV[i]) == 0 and 1 or 0
end
return out
