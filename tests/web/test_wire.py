"""The short way of a request that came whole, beside uvicorn's own: same answers, and no connection left in doubt."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.web.application import Application, Endpoint
from gateway.web.exchange import Exchange
from gateway.web.oip import locate_infer
from gateway.web.predict import locate_predict
from gateway.web.wire import WireProtocol
from tests.serving.processes import eventually
from tests.web.stage import LIMITS, ServedStage, build_stage, serve_stage
from tests.web.test_server import read_all, stage_of, until

ROW = json.dumps({"inputs": [[1, 2, 3, 4]]}).encode()
OIP = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}).encode()
VARYING = {"x-request-id", "x-decision-id", "traceparent"}
UNLIKE = {"date", "server", "connection"}
"""The other way ends the connection of a client whose body it did not read."""


@pytest.fixture(scope="module")
def wire() -> Iterator[ServedStage]:
    with serve_stage(WireProtocol) as running:
        yield running


@pytest.fixture(scope="module")
def asgi() -> Iterator[ServedStage]:
    with serve_stage(HttpToolsProtocol) as running:
        yield running


def connect(served: ServedStage) -> socket.socket:
    return socket.create_connection(served.socket.getsockname(), timeout=60)


def post(path: str, body: bytes, *headers: str, method: str = "POST", version: str = "1.1") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "host: gateway", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def ask(served: ServedStage, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """One answer on a connection of its own."""
    with connect(served) as connection:
        connection.sendall(request)
        return read_answer(connection, bytearray())


def read_answer(connection: socket.socket, buffer: bytearray) -> tuple[int, dict[str, str], bytes]:
    while b"\r\n\r\n" not in buffer:
        part = connection.recv(65536)
        assert part, f"the connection ended in {bytes(buffer)!r}"
        buffer += part
    head, _, _ = bytes(buffer).partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    end = len(head) + 4 + int(headers.get("content-length", 0))
    while len(buffer) < end:
        part = connection.recv(65536)
        assert part, f"the connection ended in {bytes(buffer)!r}"
        buffer += part
    body = bytes(buffer[len(head) + 4 : end])
    del buffer[:end]
    return int(status.split()[1]), headers, body


@pytest.mark.parametrize("path", ["/predict/digits", "/predict/digits?way=asgi"])
def test_blanks_behind_a_header_are_no_part_of_its_value(wire: ServedStage, path: str) -> None:
    """RFC 9112, 5.1, on both ways: an id keeps its name, a priority is known, an encoding is one that is handled."""
    request = post(path, ROW, "x-request-id: mine \t", "x-priority:\tlow ", "content-encoding: identity ")
    status, headers, _ = ask(wire, request)
    assert (status, headers["x-request-id"]) == (200, "mine")


@pytest.mark.parametrize(
    "request_bytes",
    [
        post("/predict/digits", ROW),
        post("/predict", ROW, "content-type: application/json"),
        post("/predict/digits", ROW, "content-type: text/plain"),
        post("/predict/digits", ROW, "x-timeout-ms: nine"),
        post("/predict/digits", b'{"inputs": [[1, 2, 3]]}'),
        post("/predict/digits", b"{"),
        post("/predict/digits", b""),
        post("/predict/nobody", ROW),
        post("/predict/", ROW),
        post("/predict/digits?x=1", ROW),
        post("/predict/d%69gits", ROW),
        post("/predict/digits", ROW, method="PUT"),
        post("/predict/locked", ROW),
        post("/predict/locked", ROW, "authorization: Bearer locked-token"),
        post("/predict/fussy", b'{"inputs": [[666, 2, 3, 4]]}'),
        post("/v2/models/digits/infer", OIP),
        post("/v2/models/digits/versions/1/infer", OIP, "accept-encoding: gzip"),
        post("/v2/models/digits/infer", b"{}"),
        post("/v2/models/nobody/infer", OIP),
        post("/v2/models/digits/versions/x/infer", OIP),
        post("/v2/models/digits", OIP),
    ],
)
def test_it_answers_as_the_round_through_asgi_does(wire: ServedStage, asgi: ServedStage, request_bytes: bytes) -> None:
    """Status, headers and body, but for the ids that each request has for itself."""

    def shown(served: ServedStage) -> tuple[int, dict[str, str], object]:
        status, headers, body = ask(served, request_bytes)
        value = json.loads(body)
        if isinstance(value, dict):
            value = {name: item for name, item in value.items() if name not in ("decision", "request_id")}
        known = {name: "" if name in VARYING else item for name, item in headers.items()}
        return status, {name: item for name, item in known.items() if name not in UNLIKE}, value

    assert shown(wire) == shown(asgi)


def test_a_request_in_single_bytes_is_answered(wire: ServedStage) -> None:
    """It does not come whole, and takes the other way."""
    with connect(wire) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in post("/predict/digits", ROW):
            connection.sendall(bytes([octet]))
        status, _, body = read_answer(connection, bytearray())

    assert status == 200
    assert json.loads(body)["outputs"] == {"y": [[1.0, 2.0, 3.0, 4.0]]}


def test_one_connection_carries_requests_of_both_ways_in_turn(wire: ServedStage) -> None:
    """Whole ones, one in two pieces, one of another path, and whole ones again; each is answered in its place."""
    whole = post("/predict/digits", ROW)
    with connect(wire) as connection:
        buffer = bytearray()
        for _ in range(3):
            connection.sendall(whole)
            assert read_answer(connection, buffer)[0] == 200
            connection.sendall(whole[:-5])
            connection.sendall(whole[-5:])
            assert read_answer(connection, buffer)[0] == 200
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: gateway\r\n\r\n")
            assert read_answer(connection, buffer)[0] == 200


def test_pipelined_requests_are_answered_in_their_order(wire: ServedStage) -> None:
    """Ten in one write; the first is on its way when the others are read."""
    values = range(10)
    with connect(wire) as connection:
        connection.sendall(
            b"".join(post("/predict/digits", json.dumps({"inputs": [[value] * 4]}).encode()) for value in values)
        )
        buffer = bytearray()
        answers = [read_answer(connection, buffer) for _ in values]

    assert [status for status, _, _ in answers] == [200] * 10
    assert [json.loads(body)["outputs"]["y"][0][0] for _, _, body in answers] == list(map(float, values))


@pytest.mark.parametrize(("version", "line"), [("1.0", "x-nothing: 1"), ("1.1", "connection: close")])
def test_a_client_that_wants_no_second_request_gets_the_end_of_the_connection(
    wire: ServedStage, version: str, line: str
) -> None:
    """After its answer."""
    with connect(wire) as connection:
        connection.sendall(post("/predict/digits", ROW, line, version=version))
        answer = read_all(connection)

    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer.lower()


def test_a_chunked_body_is_read_by_the_other_way(wire: ServedStage) -> None:
    """Also when it comes in one read."""
    head = b"POST /predict/digits HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n"
    with connect(wire) as connection:
        connection.sendall(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(ROW), ROW))
        assert read_answer(connection, bytearray())[0] == 200


def test_a_client_that_waits_for_leave_to_send_gets_it(wire: ServedStage) -> None:
    """``Expect: 100-continue``."""
    with connect(wire) as connection:
        connection.sendall(post("/predict/digits", ROW, "expect: 100-continue")[: -len(ROW)])
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(ROW)
        assert read_answer(connection, bytearray())[0] == 200


def test_what_is_no_http_is_refused_and_harms_no_other_connection(wire: ServedStage) -> None:
    """Behind a good request, too."""
    for garbage in (b"\x00\x01\x02\r\n\r\n", post("/predict/digits", ROW) + b"GARBAGE\r\n\r\n\r\n"):
        with connect(wire) as connection:
            connection.sendall(garbage)
            assert b"HTTP/1.1 400" in read_all(connection)

    assert ask(wire, post("/predict/digits", ROW))[0] == 200


def test_a_large_answer_goes_out_whole(wire: ServedStage) -> None:
    """Larger than what is joined to its head."""
    rows = [[1.123456, 2.123456, 3.123456, 4.123456]] * 4000
    with connect(wire) as connection:
        connection.sendall(post("/predict/digits", json.dumps({"inputs": rows}).encode()))
        status, _, body = read_answer(connection, bytearray())

    assert status == 200
    assert len(json.loads(body)["outputs"]["y"]) == 4000


def test_a_client_that_left_is_recorded_once_and_its_place_is_free(wire: ServedStage) -> None:
    """The work of a whole request ends with its connection, without a watch."""
    stage = stage_of(wire)
    before = len(stage.observer.requests)
    gate = wire.on_loop(stage.slow.hold)
    try:
        leaving = connect(wire)
        leaving.sendall(post("/predict/slow", ROW))
        until(lambda: stage.dataplane.inflight == 1)
        leaving.close()
        until(lambda: stage.dataplane.inflight == 0)
    finally:
        wire.on_loop(gate.set)

    # The record of a request before it may come after its answer, so after the count above.
    def codes() -> list[int]:
        return [record.code for record in stage.observer.requests[before:]]

    until(lambda: 499 in codes())
    assert codes().count(499) == 1


HEALTH = b"GET /healthz HTTP/1.1\r\nhost: gateway\r\n\r\n"
WHOLE, LATE = post("/predict/digits", ROW), post("/predict/slow", ROW)


def connections(served: ServedStage) -> int:
    """Counted by the server's own thread: a tuple that it is building must not be referred to by anybody else."""
    # isinstance would ask proxies, which answer
    return served.on_loop(lambda: sum(type(one) is WireProtocol for one in gc.get_objects()))


