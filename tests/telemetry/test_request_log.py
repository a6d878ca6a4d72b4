"""The request log: one line a request, never in the way, honest about what it dropped."""

from __future__ import annotations

import errno
import gc
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.errors import SettingsError
from gateway.events.records import RequestRecord, RollbackRecord
from gateway.messages import VersionRef
from gateway.recording.arrived import unpack_burst
from gateway.recording.bursts import pack_burst
from gateway.recording.parts import GAP
from gateway.telemetry.request_log import EventLines, RequestLog
from gateway.telemetry.sink import DescriptorSink, open_sink
from tests.telemetry.records import DIGITS_3, DIGITS_4, TRACE_ID, decision, request


class MemorySink:
    """Keeps what is written. The writes in ``faults`` fail, in order; ``gate`` holds writes back."""

    def __init__(self) -> None:
        self.written = b""
        self.faults: list[Exception] = []
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Semaphore(0)
        self.closed = False

    def write(self, lines: bytes) -> None:
        self.reached.release()
        self.gate.wait(60)
        if self.faults:
            raise self.faults.pop(0)
        self.written += lines

    def close(self) -> None:
        self.closed = True

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.written.splitlines()]


@pytest.fixture
def sink() -> Iterator[MemorySink]:
    found = MemorySink()
    yield found
    found.gate.set()


def request_log(sink: Any, **options: Any) -> RequestLog:
    return RequestLog(sink, clock=ManualClock(), **options)


def written(sink: MemorySink, *records: Any) -> list[dict[str, Any]]:
    log = request_log(sink)
    for record in records:
        log.take([record])
    assert log.close(60)
    return sink.lines()


def test_a_request_is_one_line_with_these_fields(sink: MemorySink) -> None:
    """Everything that says which version answered what, how fast, and why; times in the units their names say."""
    assert written(sink, request()) == [
        {
            "time": "2023-11-14T22:13:20.250Z",
            "level": "info",
            "event": "request",
            "request_id": "r-1",
            "decision_id": "0190b0a8-0000-7000-8000-000000000001",
            "trace_id": TRACE_ID,
            "route": "digits",
            "model": "digits",
            "version": 3,
            "reason": "split",
            "epoch": 2,
            "revision": 7,
            "code": 200,
            "duration_ms": 4.0,
            "queue_ms": 1.0,
            "compute_ms": 2.0,
            "rows": 2,
            "error": None,
            "fallback_from": None,
        }
    ]


def test_a_change_of_weights_leaves_nothing_behind(sink: MemorySink) -> None:
    """Each is a revision and an epoch of its own. Kept with what they share, 1,000 of them held 700 kB."""

    def references() -> int:
        return sum(type(one) is VersionRef for one in gc.get_objects())  # isinstance would ask proxies, which answer

    def answered(number: int) -> RequestRecord:
        version = VersionRef("digits", 3)
        chosen = decision(version)._replace(revision=number, epoch=number)
        return request(decision=chosen, answered_by=version, request_id=TRACE_ID)

    log = request_log(sink)
    before = references()
    for number in range(100):
        log.take([answered(2 * number)])
        log.take(unpack_burst(pack_burst([answered(2 * number + 1)])))

    assert log.close(60)
    assert [(line["revision"], line["epoch"]) for line in sink.lines()] == [(number, number) for number in range(200)]
    assert references() - before < 10


def test_a_fallbacks_answer_names_both_versions_and_the_failure(sink: MemorySink) -> None:
    """The version is the one that answered; the one that was chosen stands in ``fallback_from``."""
    record = request(
        decision=decision(DIGITS_4, reason="rule:staff"), answered_by=DIGITS_3, chosen_failure="ModelError"
    )
    line = written(sink, record)[0]
    assert {name: line[name] for name in ("version", "reason", "fallback_from", "error", "code")} == {
        "version": 3,
        "reason": "fallback",
        "fallback_from": 4,
        "error": "ModelError",
        "code": 200,
    }


def test_a_request_without_decision_has_its_fields_empty(sink: MemorySink) -> None:
    """Unknown route or bad envelope: still one line."""
    line = written(sink, request(route="", decision=None, answered_by=None, code=404, error="UnknownRoute"))[0]
    assert (line["route"], line["model"], line["version"], line["reason"]) == ("", None, None, None)
    assert (line["code"], line["error"], line["level"]) == (404, "UnknownRoute", "info")


def test_a_failure_of_ours_is_an_error_with_the_version_that_was_chosen(sink: MemorySink) -> None:
    """Level ``error`` from 500 on."""
    line = written(sink, request(answered_by=None, code=500, error="ModelError", chosen_failure="ModelError"))[0]
    assert (line["level"], line["version"], line["reason"], line["fallback_from"]) == ("error", 3, "split", None)


