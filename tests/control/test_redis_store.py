"""What only a store that many replicas share must show; the contract of all stores is in ``test_stores``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, suppress
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import pytest
import uvloop

from gateway.clock import SystemClock
from gateway.control.audit import verify_store
from gateway.control.coordination import ReplicaView
from gateway.control.coordination_redis import RedisCoordination
from gateway.control.durability import durability_of
from gateway.control.last_state import KnownState, LastState
from gateway.control.redis_line import RedisAddress, RedisLine
from gateway.control.redis_store import RedisStore
from gateway.control.store import AuditEntry, Change, Document, DocumentKey, Fence
from gateway.control.store_recovery import adopt, restore_from_replica
from gateway.errors import Conflict, Fenced, StaleRevision, StoreRefused, StoreUnavailable
from loadtests.cable import Cable
from loadtests.redis_server import RedisServer
from tests.listening import listening

ENTRY = AuditEntry("olga", "route-update", "route/digits")
ROUTE = DocumentKey("route", "digits")
CLOCK = SystemClock()
LONG_S = 600.0
"""A lease that no pause of the machine outlasts."""


def line_of(server: RedisServer, prefix: str, *, port: int | None = None, deadline_s: float = 60.0) -> RedisLine:
    return RedisLine(RedisAddress(port=port or server.port), prefix=prefix, deadline_s=deadline_s)


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid4().hex}"


@pytest.fixture
async def store(redis_server: RedisServer, prefix: str, tmp_path: Path) -> AsyncIterator[RedisStore]:
    made = await RedisStore(line_of(redis_server, prefix), last=LastState(tmp_path / "last-state")).open()
    yield made
    await made.close()


async def put(store: RedisStore, body: dict[str, Any] | None, expected: int, key: DocumentKey = ROUTE) -> int:
    return await store.commit([Change(key, body, expected)], ENTRY)


async def empty(store: RedisStore) -> None:
    """As a Redis without its data: nothing is left under the prefix."""
    keys = await store.line.command("KEYS", store.line.key("*"))
    await store.line.command("DEL", *keys)


async def all_refuse(store: RedisStore, why: str) -> None:
    for call in (store.snapshot(), store.read(ROUTE), put(store, {"n": 9}, 0), store.history(ROUTE), store.audit()):
        with pytest.raises(StoreRefused, match=why):
            await call
    async with aclosing(store.watch(0)) as watch:  # type: ignore[type-var]
        with pytest.raises(StoreRefused, match=why):
            await anext(watch)


# What is not believed


async def test_a_redis_that_was_emptied_is_not_believed_and_says_what_to_do(store: RedisStore) -> None:
    """Every call refuses, and nothing is written into it; the message names both ways out."""
    await put(store, {"n": 1}, 0)
    await store.snapshot()
    await empty(store)
    await all_refuse(store, r"empty, and held revision 1.*restore-from-replica.*adopt")
    assert await store.line.command("KEYS", store.line.key("*")) == []


async def test_a_redis_of_another_store_is_not_believed(store: RedisStore) -> None:
    """Its identity was made by somebody else, however far it has come."""
    await put(store, {"n": 1}, 0)
    await store.snapshot()
    await store.line.command("HSET", store.line.key("state"), "identity", "f" * 32, "revision", 99)
    await all_refuse(store, "another one")


async def test_a_redis_that_went_back_is_not_believed_until_it_is_as_far_again(store: RedisStore) -> None:
    """An older copy was put back; when the right one comes, it is believed by itself."""
    for number in range(3):
        await put(store, {"n": number}, number)
    await store.snapshot()
    state = store.line.key("state")
    await store.line.command("HSET", state, "revision", 2)
    await all_refuse(store, "went back to revision 2 from 3")
    await store.line.command("HSET", state, "revision", 3)
    assert (await store.snapshot()).revision == 3
    assert store.refusal is None


async def test_a_redis_whose_past_is_another_is_not_believed_though_it_has_come_further(store: RedisStore) -> None:
    """It went back and was written to by somebody who had not seen more: as far again, by another way."""
    for number in range(3):
        await put(store, {"n": number}, number)
    await store.snapshot()
    other = (await store.line.command("LINDEX", store.line.key("audit"), 0)).replace(b"olga", b"mole")
    await store.line.command("LSET", store.line.key("audit"), 2, other)
    with pytest.raises(StoreRefused, match="past is another one"):
        await store.snapshot()
    with pytest.raises(StoreRefused, match="past is another one"):
        await put(store, {"n": 9}, 3)


async def test_what_is_known_outlives_the_process(store: RedisStore, redis_server: RedisServer, tmp_path: Path) -> None:
    """The next process of the home reads the last state, does not make a new store of an empty Redis, and refuses."""
    await put(store, {"n": 1}, 0)
    await store.snapshot()
    await empty(store)
    again = RedisStore(line_of(redis_server, store.line.prefix), last=LastState(tmp_path / "last-state"))
    found = again.remember()
    assert found is not None
    assert found.snapshot().documents[ROUTE].body == {"n": 1}
    with pytest.raises(StoreRefused, match="empty"):
        await again.open()
    assert await store.line.command("KEYS", store.line.key("*")) == []
    await again.close()


# What an operator decides


async def test_a_replica_puts_its_state_back_and_others_believe_the_store_again(
    store: RedisStore, redis_server: RedisServer
) -> None:
    """As a revision later than all that was seen; the audit goes on from where the replica knew it, and verifies."""
    other = await RedisStore(line_of(redis_server, store.line.prefix)).open()
    for number in range(3):
        await put(store, {"n": number}, number)
    await put(store, {"m": 1}, 0, DocumentKey("model", "digits"))
    for each in (store, other):
        await each.snapshot()
    await empty(store)
    with pytest.raises(StoreRefused):
        await other.snapshot()
    coordination = RedisCoordination(store.line)
    done = await restore_from_replica(store, coordination, actor="olga", reason="it was emptied", clock=CLOCK)
    assert done == 5
    for each in (store, other):
        snapshot = await each.snapshot()
        assert (snapshot.revision, snapshot.documents[ROUTE].body) == (5, {"n": 2})
        assert len(snapshot.documents) == 2
    (record,) = await store.audit()
    assert (record.entry.action, record.sequence, record.entry.reason) == ("store-restore", 5, "it was emptied")
    assert await put(other, {"n": 7}, 5) == 6
    found = await verify_store(store)
    assert (found.fault, found.records) == (None, 6)
    await other.close()


async def test_a_store_that_went_another_way_is_written_over_and_its_audit_kept_aside(
    store: RedisStore, redis_server: RedisServer, tmp_path: Path
) -> None:
    """What the others wrote there is gone from the state, not from the past; deleted documents stay deleted."""
    await put(store, {"n": 1}, 0)
    await store.snapshot()
    await empty(store)
    stranger = await RedisStore(line_of(redis_server, store.line.prefix)).open()
    for number in range(4):
        await put(stranger, {"stranger": number}, number, DocumentKey("route", "theirs"))
    with pytest.raises(StoreRefused, match="another one"):
        await store.snapshot()
    coordination = RedisCoordination(store.line)
    assert await restore_from_replica(store, coordination, actor="olga", reason="", clock=CLOCK) == 5
    snapshot = await store.snapshot()
    assert [str(key) for key in snapshot.documents] == ["route/digits"]
    assert (await verify_store(store)).fault is None
    assert await store.line.command("LLEN", store.line.key("audit", "before", "5")) == 4
    rows = await store.history(DocumentKey("route", "theirs"))
    assert [(row.revision, row.body is None) for row in rows][:2] == [(5, True), (4, False)]
    with pytest.raises(StoreRefused):
        await stranger.snapshot()
    await stranger.close()


async def test_the_state_of_a_replica_that_is_behind_is_put_back_by_force_alone(store: RedisStore) -> None:
    """A living replica has seen more: what came after would be lost."""
    await put(store, {"n": 1}, 0)
    await store.snapshot()
    await empty(store)
    ahead = RedisCoordination(store.line, lease_s=LONG_S)
    await ahead.announce(ReplicaView(ahead.replica, 7))
    coordination = RedisCoordination(store.line)
    with pytest.raises(Conflict, match=rf"{ahead.replica} has seen revision 7, this one 1"):
        await restore_from_replica(store, coordination, actor="olga", reason="", clock=CLOCK)
    done = await restore_from_replica(store, coordination, actor="olga", reason="", clock=CLOCK, force=True)
    assert done == 8


async def test_who_was_ahead_of_what_was_put_back_by_force_takes_it_too(
    store: RedisStore, redis_server: RedisServer
) -> None:
    """The operator's word holds for all replicas of the store: none has to be told one by one."""
    await put(store, {"n": 1}, 0)
    await store.snapshot()
    ahead = await RedisStore(line_of(redis_server, store.line.prefix)).open()
    assert await put(ahead, {"n": 2}, 1) == 2
    await ahead.snapshot()
    coordination = RedisCoordination(store.line)
    await empty(store)
    await RedisCoordination(store.line, lease_s=LONG_S).announce(ReplicaView("ahead", 2))
    assert await restore_from_replica(store, coordination, actor="olga", reason="", clock=CLOCK, force=True) == 3
    for each in (store, ahead):
        snapshot = await each.snapshot()
        assert (snapshot.revision, snapshot.documents[ROUTE].body) == (3, {"n": 1})
        assert (await verify_store(each)).fault is None
    await ahead.close()


