-- Adds counts to several keys, once however often it is sent.
--
-- Purpose   what a process gathered, written in one atomic call. Beside it goes the call's number:
--           one that is not above the number that the process wrote last has been here before.
-- KEYS[1]   the number of the process's last call
-- KEYS[n]   what is added to, a hash or a sorted set
-- ARGV[1]   this call's number, from 1
-- ARGV[2]   seconds to keep the number
-- ARGV[3]   members to keep in a sorted set, those with the highest scores
-- ARGV...   for each of KEYS[2] and on: "hash" or "zset"; seconds to keep it from now on; how many
--           fields follow; then each field or member, and what to add to it
-- Reply     1 when it was added, 0 when it had been

local call = redis.call

if tonumber(call('GET', KEYS[1]) or '0') >= tonumber(ARGV[1]) then
  return 0
end

local at = 4
for key = 2, #KEYS do
  local is_hash, lifetime, count = ARGV[at] == 'hash', ARGV[at + 1], ARGV[at + 2]
  at = at + 3
  for _ = 1, count do
    if is_hash then
      call('HINCRBY', KEYS[key], ARGV[at], ARGV[at + 1])
    else
      call('ZINCRBY', KEYS[key], ARGV[at + 1], ARGV[at])
    end
    at = at + 2
  end
  if not is_hash then
    call('ZREMRANGEBYRANK', KEYS[key], 0, -ARGV[3] - 1)
  end
  call('EXPIRE', KEYS[key], lifetime)
end

call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