@pytest.fixture
def connections_before(wire: ServedStage) -> Iterator[int]:
    """How many there are; until the test's end none is taken away by the collector."""
    gc.collect()
    gc.disable()
    try:
        yield connections(wire)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        pytest.param(WHOLE, 1, id="whole"),
        pytest.param(HEALTH, 1, id="another path"),
        pytest.param(WHOLE + HEALTH + WHOLE, 3, id="pipelined"),
        pytest.param(post("/predict/digits", ROW, "connection: close"), 1, id="closed by the gateway"),
        pytest.param(LATE, 0, id="left"),
        pytest.param(LATE[:-4], 0, id="left in its body"),
    ],
)
def test_a_connection_that_has_ended_goes_at_once(
    wire: ServedStage, connections_before: int, sent: bytes, answers: int
) -> None:
    """It and its last request refer to each other. Left to the collector, which comes by once in some 450 of them,
    dead ones held 3 MB after half an hour's load."""
    stage = stage_of(wire)
    gate = wire.on_loop(stage.slow.hold)
    try:
        with connect(wire) as connection:
            connection.sendall(sent)
            buffer = bytearray()
            assert [read_answer(connection, buffer)[0] for _ in range(answers)] == [200] * answers
            if not answers:
                until(lambda: connections(wire) > connections_before and stage.dataplane.inflight == (sent == LATE))
        until(lambda: connections(wire) == connections_before)
    finally:
        wire.on_loop(gate.set)


