"""Large JSON bodies at a live gateway: answered right, and no trouble to anybody whatever is done to them."""

from __future__ import annotations

import gzip
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import psutil
import pytest

from loadtests.live_gateway import LiveGateway, wait_until
from tests.live.scenario import PATIENT, alive

WIDTH = 1000
SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", WIDTH]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": ["batch", WIDTH]}],
}
SMALL = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": ["batch", 4]}],
}
JSON = {"content-type": "application/json"}
GROWTH_BYTES = 12 * 1024 * 1024


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """One for all tests here: routes ``large`` (rows of 1,000 numbers, answered with themselves) and ``small``."""
    with LiveGateway(tmp_path_factory.mktemp("large") / "home", settings=PATIENT) as running:
        for name, signature in (("large", SIGNATURE), ("small", SMALL)):
            running.register_echo(name, name, {}, signature=signature, verify=False)
            running.put_route(name, {"model": name, "split": [{"version": 1, "weight": 100}]})
        yield running


def rows(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(count).standard_normal((count, WIDTH)).astype(np.float32)


def body_of(array: np.ndarray[Any, Any], **more: Any) -> bytes:
    return orjson.dumps({"inputs": array, **more}, option=orjson.OPT_SERIALIZE_NUMPY)


def post(gateway: LiveGateway, body: Any, path: str = "/predict/large", **headers: str) -> httpx.Response:
    return gateway.client.post(path, content=body, headers={**JSON, **headers})


def decoders(gateway: LiveGateway) -> list[psutil.Process]:
    return gateway.descendants("gateway.decoding.process")


def small_works(gateway: LiveGateway) -> bool:
    return gateway.predict("small", [[1, 2, 3, 4]]).status_code == 200


def slices(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 50_000):
        yield body[start : start + 50_000]


def test_sixteen_megabytes_are_answered_right(gateway: LiveGateway) -> None:
    """Every number, in both dialects, with and without a length, compressed and plain."""
    array = rows(1500)
    body = body_of(array, id="mine")
    tensor = {"name": "x", "datatype": "FP32", "shape": array.shape, "data": array.ravel()}
    infer = orjson.dumps({"inputs": [tensor]}, option=orjson.OPT_SERIALIZE_NUMPY)
    assert len(body) > 15_000_000

    plain = post(gateway, body)
    assert plain.status_code == 200, plain.text[:500]
    assert plain.json()["id"] == "mine"
    assert np.array_equal(np.array(plain.json()["outputs"]["y"], dtype=np.float32), array)
    for other in (post(gateway, slices(body)), post(gateway, gzip.compress(body, 1), **{"content-encoding": "gzip"})):
        assert other.status_code == 200, other.text[:500]
        assert other.json()["outputs"] == plain.json()["outputs"]
    v2 = post(gateway, infer, "/v2/models/large/infer")
    assert v2.status_code == 200, v2.text[:500]
    assert np.array_equal(np.array(v2.json()["outputs"][0]["data"], dtype=np.float32), array.ravel())


def test_small_bodies_that_inflate_to_large_ones_are_decoded_elsewhere_too(gateway: LiveGateway) -> None:
    """Zeros compress well."""
    body = body_of(np.zeros((200, WIDTH), dtype=np.float32))
    packed = gzip.compress(body)
    assert len(packed) < 32_000
    assert len(body) > 512_000

    answer = post(gateway, packed, **{"content-encoding": "gzip"})

    assert answer.status_code == 200, answer.text[:500]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * 16_000_000, 413),
        (b'{"inputs": ' + b"[" * 16_000_000, 413),
        (b'{"inputs": ' + b"[" * 1000 + b"1" + b"]" * 1000 + b" " * 1_000_000 + b"}", 413),
        (b'{"inputs": "' + b"a" * 16_000_000 + b'"}', 400),
        (b'{"inputs": [["' + b"a" * 16_000_000 + b'"]]}', 422),
        (b'{"' + b"a" * 16_000_000 + b'": 1}', 400),
        (b'{"inputs": [[1]], ' + b'"id": "a", ' * 100_000 + b'"key": "k"}', 400),
        (b'{"inputs": [[1]], "inputs": ' + body_of(np.zeros((300, WIDTH)))[10:], 400),
        (b'{"context": {' + b",".join(b'"k%d": 1' % k for k in range(100_000)) + b'}, "inputs": [[1]]}', 413),
        (b'{"inputs": [' + b"1," * 17_000_000 + b"1]}", 413),
        (b'{"inputs": [' + b"[]," * 500_000 + b"[]]}", 422),
        (b"\x00" * 1_000_000, 400),
        (b"\xff" * 1_000_000, 400),
        (b"1" * 1_000_000, 400),
        (b'{"inputs": [[' + b"9" * 1_000_000 + b"]]}", 400),
        (b'{"inputs": [[1e' + b"9" * 1_000_000 + b"]]}", 400),
        (b'"' + b"\\" * 1_000_000, 400),
        (b"{" * 1_000_000, 400),
    ],
)  # fmt: skip
def test_hostile_bodies_are_refused_in_good_order(gateway: LiveGateway, body: bytes, status: int) -> None:
    """Deep, long, repeated, endless, or no JSON at all: a status that says so, and small ones are answered as ever."""
    answer = post(gateway, body)

    assert answer.status_code == status, answer.text[:500]
    assert small_works(gateway)


