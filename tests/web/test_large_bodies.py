"""Large bodies on their way: who hardly sends does not keep out who does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest
from starlette.types import Message

from gateway.clock import ManualClock
from gateway.codec.limits import CodecLimits
from gateway.decoding.memories import Text
from gateway.decoding.pool import Decoders
from gateway.errors import QueueFull
from gateway.trace_context import Contexts
from gateway.web.exchange import AsgiExchange
from gateway.web.large_bodies import Asked, LargeBodies, LargeEnvelope
from gateway.web.problem_table import ReceiveTimeout
from tests.serving.stage import turns
from tests.web.stage import FOUR

PIECE = b" " * 64 * 1024
BODY = orjson.dumps({"inputs": [[1, 2, 3, 4]]})
PLACES = 64


class Clients:
    """Bodies that come when the test says so, and as many places taken as it likes."""

    def __init__(self, receive_s: float = 60.0) -> None:
        self.clock = ManualClock()
        self.decoders = Decoders(limits=CodecLimits(), body_bytes=1 << 20, clock=self.clock)
        self.bodies = LargeBodies(
            self.decoders, clock=self.clock, from_bytes=1, body_bytes=1 << 20, receive_s=receive_s, watch_after_s=60.0
        )
        self.taken: list[Text] = []

    def take(self, places: int) -> None:
        self.taken = [self.decoders.text() for _ in range(places)]

    def begin(self) -> tuple[asyncio.Task[LargeEnvelope], asyncio.Queue[Message]]:
        pieces: asyncio.Queue[Message] = asyncio.Queue()

        async def send(_: Message) -> None:
            raise AssertionError("nothing is answered here")

        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": []}
        exchange = AsgiExchange(scope, pieces.get, send, contexts=Contexts(0.0))
        asked = Asked("predict", FOUR, None, 60.0)
        return asyncio.ensure_future(self.bodies.receive(exchange, b"", asked)), pieces


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    made = Clients()
    yield made
    await made.bodies.close()


async def test_a_body_that_trickles_gives_its_place_to_one_that_does_not(clients: Clients) -> None:
    """Once places are short; one that comes on stays, and a new one has its time."""
    trickling, drops = clients.begin()
    coming, pieces = clients.begin()
    await turns()
    clients.take(PLACES - 4)
    clients.clock.advance(1.9)
    drops.put_nowait({"type": "http.request", "body": b" ", "more_body": True})
    pieces.put_nowait({"type": "http.request", "body": PIECE, "more_body": True})
    await turns()
    clients.clock.advance(0.2)

    newcomer, its_pieces = clients.begin()
    with pytest.raises(ReceiveTimeout, match="others waited for its place"):
        await trickling
    for end in (pieces, its_pieces):
        end.put_nowait({"type": "http.request", "body": BODY, "more_body": False})
    assert (await coming).fit(FOUR)[1] == (await newcomer).fit(FOUR)[1] == 1


async def test_while_there_are_places_a_body_may_take_its_time(clients: Clients) -> None:
    """All of what it is given to arrive."""
    trickling, drops = clients.begin()
    await turns()
    clients.take(PLACES // 2)
    clients.clock.advance(20.0)
    newcomer, pieces = clients.begin()
    for end in (drops, pieces):
        end.put_nowait({"type": "http.request", "body": BODY, "more_body": False})
    assert (await trickling).fit(FOUR)[1] == (await newcomer).fit(FOUR)[1] == 1


async def test_bodies_that_all_come_on_are_refused_at_the_door_and_nowhere_else(clients: Clients) -> None:
    """Else, under load, each would be cut off for the next and none would ever be done."""
    coming, pieces = clients.begin()
    await turns()
    clients.take(PLACES - 1)
    clients.clock.advance(1.0)
    refused, _ = clients.begin()
    with pytest.raises(QueueFull, match="large bodies are under way"):
        await refused
    pieces.put_nowait({"type": "http.request", "body": BODY, "more_body": False})
    assert (await coming).fit(FOUR)[1] == 1


async def test_one_whose_time_is_over_in_this_very_turn_costs_a_newcomer_nothing() -> None:
    """Its wait has ended and its task has yet to hear of it: there is nothing left to hasten."""
    clients = Clients(receive_s=0.05)
    late, _ = clients.begin()
    clients.take(PLACES - 4)
    await asyncio.sleep(0)
    clients.clock.advance(3.0)
    loop = asyncio.get_running_loop()
    over = loop.time() + 0.06
    while loop.time() < over:
        pass
    await asyncio.sleep(0)  # in this turn the newcomer is begun, then the wait ends, then the newcomer looks around
    newcomer, pieces = clients.begin()
    pieces.put_nowait({"type": "http.request", "body": BODY, "more_body": False})
    assert (await newcomer).fit(FOUR)[1] == 1
    with pytest.raises(ReceiveTimeout, match="did not arrive within"):
        await late
    await clients.bodies.close()
