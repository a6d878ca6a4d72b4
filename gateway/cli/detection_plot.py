"""The picture of a simulation: how many of the runs were rolled back by when, over the weight that the plan gave.

matplotlib is an extra (``plot``); only this module knows it, and it is imported when a picture is asked for.
Colours are those of Okabe and Ito, told apart with any colour vision, and each line has a dash of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import ArrayLike

from gateway.control.simulation.arrivals import Floats
from gateway.control.simulation.picture import Curve, Picture

__all__ = ["draw"]

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
_EQUAL = "#444444"
_GRID = "#dddddd"


def draw(picture: Picture, path: Path) -> None:
    """Writes SVG or PNG, as the path ends."""
    figure = Figure(figsize=(9.0, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1.0))
    figure.suptitle(picture.title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    upper.set_title(picture.subtitle, loc="left", fontsize=9.5, color="#444444")
    start = _first_request(picture)
    for place, curve in enumerate(sorted(picture.curves, key=lambda curve: curve.equal)):
        _curve(upper, curve, place, start=start, end=picture.requests)
    _promise(upper, picture.alpha, start)
    _weights(lower, picture)
    _axes(upper, lower, picture, start)
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _first_request(picture: Picture) -> float:
    """Where the axis begins: before the first rollback by a third of a decade, and not before the tenth request."""
    detected = [run.requests for curve in picture.curves for run in curve.runs if run.detected]
    return max(10.0, min(detected, default=picture.requests / 100) / 2)


def _curve(axes: Axes, curve: Curve, place: int, *, start: float, end: int) -> None:
    """A step up for each run that was rolled back, at the request by which it was."""
    found = np.sort([run.requests for run in curve.runs if run.detected])
    share = np.arange(1, len(found) + 1) / max(1, len(curve.runs))
    across = np.concatenate([[start], found, [end]])
    up = np.concatenate([[0.0], share, [share[-1] if len(share) else 0.0]])
    colour = _EQUAL if curve.equal else _COLOURS[place % len(_COLOURS)]
    dash = "-" if curve.equal else _DASHES[place % len(_DASHES)]
    width = 1.6 if curve.equal else 2.2
    axes.step(across, up, where="post", color=colour, linestyle=dash, linewidth=width, label=curve.label)


def _promise(axes: Axes, alpha: float, start: float) -> None:
    axes.axhline(alpha, color=_EQUAL, linewidth=0.9, linestyle=(0, (2, 2)))
    text = f"at most {alpha:.2%} of equal candidates, as promised".replace(".00%", "%")
    axes.annotate(text, (start, alpha), (4, 3), textcoords="offset points", fontsize=8, color=_EQUAL)


def _weights(axes: Axes, picture: Picture) -> None:
    """The plan's steps, as the run took them that got furthest; of several the one in the middle."""
    runs = [run for curve in picture.curves for run in curve.runs if run.weights]
    if not runs:
        return
    most = max(len(run.weights) for run in runs)
    furthest = sorted((run for run in runs if len(run.weights) == most), key=lambda run: run.at_s)
    typical = furthest[len(furthest) // 2]
    at = [max(1.0, seconds * picture.rate) for seconds, _ in typical.weights] + [typical.requests]
    percents = [percent for _, percent in typical.weights]
    axes.fill_between(at, [*percents, percents[-1]], step="post", color=_COLOURS[0], alpha=0.18, linewidth=0)
    axes.step(at, [*percents, percents[-1]], where="post", color=_COLOURS[0], linewidth=1.4)
    left = axes.get_xlim()[0]
    for begin, percent in zip(at, percents, strict=False):
        if percent:
            place = (max(begin, left), percent)
            axes.annotate(f"{percent:g}%", place, (3, 3), textcoords="offset points", fontsize=8, color="#333333")


def _axes(upper: Axes, lower: Axes, picture: Picture, start: float) -> None:
    upper.set_xscale("log")
    upper.set_xlim(start, picture.requests)
    upper.set_ylim(-0.02, 1.04)
    upper.set_ylabel("runs rolled back by then")
    upper.yaxis.set_major_formatter(PercentFormatter(1.0))
    upper.legend(
        loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9, title="candidate", alignment="left"
    )
    lower.set_ylim(0, 118)
    lower.set_yticks([0, 50, 100])
    lower.yaxis.set_major_formatter(PercentFormatter(100.0))
    lower.set_ylabel("weight of a good\ncandidate")
    lower.set_xlabel("requests of the route since the rollout began (log scale)")
    lower.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    above = upper.secondary_xaxis("top", functions=(_scaled(1 / picture.rate), _scaled(picture.rate)))
    above.set_xlabel(f"time since then at {picture.rate:,.3g} requests a second", fontsize=9)
    above.xaxis.set_major_formatter(FuncFormatter(_duration))
    above.tick_params(labelsize=8)
    for axes in (upper, lower):
        axes.grid(visible=True, color=_GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["right", "top"]].set_visible(False)


def _scaled(factor: float) -> Callable[[ArrayLike], Floats]:
    return lambda values: np.asarray(values, dtype=np.float64) * factor


def _duration(seconds: float, _place: object) -> str:
    if seconds < 60:
        return f"{seconds:g} s"
    return f"{seconds / 60:.3g} min" if seconds < 3600 else f"{seconds / 3600:.3g} h"
