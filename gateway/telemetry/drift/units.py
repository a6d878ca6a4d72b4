"""Whether a column comes in another unit: all its rows multiplied by one number, and the shape kept.

Growth of the world seldom does that to every row alike, and when it does, its factor is any. So a *unit* is blamed for
a factor of five and more, and below that for a factor that units are known to have, once the rows tell it from those
beside it. Moments give the factor; the shape is compared in bins, without any guess at what lies within one: the share
below an edge must lie between those of the two reference edges around that edge scaled back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gateway.telemetry.drift.cells import Counts
from gateway.telemetry.drift.columns import Moments
from runtimes.counting import Feature

__all__ = ["Rescaling", "may_have_grown", "rescaling"]

_UNITS: tuple[tuple[float, str], ...] = (
    (1.609344, "kilometres and miles"),
    (2.204623, "pounds and kilograms"),
    (2.54, "centimetres and inches"),
    (3.28084, "feet and metres"),
    (3.6, "kilometres an hour and metres a second"),
    (3.785412, "litres and gallons"),
    (4.184, "joules and calories"),
    (12.0, "months and years"),
    (24.0, "hours and days"),
    (28.34952, "grams and ounces"),
    (60.0, "minutes and hours, or seconds and minutes"),
    (100.0, "percents and shares, or cents and whole ones"),
    (1_000.0, "thousandths and whole ones"),
    (3_600.0, "seconds and hours"),
)
_SCALES: tuple[tuple[float, float, str], ...] = (
    (1.8, 32.0, "Fahrenheit and Celsius"),
    (1.0, 273.15, "Kelvin and Celsius"),
)
"""With another zero."""

_LEAST = 1.4
_NO_GROWTH = 5.0
_SHARP, _SHARP_WITH_ZERO = 0.02, 0.03
"""A known factor is told from others when chance moves the mean by so little of what the change of unit does."""
_BESIDE = 0.02
"""However few the rows, a factor further from a known one is another: 2.5 is near 2.54, 4 is not near 4.184."""
_ERRORS = 2.5
_TAILS = 5.0
"""A kurtosis less one: what the error of a deviation is taken by, between a normal's 2 and an exponential's 8."""
_OUTERMOST = 1.63
"""Of Kolmogorov and Smirnov: distribution functions of one law lie further apart once in a hundred times."""


@dataclass(frozen=True, slots=True)
class Rescaling:
    """``unit``: a change of unit or scale; else as growth would have it."""

    unit: bool
    cause: str


@dataclass(frozen=True, slots=True)
class _Column:
    """One feature, live and in the reference. ``noise``: of a mean, in deviations."""

    feature: Feature
    live: Moments
    known: Moments
    below: Counts
    below_known: Counts
    noise: float

    def like(self, factor: float, zero: float, slack: float) -> bool:
        """Whether the live values are the reference's times ``factor`` plus ``zero``, but for chance and ``slack``."""
        mean, deviation = factor * self.known.mean + zero, factor * self.known.deviation
        off = abs(self.live.mean - mean)
        wider = abs(math.log(self.live.deviation / deviation))
        return (
            off <= slack * abs(mean) + _ERRORS * deviation * self.noise + self.live.unit
            and wider <= 0.1 + slack + 3.0 * self.noise * math.sqrt(_TAILS / 4.0)
            and self._shaped(factor, zero)
        )

    def known_unit(self, factor: float, zero: float = 0.0) -> bool:
        """Whether the rows tell so, and not merely allow it."""
        if zero:
            moved, chance = abs((factor - 1.0) * self.known.mean + zero), factor * self.known.deviation * self.noise
            return chance <= _SHARP_WITH_ZERO * moved and self.like(factor, zero, 0.0)
        apart = 1.0 - min(factor, 1.0 / factor)
        sharp = self.known.deviation * self.noise <= _SHARP * apart * abs(self.known.mean)
        beside = abs(self.live.mean - factor * self.known.mean) <= _BESIDE * abs(factor * self.known.mean)
        return sharp and beside and self.like(factor, 0.0, 0.0)

    def _shaped(self, factor: float, zero: float) -> bool:
        feature = self.feature
        if feature.kind != "numeric" or not feature.edges:
            return True
        back = (np.array(feature.edges) - zero) / factor
        marks = np.array([feature.lowest, *feature.edges, np.nextafter(feature.highest, np.inf)])
        shares = np.r_[0.0, self.below_known / max(1, int(self.below_known[-1]))]  # below each mark; 1 past the last
        least = np.searchsorted(marks, back - 0.03 * np.abs(back), side="right") - 1
        most = np.searchsorted(marks, back + 0.03 * np.abs(back), side="left")
        live = self.below[:-1] / max(1, int(self.below[-1]))
        low = np.where(least < 0, 0.0, shares[np.maximum(least, 0)])
        high = shares[np.minimum(most, len(shares) - 1)]
        slack = _OUTERMOST * self.noise
        return bool(((live >= low - slack) & (live <= high + slack)).all())


