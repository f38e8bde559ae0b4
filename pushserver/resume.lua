-- Does the log continue from what a reader holds, and with what? An id alone is not enough: after a failover ids can go back
-- and be given out again, so the epoch and the nonce must be those of the event that the reader saw.
--
-- KEYS  1 log  2 withdrawn
-- ARGV  1 epoch  2 redis id  3 nonce  4 most events
-- Answers {'ok', n of the cursor's event, records after it, withdrawals of entries in them}, or why not:
-- {'empty' | 'epoch' | 'rollback' | 'trimmed' | 'too_far'}.
local log, epoch, id, nonce, limit = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

local function before(a, b)
  local a_ms, a_seq = string.match(a, '(%d+)-(%d+)')
  local b_ms, b_seq = string.match(b, '(%d+)-(%d+)')
  if a_ms ~= b_ms then return tonumber(a_ms) < tonumber(b_ms) end
  return tonumber(a_seq) < tonumber(b_seq)
end

local last = last_event(log)
if not last then return {'empty'} end
if fields(last).e ~= epoch then return {'epoch'} end

local n
local held = redis.call('XRANGE', log, id, id)[1]
if held then
  if fields(held).u ~= nonce then return {'rollback'} end
  n = tonumber(fields(held).n)
end
local records = redis.call('XRANGE', log, '(' .. id, '+', 'COUNT', limit + 100)
local after = {}
for _, record in ipairs(records) do
  if is_event(record) then after[#after + 1] = record end
end
if not held then
  if before(last[1], id) then return {'rollback'} end
  -- The event itself may have been trimmed when the next one still names it: nothing is missing then.
  if not (after[1] and fields(after[1]).p == id .. '.' .. nonce) then
    local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
    return {before(id, first[1]) and 'trimmed' or 'rollback'}
  end
  n = tonumber(fields(after[1]).n) - 1
end
if #after > limit or #records == limit + 100 then return {'too_far'} end

-- What was withdrawn since is not told again, only that it was.
local gone, seen = {}, {}
for _, record in ipairs(after) do
  local entry = fields(record).k
  if entry and entry ~= '' and not seen[entry] then
    seen[entry] = true
    local withdrawal = redis.call('HGET', KEYS[2], entry)
    if withdrawal then gone[#gone + 1] = {entry, withdrawal} end
  end
end
return {'ok', n, after, gone}
