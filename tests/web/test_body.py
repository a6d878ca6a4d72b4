"""Receiving a body, driven by hand."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import orjson
import pytest

from gateway.web.exchange import Exchange
from tests.web.stage import LIMITS, build_stage


def scope(headers: dict[str, str]) -> dict[str, Any]:
    lines = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http", "method": "POST", "path": "/predict", "headers": lines, "query_string": b""}


async def test_a_body_that_does_not_come_in_time_is_a_408() -> None:
    """A client that stalls holds nothing for ever; the connection ends with the answer."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    async with build_stage(replace(LIMITS, receive_s=0.02), ["digits"]) as stage:
        await stage.application(scope({"content-length": "10"}), receive, send)

        assert sent[0]["status"] == 408
        assert (b"connection", b"close") in sent[0]["headers"]
        assert orjson.loads(sent[1]["body"])["type"].endswith("receive-timeout")
        assert sent[-1]["more_body"] is False
        assert stage.last().code == 408


async def test_an_internal_fault_is_a_500_without_its_details(caplog: Any) -> None:
    """The log has it under the request id; the client gets the id."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        raise ZeroDivisionError("secret")

    async def send(message: Any) -> None:
        sent.append(message)

    async with build_stage(LIMITS, ["digits"]) as stage:
        await stage.application(scope({"x-request-id": "r-1"}), receive, send)

        body = orjson.loads(sent[1]["body"])
        assert (sent[0]["status"], body["request_id"]) == (500, "r-1")
        assert "secret" not in str(body)
        assert "r-1" in caplog.text
        assert "secret" in caplog.text
        assert (stage.last().code, stage.last().error) == (500, "internal")


@pytest.mark.parametrize(("path", "status"), [("/v2/models/digits", 200), ("/nowhere", 404)])
async def test_a_request_that_is_over_does_not_hold_itself(path: str, status: int) -> None:
    """Its scope and its exchange, found by endpoints, would keep both bodies until the collector comes by."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    async with build_stage(LIMITS, ["digits"]) as stage:
        asked = {**scope({}), "method": "GET", "path": path}
        await stage.application(asked, receive, send)

    assert sent[0]["status"] == status
    assert not any(isinstance(value, Exchange) for value in asked.values())


async def test_a_cancelled_request_is_recorded_and_stays_cancelled() -> None:
    """As when the server shuts down for good."""

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        raise AssertionError(message)

    async with build_stage(LIMITS, ["digits"]) as stage:
        task = asyncio.ensure_future(stage.application(scope({}), receive, send))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})

        assert task.cancelled()
        assert stage.last().code == 499
