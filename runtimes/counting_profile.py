"""A profile: a plan with the counts of the reference itself, which live counts are compared with.

Besides what the plan counts it keeps, of the reference, the counts of consecutive parts (``segments``), which show how
much it varies in itself, and for each block the second moments of its random features (``spreads``), which tell the
null distribution of their means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtimes.base import Array
from runtimes.counting import Plan, decoded, encoded
from runtimes.counting_rows import Counter

__all__ = ["Profile", "Reckoning"]

SEGMENTS = 16
_SEGMENT_NUMBERS = 40_000
"""Numbers that the segments may have together: a profile is kept small enough to read in a moment."""


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """Read from its JSON. ``segments`` are (rows, vector) each; ``spreads`` one a block, over 2 m features, cos first.

    ``rows`` and ``reference`` are of the reference counted; ``told`` is the JSON's rest, for people.
    """

    plan: Plan
    rows: int
    reference: Array
    segments: tuple[tuple[int, Array], ...]
    spreads: tuple[Array, ...]
    told: Mapping[str, Any]

    @classmethod
    def from_json(cls, body: Mapping[str, Any], digest: str = "") -> Profile:
        """ValueError for what is no profile."""
        plan = Plan.from_json(body, digest)
        try:
            reference = decoded(body["reference"]["counts"])
            rows = int(body["reference"]["rows"])
            segments = tuple((int(part["rows"]), decoded(part["counts"])) for part in body["segments"])
            spreads = tuple(
                decoded(text).reshape(2 * block.waves, 2 * block.waves)
                for text, block in zip(body["spreads"], plan.blocks, strict=False)
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"no profile: {type(error).__name__}: {error}") from error
        if len(body["spreads"]) != len(plan.blocks):
            raise ValueError(f"the profile has {len(plan.blocks)} blocks, and spreads of {len(body['spreads'])}")
        if any(len(vector) != plan.size for vector in (reference, *(vector for _, vector in segments))):
            raise ValueError("the profile's counts do not have the size of its plan")
        told = {name: body[name] for name in ("seed", "rows", "sampled_rows", "skipped") if name in body}
        return cls(plan, rows, reference, segments, spreads, told)


class Reckoning:
    """Counts reference rows with a frozen plan, and completes the profile with what they gave."""

    def __init__(self, body: Mapping[str, Any], rows: int) -> None:
        """``rows`` are about as many as will come."""
        self._body = body
        self._plan = Plan.from_json(body)
        self._counter = Counter(self._plan, spread=True)
        parts = max(1, min(SEGMENTS, _SEGMENT_NUMBERS // self._plan.size))
        self._each = max(1, -(-rows // parts))
        self._segments: list[tuple[int, Array]] = []
        self.rows = 0

    def add(self, tensors: Mapping[tuple[str, str], Array]) -> bool:
        """Flattened rows; False when they do not fit the plan."""
        if not self._counter.fits(tensors):
            return False
        count = len(next(iter(tensors.values())))
        begin = 0
        while begin < count:
            end = min(count, begin + self._each - self._counter.rows)
            self._counter.add_rows({place: rows[begin:end] for place, rows in tensors.items()})
            if self._counter.rows == self._each:
                self._segments.append(self._counter.take())
            begin = end
        self.rows += count
        return True

    def finished(self) -> dict[str, Any]:
        """The profile. ValueError without rows."""
        if self._counter.rows:
            self._segments.append(self._counter.take())
        if not self._segments:
            raise ValueError("no row of the reference could be counted")
        total = sum((vector for _, vector in self._segments[1:]), self._segments[0][1])
        return dict(self._body) | {
            "reference": {"rows": self.rows, "counts": encoded(total)},
            "segments": [{"rows": rows, "counts": encoded(vector)} for rows, vector in self._segments],
            "spreads": [encoded(spread.ravel()) for spread in self._counter.spreads],
        }
