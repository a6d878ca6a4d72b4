"""Checkpoints and proofs of the audit chain: any damage is found, also by somebody who has only a checkpoint."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.checkpoints import AUDIT, Checkpoint, SigningKey, read_notes
from gateway.clock import ManualClock
from gateway.control.audit import GENESIS, record_to_json, seal, verify_store
from gateway.control.audit_proof import ChainProof, Proved, read_export, record_from_json
from gateway.control.checkpoint_keeper import CHECKPOINT_FILE, CheckpointKeeper
from gateway.control.memory_store import MemoryStore
from gateway.control.sqlite_store import SqliteStore
from gateway.control.store import Actor, AuditEntry, AuditRecord, Change, DocumentKey, Store
from gateway.errors import Conflict, NotFound
from gateway.settings import AuditSettings
from tests.control.scene import until
from tests.listening import listening

KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
OTHER = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
POINT = Checkpoint(42, "ab" * 32, 1_700_000_000)


def chain(length: int, *, words: Sequence[str] = ("weights", "rollback")) -> list[AuditRecord]:
    records: list[AuditRecord] = []
    for number in range(1, length + 1):
        entry = AuditEntry(Actor("olga", "0a1b"), words[number % len(words)], "route/digits", "why", {"n": number})
        previous = records[-1].digest if records else GENESIS
        before, after = {"route/digits": None if number == 1 else {"n": number - 1}}, {"route/digits": {"n": number}}
        records.append(
            seal(
                sequence=number,
                at=1e9 + number / 3,
                revision=number,
                entry=entry,
                before=before,
                after=after,
                previous=previous,
            )
        )
    return records


def point(records: Sequence[AuditRecord], size: int | None = None) -> Checkpoint:
    last = records[(size or len(records)) - 1]
    return Checkpoint(last.sequence, last.digest, 1_700_000_000)


def proved(records: Sequence[AuditRecord], *checkpoints: Checkpoint) -> Proved:
    return read_export((json.dumps(record_to_json(record)) for record in records), ChainProof(checkpoints))


def test_a_whole_chain_is_proved_with_every_checkpoint_of_it() -> None:
    """Numbers and texts survive the way through JSON, so an export proves itself."""
    records = chain(30)
    found = proved(records, point(records, 1), point(records, 17), point(records))
    assert (found.verification.fault, found.verification.records, found.agreed) == (None, 30, 3)


def flipped(records: list[AuditRecord], at: int, draw: Callable[[Any], Any]) -> int:
    """One field of one record; which record is then at fault."""
    record = records[at]
    which = draw(st.integers(0, 9))
    entry = record.entry
    changes: list[AuditRecord] = [
        replace(record, at=record.at + 0.5),
        replace(record, entry=replace(entry, actor=Actor("mallory", entry.token))),
        replace(record, entry=replace(entry, actor=Actor(entry.actor, "ffff"))),
        replace(record, entry=replace(entry, actor=str(entry.actor))),
        replace(record, entry=replace(entry, reason="another")),
        replace(record, entry=replace(entry, detail=None)),
        replace(record, before={"route/digits": {"n": -1}}),
        replace(record, after={"route/digits": None}),
        replace(record, digest="0" * 64),
        replace(record, revision=record.revision + 1),
    ]
    records[at] = changes[which]
    return at + 1


@given(length=st.integers(2, 25), data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_flip_removal_swap_or_truncation_is_found_and_its_record_named(length: int, data: st.DataObject) -> None:
    """Of a random chain, with a checkpoint of its end kept elsewhere."""
    whole = chain(length)
    records, end = list(whole), point(whole)
    at = data.draw(st.integers(0, length - 1))
    kind = data.draw(st.sampled_from(["flip", "remove", "swap", "cut"]))
    match kind:
        case "flip":
            expected = flipped(records, at, data.draw)
        case "remove":
            del records[at]
            expected = at + 1
        case "swap":
            other = data.draw(st.integers(0, length - 1).filter(lambda n: n != at))
            records[at], records[other] = records[other], records[at]
            expected = min(at, other) + 1
        case _:
            del records[at:]
            expected = at
    fault = proved(records, end).verification.fault
    assert fault is not None
    assert str(expected) in fault


@given(length=st.integers(2, 20), data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_chain_written_anew_is_found_by_a_checkpoint_and_by_nothing_else(length: int, data: st.DataObject) -> None:
    """Whoever can write the store can seal another history; it does not fit a checkpoint that was kept elsewhere."""
    true, forged = chain(length), chain(length, words=("weights", "lift"))
    assert proved(forged).verification.fault is None
    size = data.draw(st.integers(2, length))
    if true[size - 1].digest == forged[size - 1].digest:
        return
    fault = proved(forged, point(true, size)).verification.fault
    assert fault is not None
    assert f"audit record {size} is not the one" in fault


def test_two_checkpoints_that_contradict_each_other_are_a_fault_whichever_the_chain_agrees_with() -> None:
    """One who signs two histories shows each to whom it suits. Two that say the same are two, signed twice."""
    true, other = chain(6), chain(6, words=("weights", "lift"))
    for records in (true, other):
        fault = proved(records, point(true, 4), point(other, 4)).verification.fault
        assert "name different heads for record 4: two histories were signed" in str(fault)
    assert proved(true, point(true, 4), replace(point(true, 4), at=1_800_000_000)).agreed == 2


def test_a_beginning_that_is_missing_is_a_fault_unless_a_checkpoint_vouches_for_it() -> None:
    """Whoever cuts off the beginning leaves a chain whose seals all fit; the proof says where it begins."""
    whole = chain(9)
    assert "audit record 1 is missing" in str(proved(whole[4:]).verification.fault)
    assert "audit record 1 is missing" in str(proved(whole[4:], point(whole, 7)).verification.fault)
    vouched = proved(whole[4:], point(whole, 2), point(whole, 4), point(whole, 7))
    assert (vouched.verification.fault, vouched.first, vouched.agreed) == (None, 5, 2)
    forged = Checkpoint(4, "cd" * 32, 1)
    assert "audit record 1 is missing" in str(proved(whole[4:], forged).verification.fault)


def test_a_proof_says_how_far_it_is_signed() -> None:
    """An export that ends where a checkpoint does is whole, as far as anybody can tell: its time tells how far."""
    whole = chain(9)
    found = proved(whole[:7], point(whole, 4), point(whole, 7)).to_json()
    assert (found["ok"], found["first"], found["signed"]) == (True, 1, {"records": 7, "at": 1_700_000_000})
    assert proved(whole).to_json()["signed"] is None


def test_a_field_that_no_seal_covers_makes_a_record_none() -> None:
    """Else an export could be added to unseen."""
    body = {**record_to_json(chain(1)[0]), "approved_by": "the board"}
    assert "'approved_by' is no field" in str(read_export([json.dumps(body)], ChainProof()).verification.fault)


@pytest.mark.parametrize("line", ["", "{", "[]", "{}", '{"sequence": "2"}', "null", "[" * 100_000])
def test_a_line_that_is_no_record_is_named(line: str) -> None:
    """Hostile ones too; what came before it stands."""
    lines = [json.dumps(record_to_json(record)) for record in chain(3)]
    found = read_export([lines[0], line, lines[2]], ChainProof())
    assert found.verification.records == 1
    assert "line 2, in the place of audit record 2" in str(found.verification.fault)


def test_a_record_is_the_same_after_its_way_through_json() -> None:
    """With its token's id, which is sealed too."""
    record = chain(2)[1]
    again = record_from_json(json.loads(json.dumps(record_to_json(record))))
    assert (again, again.entry.token) == (record, "0a1b")