def test_a_request_that_asked_a_flag_tells_which_and_how_old_its_data_was(sink: MemorySink) -> None:
    """Whatever it chose; one that asked none says nothing of flags."""
    chose = decision()._replace(flag=("new-model", "on", "flagd-file"), flag_age_s=0.25)
    unmatched, old = decision()._replace(flag_age_s=3.0), decision()._replace(flag_stale=True)
    lines = written(sink, *(request(decision=made) for made in (chose, unmatched, old, decision())))
    shown = [[line.get(name) for name in ("flag", "variant", "flag_age_s", "flag_stale")] for line in lines]
    assert shown == [["new-model", "on", 0.25, False], [None, None, 3.0, False], [None, None, None, True], [None] * 4]


def test_lines_hold_no_key_and_nothing_of_the_payload(sink: MemorySink) -> None:
    """A client's own id may be personal; it is not written, and neither is the bucket the key fell into."""
    text = json.dumps(written(sink, request(client_id="ada@example.org")))
    assert "ada" not in text
    assert "bucket" not in text


@pytest.mark.parametrize(
    "text", ["x" * 100_000, "\ud800 alone", 'quote " and \\ and \n newline', "\u2028", "\x00\x1b[31m"]
)
def test_hostile_text_stays_one_short_line_of_json(sink: MemorySink, text: str) -> None:
    """No line is forged, endless or unreadable, whatever a client put into its request id."""
    lines = written(sink, request(request_id=text), request(request_id="after"))
    assert len(sink.written.splitlines()) == 2
    assert len(lines[0]["request_id"]) <= 500
    assert lines[1]["request_id"] == "after"


def test_states_crashes_tables_and_rollbacks_are_lines_too(sink: MemorySink) -> None:
    """Each with a level, so that a search for ``error`` finds what needs a person."""
    log = request_log(sink)
    lines = EventLines(log.told, clock=ManualClock())
    lines.version_state(DIGITS_3, "active", "")
    lines.version_state(DIGITS_4, "failed", "sha256 differs")
    lines.version_crashed(DIGITS_4, "hang", isolating=False)
    lines.version_retired(VersionRef("digits", 2))
    lines.table_applied(8)
    lines.store_reachable(False)
    lines.rolled_back(RollbackRecord("digits", "error-burst", 3, (4,), "12 of 20 failed", durable=True))
    log.close(60)
    lines = sink.lines()
    assert {line.pop("time") for line in lines} == {"2023-11-14T22:13:20.000Z"}
    assert lines == [
        {"level": "info", "event": "version-state", "version": "digits/3", "state": "active", "reason": ""},
        {
            "level": "error",
            "event": "version-state",
            "version": "digits/4",
            "state": "failed",
            "reason": "sha256 differs",
        },
        {"level": "error", "event": "version-crashed", "version": "digits/4", "cause": "hang", "isolating": False},
        {"level": "info", "event": "version-retired", "version": "digits/2"},
        {"level": "info", "event": "table-applied", "revision": 8},
        {"level": "error", "event": "store-reachable", "up": False},
        {
            "level": "warning",
            "event": "rolled-back",
            "route": "digits",
            "trigger": "error-burst",
            "target": 3,
            "quarantined": [4],
            "reason": "12 of 20 failed",
            "durable": True,
        },
    ]


def test_a_sink_that_hangs_fills_the_queue_and_never_blocks(sink: MemorySink) -> None:
    """The caller goes on; once the sink moves again, what was queued comes out, and a line says what did not."""
    sink.gate.clear()
    log = request_log(sink, limit=10)
    log.take([request(request_id="first")])
    assert sink.reached.acquire(timeout=60)
    for number in range(50):
        log.take([request(request_id=str(number))])
    assert log.statistics().dropped == 40
    sink.gate.set()
    assert log.close(60)
    lines = sink.lines()
    assert [line["request_id"] for line in lines if line["event"] == "request"] == ["first", *map(str, range(10))]
    assert [line["count"] for line in lines if line["event"] == "log-lines-dropped"] == [40]
    assert repr(log) == "<RequestLog [0 queued | 11 written | 40 dropped]>"


def test_lines_lost_on_the_way_are_told_of_like_those_dropped_here(sink: MemorySink) -> None:
    """Whoever reads the log need not know where they went."""
    log = request_log(sink)
    log.told(GAP, {"count": 7, "cause": "recorder"})
    assert log.close(60)
    assert [(line["event"], line["count"]) for line in sink.lines()] == [("log-lines-dropped", 7)]
    assert log.ask("request-log", {}) == {"queued": 0, "written": 0, "dropped": 7}


def test_closing_gives_up_on_a_sink_that_hangs(sink: MemorySink) -> None:
    """A stuck reader must not keep the gateway from ending."""
    sink.gate.clear()
    log = request_log(sink)
    log.take([request()])
    assert sink.reached.acquire(timeout=60)
    assert not log.close(timeout_s=0.01)


