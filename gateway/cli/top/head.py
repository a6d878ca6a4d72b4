"""Above and below the rows: how the gateway is, what no row says, that it is gone, and the keys."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from rich.text import Text

from gateway.cli.top.picture import Picture
from gateway.cli.top.words import GAP, Paper, rate_text

__all__ = ["foot_lines", "head_lines"]

_BAD, _WARN, _FINE, _QUIET = "bold red", "yellow", "green", "dim"
_STATED_LINES = 3
"""Of what is degraded or withheld, on a screen."""


def head_lines(picture: Picture, paper: Paper, *, away: str) -> Iterable[Text]:
    if away:
        yield paper.bar(f"NO ANSWER {away}", "bold white on red")
    yield from _packed(picture, paper)
    yield from _stated(picture, paper)


def foot_lines(paper: Paper) -> Iterable[Text]:
    """Of a screen; who reads paper has no keys."""
    if paper.height is not None:
        marked = "" if paper.roomy else f"{paper.marks.good} known good{GAP}{paper.marks.bad} quarantined{GAP}"
        yield paper.line(f"{marked}{paper.marks.arrows} scroll{GAP}q quit", _QUIET)


def _packed(picture: Picture, paper: Paper) -> Iterable[Text]:
    """In as few lines as the width allows."""
    line = Text(no_wrap=True)
    for text, style in _facts(picture):
        if line and line.cell_len + len(GAP) + len(text) > paper.width:
            yield line
            line = Text(no_wrap=True)
        line.append(GAP if line else "").append(paper.cut(text), style)
    yield line


def _facts(picture: Picture) -> Iterable[tuple[str, str]]:
    gateway = picture.gateway
    yield f"Turnout {gateway.address}", "bold"
    yield gateway.state, _FINE if gateway.state == "ready" else _BAD
    yield f"revision {'-' if gateway.revision is None else gateway.revision}", ""
    if gateway.store_up is not None:
        yield ("store up", "") if gateway.store_up else ("STORE DOWN", _BAD)
    if gateway.replicas is not None:
        yield f"{gateway.replicas} replica{'' if gateway.replicas == 1 else 's'}", ""
    yield f"{rate_text(gateway.requests_s)} requests/s", ""
    yield f"{gateway.inflight} in flight", ""
    if gateway.dropped is not None:
        yield f"{gateway.dropped} decisions lost", _BAD if gateway.dropped else ""
    if gateway.started_at is not None:
        yield f"up {_age(picture.at - gateway.started_at)}", ""
    over = f", rates over {gateway.span_s:.0f} s" if gateway.span_s >= 1 else ""
    yield f"{datetime.fromtimestamp(picture.at).astimezone():%H:%M:%S}{over}", _QUIET


def _stated(picture: Picture, paper: Paper) -> Iterable[Text]:
    """What no route's row says."""
    named = tuple(f"{row.route}: " for row in picture.routes)
    texts = [(text, _WARN) for text in picture.gateway.degraded if not text.startswith(named)]
    texts += [(text, _QUIET) for text in picture.withheld]
    shown = texts if paper.height is None else texts[:_STATED_LINES]
    for text, style in shown:
        yield Text(text, style, no_wrap=True) if paper.height is None else paper.line(text, style)
    if len(texts) > len(shown):
        yield paper.line(f"and {len(texts) - len(shown)} more: see /readyz", _WARN)


def _age(seconds: float) -> str:
    for length, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
