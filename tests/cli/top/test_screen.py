"""What is shown, of which rows, in which room."""

from __future__ import annotations

from io import BytesIO, StringIO, TextIOWrapper

import pytest
from rich.console import Console

from gateway.cli.top.live import paper_of
from gateway.cli.top.rates import Window
from gateway.cli.top.reading import picture_of
from gateway.cli.top.screen import screen
from gateway.cli.top.told import Facts
from gateway.cli.top.words import ASCII, UNICODE, Paper, seconds_text, share_text
from tests.cli.top.scene import ADDRESS, busy, look, ready, route_view


def shown(paper: Paper, routes: int = 3, **more: object) -> list[str]:
    return [line.plain.rstrip() for line in screen(busy(routes), paper, **more)]  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("height", [10, 24, 60])
@pytest.mark.parametrize("routes", [1, 3, 200])
def test_a_screen_is_filled_and_never_overflows(width: int, height: int, routes: int) -> None:
    for away in ("", "for 8 s: no gateway answers at " + 9 * ADDRESS):
        lines = screen(busy(routes), Paper(width, height, UNICODE), first=min(5, routes), away=away)
        assert len(lines) == height
        assert max(line.cell_len for line in lines) <= width


@pytest.mark.parametrize("width", [60, 100, 200])
def test_what_is_in_trouble_is_seen_at_any_width(width: int) -> None:
    """The worst route first, with its errors, what degrades it, what it refuses; a rollout, and why it waits."""
    lines = shown(Paper(width, 40, UNICODE))
    text = "\n".join(lines)
    route = next(line for line in lines if line.startswith("fraud-detection"[:10]))
    assert "10.0%" in route
    for words in ("version 2 is failed", "on-call", "queue-full", "stepping at 10%", "300 more", "ALARM", "2 replicas"):
        assert words in text
    digits = next(place for place, line in enumerate(lines) if line.startswith("digits "))
    assert digits > lines.index(route)


def test_narrow_screens_say_below_what_they_have_no_column_for() -> None:
    lines = "\n".join(shown(Paper(60, 40, UNICODE)))
    assert "FELL BACK/S" not in lines
    assert "fell back 9.0/s" in lines
    assert "refused 20/s for queue-full" in lines


def test_marks_are_words_where_there_is_room_and_letters_without_unicode() -> None:
    assert "1 90% known good, 2 10%, 3 quarantined" in "\n".join(shown(Paper(200, 40, UNICODE)))
    assert "1 90%✓  2 10%  3✗" in "\n".join(shown(Paper(100, 40, UNICODE)))
    plain = "\n".join(shown(Paper(80, 30, ASCII), routes=200))
    assert "1 90%+  2 10%  3x" in plain
    assert plain.isascii()
    console = Console(file=TextIOWrapper(BytesIO(), encoding="ascii"), width=90)
    assert paper_of(console, height=20) == Paper(90, 20, ASCII)
    assert paper_of(Console(file=StringIO(), width=90), height=None) == Paper(90, None, UNICODE)


def test_many_routes_are_scrolled_and_counted() -> None:
    """What is not in sight is counted; the versions in sight are those of the routes in sight."""
    first = shown(Paper(100, 30, UNICODE), routes=200)
    later = shown(Paper(100, 30, UNICODE), routes=200, first=150)
    assert any("more routes" in line for line in first)
    assert any("150 above" in line for line in later)
    assert any(line.startswith("route-150/1 ") for line in later)
    assert not any(line.startswith("fraud") for line in later)
    assert any("199 above" in line for line in shown(Paper(100, 30, UNICODE), routes=200, first=10_000))


def test_paper_takes_everything_uncut() -> None:
    lines = shown(Paper(4096, None, UNICODE), routes=200)
    assert sum(line.startswith("route-") and "/" not in line for line in lines) == 198
    assert any("features.parquet" in line for line in lines)
    assert not any("more" in line and "routes" in line for line in lines)


