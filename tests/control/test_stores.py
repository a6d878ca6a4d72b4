"""One contract, run on every store; and what only a store on disk must show."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from gateway.clock import ManualClock, SystemClock
from gateway.control.audit import GENESIS, Verification, verify, verify_store
from gateway.control.checkpoint_keeper import CheckpointKeeper
from gateway.control.coordination_redis import RedisCoordination
from gateway.control.memory_store import MemoryStore
from gateway.control.redis_line import RedisAddress, RedisLine
from gateway.control.redis_store import RedisStore
from gateway.control.sqlite_schema import MIGRATIONS, migrate
from gateway.control.sqlite_store import SqliteStore
from gateway.control.store import Actor, AuditEntry, Change, DocumentKey, Fence, Store
from gateway.errors import Fenced, StaleRevision, StoreUnavailable
from gateway.settings import AuditSettings
from loadtests.redis_server import RedisServer
from tests.small_disk import small_file_system

ENTRY = AuditEntry("olga", "route-update", "route/digits", "because", {"weights": {"3": 1}})
ROUTE = DocumentKey("route", "digits")
MODEL = DocumentKey("model", "digits")


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store
    if request.param == "memory":
        made = MemoryStore()
    elif request.param == "sqlite":
        made = SqliteStore(tmp_path / "store.sqlite3")
    else:
        made = await RedisStore(line_of(request.getfixturevalue("redis_server"))).open()
    yield made
    await made.close()


def line_of(server: RedisServer, prefix: str | None = None) -> RedisLine:
    """To the tests' Redis, under a prefix that no other test has."""
    return RedisLine(RedisAddress(port=server.port), prefix=prefix or f"test-{uuid4().hex}", deadline_s=60.0)


async def terms(store: Store, post: str) -> AsyncIterator[int]:
    """Terms of the post, each later than the one before: by leading where leaders are known, else by counting."""
    term = 0
    while True:
        term += 1
        if isinstance(store, RedisStore):
            coordination = RedisCoordination(store.line)
            term = await coordination.lead(post) or 0
            await coordination.resign(post)
        yield term


async def put(store: Store, body: dict[str, Any] | None, expected: int, key: DocumentKey = ROUTE) -> int:
    return await store.commit([Change(key, body, expected)], ENTRY)


async def test_a_new_store_is_empty_at_revision_zero(store: Store) -> None:
    """Nothing is there, and nothing is an error."""
    snapshot = await store.snapshot()
    assert (snapshot.revision, dict(snapshot.documents)) == (0, {})
    assert await store.read(ROUTE) is None
    assert list(await store.history(ROUTE)) == []
    assert list(await store.audit()) == []


async def test_a_commit_writes_document_history_and_audit_as_one(store: Store) -> None:
    """The same revision everywhere, the bodies before and after in the record."""
    assert await put(store, {"a": 1}, 0) == 1
    assert await put(store, {"a": 2}, 1) == 2
    document = await store.read(ROUTE)
    assert document is not None
    assert (document.revision, document.body) == (2, {"a": 2})
    assert [(row.revision, row.body) for row in await store.history(ROUTE)] == [(2, {"a": 2}), (1, {"a": 1})]
    records = await store.audit()
    assert [(record.sequence, record.revision) for record in records] == [(1, 1), (2, 2)]
    assert records[1].before == {"route/digits": {"a": 1}}
    assert records[1].after == {"route/digits": {"a": 2}}
    assert records[1].entry == ENTRY


async def test_a_reason_that_is_no_unicode_stops_no_commit(store: Store) -> None:
    """It may quote what a model's code or another system says, with half of a surrogate pair in it. The chain holds."""
    reason = "the source says \ud83d: \ud83d\ude00"
    assert await store.commit([Change(ROUTE, {"why": reason}, 0)], replace(ENTRY, reason=reason)) == 1
    assert (await store.audit())[0].entry.reason.startswith("the source says ")
    assert (await verify_store(store)).fault is None


