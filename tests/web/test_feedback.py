"""``POST /feedback``: lines however they are cut, what is kept when it goes wrong midway, hostile bodies."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest

from gateway.errors import StoreUnavailable
from gateway.web.application import build_application
from gateway.web.feedback_lines import MAX_LINE_BYTES
from tests.web.stage import Stage

LINES = {"authorization": "Bearer operator-token", "content-type": "application/x-ndjson"}


class KeptLabels:
    """Takes so many labels, then the disk is away; ``kept`` are those that were taken."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, Any]] = []
        self.senders: set[str] = set()
        self.room = 10**6

    async def join(
        self, labels: Sequence[tuple[str, Any]], routes: frozenset[str] | None, sender: str
    ) -> Sequence[tuple[str, str, str]]:
        if len(self.kept) + len(labels) > self.room:
            raise StoreUnavailable("the labels' file does not answer")
        self.kept += labels
        self.senders.add(sender)
        return [("late", "", "") if label == 9 else ("joined", "", "") for _, label in labels]

    async def report(self, route: str, days: int) -> Mapping[str, Any]:
        return {"route": route, "days": days}


@pytest.fixture
def labels() -> KeptLabels:
    return KeptLabels()


@pytest.fixture
async def feedback(stage: Stage, labels: KeptLabels) -> AsyncIterator[httpx.AsyncClient]:
    application = build_application(replace(stage.application._services, labels=labels))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://gateway") as client:
        yield client


def lines(count: int) -> bytes:
    return "".join(f"{json.dumps({'decision': f'd{n}', 'label': n % 10})}\n" for n in range(count)).encode()


async def pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
async def test_lines_are_the_same_however_they_are_cut(
    feedback: httpx.AsyncClient, labels: KeptLabels, size: int
) -> None:
    """In pieces of a byte, of half a line, of many; the last one without its end."""
    answer = await feedback.post("/feedback", content=pieces(lines(60).rstrip(), size), headers=LINES)
    assert answer.json() == {"lines": 60, "outcomes": {"joined": 54, "late": 6}, "errors": []}
    assert labels.kept == [(f"d{n}", n % 10) for n in range(60)]
    assert len(labels.senders) == 1
    assert all(labels.senders)


async def test_what_was_kept_before_an_error_is_said(feedback: httpx.AsyncClient, labels: KeptLabels) -> None:
    """The disk goes after a thousand lines of 1,700: the sender learns from where on to send again."""
    labels.room = 1000
    answer = await feedback.post("/feedback", content=pieces(lines(1700), 5000), headers=LINES)
    assert answer.status_code == 503
    assert "lines up to 1000 are kept" in answer.json()["detail"]
    assert len(labels.kept) == 1000


async def test_a_compressed_body_is_read_within_the_limits_of_bodies(
    feedback: httpx.AsyncClient, labels: KeptLabels
) -> None:
    """One that is small when it is here and huge when it is unpacked is refused."""
    headers = {**LINES, "content-encoding": "gzip"}
    answer = await feedback.post("/feedback", content=gzip.compress(lines(100)), headers=headers)
    assert answer.json()["lines"] == 100
    bomb = await feedback.post("/feedback", content=gzip.compress(b" " * (64 << 20)), headers=headers)
    assert bomb.status_code == 413
    assert len(labels.kept) == 100


async def test_hostile_lines_cost_their_sender_a_line_and_nobody_else_anything(
    feedback: httpx.AsyncClient, labels: KeptLabels
) -> None:
    """Deep nesting, broken UTF-8, huge numbers, a thousand wrong lines: the first twenty are told, all are counted."""
    wrong = [
        b"[" * 5000,
        b'{"decision": "\xff", "label": 1}',
        b'{"decision": "d", "label": 1e999}',
        b'{"decision": "", "label": 1}',
        b'{"decision": "' + b"x" * 200 + b'", "label": 1}',
        b'{"decision": "d", "label": "' + b"x" * 300 + b'"}',
        b'{"decision": "d", "label": [[1]]}',
        b"null",
        *[b"?"] * 1000,
    ]
    answer = (await feedback.post("/feedback", content=b"\n".join([*wrong, lines(1)]), headers=LINES)).json()
    assert answer["outcomes"] == {"invalid": len(wrong), "joined": 1}
    assert [error["line"] for error in answer["errors"]] == list(range(1, 21))
    assert labels.kept == [("d0", 0)]
    endless = pieces(b'{"decision": "' + b"x" * (2 * MAX_LINE_BYTES), 50_000)
    assert (await feedback.post("/feedback", content=endless, headers=LINES)).status_code == 413


async def test_without_a_recorder_no_label_is_taken(client: httpx.AsyncClient) -> None:
    """503, since nothing could join it, and not as if the store were away; nobody without a token learns even that."""
    label = {"decision": "d", "label": 1}
    headers = {"authorization": "Bearer operator-token"}
    answer = await client.post("/feedback", json=label, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:turnout:problem:recorder-unavailable")
    assert "store" not in answer.json()["title"]
    assert (await client.post("/feedback", json=label)).status_code == 401