def rescaling(feature: Feature, window: Counts, counts: Counts, live: Moments, known: Moments) -> Rescaling | None:
    """Of the live counts of one feature beside those of the reference; None where values are not multiplied."""
    if not (math.isfinite(live.mean) and math.isfinite(known.mean)) or known.deviation <= 0.0:
        return None
    if live.held:
        least = abs(live.mean) / max(abs(known.mean), known.deviation)
        return Rescaling(
            True, f"its values are {least:,.0f} times as large or more: another unit, or a scale that is not applied"
        )
    if live.deviation <= live.unit:
        nothing = "0, or nearly: the column stands still, or is scaled away"
        told = nothing if abs(live.mean) <= 2.0 * live.unit else "the same, or nearly: the column stands still"
        return Rescaling(True, f"all its values are {told}")
    rows = (int(each[0]) - int(each[feature.missing]) for each in (window, counts))
    noise = math.sqrt(sum(1.0 / max(1, count) for count in rows))
    column = _Column(feature, live, known, np.cumsum(window[feature.counts]), np.cumsum(counts[feature.counts]), noise)
    return _with_zero(column) or _multiplied(column)


def _with_zero(column: _Column) -> Rescaling | None:
    for factor, zero, words in _SCALES:
        for times, plus in ((factor, zero), (1.0 / factor, -zero / factor)):
            if column.known_unit(times, plus):
                return Rescaling(True, f"its values are those of the reference in another unit: {words}")
    return None


def _multiplied(column: _Column) -> Rescaling | None:
    live, known = column.live, column.known
    told_by_mean = abs(known.mean) >= known.deviation and live.mean / known.mean > 0.0
    factor = live.mean / known.mean if told_by_mean else live.deviation / known.deviation
    if 1.0 / _LEAST < factor < _LEAST:
        return None
    units = [(unit if factor > 1.0 else 1.0 / unit, words) for unit, words in _UNITS]
    fitting = [
        f"about {times:.4g} times those of the reference, as {words} are"
        for times, words in units
        if column.known_unit(times)
    ]
    if fitting:
        return Rescaling(True, f"its values are {fitting[0]}: another unit")
    if not column.like(factor, 0.0, 0.05):
        return None
    told = f"its values are about {factor:.3g} times those of the reference"
    error = column.noise * (known.deviation / abs(known.mean) if told_by_mean else math.sqrt(_TAILS / 4.0))
    if max(factor, 1.0 / factor) * max(0.0, 1.0 - _ERRORS * error) >= _NO_GROWTH:
        return Rescaling(True, f"{told}: another unit, or a scale not applied")
    if not told_by_mean:
        return None
    return Rescaling(False, f"{told}, all of them alike: growth, or a unit that is not known here")


def may_have_grown(feature: Feature, live: Moments, known: Moments) -> bool:
    """Whether a quantity that has a natural zero has grown or shrunk by no more than a world may."""
    if (
        feature.kind != "numeric"
        or not (feature.lowest >= 0.0 or feature.highest <= 0.0)
        or known.mean == 0.0
        or live.held
    ):
        return False
    return 1.0 / _NO_GROWTH < live.mean / known.mean < _NO_GROWTH
