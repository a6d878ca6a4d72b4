"""Lines that are written from a burst's columns are those that are written from its records, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.events.records import Content, RequestRecord
from gateway.messages import Decision, VersionRef
from gateway.recording.arrived import Arrived, unpack_burst
from gateway.recording.bursts import pack_burst
from gateway.telemetry.decisions.scribe import Scribe
from gateway.telemetry.decisions.secret import KeyedHash
from gateway.telemetry.request_log import RequestLog

THREE, FOUR = VersionRef("digits", 3), VersionRef("digits", 4)

words = st.text(max_size=5)
seconds = st.floats(0, 10)


@st.composite
def bursts(draw: st.DrawFn) -> list[RequestRecord]:
    """Most are alike in most, as traffic is; each field differs in some."""
    alike = {
        "route": draw(st.sampled_from(["digits", "digits", "other", "secret", "whole"])),
        "code": draw(st.sampled_from([200, 200, 500])),
        "protocol": draw(words),
        "content": draw(st.booleans()),
        "rows": draw(st.integers(1, 3)),
        "failure": draw(st.none() | words),
    }
    return [draw(_records(alike)) for _ in range(draw(st.integers(1, 6)))]


@st.composite
def _records(draw: st.DrawFn, alike: Mapping[str, Any]) -> RequestRecord:
    seldom = draw(st.integers(0, 30))
    version = draw(st.sampled_from([THREE, THREE, THREE, FOUR]))
    flag = ("f", None, "p") if seldom == 1 else None
    revision = 8 if seldom == 13 else 7
    decision = Decision("digits", version, "split", draw(st.none() | st.integers(0, 9)), revision, 1, None, flag)
    named = draw(words) if seldom == 2 else f"{draw(st.integers(0, 2**64)):032x}"
    rows = draw(st.integers(0, 3)) if seldom == 3 else alike["rows"]
    return RequestRecord(
        route=draw(words) if seldom == 4 else alike["route"],
        request_id=named,
        decision_id=draw(words),
        decision=None if seldom == 5 else decision,
        answered_by=THREE if seldom == 6 else decision.version,
        code=429 if seldom == 7 else alike["code"],
        chosen_failure=draw(words) if seldom == 8 else alike["failure"],
        error=draw(st.text(max_size=600)) if seldom == 9 else None,
        rows=rows,
        started_wall=draw(st.floats(1e9, 2e9)),
        duration_s=draw(seconds),
        queue_s=draw(seconds),
        protocol=alike["protocol"],
        trace_id=None if seldom == 10 else draw(words) if seldom == 11 else named,
        key=draw(st.none() | words),
        decode_s=draw(seconds),
        batch=draw(st.integers(0, 5)),
        content=_content(draw, rows) if alike["content"] and seldom != 12 else None,
    )


def _content(draw: st.DrawFn, rows: int) -> Content:
    values = draw(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=2))
    kind = draw(st.sampled_from(["f4", "f4", "f4", "f8", "?", "i2"]))
    inputs = {"x": np.tile(np.array(values, np.float32), (rows, 1)), "group": np.full(rows, 2)}
    outputs = {"label": np.full((rows, 1), 3, dtype=kind)}
    asked, answered = draw(st.sampled_from([(None, None), (None, None), ("ab", None), (None, "cd"), ("ab", "cd")]))
    sides = None if asked else inputs, None if answered else outputs
    return Content(*sides, {"tenant": "a"} if rows == 2 else None, asked, answered)


class Kept:
    def __init__(self) -> None:
        self.lines = b""

    def write(self, lines: bytes) -> None:
        self.lines += lines

    def close(self) -> None: ...


def scribe() -> Scribe:
    made = Scribe(KeyedHash(bytes(32)))
    wants = {"digits": ("digest", []), "other": ("none", []), "secret": ("digest", ["group"]), "whole": ("payload", [])}
    routes = {
        name: {"decisions": {"content": content, "redact": redact, "refuse": False}}
        for name, (content, redact) in wants.items()
    }
    made.heard({"routes": routes})
    return made


def logged(records: Sequence[RequestRecord]) -> bytes:
    kept = Kept()
    RequestLog(kept, clock=ManualClock(), prompt=True).take(records)
    return kept.lines


@given(bursts())
def test_columns_say_what_records_say(sent: list[RequestRecord]) -> None:
    """Of the decision log and of the request log, whatever the burst holds."""
    packed = pack_burst(sent)
    assert scribe().lines(unpack_burst(packed)) == scribe().lines(list(unpack_burst(packed)))
    assert logged(unpack_burst(packed)) == logged(list(unpack_burst(packed)))


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("large", [False, True])
def test_most_traffic_is_written_by_its_columns(split: bool, large: bool) -> None:
    """One version or two, with contents, or digests in the place of large ones: no record is made."""
    contents = [Content({"x": np.ones((1, 2)) * number}, {"y": np.ones((1, 1))}) for number in range(20)]
    if large:
        contents = [one._replace(inputs=None, input_digest=f"{place:064x}") for place, one in enumerate(contents)]
    sent = [
        RequestRecord(
            "digits", f"{number:032x}", f"d{number}", Decision("digits", version, "split", number, 7), version, 200,
            None, None, 1, 1e9 + number, 0.5, trace_id=f"{number:032x}", content=content,
        )
        for number, content in enumerate(contents)
        for version in [FOUR if split and number % 5 == 0 else THREE]
    ]  # fmt: skip
    burst = unpack_burst(pack_burst(sent))
    assert isinstance(burst, Arrived)
    assert scribe().lines(burst)[7].startswith(b'["d7","00000000000000000000000000000007",1000000007000000,500000,"dig')
    assert logged(burst).count(b"\n") == 20
    assert (b"%064x" % 7 in scribe().lines(burst)[7]) is large
    assert "_records" not in vars(burst)
