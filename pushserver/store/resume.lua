-- The events after a reader's cursor, if the log has the event that it names. An id alone does not name one: after a failover
-- ids can go back and be used again, so the epoch and the nonce must be those of the event that the reader saw.
--
-- KEYS  1 log  2 withdrawn  3 the mark of a deletion
-- ARGV  1 epoch  2 redis id  3 nonce  4 most events  5 most bytes of their data  6 'part' if the first of them will do
-- Answers {'ok', n of the cursor's event, records after it, withdrawals of entries in them, 1 if more are left}, or why not:
-- {'empty' | 'epoch' | 'rollback' | 'trimmed' | 'too_far'}, {'deleted', mark}.
local log, epoch, id, nonce, limit, most_bytes = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local in_part = ARGV[6] == 'part'

local deletion = redis.call('GET', KEYS[3])
if deletion then return {'deleted', deletion} end

local last = last_event(log)
if not last then return {'empty'} end
if fields(last).e ~= epoch then return {'epoch'} end
local head = tonumber(fields(last).n)

local n
local record = redis.call('XRANGE', log, id, id)[1]
if record then
  if fields(record).u ~= nonce then return {'rollback'} end
  n = tonumber(fields(record).n)
elseif before(last[1], id) then
  return {'rollback'}
end

-- Read in parts: how large the events are is known only when they are there. Each names the one before it; where one does
-- not, something between them was lost: a reader that got the rest would reconnect with the same cursor, for ever.
local after, entries, bytes, read, from, more, link = {}, {}, 0, 0, '(' .. id, false, id .. '.' .. nonce
repeat
  local records = redis.call('XRANGE', log, from, '+', 'COUNT', 100)
  read = read + #records
  if read > limit + 1000 then return {'too_far'} end
  for _, record in ipairs(records) do
    local event = event_fields(record)
    if event then
      -- The cursor's event itself may have been trimmed when the next one still names it: nothing is missing then.
      if event.p ~= link then
        local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
        return {not n and before(id, first[1]) and 'trimmed' or 'rollback'}
      end
      n, link = n or tonumber(event.n) - 1, record[1] .. '.' .. event.u
      bytes = bytes + #event.d
      if in_part then
        more = #after == limit or (bytes > most_bytes and #after > 0)
      elseif head - n > limit or bytes > most_bytes then
        return {'too_far'}
      end
      if more then break end
      after[#after + 1], entries[#entries + 1] = record, event.k
    end
    from = '(' .. record[1]
  end
until more or #records < 100

-- The text of an entry that was withdrawn since is not sent again, only its withdrawal.
local gone, seen = {}, {}
for _, entry in ipairs(entries) do
  if entry ~= '' and not seen[entry] then
    seen[entry] = true
    local withdrawal = redis.call('HGET', KEYS[2], entry)
    if withdrawal then gone[#gone + 1] = {entry, withdrawal} end
  end
end
return {'ok', n or head, after, gone, more and 1 or 0}
