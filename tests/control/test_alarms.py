"""Alarms in the store: raised once and cleared once, whoever tells them and how often."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from gateway.clock import ManualClock
from gateway.control.alarms import CLEARED, RAISED, Alarm, Alarms
from gateway.control.audit import verify_store
from gateway.control.memory_store import MemoryStore
from tests.control.scene import until

MOVED = Alarm(
    name="drift/digits/3/world",
    kind="drift",
    subject="model/digits",
    raised=True,
    reason="inputs of both arms moved",
    advice="look at the data before the model",
    numbers={"effect": 0.31, "rows": 3000, "high": float("inf")},
)
CALM = replace(MOVED, raised=False, reason="inputs are as in the reference again")


async def actions(store: MemoryStore) -> list[str]:
    return [record.entry.action for record in await store.audit()]


async def test_an_alarm_told_again_and_again_is_raised_once_and_cleared_once() -> None:
    """By one watcher or by several; and raised anew after it was cleared."""
    store = MemoryStore()
    first, second = Alarms(store, ManualClock()), Alarms(store, ManualClock())
    assert not await first.write(CALM)
    written = await asyncio.gather(*(alarms.write(MOVED) for alarms in (first, second, first)))
    assert sorted(written) == [False, False, True]
    assert await actions(store) == [RAISED]
    assert sorted([await first.write(CALM), await second.write(CALM)]) == [False, True]
    assert await second.write(MOVED)
    assert await actions(store) == [RAISED, CLEARED, RAISED]


async def test_what_is_written_says_what_why_with_which_figures_and_what_to_do() -> None:
    """And figures that are no numbers do not stop it: the chain verifies."""
    store = MemoryStore()
    await Alarms(store, ManualClock()).write(MOVED)
    [record] = await store.audit()
    assert (record.entry.subject, record.entry.reason, record.entry.actor) == ("model/digits", MOVED.reason, "drift")
    assert record.entry.detail == {
        "name": MOVED.name,
        "kind": "drift",
        "subject": "model/digits",
        "advice": MOVED.advice,
        "numbers": {"effect": 0.31, "rows": 3000, "high": "inf"},
    }
    assert (await verify_store(store)).fault is None


async def test_an_alarm_that_the_store_does_not_take_is_written_when_it_does() -> None:
    """The last word counts: what came and went meanwhile was never seen by anybody."""
    clock, store = ManualClock(), MemoryStore()
    alarms = Alarms(store, clock)
    alarms.start()
    store.fail("the disk is full")
    alarms.told(MOVED)
    alarms.told(replace(MOVED, name="drift/digits/4/world"))
    await until(lambda: clock.waiting)
    alarms.told(replace(CALM, name="drift/digits/4/world"))
    store.fail(None)
    clock.advance(2.0)
    for _ in range(200):
        if await actions(store):
            break
        clock.advance(1.0)
        await asyncio.sleep(0)
    await until(lambda: repr(alarms) == "<Alarms [0 not written yet]>")
    assert await actions(store) == [RAISED]
    await alarms.close()
