-- One hit on a sliding-window counter: decided and, when admitted, counted, in one atomic call.
--
-- Purpose   admit a hit when the cost admitted in the current slot and the `slots` slots before it,
--           each counted whole, leaves room for its own. docs/limiter.md shows why this is exact.
-- KEYS[1]   the counter of one identifier under one rate limit
-- ARGV[1]   packed: limit in units of cost (4 bytes); length of a slot in ms (4); slots in a window,
--           at most 100 (1); cost of this hit (4), at most the limit: 0 looks, counts nothing and
--           is never refused
-- ARGV[2]   now, ms since the epoch, for tests and simulation; absent: this server's clock
-- Reply     packed: remaining (4 bytes), retry after in ms (8), 0 when admitted and only then,
--           reset after in ms (8)
-- Value     packed: the newest slot that admitted anything (6 bytes), the cost of all slots (width),
--           the newest slot's (width); then, oldest first, a pair for each earlier slot that
--           admitted anything: the slot's low byte, its cost (width). The low byte is enough: every
--           pair is within 100 slots of the newest. The width is 1, 2 or 4 bytes, whichever holds
--           the limit.
-- Lifetime  until the newest slot no longer counts. Under a caller's clock, which may run slower
--           than this server's, an hour more.
--
-- All numbers are big-endian. Packing and arithmetic in place of tables, tonumber and math.floor
-- were each measured to be worth it; `python benchmarks/script_cost.py` measures the whole.

local call, pack, unpack = redis.call, struct.pack, struct.unpack
local limit, slot_ms, slots, cost = unpack('>I4I4BI4', ARGV[1])

local now, grace
if ARGV[2] then
  now, grace = ARGV[2] + 0, 3600000
else
  local time = call('TIME')
  now, grace = time[1] * 1000 + time[2] / 1000, 0
  now = now - now % 1
end

local HEADER, PAIR, header_size, pair_size = '>I6BB', '>BB', 8, 2
if limit > 65535 then
  HEADER, PAIR, header_size, pair_size = '>I6I4I4', '>BI4', 14, 5
elseif limit > 255 then
  HEADER, PAIR, header_size, pair_size = '>I6I2I2', '>BI2', 10, 3
end

local state = call('GET', KEYS[1])
local current = (now - now % slot_ms) / slot_ms
local newest, used, newest_cost = current, 0, 0
local oldest -- the oldest slot that counts; nil when none does
local from, to = header_size + 1, 0 -- the pairs of the slots that count

if state then
  newest, used, newest_cost = unpack(HEADER, state)
  if newest > current then current = newest end -- the clock went back
  if newest < current - slots then
    used = 0
  else
    oldest, to = newest, #state
    while from < to do
      local low, slot_cost = unpack(PAIR, state, from)
      local slot = newest - (newest - low) % 256
      if slot >= current - slots then
        oldest = slot
        break
      end
      used = used - slot_cost
      from = from + pair_size
    end
  end
end

-- A slot stops counting `leaves` ms after `slot * slot_ms` ms from now.
local leaves = (slots + 1) * slot_ms - now

if used + cost > limit then
  local last, still_used, position = newest, used, from -- the last slot that has to leave
  while position < to do
    local low, slot_cost = unpack(PAIR, state, position)
    still_used = still_used - slot_cost
    if still_used + cost <= limit then
      last = newest - (newest - low) % 256
      break
    end
    position = position + pair_size
  end
  return pack('>I4I8I8', limit - used, last * slot_ms + leaves, oldest * slot_ms + leaves)
end

if cost > 0 then
  used = used + cost
  if oldest and newest == current then
    -- What had left when this slot came in is gone already, so neither the pairs nor the lifetime
    -- change.
    call('SETRANGE', KEYS[1], 0, pack(HEADER, current, used, newest_cost + cost))
  else
    local earlier = ''
    if oldest then
      earlier = string.sub(state, from) .. pack(PAIR, newest % 256, newest_cost)
    end
    call('PSETEX', KEYS[1], current * slot_ms + leaves + grace,
      pack(HEADER, current, used, cost) .. earlier)
    oldest = oldest or current
  end
end

return pack('>I4I8I8', limit - used, 0, oldest and oldest * slot_ms + leaves or 0)
