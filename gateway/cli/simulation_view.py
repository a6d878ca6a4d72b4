"""A simulation for people: what was tried, a row for each candidate, and what to draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.text import Text

from gateway.cli.output import Output
from gateway.cli.simulation_inputs import Tried
from gateway.control.simulation.arrivals import Traffic
from gateway.control.simulation.picture import Curve, Picture
from gateway.control.simulation.recorded import Recording
from gateway.control.simulation.report import Report, Row, named, percent_text
from gateway.control.simulation.runs import UNFINISHED, Quantiles, Share
from gateway.control.simulation.sweep import OURS

__all__ = ["notes", "picture_of", "show"]

_COLUMNS = (
    "CANDIDATE",
    "DECIDED BY",
    "ROLLED BACK",
    "REQUESTS TO DETECT",
    "TIME TO DETECT",
    "CANDIDATE REQUESTS",
    "USERS MET",
    "USERS HIT",
    "PROMOTED",
    "TIME TO PROMOTE",
)


def notes(recording: Recording | None) -> Iterator[str]:
    """What whoever reads the figures must know of the recording."""
    if recording is None:
        return
    if recording.left_out:
        yield f"{recording.left_out} requests without an outcome of a version (refused, or the caller's fault) left out"
    if recording.reordered:
        yield f"{recording.reordered} lines were not in the order of their times, and were put into it"
    if recording.cut_off:
        yield "the last line was cut off, and left out"
    if recording.arrivals.key_count == recording.requests:
        yield "no request has a key: each counts as a user of its own"


def show(output: Output, report: Report, tried: Tried) -> None:
    sweep, plan = report.sweep, tried.plan
    steps = ", ".join(f"{step.weight:g}%" for step in plan.climb)
    bake = "" if plan.bake is None else f", then baked at {100 - plan.bake.holdback:g}%"
    output.fields(
        [
            ("plan", f"{tried.name}: {steps}{bake}; alpha {percent_text(plan.alpha)}"),
            ("traffic", _traffic(report)),
            ("runs", f"{sweep.runs} of each candidate, seed {sweep.seed}"),
            ("shown", "median, and in brackets what 90% of the runs stay below; shares with their 95% interval"),
        ]
    )
    output.line("")
    rows = [_cells(row, report) for row in report.rows]
    columns: tuple[str, ...] = _COLUMNS
    if not sweep.rivals:
        columns = tuple(name for name in columns if name != "DECIDED BY")
        rows = [(row[0], *row[2:]) for row in rows]
    output.table(columns, rows, empty="nothing was tried")
    for row in report.rows:
        under_way = row.figures.ends.get(UNFINISHED, 0)
        if under_way and row.decided_by == OURS:
            output.note(f"{named(row.world)}: {under_way} of {sweep.runs} runs were under way when it ended")


def _traffic(report: Report) -> str:
    source = report.sweep.source
    if isinstance(source, Traffic):
        users = f"{source.keys:,} users" if source.keys else "users of one request each"
        spread = f" (Zipf {source.zipf:g})" if source.zipf is not None else ""
        bursts = f", {source.bursts} bursts of failures" if source.bursts else ""
        return f"{source.requests:,} requests made up, {source.rate:g} a second, {users}{spread}{bursts}"
    requests = len(source.times_s)
    return f"{requests:,} recorded requests of {source.key_count:,} users in {_seconds(source.length_s)}"


def _cells(row: Row, report: Report) -> tuple[object, ...]:
    found = row.figures
    false_alarms = row.world.equal and found.rolled_back.interval()[0] > report.sweep.conduct.plan.alpha
    back = Text(_share(found.rolled_back), style="red" if false_alarms else "")
    return (
        named(row.world),
        row.decided_by,
        back,
        _quantiles(found.detection_requests, _count),
        _quantiles(found.detection_s, _seconds),
        _quantiles(found.candidate_requests, _count),
        _quantiles(found.users_met, percent_text),
        _quantiles(found.users_hit, percent_text),
        _share(found.promoted),
        _quantiles(found.promotion_s, _seconds),
    )


def _share(share: Share) -> str:
    low, high = share.interval()
    return f"{percent_text(share.value)} ({percent_text(low)}-{percent_text(high)})"


def _quantiles(values: Quantiles, text: Callable[[float], str]) -> str | None:
    if values.median is None or values.most is None:
        return None
    return f"{text(values.median)} ({text(values.most)})"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _seconds(value: float) -> str:
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.3g} min" if value < 7200 else f"{value / 3600:.3g} h"


def picture_of(report: Report, plan: str) -> Picture:
    sweep = report.sweep
    source = sweep.source
    made_up = isinstance(source, Traffic)
    requests = source.requests if isinstance(source, Traffic) else len(source.times_s)
    rate = source.rate if isinstance(source, Traffic) else requests / max(source.length_s, 1e-9)
    users = source.keys if isinstance(source, Traffic) else source.key_count
    subtitle = (
        f"{plan[0].upper()}{plan[1:]}, {sweep.runs} runs of each candidate on {requests:,} "
        f"{'made-up' if made_up else 'recorded'} requests of {users or requests:,} users; "
        f"known good: {percent_text(sweep.worlds[0].baseline_error)} errors"
    )
    ours = [row for row in report.rows if row.decided_by == OURS]
    return Picture(
        title="How soon is a bad candidate taken back?",
        subtitle=subtitle,
        curves=[Curve(named(row.world), row.world.equal, row.runs) for row in ours],
        requests=requests,
        rate=rate,
        alpha=sweep.conduct.plan.alpha,
        times_s=None if isinstance(source, Traffic) else source.times_s,
    )
