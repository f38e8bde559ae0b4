-- The id of a stream's feeds, which is stored now where there is none.
--
-- KEYS  1 page  2 the mark of a deletion
-- ARGV  1 id
-- Answers {'new' | 'stored', id}, {'deleted', mark}.
local deletion = redis.call('GET', KEYS[2])
if deletion then return {'deleted', deletion} end
local is_new = redis.call('HSETNX', KEYS[1], 'feed_id', ARGV[1])
return {is_new == 1 and 'new' or 'stored', redis.call('HGET', KEYS[1], 'feed_id')}
