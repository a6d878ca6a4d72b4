"""The coordination of replicas over one Redis: leases by its clock, terms that never repeat, claims in bitmaps.

Everything here may be lost with Redis and is made anew; desired state is in ``gateway.control.redis_store``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from gateway.control.coordination import CLAIM_BITS, ReplicaView, new_replica_name
from gateway.control.redis_line import RedisLine, Script
from gateway.control.store import Fence
from gateway.errors import Fenced, StoreUnavailable

__all__ = ["RedisCoordination"]

SCOPE_DAYS = 30
"""Claims, counters and evidence of a scope that nobody forgot end by themselves this long after they were used last."""
_PAGE_CLAIMS = 2000

_NOW = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""
"""Redis's own clock in milliseconds: the replicas' may differ."""

ANNOUNCE = Script(
    _NOW
    + """
local stood = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '0') > now
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f', now) .. '\\n' .. ARGV[2])
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  redis.call('ZREM', KEYS[1], gone)
  redis.call('HDEL', KEYS[2], gone)
end
local views = redis.call('HGETALL', KEYS[2])
for number = 1, #views, 2 do
  local told, view = string.match(views[number + 1], '^(%d+)(.*)$')
  if told and tonumber(told) > now then
    redis.call('ZADD', KEYS[1], now + ARGV[3], views[number])
    redis.call('HSET', KEYS[2], views[number], string.format('%.0f', now) .. view)
  end
end
redis.call('PUBLISH', ARGV[4], ARGV[1])
return stood and 1 or 0
"""
)
"""Renews a replica's lease and takes out those that have ended. One told later than now is from before Redis's clock
went back, and begins anew: nobody dead lives on for as long as it went back. KEYS: leases (sorted set, replica by its
end), views (hash). ARGV: replica, view as JSON, lease in milliseconds, channel. Returns 1 if its lease had not ended.
"""

REPLICAS = Script(
    _NOW
    + """
