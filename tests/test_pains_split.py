"""What users of other systems complain of when weights change, and cannot happen here: on a whole control plane.

Requests are decided by the table in force, after real changes through the verbs that operators use.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.control.memory_store import MemoryStore
from gateway.errors import Forbidden
from gateway.messages import InferRequest
from gateway.routing.decide import Facts, decide
from tests.control.scene import MODEL, Link, Scene, ref, scene, until

USERS = [f"user-{number}" for number in range(3000)]


def answered(stage: Scene, users: list[str] = USERS, **facts: Any) -> dict[str, int]:
    """Which version each user would get now."""
    table = stage.dataplane.current.table
    return {user: decide(table, Facts(MODEL, key=user, **facts)).version.number for user in users}


async def change(stage: Scene, weights: dict[int, int]) -> Any:
    asked = {str(version): weight for version, weight in weights.items()}
    view = await stage.plane.routes.set_weights(MODEL, asked, actor="olga")
    await stage.plane.routes.wait_applied(MODEL, view["revision"], timeout_s=60)
    return view


def moved(before: dict[str, int], after: dict[str, int]) -> Counter[tuple[int, int]]:
    return Counter((before[user], after[user]) for user in before if before[user] != after[user])


async def test_sticky_sessions_hold_under_weights_on_every_replica_and_after_a_restart(tmp_path: Path) -> None:
    """Pain 14: a user's version follows from the key and the document alone: no memory to lose, none to disagree."""
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    async with scene(tmp_path / "one", store=Link(store), clock=clock, versions=3) as one:
        await one.put({1: 60, 2: 30, 3: 10})
        await change(one, {1: 30, 2: 30, 3: 40})
        await change(one, {1: 30, 2: 60, 3: 10})
        first = answered(one)
        async with scene(tmp_path / "two", store=Link(store), clock=clock, versions=0) as two:
            await until(lambda: two.dataplane.current.table.revision == one.dataplane.current.table.revision)
            await until(lambda: two.arms() == one.arms())
            assert answered(two) == first
    async with scene(tmp_path / "again", store=store, clock=clock, versions=0) as again:
        await until(lambda: MODEL in again.dataplane.current.table.routes and again.arms())
        assert answered(again) == first
        records = [await again.predict(key=user) for user in USERS[:50]]
        assert [record.answered_by for record in records] == [ref(first[user]) for user in USERS[:50]]


async def test_the_candidates_share_does_not_creep_up(tmp_path: Path) -> None:
    """Pain 15: users come back again and again, some of them with new keys; 10% is 10% on the first day and the last.
    Nothing is remembered of who was once answered by the candidate."""
    async with scene(tmp_path, versions=2) as stage:
        await stage.put({1: 90, 2: 10})
        chance = random.Random(15)
        shares = []
        for day in range(20):
            visitors = [f"visitor-{chance.randrange(day * 2000, day * 2000 + 20_000)}" for _ in range(5000)]
            shares.append(sum(version == 2 for version in answered(stage, visitors).values()) / len(set(visitors)))
        assert all(abs(share - 0.1) < 0.02 for share in shares)


async def test_nobody_goes_back_to_the_older_version_while_the_new_one_grows(tmp_path: Path) -> None:
    """Pain 16: 1, 5, 25, 100%: whoever has the new version keeps it, and whoever need not change stays."""
    async with scene(tmp_path, versions=2) as stage:
        await stage.put({1: 100})
        before = answered(stage)
        for weight in (1, 5, 25, 100):
            await change(stage, {1: 100 - weight, 2: weight})
            after = answered(stage)
            assert moved(before, after).keys() <= {(1, 2)}
            before = after
        assert set(before.values()) == {2}


