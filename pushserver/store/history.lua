-- The history of an entry before those rows that it has, from an export.
--
-- KEYS  1 histories  2 the mark of a deletion
-- ARGV  1 entry  2 rows, joined by line ends
-- Answers {'stored'}, {'known'} where its last row is there already, {'deleted', mark}.
local deletion = redis.call('GET', KEYS[2])
if deletion then return {'deleted', deletion} end
local rows = redis.call('HGET', KEYS[1], ARGV[1]) or ''
local last = string.match(ARGV[2], '[^\n]+$')
if string.find('\n' .. rows .. '\n', '\n' .. last .. '\n', 1, true) then return {'known'} end
redis.call('HSET', KEYS[1], ARGV[1], newest_rows(ARGV[2] .. (rows ~= '' and '\n' or '') .. rows))
return {'stored'}
