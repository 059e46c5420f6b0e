-- One hit on a sliding-window counter: decided and, when admitted, counted, in one atomic call.
--
-- Purpose   admit a hit when the cost admitted in the current slot and the `slots` slots before it,
--           each counted whole, leaves room for its own. docs/limiter.md shows why this is exact.
-- KEYS[1]   the counter of one identifier under one rate limit
-- ARGV[1]   the rate limit, packed: limit in units of cost (4 bytes), length of a slot in ms
--           (4 bytes), slots in a window, at most 100 (1 byte)
-- ARGV[2]   cost of this hit, at most the limit; 0 looks, counts nothing and is never refused
-- ARGV[3]   now, ms since the epoch, for tests and simulation; absent: this server's clock
-- Reply     allowed (0 or 1), remaining, retry after (ms), reset after (ms), packed: 1, 4, 8 and 8
--           bytes
-- Value     a header: the newest slot's low 5 bytes, total of all pairs (width); then a pair for
--           each slot that admitted anything, oldest first: the slot's low byte, its cost (width).
--           The low bytes are enough: the newest slot is within 2^39 slots (17 years at the least)
--           of now, and every pair within 100 of the newest. The width is 1, 2 or 4 bytes,
--           whichever holds the limit. All numbers are big-endian.
-- Lifetime  until the newest slot no longer counts. Under a caller's clock, which may run slower
--           than this server's, a minute more.
--
-- Packing (a table of four numbers costs the reply as much as GET does), and arithmetic in place of
-- tonumber and math.floor, were each measured to be worth it; `python benchmarks/script_cost.py`
-- measures the whole.

local pack, unpack = struct.pack, struct.unpack
local REPLY = '>BI4I8I8'
local limit, slot_ms, slots = unpack('>I4I4B', ARGV[1])
local cost = ARGV[2] + 0

local now, grace
if ARGV[3] then
  now, grace = ARGV[3] + 0, 60000
else
  local time = redis.call('TIME')
  now, grace = time[1] * 1000 + time[2] / 1000, 0
  now = now - now % 1
end

local HEADER, PAIR, header_size, pair_size = '>I5B', '>BB', 6, 2
if limit > 65535 then
  HEADER, PAIR, header_size, pair_size = '>I5I4', '>BI4', 9, 5
elseif limit > 255 then
  HEADER, PAIR, header_size, pair_size = '>I5I2', '>BI2', 7, 3
end

local state = redis.call('GET', KEYS[1])
local current = (now - now % slot_ms) / slot_ms
local newest, total = current, 0
local oldest -- the oldest slot that counts; nil when nothing does
local kept_from, kept_to = header_size + 1, 0 -- the pairs of the slots that count

if state then
  newest, total = unpack(HEADER, state)
  newest = current - ((current - newest + 2 ^ 39) % 2 ^ 40 - 2 ^ 39)
  if newest > current then current = newest end -- the clock went back
  kept_to = #state
  while kept_from < kept_to do
    local low, slot_cost = unpack(PAIR, state, kept_from)
    local slot = newest - (newest - low) % 256
    if slot >= current - slots then
      oldest = slot
      break
    end
    total = total - slot_cost
    kept_from = kept_from + pair_size
  end
end

-- A slot stops counting `leaves` ms after `slot * slot_ms` ms from now.
local leaves = (slots + 1) * slot_ms - now

if total + cost > limit then
  local slot
  local still_used, position = total, kept_from
  repeat
    local low, slot_cost = unpack(PAIR, state, position)
    slot = newest - (newest - low) % 256
    still_used = still_used - slot_cost
    position = position + pair_size
  until still_used + cost <= limit
  return pack(REPLY, 0, limit - total, slot * slot_ms + leaves, oldest * slot_ms + leaves)
end

if cost > 0 then
  local kept, slot_cost = '', cost
  if oldest then
    if newest == current then
      local _, admitted_before = unpack(PAIR, state, kept_to - pair_size + 1)
      slot_cost = slot_cost + admitted_before
      kept_to = kept_to - pair_size
    end
    kept = string.sub(state, kept_from, kept_to)
  end
  total = total + cost
  redis.call('PSETEX', KEYS[1], current * slot_ms + leaves + grace,
    pack(HEADER, current, total) .. kept .. pack(PAIR, current % 256, slot_cost))
  oldest = oldest or current
end

return pack(REPLY, 1, limit - total, 0, oldest and oldest * slot_ms + leaves or 0)
