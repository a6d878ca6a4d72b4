"""The reader: a process of the gateway's own that answers out of the files, and is replaced when it dies."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.errors import NotFound, StoreUnavailable
from gateway.telemetry.decisions.asking import DecisionReader
from tests.telemetry.decisions.scene import answers, compact_closed, decision_id, open_part, written


async def test_answers_come_from_frames_and_parquet_also_those_written_a_moment_ago(tmp_path: Path) -> None:
    """By decision and by request, several asked at once; what is not there is not found."""
    written(tmp_path, 1000, segment_bytes=60_000)
    compact_closed(tmp_path)
    part = open_part(tmp_path)
    reader = DecisionReader(tmp_path, clock=ManualClock())
    try:
        found = await asyncio.gather(*(reader.find(decision_id(number)) for number in (0, 500, 999)))
        assert [one["request"] for one in found] == ["request-0", "request-500", "request-999"]
        part.take(next(answers(1, 5000)))
        assert (await reader.find("request-5000"))["decision"] == decision_id(5000)
        with pytest.raises(NotFound):
            await reader.find("'; DROP TABLE decisions; --\n\x00ü\udc80".encode("utf-8", "replace").decode())
        page = await reader.page({"limit": 3})
        assert [one["request"] for one in page["decisions"]] == ["request-5000", "request-999", "request-998"]
    finally:
        await reader.close()
        part.close()


async def test_a_reader_that_dies_is_replaced_with_the_next_question(tmp_path: Path) -> None:
    """Who asked it is told to ask again; nobody waits for ever."""
    written(tmp_path, 300)
    reader = DecisionReader(tmp_path, clock=ManualClock())
    try:
        await reader.find("request-1")
        first = reader.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        with pytest.raises(StoreUnavailable, match="ask again"):
            await reader.find("request-1")
        assert (await reader.find("request-1"))["decision"] == decision_id(1)
        assert reader.pid != first
    finally:
        await reader.close()


async def test_an_idle_reader_ends_and_comes_back(tmp_path: Path) -> None:
    """Its memory goes back to the system between two questions that are far apart."""
    written(tmp_path, 300)
    clock = ManualClock()
    reader = DecisionReader(tmp_path, clock=clock, idle_s=60.0)
    try:
        await reader.find("request-1")
        assert reader.pid is not None
        clock.advance(61.0)
        assert reader.pid is None
        assert (await reader.find("request-2"))["decision"] == decision_id(2)
    finally:
        await reader.close()


async def test_a_folder_without_a_log_has_no_decisions(tmp_path: Path) -> None:
    """A gateway that has not answered anything yet."""
    reader = DecisionReader(tmp_path / "decisions", clock=ManualClock())
    try:
        assert await reader.page({}) == {"decisions": [], "cursor": None}
        with pytest.raises(NotFound):
            await reader.find("anything")
    finally:
        await reader.close()
