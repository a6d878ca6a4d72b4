"""What Redis does in one go for the store: Lua, with its keys and arguments.

Layout, every key under the braced prefix (one cluster slot):

``state``            hash: ``identity`` (who this store is, made once), ``revision``, ``head`` (digest of the newest
                     audit record), ``origin`` and ``origin_head`` (the record that the kept chain follows: 0 and
                     zeros, or where a replica's state was put back), ``schema``
``living``           hash, ``kind/name`` to ``revision LF written_at LF body``
``order``            sorted set, ``kind/name`` by the revision that wrote it last, deletions too
``bodies``           hash, ``kind/name@revision`` to ``written_at LF`` and ``+body``, or ``-`` for a deletion; a body is
                     whole or, from schema 2 on, a difference to an earlier revision (``gateway.control.differences``)
``history:kind/name`` list of the document's revisions, oldest first
``audit``            list of records, the first follows ``origin``
``term:post``        the newest term of a post, made by the coordination
``changed``          channel: the revision of each commit
"""

from __future__ import annotations

from gateway.control.redis_line import Script

__all__ = ["AUDIT", "BEGIN", "COMMIT", "LOOK", "NEWEST", "PAST", "RESTORE", "SCHEMA", "SNAPSHOT"]

SCHEMA = 2

BEGIN = Script("""
if redis.call('HEXISTS', KEYS[1], 'identity') == 0 and ARGV[1] ~= '' then
  redis.call('HSET', KEYS[1], 'identity', ARGV[1], 'revision', '0', 'head', ARGV[2],
    'origin', '0', 'origin_head', ARGV[2], 'schema', '1')
end
return redis.call('HMGET', KEYS[1], 'identity', 'revision', 'schema')
""")
"""Makes an empty store, if there is none. KEYS: state. ARGV: identity ('' makes nothing), the first head.
Returns identity, revision, schema as they stand."""

NEWEST = Script("""
return redis.call('HMGET', KEYS[1], 'identity', 'revision')
""")
"""KEYS: state. Returns identity and revision."""

LOOK = Script("""
local found = redis.call('HMGET', KEYS[1], 'identity', 'revision', 'head')
found[4] = redis.call('GET', KEYS[3])
for number, field in ipairs(ARGV) do
  found[3 + 2 * number] = redis.call('HGET', KEYS[2], field)
  found[4 + 2 * number] = redis.call('LLEN', KEYS[3 + number])
end
return found
""")
"""What a commit is judged by. KEYS: state, living, the term of the fence's post (any key without a fence), then the
history of each document. ARGV: the documents, ``kind/name``. Returns identity, revision, head, term, then two for each
document: as in ``living``, and how many revisions it has had."""

SNAPSHOT = Script("""
local found = redis.call('HMGET', KEYS[1], 'identity', 'revision', 'head', 'origin', 'origin_head')
local since, chain = tonumber(ARGV[2]), 'same'
if not found[1] or found[1] ~= ARGV[1] or (since < tonumber(found[4]) and since <= tonumber(found[2])) then
  since, chain = 0, 'whole'
elseif since > tonumber(found[2]) then
  chain = 'older'
elseif since > tonumber(found[4]) then
  local record = redis.call('LINDEX', KEYS[4], since - tonumber(found[4]) - 1)
  if not record or not string.find(record, ARGV[3], 1, true) then chain = 'forked' end
elseif since == tonumber(found[4]) and ARGV[3] ~= found[5] then
  since, chain = 0, 'whole'
end
local answer = {found[1], found[2], found[3], found[4], found[5], chain}
if found[1] and (chain == 'same' or chain == 'whole') then
  for _, field in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. string.format('%.0f', since), '+inf')) do
    answer[#answer + 1] = field
    answer[#answer + 1] = redis.call('HGET', KEYS[2], field)
  end
end
return answer
""")
"""What has changed since a known state. KEYS: state, living, order, audit. ARGV: identity, revision and head of the
known state. Returns identity, revision, head, origin, origin head, then ``older`` or ``forked`` when the known state
is not in this store's past, and nothing more; else ``same`` or ``whole`` (all that is living, since the known state is
another store's, or not later than the origin, where a replica's state was put back), then pairs of ``kind/name`` and
document (nil: deleted)."""

