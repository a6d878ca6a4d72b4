"""Rows in columns, as many as the width holds: lines of text, each with its notes below it.

rich's tables know neither a note across all columns nor how many lines they will take, which a screen that shows the
worst routes first has to know.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.text import Text

from gateway.cli.top.words import GAP, Paper

__all__ = ["Column", "Grid", "Group"]

Row = TypeVar("Row")
Group = Sequence[Text]
"""The lines of one row."""

_INDENT = "    "
_LEAST_NAME = 8
_HEAD = "bold reverse"


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """``from_width``: left out on narrower screens. ``style`` of a row's cell."""

    title: str
    cell: Callable[[Row], str]
    right: bool = True
    from_width: int = 0
    style: Callable[[Row], str] = lambda _: ""


@dataclass(frozen=True, slots=True)
class Grid(Generic[Row]):
    """``columns``: the first is the name, cut where there is no room. ``tail`` is what a row ends with: beside it
    where there is room for it, else below. ``notes`` are below it in any case, on two lines at most each."""

    columns: Sequence[Column[Row]]
    tail_title: str
    tail: Callable[[Row], Text]
    notes: Callable[[Row], Sequence[Text]]

    def lines(self, rows: Sequence[Row], paper: Paper) -> tuple[Text, Sequence[Group]]:
        """The head, and each row's lines; none is wider than the paper."""
        columns = [column for column in self.columns if column.from_width <= paper.width]
        cells = [[column.cell(row) for column in columns] for row in rows]
        widths = [max(map(len, texts)) for texts in zip([column.title for column in columns], *cells, strict=True)]
        widths[0] = min(widths[0], max(_LEAST_NAME, paper.width - sum(widths[1:]) - len(GAP) * (len(widths) - 1)))
        layout = _Layout(columns, widths, paper)
        head = layout.line([column.title for column in columns])
        titled = head.plain + (GAP + self.tail_title if layout.room >= len(self.tail_title) > 0 else "")
        return paper.bar(titled, _HEAD), [
            self._group(row, texts, layout) for row, texts in zip(rows, cells, strict=True)
        ]

    def _group(self, row: Row, texts: Sequence[str], layout: _Layout[Row]) -> Group:
        line, tail = layout.line(texts, row), self.tail(row)
        beside = len(tail) <= layout.room
        if beside and tail:
            line.append(GAP).append(tail)
        below = [] if beside else [tail]
        return [line, *_below([*below, *self.notes(row)], layout.paper)]


@dataclass(frozen=True, slots=True)
class _Layout(Generic[Row]):
    columns: Sequence[Column[Row]]
    widths: Sequence[int]
    paper: Paper

    @property
    def room(self) -> int:
        """Beside the columns, and the gap after them."""
        return self.paper.width - sum(self.widths) - len(GAP) * len(self.widths)

    def line(self, texts: Iterable[str], row: Row | None = None) -> Text:
        line = Text(no_wrap=True)
        for place, (text, column, width) in enumerate(zip(texts, self.columns, self.widths, strict=True)):
            shown = self.paper.cut(text, width)
            line.append(GAP if place else "")
            line.append(f"{shown:>{width}}" if column.right else f"{shown:<{width}}", column.style(row) if row else "")
        line.truncate(self.paper.width)
        return line


def _below(notes: Sequence[Text], paper: Paper) -> Iterable[Text]:
    """On a screen two lines each at most."""
    for note in notes:
        for text in textwrap.wrap(
            " ".join(note.plain.split()),
            max(20, paper.width),
            initial_indent=_INDENT,
            subsequent_indent=_INDENT,
            max_lines=None if paper.height is None else 2,
            placeholder=f" {paper.marks.more}",
        ):
            yield Text(text, note.style, no_wrap=True)
