"""What is counted of one group of answers (a version's, on one day, perhaps of one slice): integers and exact sums.

A group is only ever added to, and two groups add up to the group of all their rows, in any order, to the last digit.
Scores are P(positive) where the route names a positive class, with the event that the label is that class; elsewhere
they are the answer's own confidence, with the event that the answer is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, log2
from typing import Any, NamedTuple

from gateway.telemetry.feedback.exact import ZERO, Exact

__all__ = ["BINS", "OTHER_CLASS", "RANKS", "Group", "Outcome", "Row", "Terms", "delay_bin_of", "longest_delay_of"]

BINS = 20
"""Of equal width, for calibration."""
RANKS = 256
"""Of equal width, for the area under the curve: within one, scores count as equal."""
MAX_CLASSES = 200
OTHER_CLASS = "(other)"
"""The classes beyond the first 200 that are seen, together."""

SHORTEST_S, LAST_DELAY_BIN, DELAYS_PER_OCTAVE = 0.01, 127, 4


class Row(NamedTuple):
    """One row of an answer as it is kept until its label comes: a class or a number, a score, the groups it is in."""

    answer: str | float
    score: float | None = None
    groups: tuple[str, ...] = ()


class Outcome(NamedTuple):
    """One row and its label. ``event``: what the score gave a chance for has come true."""

    row: Row
    label: str | float
    event: bool
    wrong: bool
    delay_s: float


class Terms(NamedTuple):
    """What an outcome adds to exact sums: made once, added to every group that its row is in."""

    score: Exact | None
    sums: tuple[tuple[str, Exact], ...]

    @classmethod
    def of(cls, outcome: Outcome) -> Terms:
        answer, score, _ = outcome.row
        if isinstance(answer, float) and isinstance(outcome.label, float):
            error = Exact.of(answer).add(Exact.of(-outcome.label))
            size = Exact(abs(error.units), error.scale)
            powers = ("error_squares", error.power(2)), ("error_fourths", error.power(4))
            return cls(None, (("error", error), ("error_size", size), *powers))
        if score is None:
            return cls(None, ())
        exact = Exact.of(score)
        loss = exact.add(Exact(-1)) if outcome.event else exact
        return cls(exact, (("loss", loss.power(2)), ("loss_squares", loss.power(4))))


def delay_bin_of(seconds: float) -> int:
    """Bins 19% wide, from a hundredth of a second to more than the longest horizon."""
    if seconds <= SHORTEST_S:
        return 0
    return min(ceil(DELAYS_PER_OCTAVE * log2(seconds / SHORTEST_S) - 1e-9), LAST_DELAY_BIN)


def longest_delay_of(place: int) -> float:
    """The upper end of a bin, in seconds."""
    return float(SHORTEST_S * 2.0 ** (place / DELAYS_PER_OCTAVE))


@dataclass(slots=True)
class Group:
    """``rows`` were answered, ``labelled`` of them have a label, which took ``waited_ms``, and ``wrong`` are wrong.

    ``classes``: rows labelled so, answered so, and both. ``bins`` of labelled rows with a score: how many, events, sum
    of scores; ``ranks``: without and with the event; ``given``: of all answered rows with a score, by bin and by
    whether the answer bets on the event: how many, sum of scores. ``loss`` and its squares are the Brier score's;
    ``error`` and its powers are answer less label.
    """

    rows: int = 0
    labelled: int = 0
    wrong: int = 0
    waited_ms: int = 0
    delays: dict[int, int] = field(default_factory=dict)
    classes: dict[str, list[int]] = field(default_factory=dict)
    bins: dict[int, tuple[int, int, Exact]] = field(default_factory=dict)
    ranks: dict[int, list[int]] = field(default_factory=dict)
    given: dict[tuple[int, bool], tuple[int, Exact]] = field(default_factory=dict)
    loss: Exact = ZERO
    loss_squares: Exact = ZERO
    error: Exact = ZERO
    error_size: Exact = ZERO
    error_squares: Exact = ZERO
    error_fourths: Exact = ZERO

    def answered(self, row: Row, score: Exact | None, *, bets: bool) -> None:
        """``score``: the row's. ``bets``: the answer says that the event will come."""
        self.rows += 1
        if row.score is not None and score is not None:
            place = (_place(row.score, BINS), bets)
            count, total = self.given.get(place, (0, ZERO))
            self.given[place] = (count + 1, total.add(score))

    def joined(self, outcome: Outcome, terms: Terms) -> None:
        """``terms``: the outcome's."""
        row, label = outcome.row, outcome.label
        self.labelled += 1
        self.wrong += outcome.wrong
        self.waited_ms += round(outcome.delay_s * 1000)
        place = delay_bin_of(outcome.delay_s)
        self.delays[place] = self.delays.get(place, 0) + 1
        if isinstance(row.answer, str) and isinstance(label, str):
            self._classified(row.answer, label)
        if row.score is not None and terms.score is not None:
            self._scored(row.score, terms.score, event=outcome.event)
        for name, term in terms.sums:
            setattr(self, name, getattr(self, name).add(term))

    def _classified(self, answer: str, label: str) -> None:
        for name, place in ((label, 0), (answer, 1)):
            self._of_class(name)[place] += 1
        if answer == label:
            self._of_class(label)[2] += 1

    def _of_class(self, name: str) -> list[int]:
        if name not in self.classes and len(self.classes) >= MAX_CLASSES:
            name = OTHER_CLASS
        return self.classes.setdefault(name, [0, 0, 0])

    def _scored(self, score: float, exact: Exact, *, event: bool) -> None:
        place = _place(score, BINS)
        count, events, total = self.bins.get(place, (0, 0, ZERO))
        self.bins[place] = (count + 1, events + event, total.add(exact))
        self.ranks.setdefault(_place(score, RANKS), [0, 0])[event] += 1

    def add(self, other: Group) -> None:
        self.rows += other.rows
        self.labelled += other.labelled
        self.wrong += other.wrong
        self.waited_ms += other.waited_ms
        for place, count in other.delays.items():
            self.delays[place] = self.delays.get(place, 0) + count
        for name, counts in other.classes.items():
            mine = self._of_class(name)
            mine[:] = [one + two for one, two in zip(mine, counts, strict=True)]
        for place, (count, events, total) in other.bins.items():
            known = self.bins.get(place, (0, 0, ZERO))
            self.bins[place] = (known[0] + count, known[1] + events, known[2].add(total))
        for place, counts in other.ranks.items():
            mine = self.ranks.setdefault(place, [0, 0])
            mine[:] = [one + two for one, two in zip(mine, counts, strict=True)]
        for side, (count, total) in other.given.items():
            held = self.given.get(side, (0, ZERO))
            self.given[side] = (held[0] + count, held[1].add(total))
        for name in _SUMS:
            setattr(self, name, getattr(self, name).add(getattr(other, name)))

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "labelled": self.labelled,
            "wrong": self.wrong,
            "waited_ms": self.waited_ms,
            "delays": [[place, count] for place, count in self.delays.items()],
            "classes": self.classes,
            "bins": [[place, count, events, total.to_json()] for place, (count, events, total) in self.bins.items()],
            "ranks": [[place, *counts] for place, counts in self.ranks.items()],
            "given": [[*side, count, total.to_json()] for side, (count, total) in self.given.items()],
            **{name: getattr(self, name).to_json() for name in _SUMS},
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Group:
        return cls(
            rows=body["rows"],
            labelled=body["labelled"],
            wrong=body["wrong"],
            waited_ms=body["waited_ms"],
            delays={place: count for place, count in body["delays"]},  # noqa: C416 - lists of two, not pairs
            classes={name: list(counts) for name, counts in body["classes"].items()},
            bins={place: (count, events, Exact.from_json(total)) for place, count, events, total in body["bins"]},
            ranks={place: counts for place, *counts in body["ranks"]},
            given={(place, bets): (count, Exact.from_json(total)) for place, bets, count, total in body["given"]},
            **{name: Exact.from_json(body[name]) for name in _SUMS},
        )


_SUMS = ("loss", "loss_squares", "error", "error_size", "error_squares", "error_fourths")


def _place(score: float, bins: int) -> int:
    """Scores beyond 0 and 1 (no probabilities) go into the outermost bins."""
    return min(max(int(score * bins), 0), bins - 1)
