"""How a route's answers are compared with the truth when it comes: part of the table, since answers are kept by it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any

__all__ = ["CLASSIFICATION", "GRADE", "REGRESSION", "Slice", "Truth"]

CLASSIFICATION, REGRESSION, GRADE = "classification", "regression", "grade"
_SCORED = {CLASSIFICATION: "brier", REGRESSION: "error", GRADE: "grade"}

NO_VALUE = "(none)"
"""The group of what has no value of the slice."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Groups that are measured by themselves, under ``name``: by a field of the request's context, or by an input that
    has one value a row. ``edges``: numbers are put into the intervals between them."""

    name: str
    field: str
    of_input: bool = False
    edges: tuple[float, ...] = ()

    def group_of(self, value: object) -> str:
        """The group's name, at most 64 characters."""
        if value is None or isinstance(value, Mapping | list | tuple):
            return NO_VALUE
        if self.edges:
            return self._interval(value)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float) and value.is_integer():
            value = int(value) if abs(value) < 2**53 else value
        return str(value)[:64] or NO_VALUE

    def _interval(self, value: object) -> str:
        if isinstance(value, bool) or not isinstance(value, int | float) or isnan(value):
            return NO_VALUE
        place = bisect_right(self.edges, value)
        if place == 0:
            return f"< {self.edges[0]:g}"
        if place == len(self.edges):
            return f">= {self.edges[-1]:g}"
        return f"{self.edges[place - 1]:g} to {self.edges[place]:g}"

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "field": self.field, "of_input": self.of_input, "edges": list(self.edges)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Slice:
        return cls(body["name"], body["field"], body["of_input"], tuple(body["edges"]))


@dataclass(frozen=True, slots=True)
class Truth:
    """``output`` holds the answer that a label is compared with, one a row: a class, a number, or the scores of all
    classes, whose largest is then the answer; of a ``grade``, where the label itself says how good an answer was, it is
    empty. ``score`` holds scores beside it: one a row, of ``positive``, or one for
    each class, in the order of ``classes`` (none: 0, 1, 2 and so on). Without an ``output`` for it, an answer is
    ``positive`` from ``threshold`` on.

    ``positive`` is the class that precision, recall and the like speak of. A label that comes ``late_after_s`` after
    its answer is late, one after ``horizon_s`` no longer counts. ``wrong_above``: a number that is further off than
    this is a wrong answer to a rollout's judge (None: regression tells it of no wrong ones).
    """

    task: str
    output: str
    score: str | None = None
    classes: tuple[str, ...] = ()
    positive: str | None = None
    threshold: float = 0.5
    slices: tuple[Slice, ...] = ()
    horizon_s: float = 7 * 86400.0
    late_after_s: float = 86400.0
    wrong_above: float | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """Of the request's context, what is kept with an answer until its label comes."""
        return tuple(cut.field for cut in self.slices if not cut.of_input)

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(cut.field for cut in self.slices if cut.of_input)

    @property
    def outputs(self) -> tuple[str, ...]:
        if not self.output:
            return ()
        return (self.output,) if self.score in (None, self.output) else (self.output, str(self.score))

    @property
    def tells_wrong(self) -> bool:
        """Whether a label makes an answer right or wrong."""
        return self.task == CLASSIFICATION or self.wrong_above is not None

    @property
    def scored(self) -> str:
        """What a label makes a number of, for a rollout's judge."""
        return _SCORED[self.task]

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "output": self.output,
            "score": self.score,
            "classes": list(self.classes),
            "positive": self.positive,
            "threshold": self.threshold,
            "slices": [cut.to_json() for cut in self.slices],
            "horizon_s": self.horizon_s,
            "late_after_s": self.late_after_s,
            "wrong_above": self.wrong_above,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Truth:
        """Raises KeyError, TypeError or ValueError for what ``to_json`` never wrote."""
        slices = tuple(Slice.from_json(cut) for cut in body["slices"])
        return cls(**{**body, "slices": slices, "classes": tuple(body["classes"])})
