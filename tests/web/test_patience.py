"""Clients that keep a connection and do nothing with it: each wait ends, and nobody else is cut off by it."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from gateway.web.patience import Outgoing, outgoing
from gateway.web.wire import WireProtocol
from tests.web.stage import LIMITS, ServedStage, serve_stage
from tests.web.test_server import connect, stage_of, until
from tests.web.test_wire import HEALTH, ROW, post, read_answer

PATIENCE_S = 0.3

LARGE = json.dumps({"inputs": [[0.123456789, 1.123456789, 2.123456789, 3.123456789]] * 12_000}).encode()


@pytest.fixture(scope="module")
def hurried() -> Iterator[ServedStage]:
    """A client has 0.3 s to send or take something, and a second between requests."""
    with serve_stage(WireProtocol, elsewhere=replace(LIMITS, receive_s=PATIENCE_S), keep_alive_s=1) as running:
        yield running


def open_connections(served: ServedStage) -> int:
    assert served._server is not None
    state = served._server.server_state
    return served.on_loop(lambda: len(state.connections))


def drip(connection: socket.socket, octet: bytes) -> bytes:
    """Sends byte after byte until the other side says something, or ends."""
    connection.settimeout(0.02)
    for _ in range(5000):
        try:
            connection.sendall(octet)
            return connection.recv(65536)
        except TimeoutError:
            continue
        except OSError:
            return b""
    raise AssertionError("it went on for ever")


def test_who_never_asks_anything_is_let_go(hurried: ServedStage) -> None:
    """As who asks nothing more."""
    with connect(hurried) as connection:
        assert connection.recv(1) == b""


def test_blank_lines_are_no_request(hurried: ServedStage) -> None:
    """They may come before one, and hold no connection: one line or line after line, on a new one or a used one."""
    with connect(hurried) as fresh, connect(hurried) as used:
        for connection in (fresh, used):
            connection.sendall(b"\r\n" + post("/predict/digits", ROW))
            assert read_answer(connection, bytearray())[0] == 200
        fresh.sendall(b"\r\n")
        assert fresh.recv(1) == b""
        assert drip(used, b"\r\n") == b""


def test_a_head_that_trickles_is_refused(hurried: ServedStage) -> None:
    """On a new connection and behind an answer, however steadily it comes."""
    with connect(hurried) as fresh, connect(hurried) as used:
        used.sendall(post("/predict/digits", ROW))
        assert read_answer(used, bytearray())[0] == 200
        for connection in (fresh, used):
            connection.sendall(b"POST /predict/digits HTTP/1.1\r\nx-slow: ")
            answer = drip(connection, b"a")
            assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
            assert b"did not arrive within 0.3 s" in answer
            assert drip(connection, b"a") == b""


def test_a_head_that_waits_behind_an_answer_under_way_does_not_cut_it_off(hurried: ServedStage) -> None:
    """Half a request in the same read as a slow one."""
    stage = stage_of(hurried)
    gate = hurried.on_loop(stage.slow.hold)
    with connect(hurried) as connection, connect(hurried) as other:
        connection.sendall(post("/predict/slow", ROW) + b"POST /predict/digits HTTP/1.1\r\n")
        until(lambda: stage.dataplane.inflight == 1)
        other.sendall(b"POST /")
        assert drip(other, b"a").startswith(b"HTTP/1.1 408 "), "by now the half request is late, too"
        hurried.on_loop(gate.set)
        buffer = bytearray()
        assert read_answer(connection, buffer)[0] == 200
        assert read_answer(connection, buffer)[0] == 408


def test_the_rest_of_a_body_that_was_answered_is_not_awaited_for_ever(hurried: ServedStage) -> None:
    """The answer needed none of it; byte after byte of it would hold the connection."""
    with connect(hurried) as connection:
        connection.sendall(b"POST /healthz HTTP/1.1\r\nhost: gateway\r\ncontent-length: 100000\r\n\r\n")
        assert read_answer(connection, bytearray())[0] == 405
        assert drip(connection, b"a") == b""


def test_after_the_rest_of_an_answered_body_the_connection_goes_on_and_is_idle(hurried: ServedStage) -> None:
    """It serves the next request, and ends when none comes."""
    with connect(hurried) as connection:
        buffer = bytearray()
        connection.sendall(b"POST /healthz HTTP/1.1\r\nhost: gateway\r\ncontent-length: 3\r\n\r\n")
        assert read_answer(connection, buffer)[0] == 405
        connection.sendall(b"abc")
        assert connection.recv(1) == b""


def test_who_does_not_take_its_answer_is_let_go(hurried: ServedStage) -> None:
    """A large answer, and a client that reads none of it: connection and answer are given up."""
    until(lambda: open_connections(hurried) == 0)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(60)
        connection.connect(hurried.socket.getsockname())
        with contextlib.suppress(OSError):  # it may be let go before it has asked for the last
            for _ in range(4):
                connection.sendall(post("/predict/digits", LARGE))
        until(lambda: open_connections(hurried) == 0)


@contextlib.contextmanager
def slow_reader(served: ServedStage) -> Iterator[tuple[socket.socket, WireProtocol]]:
    """A client with little room, and the gateway's end of its connection."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.settimeout(60)
        connection.connect(served.socket.getsockname())
        until(lambda: bool(patient(served)))
        yield connection, patient(served)[0]


