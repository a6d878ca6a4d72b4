"""Revisions that are kept as differences: every one reads as it was written, in all stores, whatever happens."""

from __future__ import annotations

import hashlib
import random
import sqlite3
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.control.audit import GENESIS, canonical, seal, verify, verify_store
from gateway.control.coordination_redis import RedisCoordination
from gateway.control.differences import MOST_STEPS, Base, Past, is_difference, pack
from gateway.control.memory_store import MemoryStore
from gateway.control.redis_line import RedisAddress, RedisLine
from gateway.control.redis_store import RedisStore
from gateway.control.sqlite_schema import MIGRATIONS, migrate
from gateway.control.sqlite_store import SqliteStore
from gateway.control.store import Actor, AuditEntry, Change, DocumentKey, Store
from gateway.control.store_recovery import restore_from_replica
from gateway.errors import StoreRefused, StoreUnavailable
from gateway.registry.catalogue import ModelDocument
from loadtests.redis_server import RedisServer

MODEL = DocumentKey("model", "digits")
ENTRY = AuditEntry("olga", "register", str(MODEL))


# What is kept of one text

blocks = st.lists(st.sampled_from(["a" * 70, "b" * 90, "ab" * 50, "c", '{"x":[1,2.5]}', "\\u00e4" * 20]), max_size=12)


@settings(max_examples=300, deadline=None)
@given(blocks, blocks)
def test_whatever_two_texts_have_in_common_the_second_is_had_again(one: list[str], other: list[str]) -> None:
    """Blocks that are repeated, moved, taken out: the text is exact, whether it is kept whole or as a difference."""
    before, text = (canonical({"blocks": made}).decode("ascii") for made in (one, other))
    kept = {4: before, 7: pack(text, Base(4, before, 0))}
    assert len(kept[7]) <= len(text)
    assert Past(kept.get).text(7) == text


def versions(count: int) -> ModelDocument:
    model = ModelDocument("digits")
    for number in range(count):
        digest = "sha256:" + hashlib.sha256(b"%d" % number).hexdigest()
        model = model.add_version(digest, created_at=1.7e9 + number * 1.37, tags={"team": "a"})[0]
    return model


def test_a_change_of_a_large_document_costs_what_it_changes() -> None:
    """One version more, which also moves the next number on, also where that grows a digit; a name; two gates' results;
    an archived version: a few hundred bytes of 18,000."""
    model = versions(99)
    added, _ = model.add_version("sha256:" + "0" * 64, created_at=1.8e9, tags={"team": "a"})
    gated = model.with_gate(20, {"passed": True}).with_gate(80, {"passed": False})
    for changed in (added, model.set_alias("champion", 7), gated, model.archive(50)):
        before, text = (canonical(one.to_json()).decode("ascii") for one in (model, changed))
        assert len(pack(text, Base(3, before, 0))) < 300
        assert len(text) > 15_000


def test_a_text_that_has_little_of_the_one_before_is_kept_whole() -> None:
    """So is the first, and one that is far from a whole one."""
    before, text = '{"a":"' + "x" * 200 + '"}', '{"a":"' + "y" * 200 + '"}'
    near = before.replace("x", "y", 1)
    assert is_difference(pack(near, Base(3, before, MOST_STEPS - 2)))
    assert pack(text, Base(3, before, 0)) == text
    assert pack(near, None) == near
    assert pack(near, Base(3, before, MOST_STEPS - 1)) == near


@pytest.mark.parametrize(
    "kept",
    ["[]", "[9]", "[7,[0,1]]", '["x"]', "[4,[0]]", "[4,[0,99]]", "[4,[-1,1]]", "[4,5]", "[4,[0,-1]]", "[", "[3]"],
)
def test_a_difference_that_is_damaged_is_an_error_and_never_another_text(kept: str) -> None:
    """Pieces that are not there, a base that is missing, later or the revision itself, no JSON."""
    with pytest.raises((ValueError, TypeError, KeyError)):
        Past({4: "{}", 7: kept}.get).text(7)


# What stores keep