def test_a_connection_that_was_left_with_requests_in_line_goes_with_them(
    wire: ServedStage, connections_before: int
) -> None:
    """No more is read from it while they wait, so its end is seen when the first is answered."""
    stage = stage_of(wire)
    gate = wire.on_loop(stage.slow.hold)
    with connect(wire) as connection:
        connection.sendall(LATE + HEALTH * 3)
        until(lambda: stage.dataplane.inflight == 1)
    wire.on_loop(gate.set)
    until(lambda: connections(wire) == connections_before)


def test_the_end_of_the_server_waits_for_the_answer_and_says_so() -> None:
    """A request under way is answered, with ``connection: close``."""
    with serve_stage(WireProtocol) as served:
        stage = stage_of(served)
        gate = served.on_loop(stage.slow.hold)
        connection = connect(served)
        connection.sendall(post("/predict/slow", ROW))
        until(lambda: stage.dataplane.inflight == 1)
        served.begin_stop()
        served.on_loop(gate.set)
        status, headers, _ = read_answer(connection, bytearray())
        connection.close()

    assert status == 200
    assert headers["connection"] == "close"


def heads(served: ServedStage) -> dict[bytes, object]:
    return dict(served.on_loop(lambda: stage_of(served).application.heads))


def test_a_head_that_was_parsed_before_is_known_by_its_bytes(wire: ServedStage) -> None:
    """Each request is answered by its own body, on one connection and on another."""
    for _ in range(2):
        with connect(wire) as connection:
            buffer = bytearray()
            for value in range(1, 9):
                body = json.dumps({"inputs": [[value] * 4]}).encode()
                connection.sendall(post("/predict/digits", body, "x-known: yes"))
                status, _, answer = read_answer(connection, buffer)
                assert status == 200
                assert json.loads(answer)["outputs"]["y"] == [[float(value)] * 4]

    assert sum(b"x-known: yes" in head for head in heads(wire)) == 1


