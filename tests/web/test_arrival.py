"""Bodies of binary tensors, received in place: the same answers as any other way, and nothing kept of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import socket
import ssl
import subprocess
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.clock import ManualClock
from gateway.decoding.memories import Text
from gateway.errors import QueueFull
from gateway.web import arrival as arrival_module
from gateway.web.arrival import Arrival, receive_in_place
from gateway.web.intake import Intake
from gateway.web.problem_table import ReceiveTimeout
from gateway.web.wire import WireProtocol
from tests.web.stage import LIMITS, ServedStage, Stage, serve_stage
from tests.web.test_server import read_all, stage_of, until
from tests.web.test_wire import UNLIKE, VARYING, connect, read_answer

ROWS = 20_000
LARGE = replace(LIMITS, body_bytes=1 << 20)
ELSEWHERE = replace(LARGE, decode_elsewhere_bytes=100_000)
HEALTH = b"GET /healthz HTTP/1.1\r\nhost: gateway\r\n\r\n"


def binary(rows: int = ROWS, *lines: str, path: str = "/v2/models/digits/infer", first: float = 0.0) -> bytes:
    """A request whose tensor is binary, and whose answer is few numbers: the version answers with what it was sent."""
    tensor = (np.arange(rows * 4, dtype="<f4") + first).tobytes()
    entry = {"name": "x", "datatype": "FP32", "shape": [rows, 4], "parameters": {"binary_data_size": len(tensor)}}
    head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    return request(head + tensor, f"inference-header-content-length: {len(head)}", *lines, path=path)


def request(body: bytes, *lines: str, path: str = "/v2/models/digits/infer", length: int | None = None) -> bytes:
    said = len(body) if length is None else length
    return "\r\n".join((f"POST {path} HTTP/1.1", "host: g", f"content-length: {said}", *lines, "", "")).encode() + body


def numbers(headers: dict[str, str], body: bytes) -> np.ndarray[Any, Any]:
    return np.frombuffer(body[int(headers["inference-header-content-length"]) :], "<f4")


def expected(rows: int = ROWS, first: float = 0.0) -> np.ndarray[Any, Any]:
    return np.arange(rows * 4, dtype="<f4") + first


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def wire(request: pytest.FixtureRequest) -> Iterator[ServedStage]:
    """Idle connections last for longer than any test waits."""
    loop = uvloop.new_event_loop if request.param == "uvloop" else None
    with serve_stage(WireProtocol, limits=LARGE, keep_alive_s=600, loop=loop) as one:
        yield one


@pytest.fixture(scope="module")
def asgi() -> Iterator[ServedStage]:
    with serve_stage(HttpToolsProtocol, limits=LARGE) as running:
        yield running


@pytest.fixture
def arrivals(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Any]]:
    """The memory of each body of tensors that is received in place."""
    found: list[weakref.ref[Any]] = []

    class Body(arrival_module._Body):
        def __init__(self, size: int, came: Callable[[int], None]) -> None:
            super().__init__(size, came)
            found.append(weakref.ref(self._octets))

    monkeypatch.setattr(arrival_module, "_Body", Body)
    return found


def shown(served: ServedStage, request_bytes: bytes) -> tuple[int, dict[str, str], object]:
    with connect(served) as connection:
        with contextlib.suppress(OSError):  # refused, and the connection ended, before all was sent
            connection.sendall(request_bytes)
        status, headers, body = read_answer(connection, bytearray())
    known = {name: "" if name in VARYING else item for name, item in headers.items()}
    if headers["content-type"] != "application/octet-stream":
        said = {name: item for name, item in json.loads(body).items() if name not in ("request_id", "decision")}
        body = json.dumps(said).encode()
    return status, {name: item for name, item in known.items() if name not in UNLIKE}, body


def intake() -> Intake:
    return Intake(ManualClock(), 1 << 30)


def left_since(stage: Stage, before: int) -> int:
    """How many clients left. Records come in bursts: that of a request before may be among them."""
    return [record.code for record in stage.observer.requests[before:]].count(499)


def send(connection: socket.socket, data: bytes, *cuts: int) -> None:
    """In pieces that end at the cuts, each read before the next comes, as far as one can tell."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    edges = [0, *sorted(cut % len(data) for cut in cuts), len(data)]
    for begin, end in itertools.pairwise(edges):
        connection.sendall(data[begin:end])
        if end < len(data):
            connection.settimeout(0.02)
            with contextlib.suppress(TimeoutError):
                assert connection.recv(1, socket.MSG_PEEK) != b"", "the connection ended"
            connection.settimeout(60)


