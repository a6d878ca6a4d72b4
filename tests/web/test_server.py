"""Behind a real server: slow senders, early refusals, and clients that leave."""

from __future__ import annotations

import concurrent.futures
import json
import socket
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.web.wire import WireProtocol
from tests.web.stage import ServedStage, Stage, serve_stage


@pytest.fixture(scope="module", params=[WireProtocol, HttpToolsProtocol], ids=["wire", "asgi"])
def served(request: pytest.FixtureRequest) -> Iterator[ServedStage]:
    """Both ways that a request takes behave alike."""
    with serve_stage(request.param) as running:
        yield running


ROW = json.dumps({"inputs": [[1, 2, 3, 4]]}).encode()


def stage_of(served: ServedStage) -> Stage:
    assert served.stage is not None
    return served.stage


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def connect(served: ServedStage) -> socket.socket:
    return socket.create_connection(served.socket.getsockname(), timeout=60)


def request_head(path: str, length: int) -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: gateway\r\ncontent-length: {length}\r\n\r\n".encode()


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_a_client_that_leaves_takes_its_work_with_it_and_no_one_elses(served: ServedStage) -> None:
    """Four requests wait for one batch; one disconnects; three are answered; the fourth is recorded as 499."""
    stage = stage_of(served)
    before = len(stage.observer.requests)
    runs = len(stage.slow.runs)

    def ask(value: int) -> list[float]:
        answer = httpx.post(f"{served.url}/predict/slow", json={"inputs": [[value] * 4]}, timeout=60)
        return list(answer.json()["outputs"]["y"][0])

    gate = served.on_loop(stage.slow.hold)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(ask, 0)]
        until(lambda: stage.slow.running)
        leaving = connect(served)
        leaving.sendall(request_head("/predict/slow", len(ROW)) + ROW)
        answers += [pool.submit(ask, value) for value in (1, 2, 3)]
        until(lambda: stage.dataplane.inflight == 5)
        leaving.close()
        until(lambda: stage.dataplane.inflight == 4)
        served.on_loop(gate.set)
        found = [answer.result(60) for answer in answers]

    assert found == [[value] * 4 for value in (0.0, 1.0, 2.0, 3.0)]
    until(lambda: len(stage.observer.requests) == before + 5)
    assert sorted(record.code for record in stage.observer.requests[before:]) == [200, 200, 200, 200, 499]
    assert sum(stage.slow.runs[runs:], ()) == (1, 1, 1, 1), "in as many batches as the machine's pace makes of it"


def test_a_client_that_leaves_while_it_sends_is_recorded(served: ServedStage) -> None:
    """Half a body and gone."""
    stage = stage_of(served)
    before = len(stage.observer.requests)

    with connect(served) as leaving:
        leaving.sendall(request_head("/predict", 1000) + b'{"inputs"')

    until(lambda: len(stage.observer.requests) == before + 1)
    assert (stage.last().code, stage.last().error) == (499, "ClientLeft")


@pytest.mark.parametrize("path", ["/predict", "/predict/nowhere", "/predict/locked"])
def test_a_body_that_is_too_large_is_refused_before_it_is_sent(served: ServedStage, path: str) -> None:
    """By its Content-Length alone; the answer is whole, and the connection ends."""
    with connect(served) as connection:
        connection.sendall(request_head(path, 10_000_000))
        answer = read_all(connection)

    head, _, body = answer.partition(b"\r\n\r\n")
    status = {"/predict": 413, "/predict/nowhere": 404, "/predict/locked": 401}[path]
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"connection: close" in head.lower()
    assert json.loads(body)["status"] == status


def test_a_client_that_sends_it_all_the_same_gets_to_read_the_refusal(served: ServedStage) -> None:
    """Closing at once would reset the connection under its hands."""
    answer = httpx.post(f"{served.url}/predict", content=b" " * 3_000_000, timeout=60)

    assert answer.status_code == 413


def test_chunked_bodies_are_bounded_while_they_stream(served: ServedStage) -> None:
    """Without a Content-Length the size shows only on the way."""
    answer = httpx.post(f"{served.url}/predict", content=(b" " * 100_000 for _ in range(30)), timeout=60)
    assert answer.status_code == 413

    pieces = (ROW[index : index + 5] for index in range(0, len(ROW), 5))
    answer = httpx.post(f"{served.url}/predict", content=pieces, timeout=60)
    assert answer.status_code == 200


def test_two_requests_on_one_connection_are_both_answered(served: ServedStage) -> None:
    """An error with a body that was read leaves the connection open."""
    with httpx.Client(base_url=served.url, timeout=60) as client:
        for content, status in ((b"{", 400), (ROW, 200), (b'{"inputs": 1}', 400), (ROW, 200)):
            assert client.post("/predict", content=content).status_code == status


def test_metrics_and_unknown_paths(served: ServedStage) -> None:
    """No metrics were mounted here, so they are not there."""
    for path in ("/metrics", "/", "/v3", "/admin/routes"):
        answer = httpx.get(f"{served.url}{path}", timeout=60)
        assert answer.status_code == 404
        assert answer.json()["type"].endswith("not-found")
    assert "error" in httpx.get(f"{served.url}/v2/nothing", timeout=60).json()
