"""``turnout top`` as an operator runs it: on a real gateway under traffic, in pipes, and in a real terminal."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from gateway.cli.admin_client import AdminClient
from gateway.cli.top.asking import Asking
from gateway.cli.top.keys import typed
from gateway.cli.top.live import looked
from gateway.cli.top.rates import Window
from gateway.clock import ManualClock
from loadtests.live_gateway import LiveGateway, free_port
from tests.cli.conftest import Turnout, echo_source
from tests.cli.top.conftest import Terminal
from tests.live.scenario import ROW

pytestmark = pytest.mark.timeout(600)


@contextmanager
def traffic(gateway: LiveGateway, route: str) -> Iterator[None]:
    """Requests one after the other until the block ends; begun when the first was answered. Every third is for a route
    that there is none of."""
    stop, begun = threading.Event(), threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=gateway.url, timeout=60) as client:
            number = 0
            while not stop.wait(0.005):
                number += 1
                path = "/predict/nobody" if number % 3 == 0 else f"/predict/{route}"
                try:
                    client.post(path, json={"inputs": [ROW, ROW], "key": f"{number}"})
                except httpx.TransportError:
                    continue
                begun.set()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        assert begun.wait(90)
        yield
    finally:
        stop.set()
        asking.join()


@pytest.fixture(scope="module")
def served(live: LiveGateway) -> str:
    """A route of two versions."""
    for number in (1, 2):
        live.register("watched", echo_source(live.home.parent, f"watched-{number}", outputs={"y": float(number)}))
    split = [{"version": 1, "weight": 3}, {"version": 2, "weight": 1}]
    live.put_route("watched", {"model": "watched", "split": split, "known_good": 1})
    return "watched"


def test_a_snapshot_tells_what_goes_on(remote: Turnout, live: LiveGateway, served: str) -> None:
    """Rates, latencies, the split, the versions with their processes, and what was changed last."""
    with traffic(live, served):
        told = remote.done("top", "--json", "--every", "1").json
    gateway, [route] = told["gateway"], told["routes"]
    assert (gateway["state"], gateway["store_up"], gateway["replicas"], gateway["dropped"]) == ("ready", True, 1, 0)
    assert gateway["revision"] == live.route(served)["revision"]
    assert gateway["requests_s"] > route["requests_s"] > 0
    assert (route["errors"], route["fallbacks_s"], route["refused_s"]) == (0.0, 0.0, 0.0)
    assert 0 < route["p50_s"] <= route["p99_s"]
    assert [(arm["version"], arm["percent"], arm["known_good"]) for arm in route["split"]] == [
        (1, 75.0, True),
        (2, 25.0, False),
    ]
    resident = live.resident()
    assert {row["version"]: row["pid"] for row in told["versions"]} == {
        number: resident[f"watched/{number}"]["pid"] for number in (1, 2)
    }
    assert all(row["memory_bytes"] > 0 and row["state"] == "active" for row in told["versions"])
    assert next(row for row in told["versions"] if row["version"] == 1)["batch_rows"] >= 2
    assert {event["action"] for event in told["events"]} >= {"register", "route-create"}
    assert told["withheld"] == []


def test_off_a_terminal_one_snapshot_is_printed(remote: Turnout, served: str) -> None:
    """As with --once: what is piped must end. Nothing steers a terminal there."""
    for words in (("top", "--every", "0.5"), ("top", "--once", "--route", served, "--every", "0.5")):
        done = remote.done(*words)
        assert f"{served}  " in done.out
        assert "1 75% known good, 2 25%" in done.out
        assert "\x1b" not in done.out
        assert done.err == ""


async def test_many_looks_ask_the_admin_plane_when_something_has_changed(live: LiveGateway, served: str) -> None:
    """Two requests a look; what changes seldom is asked for at first, after a change, and now and then; events only
    after a change."""
    paths: list[str] = []

    async def note(request: httpx.Request) -> None:
        paths.append(request.url.path)

    headers = {"authorization": f"Bearer {live.token}"}
    async with httpx.AsyncClient(base_url=live.url, headers=headers, event_hooks={"request": [note]}) as client:
        clock = ManualClock()
        asking = Asking(AdminClient(client, live.url, token_given=True), clock)
        await looked(asking, Window(), ())
        first, every = sorted(paths), ["/metrics", "/readyz"]
        assert first == ["/admin/audit", "/admin/replicas", "/admin/routes", "/admin/versions", *every]
        assert await _asked_now(asking, paths) == every
        live.weights(served, {1: 9, 2: 1})
        assert await _asked_now(asking, paths) == first
        clock.advance(60)
        assert await _asked_now(asking, paths) == first[1:]
        live.weights(served, {1: 3, 2: 1})


async def _asked_now(asking: Asking, paths: list[str]) -> list[str]:
    paths.clear()
    await looked(asking, Window(), ())
    return sorted(paths)


@pytest.mark.parametrize("token", ["", "turnout_wrong"])
def test_a_token_without_the_right_is_told_once_and_the_rest_is_shown(remote: Turnout, served: str, token: str) -> None:
    """Metrics and readiness need none."""
    told = remote.done("top", "--json", "--every", "0.5", TURNOUT_TOKEN=token).json
    assert [row["route"] for row in told["routes"]] == [served]
    assert told["routes"][0]["split"][0]["percent"] == 75.0
    [withheld] = told["withheld"]
    assert withheld.startswith("not shown: known good and rollouts, pids and devices, replicas, events (")
    assert ("set TURNOUT_TOKEN" in withheld) == (token == "")


def test_a_token_for_one_route_sees_its_known_good(remote: Turnout, served: str) -> None:
    made = remote.done("tokens", "create", "of-one-route", "--route", served, "--json").json
    told = remote.done("top", "--json", "--every", "0.5", TURNOUT_TOKEN=made["token"]).json
    assert told["routes"][0]["split"][0]["known_good"]
    [withheld] = told["withheld"]
    assert withheld.startswith("not shown: pids and devices, replicas, events (")


def test_an_address_where_no_gateway_is_fails_at_once(remote: Turnout) -> None:
    """A wrong address is told, not waited for."""
    done = remote("top", "--once", TURNOUT_URL=f"http://127.0.0.1:{free_port()}")
    assert (done.status, "no gateway answers" in done.err) == (1, True)
    assert remote("top", "--every", "0").status == 2


def test_the_view_moves_and_q_gives_the_terminal_back(
    terminal: Callable[..., Terminal], live: LiveGateway, served: str
) -> None:
    """On a screen of its own, which is left at the end; the terminal's settings are as before, and it is resized."""
    with traffic(live, served):
        view = terminal("top", "--every", "0.5")
        first = view.shows(lambda text: "requests/s" in text and "P50" in text, "the view")
        assert served in first
        view.shows(lambda text: "rates over" in text and " - requests/s" not in text, "rates")
        view.resize(60, 20)
        narrow = view.shows(lambda text: "requests/s" in text and "P50" not in text, "a narrow view")
        assert "P99" in narrow
        view.type(b"jk\x1b[B\x1b[A\x1a")  # Ctrl-Z stops nothing
        view.type(b"q")
        assert view.ended() == 0
    assert view.written.count(b"\x1b[?1049h") == view.written.count(b"\x1b[?1049l") == 1
    assert view.written.rindex(b"\x1b[?25h") > view.written.rindex(b"\x1b[?25l")
    assert view.settings_now() == view.settings


def test_a_gateway_that_goes_away_is_told_and_the_view_goes_on_when_it_is_back(
    terminal: Callable[..., Terminal], live: LiveGateway, served: str
) -> None:
    """Until Ctrl-C, which ends it as q does. The last picture stays meanwhile."""
    view = terminal("top", "--every", "0.5")
    view.shows(lambda text: served in text and "NO ANSWER" not in text, "the view")
    live.kill()
    gone = view.shows(lambda text: "NO ANSWER" in text, "the gateway, gone")
    assert served in gone
    live.start()
    view.shows(lambda text: "rates over" in text and "NO ANSWER" not in text, "the gateway, back")
    view.type(b"\x03")
    assert view.ended() == 0
    assert view.written.count(b"\x1b[?1049l") == 1
    assert view.settings_now() == view.settings


def test_keys_are_told_from_what_a_terminal_sends() -> None:
    assert list(typed(b"\x1b[A\x1bOBxq\x1b[6~\x1b[99~\xc3\xa4 ")) == ["up", "down", "quit", "page-down", "page-down"]
