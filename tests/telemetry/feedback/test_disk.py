"""A disk that takes nothing is told of once, for as long as it lasts, and once more when it is over."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.telemetry.feedback.asks import ASK_CLOCK
from gateway.telemetry.feedback.part import TruthPart
from tests.telemetry.feedback.stream import cases, chunks, record, told


def test_a_full_disk_is_logged_once_however_many_bursts_come(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Forty bursts a second would fill what is left of it with lines that say so."""
    part = TruthPart(tmp_path / "labels.db", ManualClock())
    part.told("table", told())
    stream = cases(400)
    part.take([record(case) for case in stream[:50]])
    connection = part._ledger._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    for some in chunks(stream[50:], 10):
        part.take([record(case) for case in some])
    part.tick()
    assert [text for text in caplog.messages if "wait for their labels" in text] == caplog.messages
    assert len(caplog.messages) == 1
    assert "the disk is full" in part.ask(ASK_CLOCK, {})["unkept"]
    connection.execute("PRAGMA max_page_count = 1000000")
    part.tick()
    assert "kept for their labels again" in caplog.messages[-1]
    assert part.ask(ASK_CLOCK, {})["unkept"] == ""
    part.close()