@dataclass(frozen=True, slots=True)
class Kept:
    """A store, and its file where it is one."""

    store: SqliteStore | RedisStore
    path: Path | None = None

    async def rows(self) -> dict[int, str]:
        """What is kept of the model, by revision."""
        if self.path is not None:
            with sqlite3.connect(self.path) as connection:
                found = connection.execute(
                    "SELECT revision, body FROM history WHERE name = 'digits' ORDER BY revision"
                ).fetchall()
            connection.close()
            return {revision: body for revision, body in found if body is not None}
        line = self.store.line  # type: ignore[union-attr]
        fields = await line.command("HGETALL", line.key("bodies"))
        pairs = fields.items() if isinstance(fields, dict) else zip(fields[::2], fields[1::2], strict=True)
        split = [(field.decode().rsplit("@", 1), kept.decode().partition("\n")[2]) for field, kept in pairs]
        return {
            int(at): kept[1:]
            for (key, at), kept in sorted(split, key=lambda row: int(row[0][1]))
            if key == str(MODEL) and kept[0] == "+"
        }

    async def alter(self, revision: int, body: str | None) -> None:
        if self.path is not None:
            with sqlite3.connect(self.path) as connection:
                connection.execute("UPDATE history SET body = ? WHERE revision = ?", (body, revision))
            connection.close()
            return
        line = self.store.line  # type: ignore[union-attr]
        written_at = (await line.command("HGET", line.key("bodies"), f"{MODEL}@{revision}")).split(b"\n")[0]
        packed = written_at + (b"\n-" if body is None else f"\n+{body}".encode())
        await line.command("HSET", line.key("bodies"), f"{MODEL}@{revision}", packed)

    async def alter_living(self, old: str, new: str) -> None:
        if self.path is not None:
            with sqlite3.connect(self.path) as connection:
                connection.execute("UPDATE living SET body = replace(body, ?, ?)", (old, new))
            connection.close()
            return
        line = self.store.line  # type: ignore[union-attr]
        living = await line.command("HGET", line.key("living"), str(MODEL))
        await line.command("HSET", line.key("living"), str(MODEL), living.replace(old.encode(), new.encode()))


@pytest.fixture(params=["sqlite", "redis"])
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    if request.param == "sqlite":
        path = tmp_path / "store.sqlite3"
        made = Kept(await SqliteStore(path, clock=ManualClock()).open(), path)
    else:
        server: RedisServer = request.getfixturevalue("redis_server")
        line = RedisLine(RedisAddress(port=server.port), prefix=f"test-{uuid4().hex}")
        made = Kept(await RedisStore(line, clock=ManualClock()).open())
    yield made
    await made.store.close()


async def register(stores: Sequence[Store], count: int, start: int = 0) -> None:
    """Versions one after the other, each a revision; the stores were empty at the first."""
    model = versions(start)
    for number in range(start, start + count):
        digest = "sha256:" + hashlib.sha256(b"%d" % number).hexdigest()
        model = model.add_version(digest, created_at=1.7e9 + number * 1.37, tags={"team": "a"})[0]
        for store in stores:
            await store.commit([Change(MODEL, model.to_json(), number)], ENTRY)


async def same(one: Store, other: Store, keys: Sequence[DocumentKey] = (MODEL,)) -> bool:
    """Whether both say the same of now and of all that was, bodies, times and digests."""
    now = [(found.revision, dict(found.documents)) for found in (await one.snapshot(), await other.snapshot())]
    past = [await one.history(key, limit=10_000) == await other.history(key, limit=10_000) for key in keys]
    audits = [list(await store.audit(limit=10_000)) for store in (one, other)]
    return all(past) and now[0] == now[1] and audits[0] == audits[1]


