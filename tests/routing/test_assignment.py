"""Assignments of the key space: the least moves, whatever changes; few intervals, however long; nobody sent back."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.routing.assignment import SPACE, Assignment, first, most_intervals, moved, transfers

weights = st.one_of(st.just(0), st.integers(1, 100), st.integers(1, 2**31 // 8 - 1))
splits = st.dictionaries(st.integers(1, 8), weights, min_size=1, max_size=8).filter(lambda split: any(split.values()))


def least_share(before: Mapping[int, int], after: Mapping[int, int]) -> float:
    """What no assignment can move less than: the sum of what the arms lose, in exact shares of the weights."""
    was, now = sum(before.values()), sum(after.values())
    lost = (weight * now - after.get(version, 0) * was for version, weight in before.items())
    return sum(max(0, part) for part in lost) / (was * now)


def moved_share(before: Assignment, after: Assignment) -> float:
    return sum(transfers(before, after).values()) / SPACE


def check_sound(assignment: Assignment, split: Mapping[int, int]) -> None:
    assert assignment.fits(split)
    assert assignment.ends[-1] == SPACE
    assert list(assignment.ends) == sorted(set(assignment.ends))
    assert all(one != two for one, two in zip(assignment.versions, assignment.versions[1:], strict=False))


@settings(max_examples=300, deadline=None)
@given(st.lists(splits, min_size=2, max_size=30))
def test_any_chain_of_changes_moves_the_theoretical_minimum_at_every_step(chain: list[dict[int, int]]) -> None:
    """Up to 8 arms of any weights, that come, go, grow and shrink at once: to one part in a million, and exactly as
    the rounded sizes say."""
    assignment, split = first(chain[0]), chain[0]
    for fresh in chain[1:]:
        after = moved(assignment, fresh)
        check_sound(after, fresh)
        before, sizes = assignment.sizes(), after.sizes()
        assert sum(transfers(assignment, after).values()) == sum(
            max(0, size - sizes.get(version, 0)) for version, size in before.items()
        )
        assert abs(moved_share(assignment, after) - least_share(split, fresh)) <= 1e-6
        assignment, split = after, fresh


def test_64_arms_move_the_minimum_too() -> None:
    """The most that a route may have, all of them changing at once, some of them leaving."""
    chance = random.Random(64)
    split = {number: chance.randint(0, 2**24) for number in range(64)}
    assignment = first(split)
    for _ in range(20):
        fresh = {number: chance.choice([0, chance.randint(1, 2**24)]) for number in range(64)}
        after = moved(assignment, fresh)
        check_sound(after, fresh)
        assert abs(moved_share(assignment, after) - least_share(split, fresh)) <= 1e-6
        assignment, split = after, fresh


@given(splits, st.lists(splits, max_size=5), st.integers(2, 1000))
def test_weights_that_hold_already_move_nothing(split: dict[int, int], chain: list[dict[int, int]], by: int) -> None:
    """The same document after the same change: also when weights are multiplied, or given in another order."""
    assignment = first(split)
    for fresh in [*chain, split]:
        assignment = moved(assignment, fresh)
    multiplied = {version: weight * by for version, weight in reversed(split.items())}
    assert moved(assignment, split) == moved(assignment, multiplied) == assignment


@given(splits, splits)
def test_an_arm_that_grows_keeps_every_key_and_one_that_shrinks_gets_none(
    one: dict[int, int], two: dict[int, int]
) -> None:
    """Nobody is swapped: keys go from arms that lose to arms that gain, and nowhere else."""
    before = first(one)
    after = moved(before, two)
    held, has = before.sizes(), after.sizes()
    for giver, taker in transfers(before, after):
        assert has.get(giver, 0) < held[giver]
        assert has[taker] > held.get(taker, 0)


@given(st.lists(st.integers(1, 99), min_size=1, max_size=10))
def test_two_arms_are_always_where_flagd_has_them(canary: list[int]) -> None:
    """A plain canary, whatever its history, agrees with every other flagd for all keys."""
    assignment = first({3: 100})
    for weight in canary:
        split = {3: 100 - weight, 4: weight}
        assignment = moved(assignment, split)
        assert assignment.same_keys(first(split))


def test_a_canary_that_grows_never_gives_a_key_back() -> None:
    """1, 5, 25, 100 beside two other arms: each stage has all keys of the one before."""
    assignment = first({3: 60, 2: 40})
    held: set[int] = set()
    sample = range(0, SPACE, 100_003)
    for weight in (1, 5, 25, 100):
        assignment = moved(assignment, {3: 60 * (100 - weight), 2: 40 * (100 - weight), 4: 100 * weight})
        has = {place for place in sample if assignment.at(place).version == 4}
        assert held < has
        held = has
    assert len(assignment) == 1


@settings(max_examples=200)
@given(splits, st.integers(1, 8), st.lists(splits, max_size=3))
def test_an_arm_that_left_and_comes_back_gets_the_keys_it_had(
    split: dict[int, int], gone: int, others: list[dict[int, int]]
) -> None:
    """At no cost: with the same weights as before everybody has what they had, where no other change came between."""
    before = first(split)
    for fresh in others:
        before = moved(before, fresh)
    split = split if not others else others[-1]
    rest = {version: weight for version, weight in split.items() if version != gone}
    if not any(rest.values()) or not split.get(gone):
        return
    again = moved(moved(before, rest), split)
    assert sum(transfers(before, again).values()) <= 2 * len(split), "more than rounding to whole places"
    assert moved_share(moved(before, rest), again) <= least_share(rest, split) + 1e-6


def test_an_arm_that_comes_back_small_and_grows_has_its_old_keys_first() -> None:
    """25% rolled back, lifted, 1%, 10%: those who had it are the first to have it again."""
    had = moved(first({3: 100}), {3: 75, 4: 25})
    assignment = moved(had, {3: 100})
    for weight in (1, 10, 25):
        assignment = moved(assignment, {3: 100 - weight, 4: weight})
        for interval in assignment:
            if interval.version == 4:
                assert had.at(interval.start).version == had.at(interval.end - 1).version == 4
    assert assignment.same_keys(had)
    assert not assignment.former


def test_a_split_without_weight_has_no_intervals_and_forgets_nobody() -> None:
    """All its arms in quarantine, then lifted one by one: they meet again where they were."""
    before = first({4: 1, 5: 1})
    nobody = moved(before, {})
    assert (nobody.ends, nobody.sizes(), nobody.fits({4: 0})) == ((), {}, True)
    with pytest.raises(IndexError):
        nobody.at(0)
    assert moved(nobody, {}) == nobody
    alone = moved(nobody, {4: 1})
    assert list(alone) == [(0, SPACE, 4)]
    assert moved(alone, {4: 1, 5: 1}).same_keys(before)


STYLES = ("all at once", "one at a time", "between two", "small steps")


def change(chance: random.Random, split: dict[int, int], style: str) -> dict[int, int]:
    fresh = dict(split)
    one, two = chance.sample(sorted(split), 2)
    if style == "all at once":
        fresh = {version: chance.choice([0, chance.randint(1, 100)]) for version in split}
    elif style == "one at a time":
        fresh[one] = chance.choice([0, 1, chance.randint(1, 1000)])
    elif style == "between two":
        amount = chance.randint(0, fresh[one])
        fresh[one], fresh[two] = fresh[one] - amount, fresh[two] + amount
    else:
        fresh[one] = max(1, fresh[one] + chance.randint(-3, 3))
    return fresh if any(fresh.values()) else split


def after_changes(arms: int, changes: int, style: str) -> Iterator[Assignment]:
    chance = random.Random(style)
    split = dict.fromkeys(range(arms), 100)
    assignment = first(split)
    for _ in range(changes):
        split = change(chance, split, style)
        assignment = moved(assignment, split)
        yield assignment


@pytest.mark.parametrize("style", STYLES)
def test_fragmentation_stays_bounded_over_10_000_random_changes(style: str) -> None:
    """8 arms: about two intervals for each pair of arms, which is 56, and no more after the last change than early
    on. What is remembered of arms that left is bounded, too."""
    most = 0
    for assignment in after_changes(8, 10_000, style):
        most = max(most, len(assignment))
        assert sum(map(len, assignment.former.values())) <= 16 * 64
    assert most <= 2 * (8 * 7 // 2) + 24 < most_intervals(8)


def test_a_bound_of_intervals_holds_whatever_comes() -> None:
    """Past it the shortest are exchanged for their like elsewhere; sizes stay exact, and few keys more move."""
    chance = random.Random(7)
    split = dict.fromkeys(range(8), 100)
    assignment = first(split)
    for _ in range(200):
        fresh = change(chance, split, "small steps")
        after = moved(assignment, fresh, most=40)
        check_sound(after, fresh)
        assert len(after) <= 40
        assert moved_share(assignment, after) <= least_share(split, fresh) + 0.01
        assignment, split = after, fresh


def test_who_moves_from_which_to_which_is_told() -> None:
    """In places, by pairs of versions."""
    before, after = first({3: 90, 4: 10}), moved(first({3: 90, 4: 10}), {3: 70, 4: 10, 5: 20})
    found = transfers(before, after)
    assert found.keys() == {(3, 5)}
    assert abs(found[3, 5] / SPACE - 0.2) < 1e-9
    assert transfers(after, after) == {}
