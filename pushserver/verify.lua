-- Does each of these logs still hold the event that is its feed's last?
--
-- KEYS  the logs
-- ARGV  for each its redis id and its nonce
-- Answers the numbers, from 1, of those that do not. Those whose event was trimmed are among them.
local lost = {}
for number, log in ipairs(KEYS) do
  local record = redis.call('XRANGE', log, ARGV[2 * number - 1], ARGV[2 * number - 1])[1]
  if not record or fields(record).u ~= ARGV[2 * number] then lost[#lost + 1] = number end
end
return lost
