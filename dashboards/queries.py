"""Expressions that several panels share. ``$__rate_interval`` is Grafana's: at least four scrapes long."""

from __future__ import annotations

__all__ = ["WINDOW", "mean", "per_second", "quantile", "share"]

WINDOW = "$__rate_interval"


def per_second(counter: str, by: str = "") -> str:
    return f"{_sum(by)} (rate({counter}[{WINDOW}]))"


def share(part: str, whole: str, by: str = "") -> str:
    """Of two counters' rates. Zero where nothing of the part was ever counted; nothing at all without the whole."""
    total = per_second(whole, by)
    return f"({per_second(part, by)} or 0 * {total}) / ({total} > 0)"


def quantile(q: float, histogram: str, selector: str, by: str = "") -> str:
    """``q`` from 0 to 1, of a histogram named without its ``_bucket``."""
    grouped = f"le, {by}" if by else "le"
    return f"histogram_quantile({q:g}, {per_second(f'{histogram}_bucket{selector}', grouped)})"


def mean(histogram: str, selector: str, by: str = "") -> str:
    total, count = (per_second(f"{histogram}_{part}{selector}", by) for part in ("sum", "count"))
    return f"{total} / ({count} > 0)"


def _sum(by: str) -> str:
    return f"sum by ({by})" if by else "sum"