def changed(body: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Something added, taken away or written anew, somewhere."""
    rows: list[Any] = list(body.get("rows", ()))
    match chance.randrange(6):
        case 0 | 1:
            rows.insert(chance.randrange(len(rows) + 1), {"digest": f"{chance.random()}", "text": "ä\n" * 30})
        case 2 if rows:
            rows.pop(chance.randrange(len(rows)))
        case 3 if rows:
            rows[chance.randrange(len(rows))] = chance.choice([None, True, 1, 1.0, "x" * chance.randrange(500)])
        case 4:
            chance.shuffle(rows)
        case _:
            pass
    return {"rows": rows, "n": chance.randrange(10**6), "notes": "\ud83d" if chance.random() < 0.1 else "Grüße"}


async def test_every_revision_reads_as_it_was_written_in_every_store(kept: Kept) -> None:
    """Three documents, changed by chance, alone and together, deleted and made again: a store that keeps every one
    whole says the same of each, and so do pages that begin anywhere; the chain holds."""
    chance, whole = random.Random(5), MemoryStore(clock=ManualClock())
    keys = [MODEL, DocumentKey("route", "a"), DocumentKey("route", "b@7")]
    for _ in range(250):
        living = (await whole.snapshot()).documents
        changes = []
        for key in chance.sample(keys, chance.choice([0, 1, 1, 1, 2, 3])):
            found = living.get(key)
            body = changed({} if found is None else dict(found.body or {}), chance)
            if found is not None and chance.random() < 0.02:
                changes.append(Change(key, None, found.revision))
            else:
                changes.append(Change(key, body, 0 if found is None else found.revision))
        for store in (whole, kept.store):
            await store.commit(changes, ENTRY)
    assert await same(kept.store, whole, keys)
    for page in ({"after": 137, "limit": 3}, {"after": 63, "limit": 70}):
        assert list(await kept.store.audit(**page)) == list(await whole.audit(**page))
    assert await kept.store.history(MODEL, limit=5) == await whole.history(MODEL, limit=5)
    assert (await verify_store(kept.store)).fault is None
    rows = await kept.rows()
    assert 20 < sum(map(is_difference, rows.values())) < len(rows)


async def test_versions_of_one_model_cost_what_they_add(kept: Kept) -> None:
    """150 of them are kept in some five times the document that names them all, not in 75 times; none is further than
    ``MOST_STEPS`` from a whole one."""
    await register([kept.store], 150)
    rows, away = await kept.rows(), 0
    assert sum(map(len, rows.values())) < 5 * len(canonical(versions(150).to_json()))
    for revision in sorted(rows):
        away = away + 1 if is_difference(rows[revision]) else 0
        assert away < MOST_STEPS
    assert (await verify_store(kept.store)).fault is None


async def test_a_difference_that_was_altered_is_found(kept: Kept) -> None:
    """At the record that it belongs to; and where what it goes from is gone, that is told as damage."""
    await register([kept.store], 12)
    rows = await kept.rows()
    await kept.alter(7, rows[7].replace("1700000008", "1700000009"))
    assert "record 7" in str((await verify_store(kept.store)).fault)
    await kept.alter(7, rows[7])
    await kept.alter(5, None)
    with pytest.raises(StoreUnavailable, match=r"revision 6 is kept as a difference to revision 5") as told:
        await kept.store.history(MODEL)
    assert "damaged" in str(told.value)
    assert (await kept.store.snapshot()).documents[MODEL].body == versions(12).to_json()
    assert await kept.store.commit([Change(MODEL, {}, 12)], ENTRY) == 13


async def test_what_is_written_after_damage_can_be_read(kept: Kept) -> None:
    """A living text that somebody altered by hand spoils the record that goes from it, as a verification tells, and
    none is unreadable; after a past that is gone the next revision is kept whole."""
    await register([kept.store], 30)
    await kept.alter_living('"aliases":{}', '"aliases":{"by_hand":1}')
    assert await kept.store.commit([Change(MODEL, versions(31).to_json(), 30)], ENTRY) == 31
    assert [row.body for row in await kept.store.history(MODEL, limit=2)] == [versions(n).to_json() for n in (31, 30)]
    assert [record.sequence for record in await kept.store.audit()] == list(range(1, 32))
    assert "record 31 was altered" in str((await verify_store(kept.store)).fault)
    await kept.alter(29, None)
    assert await kept.store.commit([Change(MODEL, versions(32).to_json(), 31)], ENTRY) == 32
    assert [row.body for row in await kept.store.history(MODEL, limit=1)] == [versions(32).to_json()]
    assert [is_difference(row) for row in (await kept.rows()).values()][-2:] == [True, False]


# Older ones


async def test_a_file_that_kept_every_revision_whole_is_read_on(tmp_path: Path) -> None:
    """All that it has stays as it is, and is read; what comes is kept as differences to it. A copy is the same."""
    path, whole = tmp_path / "store.sqlite3", MemoryStore(clock=ManualClock())
    await register([whole], 10)
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, path, MIGRATIONS[:3])
    for record, row in zip(await whole.audit(), reversed(await whole.history(MODEL)), strict=True):
        body = canonical(row.body).decode("ascii")
        place = ("model", "digits", row.revision)
        connection.execute("INSERT INTO history VALUES (?, ?, ?, ?, ?)", (*place, body, row.written_at))
        values = (record.sequence, record.at, record.revision, "olga", "register", str(MODEL), "", None)
        steps = f'[["model","digits",{row.revision - 1}]]'
        seals = (record.previous, record.digest, None)
        connection.execute("INSERT INTO audit VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", (*values, steps, *seals))
    connection.execute("INSERT INTO heads VALUES ('model', 'digits', 10)")
    connection.execute("UPDATE state SET revision = 10")
    connection.close()
    store = SqliteStore(path, clock=ManualClock())
    assert await same(store, whole)
    await register([store, whole], 10, start=10)
    assert await same(store, whole)
    assert [is_difference(row) for row in (await Kept(store, path).rows()).values()] == [False] * 10 + [True] * 10
    await store.backup(tmp_path / "copy")
    copy = SqliteStore(tmp_path / "copy", clock=ManualClock())
    assert await same(copy, whole)
    assert (await verify_store(copy)).fault is None
    await store.close()
    await copy.close()


async def test_a_redis_that_an_older_release_writes_too_is_read(redis_server: RedisServer) -> None:
    """It keeps every revision whole: those before, and those between, while replicas are changed one by one. The
    store's schema says from the first difference on that an older release cannot read all of it."""
    line = RedisLine(RedisAddress(port=redis_server.port), prefix=f"test-{uuid4().hex}")
    store, whole = await RedisStore(line, clock=ManualClock()).open(), MemoryStore(clock=ManualClock())
    await register([store, whole], 10)
    made, bodies = Kept(store), {row.revision: row.body for row in await whole.history(MODEL)}
    for revision in (1, 2, 3, 7):
        await made.alter(revision, canonical(bodies[revision]).decode("ascii"))
    await line.command("HSET", line.key("state"), "schema", 1)
    assert await same(await RedisStore(line, clock=ManualClock()).open(), whole)
    assert await line.command("HGET", line.key("state"), "schema") == b"1"
    await register([store, whole], 1, start=10)
    assert await line.command("HGET", line.key("state"), "schema") == b"2"
    assert await same(store, whole)
    await store.close()


async def test_a_replicas_state_that_is_put_back_is_what_differences_go_on_from(redis_server: RedisServer) -> None:
    """It is written whole: what it went from is gone with the Redis that was emptied."""
    line = RedisLine(RedisAddress(port=redis_server.port), prefix=f"test-{uuid4().hex}")
    store = await RedisStore(line, clock=ManualClock()).open()
    await register([store], 10)
    await store.snapshot()
    await line.command("DEL", *(await line.command("KEYS", line.key("*"))))
    with pytest.raises(StoreRefused):
        await store.snapshot()
    coordination = RedisCoordination(line)
    assert await restore_from_replica(store, coordination, actor="olga", reason="", clock=ManualClock()) == 11
    body = versions(11).to_json()
    assert await store.commit([Change(MODEL, body, 11)], ENTRY) == 12
    assert [is_difference(row) for row in (await Kept(store).rows()).values()] == [False, True]
    assert [row.body for row in await store.history(MODEL)] == [body, versions(10).to_json()]
    assert (await verify_store(store)).fault is None
    await store.close()


# The seal of large documents


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.text(max_size=5), st.none() | st.dictionaries(st.text(max_size=5), st.floats(-9, 9)), max_size=4)
)
def test_a_seal_over_texts_at_hand_is_the_seal_over_what_they_say(bodies: dict[str, Any]) -> None:
    """With strange names, without bodies, with a token and without: a verification makes it anew from the bodies."""
    texts = {name: canonical(body) for name, body in bodies.items()}
    for actor in ("olga", Actor("olga", "1234")):
        parts = {"sequence": 1, "at": 0.5, "revision": 1, "entry": replace(ENTRY, actor=actor), "previous": GENESIS}
        sealed = seal(**parts, before=bodies, after=bodies, texts=(texts, texts))
        assert sealed == seal(**parts, before=bodies, after=bodies)
        assert verify([sealed]).fault is None