async def test_a_store_is_adopted_as_it_is(store: RedisStore, tmp_path: Path) -> None:
    """The replica forgets what it knew, also in its home; the record says what was left behind."""
    for number in range(3):
        await put(store, {"n": number}, number)
    await store.snapshot()
    await empty(store)
    await adopt(store, actor="olga", reason="a fresh start")
    snapshot = await store.snapshot()
    assert (snapshot.revision, dict(snapshot.documents)) == (1, {})
    (record,) = await store.audit()
    assert (record.entry.action, (record.entry.detail or {})["known"]["revision"]) == ("store-adopt", 3)
    kept = LastState(tmp_path / "last-state").read()
    assert kept is not None
    assert (kept.revision, dict(kept.documents)) == (1, {})


async def test_nothing_is_decided_about_a_store_that_is_believed(store: RedisStore) -> None:
    """Neither is a way to turn routes back by accident."""
    await put(store, {"n": 1}, 0)
    with pytest.raises(Conflict, match="nothing to decide"):
        await adopt(store, actor="olga", reason="")
    with pytest.raises(Conflict, match="nothing to decide"):
        await restore_from_replica(store, RedisCoordination(store.line), actor="olga", reason="", clock=CLOCK)


# Many at once


async def test_writers_of_different_documents_all_get_through(store: RedisStore, redis_server: RedisServer) -> None:
    """Each commit is judged again when another was faster: twenty at once from two replicas, twenty revisions."""
    other = await RedisStore(line_of(redis_server, store.line.prefix)).open()
    writes = [put((store, other)[n % 2], {"n": n}, 0, DocumentKey("model", f"m{n}")) for n in range(20)]
    assert sorted(await asyncio.gather(*writes)) == list(range(1, 21))
    assert len((await store.snapshot()).documents) == 20
    assert (await verify_store(other)).fault is None
    await other.close()


