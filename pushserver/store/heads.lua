-- The newest event of each log, read at one instant.
--
-- KEYS  the logs
-- Answers for each {epoch, redis id, nonce, n}, or {} for a log that has no event.
local heads = {}
for number, log in ipairs(KEYS) do
  local last = last_event(log)
  heads[number] = {}
  if last then
    local field = fields(last)
    heads[number] = {field.e, last[1], field.u, field.n}
  end
end
return heads