# The keeper


async def change(store: MemoryStore, number: int) -> None:
    key = DocumentKey("route", "digits")
    await store.commit([Change(key, {"n": number}, number - 1)], AuditEntry("olga", "weights", str(key)))


@asynccontextmanager
async def keeping(
    home: Path, store: Store, clock: ManualClock, *, start: bool = True, **changes: Any
) -> AsyncIterator[CheckpointKeeper]:
    keeper = CheckpointKeeper(store, home, AuditSettings(**changes), clock=clock)
    await (keeper.start() if start else keeper.open())
    try:
        yield keeper
    finally:
        await keeper.close()


def kept(home: Path) -> list[int]:
    path = home / CHECKPOINT_FILE
    if not path.exists():
        return []
    notes, rest = read_notes(path.read_text())
    assert not rest
    return [SigningKey.of(home).public.open(note).size for note in notes]


async def test_a_checkpoint_is_signed_when_time_has_passed_or_enough_was_changed(tmp_path: Path) -> None:
    """And only if anything was changed; a last one at the end."""
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    async with keeping(tmp_path, store, clock, checkpoint_s=60, checkpoint_records=3) as keeper:
        await change(store, 1)
        keeper.took(1)
        await until(lambda: len(clock._timers) == 1)
        clock.advance(60)
        await until(lambda: kept(tmp_path) == [1])
        await until(lambda: any(not timer[2].cancelled for timer in clock._timers))
        clock.advance(60)
        for number in range(2, 5):
            await change(store, number)
            keeper.took(number)
        await until(lambda: kept(tmp_path) == [1, 4])
        await change(store, 5)
    assert kept(tmp_path) == [1, 4, 5]


