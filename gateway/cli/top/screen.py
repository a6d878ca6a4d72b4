"""The picture as lines of text: for a terminal of some width and height, or for a file, which takes all.

On a screen routes have three fifths of the room, versions the rest, and what one pane leaves is the other's; events
have a few lines, and what both leave.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from gateway.cli.top.grid import Group
from gateway.cli.top.head import foot_lines, head_lines
from gateway.cli.top.panes import event_lines, route_grid, version_grid
from gateway.cli.top.picture import Picture, RouteRow, VersionRow
from gateway.cli.top.words import GAP, Paper

__all__ = ["screen"]

_GAPS = 4
"""Two heads of columns, and a free line above each."""


def screen(picture: Picture, paper: Paper, *, first: int = 0, away: str = "") -> Sequence[Text]:
    """Neither wider nor longer than the paper. ``first``: routes scrolled by. ``away``: why there is nothing newer."""
    head, foot = list(head_lines(picture, paper, away=away)), list(foot_lines(paper))
    if paper.height is None:
        routes_head, routes = route_grid(paper).lines(picture.routes, paper)
        versions_head, versions = version_grid().lines(picture.versions, paper)
        panes = [[routes_head, *_flat(routes)], [versions_head, *_flat(versions)]]
        return _joined([head, *panes, list(event_lines(picture.events, paper))])
    length = paper.height - len(foot)
    body = _fitted(picture, paper, room=length - len(head) - _GAPS, first=first)
    lines = _joined([head, *body])[:length]
    lines += [Text()] * (length - len(lines))
    if away:  # what is old is shown as old
        for line in lines[1:]:
            line.stylize("dim")
    return [*lines, *foot]


def _fitted(picture: Picture, paper: Paper, *, room: int, first: int) -> Sequence[Sequence[Text]]:
    events = min(len(picture.events), _events_shown(paper))
    room -= events + 2 if events else 0
    first = max(0, min(first, len(picture.routes) - 1))
    routes_head, routes = route_grid(paper).lines(picture.routes[first:], paper)
    seen = picture.routes[first : first + _fitting(routes, max(1, room * 3 // 5))]
    versions_head, versions = version_grid().lines(_versions_of(seen, picture.versions), paper)
    shown = _some("routes", routes, paper, room=max(room * 3 // 5, room - sum(map(len, versions))), before=first)
    resident = _some("versions", versions, paper, room=room - len(shown))
    events += max(0, room - len(shown) - len(resident)) if events else 0
    return (
        [routes_head, *shown],
        [versions_head, *resident],
        list(event_lines(picture.events[:events], paper)),
    )


def _events_shown(paper: Paper) -> int:
    height = paper.height or 0
    return 5 if height >= 36 else 3 if height >= 24 else 0


def _versions_of(routes: Sequence[RouteRow], versions: Sequence[VersionRow]) -> Sequence[VersionRow]:
    """Of the models of the routes in sight."""
    models = {row.model for row in routes}
    return [row for row in versions if row.model in models]


def _some(what: str, groups: Sequence[Group], paper: Paper, *, room: int, before: int = 0) -> Sequence[Text]:
    """As many as there is room for, and how many there are besides."""
    count = _fitting(groups, room if not before else room - 1)
    if count < len(groups):
        count = max(1, _fitting(groups, room - 1))
    besides = [f"{before} above" if before else "", f"{len(groups) - count} more" if count < len(groups) else ""]
    told = ", ".join(filter(None, besides))
    return [*_flat(groups[:count]), *([paper.line(f"{GAP}{told} {what}", "dim")] if told else [])]


def _fitting(groups: Sequence[Group], room: int) -> int:
    """How many of them, from the first on."""
    taken = 0
    for count, group in enumerate(groups):
        taken += len(group)
        if taken > room:
            return count
    return len(groups)


def _flat(groups: Iterable[Group]) -> list[Text]:
    return [line for group in groups for line in group]


def _joined(panes: Sequence[Sequence[Text]]) -> list[Text]:
    """With a free line between them."""
    lines: list[Text] = []
    for pane in panes:
        lines += [Text(), *pane] if lines and pane else pane
    return lines
