-- The newest entries, or those after a place in the order, or one entry, with the page, the newest withdrawals and the head
-- of the log: of one instant.
--
-- KEYS  1 log  2 entries  3 order  4 page  5 withdrawn  6 the ids of those by time  7 the mark of a deletion
-- ARGV  1 most entries  2 score and 3 id of the entry that they come after, '' for the newest  4 most withdrawals
--       5 the id of the one entry, '' for others
-- Answers nil for a stream that has no event, else {head record, page JSON | nil, page updated_at, page began_at,
-- entries, 1 if older ones are left, withdrawals, feed id | nil}; {mark} for a stream that was deleted.
local deletion = redis.call('GET', KEYS[7])
if deletion then return {deletion} end
local head = last_event(KEYS[1])
if not head then return nil end
local limit = tonumber(ARGV[1])

local ids = {}
if ARGV[5] ~= '' then
  ids = redis.call('HEXISTS', KEYS[2], ARGV[5]) == 1 and {ARGV[5]} or {}
elseif ARGV[2] == '' then
  ids = redis.call('ZREVRANGE', KEYS[3], 0, limit)
else
  -- Entries of the same instant are in the order of their ids.
  for _, id in ipairs(redis.call('ZREVRANGEBYSCORE', KEYS[3], ARGV[2], ARGV[2])) do
    if id < ARGV[3] and #ids <= limit then ids[#ids + 1] = id end
  end
  for _, id in ipairs(redis.call('ZREVRANGEBYSCORE', KEYS[3], '(' .. ARGV[2], '-inf', 'LIMIT', 0, limit + 1)) do
    if #ids <= limit then ids[#ids + 1] = id end
  end
end
local older = #ids > limit
if older then ids[#ids] = nil end

local shown = {}
for i, id in ipairs(ids) do shown[i] = redis.call('HGET', KEYS[2], id) end
local gone = {}
for i, id in ipairs(redis.call('ZREVRANGEBYSCORE', KEYS[6], '+inf', '-inf', 'LIMIT', 0, ARGV[4])) do
  gone[i] = redis.call('HGET', KEYS[5], id)
end
local page = redis.call('HMGET', KEYS[4], 'json', 'updated_at', 'began_at', 'feed_id')
return {head, page[1], page[2], page[3], shown, older and 1 or 0, gone, page[4]}
