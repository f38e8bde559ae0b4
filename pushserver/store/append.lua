-- One publish: the event joins the log and the state moves with it, or neither happens.
--
-- KEYS  1 log  2 entries  3 order  4 page  5 streams  6 withdrawn  7 the ids of those by time
--       8 the idempotency key's first answer  9 the mark of a deletion  10 histories
-- ARGV  1 type  2 data JSON  3 at, in ms  4 epoch, should a new one be needed  5 nonce
--       6 entry id, '' for a page  7 rev that this makes  8 state JSON  9 score of an entry, or of a withdrawal
--       10 instant shown on the page  11 stream  12 events kept  13 entries allowed
--       14 idempotency key, '' for none  15 its body's hash  16 seconds it is remembered
--       17 the page's state, for a page  18 rev that this replaces  19 when the coverage began, '' for 10
--       20 the feed's id, should the stream be new  21 who made it, '' where that is not known
-- Answers {'stored' | 'replayed', redis id, n, epoch, nonce, entry id, rev}, {'reused'}, {'rev', current}, {'full', count},
-- {'gone'} for an entry that was withdrawn, {'ended'} for a new one in a stream that is over, {'deleted', mark}.
local log, entries, order, page, streams, withdrawn, gone, idem = unpack(KEYS)
local kind, data, at, epoch, nonce = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local entry, rev, state, score, shown_at = ARGV[6], tonumber(ARGV[7]), ARGV[8], ARGV[9], ARGV[10]

local deletion = redis.call('GET', KEYS[9])
if deletion then return {'deleted', deletion} end

if ARGV[14] ~= '' then
  local first = redis.call('GET', idem)
  if first then
    local answer = cjson.decode(first)
    if answer[1] ~= ARGV[15] then return {'reused'} end
    answer[1] = 'replayed'
    return answer
  end
end

-- The revision that this one replaces must be the one that its author saw.
local current = 0
if entry == '' then
  current = tonumber(redis.call('HGET', page, 'rev') or 0)
else
  if redis.call('HEXISTS', withdrawn, entry) == 1 then return {'gone'} end
  local stored = redis.call('HGET', entries, entry)
  if stored then current = cjson.decode(stored)['rev'] end
end
if current ~= tonumber(ARGV[18]) then return {'rev', tostring(current)} end
if kind == 'entry.put' and current == 0 then
  if redis.call('HGET', page, 'state') == 'ended' then return {'ended'} end
  local count = redis.call('HLEN', entries) + redis.call('HLEN', withdrawn)
  if count >= tonumber(ARGV[13]) then return {'full', tostring(count)} end
end

-- Order, number and identity come from the log's own last event: there is no second key that could be lost apart from it.
-- Where an event after it was deleted (XDEL), the state is ahead of the log. Numbers that went on from there would hide the
-- deleted event from readers that had not read it: the log begins anew, with another epoch.
local n, prev = 0, '0-0.0000000000000000'
local last = last_event(log)
if last and before(last_deleted(log), last[1]) then
  local field = fields(last)
  n, epoch, prev = tonumber(field.n), field.e, last[1] .. '.' .. field.u
end
n = n + 1
local id = redis.call('XADD', log, 'MAXLEN', '~', ARGV[12], '*',
  'e', epoch, 'n', n, 'p', prev, 'u', nonce, 't', kind, 's', shown_at, 'k', entry, 'd', data,
  'i', ARGV[14] == '' and '' or ARGV[14] .. ' ' .. ARGV[15], unpack(ARGV[21] == '' and {} or {'b', ARGV[21]}))
if ARGV[21] ~= '' and entry ~= '' then add_row(KEYS[10], entry, rev .. ' ' .. at .. ' ' .. ARGV[21]) end

if entry == '' then
  redis.call('HSET', page, 'json', state, 'rev', rev, 'state', ARGV[17])
elseif kind == 'entry.withdraw' then
  redis.call('HDEL', entries, entry)
  redis.call('ZREM', order, entry)
  redis.call('HSET', withdrawn, entry, state)
  redis.call('ZADD', gone, score, entry)
else
  redis.call('HSET', entries, entry, state)
  redis.call('ZADD', order, score, entry)
end
-- The coverage began with the oldest instant that it ever showed: an import is younger than what it brings.
local first_at, began_at = ARGV[19] ~= '' and ARGV[19] or shown_at, redis.call('HGET', page, 'began_at')
-- A stream that an earlier version began gets its id when its feed is first read: the id may be its address.
if not last and not began_at then redis.call('HSETNX', page, 'feed_id', ARGV[20]) end
if not began_at or first_at < began_at then redis.call('HSET', page, 'began_at', first_at) end
-- The page says when it was last updated: the newest instant that it shows, or what its publisher said.
if entry == '' or shown_at > (redis.call('HGET', page, 'updated_at') or '') then
  redis.call('HSET', page, 'updated_at', shown_at)
end
redis.call('ZADD', streams, at, ARGV[11])

if ARGV[14] ~= '' then
  redis.call('SET', idem, cjson.encode({ARGV[15], id, tostring(n), epoch, nonce, entry, tostring(rev)}), 'EX', ARGV[16])
end
return {'stored', id, tostring(n), epoch, nonce, entry, tostring(rev)}
