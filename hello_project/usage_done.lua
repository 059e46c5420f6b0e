-- Forgets a batch that the database has.
--
-- Purpose   to be harmless when it comes late: another batch may have been taken since.
-- KEYS[1]   the batch that is taken, a hash
-- KEYS[2]   its name, a string, which stays: readers see by it whether a batch was taken meanwhile
-- ARGV[1]   the name of the batch that the database has
-- Reply     1 when it was forgotten, 0 when it had been

if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
return redis.call('UNLINK', KEYS[1])
