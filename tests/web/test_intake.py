"""What bodies on their way hold together: bounded, by what has come of them, and nobody holds room by waiting."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from gateway.clock import ManualClock
from gateway.errors import QueueFull
from gateway.settings import LimitSettings
from gateway.web import intake as intake_module
from gateway.web.inference import Inference
from gateway.web.intake import Intake, Share
from gateway.web.services import WebLimits
from gateway.workers.begin import web_limits
from tests.web.stage import LIMITS, ServedStage, serve_stage
from tests.web.test_arrival import binary, expected, numbers
from tests.web.test_server import stage_of, until
from tests.web.test_wire import connect, read_answer

ROWS = 20_000  # 320 KB
CLIENTS = 5
MOST = 1_000_000
KB = 1024
NARROW = replace(LIMITS, under_way_bytes=MOST)

Way = Callable[[bytes], bytes]


def in_place(whole: bytes) -> bytes:
    return whole


def in_pieces(whole: bytes) -> bytes:
    """Through uvicorn, which is asked to say that it goes on."""
    return whole.replace(b"host: g\r\n", b"host: g\r\nexpect: 100-continue\r\n", 1)


WAYS = pytest.mark.parametrize("way", [in_place, in_pieces])


@pytest.fixture
def narrow() -> Iterator[ServedStage]:
    """There is room for three of the bodies that are sent here, and a little."""
    with serve_stage(limits=NARROW, keep_alive_s=600) as served:
        yield served


def held(served: ServedStage) -> int:
    served_by = stage_of(served).application._served.__self__  # type: ignore[attr-defined]
    assert isinstance(served_by, Inference)
    return served.on_loop(lambda: served_by.intake.held_bytes)


def until_held(served: ServedStage, least: int) -> None:
    until(lambda: held(served) >= least)


def answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """The last word: not that it may go on."""
    buffer = bytearray()
    told = read_answer(connection, buffer)
    return read_answer(connection, buffer) if told[0] == 100 else told


@WAYS
def test_bodies_on_their_way_hold_so_much_together_and_no_more(narrow: ServedStage, way: Way) -> None:
    """Who brings more is told to come back; the others go on, and hold nothing when they are whole."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(narrow)) for _ in range(CLIENTS)]
        for count, client in enumerate(clients[:3], start=1):
            client.sendall(way(binary(ROWS))[:-20_000])
            until_held(narrow, count * 300_000)
        for client in clients[3:]:
            with contextlib.suppress(OSError):  # refused before all was sent
                client.sendall(way(binary(ROWS))[:-20_000])
            status, headers, body = answer(client)
            assert (status, headers["retry-after"], headers["connection"]) == (429, "1", "close")
            assert b"of the 1000000 bytes that they may take together" in body
        assert stage_of(narrow).observer.rejections == [("digits", "queue-full")] * 2
        for client in clients[:3]:
            client.sendall(binary(ROWS)[-20_000:])
            status, headers, body = answer(client)
            assert status == 200
            assert np.array_equal(numbers(headers, body), expected(ROWS))
    until(lambda: held(narrow) == 0)


