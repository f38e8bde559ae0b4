-- Functions that the other scripts share; log.py puts them before each. A record of a log that something else wrote is not an
-- event, and is passed over; a log whose last 100 records are none counts as empty. `event_of` of records.py judges the same.

local function fields(record)
  local named = {}
  for i = 1, #record[2], 2 do named[record[2][i]] = record[2][i + 1] end
  return named
end

-- The fields of a record that is an event; false or nil where it is none.
local function event_fields(record)
  local field = fields(record)
  if not (field.e and field.n and field.p and field.u and field.t and field.s and field.k and field.d) then return false end
  local numbered = string.match(field.n, '^[1-9]%d*$') and #field.n < 16
  local named = string.match(field.e .. field.u, '^[0-9a-f]+$') and #field.e == 16 and #field.u == 16
  local linked = string.match(field.p, '^%d+%-%d+%.[0-9a-f]+$')
  local plain = string.match(field.t .. field.s .. field.k, '^[%w.:_+-]+$')
  local is_object = string.sub(field.d, 1, 1) == '{' and string.sub(field.d, -1) == '}'
  return numbered and named and linked and plain and is_object and field
end

local function last_event(log)
  for _, count in ipairs({1, 100}) do
    for _, record in ipairs(redis.call('XREVRANGE', log, '+', '-', 'COUNT', count)) do
      if event_fields(record) then return record end
    end
  end
  return nil
end

local function before(a, b)
  local a_ms, a_seq = string.match(a, '(%d+)-(%d+)')
  local b_ms, b_seq = string.match(b, '(%d+)-(%d+)')
  if a_ms ~= b_ms then return tonumber(a_ms) < tonumber(b_ms) end
  return tonumber(a_seq) < tonumber(b_seq)
end

-- The highest redis id that was ever deleted from a log by name; trimming does not count.
local function last_deleted(log)
  local info = redis.call('XINFO', 'STREAM', log)
  for i = 1, #info, 2 do
    if info[i] == 'max-deleted-entry-id' then return info[i + 1] end
  end
end

-- The newest 50 rows of a history (content/history.py).
local function newest_rows(rows)
  local _, ends = string.gsub(rows, '\n', '')
  for _ = 1, ends + 1 - 50 do rows = string.sub(rows, string.find(rows, '\n', 1, true) + 1) end
  return rows
end

local function add_row(histories, entry, row)
  local rows = redis.call('HGET', histories, entry)
  redis.call('HSET', histories, entry, rows and newest_rows(rows .. '\n' .. row) or row)
end
