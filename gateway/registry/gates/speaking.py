"""Figures in a sentence."""

from __future__ import annotations

import math

__all__ = ["figure", "finite", "interval"]


def figure(value: float) -> str:
    """Four significant digits at least, and no more zeros than needed."""
    if not math.isfinite(value):
        return "no number"
    if abs(value) >= 1e4:
        return f"{value:,.0f}" if abs(value) < 1e15 else f"{value:.4g}"
    return f"{value:.0f}" if value == int(value) else f"{value:.4g}"


def interval(ends: tuple[float, float]) -> str:
    return f"[{figure(ends[0])}, {figure(ends[1])}]"


def finite(value: float) -> float | None:
    """As JSON holds it."""
    return float(value) if math.isfinite(value) else None