AUDIT = Script("""
local origin = tonumber(redis.call('HGET', KEYS[1], 'origin') or '0')
local first = math.max(0, tonumber(ARGV[1]) - origin)
return redis.call('LRANGE', KEYS[2], first, first + tonumber(ARGV[2]) - 1)
""")
"""A page of the audit. KEYS: state, audit. ARGV: the sequence that it follows, how many. Returns records."""

PAST = Script("""
local found, taken = {}, {}
for _, asked in ipairs(ARGV) do
  local field = asked
  while field and not taken[field] do
    local kept = redis.call('HGET', KEYS[1], field)
    taken[field] = true
    found[#found + 1] = field
    found[#found + 1] = kept
    local base = kept and string.match(kept, '^[^\\n]*\\n%+%[(%d+),')
    field = base and string.gsub(field, '%d+$', base)
  end
end
return found
""")
"""What is kept of revisions, and of those that they are differences to. KEYS: bodies. ARGV: ``kind/name@revision``.
Returns pairs of such a name and what is there (nil: nothing)."""

_WRITE = """
local function write(first)
  local revision, change = ARGV[4], first
  for number = 7, #KEYS do
    local field, body, kept = ARGV[change], ARGV[change + 1], ARGV[change + 2]
    if kept == '' then kept = body end
    redis.call('HSET', KEYS[4], field .. '@' .. revision, ARGV[5] .. '\\n' .. kept)
    redis.call('RPUSH', KEYS[number], revision)
    redis.call('ZADD', KEYS[3], revision, field)
    if string.sub(body, 1, 1) == '+' then
      redis.call('HSET', KEYS[2], field, revision .. '\\n' .. ARGV[5] .. '\\n' .. string.sub(body, 2))
    else
      redis.call('HDEL', KEYS[2], field)
    end
    change = change + 3
  end
  redis.call('RPUSH', KEYS[5], ARGV[7])
  redis.call('HSET', KEYS[1], 'revision', revision, 'head', ARGV[6], 'schema', '2')
  redis.call('PUBLISH', ARGV[8], revision)
end
"""
"""Shared by what writes. KEYS: state, living, order, bodies, audit, a sixth of the script's own, then the history of
each document written. ARGV: identity, revision and head that were judged by; the new revision; written_at; the new
head; the audit record; the channel; two of the script's own; from ``first`` on three for each document: ``kind/name``;
``+body`` or ``-``; and what ``bodies`` keeps of it, '' where that is the same."""

COMMIT = Script(
    _WRITE
    + """
if ARGV[9] ~= '' then
  local term = redis.call('GET', KEYS[6]) or ''
  if term ~= ARGV[9] then return {'fenced', term} end
end
local found = redis.call('HMGET', KEYS[1], 'identity', 'revision', 'head')
if found[1] ~= ARGV[1] then return {'other', found[1] or ''} end
if found[2] ~= ARGV[2] or found[3] ~= ARGV[3] then return {'moved', found[2]} end
write(11)
return {'done', ARGV[4]}
"""
)
"""Writes if nothing has changed since it was judged. KEYS[6]: the term of the fence's post. ARGV[9]: the fence's
term, '' for none. Returns ``done``; or ``fenced`` and the term that stands, ``other`` and the identity, ``moved`` and
the revision: then nothing was written."""

RESTORE = Script(
    _WRITE
    + """
local found = redis.call('HMGET', KEYS[1], 'identity', 'revision', 'head')
if (found[1] or '') ~= ARGV[1] or (found[2] or '') ~= ARGV[2] or (found[3] or '') ~= ARGV[3] then
  return {'moved', found[2] or '0'}
end
if redis.call('EXISTS', KEYS[5]) == 1 then redis.call('RENAME', KEYS[5], KEYS[6]) end
local identity, origin, head = string.match(ARGV[9], '^(%S+) (%d+) (%x+)$')
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('HSET', KEYS[1], 'identity', identity, 'origin', origin, 'origin_head', head, 'schema', '1')
write(11)
return {'done', ARGV[4]}
"""
)
"""Puts a replica's state in the place of what stands. KEYS[6]: where the audit that stood is kept. ARGV[1..3] are ''
for an empty store; ARGV[9]: identity, revision and head of the state that is put back, with a space between.
Returns ``done``, or ``moved`` and the revision."""