@pytest.mark.parametrize(
    ("cuts", "in_place"), [((), True), ((10,), False), ((300,), True), ((-1,), True), ((200, 100_000, -1), True)]
)
def test_its_tensors_are_those_that_were_sent(
    wire: ServedStage, arrivals: list[weakref.ref[Any]], cuts: tuple[int, ...], in_place: bool
) -> None:
    """Wherever its pieces end; and the same head again, known by its bytes. A head in pieces takes the other way."""
    with connect(wire) as connection:
        buffer = bytearray()
        for first in (0.0, 1.0, 2.0):
            send(connection, binary(first=first), *cuts)
            status, headers, body = read_answer(connection, buffer)
            assert status == 200
            assert np.array_equal(numbers(headers, body), expected(first=first))

    assert len(arrivals) == 3 * in_place


def test_one_that_comes_whole_and_one_in_pieces_share_a_head(
    wire: ServedStage, arrivals: list[weakref.ref[Any]]
) -> None:
    """Remembered by either, it serves both."""
    with connect(wire) as connection:
        buffer = bytearray()
        for cuts in ((), (-5,), (), (-5,)):
            send(connection, binary(10), *cuts)
            status, headers, body = read_answer(connection, buffer)
            assert status == 200
            assert np.array_equal(numbers(headers, body), expected(10))

    assert len(arrivals) == 2


