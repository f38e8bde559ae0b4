-- The newest event of each log, read at one instant.
--
-- KEYS  the logs, then the marks of a deletion of the same streams
-- Answers for each {epoch, redis id, nonce, n}, {} for a log that has no event, {mark} for a stream that was deleted.
local heads = {}
for number = 1, #KEYS / 2 do
  local deletion = redis.call('GET', KEYS[#KEYS / 2 + number])
  local last = not deletion and last_event(KEYS[number])
  heads[number] = {deletion or nil}
  if last then
    local field = fields(last)
    heads[number] = {field.e, last[1], field.u, field.n}
  end
end
return heads
