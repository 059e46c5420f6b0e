-- The requests of the file REQUESTS, in turn, without end, each a whole one as it goes over the
-- wire, a NUL after each; then one line of JSON on stdout.
-- With COUNT_STATUSES the answers' statuses are counted as well, which costs the client time.

local path = os.getenv("REQUESTS")
local threads = {}
local requests, last, current = {}, 0, 0

function setup(thread)
  threads[#threads + 1] = thread
end

function init()
  local file = assert(io.open(path, "rb"))
  for one in file:read("*a"):gmatch("%Z+") do
    requests[#requests + 1] = one
  end
  file:close()
  last = #requests
end

function request()
  current = current < last and current + 1 or 1
  return requests[current]
end

if os.getenv("COUNT_STATUSES") then
  statuses = {}
  function response(status)
    local name = tostring(status)
    statuses[name] = (statuses[name] or 0) + 1
  end
end

local function counted()
  local parts = {}
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("statuses") or {}) do
      parts[#parts + 1] = string.format('"%s": %d', status, count)
    end
  end
  return "{" .. table.concat(parts, ", ") .. "}"
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "from_400_on": %d,' ..
    ' "socket_errors": %d, "statuses": %s}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout, counted()))
end