async def test_a_stale_expectation_changes_nothing(store: Store) -> None:
    """Compare-and-set: neither document, history nor audit moves, also when only one of several is stale."""
    await put(store, {"a": 1}, 0)
    for changes in (
        [Change(ROUTE, {"a": 2}, 0)],
        [Change(ROUTE, {"a": 2}, 7)],
        [Change(MODEL, {"m": 1}, 0), Change(ROUTE, {"a": 2}, 9)],
        [Change(MODEL, {"m": 1}, 3)],
    ):
        with pytest.raises(StaleRevision):
            await store.commit(changes, ENTRY)
    with pytest.raises(StaleRevision):
        await store.commit([Change(ROUTE, {"a": 2}, 1)], ENTRY, at=0)
    snapshot = await store.snapshot()
    assert (snapshot.revision, list(snapshot.documents)) == (1, [ROUTE])
    assert len(await store.audit()) == 1


async def test_a_deleted_document_is_gone_and_its_history_stays(store: Store) -> None:
    """It can be made again, as new; its past is still there."""
    await put(store, {"a": 1}, 0)
    await put(store, None, 1)
    assert await store.read(ROUTE) is None
    assert ROUTE not in (await store.snapshot()).documents
    with pytest.raises(StaleRevision):
        await put(store, {"a": 3}, 2)
    assert await put(store, {"a": 3}, 0) == 3
    assert [(row.revision, row.body) for row in await store.history(ROUTE)] == [(3, {"a": 3}), (2, None), (1, {"a": 1})]


async def test_an_empty_commit_writes_only_the_audit_record(store: Store) -> None:
    """A note counts as a revision, so that the chain's length can be told from it."""
    assert await store.commit([], ENTRY) == 1
    assert (await store.audit())[0].before == {}
    assert (await verify_store(store)).to_json()["ok"] is True