@pytest.mark.parametrize("closed", [False, True])
def test_who_takes_its_answer_slowly_gets_it(closed: bool) -> None:
    """The system holds megabytes: what waits in the gateway stands still for long while the client does take some. One
    that takes nothing more is let go, be its connection closed already or not."""
    with serve_stage(WireProtocol) as served, slow_reader(served) as (connection, one):

        def write() -> Outgoing:
            one.transport.write(bytes(32 << 20))
            if closed:
                one.transport.close()
            return outgoing(one.transport)

        def lasts(taken_before: int) -> bool:
            assert one._untaken is not None
            one._untaken.cancel()
            one._look_at_taking(taken_before)
            return one._untaken is not None

        taken = served.on_loop(write).taken
        while served.on_loop(lambda: outgoing(one.transport)).taken == taken:
            assert connection.recv(4096)
        assert served.on_loop(lambda: lasts(taken))
        assert not served.on_loop(lambda: lasts(1 << 62))
        until(lambda: not patient(served))


def test_a_connection_that_closes_with_little_left_to_take_is_watched() -> None:
    """A client that takes nearly all, and then nothing, would keep it for ever."""
    with serve_stage(WireProtocol) as served, slow_reader(served) as (_, one):

        def refuse() -> bool:
            one.transport.set_write_buffer_limits(high=1 << 30)
            while not one.transport.get_write_buffer_size():
                one.transport.write(bytes(65536))
            one.data_received(b"no HTTP\r\n\r\n")
            return one._untaken is not None

        assert served.on_loop(refuse)
        served.on_loop(one.resume_writing)
        assert one._untaken is not None, "less than would pause the writing is more than nothing"
        served.on_loop(one.transport.abort)


def test_an_idle_connection_whose_answer_is_still_being_taken_is_left_alone() -> None:
    """What the system holds counts, too: with TLS, all is there or below."""
    with serve_stage(WireProtocol) as served, slow_reader(served) as (connection, one):

        def ring() -> bool:
            one.transport.set_write_buffer_limits(high=1 << 30)
            one._idle_since = 0.0
            one.timeout_keep_alive_handler()
            return one.transport.is_closing()

        served.on_loop(lambda: one.transport.write(bytes(256 * 1024)))
        until(lambda: served.on_loop(one.transport.get_write_buffer_size) == 0)
        assert not served.on_loop(ring)
        left = 256 * 1024
        while left:
            left -= len(connection.recv(65536))
        until(lambda: served.on_loop(lambda: outgoing(one.transport).left) == 0)
        assert served.on_loop(ring)


def patient(served: ServedStage) -> list[WireProtocol]:
    assert served._server is not None
    return [one for one in list(served._server.server_state.connections) if isinstance(one, WireProtocol)]