async def test_what_was_cut_off_or_written_anew_is_not_signed_but_told_of(tmp_path: Path) -> None:
    """Also by the next start, which reads the last checkpoint; one that is moved away begins anew."""
    clock = ManualClock()
    whole, forged, cut = MemoryStore(clock=clock), MemoryStore(clock=clock), MemoryStore(clock=clock)
    for number in range(1, 4):
        await change(whole, number)
        await forged.commit(
            [Change(DocumentKey("route", "digits"), {"n": -number}, number - 1)], AuditEntry("m", "weights", "s")
        )
    await change(cut, 1)
    async with keeping(tmp_path, whole, clock, start=False) as keeper:
        assert (await keeper.now()).checkpoint.size == 3
        assert (await keeper.now()).checkpoint.size == 3
    for store, fault in ((forged, "written anew"), (cut, "cut off")):
        async with keeping(tmp_path, store, clock, start=False) as keeper:
            with pytest.raises(Conflict, match=fault):
                await keeper.now()
            assert fault in keeper.degraded()[0]
    assert kept(tmp_path) == [3]
    (tmp_path / CHECKPOINT_FILE).rename(tmp_path / "moved")
    async with keeping(tmp_path, forged, clock, start=False) as keeper:
        assert (await keeper.now()).checkpoint.size == 3
        assert not keeper.degraded()


async def test_a_forged_or_broken_line_in_the_homes_own_file_is_not_believed(tmp_path: Path) -> None:
    """A checkpoint by another key says nothing here; the last own one counts."""
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    await change(store, 1)
    async with keeping(tmp_path, store, clock, start=False) as keeper:
        await keeper.now()
    with (tmp_path / CHECKPOINT_FILE).open("a") as file:
        file.write(OTHER.sign(Checkpoint(900, "cd" * 32, 0)) + "\n" + KEY.sign(POINT)[:30])
    await change(store, 2)
    async with keeping(tmp_path, store, clock, start=False) as keeper:
        assert (await keeper.now()).checkpoint.size == 2
    notes, _ = read_notes((tmp_path / CHECKPOINT_FILE).read_text())
    assert SigningKey.of(tmp_path).public.open(notes[-1]).size == 2, "a line cut short spoils none that follows"