@pytest.mark.parametrize(
    "line", ["x-request-id: mine", "traceparent: 00-" + "1" * 32 + "-" + "2" * 16 + "-01", "authorization: Bearer x"]
)
def test_heads_that_will_not_come_again_or_hold_a_secret_are_not_kept(wire: ServedStage, line: str) -> None:
    """Their requests are answered as any other."""
    assert ask(wire, post("/predict/digits", ROW, line))[0] == 200

    assert not any(line.encode() in head for head in heads(wire))


def test_a_known_head_with_another_number_of_bytes_behind_it_is_parsed(wire: ServedStage) -> None:
    """Half of its body, its body and half of the next request, its body and the whole of the next."""
    whole = post("/predict/digits", ROW, "x-cut: here")
    assert ask(wire, whole)[0] == 200
    with connect(wire) as connection:
        buffer = bytearray()
        connection.sendall(whole[:-4])
        connection.sendall(whole[-4:] + whole[:20])
        assert read_answer(connection, buffer)[0] == 200
        connection.sendall(whole[20:] + whole)
        assert [read_answer(connection, buffer)[0] for _ in range(2)] == [200, 200]
        connection.sendall(whole)
        assert read_answer(connection, buffer)[0] == 200


def test_a_known_head_in_the_body_of_another_request_is_its_body(wire: ServedStage) -> None:
    """What a client sends as data is never taken for a request."""
    known = post("/predict/digits", ROW, "x-hidden: 1")
    assert ask(wire, known)[0] == 200
    outer = f"POST /predict/digits HTTP/1.1\r\nhost: g\r\ncontent-length: {len(known)}\r\n\r\n".encode()
    with connect(wire) as connection:
        connection.sendall(outer)
        connection.sendall(known)
        status, _, body = read_answer(connection, bytearray())

    assert status == 400
    assert b"not valid JSON" in body


def test_the_heads_that_are_kept_are_bounded(wire: ServedStage) -> None:
    """However many different ones come, and none that is very long."""
    with connect(wire) as connection:
        buffer = bytearray()
        for number in range(1500):
            connection.sendall(post("/predict/digits", ROW, f"x-number: {number}"))
            assert read_answer(connection, buffer)[0] == 200
        connection.sendall(post("/predict/digits", ROW, f"x-long: {'a' * 4000}"))
        assert read_answer(connection, buffer)[0] == 200

    kept = heads(wire)
    assert len(kept) <= 1024
    assert max(map(len, kept)) <= 2048


def test_a_connection_is_not_idle_while_a_request_behind_an_answered_one_is_under_way() -> None:
    """Both came in one read, and the first was answered at once; another connection shows when idle ones end."""
    with serve_stage(WireProtocol, keep_alive_s=1) as served:
        gate = served.on_loop(stage_of(served).slow.hold)
        with connect(served) as connection, connect(served) as idle:
            buffer = bytearray()
            connection.sendall(post("/predict/nobody", ROW) + post("/predict/slow", ROW))
            assert read_answer(connection, buffer)[0] == 404
            until(lambda: stage_of(served).dataplane.inflight == 1)
            idle.sendall(post("/predict/nobody", ROW))
            assert read_all(idle).startswith(b"HTTP/1.1 404")
            served.on_loop(gate.set)
            assert read_answer(connection, buffer)[0] == 200