async def test_a_watcher_catches_up_after_its_messages_were_lost(store: RedisStore, redis_server: RedisServer) -> None:
    """Its subscription is cut by the server: it says so, and a new watch begins with the newest revision."""
    other = await RedisStore(line_of(redis_server, store.line.prefix), poll_s=0.05).open()
    async with aclosing(other.watch(0)) as watch:  # type: ignore[type-var]
        waiting = asyncio.ensure_future(anext(watch))
        await put(store, {"n": 1}, 0)
        assert await asyncio.wait_for(waiting, 60) == 1
        await store.line.command("CLIENT", "KILL", "TYPE", "pubsub")
        await put(store, {"n": 2}, 1)
        try:
            newest = await asyncio.wait_for(anext(watch), 60)
        except StoreUnavailable:
            async with aclosing(other.watch(1)) as again:  # type: ignore[type-var]
                newest = await asyncio.wait_for(anext(again), 60)
        assert newest == 2
    await other.close()


async def test_a_commit_whose_message_never_comes_is_found_by_looking(store: RedisStore) -> None:
    """Written behind the channel's back: the watcher looks at the revision now and then."""
    quick = RedisStore(store.line, poll_s=0.02)
    await quick.open()
    async with aclosing(quick.watch(0)) as watch:  # type: ignore[type-var]
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        await store.line.command("HSET", store.line.key("state"), "revision", 1)
        assert await asyncio.wait_for(waiting, 60) == 1


