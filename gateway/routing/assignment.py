"""Which version each place of the key space belongs to: as flagd has it at first, then moved as little as can be.

A key's *place* is its hash, 0 to 2^32 - 1 (``split.place_of``). An assignment cuts that space into intervals, each a
version's. ``first`` puts the borders where flagd's ``fractional`` v2 has them: cumulative weight c of a total t ends
at ``ceil(c * 2^32 / t)``, since ``(place * t) >> 32 < c`` exactly when ``place < c * 2^32 / t``. ``moved`` gives what
other weights ask for: an arm that grows keeps all it has, an arm that shrinks gets nothing, so that exactly the
difference changes hands. Hashing anew instead would move twice of that with three arms, and more with more. (Shares
are rounded to whole places as flagd's borders round them, so that two arms always stand where flagd has them.)

Any places of the arms that shrink would do. These are chosen, so that intervals stay few (compare Miranda et al.,
"Random Slicing", ACM Transactions on Storage 10(3), 2014, whose gaps are collected likewise):

1. an arm that comes back takes what it had when it left, as far as those who hold it must shrink anyway;
2. an interval that goes wholly goes to a neighbour: each of these makes one or two borders fewer;
3. a border between one that shrinks and one that grows moves: no border more;
4. only where no such two touch is a new interval made: an entire one changes its version, or a piece is cut off
   where two that shrink meet, else at the end of the space, else from an end towards an arm that is touched elsewhere
   too, else out of the middle of the longest, so that all who touched still touch.

By 4 two arms touch from their first exchange on, and later exchanges fall under 3: a ramp of many steps, or of many
arms by turns, adds nothing. So there are about two intervals for each pair of arms that ever exchanged places: in
10,000 random changes of 8 arms never more than 71, of 64 arms 3,600. An adversary who picks each change to that end
wins an interval in four changes, without an end that is known. So the number is bounded (``most_intervals``, far above
what chance reaches): beyond it the shortest intervals are exchanged for as many places where the same two arms touch
elsewhere, which moves those few keys more than the least: under such an adversary one in a million a change.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

__all__ = ["SPACE", "Assignment", "Interval", "first", "most_intervals", "moved", "transfers"]

SPACE = 2**32
MIN_MOST_INTERVALS = 256
MAX_FORMER_ARMS = 16
MAX_FORMER_INTERVALS = 64

Spans = tuple[tuple[int, int], ...]


class Interval(NamedTuple):
    """The places from ``start`` up to, not including, ``end``."""

    start: int
    end: int
    version: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """``ends`` ascend to ``SPACE``, none for a split without weight; neighbours differ in their version.

    ``former`` is what arms had that have left, or are smaller since: most recent last, and forgotten from the front.
    """

    ends: tuple[int, ...] = ()
    versions: tuple[int, ...] = ()
    former: Mapping[int, Spans] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[Interval]:
        start = 0
        for end, version in zip(self.ends, self.versions, strict=True):
            yield Interval(start, end, version)
            start = end

    def at(self, place: int) -> Interval:
        """The interval around ``place``. Raises IndexError when nobody has any."""
        index = bisect_right(self.ends, place)
        return Interval(self.ends[index - 1] if index else 0, self.ends[index], self.versions[index])

    def sizes(self) -> dict[int, int]:
        """How many places each version has."""
        sizes: dict[int, int] = {}
        for start, end, version in self:
            sizes[version] = sizes.get(version, 0) + end - start
        return sizes

    def same_keys(self, other: Assignment) -> bool:
        """Whether each place belongs to the same version."""
        return self.ends == other.ends and self.versions == other.versions

    def fits(self, weights: Mapping[int, int]) -> bool:
        """Whether each version has its weight's share, rounded either way."""
        total, sizes = sum(weights.values()), self.sizes()
        if not total:
            return not sizes
        shares = {version: weight * SPACE for version, weight in weights.items() if weight}
        return shares.keys() == sizes.keys() and all(
            share // total <= sizes[version] <= -(-share // total) for version, share in shares.items()
        )


