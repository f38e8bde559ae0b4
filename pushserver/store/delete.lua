-- A stream leaves the store, and its mark comes, or neither happens.
--
-- KEYS  1 the mark  2 streams  3 page  4 log, then the other keys of the stream
-- ARGV  1 stream  2 instant  3 seconds for which the mark stands  4 '' or the newest change, in ms, of an ended stream:
--       one that goes on, or changed later, stays
-- Answers {'deleted', mark}, {'absent'} for no such stream, {'kept'} for one that stays. The mark is that of the first
-- deletion: a worker of an earlier version may have appended since, and that goes, too.
local mark = redis.call('GET', KEYS[1])
if ARGV[4] ~= '' then
  local changed = redis.call('ZSCORE', KEYS[2], ARGV[1])
  local state = redis.call('HGET', KEYS[3], 'state')
  if state ~= 'ended' or not changed or tonumber(changed) > tonumber(ARGV[4]) then return {'kept'} end
end

local last = last_event(KEYS[4])
local epoch = last and fields(last).e or '-'
local removed = redis.call('UNLINK', unpack(KEYS, 3)) + redis.call('ZREM', KEYS[2], ARGV[1])
if removed == 0 and not mark then return {'absent'} end
if not mark then
  mark = ARGV[2] .. ' ' .. epoch
  redis.call('SET', KEYS[1], mark, 'EX', ARGV[3])
end
return {'deleted', mark}