async def test_a_subscription_over_which_nothing_comes_is_made_anew(store: RedisStore) -> None:
    """A network that forgot the connection says so to nobody: a change that was found by looking alone is the sign."""
    quick = RedisStore(store.line, poll_s=0.02)
    await quick.open()
    channel = store.line.key("changed")

    async def subscription() -> bytes | None:
        rows = (await store.line.command("CLIENT", "LIST", "TYPE", "pubsub")).splitlines()
        numbers = await store.line.command("PUBSUB", "NUMSUB", channel)
        return rows[0].split()[0] if len(rows) == 1 and numbers[1] == 1 else None

    async with aclosing(quick.watch(0)) as watch:  # type: ignore[type-var]
        waiting = asyncio.ensure_future(anext(watch))
        old = await eventually(subscription)
        await store.line.command("HSET", store.line.key("state"), "revision", 1)
        assert await asyncio.wait_for(waiting, 60) == 1
        waiting = asyncio.ensure_future(anext(watch))

        async def anew() -> bool:
            return await subscription() not in (None, old)

        await eventually(anew)
        waiting.cancel()
        await asyncio.wait({waiting})


# Leaders


async def eventually(ask: Callable[[], Awaitable[Any]]) -> Any:
    """What is asked for, once it is there: Redis's clock is no test's to move."""
    async with asyncio.timeout(60):
        while not (found := await ask()):  # noqa: ASYNC110 - another process has no event to wait for
            await asyncio.sleep(0.01)
        return found


async def found_at(store: RedisStore) -> Document | None:
    """The route's document; None also where the store has not answered in time."""
    with suppress(StoreUnavailable):
        return await store.read(ROUTE)
    return None


async def lead_when_free(coordination: RedisCoordination, post: str) -> int:
    return int(await eventually(lambda: coordination.lead(post)))


async def test_a_leader_that_slept_past_its_lease_cannot_write_and_another_can(store: RedisStore) -> None:
    """It still believes that it leads; its step names its term, which has ended. The other's step happens once."""
    sleeper, other = (RedisCoordination(store.line, lease_s=LONG_S) for _ in range(2))
    old = await sleeper.lead("rollouts")
    assert old is not None
    assert await other.lead("rollouts") is None
    await store.line.command("PEXPIRE", store.line.key("leader", "rollouts"), 50)
    new = await lead_when_free(other, "rollouts")
    assert new > old
    step = [Change(ROUTE, {"weight": 10}, 0)]
    with pytest.raises(Fenced, match=f"term {old}"):
        await store.commit(step, ENTRY, fence=Fence("rollouts", old))
    with pytest.raises(Fenced):
        await sleeper.keep("r", b"evidence", Fence("rollouts", old))
    assert await store.commit(step, ENTRY, fence=Fence("rollouts", new)) == 1
    with pytest.raises(StaleRevision):
        await store.commit(step, ENTRY, fence=Fence("rollouts", new))
    assert await sleeper.leader("rollouts") in (None, other.replica)


async def test_a_term_is_never_given_twice_not_even_after_redis_lost_its_data(store: RedisStore) -> None:
    """Each is at least the time in milliseconds."""
    coordination = RedisCoordination(store.line)
    old = await coordination.lead("rollouts")
    await empty(store)
    new = await lead_when_free(RedisCoordination(store.line), "rollouts")
    assert old is not None
    assert new > old