def test_a_gateway_that_is_away_is_shown_as_such() -> None:
    lines = screen(busy(), Paper(100, 30, UNICODE), away="for 8 s: refused")
    assert lines[0].plain.startswith("NO ANSWER for 8 s: refused")
    assert all(any(span.style == "dim" for span in line.spans) for line in lines[1:-1] if line.plain.strip())


def test_failures_made_good_by_a_fallback_are_the_versions_errors_and_not_the_routes() -> None:
    """Clients saw none of them; who looks for the bad version must."""
    standing = ready({"r": [{"version": 1, "weight": 90}, {"version": 2, "weight": 10}]})
    window = Window().taken(look(0.0, standing=standing), span_s=10.0)
    labels = 'route="r",model="r"'
    after = (
        f'gateway_requests_total{{{labels},version="2",code="200"}} 10',
        f'gateway_requests_total{{{labels},version="1",code="200"}} 90',
        'gateway_fallbacks_total{route="r",version="2",cause="ModelError"} 5',
    )
    picture = picture_of(
        window.taken(look(2.0, *after, standing=standing), span_s=10.0), Facts(), address=ADDRESS, at=0.0
    )
    assert (picture.routes[0].errors, picture.routes[0].fallbacks_s) == (0.0, 2.5)
    assert {row.version: row.errors for row in picture.versions} == {1: 0.0, 2: 0.5}


def test_without_the_admin_plane_the_rest_is_shown() -> None:
    """No token: states, weights and quarantine are of ``/readyz``; pids and the known good are withheld."""
    facts = Facts(withheld=("not shown: pids (no token)",))
    standing = ready({"r": [{"version": 1, "weight": 3}, {"version": 2, "weight": 1, "quarantined": True}]})
    alone = picture_of(Window().taken(look(0.0, standing=standing), span_s=1.0), facts, address=ADDRESS, at=0.0)
    assert [(arm.percent, arm.quarantined, arm.known_good) for arm in alone.routes[0].split] == [
        (100.0, False, False),
        (0.0, True, False),
    ]
    assert "not shown: pids (no token)" in [line.plain for line in screen(alone, Paper(100, 20, UNICODE))]


def test_a_change_that_is_not_in_force_says_what_it_waits_for() -> None:
    standing = ready({"r": [{"version": 1, "weight": 1}]})
    view = route_view("r", applied=False, pending=[2, 3], failed={"3": "no such file"}, revision=9)
    window = Window().taken(look(0.0, standing=standing), span_s=1.0)
    [row] = picture_of(window, Facts(routes={"r": view}), address=ADDRESS, at=0.0).routes
    assert row.notes == (
        "version 3 cannot be loaded: no such file",
        "revision 9 is not in force yet: waits for version 2",
    )


def test_one_route_may_be_asked_for() -> None:
    """With its model's versions and its events; one that is not there is named."""
    standing = ready({"a": [{"version": 1, "weight": 1}], "b": [{"version": 1, "weight": 1}]})
    window = Window().taken(look(0.0, standing=standing), span_s=1.0)
    picture = picture_of(window, Facts(), address=ADDRESS, at=0.0, routes=("b", "c"))
    assert [row.route for row in picture.routes] == ["b"]
    assert [row.model for row in picture.versions] == ["b"]
    assert picture.withheld == ("no route 'c' in force",)


def test_a_gateway_without_routes_says_so() -> None:
    picture = picture_of(Window().taken(look(0.0), span_s=1.0), Facts(), address=ADDRESS, at=0.0)
    assert any(line.plain.startswith("no route is in force") for line in screen(picture, Paper(80, 24, UNICODE)))


def test_numbers_are_short_and_never_say_none_for_a_few() -> None:
    assert [share_text(value) for value in (None, 0.0, 0.0004, 0.0123, 1.0)] == ["-", "0", "<0.1%", "1.2%", "100.0%"]
    assert [seconds_text(value) for value in (None, 0.0004, 0.0123, 0.5, 2.25, 10.0)] == [
        *("-", "0.4 ms", "12 ms", "500 ms", "2.2 s", ">10 s"),
    ]
