-- One step in which the text of a withdrawn entry leaves the records of the log. A record cannot be changed in its place:
-- step by step a copy of the log is made, in which ids, numbers, chain and nonces are the same, and in the last step it
-- takes the log's place. Readers see the log as it was, or the copy whole.
--
-- KEYS  1 log  2 withdrawn  3 page  4 the copy  5 histories
-- ARGV  1 entry  2 the withdrawal as it is stored from now on  3 the data that takes the place of its events'
--       4 most records of a step  5 most bytes of their fields  6 seconds for which an abandoned copy stays
--       7 the row of the entry's history, '' for none
--       8 how many times a copy had taken the log's place when this one was begun, '' for the first step
-- Answers {'begun', times}, {'more'}, {'erased'}; {'changed'} where it has to be begun again; {'absent'} for an entry that
-- was not withdrawn.
local log, copy, entry = KEYS[1], KEYS[4], ARGV[1]
if redis.call('HEXISTS', KEYS[2], entry) == 0 then
  redis.call('UNLINK', copy)
  return {'absent'}
end

-- Of two erasures at a time the second one would bring back what the first has erased since it was copied.
local times = redis.call('HGET', KEYS[3], 'erasures') or '0'
if ARGV[8] == '' then return {'begun', times} end
if ARGV[8] ~= times then
  redis.call('UNLINK', copy)
  return {'changed'}
end

local function without_text(record)
  local place, pairs = {}, record[2]
  for i = 1, #pairs, 2 do place[pairs[i]] = i + 1 end
  -- An event of an unknown type may have the text, too.
  if place.k and pairs[place.k] == entry and place.t and pairs[place.t] ~= 'entry.withdraw' then
    pairs[place.t] = 'entry.withdraw'
    if place.d then pairs[place.d] = ARGV[3] end
    if place.i then pairs[place.i] = '' end
  end
  return pairs
end

-- The step goes on from what the copy has, not from what a worker remembers: a failover may have lost a part of it.
local last = redis.call('XREVRANGE', copy, '+', '-', 'COUNT', 1)[1]
local from, count, bytes, records = last and '(' .. last[1] or '-', 0, 0, nil
repeat
  records = redis.call('XRANGE', log, from, '+', 'COUNT', 20)
  for _, record in ipairs(records) do
    local pairs = without_text(record)
    redis.call('XADD', copy, record[1], unpack(pairs))
    for _, value in ipairs(pairs) do bytes = bytes + #value end
    from = '(' .. record[1]
  end
  count = count + #records
until #records < 20 or count >= tonumber(ARGV[4]) or bytes >= tonumber(ARGV[5])
if #records == 20 then
  redis.call('EXPIRE', copy, ARGV[6])
  return {'more'}
end

local function described(key)
  local info, named = redis.call('XINFO', 'STREAM', key), {}
  for i = 1, #info, 2 do named[info[i]] = info[i + 1] end
  return named
end

local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
if first then
  redis.call('XTRIM', copy, 'MINID', first[1])  -- the log was trimmed meanwhile
  local is = described(log)
  if is.length ~= described(copy).length then  -- somebody deleted a record
    redis.call('UNLINK', copy)
    return {'changed'}
  end
  redis.call('XSETID', copy, is['last-generated-id'], 'ENTRIESADDED', is['entries-added'],
    'MAXDELETEDID', is['max-deleted-entry-id'])
  redis.call('PERSIST', copy)
  redis.call('RENAME', copy, log)
end
redis.call('HINCRBY', KEYS[3], 'erasures', 1)
redis.call('HSET', KEYS[2], entry, ARGV[2])
if ARGV[7] ~= '' then add_row(KEYS[5], entry, ARGV[7]) end
return {'erased'}
