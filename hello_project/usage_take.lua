-- Takes the counts that wait for the database, or those that are taken already.
--
-- Purpose   what is taken stays as it is until usage_done.lua is told that the database has it, so
--           that a batch can be added again, under the same name, by whoever comes next.
-- KEYS[1]   the counts that wait, a hash
-- KEYS[2]   the batch that is taken, a hash
-- KEYS[3]   the name of the batch that was taken last, a string
-- ARGV[1]   a name for a new batch
-- Reply     the name of the batch that is taken now, or nil when there is nothing to take

local call = redis.call

local is_taken = call('EXISTS', KEYS[2]) == 1
if not is_taken and call('EXISTS', KEYS[1]) == 0 then
  return nil
end
if not is_taken then
  call('RENAME', KEYS[1], KEYS[2])
end
-- A store that evicts may have lost the name alone: then it cannot be told whether it was added.
if not is_taken or call('EXISTS', KEYS[3]) == 0 then
  call('SET', KEYS[3], ARGV[1])
end
return call('GET', KEYS[3])