async def test_of_two_operators_at_once_exactly_one_wins(store: Store) -> None:
    """Twenty writers with the same expectation: one commit, nineteen stale."""
    await put(store, {"n": 0}, 0)
    results = await asyncio.gather(*(put(store, {"n": n}, 1) for n in range(20)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["StaleRevision"] * 19 + ["int"]
    assert (await store.snapshot()).revision == 2


async def test_a_leader_whose_term_has_ended_cannot_write(store: Store) -> None:
    """The later term's write stands; the earlier leader's is refused, whatever it expects; others write on."""
    rollouts, others = terms(store, "rollouts"), terms(store, "others")
    first, other = await anext(rollouts), await anext(others)
    assert await store.commit([Change(ROUTE, {"n": 1}, 0)], ENTRY, fence=Fence("rollouts", first)) == 1
    second = await anext(rollouts)
    assert await store.commit([Change(ROUTE, {"n": 2}, 1)], ENTRY, fence=Fence("rollouts", second)) == 2
    with pytest.raises(Fenced, match=f"term {first}"):
        await store.commit([Change(ROUTE, {"n": 3}, 2)], ENTRY, fence=Fence("rollouts", first))
    assert await store.commit([Change(ROUTE, {"n": 3}, 2)], ENTRY, fence=Fence("others", other)) == 3
    assert await put(store, {"n": 4}, 3) == 4


async def test_a_watcher_hears_of_every_change_and_skips_to_the_newest(store: Store) -> None:
    """A commit of this process wakes it at once; what it missed meanwhile it gets as one."""
    await put(store, {"n": 1}, 0)
    async with aclosing(store.watch(0)) as watch:  # type: ignore[type-var]
        assert await anext(watch) == 1
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        assert not waiting.done()
        await put(store, {"n": 2}, 1)
        assert await waiting == 2
        await put(store, {"n": 3}, 2)
        await put(store, {"n": 4}, 3)
        assert await anext(watch) == 4


async def test_bodies_that_are_given_away_cannot_change_what_is_stored(store: Store) -> None:
    """The writer's own dictionary is his own."""
    body = {"a": [1]}
    await put(store, body, 0)
    body["a"].append(2)
    document = await store.read(ROUTE)
    assert document is not None
    assert document.body == {"a": [1]}


async def test_the_audit_is_read_in_pages(store: Store) -> None:
    """``after`` and ``limit`` walk it without gap or repeat."""
    for number in range(5):
        await put(store, {"n": number}, number)
    pages = [[record.sequence for record in await store.audit(after=after, limit=2)] for after in (0, 2, 4, 5)]
    assert pages == [[1, 2], [3, 4], [5], []]


async def test_the_chain_finds_what_was_altered_removed_or_reordered(store: Store) -> None:
    """Any single tampering breaks it at the place where it was done."""
    for number in range(6):
        await put(store, {"n": number}, number)
    records = list(await store.audit())
    assert verify(records) == Verification(6, records[-1].digest)
    altered = [*records]
    altered[2] = replace(records[2], entry=replace(records[2].entry, reason="Because"))
    body = [*records]
    body[3] = replace(records[3], after={"route/digits": {"n": 99}})
    swapped = [*records]
    swapped[1], swapped[2] = records[2], records[1]
    for broken, place in ((altered, 2), (body, 3), (swapped, 1), ([*records[:4], records[5]], 4), (records[1:], 0)):
        found = verify(broken)
        assert found.fault is not None
        assert found.records == place
    resealed = replace(records[2], digest="f" * 64)
    assert verify([*records[:2], resealed, *records[3:]]).fault is not None
    assert verify([]).head == GENESIS


# Only on disk


def make(path: Path) -> SqliteStore:
    return SqliteStore(path / "store.sqlite3", poll_s=0.01)


async def test_the_token_of_a_change_is_kept_and_a_checkpoint_of_the_chain_is_signed(
    store: Store, tmp_path: Path
) -> None:
    """On every store: which token, also after its name was given to another; and how the chain stands."""
    await store.commit([Change(ROUTE, {"n": 1}, 0)], AuditEntry(Actor("olga", "0a1b2c3d"), "weights", str(ROUTE)))
    await store.commit([Change(ROUTE, {"n": 2}, 1)], AuditEntry("guard", "rollback", str(ROUTE)))
    first, second = await store.audit()
    assert (first.entry.actor, first.entry.token, second.entry.token) == ("olga", "0a1b2c3d", None)
    assert (await verify_store(store)).fault is None
    keeper = await CheckpointKeeper(store, tmp_path / "home", AuditSettings(), clock=SystemClock()).open()
    signed = await keeper.now()
    assert keeper.key.public.open(signed.note) == signed.checkpoint
    assert (signed.checkpoint.size, signed.checkpoint.head) == (2, second.digest)


async def test_a_change_by_another_process_is_noticed(tmp_path: Path) -> None:
    """A second connection, as another process has, commits: the watcher of the first hears of it."""
    mine, other = make(tmp_path), make(tmp_path)
    async with aclosing(mine.watch(0)) as watch:  # type: ignore[type-var]
        waiting = asyncio.ensure_future(anext(watch))
        await put(other, {"n": 1}, 0)
        assert await asyncio.wait_for(waiting, 60) == 1
    with pytest.raises(StaleRevision):
        await put(mine, {"n": 2}, 0)
    await mine.close()
    await other.close()


async def test_the_watch_waits_on_the_clock_it_is_given(tmp_path: Path) -> None:
    """No poll happens before its time: with a clock that stands still, another process's commit is not seen."""
    clock = ManualClock()
    mine, other = SqliteStore(tmp_path / "store.sqlite3", clock=clock, poll_s=5.0), make(tmp_path)
    async with aclosing(mine.watch(0)) as watch:  # type: ignore[type-var]
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        await mine.snapshot()  # behind the first poll, in the same thread
        await put(other, {"n": 1}, 0)
        await mine.snapshot()
        assert not waiting.done()
        clock.advance(5.0)
        assert await asyncio.wait_for(waiting, 60) == 1
    await mine.close()
    await other.close()


WRITER = """
import asyncio, os, signal, sys
from pathlib import Path
from gateway.control.sqlite_store import SqliteStore
from gateway.control.store import AuditEntry, Change, DocumentKey

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    key, entry = DocumentKey("route", "digits"), AuditEntry("olga", "weights", "route/digits")
    found = await store.read(key)
    revision, number = (found.revision, found.body["n"]) if found else (0, 0)
    while True:
        number += 1
        revision = await store.commit([Change(key, {"n": number, "rest": "x" * 300}, revision)], entry)
        sys.stdout.write(f"{number}\\n"); sys.stdout.flush()

asyncio.run(main())
"""


async def test_killed_at_any_moment_what_was_acknowledged_is_there_and_nothing_is_half_done(tmp_path: Path) -> None:
    """kill -9, five times, between any two steps: every acknowledged commit survives, the chain holds."""
    path, chance = tmp_path / "store.sqlite3", random.Random(3)
    acknowledged = 0
    for _ in range(5):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, str(path), stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        assert process.stdout is not None
        for _ in range(chance.randint(1, 40)):
            acknowledged = int(await process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        rest = (await process.communicate())[0].split(b"\n")
        acknowledged = max([acknowledged, *(int(line) for line in rest[:-1])])
        store = SqliteStore(path)
        document = await store.read(ROUTE)
        assert document is not None
        assert document.body is not None
        assert document.body["n"] in (acknowledged, acknowledged + 1)
        found = await verify_store(store)
        assert (found.fault, found.records) == (None, document.revision)
        await store.close()


async def test_tampering_in_the_file_is_found(tmp_path: Path) -> None:
    """A record edited, a past body edited, the last record removed, a document that no record wrote: each named."""
    faults: list[Any] = []
    for name, statement in (
        ("edited", "UPDATE audit SET reason = 'nothing' WHERE sequence = 2"),
        ("body", "UPDATE history SET body = '{\"n\":9}' WHERE revision = 2"),
        ("removed", "DELETE FROM audit WHERE sequence = 2"),
        ("cut", "DELETE FROM audit WHERE sequence = 3"),
        ("unreadable", "UPDATE audit SET changes = 'x' WHERE sequence = 2"),
        ("slipped in", "INSERT INTO history VALUES ('token', 'mallory', 3, '{}', 0)"),
        ("slipped in", "INSERT INTO living VALUES ('token', 'mallory', 3, '{}', 0, 0)"),
        ("turned back", "UPDATE living SET revision = 1"),
        ("taken away", "DELETE FROM living"),
        ("of another kind", "UPDATE living SET body = '{\"n\":2.0}'"),
        ("no number", "UPDATE living SET body = '{\"n\":NaN}'"),
    ):
        folder = tmp_path / name
        store = make(folder)
        known = (await store.snapshot()).revision
        for number in range(known, 3):
            await put(store, {"n": number}, number)
        connection = sqlite3.connect(folder / "store.sqlite3")
        connection.execute(statement)
        connection.commit()
        connection.close()
        try:
            faults.append((await verify_store(store)).fault)
        except StoreUnavailable as error:
            faults.append(str(error))
        await store.close()
    assert "record 2" in faults[0]
    assert "record 2" in faults[1]
    assert "record 2" in faults[2]
    assert "ends at record 2" in faults[3]
    assert "damaged" in faults[4]
    assert faults[5] is None  # a row that nothing points at is nobody's document
    assert faults[6] == "token/mallory stands in the store, and no audit record has written it"
    assert faults[7] == "route/digits stands otherwise than audit record 3 has written it"
    assert faults[8] == "route/digits is gone from the store, and no audit record has deleted it"
    assert faults[9] == faults[10] == faults[7]


async def test_a_damaged_file_says_so_and_what_to_do(tmp_path: Path) -> None:
    """Garbage, and a page overwritten: StoreUnavailable that speaks of a backup."""
    path = tmp_path / "store.sqlite3"
    path.write_bytes(b"no database" * 1000)
    store = SqliteStore(path)
    with pytest.raises(StoreUnavailable, match=r"damaged.*backup"):
        await store.open()
    await store.close()
    path.unlink()
    store = SqliteStore(path)
    for number in range(50):
        await put(store, {"n": "x" * 500}, number)
    await store.close()
    data = bytearray(path.read_bytes())
    data[4096 : 4096 * 6] = os.urandom(4096 * 5)
    path.write_bytes(data)
    store = SqliteStore(path)
    with pytest.raises(StoreUnavailable, match=r"damaged.*backup"):
        await store.open()
    await store.close()


async def test_a_file_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """The message names both schemas and says to run the newer program."""
    store = make(tmp_path)
    await store.open()
    await store.close()
    connection = sqlite3.connect(tmp_path / "store.sqlite3")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    store = make(tmp_path)
    with pytest.raises(StoreUnavailable, match=rf"schema 99.*up to {len(MIGRATIONS)}.*newer"):
        await store.open()
    await store.close()


def test_migrations_go_forward_each_step_once_or_not_at_all(tmp_path: Path) -> None:
    """A file of schema 1 gets steps 2 and 3; a step that fails leaves the file as it was."""
    path = tmp_path / "store.sqlite3"
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, path, MIGRATIONS[:1])
    second = "ALTER TABLE audit ADD COLUMN place TEXT"
    with pytest.raises(sqlite3.Error):
        migrate(connection, path, [*MIGRATIONS[:1], second, "NONSENSE"])
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    migrate(connection, path, [*MIGRATIONS[:1], second, "CREATE TABLE more (a)"])
    migrate(connection, path, [*MIGRATIONS[:1], second, "CREATE TABLE more (a)"])
    assert connection.execute("PRAGMA user_version").fetchone() == (3,)
    connection.close()


async def test_a_file_that_is_removed_under_a_running_gateway_is_not_written_to(tmp_path: Path) -> None:
    """SQLite would write on into the deleted file and call it durable. Nor is an empty one made in its place, which
    would say that there are no routes, and be taken for a backup."""
    store = make(tmp_path)
    await put(store, {"n": 1}, 0)
    path, target = tmp_path / "store.sqlite3", tmp_path / "backup.sqlite3"
    await store.backup(target)
    path.rename(tmp_path / "moved")
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="removed or replaced"):
            await put(store, {"n": 2}, 1)
        with pytest.raises(StoreUnavailable, match="removed or replaced"):
            await store.snapshot()
    with pytest.raises(StoreUnavailable, match="could not be copied"):
        await store.backup(target)
    assert not path.exists()
    path.write_bytes(target.read_bytes())
    with pytest.raises(StoreUnavailable, match="removed or replaced"):
        await store.snapshot()
    (tmp_path / "moved").rename(path)
    assert (await store.snapshot()).revision == 1
    await store.close()


async def test_a_document_that_is_no_longer_json_makes_the_store_unavailable(tmp_path: Path) -> None:
    """Not an error of ours, which would end whoever asks: serving goes on from what was known."""
    store = make(tmp_path)
    await put(store, {"n": 1}, 0)
    connection = sqlite3.connect(tmp_path / "store.sqlite3", isolation_level=None)
    for body in ("{", "[]"):
        connection.execute("UPDATE living SET body = ?", (body,))
        with pytest.raises(StoreUnavailable, match=r"damaged.*backup"):
            await store.snapshot()
    connection.execute("UPDATE living SET body = '{}'")
    assert (await store.snapshot()).documents[ROUTE].body == {}
    connection.close()
    await store.close()


async def test_a_file_that_a_newer_program_migrates_meanwhile_is_left_alone(tmp_path: Path) -> None:
    """What its tables mean now is not known here."""
    store = make(tmp_path)
    await put(store, {"n": 1}, 0)
    connection = sqlite3.connect(tmp_path / "store.sqlite3", isolation_level=None)
    connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreUnavailable, match="schema 99"):
        await put(store, {"n": 2}, 1)
    connection.close()
    await store.close()


