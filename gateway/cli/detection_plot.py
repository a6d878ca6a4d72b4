"""The picture of a simulation: how many of the runs were rolled back by when, over the weight that the plan gave.

matplotlib is an extra (``plot``); only this module knows it, and it is imported when a picture is asked for.
Colours are those of Okabe and Ito, told apart with any colour vision, and each line has a dash of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib import rc_context
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
_MOMENTS_S = (0.01, 0.1, 1, 3, 10, 30, 60, 180, 600, 1800, 3600, 3 * 3600, 10 * 3600, 86_400, 3 * 86_400, 10 * 86_400)


def draw(picture: Picture, path: Path) -> None:
    """Writes SVG or PNG, as the path ends."""
    figure = Figure(figsize=(9.0, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1.0))
    figure.suptitle(f"{picture.title}\n", x=0.01, ha="left", fontsize=13, fontweight="bold")
    figure.text(0.011, 0.938, picture.subtitle, fontsize=9.5, color="#444444")
    start = _first_request(picture)
    for place, curve in enumerate(sorted(picture.curves, key=lambda curve: curve.equal)):
        _curve(upper, curve, place, start=start, end=picture.requests)
    _promise(upper, picture.alpha)
    _axes(upper, lower, picture, start)
    _weights(upper, lower, picture)
    with rc_context({"svg.fonttype": "none"}):  # text stays text: it can be searched, and is a tenth of the size
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


def _promise(axes: Axes, alpha: float) -> None:
    axes.axhline(alpha, color=_EQUAL, linewidth=0.9, linestyle=(0, (2, 2)))
    text = f"{100 * alpha:g}%: the most of\nequal candidates"
    axes.annotate(text, (1.012, alpha), xycoords=("axes fraction", "data"), va="center", fontsize=8, color=_EQUAL)


def _weights(upper: Axes, lower: Axes, picture: Picture) -> None:
    """The plan's steps, as the run took them that got furthest; of several the one in the middle."""
    runs = [run for curve in picture.curves for run in curve.runs if run.weights]
    if not runs:
        return
    most = max(len(run.weights) for run in runs)
    furthest = sorted((run for run in runs if len(run.weights) == most), key=lambda run: run.at_s)
    typical = furthest[len(furthest) // 2]
    at = [max(1.0, picture.requests_by(seconds)) for seconds, _ in typical.weights] + [typical.requests]
    percents = [percent for _, percent in typical.weights]
    lower.fill_between(at, [*percents, percents[-1]], step="post", color=_COLOURS[0], alpha=0.18, linewidth=0)
    lower.step(at, [*percents, percents[-1]], where="post", color=_COLOURS[0], linewidth=1.4)
    for begin, percent in zip(at, percents, strict=False):
        if percent and begin > lower.get_xlim()[0]:
            upper.axvline(begin, color=_COLOURS[0], alpha=0.25, linewidth=0.8)
            lower.annotate(
                f"{percent:g}%", (begin, percent), (-3, -1), textcoords="offset points", ha="right", fontsize=8
            )


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
    lower.set_ylabel("weight of a\ngood candidate", fontsize=9)
    lower.set_xlabel("requests of the route since the rollout began (log scale)")
    lower.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    above = upper.secondary_xaxis("top", functions=(_scaled(1 / picture.rate), _scaled(picture.rate)))
    average = "" if picture.times_s is None else " on average"
    above.set_xlabel(f"time since then, at {picture.rate:,.3g} requests a second{average}", fontsize=9)
    seconds = [moment for moment in _MOMENTS_S if start <= moment * picture.rate <= picture.requests]
    above.set_xticks(seconds, [_duration(moment) for moment in seconds])
    above.minorticks_off()
    above.tick_params(labelsize=8)
    for axes in (upper, lower):
        axes.grid(visible=True, color=_GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["right", "top"]].set_visible(False)


def _scaled(factor: float) -> Callable[[ArrayLike], Floats]:
    return lambda values: np.asarray(values, dtype=np.float64) * factor


def _duration(seconds: float) -> str:
    for length, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= length:
            return f"{seconds / length:g} {unit}"
    return f"{1000 * seconds:g} ms"
