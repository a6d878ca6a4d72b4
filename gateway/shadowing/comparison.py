"""Whether two versions' answers to one request say the same. Pure.

Where the answers have labels (outputs that are integers, booleans or strings), the labels decide: a version that was
trained anew has other probabilities for every input, and the same label for nearly all of them. Where they have none,
the numbers decide, within a tolerance; and everywhere, where an operator has named the tolerance. In either case a
shape that differs, and a number where the other has none, is a difference.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gateway.messages import Array, Arrays

__all__ = ["USUAL_TOLERANCE", "Comparison", "compare"]

USUAL_TOLERANCE = 1e-4

_LABELS = frozenset("biuOSU")
_TEXTS = frozenset("OSU")


class Comparison(NamedTuple):
    """``difference`` is the largest between two numbers, infinite where one of them is none. ``reason`` is set when
    the answers cannot be compared at all."""

    differs: bool
    difference: float = 0.0
    reason: str = ""


def compare(answer: Arrays, shadow: Arrays, tolerance: float | None = None) -> Comparison:
    """Of the outputs that both have. Two numbers agree when they are at most ``tolerance * (1 + the larger)`` apart;
    NaN agrees with NaN. None: ``USUAL_TOLERANCE``, and only where there are no labels."""
    limit = USUAL_TOLERANCE if tolerance is None else tolerance
    common = [name for name in answer if name in shadow]
    if not common:
        return Comparison(differs=True, reason=_nothing_common(answer, shadow))
    try:
        return _compare(answer, shadow, common, tolerance, limit)
    except (TypeError, ValueError) as error:  # of a type that has no order and no distance
        return Comparison(differs=True, reason=f"the answers cannot be compared: {error}")


def _compare(answer: Arrays, shadow: Arrays, common: list[str], tolerance: float | None, limit: float) -> Comparison:
    wrong = has_labels = beyond = False
    difference = 0.0
    for name in common:
        first, second = np.asarray(answer[name]), np.asarray(shadow[name])
        if _identical(first, second):
            has_labels = has_labels or first.dtype.kind in _LABELS
        elif first.shape != second.shape:
            wrong = True
        elif first.dtype.kind in _LABELS or second.dtype.kind in _LABELS:
            has_labels = True
            wrong = wrong or not _same_labels(first, second)
        else:
            apart, over = _apart(first, second, limit)
            difference = max(difference, apart)
            beyond = beyond or over
    differs = wrong or difference == np.inf or (beyond and not (has_labels and tolerance is None))
    return Comparison(differs, difference)


def _nothing_common(answer: Arrays, shadow: Arrays) -> str:
    return f"it answers with {', '.join(shadow) or 'nothing'}, the other version with {', '.join(answer) or 'nothing'}"


def _identical(first: Array, second: Array) -> bool:
    """Bit by bit: what most answers are, told in a twentieth of the time."""
    same = first.dtype == second.dtype and first.shape == second.shape and not first.dtype.hasobject
    return same and first.tobytes() == second.tobytes()


def _same_labels(first: Array, second: Array) -> bool:
    if first.dtype.kind in _TEXTS or second.dtype.kind in _TEXTS:
        return list(map(_text, first.ravel().tolist())) == list(map(_text, second.ravel().tolist()))
    return bool(np.array_equal(first, second))


def _text(label: object) -> object:
    """A string is the same label as its UTF-8; a number is never the same as a string."""
    return label.encode("utf-8", "surrogatepass") if isinstance(label, str) else label


def _apart(first: Array, second: Array, tolerance: float) -> tuple[float, bool]:
    """The largest difference, and whether any is beyond the tolerance. Equal infinities are no distance apart."""
    if not first.size:
        return 0.0, False
    one, other = first.astype(np.float64, copy=False), second.astype(np.float64, copy=False)
    with np.errstate(all="ignore"):
        distance = np.abs(one - other)
        distance[(one == other) | (np.isnan(one) & np.isnan(other))] = 0.0
        distance[np.isnan(distance)] = np.inf
        allowed = tolerance * (1.0 + np.maximum(np.abs(one), np.abs(other)))
        over = bool(np.any(distance > allowed))
    return float(distance.max()), over