async def test_a_snapshot_costs_what_is_living_and_not_what_has_been(tmp_path: Path) -> None:
    """The plan of the query walks over no history."""
    store = make(tmp_path)
    await put(store, {"n": 1}, 0)
    await store.close()
    connection = sqlite3.connect(tmp_path / "store.sqlite3")
    plan = [row[-1] for row in connection.execute("EXPLAIN QUERY PLAN SELECT * FROM living")]
    assert plan == ["SCAN living"]
    connection.close()


def test_a_file_of_the_first_schema_keeps_its_documents(tmp_path: Path) -> None:
    """Living ones stay living at their revision, deleted ones deleted."""
    path = tmp_path / "store.sqlite3"
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, path, MIGRATIONS[:1])
    rows = [("a", 1, "{}"), ("a", 2, '{"n":2}'), ("b", 3, "{}"), ("b", 4, None)]
    connection.executemany("INSERT INTO history VALUES ('route', ?, ?, ?, 0)", rows)
    migrate(connection, path)
    assert connection.execute("SELECT name, revision, body FROM living").fetchall() == [("a", 2, '{"n":2}')]
    connection.close()


async def test_a_locked_file_is_unavailable_after_the_busy_time_and_works_again_after(tmp_path: Path) -> None:
    """Another process holds the write lock: a clear error, and no harm done."""
    store = SqliteStore(tmp_path / "store.sqlite3", busy_timeout_ms=20)
    await put(store, {"n": 1}, 0)
    holder = sqlite3.connect(tmp_path / "store.sqlite3", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        await put(store, {"n": 2}, 1)
    assert (await store.snapshot()).revision == 1
    holder.execute("ROLLBACK")
    holder.close()
    assert await put(store, {"n": 2}, 1) == 2
    await store.close()


async def test_a_backup_made_while_the_store_is_written_is_whole(tmp_path: Path) -> None:
    """Commits go on during the copy; the copy opens, holds a prefix of them, and its chain verifies."""
    store = make(tmp_path)
    for number in range(20):
        await put(store, {"n": number}, number)
    target = tmp_path / "backup.sqlite3"
    target.write_text("what stood there before", encoding="ascii")

    async def write() -> None:
        for number in range(20, 60):
            await put(store, {"n": number}, number)

    await asyncio.gather(store.backup(target), write())
    copy = SqliteStore(target)
    found = await verify_store(copy)
    assert found.fault is None
    assert 20 <= found.records <= 60
    await copy.close()
    with pytest.raises(StoreUnavailable, match="could not be copied"):
        await store.backup(tmp_path / "nowhere" / "backup.sqlite3")
    await store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with small_file_system(tmp_path / "small", size="2m") as disk:
        yield disk


async def test_a_full_disk_is_said_and_the_store_works_again_once_there_is_space(small_disk: Path) -> None:
    """Writing raises StoreUnavailable and changes nothing; reading goes on; free space heals it."""
    store = SqliteStore(small_disk / "store.sqlite3")
    await put(store, {"n": 1}, 0)
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    revision, said = 1, ""
    while not said:
        try:
            revision = await put(store, {"n": revision, "pad": "x" * 4000}, revision)
        except StoreUnavailable as error:
            said = str(error)
    assert "disk" in said
    assert (await store.snapshot()).revision == revision
    filler.unlink()
    assert await put(store, {"n": 2}, revision) == revision + 1
    assert (await verify_store(store)).fault is None
    await store.close()