async def test_a_leader_that_ends_gives_its_post_up_at_once(store: RedisStore) -> None:
    """And is no longer among the replicas; nobody waits for its lease."""
    first, second = (RedisCoordination(store.line, lease_s=LONG_S) for _ in range(2))
    for each in (first, second):
        await each.announce(ReplicaView(each.replica, 1))
    assert await first.lead("rollouts") is not None
    await first.close()
    assert [view.replica for view in await second.replicas()] == [second.replica]
    assert await second.lead("rollouts") is not None


async def test_a_replica_that_is_not_heard_of_is_gone_after_its_lease(store: RedisStore) -> None:
    """By Redis's clock, whatever its own says; heard again, it is back."""
    quiet = RedisCoordination(store.line, lease_s=0.05)
    await quiet.announce(ReplicaView(quiet.replica, 1))
    watcher = RedisCoordination(store.line)

    async def gone() -> bool:
        return not await watcher.replicas()

    await eventually(gone)
    again = RedisCoordination(store.line, lease_s=LONG_S, replica=quiet.replica)
    await again.announce(ReplicaView(quiet.replica, 2))
    assert [view.revision for view in await watcher.replicas()] == [2]


async def test_a_key_is_claimed_by_one_replica_and_sums_are_over_all(store: RedisStore) -> None:
    """Two replicas claim the same thousand places at once: each place once. Counters of one that ended stay."""
    first, second = (RedisCoordination(store.line) for _ in range(2))
    places = [number << 20 for number in range(1000)]
    claimed = await asyncio.gather(first.claim("r", places), second.claim("r", places))
    assert all(a + b == 1 for a, b in zip(*claimed, strict=True))
    await first.publish("r", {"3 units": 5})
    await second.publish("r", {"3 units": 2, "4 units": 1})
    await first.close()
    assert dict(await second.gather("r")) == {"3 units": 7, "4 units": 1}


async def test_redis_whose_clock_went_back_keeps_nobody_dead_among_the_living(store: RedisStore) -> None:
    """Leases that were told an hour later than now begin anew, once, whether of a replica or of a leader."""
    dead, living = (RedisCoordination(store.line, lease_s=0.1) for _ in range(2))
    await dead.announce(ReplicaView(dead.replica, 1))
    await dead.lead("rollouts")
    later = 3_600_000
    line, name = store.line, dead.replica
    view = await line.command("HGET", line.key("views"), name)
    told, _, body = view.partition(b"\n")
    await line.command("HSET", line.key("views"), name, b"%d\n%s" % (int(told) + later, body))
    await line.command("ZINCRBY", line.key("leases"), later, name)
    await line.command("PEXPIRE", line.key("leader", "rollouts"), later)

    async def alone() -> bool:
        await living.announce(ReplicaView(living.replica, 1))
        return [view.replica for view in await living.replicas()] == [living.replica]

    await eventually(alone)
    assert await lead_when_free(living, "rollouts") > 0


async def test_a_replica_is_told_when_its_lease_had_ended(store: RedisStore) -> None:
    """With Redis away all leases end; the first to come back learns that the others are only unheard."""
    replica = RedisCoordination(store.line, lease_s=LONG_S)
    assert not await replica.announce(ReplicaView(replica.replica, 1))
    assert await replica.announce(ReplicaView(replica.replica, 1))
    await store.line.command("ZADD", store.line.key("leases"), 1, replica.replica)
    assert not await replica.announce(ReplicaView(replica.replica, 1))


async def test_what_nobody_can_read_is_told_as_that(store: RedisStore) -> None:
    """A view or counters that were altered in Redis; a view that says less than this version does is fine."""
    coordination, line = RedisCoordination(store.line, lease_s=LONG_S), store.line
    await coordination.announce(ReplicaView("a", 1))
    await line.command("HSET", line.key("views"), coordination.replica, b'5\n{"replica": "old", "revision": 3}')
    assert [(view.replica, view.revision) for view in await coordination.replicas()] == [("old", 3)]
    for garbage in (b"", b"5\n[]", b"5\n{}", b"x\n{}", b"\xff\n\xff"):
        await line.command("HSET", line.key("views"), coordination.replica, garbage)
        with pytest.raises(StoreUnavailable, match="cannot be read"):
            await coordination.replicas()
    for garbage in (b"", b"[]", b'{"a": "many"}', b'{"a": null}'):
        await line.command("HSET", line.key("counters", "r"), "b", garbage)
        with pytest.raises(StoreUnavailable, match="counters of 'r'"):
            await coordination.gather("r")