@pytest.mark.parametrize(
    "fault", [OSError(errno.ENOSPC, "No space left on device"), ValueError("write to closed file")]
)
def test_a_sink_that_fails_is_told_once_and_used_again_when_it_recovers(
    sink: MemorySink, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    """Lines meanwhile are lost and counted; the first write that works says how many."""
    log = request_log(sink)
    sink.faults = [fault] * 3
    for number in range(3):
        log.take([request(request_id=str(number))])
        assert sink.reached.acquire(timeout=60)
    log.take([request(request_id="after")])
    assert log.close(60)
    lines = sink.lines()
    assert [(line.get("request_id"), line.get("count")) for line in lines] == [("after", None), (None, 3)]
    assert len([entry for entry in caplog.records if "cannot be written" in entry.message]) == 1


def test_nothing_is_taken_after_close_and_the_sink_is_closed(sink: MemorySink) -> None:
    """Late events of a gateway that shuts down are counted; the descriptor may be another's by now."""
    log = request_log(sink)
    assert log.close(60)
    log.take([request()])
    assert sink.closed
    assert log.statistics().dropped == 1
    assert sink.written == b""
    assert log.close(60)


def test_a_quiet_log_has_nothing_to_say(sink: MemorySink) -> None:
    """No line about zero dropped lines."""
    assert request_log(sink).close(60)
    assert sink.written == b""


def test_a_file_gets_lines_appended_by_several_gateways(tmp_path: Path) -> None:
    """Opened for appending: whole lines of two writers never overwrite each other."""
    where = tmp_path / "requests.jsonl"
    logs = [request_log(open_sink(str(where))) for _ in range(2)]
    for log in logs:
        for number in range(100):
            log.take([request(request_id=str(number))])
    assert all(log.close(60) for log in logs)
    lines = [json.loads(line)["request_id"] for line in where.read_text().splitlines()]
    assert sorted(lines, key=int) == sorted((str(number) for number in [*range(100), *range(100)]), key=int)
    assert where.stat().st_mode & 0o777 == 0o640


def test_a_full_disk_tears_at_most_the_line_it_stopped_in(tmp_path: Path) -> None:
    """A file with a size limit takes part of a write; the next write starts on a new line. In a process of its own,
    since the limit is the process's."""
    where = tmp_path / "requests.jsonl"
    program = f"""
import resource, signal
from gateway.telemetry.sink import open_sink
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sink = open_sink({str(where)!r})
sink.write(b'{{"n": 1}}\\n')
resource.setrlimit(resource.RLIMIT_FSIZE, (15, -1))
try:
    sink.write(b'{{"n": 2}}\\n')
except OSError as full:
    print(full.errno)
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
sink.write(b'{{"n": 3}}\\n')
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200, check=False)
    assert (done.stdout, done.stderr) == (f"{errno.EFBIG}\n", "")
    assert where.read_bytes() == b'{"n": 1}\n{"n": \n{"n": 3}\n'


def test_a_pipe_whose_reader_left_and_one_that_is_full_are_errors_the_log_survives() -> None:
    """EPIPE, and EAGAIN where somebody made the descriptor non-blocking."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    sink = DescriptorSink(writer)
    with pytest.raises(OSError, match="does not keep up"):
        sink.write(b"x" * 10_000_000)
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        sink.write(b"x\n")
    sink.close()


def test_standard_output_stays_open_when_the_log_closes() -> None:
    """The log owns a duplicate."""
    program = """
from gateway.clock import SystemClock
from gateway.telemetry.request_log import EventLines, RequestLog
from gateway.telemetry.sink import open_sink
for where in ("stdout", "stderr"):
    log = RequestLog(open_sink(where), clock=SystemClock())
    EventLines(log.told, clock=SystemClock()).table_applied(8)
    log.close(60)
print("still here")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200, check=False)
    assert re.fullmatch(
        r'\{"time":"[^"]+Z","level":"info","event":"table-applied","revision":8\}\nstill here\n', done.stdout
    )
    assert done.stderr.endswith('"revision":8}\n')


def test_off_is_no_sink_and_an_unwritable_file_is_a_settings_error(tmp_path: Path) -> None:
    """Said at start, with the key, the value and what was expected."""
    assert open_sink("off") is None
    relative = open_sink("requests.jsonl", tmp_path)
    assert relative is not None
    relative.write(b"line\n")
    relative.close()
    assert (tmp_path / "requests.jsonl").read_bytes() == b"line\n"
    with pytest.raises(
        SettingsError, match=r"telemetry\.request_log: '.*/none/log' cannot be opened .* expected stdout"
    ):
        open_sink(str(tmp_path / "none" / "log"))
    with pytest.raises(SettingsError, match="Is a directory"):
        open_sink(str(tmp_path))
