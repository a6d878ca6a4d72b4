"""Ten thousand generated requests: no answer is a 5xx, each is valid and in time, and all is well afterwards.

Text is generated rather than values, so that it can hold what no serialiser would write: NaN,
duplicate keys, numbers beyond every type, half a string. The profile is fixed, so that a
failure comes again.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings

from tests.web.generated import Sent, anything_else, inference, prediction
from tests.web.stage import Stage, build_stage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def generated(requests: int) -> settings:
    return settings(
        max_examples=requests,
        derandomize=True,
        deadline=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


ANSWER_WITHIN_S = 60.0
WELL_FORMED = b'{"inputs": [[1, 2, 3, 4]]}'


@dataclass
class Received:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    over: bool = False


class Caller:
    """Calls the application as a server would, from outside its loop."""

    def __init__(self, runner: asyncio.Runner, stage: Stage) -> None:
        self.runner = runner
        self.stage = stage
        self.inferences = 0

    def call(self, sent: Sent) -> Received:
        return self.runner.run(asyncio.wait_for(self._call(sent), ANSWER_WITHIN_S))

    async def _call(self, sent: Sent) -> Received:
        received = Received()
        size = sent.chunk or max(len(sent.body), 1)
        parts = [sent.body[start : start + size] for start in range(0, len(sent.body), size)] or [b""]
        gone = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if not parts:
                await gone.wait()
                return {"type": "http.disconnect"}
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts)}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                received.status = message["status"]
                received.headers = {
                    name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]
                }
            else:
                received.body += message["body"]
                received.over = not message.get("more_body", False)

        length = (b"content-length", str(len(sent.body)).encode())
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": sent.method,
            "path": sent.path,
            "raw_path": sent.path.encode("utf-8", "surrogateescape"),
            "query_string": b"",
            "root_path": "",
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "headers": [length, *sent.headers],
        }
        await self.stage.application(scope, receive, send)
        return received


@pytest.fixture(scope="module")
def caller() -> Iterator[Caller]:
    with asyncio.Runner() as runner:
        context = build_stage()
        stage = runner.run(context.__aenter__())
        try:
            yield Caller(runner, stage)
        finally:
            runner.run(context.__aexit__(None, None, None))


def no_constant(name: str) -> NoReturn:
    raise AssertionError(f"{name} is no JSON")


def check(caller: Caller, sent: Sent) -> Received:
    before = len(caller.stage.observer.requests)
    answer = caller.call(sent)

    assert 200 <= answer.status < 500, answer.body
    assert answer.over
    assert answer.headers["x-request-id"]
    assert int(answer.headers["content-length"]) == len(answer.body)
    body = answer.body
    encoding = answer.headers.get("content-encoding")
    if encoding is not None:
        body = gzip.decompress(body) if encoding == "gzip" else zlib.decompress(body)
    length = answer.headers.get("inference-header-content-length")
    json.loads(body if length is None else body[: int(length)], parse_constant=no_constant)
    if sent.method == "POST" and (sent.path.startswith("/predict") or sent.path.endswith("/infer")):
        assert len(caller.stage.observer.requests) == before + 1
        assert caller.stage.last().code == answer.status
    return answer


def is_healthy(caller: Caller) -> None:
    stage = caller.stage
    assert stage.dataplane.inflight == 0
    assert check(caller, Sent("/readyz", b"", method="GET")).status == 200
    assert check(caller, Sent("/predict", WELL_FORMED)).status == 200
    finished = [record.route for record in stage.observer.requests if record.route]
    assert sorted(stage.started) == sorted(finished)


@generated(3500)
@given(prediction())
@example(Sent("/predict", WELL_FORMED))
@example(Sent("/predict", b"[" * 200_000))
@example(Sent("/predict", b'{"inputs":' * 100_000))
@example(Sent("/predict/words", b'{"inputs": [["' + b"\\" * 11 + b'"]]}'))
def test_predictions(caller: Caller, sent: Sent) -> None:
    """Envelopes with everything wrong that can be written down."""
    check(caller, sent)


@generated(1500)
@given(prediction())
def test_well_formed_requests_between_wrong_ones_are_answered(caller: Caller, sent: Sent) -> None:
    """Bad input costs nobody else anything: the neighbour in time gets its own answer."""

    async def both() -> tuple[Received, Received]:
        wrong, right = await asyncio.gather(caller._call(sent), caller._call(Sent("/predict", WELL_FORMED)))
        return wrong, right

    wrong, right = caller.runner.run(asyncio.wait_for(both(), ANSWER_WITHIN_S))

    assert wrong.status < 500
    assert right.status == 200
    assert json.loads(right.body)["outputs"] == {"y": [[1.0, 2.0, 3.0, 4.0]]}


@generated(3500)
@given(inference())
def test_protocol_requests(caller: Caller, sent: Sent) -> None:
    """Heads, binary tails and header lengths that do not fit each other."""
    check(caller, sent)


@generated(1500)
@given(anything_else)
def test_everything_else(caller: Caller, sent: Sent) -> None:
    """Every other path, with any method."""
    answer = caller.call(sent)

    assert 200 <= answer.status < 500 or sent.path.endswith("/load"), (answer.status, answer.body)
    assert answer.headers["x-request-id"]


def test_the_gateway_is_healthy_after_all_that(caller: Caller) -> None:
    """Nothing in flight, every start with its end, every route ready, and the next request answered."""
    is_healthy(caller)


def test_the_generated_requests_reached_models_and_every_refusal(caller: Caller) -> None:
    """A fuzz that is refused at the door shows little."""
    codes = Counter(record.code for record in caller.stage.observer.requests)

    assert codes[200] > 1000
    assert set(codes) >= {200, 400, 401, 403, 404, 413, 415, 422}