class Silent(Application):
    """Its work ends without an answer, by a fault or because somebody cancelled what it waits for."""

    async def infer(self, endpoint: Endpoint, exchange: Exchange) -> None:
        await asyncio.sleep(0)
        if exchange.path == "/predict/cancelled":
            raise asyncio.CancelledError


@pytest.mark.parametrize("path", ["/predict/cancelled", "/predict/forgotten"])
async def test_work_that_ends_without_an_answer_leaves_no_client_waiting(path: str) -> None:
    """It gets a 500, and the end of its connection."""
    async with build_stage(models=["digits"]) as stage:
        config = uvicorn.Config(Silent(stage.application._services, []), lifespan="off", log_config=None)
        config.load()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: WireProtocol(config, ServerState(), {}), "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(post(path, ROW))
            async with asyncio.timeout(60):
                answer = await reader.read()
            writer.close()

    assert answer.startswith(b"HTTP/1.1 500 ")


def test_a_head_without_end_is_refused(wire: ServedStage) -> None:
    """The parser would gather it for ever; a body of that size is none of its business."""
    with connect(wire) as connection:
        connection.sendall(b"POST /predict/digits HTTP/1.1\r\nhost: g\r\nx-endless: ")
        assert ask(wire, post("/predict/digits", ROW))[0] == 200  # by now the head's beginning has been read
        connection.sendall(b"a" * 65_537)
        assert read_all(connection).startswith(b"HTTP/1.1 431 ")

    with connect(wire) as connection:
        buffer = bytearray()
        large = b'{"inputs": [[1, 2, 3, 4]]' + b" " * 200_000 + b"}"
        whole = post("/predict/digits", large)
        for cut in (10, 60):
            connection.sendall(whole[:cut])
            connection.sendall(whole[cut:])
            assert read_answer(connection, buffer)[0] == 200


def test_long_urls_are_not_remembered(wire: ServedStage) -> None:
    """There is no end to those that a client can make up, and each would take its length."""
    located = [locate.cache_info().currsize for locate in (locate_predict, locate_infer)]
    with connect(wire) as connection:
        buffer = bytearray()
        for path in (f"/predict/{'a' * 60_000}", f"/v2/models/{'a' * 60_000}/infer"):
            connection.sendall(post(path, ROW))
            assert read_answer(connection, buffer)[0] == 404

    assert [locate.cache_info().currsize for locate in (locate_predict, locate_infer)] == located
    urls = wire.on_loop(lambda: list(stage_of(wire).application._urls))
    assert max(map(len, urls), default=0) <= 1024


def test_a_whole_body_that_is_decoded_elsewhere_is_answered() -> None:
    """The limit may be set below what comes in one read."""
    with serve_stage(WireProtocol, elsewhere=replace(LIMITS, decode_elsewhere_bytes=1000)) as served:
        rows = [[1.5, 2.5, 3.5, 4.5]] * 200
        for path in ("/predict/digits", "/predict/falls"):
            status, _, body = ask(served, post(path, json.dumps({"inputs": rows}).encode()))
            assert status == 200, body
            assert json.loads(body)["outputs"]["y"] == rows


async def test_an_idle_connection_holds_nothing_of_the_request_before() -> None:
    """Thousands of them stand open, and a body may have 256 KiB."""
    made: list[WireProtocol] = []
    state = ServerState()

    def make() -> WireProtocol:
        made.append(WireProtocol(config, state, {}))
        return made[-1]

    async with build_stage(models=["digits"]) as stage:
        config = uvicorn.Config(stage.application, lifespan="off", log_config=None)
        config.load()
        async with await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            body = ROW + b" " * 20_000
            for _ in range(2):
                writer.write(post("/predict/digits", body))
                assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
                await reader.readuntil(b"}")
                assert made[0]._pieces == []
            writer.close()
            await eventually(lambda: not state.connections)