def test_its_head_is_parsed_once(wire: ServedStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """And known by its bytes from then on, on any connection."""
    parsed: list[int] = []
    plain = WireProtocol._begin_in_place

    def begin(protocol: WireProtocol) -> bool:
        parsed.append(1)
        return plain(protocol)

    monkeypatch.setattr(WireProtocol, "_begin_in_place", begin)
    for _ in range(3):
        with connect(wire) as connection:
            connection.sendall(binary(ROWS + 1))
            assert read_answer(connection, bytearray())[0] == 200
    assert len(parsed) == 1


def test_what_follows_the_body_is_the_next_request(wire: ServedStage) -> None:
    """In the same write: another way, and the same once more."""
    with connect(wire) as connection:
        connection.sendall(binary() + HEALTH + binary(first=5.0) + binary(first=6.0))
        buffer = bytearray()
        answers = [read_answer(connection, buffer) for _ in range(4)]

    assert [status for status, _, _ in answers] == [200] * 4
    assert [numbers(*answers[place][1:])[0] for place in (0, 2, 3)] == [0.0, 5.0, 6.0]


@pytest.mark.parametrize(
    "request_bytes",
    [
        binary(),
        binary(path="/v2/models/digits/versions/1/infer"),
        binary(path="/v2/models/nobody/infer"),
        binary(path="/v2/models/digits/versions/x/infer"),
        binary(path="/v2/models/words/infer"),
        binary(path="/predict/digits"),
        binary(ROWS, "content-type: text/plain"),
        binary(ROWS, "x-timeout-ms: nine"),
        binary(path="/v2/models/locked/infer"),
        binary(ROWS, "authorization: Bearer locked-token", path="/v2/models/locked/infer"),
        binary(ROWS, "connection: close"),
        request(bytes(300_000), "inference-header-content-length: 0"),
        request(bytes(300_001), "inference-header-content-length: 0"),
        request(bytes(300_000), "inference-header-content-length: 300001"),
        request(bytes(300_000), "inference-header-content-length: x"),
        request(b"{" * 300_000, "inference-header-content-length: 300000"),
        request(bytes(1 << 20), "inference-header-content-length: 0"),
        request(bytes((1 << 20) + 1), "inference-header-content-length: 0"),
        request(bytes(300_000), "inference-header-content-length: 0", length=2_000_000_000_000),
    ],
)
def test_it_answers_as_the_round_through_asgi_does(wire: ServedStage, asgi: ServedStage, request_bytes: bytes) -> None:
    """Status, headers and body, but for the ids that each request has for itself."""

    assert shown(wire, request_bytes) == shown(asgi, request_bytes)


def test_a_refusal_before_the_body_is_there_reaches_who_is_still_sending(wire: ServedStage) -> None:
    """The client hears it although it sends on, and then the connection ends."""
    with connect(wire) as connection:
        whole = binary(60_000, path="/v2/models/locked/infer")
        connection.sendall(whole[:100_000])
        status, headers, _ = read_answer(connection, bytearray())
        assert (status, headers["connection"]) == (401, "close")
        connection.sendall(whole[100_000:])
        assert read_all(connection) == b""


def test_one_that_is_refused_and_sends_nothing_more_is_seen_off(wire: ServedStage) -> None:
    """After a while, which is short."""
    with connect(wire) as connection:
        connection.sendall(binary(path="/v2/models/nobody/infer")[:1000])
        assert read_answer(connection, bytearray())[0] == 404
        assert read_all(connection) == b""


def test_a_body_that_does_not_come_in_time_is_a_408() -> None:
    """Recorded, told, and the connection ends; one that comes in time on the same server is answered."""
    with serve_stage(WireProtocol, limits=replace(LARGE, receive_s=0.2)) as served, connect(served) as connection:
        connection.sendall(binary()[:-1])
        status, headers, body = read_answer(connection, bytearray())
        assert (status, headers["connection"]) == (408, "close")
        assert json.loads(body)["error"].startswith("the body did not arrive within 0.2 s")
        assert read_all(connection) == b""
        until(lambda: [record.code for record in stage_of(served).observer.requests] == [408])
        with connect(served) as other:
            other.sendall(binary())
            assert read_answer(other, bytearray())[0] == 200


@pytest.mark.parametrize("leaves", ["close", "half-close"])
def test_a_client_that_leaves_before_its_body_is_there_is_recorded_once(
    wire: ServedStage, arrivals: list[weakref.ref[Any]], leaves: str
) -> None:
    """Its memory is free, and nothing of it reaches a model."""
    stage = stage_of(wire)
    before = len(stage.observer.requests)
    with connect(wire) as connection:
        connection.sendall(binary()[:-1])
        until(lambda: len(arrivals) == 1)
        if leaves == "half-close":
            connection.shutdown(socket.SHUT_WR)
            assert read_all(connection) == b""
    until(lambda: left_since(stage, before) == 1)
    until(lambda: arrivals[0]() is None)


def test_an_idle_connection_holds_no_body(wire: ServedStage, arrivals: list[weakref.ref[Any]]) -> None:
    """Without the collector's help."""
    gc.disable()
    try:
        with connect(wire) as connection:
            connection.sendall(binary())
            assert read_answer(connection, bytearray())[0] == 200
            until(lambda: arrivals[0]() is None or bool(stage_of(wire).observer.requests.clear()))
    finally:
        gc.enable()


@pytest.mark.parametrize("loop", [None, uvloop.new_event_loop])
def test_a_body_that_came_too_late_is_free(arrivals: list[weakref.ref[Any]], loop: Callable[[], Any] | None) -> None:
    """Without the collector's help: what came of it may be nearly all."""
    gc.disable()
    try:
        with (
            serve_stage(WireProtocol, limits=replace(LARGE, receive_s=0.2), loop=loop) as served,
            connect(served) as connection,
        ):
            connection.sendall(binary()[:-1])
            assert read_answer(connection, bytearray())[0] == 408
            assert read_all(connection) == b""
            until(lambda: arrivals[0]() is None)
    finally:
        gc.enable()


def test_without_memory_for_it_a_body_is_refused_and_the_next_one_is_not(
    wire: ServedStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told at once, to come again."""
    with monkeypatch.context() as patched:
        patched.setattr(arrival_module.np, "empty", lambda *_: (_ for _ in ()).throw(MemoryError))
        with connect(wire) as connection:
            connection.sendall(binary()[:-1])
            status, headers, body = read_answer(connection, bytearray())
            assert (status, headers["connection"]) == (429, "close")
            assert "there is no memory for a body of 320" in json.loads(body)["error"]
    with connect(wire) as connection:
        connection.sendall(binary())
        assert read_answer(connection, bytearray())[0] == 200


def test_a_server_that_stops_lets_a_body_come_to_its_end(arrivals: list[weakref.ref[Any]]) -> None:
    """Its client gets its answer, and the end of the connection."""
    with serve_stage(WireProtocol, limits=LARGE) as served, connect(served) as connection:
        whole = binary()
        connection.sendall(whole[:-1000])
        until(lambda: len(arrivals) == 1)
        served.begin_stop()
        connection.sendall(whole[-1000:])
        status, headers, body = read_answer(connection, bytearray())
        assert (status, headers["connection"]) == (200, "close")
        assert np.array_equal(numbers(headers, body), expected())
        assert read_all(connection) == b""


@pytest.mark.parametrize("loop", [None, uvloop.new_event_loop])
def test_it_comes_the_same_way_under_tls(
    tmp_path: Path, arrivals: list[weakref.ref[Any]], loop: Callable[[], Any] | None
) -> None:
    """In place, too; several on one connection."""
    both = tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    make += ["-days", "2", "-subj", "/CN=127.0.0.1", "-keyout", str(both), "-out", str(tmp_path / "public.pem")]
    subprocess.run(make, check=True, capture_output=True, timeout=60)
    both.write_bytes(both.read_bytes() + (tmp_path / "public.pem").read_bytes())
    trusted = ssl.create_default_context(cafile=str(tmp_path / "public.pem"))
    trusted.check_hostname = False
    with (
        serve_stage(WireProtocol, limits=LARGE, loop=loop, certificate=both) as served,
        connect(served) as plain,
        trusted.wrap_socket(plain) as connection,
    ):
        buffer = bytearray()
        for first in (0.0, 1.0, 2.0):
            connection.sendall(binary(first=first) + HEALTH)
            status, headers, body = read_answer(connection, buffer)
            assert status == 200
            assert np.array_equal(numbers(headers, body), expected(first=first))
            assert read_answer(connection, buffer)[0] == 200

    assert len(arrivals) == 3


class Pipe(asyncio.Transport):
    """Reads when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """It has none."""

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


async def test_a_body_that_comes_fast_lets_others_have_their_turn() -> None:
    """Reading stops after each half megabyte until the next turn of the loop, and a whole body still comes."""
    pipe, read_on = Pipe(), []
    arrival = Arrival(asyncio.Protocol(), pipe, b"begun", 1_200_000, receive_s=60, arrived=lambda: None)
    coming = asyncio.ensure_future(receive_in_place(arrival, intake()))
    await asyncio.sleep(0)
    while not coming.done():
        room = arrival.get_buffer(-1)
        room[:] = bytes([len(read_on) + 1]) * len(room)
        arrival.buffer_updated(len(room))
        read_on.append(pipe.reads)
        await asyncio.sleep(0)
        assert pipe.reads
        await asyncio.sleep(0)
    assert read_on == [False, False, True]
    body = b"begun" + b"\1" * 524_288 + b"\2" * 524_288 + b"\3" * (1_200_000 - 1_048_581)
    assert bytes(await coming) == body


async def test_what_nobody_takes_in_stays_in_the_socket() -> None:
    """Until somebody does; and again when he has left."""
    pipe = Pipe()
    arrival = Arrival(asyncio.Protocol(), pipe, b"", 10, receive_s=60, arrived=lambda: None)
    arrival.wait()
    assert not pipe.reads
    coming = asyncio.ensure_future(receive_in_place(arrival, intake()))
    await asyncio.sleep(0)
    assert pipe.reads
    coming.cancel()
    await asyncio.wait([coming])
    assert not pipe.reads
    arrival.linger()
    assert pipe.reads
    arrival.connection_lost(None)


async def test_a_body_that_is_late_before_anybody_takes_it_in_is_late() -> None:
    """Who was still asking who the client is hears it then."""
    arrival = Arrival(asyncio.Protocol(), Pipe(), b"", 10, receive_s=0.001, arrived=lambda: None)
    await asyncio.sleep(0.05)
    with pytest.raises(ReceiveTimeout, match=r"within 0\.001 s"):
        await receive_in_place(arrival, intake())
    arrival.connection_lost(None)


class Full:
    """A sink that takes nothing."""

    def __init__(self) -> None:
        self._octets = np.empty(10, np.uint8)

    def room(self, most: int) -> memoryview:
        return self._octets.data[:most]

    def filled(self, count: int) -> None:
        raise QueueFull(f"no room for {count}", retry_after_s=1.0)


async def test_a_sink_that_is_full_just_after_who_waits_was_told_of_something_else_changes_nothing() -> None:
    """Who waits hears of the first; the connection does not fail."""
    pipe = Pipe()
    arrival = Arrival(asyncio.Protocol(), pipe, b"", 10, receive_s=60, arrived=lambda: None)
    coming = asyncio.ensure_future(arrival.into(Full()))
    await asyncio.sleep(0)
    coming.cancel()  # it is told in the next turn of the loop
    arrival.get_buffer(-1)
    arrival.buffer_updated(5)
    with pytest.raises(asyncio.CancelledError):
        await coming
    assert not pipe.reads
    arrival.connection_lost(None)


async def test_who_waits_hears_why_the_sink_takes_no_more() -> None:
    """And nothing of it waits for the collector."""
    sink = Full()
    known = weakref.ref(sink)
    arrival = Arrival(asyncio.Protocol(), Pipe(), b"", 10, receive_s=60, arrived=lambda: None)
    coming = asyncio.ensure_future(arrival.into(sink))
    await asyncio.sleep(0)
    gc.disable()
    try:
        arrival.buffer_updated(5)
        await asyncio.wait([coming])
        assert str(coming.exception()) == "no room for 5"
        del coming, sink
        assert known() is None
    finally:
        gc.enable()
    arrival.connection_lost(None)


# JSON, which another process reads


def floats(rows: int, first: float = 0.0) -> bytes:
    return json.dumps({"inputs": {"x": (np.arange(rows * 4).reshape(rows, 4) + first).tolist()}}).encode()


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def elsewhere(request: pytest.FixtureRequest) -> Iterator[ServedStage]:
    """JSON from 100 KB on is decoded in another process."""
    loop = uvloop.new_event_loop if request.param == "uvloop" else None
    with serve_stage(WireProtocol, elsewhere=ELSEWHERE, keep_alive_s=600, loop=loop) as one:
        yield one


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How large what was read into the memory of another process was."""
    found: list[int] = []
    plain = Text.filled

    def filled(text: Text, count: int) -> None:
        found.append(count)
        plain(text, count)

    monkeypatch.setattr(Text, "filled", filled)
    return found


@pytest.mark.parametrize("cuts", [(), (300,), (-1,), (200, 150_000, -1)])
def test_json_is_read_into_the_memory_of_who_decodes_it(
    elsewhere: ServedStage, pieces: list[int], cuts: tuple[int, ...]
) -> None:
    """In either dialect; what follows is another request."""
    with connect(elsewhere) as connection:
        buffer = bytearray()
        for first in (0.0, 1.0):
            body = floats(20_000, first)
            before = sum(pieces)
            send(connection, request(body, path="/predict/digits") + HEALTH, *cuts)
            status, _, answer = read_answer(connection, buffer)
            assert status == 200
            assert json.loads(answer)["outputs"]["y"][-1] == [
                79_996 + first,
                79_997 + first,
                79_998 + first,
                79_999 + first,
            ]
            assert read_answer(connection, buffer)[0] == 200
            assert 0 < sum(pieces) - before <= len(body)
    assert until_free(elsewhere)


def until_free(served: ServedStage) -> bool:
    """No text is held any more."""
    large = stage_of(served).large
    assert large is not None
    until(lambda: served.on_loop(lambda: large._decoders.statistics().held_bytes) == 0)
    return True


@pytest.mark.parametrize(
    "request_bytes",
    [
        request(floats(20_000), path="/predict/digits"),
        request(floats(20_000), path="/predict/nobody"),
        request(floats(20_000), path="/predict/locked"),
        request(floats(20_000), "authorization: Bearer locked-token", path="/predict/locked"),
        request(floats(20_000), "x-timeout-ms: nine", path="/predict/digits"),
        request(floats(20_000), "content-type: text/plain", path="/predict/digits"),
        request(floats(20_000)[:-1], path="/predict/digits"),
        request(floats(20_000) + b" " * 100_000, path="/predict/digits"),
        request(json.dumps({"inputs": {"x": [[1.0] * 5] * 10_000}}).encode(), path="/predict/digits"),
        request(json.dumps({"inputs": {"x": [[1.0] * 3] * 100_000}}).encode(), path="/predict/digits"),
    ],
)
def test_json_in_place_is_answered_as_through_asgi(
    elsewhere: ServedStage, asgi_elsewhere: ServedStage, request_bytes: bytes
) -> None:
    """Status, headers and body, but for the ids that each request has for itself."""
    assert shown(elsewhere, request_bytes) == shown(asgi_elsewhere, request_bytes)
    assert until_free(elsewhere)


@pytest.fixture(scope="module")
def asgi_elsewhere() -> Iterator[ServedStage]:
    with serve_stage(HttpToolsProtocol, elsewhere=ELSEWHERE) as running:
        yield running


@pytest.mark.parametrize("leaves", ["close", "half-close"])
def test_a_client_that_leaves_before_its_json_is_there_gives_its_memory_back(
    elsewhere: ServedStage, pieces: list[int], leaves: str
) -> None:
    """And is recorded once."""
    stage = stage_of(elsewhere)
    before = len(stage.observer.requests)
    with connect(elsewhere) as connection:
        connection.sendall(request(floats(20_000), path="/predict/digits")[:-1])
        until(lambda: sum(pieces) > 0)
        if leaves == "half-close":
            connection.shutdown(socket.SHUT_WR)
            assert read_all(connection) == b""
    until(lambda: left_since(stage, before) == 1)
    assert until_free(elsewhere)


def test_json_that_does_not_come_in_time_is_a_408_and_its_memory_is_free() -> None:
    """What still comes of it goes nowhere."""
    with (
        serve_stage(WireProtocol, elsewhere=replace(ELSEWHERE, receive_s=0.3)) as served,
        connect(served) as connection,
    ):
        whole = request(floats(20_000), path="/predict/digits")
        connection.sendall(whole[:-1000])
        status, headers, _ = read_answer(connection, bytearray())
        assert (status, headers["connection"]) == (408, "close")
        assert until_free(served)
        connection.sendall(whole[-1000:-1])
        assert read_all(connection) == b""


def test_json_beyond_what_all_may_hold_together_is_refused_while_it_comes() -> None:
    """Four times the largest body; its memory and that of the others is free in the end."""
    with serve_stage(WireProtocol, elsewhere=ELSEWHERE) as served, contextlib.ExitStack() as stack:
        whole = request(b"[" + b" " * (ELSEWHERE.body_bytes - 2) + b"]", path="/predict/digits")
        others = [stack.enter_context(connect(served)) for _ in range(5)]
        for other in others:
            other.sendall(whole[:-10])
        codes = []

        def refused() -> bool:
            for other in others:
                other.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    codes.append(read_answer(other, bytearray())[0])
            return bool(codes)

        until(refused)
        assert set(codes) == {429}
        stack.close()
        assert until_free(served)


def test_who_only_says_that_a_large_body_will_come_takes_nobodys_place(elsewhere: ServedStage) -> None:
    """There are 64 places; what of a body is still to come costs its client nothing."""
    with contextlib.ExitStack() as stack:
        for _ in range(70):
            stack.enter_context(connect(elsewhere)).sendall(request(b"{", path="/predict/digits", length=500_000))
        until(lambda: elsewhere.on_loop(lambda: len(asyncio.all_tasks())) > 70)
        connection = stack.enter_context(connect(elsewhere))
        connection.sendall(request(floats(20_000), path="/predict/digits"))
        assert read_answer(connection, bytearray())[0] == 200


@pytest.mark.parametrize("cuts", [(200, 300), (200, 20_000, 33_000), (200, 50_000, 90_000), (40_000, 50_000)])
def test_json_that_comes_slowly_at_first_is_the_same(elsewhere: ServedStage, cuts: tuple[int, ...]) -> None:
    """Aside or in its place, nothing of it is lost."""
    with connect(elsewhere) as connection:
        body = floats(20_000, 3.0)
        send(connection, request(body, path="/predict/digits"), *cuts)
        status, _, answer = read_answer(connection, bytearray())
        assert status == 200
        assert json.loads(answer)["outputs"]["y"] == json.loads(body)["inputs"]["x"]
    assert until_free(elsewhere)
