"""What the demo shows: on a terminal one live picture (versions, events), elsewhere plain lines."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

__all__ = ["Line", "Screen", "VersionRow"]

EVENTS_SHOWN = 16
STATE_STYLES = {"active": "green", "quarantined": "bold red", "failed": "red", "loading": "yellow", "warming": "yellow"}


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version on the screen. Rates over the last seconds; times in milliseconds as the client saw them."""

    number: int
    kind: str
    weight: int
    per_second: float
    failures: int
    p50_ms: float | None
    p99_ms: float | None
    right: float | None
    state: str


@dataclass(frozen=True, slots=True)
class Line:
    """One event: what happened, how many seconds into the demo, and in which colour."""

    at_s: float
    text: str
    style: str


class Screen:
    """Takes events and rows; draws them. ``live`` False: events are printed as plain lines, rows when asked."""

    def __init__(self, console: Console, *, live: bool) -> None:
        self._console = console
        self._started = time.monotonic()
        self._events: deque[Line] = deque(maxlen=EVENTS_SHOWN)
        self._rows: Sequence[VersionRow] = ()
        self._footer = ""
        self._evidence: RenderableType | None = None
        self._live = Live(console=console, auto_refresh=False, transient=False) if live else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._draw()
            self._live.stop()

    def event(self, text: str, style: str = "") -> None:
        """Something happened: into the events pane, or printed at once."""
        line = Line(time.monotonic() - self._started, text, style)
        self._events.append(line)
        if self._live is None:
            self._console.print(_event_text(line), soft_wrap=True)
        else:
            self._draw()

    def show(self, rows: Sequence[VersionRow], footer: str) -> None:
        """The picture as it is now; drawn on a terminal, kept otherwise."""
        self._rows, self._footer = rows, footer
        self._draw()

    def evidence(self, picture: RenderableType | None) -> None:
        """What a rollout is judged by, or its report: a pane of its own until there is another."""
        self._evidence = picture or self._evidence
        self._draw()

    def evidence_snapshot(self) -> None:
        """Off a terminal: prints that pane as it stands."""
        if self._live is None and self._evidence is not None:
            self._console.print(self._evidence, soft_wrap=True)

    def snapshot(self) -> None:
        """Off a terminal: prints the rows as they stand, as a plain table."""
        if self._live is None:
            self._console.print(_table(self._rows, plain=True))
            self._console.print(Text(self._footer), soft_wrap=True)

    def _draw(self) -> None:
        if self._live is not None:
            self._live.update(self._picture(), refresh=True)

    def _picture(self) -> RenderableType:
        events = Text("\n").join(_event_text(line) for line in self._events)
        panes: list[tuple[str, RenderableType, int | None]] = [
            ("route digits", _table(self._rows, plain=False), None),
            ("what happens", events, EVENTS_SHOWN + 2),
        ]
        if self._evidence is not None:
            panes.append(("turnout rollout digits --watch", self._evidence, None))
        shown = [Panel(pane, title=title, title_align="left", border_style="dim", height=h) for title, pane, h in panes]
        return Group(*shown, Text(self._footer, style="bold"))


def _event_text(line: Line) -> Text:
    return Text.assemble((f"{line.at_s:6.1f}s  ", "dim"), (line.text, line.style))


def _table(rows: Sequence[VersionRow], *, plain: bool) -> Table:
    table = Table(box=None if plain else box.SIMPLE_HEAD, expand=not plain, pad_edge=False, show_edge=False)
    table.add_column("VERSION", no_wrap=True)
    for name in ("WEIGHT", "REQ/S", "FAILURES", "P50 MS", "P99 MS", "RIGHT"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("STATE", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row, STATE_STYLES))
    return table


def _cells(row: VersionRow, styles: Mapping[str, str]) -> list[Text]:
    return [
        Text(f"{row.number} {row.kind}"),
        Text(f"{row.weight}", style="bold" if row.weight else "dim"),
        Text(f"{row.per_second:.0f}"),
        Text(f"{row.failures}", style="red" if row.failures else ""),
        Text(_optional(row.p50_ms, "{:.1f}")),
        Text(_optional(row.p99_ms, "{:.1f}")),
        Text(_optional(row.right, "{:.0%}")),
        Text(row.state, style=styles.get(row.state, "")),
    ]


def _optional(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