# Redis itself


async def test_a_redis_that_does_not_answer_costs_its_deadline_and_no_more(tmp_path: Path, prefix: str) -> None:
    """Stopped by SIGSTOP it takes connections and answers nothing: told as such; continued, it works again."""
    with RedisServer(tmp_path / "redis") as server:
        patient = await RedisStore(line_of(server, prefix)).open()
        await put(patient, {"n": 1}, 0)
        store = RedisStore(line_of(server, prefix, deadline_s=0.2))
        server.pause()
        for call in (store.snapshot(), put(store, {"n": 2}, 1), RedisCoordination(store.line).lead("rollouts")):
            async with asyncio.timeout(60):
                with pytest.raises(StoreUnavailable, match="did not answer in time"):
                    await call
        server.resume()

        assert (await eventually(lambda: found_at(store))).body in ({"n": 1}, {"n": 2})
        document = await patient.read(ROUTE)  # what was sent in the pause is done by now, or never
        assert document is not None
        assert await put(patient, {"n": 3}, document.revision) == document.revision + 1
        assert (await verify_store(patient)).fault is None
        await store.close()
        await patient.close()


async def test_a_redis_that_is_not_there_says_where_it_was_looked_for(tmp_path: Path, prefix: str) -> None:
    """After a restart with its data, the same store goes on over new connections."""
    with RedisServer(tmp_path / "redis") as server:
        store = await RedisStore(line_of(server, prefix)).open()
        await put(store, {"n": 1}, 0)
        server.stop()
        with pytest.raises(StoreUnavailable, match=rf"redis://127.0.0.1:{server.port}/0.*is it running"):
            await store.snapshot()
        server.start()
        assert await put(store, {"n": 2}, 1) == 2
        server.kill()
        server.start()
        document = await store.read(ROUTE)
        assert document is not None
        assert document.body == {"n": 2}
        await store.close()