async def test_a_key_that_anybody_can_read_is_told_of(tmp_path: Path) -> None:
    """Who has it can sign a history of his own. A group of the operator's is his affair."""
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    async with keeping(tmp_path, store, clock, start=False) as keeper:
        assert not keeper.degraded()
    for mode, told in ((0o640, False), (0o644, True)):
        (tmp_path / AUDIT.key_file).chmod(mode)
        async with keeping(tmp_path, store, clock, start=False) as keeper:
            assert [f"mode {mode:o}" in said for said in keeper.degraded()] == [True] * told


async def test_an_address_that_is_none_is_told_of_and_ends_nothing(tmp_path: Path) -> None:
    """The settings take it for one; what it is a client tells."""
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    await change(store, 1)
    async with keeping(tmp_path, store, clock, post_url="http://127.0.0.1:half") as keeper:
        await keeper.now()
        await until(keeper.degraded)
        assert "cannot be posted: InvalidURL" in keeper.degraded()[0]


async def test_an_empty_chain_has_nothing_to_sign_and_a_full_disk_is_told_of(tmp_path: Path) -> None:
    """What was signed can be had all the same."""
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    async with keeping(tmp_path, store, clock, start=False) as keeper:
        with pytest.raises(NotFound, match="no record yet"):
            await keeper.now()
        await change(store, 1)
        (tmp_path / CHECKPOINT_FILE).symlink_to("/dev/full")
        assert (await keeper.now()).checkpoint.size == 1
        assert "cannot be written" in keeper.degraded()[0]


async def test_the_newest_checkpoint_is_posted_until_it_is_taken(tmp_path: Path) -> None:
    """An address that refuses is asked again, and gets what is newest then."""
    clock, answers, got = ManualClock(), itertools.chain([500, 404], itertools.repeat(204)), list[str]()
    store = MemoryStore(clock=clock)

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].split("\r\n")[0])
        got.append((await reader.readexactly(length)).decode())
        writer.write(b"HTTP/1.1 %d x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % next(answers))
        await writer.drain()

    await change(store, 1)
    async with (
        listening(take) as port,
        keeping(tmp_path, store, clock, post_url=f"http://127.0.0.1:{port}/") as keeper,
    ):
        await keeper.now()
        await until(lambda: len(got) == 1)
        await until(keeper.degraded)
        await change(store, 2)
        await keeper.now()

        def moved(times: int) -> bool:
            clock.advance(1)
            return len(got) >= times

        await until(lambda: moved(3))
        await until(lambda: not keeper.degraded())
        assert [keeper.key.public.open(note).size for note in got[:3]] == [1, 2, 2]


async def test_a_store_whose_end_was_taken_back_cleanly_is_found_by_its_checkpoint_alone(tmp_path: Path) -> None:
    """Record, history, heads and revision set back together, as by an older copy of the file: the store proves itself,
    and does not fit what was signed."""
    clock = ManualClock()
    path, key = tmp_path / "store.sqlite3", DocumentKey("route", "digits")
    store = SqliteStore(path, clock=clock)
    for number in range(1, 4):
        await store.commit([Change(key, {"n": number}, number - 1)], AuditEntry("olga", "weights", str(key)))
        if number == 2:
            await store.backup(tmp_path / "older")
    async with keeping(tmp_path, store, clock, start=False) as keeper:
        signed = (await keeper.now()).checkpoint
    await store.close()
    path.unlink()
    for beside in (path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        beside.unlink(missing_ok=True)
    (tmp_path / "older").rename(path)
    older = SqliteStore(path, clock=clock)
    assert (await verify_store(older)).fault is None
    assert "its last 1 record is missing" in str(proved(list(await older.audit()), signed).verification.fault)
    async with keeping(tmp_path, older, clock, start=False) as keeper:
        with pytest.raises(Conflict, match="record 3, which was signed, is gone"):
            await keeper.now()
        await older.commit([Change(key, {"n": 9}, 2)], AuditEntry("mallory", "weights", str(key)))
        with pytest.raises(Conflict, match="record 3 is not the one that was signed"):
            await keeper.now()
    await older.close()
