-- Does each of these logs still hold the event that is its feed's last, and was nothing put behind the tail's back? Records
-- that are no events take a tail past that event; where they are lost, an event may come with an id below theirs.
--
-- KEYS  the logs
-- ARGV  for each the event's redis id and nonce, and the id up to which the log was read
-- Answers the numbers, from 1, of those of which that is not so. Those whose event was trimmed are among them.
local function is_whole(log, id, nonce, read_to)
  local record = redis.call('XRANGE', log, id, id)[1]
  if not record or fields(record).u ~= nonce then return false end
  if read_to == id then return true end
  for _, passed in ipairs(redis.call('XRANGE', log, '(' .. id, read_to, 'COUNT', 100)) do
    if is_event(passed) then return false end
  end
  return true
end

local lost = {}
for number, log in ipairs(KEYS) do
  if not is_whole(log, unpack(ARGV, 3 * number - 2, 3 * number)) then lost[#lost + 1] = number end
end
return lost