@WAYS
def test_who_hardly_sends_gives_way_once_room_is_short(
    narrow: ServedStage, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three clients that stop would else keep all others out until their time is over."""
    with contextlib.ExitStack() as stack:
        stopped = [stack.enter_context(connect(narrow)) for _ in range(3)]
        for count, client in enumerate(stopped, start=1):
            client.sendall(way(binary(ROWS))[:-20_000])
            until_held(narrow, count * 300_000)
        monkeypatch.setattr(intake_module, "_PROGRESS_S", 0.0)
        with connect(narrow) as refused:
            refused.sendall(binary(ROWS)[:200_000])
            assert answer(refused)[0] == 429
        for client in stopped:
            status, headers, body = answer(client)
            assert (status, headers["connection"]) == (408, "close")
            assert b"others waited for its place" in body
        with connect(narrow) as connection:
            connection.sendall(way(binary(ROWS)))
            assert answer(connection)[0] == 200
    until(lambda: held(narrow) == 0)


@WAYS
def test_who_only_says_that_a_body_will_come_holds_nothing(narrow: ServedStage, way: Way) -> None:
    """What is still to come costs its client nothing, and neither does it cost others."""
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(connect(narrow)).sendall(way(binary(ROWS))[:400])
        connection = stack.enter_context(connect(narrow))
        connection.sendall(way(binary(ROWS)))
        assert answer(connection)[0] == 200
        assert held(narrow) == 0


@WAYS
def test_a_client_that_leaves_leaves_no_room_behind_it_taken(narrow: ServedStage, way: Way) -> None:
    with connect(narrow) as connection:
        connection.sendall(way(binary(ROWS))[:200_000])
        until(lambda: held(narrow) > 100_000)
    until(lambda: held(narrow) == 0)


def test_a_small_body_always_has_room(narrow: ServedStage) -> None:
    """In two pieces, too, while others hold all there is."""
    with contextlib.ExitStack() as stack:
        for count in range(1, 4):
            stack.enter_context(connect(narrow)).sendall(binary(ROWS)[:-1])
            until_held(narrow, count * 319_999)
        connection = stack.enter_context(connect(narrow))
        small = binary(4000)  # 64,000 bytes
        connection.sendall(small[:-1])
        connection.sendall(small[-1:])
        assert answer(connection)[0] == 200


class Bodies:
    """An intake whose bodies come when the test says so."""

    def __init__(self, most_bytes: int = 1000 * KB) -> None:
        self.clock = ManualClock()
        self.intake = Intake(self.clock, most_bytes)
        self.gave_way: list[Share] = []

    def begin(self, came: int = 0) -> Share:
        def give_way() -> bool:
            self.gave_way.append(share)
            return True

        share = self.intake.share(give_way)
        share.came(came)
        return share


def test_what_room_is_left_when_it_is_short_is_for_those_that_have_begun() -> None:
    """Else each would be cut off for the next, and few would ever be done."""
    bodies = Bodies()
    begun = bodies.begin(800 * KB)
    with pytest.raises(QueueFull, match="send this one again later"):
        bodies.begin(100 * KB)
    begun.came(200 * KB)
    with pytest.raises(QueueFull):
        begun.came(1)
    begun.end()
    assert repr(bodies.intake) == "<Intake [0 on their way | 0 of 1024000 bytes]>"


def test_a_body_that_comes_on_gives_no_way() -> None:
    """Nor one that has its time yet; of those that trickle each gives way once, and its bytes count until it has."""
    bodies = Bodies()
    trickling, coming = bodies.begin(400 * KB), bodies.begin(400 * KB)
    bodies.clock.advance(1.5)
    trickling.came(63 * KB)
    coming.came(64 * KB)
    bodies.clock.advance(1.0)
    assert not bodies.gave_way
    for _ in range(2):
        with pytest.raises(QueueFull):
            bodies.begin(100 * KB)
        assert bodies.gave_way == [trickling]
    trickling.end()
    bodies.begin(100 * KB)
    assert repr(bodies.intake) == "<Intake [2 on their way | 577536 of 1024000 bytes]>"


def test_a_body_that_comes_on_takes_the_room_of_one_that_trickles() -> None:
    """It need not wait for a newcomer to look around."""
    bodies = Bodies()
    trickling, coming = bodies.begin(400 * KB), bodies.begin(400 * KB)
    bodies.clock.advance(2.5)
    coming.came(100 * KB)
    assert bodies.gave_way == [trickling]


def test_while_there_is_room_a_body_may_take_its_time() -> None:
    bodies = Bodies()
    bodies.begin(400 * KB)
    bodies.clock.advance(20.0)
    bodies.begin(400 * KB)
    assert not bodies.gave_way


def test_a_body_that_is_refused_holds_nothing() -> None:
    """Ended more than once, it gives back once."""
    bodies = Bodies()
    bodies.begin(800 * KB)
    refused = bodies.intake.share(lambda: True)
    with pytest.raises(QueueFull):
        refused.came(200 * KB)
    refused.end()
    refused.end()
    assert bodies.intake.held_bytes == 800 * KB


def test_one_that_is_refused_leaves_its_room_to_the_others_at_once() -> None:
    """Ten that all come on at a pace: as many are refused as have to be, and not all that bring something before the
    first one's client has heard of it."""
    bodies = Bodies()
    coming = [bodies.begin(80 * KB) for _ in range(10)]
    for _ in range(4):
        for share in coming[:]:
            try:
                share.came(40 * KB)
            except QueueFull:
                coming.remove(share)
    assert [share.held_bytes for share in coming] == [240 * KB] * 4
    assert bodies.intake.held_bytes == 960 * KB


async def test_a_wait_whose_time_is_over_in_this_very_turn_is_not_ended_twice() -> None:
    wait = asyncio.timeout(60.0)
    with contextlib.suppress(TimeoutError):
        async with wait:
            assert intake_module.hasten(wait)
            await asyncio.sleep(60)
    assert wait.expired()
    assert not intake_module.hasten(wait)


def test_sixty_four_clients_with_images_fit_as_the_settings_come() -> None:
    """600 KB each; and four times the largest body where that is more."""
    assert WebLimits().under_way_bytes == web_limits(LimitSettings()).under_way_bytes
    assert web_limits(LimitSettings(body_bytes=1_000_000)).under_way_bytes == 256 * KB * KB
    assert web_limits(LimitSettings(body_bytes=200_000_000)).under_way_bytes == 800_000_000
    bodies = Bodies(WebLimits().under_way_bytes)
    assert all(bodies.begin(600 * KB) for _ in range(64))