def test_requests_that_queue_behind_each_other_are_all_answered_in_their_order(hurried: ServedStage) -> None:
    """Two hundred of them behind a slow one, and one at the end whose body comes later."""
    stage = stage_of(hurried)
    gate = hurried.on_loop(stage.slow.hold)
    with connect(hurried) as connection:
        late = post("/predict/digits", ROW)
        connection.sendall(post("/predict/slow", ROW) + HEALTH * 100)
        until(lambda: stage.dataplane.inflight == 1)
        connection.sendall(HEALTH * 100 + late[:-5])
        hurried.on_loop(gate.set)
        buffer = bytearray()
        assert [read_answer(connection, buffer)[0] for _ in range(201)] == [200] * 201
        connection.sendall(late[-5:])
        assert read_answer(connection, buffer)[0] == 200


def test_trailers_are_no_headers(hurried: ServedStage) -> None:
    """Not even of a request that waits its turn while they come; and without end they would take all memory."""
    stage = stage_of(hurried)
    gate = hurried.on_loop(stage.slow.hold)
    head = b"POST /predict/digits HTTP/1.1\r\nhost: gateway\r\ntransfer-encoding: chunked\r\n\r\n"
    chunked = head + b"%x\r\n%b\r\n0\r\nx-timeout-ms: nine\r\n\r\n" % (len(ROW), ROW)
    with connect(hurried) as connection:
        connection.sendall(post("/predict/slow", ROW) + chunked)
        until(lambda: stage.dataplane.inflight == 1)
        hurried.on_loop(gate.set)
        buffer = bytearray()
        assert [read_answer(connection, buffer)[0] for _ in range(2)] == [200, 200]


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (HEALTH * 2000, 400),
        (HEALTH + b"no HTTP\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nx-endless: " + b"a" * 500_000, 431),
    ],
    ids=["too many requests", "no request", "a head without end"],
)
def test_what_is_refused_behind_an_answer_under_way_does_not_take_its_place(bad: bytes, status: int) -> None:
    """The client would take the refusal for that answer. It comes behind it, and nothing more is read."""
    with serve_stage(WireProtocol) as served, connect(served) as connection:
        stage = stage_of(served)
        gate = served.on_loop(stage.slow.hold)
        connection.sendall(post("/predict/slow", ROW))
        until(lambda: stage.dataplane.inflight == 1)
        connection.sendall(bad)
        until(lambda: bool(patient(served)[0]._refusal))
        served.on_loop(gate.set)
        buffer = bytearray()
        answered = 1 + min(256, bad.count(b"/healthz"))
        assert [read_answer(connection, buffer)[0] for _ in range(answered)] == [200] * answered
        assert read_answer(connection, buffer)[0] == status
        assert not buffer
        until(lambda: not patient(served))


def test_a_client_that_queues_without_end_is_let_go(hurried: ServedStage) -> None:
    """However fast it takes the answers: each would let it queue thousands more, until there is no memory."""
    stage = stage_of(hurried)
    gate = hurried.on_loop(stage.slow.hold)
    with connect(hurried) as connection:
        connection.sendall(post("/predict/slow", ROW) + HEALTH * 1000)
        until(lambda: any(one._refusal for one in patient(hurried)))
        assert max(queued(hurried)) <= 256
        hurried.on_loop(gate.set)
        with contextlib.suppress(OSError):
            for _ in range(1000):
                connection.sendall(HEALTH * 1000)
        until(lambda: not patient(hurried))


def test_queued_requests_are_read_no_faster_than_they_are_answered() -> None:
    """An answer lets the next begin; more are read when none is left. Looked at in each turn of the loop."""
    with serve_stage(WireProtocol) as served, connect(served) as connection:
        stage = stage_of(served)
        gate = served.on_loop(stage.slow.hold)
        connection.sendall(post("/predict/slow", ROW) + HEALTH * 100)
        until(lambda: stage.dataplane.inflight == 1)
        connection.sendall(HEALTH * 100)
        server, loop = served._server, served._loop
        assert server is not None
        assert loop is not None
        read: list[int] = []

        def look() -> None:
            answered = server.server_state.total_requests
            if answered < 101:
                read.append(answered + sum(queued(served)))
                loop.call_soon(look)

        served.on_loop(look)
        served.on_loop(gate.set)
        buffer = bytearray()
        assert [read_answer(connection, buffer)[0] for _ in range(201)] == [200] * 201
        assert max(read) <= 101


def queued(served: ServedStage) -> list[int]:
    return [len(one.pipeline) for one in patient(served)]
