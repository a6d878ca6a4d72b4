"""The columns of routes and versions, and the lines of events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.text import Text

from gateway.cli.output import bytes_text
from gateway.cli.top.grid import Column, Grid
from gateway.cli.top.picture import Arm, Event, RouteRow, VersionRow
from gateway.cli.top.words import GAP, Marks, Paper, rate_text, seconds_text, share_text

__all__ = ["event_lines", "route_grid", "version_grid"]

_BAD, _WARN, _FINE, _QUIET = "bold red", "yellow", "green", "dim"
_WENT_BACK = "rollback"
_STATES = {"active": _FINE, "failed": _BAD, "loading": _WARN, "warming": _WARN, "draining": _WARN}


def route_grid(paper: Paper) -> Grid[RouteRow]:
    return Grid(
        columns=(
            Column("ROUTE", lambda row: row.route, right=False, style=lambda row: "bold" if row.ready else _BAD),
            Column("REQ/S", lambda row: rate_text(row.requests_s)),
            Column("ERRORS", lambda row: share_text(row.errors), style=lambda row: _alarming(row.errors)),
            Column("P50", lambda row: seconds_text(row.p50_s), from_width=70),
            Column("P99", lambda row: seconds_text(row.p99_s)),
            Column("IN FLIGHT", lambda row: f"{row.inflight}", from_width=110),
            Column("FELL BACK/S", lambda row: rate_text(row.fallbacks_s), from_width=100, style=_fell_back),
            Column("REFUSED/S", lambda row: rate_text(row.refused_s), from_width=100, style=_refused),
        ),
        tail_title="SPLIT",
        tail=lambda row: _split(row.split, paper.marks, roomy=paper.roomy),
        notes=lambda row: list(_route_notes(row, narrow=paper.width < 100)),
    )


def _alarming(errors: float | None) -> str:
    return _BAD if errors and errors >= 0.01 else _WARN if errors else ""


def _fell_back(row: RouteRow) -> str:
    return _WARN if row.fallbacks_s else ""


def _refused(row: RouteRow) -> str:
    return _WARN if row.refused_s else ""


def _split(arms: Sequence[Arm], marks: Marks, *, roomy: bool) -> Text:
    return Text(", " if roomy else GAP).join(_arm(arm, marks, roomy=roomy) for arm in arms) if arms else Text("nothing")


def _arm(arm: Arm, marks: Marks, *, roomy: bool) -> Text:
    if arm.quarantined:
        return Text(f"{arm.version} quarantined" if roomy else f"{arm.version}{marks.bad}", _BAD)
    good = " known good" if roomy else marks.good
    return Text(f"{arm.version} {arm.percent:.3g}%").append(good if arm.known_good else "", _FINE)


def _route_notes(row: RouteRow, *, narrow: bool) -> Iterable[Text]:
    for note in row.notes:
        yield Text(note, _WARN if row.ready else _BAD)
    if row.rollout:
        yield Text(f"rollout: {row.rollout}", "cyan")
    if row.refused_s and (narrow or row.refused_for):
        rate = f"{rate_text(row.refused_s)}/s " if narrow else ""
        yield Text(f"refused {rate}for {', '.join(row.refused_for)}", _WARN)
    if row.fallbacks_s and narrow:
        yield Text(f"fell back {rate_text(row.fallbacks_s)}/s", _WARN)


def version_grid() -> Grid[VersionRow]:
    return Grid(
        columns=(
            Column("VERSION", lambda row: f"{row.model}/{row.version}", right=False),
            Column("STATE", lambda row: row.state, right=False, style=lambda row: _STATES.get(row.state, "")),
            Column("REQ/S", lambda row: rate_text(row.requests_s), from_width=80),
            Column(
                "ERRORS", lambda row: share_text(row.errors), from_width=80, style=lambda row: _alarming(row.errors)
            ),
            Column("QUEUE", lambda row: f"{row.queue_rows}", style=lambda row: _WARN if row.queue_rows else ""),
            Column("ROWS/BATCH", lambda row: "-" if row.batch_rows is None else f"{row.batch_rows:.1f}", from_width=96),
            Column("MEMORY", lambda row: "-" if row.memory_bytes is None else bytes_text(row.memory_bytes)),
            Column("DEVICE", lambda row: row.device, from_width=110, right=False),
            Column("PID", lambda row: "-" if row.pid is None else f"{row.pid}"),
            Column("RESTARTS", lambda row: f"{row.restarts}", from_width=120, style=_restarted),
            Column("DRIFT", _drift, from_width=56, style=lambda row: _BAD if row.drift else ""),
        ),
        tail_title="",
        tail=lambda _: Text(),
        notes=lambda row: [Text(row.reason, _STATES.get(row.state, _WARN))] if row.reason else [],
    )


def _restarted(row: VersionRow) -> str:
    return _WARN if row.restarts else ""


def _drift(row: VersionRow) -> str:
    return "-" if row.drift is None else f"{row.drift} ALARM" if row.drift else "none"


def event_lines(events: Sequence[Event], paper: Paper) -> Iterable[Text]:
    if events:
        yield paper.bar("EVENTS", "bold reverse")
    for event in events:
        when = f"{datetime.fromtimestamp(event.at).astimezone():%m-%d %H:%M:%S}"
        why = f": {event.reason}" if event.reason else ""
        words = " ".join(f"{event.action} {event.subject} by {event.actor}{why}".split())
        room = max(1, paper.width - len(when) - len(GAP))
        style = _WARN if event.action == _WENT_BACK else ""
        yield Text.assemble((f"{when}{GAP}", _QUIET), (paper.cut(words, room), style), no_wrap=True)