def first(weights: Mapping[int, int]) -> Assignment:
    """As flagd's ``fractional`` v2 assigns them, for arms in the order of ``weights``."""
    total, reached = sum(weights.values()), 0
    ends, versions = [], []
    for version, weight in weights.items():
        if weight:
            reached += weight
            ends.append(-(-reached * SPACE // total))
            versions.append(version)
    return Assignment(tuple(ends), tuple(versions))


def most_intervals(arms: int) -> int:
    """Twice what it takes for each arm to touch each other one on both sides."""
    return max(MIN_MOST_INTERVALS, 2 * arms * (arms - 1))


def moved(assignment: Assignment, weights: Mapping[int, int], *, most: int | None = None) -> Assignment:
    """The assignment for ``weights`` that takes the fewest places from anybody; itself when they hold already.

    It has at most ``most`` intervals (``most_intervals`` of the arms), if need be at the cost of a few places more.
    """
    if not any(weights.values()):
        return Assignment(former=_former(assignment, {})) if assignment.ends else assignment
    if assignment.fits(weights):
        return assignment
    fresh, held = first(weights), assignment.sizes()
    sizes = _sizes(weights, held, fresh.sizes())
    if not assignment.ends:
        return replace(fresh, former=_remembered(assignment.former, sizes))
    layout = _Layout(assignment, sizes, held)
    layout.exchange(assignment.former)
    bound = most_intervals(len(sizes)) if most is None else most
    return Assignment(*layout.compacted(bound), former=_former(assignment, sizes))


def transfers(before: Assignment, after: Assignment) -> dict[tuple[int, int], int]:
    """How many places change from which version to which. Both must have intervals."""
    found: dict[tuple[int, int], int] = {}
    start = 0
    for end in sorted({*before.ends, *after.ends}):
        pair = before.at(start).version, after.at(start).version
        if pair[0] != pair[1]:
            found[pair] = found.get(pair, 0) + end - start
        start = end
    return found


def _sizes(weights: Mapping[int, int], held: Mapping[int, int], fresh: Mapping[int, int]) -> dict[int, int]:
    """Places for each arm: its exact share, rounded as it is already, else as in ``fresh``, as far as the sum allows.

    So rounding alone takes no place from an arm whose share stays.
    """
    total = sum(weights.values())
    sizes = {version: weight * SPACE // total for version, weight in weights.items() if weight}
    rounded = [version for version in sizes if weights[version] * SPACE % total]

    def rank(version: int) -> int:
        over = held.get(version, 0) - sizes[version]
        return {1: 0, 0: 3}.get(over, 1 if fresh[version] > sizes[version] else 2)

    for version in sorted(rounded, key=rank)[: SPACE - sum(sizes.values())]:
        sizes[version] += 1
    return sizes


def _former(assignment: Assignment, sizes: Mapping[int, int]) -> dict[int, Spans]:
    """What is remembered once the arms have ``sizes``: also those that ``assignment`` had and which are gone."""
    left: dict[int, list[tuple[int, int]]] = {}
    for start, end, version in assignment:
        if version not in sizes:
            left.setdefault(version, []).append((start, end))
    kept = {version: spans for version, spans in assignment.former.items() if version not in left}
    return _remembered(kept | {version: tuple(spans) for version, spans in left.items()}, sizes)


def _remembered(former: Mapping[int, Spans], sizes: Mapping[int, int]) -> dict[int, Spans]:
    """Without those that have as much again, nor those too fragmented to be worth it; the most recent ones."""
    wanted = {
        version: spans
        for version, spans in former.items()
        if sizes.get(version, 0) < sum(end - start for start, end in spans) and len(spans) <= MAX_FORMER_INTERVALS
    }
    return dict(list(wanted.items())[-MAX_FORMER_ARMS:])


class _Layout:
    """Intervals while they change hands: ``_starts`` with an owner each, the last one ending at ``SPACE``.

    ``_spare`` is what an arm has still to give, ``_wants`` what it has still to get; an arm is in one of them or none.
    """

    def __init__(self, assignment: Assignment, sizes: Mapping[int, int], held: Mapping[int, int]) -> None:
        self._starts = [interval.start for interval in assignment]
        self._owners = list(assignment.versions)
        arms = [*sizes, *(version for version in held if version not in sizes)]
        gains = {version: sizes.get(version, 0) - held.get(version, 0) for version in arms}
        self._wants = {version: gain for version, gain in gains.items() if gain > 0}
        self._spare = {version: -gain for version, gain in gains.items() if gain < 0}

    def exchange(self, former: Mapping[int, Spans]) -> None:
        for version in reversed(list(former)):
            for start, end in former[version]:
                self._take_back(version, start, end)
        self._merge()
        while self._spare:
            while self._give_whole() or self._move_borders():
                self._merge()
            if self._spare:
                self._plant()
                self._merge()

    def compacted(self, most: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ends and versions; of more than ``most`` the shortest are exchanged away."""
        while len(self._starts) > most and self._exchange_shortest():
            self._merge()
        return (*self._starts[1:], SPACE), tuple(self._owners)

    def _end(self, index: int) -> int:
        return self._starts[index + 1] if index + 1 < len(self._starts) else SPACE

    def _length(self, index: int) -> int:
        return self._end(index) - self._starts[index]

    def _neighbours(self, index: int) -> tuple[int | None, int | None]:
        owners = self._owners
        return (owners[index - 1] if index else None), (owners[index + 1] if index + 1 < len(owners) else None)

    def _cut(self, place: int) -> None:
        """A border there, if there is none."""
        index = bisect_left(self._starts, place)
        if place < SPACE and (index == len(self._starts) or self._starts[index] != place):
            self._starts.insert(index, place)
            self._owners.insert(index, self._owners[index - 1])

    def _merge(self) -> None:
        both = [
            (start, owner)
            for index, (start, owner) in enumerate(zip(self._starts, self._owners, strict=True))
            if not index or owner != self._owners[index - 1]
        ]
        self._starts, self._owners = [start for start, _ in both], [owner for _, owner in both]

    def _give(self, start: int, end: int, to: int) -> None:
        """Places of one interval of an arm that shrinks, to one that grows."""
        self._cut(start)
        self._cut(end)
        index = bisect_left(self._starts, start)
        for account, arm in ((self._spare, self._owners[index]), (self._wants, to)):
            account[arm] -= end - start
            if not account[arm]:
                del account[arm]
        self._owners[index] = to

    def _take_back(self, version: int, start: int, end: int) -> None:
        while start < end and version in self._wants:
            index = bisect_right(self._starts, start) - 1
            stop, owner = min(end, self._end(index)), self._owners[index]
            amount = min(stop - start, self._spare.get(owner, 0), self._wants[version])
            if amount:
                self._give(start, start + amount, version)
            start = stop

    def _give_whole(self) -> bool:
        """Intervals that may go wholly, to a neighbour that has room; between two parts of one arm first, then the
        shortest. Whether there were any."""
        found = []
        for index, owner in enumerate(self._owners):
            length = self._length(index)
            if length <= self._spare.get(owner, 0) and self._roomy(index, length) is not None:
                left, right = self._neighbours(index)
                found.append((left != right, length, self._starts[index]))
        given = False
        for _, length, start in sorted(found):
            index = bisect_left(self._starts, start)
            taker = self._roomy(index, length)
            if taker is not None and length <= self._spare.get(self._owners[index], 0):
                self._give(start, start + length, taker)
                given = True
        return given

    def _roomy(self, index: int, length: int) -> int | None:
        """The neighbour that wants most, and at least ``length``."""
        wanting = [arm for arm in self._neighbours(index) if arm is not None and self._wants.get(arm, 0) >= length]
        return max(wanting, key=self._wants.__getitem__) if wanting else None

    def _move_borders(self) -> bool:
        """Between one that shrinks and one that grows, where the interval that gives is longest. Whether any moved."""
        found = []
        for index, (left, right) in enumerate(pairwise(self._owners)):
            if left in self._spare and right in self._wants:
                found.append((-self._length(index), self._starts[index + 1], True))
            elif right in self._spare and left in self._wants:
                found.append((-self._length(index + 1), self._starts[index + 1], False))
        moved = False
        for _, border, leftwards in sorted(found):
            index = bisect_left(self._starts, border)
            giver, taker = (index - 1, index) if leftwards else (index, index - 1)
            spare, wants = self._spare.get(self._owners[giver], 0), self._wants.get(self._owners[taker], 0)
            amount = min(spare, wants, self._length(giver))
            if amount:
                start = border - amount if leftwards else border
                self._give(start, start + amount, self._owners[taker])
                moved = True
        return moved

    def _plant(self) -> None:
        """One new interval for an arm that touches nobody who may give."""
        giver = max(self._spare, key=self._spare.__getitem__)
        taker = max(self._wants, key=self._wants.__getitem__)
        amount = min(self._spare[giver], self._wants[taker])
        own = [index for index, owner in enumerate(self._owners) if owner == giver]
        whole = [index for index in own if self._length(index) <= amount]
        if whole:
            index = max(whole, key=self._length)
            self._give(self._starts[index], self._end(index), taker)
        else:
            start = self._piece(giver, own, amount)
            self._give(start, start + amount, taker)

    def _piece(self, giver: int, own: list[int], amount: int) -> int:
        """Where to cut ``amount`` off the giver's intervals, each of which is longer."""
        touches = Counter(arm for index in own for arm in self._neighbours(index) if arm is not None)
        ranked = []
        for index in own:
            left, right = self._neighbours(index)
            for arm, start in ((right, self._end(index) - amount), (left, self._starts[index])):
                if arm in self._spare:
                    ranked.append((0, -self._length(index), start))
                elif arm is None:
                    ranked.append((1, -start, start))
                elif touches[arm] > 1:
                    ranked.append((2, -self._length(index), start))
        if ranked:
            return min(ranked)[2]
        longest = max(own, key=self._length)
        return self._starts[longest] + (self._length(longest) - amount) // 2

    def _exchange_shortest(self) -> bool:
        """The shortest interval to a neighbour, which gives as much back where the two touch elsewhere."""
        for index in sorted(range(len(self._owners)), key=self._length):
            owner, length, start = self._owners[index], self._length(index), self._starts[index]
            for arm in self._neighbours(index):
                for other, (left, right) in enumerate(pairwise(self._owners)):
                    touching = {left, right} == {owner, arm} and index not in (other, other + 1)
                    giver = other if left == arm else other + 1
                    if touching and arm is not None and self._length(giver) > length:
                        border = self._starts[other + 1]
                        back = border - length if giver == other else border
                        self._spare, self._wants = {owner: length, arm: length}, {owner: length, arm: length}
                        self._give(start, start + length, arm)
                        self._give(back, back + length, owner)
                        return True
        return False
