-- What the other scripts share; it is put before each of them. A record of a log that something else wrote is not an event,
-- and is passed over; where the last 100 records are none, the log is taken for empty.

local function fields(record)
  local found = {}
  for i = 1, #record[2], 2 do found[record[2][i]] = record[2][i + 1] end
  return found
end

local function is_event(record)
  local field = fields(record)
  return field.e and field.n and field.p and field.u and field.t and field.s and field.k and field.d and true or false
end

local function last_event(log)
  for _, count in ipairs({1, 100}) do
    for _, record in ipairs(redis.call('XREVRANGE', log, '+', '-', 'COUNT', count)) do
      if is_event(record) then return record end
    end
  end
  return nil
end
