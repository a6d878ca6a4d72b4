"""The picture of a version's lineage: boxes in columns, from what went in to what came out, as SVG text.

Written by hand rather than by a library: boxes, lines and text are all there is, text stays text (it can be searched),
and the file shows in any browser without fonts or scripts. Kinds differ by a word and a mark as well as by colour
(Okabe and Ito).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from gateway.registry.lineage.graph import Graph, Node, short

__all__ = ["draw_svg"]

_COLUMNS: Mapping[str, int] = {
    "data": 0,
    "code": 0,
    "parameters": 0,
    "environment": 0,
    "source": 0,
    "parent": 0,
    "features": 1,
    "run": 2,
    "version": 3,
    "metrics": 4,
}
_COLOURS: Mapping[str, str] = {
    "data": "#0072B2",
    "code": "#009E73",
    "parameters": "#E69F00",
    "environment": "#56B4E9",
    "source": "#999999",
    "parent": "#D55E00",
    "features": "#CC79A7",
    "run": "#666666",
    "version": "#D55E00",
    "metrics": "#444444",
}
_LINE, _PAD, _GAP, _BETWEEN, _MARGIN = 17.0, 12.0, 18.0, 64.0, 28.0
_CHARACTER = 7.25
"""Width of a character of the 12 px monospaced font, a little more than fonts have: text never leaves its box."""
_WIDEST = 46
_FONT = 'font-family="ui-monospace, DejaVu Sans Mono, Menlo, monospace" font-size="12"'
_NO_XML = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffe\uffff]")
"""What comes with a version that somebody else made: one of these, and no browser would show the file."""
_ARROW = (
    '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L8 4L0 8z" fill="#888888"/></marker></defs>'
)


@dataclass(frozen=True, slots=True)
class _Box:
    node: Node
    lines: tuple[str, ...]
    x: float
    y: float
    width: float
    height: float


def draw_svg(graph: Graph, title: str) -> str:
    """The whole file."""
    boxes, width, height = _placed(graph)
    by_name = {box.node.name: box for box in boxes}
    frame = f'width="{width:.0f}" height="{height:.0f}"'
    head = f'<text x="{_MARGIN}" y="{_MARGIN + 4}" font-size="16" font-weight="bold" fill="#222222">{escape(title)}'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {frame} viewBox="0 0 {width:.0f} {height:.0f}" {_FONT}>',
        f"<title>{escape(title)}</title>{_ARROW}",
        f'<rect {frame} fill="#ffffff"/>{head}</text>',
    ]
    parts += [_edge(by_name[one], by_name[two]) for one, two in graph.edges]
    parts += [_drawn(box) for box in boxes]
    return "\n".join([*parts, "</svg>", ""])


def _placed(graph: Graph) -> tuple[list[_Box], float, float]:
    """Columns side by side, each as wide as its widest text, and centred on the tallest; empty columns take no room."""
    columns: dict[int, list[tuple[Node, tuple[str, ...]]]] = {}
    for node in graph.nodes:
        columns.setdefault(_COLUMNS[node.kind], []).append((node, _text(node)))
    heights = {
        column: sum(_height(lines) for _, lines in members) + _GAP * (len(members) - 1)
        for column, members in columns.items()
    }
    tallest, top = max(heights.values()), _MARGIN + 28
    boxes: list[_Box] = []
    x = _MARGIN
    for column, members in sorted(columns.items()):
        width = 2 * _PAD + _CHARACTER * max(len(line) for _, lines in members for line in lines)
        y = top + (tallest - heights[column]) / 2
        if members[0][0].kind == "features":  # beside its data, so that no line to the run crosses it
            y = max(top, _middle([box for box in boxes if box.node.kind == "data"], y) - _height(members[0][1]) / 2)
        for node, lines in members:
            boxes.append(_Box(node, lines, x, y, width, _height(lines)))
            y += _height(lines) + _GAP
        x += width + _BETWEEN
    return boxes, x - _BETWEEN + _MARGIN, top + tallest + _MARGIN


def _middle(boxes: Sequence[_Box], otherwise: float) -> float:
    return sum(box.y + box.height / 2 for box in boxes) / len(boxes) if boxes else otherwise


def _text(node: Node) -> tuple[str, ...]:
    """The kind, the title, what is known, and the digest, none wider than a box may be."""
    head = [] if node.title == node.kind else [node.title]
    lines = [node.kind, *head, *node.lines, *([short(node.digest)] if node.digest else [])]
    shown = (_NO_XML.sub("�", line) for line in lines)
    return tuple(line if len(line) <= _WIDEST else line[: _WIDEST - 1] + "…" for line in shown)


def _height(lines: Sequence[str]) -> float:
    return _LINE * len(lines) + 2 * _PAD - 6


def _drawn(box: _Box) -> str:
    colour = _COLOURS[box.node.kind]
    strong = 2.5 if box.node.kind == "version" else 1.2
    place = f'x="{box.x:.1f}" y="{box.y:.1f}" height="{box.height:.1f}"'
    edge = f'fill="#ffffff" stroke="{colour}" stroke-width="{strong}"'
    parts = [
        f'<g><rect {place} width="{box.width:.1f}" rx="5" {edge}/><rect {place} width="5" rx="2" fill="{colour}"/>'
    ]
    if box.node.digest:
        parts.append(f"<title>{escape(box.node.digest)}</title>")
    for number, line in enumerate(box.lines):
        y = box.y + _PAD + 8 + number * _LINE
        last = box.node.digest is not None and number == len(box.lines) - 1
        look = 'fill="#666666"' if number == 0 or last else 'fill="#222222"'
        look += ' font-weight="bold"' if number == 1 and line == box.node.title[: len(line)] else ""
        parts.append(f'<text x="{box.x + _PAD:.1f}" y="{y:.1f}" {look} xml:space="preserve">{escape(line)}</text>')
    return "".join([*parts, "</g>"])


def _edge(one: _Box, two: _Box) -> str:
    """From side to side; within a column (a parent's parent) from top to bottom."""
    if one.x == two.x:
        middle = one.x + one.width / 2
        start, end = (one.y, two.y + two.height) if one.y > two.y else (one.y + one.height, two.y)
        return _path(f"M{middle:.1f} {start:.1f}L{middle:.1f} {end:.1f}")
    x1, y1, x2, y2 = one.x + one.width, one.y + one.height / 2, two.x, two.y + two.height / 2
    bend = max(24.0, min(_BETWEEN, x2 - x1) / 2)
    return _path(f"M{x1:.1f} {y1:.1f}C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}")


def _path(points: str) -> str:
    return f'<path d="{points}" fill="none" stroke="#888888" stroke-width="1.2" marker-end="url(#end)"/>'