local found = {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now), '+inf')) do
  found[#found + 1] = redis.call('HGET', KEYS[2], name)
end
return found
"""
)
"""KEYS: leases, views. Returns the views of the living, each after the time of its telling and a line feed."""

LEAVE = Script("""
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('PUBLISH', ARGV[2], ARGV[1])
""")
"""Ends a replica's lease. KEYS: leases, views. ARGV: replica, channel."""

LEAD = Script(
    _NOW
    + """
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return redis.call('GET', KEYS[2])
end
if holder then
  if redis.call('PTTL', KEYS[1]) > tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
  return false
end
local term = math.max(now, tonumber(redis.call('GET', KEYS[2]) or '0') + 1)
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[2], string.format('%.0f', term))
return redis.call('GET', KEYS[2])
"""
)
"""Takes or renews a post. A new term is greater than the last, and at least the time in milliseconds: so it is also
greater than any that was given before Redis lost its data. A lease that ends later than one that begins now is from
before Redis's clock went back, and is cut. KEYS: holder, term. ARGV: replica, lease in milliseconds. Returns the term;
nil when another holds the post."""

RESIGN = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
""")
"""KEYS: holder. ARGV: replica."""

CLAIM = Script("""
local fresh = {}
for number = 2, #ARGV do fresh[number - 1] = 1 - redis.call('SETBIT', KEYS[1], ARGV[number], 1) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return fresh
""")
"""KEYS: the scope's bitmap. ARGV: seconds until it ends unused; bits. Returns 1 for each that was not set."""

PUBLISH = Script("""
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[1])
""")
"""KEYS: the scope's counters (hash, replica to JSON). ARGV: seconds until it ends unused; replica; counters."""

KEEP = Script("""
if ARGV[3] ~= '' and (redis.call('GET', KEYS[2]) or '') ~= ARGV[3] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[1])
return 1
""")
"""KEYS: what is kept, the term of the fence's post. ARGV: seconds until it ends unused; the value; the fence's term,
'' for none. Returns 0 when the term is not the present one."""


APPEND = Script("""
for number = 3, #ARGV do redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'v', ARGV[number]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
""")
"""KEYS: the scope's log (stream). ARGV: seconds until it ends unused; how long it may get; values."""

FOLLOW = Script("""
local found = {}
if ARGV[1] == '' then
  local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
  return {last[1] and last[1][1] or '0-0'}
end
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])) do
  found[1] = entry[1]
  found[#found + 1] = entry[2][2]
end
return found
""")
"""KEYS: the scope's log. ARGV: place, '' for the end; how many. Returns the place after, and the values; nothing when
there is nothing more."""

_LOG_LENGTH, _LOG_PAGE = 200_000, 1000


class RedisCoordination:
    """``lease_s``: how long a replica, or a leader, that is not heard of counts as living."""

    def __init__(self, line: RedisLine, *, lease_s: float = 3.0, replica: str | None = None) -> None:
        self._line = line
        self._lease_ms = round(lease_s * 1000)
        self._replica = replica or new_replica_name()
        self._posts: set[str] = set()

    def __repr__(self) -> str:
        return f"<RedisCoordination {self._replica} {self._line.address} [{len(self._posts)} posts]>"

    @property
    def replica(self) -> str:
        return self._replica

    def _leases(self) -> list[str]:
        return [self._line.key("leases"), self._line.key("views")]

    async def announce(self, view: ReplicaView) -> bool:
        body = json.dumps(view.to_json())
        return bool(await self._line.run(ANNOUNCE, self._leases(), [self._replica, body, self._lease_ms, self.channel]))

    @property
    def channel(self) -> str:
        """Where each announcement is told."""
        return self._line.key("announced")

    async def replicas(self) -> Sequence[ReplicaView]:
        rows = await self._line.run(REPLICAS, self._leases())
        return sorted((_view(row) for row in rows if row is not None), key=lambda view: view.replica)

    async def lead(self, post: str) -> int | None:
        keys = [self._line.key("leader", post), self._line.key("term", post)]
        self._posts.add(post)
        term = await self._line.run(LEAD, keys, [self._replica, self._lease_ms])
        if term is None:
            self._posts.discard(post)
        return None if term is None else int(term)

    async def leader(self, post: str) -> str | None:
        holder = await self._line.command("GET", self._line.key("leader", post))
        return None if holder is None else str(holder.decode("ascii"))

    async def resign(self, post: str) -> None:
        await self._line.run(RESIGN, [self._line.key("leader", post)], [self._replica])
        self._posts.discard(post)

    async def claim(self, scope: str, places: Sequence[int]) -> Sequence[bool]:
        fresh: list[bool] = []
        for start in range(0, len(places), _PAGE_CLAIMS):
            bits = [place >> (32 - CLAIM_BITS) for place in places[start : start + _PAGE_CLAIMS]]
            answer = await self._line.run(CLAIM, [self._line.key("claims", scope)], [_SCOPE_S, *bits])
            fresh += [bool(bit) for bit in answer]
        return fresh

    async def publish(self, scope: str, counters: Mapping[str, int]) -> None:
        body = json.dumps(dict(counters))
        await self._line.run(PUBLISH, [self._line.key("counters", scope)], [_SCOPE_S, self._replica, body])

    async def gather(self, scope: str) -> Mapping[str, int]:
        rows = await self._line.command("HVALS", self._line.key("counters", scope))
        total: Counter[str] = Counter()
        for row in rows:
            total.update(_counters(scope, row))
        return dict(total)

    async def keep(self, scope: str, value: bytes, fence: Fence | None = None) -> None:
        post = self._line.key("term", fence.post if fence else "none")
        term = "" if fence is None else fence.term
        if not await self._line.run(KEEP, [self._line.key("kept", scope), post], [_SCOPE_S, value, term]):
            what = f"term {term} of {fence.post!r}" if fence else "the term"
            raise Fenced(f"{what} has ended: what it says of {scope!r} is not kept")

    async def kept(self, scope: str) -> bytes | None:
        found = await self._line.command("GET", self._line.key("kept", scope))
        return None if found is None else bytes(found)

    async def append(self, scope: str, values: Sequence[bytes]) -> None:
        for start in range(0, len(values), _LOG_PAGE):
            page = values[start : start + _LOG_PAGE]
            await self._line.run(APPEND, [self._line.key("log", scope)], [_SCOPE_S, _LOG_LENGTH, *page])

    async def following(self, scope: str, after: str) -> tuple[str, Sequence[bytes]]:
        found = await self._line.run(FOLLOW, [self._line.key("log", scope)], [after, _LOG_PAGE])
        return (bytes(found[0]).decode("ascii"), [bytes(value) for value in found[1:]]) if found else (after, ())

    async def forget(self, scope: str) -> None:
        kinds = ("claims", "counters", "kept", "log")
        await self._line.command("DEL", *(self._line.key(kind, scope) for kind in kinds))

    async def close(self) -> None:
        """The line is another's to close. When Redis cannot be reached, the leases end by themselves."""
        with suppress(StoreUnavailable):
            for post in list(self._posts):
                await self.resign(post)
            await self._line.run(LEAVE, self._leases(), [self._replica, self.channel])


_SCOPE_S = SCOPE_DAYS * 86400


def _view(row: bytes) -> ReplicaView:
    told_at, _, body = row.partition(b"\n")
    try:
        return replace(ReplicaView.from_json(json.loads(body)), told_at=int(told_at) / 1000)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreUnavailable(f"what a replica said of itself cannot be read: {row!r:.200}: {error!r}") from error


def _counters(scope: str, row: bytes) -> dict[str, int]:
    try:
        return {str(name): int(count) for name, count in json.loads(row).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreUnavailable(f"the counters of {scope!r} cannot be read: {row!r:.200}: {error!r}") from error
