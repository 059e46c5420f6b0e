-- Takes the counts that wait for the database, or those that are taken already.
--
-- Purpose   what is taken stays as it is until usage_done.lua is told that the database has it, so
--           that a batch can be added again, under the same name, by whoever comes next.
-- KEYS[1]   the counts that wait, a hash
-- KEYS[2]   the batch that is taken, a hash
-- KEYS[3]   the batch's name, a string
-- ARGV[1]   a name for a new batch
-- Reply     the name of the batch that is taken now, or nil when there is nothing to take

local call = redis.call

if call('EXISTS', KEYS[2]) == 0 then
  if call('EXISTS', KEYS[1]) == 0 then
    return nil
  end
  call('RENAME', KEYS[1], KEYS[2])
  call('SET', KEYS[3], ARGV[1])
end
return call('GET', KEYS[3])