async def test_whether_an_acknowledged_change_is_durable_is_told(tmp_path: Path, prefix: str) -> None:
    """always, everysec, not at all; and unknown where the settings may not be asked."""
    with RedisServer(tmp_path / "redis", fsync="everysec") as server:
        line = line_of(server, prefix)
        found = await durability_of(line)
        assert (found.state, found.sound) == ("everysec", False)
        assert "appendfsync always" in found.detail
        await line.command("CONFIG", "SET", "appendfsync", "always")
        assert (await durability_of(line)).sound
        await line.command("CONFIG", "SET", "no-appendfsync-on-rewrite", "yes")
        assert (await durability_of(line)).state == "except-rewrites"
        await line.command("CONFIG", "SET", "no-appendfsync-on-rewrite", "no")
        await line.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        assert (await durability_of(line)).sound
        await line.command("CONFIG", "SET", "maxmemory", "100mb")
        assert (await durability_of(line)).state == "evicts"
        await line.command("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
        assert (await durability_of(line)).sound
        await line.command("CONFIG", "SET", "appendonly", "no")
        assert (await durability_of(line)).state == "off"
        await line.command("ACL", "SETUSER", "turnout", "on", ">secret", "~*", "&*", "+@all", "-config")
        managed = RedisLine(RedisAddress(port=server.port, username="turnout", password="secret"), prefix=prefix)
        assert (await durability_of(managed)).state == "unknown"
        store = await RedisStore(managed).open()
        assert await put(store, {"n": 1}, 0) == 1
        await store.close()
        await line.close()


async def test_a_wrong_password_is_told_without_the_password(tmp_path: Path, prefix: str) -> None:
    """Neither in the message nor in any repr."""
    with RedisServer(tmp_path / "redis", options=("--requirepass", "right")) as server:
        line = RedisLine(RedisAddress(port=server.port, password="wrong-one"), prefix=prefix)
        with pytest.raises(StoreUnavailable, match=r"store\.secret \(or store\.password_file") as told:
            await RedisStore(line).open()
        assert "wrong-one" not in f"{told.value!r} {line!r} {RedisAddress(password='wrong-one')!r}"
        await line.close()


async def test_a_store_of_a_newer_schema_is_refused(store: RedisStore) -> None:
    """The message says to run the newer program."""
    await store.line.command("HSET", store.line.key("state"), "schema", 99)
    with pytest.raises(StoreUnavailable, match=r"schema 99.*up to 2.*newer"):
        await RedisStore(store.line).open()


async def test_what_was_altered_in_redis_is_found(store: RedisStore) -> None:
    """A past body, a record, a living document: the proof of the audit names each; garbage is told as damage."""
    for number in range(3):
        await put(store, {"n": number}, number)
    line = store.line
    body = await line.command("HGET", line.key("bodies"), "route/digits@2")
    await line.command("HSET", line.key("bodies"), "route/digits@2", body.replace(b'"n":1', b'"n":9'))
    assert "record 2" in str((await verify_store(store)).fault)
    await line.command("HSET", line.key("bodies"), "route/digits@2", body)
    assert (await verify_store(store)).fault is None
    living = await line.command("HGET", line.key("living"), "route/digits")
    await line.command("HSET", line.key("living"), "route/digits", living.replace(b'"n":2', b'"n":9'))
    fresh = await RedisStore(line).open()
    assert "stands otherwise than audit record 3" in str((await verify_store(fresh)).fault)
    await line.command("HSET", line.key("living"), "route/digits", b"garbage")
    with pytest.raises(StoreUnavailable, match=r"damaged.*route/digits"):
        await (await RedisStore(line).open()).snapshot()
    await line.command("RPUSH", line.key("audit"), b"[]")
    with pytest.raises(StoreUnavailable, match="damaged"):
        await store.audit()


async def test_every_key_stands_in_one_slot_of_a_cluster(store: RedisStore) -> None:
    """All have the prefix in braces, those of the coordination too."""
    coordination = RedisCoordination(store.line, lease_s=LONG_S)
    await coordination.announce(ReplicaView(coordination.replica, 1))
    await coordination.lead("rollouts")
    await coordination.claim("r", [1])
    await coordination.publish("r", {"a": 1})
    await coordination.keep("r", b"x")
    await put(store, {"n": 1}, 0)
    keys = await store.line.command("KEYS", f"*{store.line.prefix}*")
    assert len(keys) >= 12
    assert all(key.startswith(f"{{{store.line.prefix}}}:".encode()) for key in keys)


# The answer that is lost


class Cutter:
    """A line to Redis that can be cut just before an answer: the bytes have gone out, nothing comes back."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._cut_on: bytes | None = None
        self._hold_on: bytes | None = None
        self._goes_on = asyncio.Event()
        self.arrived = asyncio.Event()
        self.cuts = 0
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.port = await self._stack.enter_async_context(listening(self._serve))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def cut_on(self, words: bytes) -> None:
        self._cut_on = words

    def hold_on(self, words: bytes) -> None:
        """What has these words in it waits on the way until ``go_on``; ``arrived`` says that Redis has answered it."""
        self._hold_on = words

    def go_on(self) -> None:
        self._goes_on.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            while sent := await reader.read(1 << 20):
                held = self._hold_on is not None and self._hold_on in sent
                if held:
                    await self._goes_on.wait()
                up_writer.write(sent)
                answer = await up_reader.read(1 << 20)
                if held:
                    self.arrived.set()
                    break
                if self._cut_on is not None and self._cut_on in sent:
                    self._cut_on = None
                    self.cuts += 1
                    break
                writer.write(answer)
                await writer.drain()
        finally:
            up_writer.close()
            with suppress(ConnectionError):
                await up_writer.wait_closed()


async def test_a_commit_whose_answer_is_lost_is_found_by_its_digest(redis_server: RedisServer, prefix: str) -> None:
    """The line breaks between the write and its answer: the commit is acknowledged, once, and nothing is done twice."""
    async with Cutter(redis_server.port) as cutter:
        store = await RedisStore(line_of(redis_server, prefix, port=cutter.port)).open()
        await put(store, {"n": 1}, 0)
        cutter.cut_on(b'{"n":2}')
        assert await put(store, {"n": 2}, 1) == 2
        assert cutter.cuts == 1
        assert len(await store.audit()) == 2
        assert (await verify_store(store)).fault is None
        await store.close()


@pytest.mark.parametrize("meanwhile", [True, False])
async def test_a_commit_that_arrives_long_after_its_deadline_changes_nothing_that_moved_on(
    redis_server: RedisServer, prefix: str, meanwhile: bool
) -> None:
    """Who waited for it was told that its fate is not known. It is judged by what stands when it arrives: done if
    nobody wrote meanwhile, else not at all."""
    async with Cutter(redis_server.port) as cutter:
        other = await RedisStore(line_of(redis_server, prefix)).open()
        slow = RedisStore(line_of(redis_server, prefix, port=cutter.port, deadline_s=0.5))
        await put(other, {"n": 1}, 0)
        await eventually(lambda: found_at(slow))  # connected: what is sent from now on leaves at once
        cutter.hold_on(b'{"n":2}')
        with pytest.raises(StoreUnavailable, match=r"did not answer in time.*is not known: look before"):
            await put(slow, {"n": 2}, 1)
        if meanwhile:
            await put(other, {"n": 3}, 1)
        cutter.go_on()
        await asyncio.wait_for(cutter.arrived.wait(), 60)
        document = await other.read(ROUTE)
        assert document is not None
        assert (document.revision, document.body) == (2, {"n": 3} if meanwhile else {"n": 2})
        assert len(await other.audit()) == 2
        assert (await verify_store(other)).fault is None
        await slow.close()
        await other.close()


def test_a_connection_that_was_reset_is_told_as_that_on_the_loop_of_a_gateway(
    redis_server: RedisServer, prefix: str
) -> None:
    """uvloop says RuntimeError when it writes to one. Nothing but StoreUnavailable comes out, and once the network is
    back the first call gets through, however many connections had been reset; commits too."""

    async def work(cable: Cable) -> None:
        store = await RedisStore(line_of(redis_server, prefix, port=cable.port)).open()
        for number in range(10):
            await asyncio.gather(*(store.snapshot() for _ in range(8)))
            cable.cut()
            if number % 2:
                with pytest.raises(StoreUnavailable, match=r"cannot be used"):
                    await store.snapshot()
            cable.mend()
            await asyncio.gather(*(store.snapshot() for _ in range(8)))
            assert await put(store, {"n": number}, number) == number + 1
        await store.close()

    with Cable(redis_server.port) as cable, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work(cable))


# The last state in the home


async def test_a_last_state_that_was_damaged_counts_for_nothing(tmp_path: Path) -> None:
    """Cut off, altered, or of another schema: told, and not served."""
    path = tmp_path / "last-state"
    state = KnownState("a" * 32, 7, "b" * 64, {})
    await LastState(path).keep(state)
    assert LastState(path).read() == state
    assert path.stat().st_mode & 0o077 == 0
    whole = path.read_bytes()
    for damaged in (whole[:-3], whole.replace(b'"revision":7', b'"revision":9'), b"", b"\xff" * 100):
        path.write_bytes(damaged)
        assert LastState(path).read() is None


async def test_an_older_state_never_takes_a_newer_ones_place(tmp_path: Path) -> None:
    """Two readings at once may end in either order."""
    last = LastState(tmp_path / "last-state")
    await last.keep(KnownState("a", 7))
    await last.keep(KnownState("a", 6))
    found = last.read()
    assert found is not None
    assert found.revision == 7


async def test_a_home_that_cannot_be_written_stops_nothing(store: RedisStore, tmp_path: Path) -> None:
    """The state is served all the same; the log says what a restart would mean."""
    (tmp_path / "in the way").write_text("", encoding="ascii")
    blocked = RedisStore(store.line, last=LastState(tmp_path / "in the way" / "last-state"))
    await blocked.open()
    await put(store, {"n": 1}, 0)
    assert (await blocked.snapshot()).revision == 1