def test_a_ragged_row_deep_in_a_large_body_is_named(gateway: LiveGateway) -> None:
    """As in a small one."""
    array = rows(100).tolist()
    array[57].append(1.0)

    answer = post(gateway, orjson.dumps({"inputs": array}))

    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"field": "inputs[57]", "expected": "1000 values", "got": "1001"}]


def test_a_decoder_that_is_killed_costs_no_answer(gateway: LiveGateway) -> None:
    """Again and again, under load; small requests do not notice."""
    array = rows(300)
    body = body_of(array)
    expected = post(gateway, body).json()["outputs"]
    answers: list[httpx.Response] = []
    over = threading.Event()

    def send() -> None:
        while not over.is_set():
            answers.append(httpx.post(f"{gateway.url}/predict/large", content=body, headers=JSON, timeout=90))

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            known = len(answers)
            victim = wait_until(lambda: decoders(gateway), what="a decoder")[0]
            os.kill(victim.pid, signal.SIGKILL)
            assert small_works(gateway)
            wait_until(lambda known=known: len(answers) > known + 3, what="answers after the kill")
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert {answer.status_code for answer in answers} <= {200, 413}
    assert sum(answer.status_code == 413 for answer in answers) <= 1  # one that two kills have met
    assert all(answer.json()["outputs"] == expected for answer in answers if answer.status_code == 200)


def test_a_client_that_leaves_in_mid_body_leaves_nothing_behind(gateway: LiveGateway) -> None:
    """Its place and its memory are free for the next one: more leave here than there are places."""
    body = body_of(rows(300))
    assert post(gateway, body).status_code == 200
    process = psutil.Process(gateway.pid)
    before = process.num_fds()
    for index in range(80):
        with socket.create_connection(("127.0.0.1", gateway.port)) as sock:
            head = f"POST /predict/large HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
            sock.sendall(head.encode() + (body if index % 4 == 0 else body[:1_000_000]))

    wait_until(lambda: post(gateway, body).status_code == 200, what="a place, once all have been seen to leave")
    wait_until(lambda: process.num_fds() <= before + 8, what="the descriptors' return")


@pytest.mark.slow
def test_a_hundred_large_bodies_leave_no_descriptor_and_no_memory(gateway: LiveGateway) -> None:
    """Memory is used again, not taken anew."""
    body = body_of(rows(300))
    process = psutil.Process(gateway.pid)
    for _ in range(20):
        assert post(gateway, body).status_code == 200
    before = process.memory_info().rss, process.num_fds(), len(process.children(recursive=True))
    for _ in range(100):
        assert post(gateway, body).status_code == 200
    after = process.memory_info().rss, process.num_fds(), len(process.children(recursive=True))

    assert after[0] - before[0] <= GROWTH_BYTES
    assert after[1] <= before[1] + 2
    assert after[2] <= before[2]  # a second decoder, of an earlier test, may have ended


def test_the_decoder_ends_with_the_gateway(tmp_path: Path) -> None:
    """Killed without a word, it leaves no process behind."""
    with LiveGateway(tmp_path / "home", settings=PATIENT) as running:
        running.register_echo("large", "large", {}, signature=SIGNATURE, verify=False)
        running.put_route("large", {"model": "large", "split": [{"version": 1, "weight": 100}]})
        assert post(running, body_of(rows(100))).status_code == 200
        (decoder,) = decoders(running)
        running.kill()
        wait_until(lambda: not alive([decoder.pid]), what="its end")
