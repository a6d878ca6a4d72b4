"""What a command prints: tables for people, JSON for machines, progress bars where somebody watches.

Results go to standard output, everything else (progress, notes, errors) to standard error, so
that a pipe carries results only. Off a terminal a table is plain aligned text, never cut;
colours follow rich: none off a terminal, none with NO_COLOR.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Protocol

import orjson
import typer
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

__all__ = ["JsonOption", "Meter", "Output", "Steps", "bytes_text", "printable", "when_text"]

PIPE_WIDTH = 4096
"""Columns assumed off a terminal: wide enough that nothing is wrapped or cut."""

_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of tables for people.")]


class Meter(Protocol):
    """Counts work done, in the unit that its total was given in."""

    def __call__(self, done: int, /) -> None: ...


class Steps(Protocol):
    """Starts a bar for one piece of long work: what it is called, and its total."""

    def __call__(self, label: str, total: int, /) -> Meter: ...


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command's words go. ``machine``: print JSON instead of tables."""

    machine: bool
    results: Console
    notes: Console

    @classmethod
    def standard(cls, *, machine: bool = False) -> Output:
        return cls(machine, _console(sys.stdout.isatty(), stderr=False), _console(sys.stderr.isatty(), stderr=True))

    def json(self, value: object) -> None:
        """Indented, with a newline at the end; keys in the order given."""
        encoded = orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str)
        sys.stdout.write(encoded.decode() + "\n")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
        """``empty`` says, on standard error, what it means that there are no rows."""
        if not rows:
            self.note(empty)
            return
        boxed = self.results.is_terminal
        style = box.SIMPLE_HEAD if boxed else None
        table = Table(box=style, pad_edge=False, header_style="bold" if boxed else "", show_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold", no_wrap=not boxed)
        for row in rows:
            table.add_row(*[cell if isinstance(cell, Text) else Text(_cell(cell)) for cell in row])
        self.results.print(table)

    def fields(self, pairs: Sequence[tuple[str, object]]) -> None:
        """One thing's facts, a line each; what is None is left out."""
        width = max((len(name) for name, _ in pairs), default=0)
        for name, value in pairs:
            if value is not None:
                text = value if isinstance(value, Text) else Text(_cell(value))
                self.results.print(Text(f"{name:<{width}}  ", style="bold").append_text(text), soft_wrap=True)

    def line(self, text: str | Text) -> None:
        self.results.print(text if isinstance(text, Text) else Text(text), soft_wrap=True)

    def note(self, text: str) -> None:
        self.notes.print(Text(text), soft_wrap=True)

    @contextmanager
    def steps(self, *, counted: bool = False) -> Iterator[Steps]:
        """Progress bars on standard error while the block runs; silent off a terminal and under ``--json``. Of bytes,
        unless they are ``counted``."""
        done = MofNCompleteColumn() if counted else DownloadColumn()
        columns = (TextColumn("{task.description}"), BarColumn(), done, TimeRemainingColumn())
        quiet = self.machine or not self.notes.is_terminal
        with Progress(*columns, console=self.notes, transient=True, disable=quiet) as progress:

            def step(label: str, total: int) -> Meter:
                task = progress.add_task(label, total=total)
                return lambda done: progress.advance(task, done)

            yield step


class _Console(Console):
    """Names, notes, commands and addresses come with versions that others made: no character of theirs steers the
    terminal, or turns the writing round. Colours and bars are rich's own, and set later. What the stream has no
    character for is a question mark."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(self._written(segment.text), segment.style)

    def _written(self, text: str) -> str:
        safe = printable(text)
        if self.encoding.startswith("utf"):
            return safe
        return safe.encode(self.encoding, "replace").decode(self.encoding)


def printable(text: str) -> str:
    """Control characters as ``\\x1b``; lines and tabs stay."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _console(terminal: bool, *, stderr: bool) -> Console:
    return _Console(stderr=stderr, highlight=False, width=None if terminal else PIPE_WIDTH, emoji=False)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={_cell(item)}" for name, item in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(_cell(item) for item in value)
    return str(value)


def when_text(seconds: Any) -> str:
    """Seconds since the epoch as local time to the second, with the offset; ``-`` for None."""
    if seconds is None:
        return "-"
    return datetime.fromtimestamp(float(seconds), tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S%z")


def bytes_text(size: int) -> str:
    """In binary units, three digits: ``17.3 MiB``."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{int(amount)} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
