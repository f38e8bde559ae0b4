-- The logs that do not have the last event that a worker read any more, or that have an event which its tail will never read.
-- Example of the second: the tail has read event 5-0 and a foreign record 9-0; a failover loses 9-0, and the next event gets
-- the id 7-0, below the id from which the tail reads on.
--
-- KEYS  the logs
-- ARGV  for each the event's redis id and nonce, and the id up to which the log was read
-- Answers the numbers of such logs, from 1. A log whose event was trimmed is one of them.
local function is_whole(log, id, nonce, read_to)
  local record = redis.call('XRANGE', log, id, id)[1]
  if not record or fields(record).u ~= nonce then return false end
  if read_to == id then return true end
  for _, passed in ipairs(redis.call('XRANGE', log, '(' .. id, read_to, 'COUNT', 100)) do
    if event_fields(passed) then return false end
  end
  return true
end

local lost = {}
for number, log in ipairs(KEYS) do
  if not is_whole(log, unpack(ARGV, 3 * number - 2, 3 * number)) then lost[#lost + 1] = number end
end
return lost