async def test_edited_weights_apply_at_once_and_no_old_arm_lingers(tmp_path: Path) -> None:
    """Pain 17: after the answer every request goes by the new weights; at 0, or left out, an arm gets none."""
    async with scene(tmp_path, versions=4) as stage:
        await stage.put({1: 40, 2: 30, 3: 30})
        view = await change(stage, {1: 0, 3: 50, 4: 50})
        assert stage.arms() == {3: 50, 4: 50}
        assert set(answered(stage).values()) == {3, 4}
        decided = [(await stage.predict(key=user)).decision for user in USERS[:20]]
        assert {decision.epoch for decision in decided if decision is not None} == {view["status"]["epoch"]}
        await stage.put({2: 1})
        assert set(answered(stage).values()) == {2}


async def test_more_than_two_versions_rules_and_direct_access_live_in_one_route(tmp_path: Path) -> None:
    """Pain 18: five arms, a rule that sends some to a version or to a split of its own, the key out of a header, and a
    tester who names a version of weight 0; others may not, where the route says so."""
    rules = [
        {"name": "staff", "if": {"==": [{"var": "group"}, "staff"]}, "use": 6},
        {
            "name": "beta",
            "if": {"==": [{"var": "beta"}, True]},
            "use": [{"version": 4, "weight": 1}, {"version": 5, "weight": 1}],
        },
    ]
    async with scene(tmp_path) as stage:
        split = {1: 20, 2: 20, 3: 20, 4: 20, 5: 20, 6: 0}
        await stage.put(split, rules=rules, key="header:x-user-id", pin="allowed")
        assert set(answered(stage).values()) == {1, 2, 3, 4, 5}
        assert set(answered(stage, context={"group": "staff"}).values()) == {6}
        assert set(answered(stage, context={"beta": True}).values()) == {4, 5}
        table, keyed = stage.dataplane.current.table, answered(stage)
        by_header = {user: decide(table, Facts(MODEL, headers={"x-user-id": user})).version.number for user in USERS}
        assert by_header == keyed
        direct = InferRequest(MODEL, "r", "d", None, key="ada", pin=6)
        assert decide(table, direct).version == ref(6)
        await stage.put(split, pin="denied")
        with pytest.raises(Forbidden):
            decide(stage.dataplane.current.table, direct)


@pytest.mark.parametrize(("least", "of"), [(1, 1000), (1, 1_000_000), (3, 2**31 - 1)])
async def test_a_split_far_below_a_percent_is_kept(tmp_path: Path, least: int, of: int) -> None:
    """Pain 23: one in a thousand, in a million, in 700 million: to within one key place in four billion."""
    async with scene(tmp_path, versions=2) as stage:
        view = await stage.put({1: of - least, 2: least})
        ends = [end for end, _ in view["status"]["assignment"]["split"]["intervals"]]
        assert abs((ends[1] - ends[0]) - least * 2**32 / of) <= 1
        if of == 1000:
            visitors = [f"visitor-{number}" for number in range(100_000)]
            found = sum(version == 2 for version in answered(stage, visitors).values())
            assert abs(found - 100) <= 4 * 10


async def test_a_change_of_weights_reshuffles_nobody_who_need_not_move(tmp_path: Path) -> None:
    """Pain 24: keys go from arms that lose to arms that gain, in just the share that the weights say; and each such
    change has an epoch of its own, so that nobody counts two of them together."""
    steps = [
        ({1: 80, 2: 10, 3: 10}, {1: 70, 2: 20, 3: 10}, {(1, 2)}, 0.1),
        ({1: 50, 2: 50}, {1: 50, 2: 50, 3: 10}, {(1, 3), (2, 3)}, 1 / 11),
        ({1: 60, 2: 30, 3: 10}, {1: 60, 3: 40}, {(2, 3)}, 0.3),
        ({1: 25, 2: 25, 3: 25, 4: 25}, {1: 25, 2: 5, 3: 45, 4: 25}, {(2, 3)}, 0.2),
    ]
    async with scene(tmp_path, versions=4) as stage:
        for start, end, pairs, least in steps:
            epoch = (await stage.put(start))["status"]["epoch"]
            before = answered(stage)
            view = await change(stage, end)
            found = moved(before, answered(stage))
            assert found.keys() == pairs
            assert abs(sum(found.values()) / len(USERS) - least) < 0.03
            assert view["status"]["epoch"] == epoch + 1
