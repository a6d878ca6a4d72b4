"""The log's writer: what is taken is in the files, in a chain; what is not is counted, and a record says so."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.errors import SettingsError
from gateway.events.records import Content
from gateway.telemetry.decisions.assembly import decision_part
from gateway.telemetry.decisions.awaited import AwaitedPart
from gateway.telemetry.decisions.fields import COLUMNS, decoded, encoded, named
from gateway.telemetry.decisions.frames import RECORDS
from gateway.telemetry.decisions.notes import NOTES_FILE
from gateway.telemetry.decisions.part import STATISTICS
from gateway.telemetry.decisions.scribe import Scribe
from gateway.telemetry.decisions.secret import SECRET_FILE, KeyedHash
from gateway.telemetry.decisions.segments import listed, raw_path
from gateway.telemetry.decisions.upkeep import LogUpkeep, UpkeepOptions
from gateway.telemetry.decisions.verify import verify
from tests.small_disk import small_file_system
from tests.telemetry.decisions.scene import (
    KEY,
    TABLE,
    VERSION,
    answer,
    answers,
    checkpoints,
    controls,
    decision_id,
    frames,
    open_log,
    open_part,
    written,
)


def recorded(folder: Path) -> list[str]:
    """Decision ids in the chain's order, of segments that are still frames."""
    return [
        decoded(line)[0]
        for segment in listed(folder)
        for frame in frames(segment.log)
        if frame.kind == RECORDS
        for line in frame.lines
    ]


def test_a_record_has_one_form_and_survives_it() -> None:
    """Encoded, read and encoded again: the same bytes; text that is no Unicode does not stop it."""
    line = Scribe(KeyedHash(bytes(32))).line(answer(7, request_id="half \ud800", error="ü", code=500))
    assert line is not None
    again = decoded(encoded(line))
    assert encoded(again) == encoded(line)
    assert named(again)["request"] == "half ?"
    assert len(again) == len(COLUMNS)


def test_a_key_is_hashed_with_the_homes_secret_and_never_written(tmp_path: Path) -> None:
    """Equal keys have equal hashes; the file is the owner's alone; another home hashes otherwise."""
    keyed = KeyedHash.of(tmp_path)
    assert KeyedHash.of(tmp_path)("olga") == keyed("olga") != KeyedHash.of(tmp_path / "other")("olga")
    assert (tmp_path / SECRET_FILE).stat().st_mode & 0o777 == 0o600
    line = Scribe(keyed).line(answer(1, key="olga@example.org"))
    assert line is not None
    assert b"olga" not in encoded(line)
    (tmp_path / SECRET_FILE).write_text("short")
    with pytest.raises(SettingsError, match=SECRET_FILE):
        KeyedHash.of(tmp_path)


def test_a_route_says_what_is_kept_of_its_content() -> None:
    """Digests, or the tensors, or neither; what is redacted leaves no trace but its name."""
    content = Content({"age": np.array([[41]], np.int32), "x": np.ones((1, 2), np.float32)}, {"y": np.ones(1)})
    scribe = Scribe(KeyedHash(bytes(32)))

    def kept(decisions: dict[str, object] | None) -> dict[str, object] | None:
        scribe.heard({"routes": {"digits": {"decisions": decisions}}})
        record = scribe.record_of(answer(1, content=content))
        return None if record is None else dict(record)

    digest = kept({"content": "digest", "redact": [], "refuse": False})
    payload = kept({"content": "payload", "redact": ["age"], "refuse": False})
    nothing = kept({"content": "none", "redact": [], "refuse": False})
    assert kept(None) is None
    assert digest is not None
    assert payload is not None
    assert nothing is not None
    assert (len(str(digest["inputs"])), digest["payload"], digest["redacted"]) == (64, None, None)
    assert (payload["redacted"], '"age"' in str(payload["payload"])) == (["age"], False)
    assert payload["inputs"] != digest["inputs"]
    assert payload["outputs"] == digest["outputs"]
    assert (nothing["inputs"], nothing["outputs"], nothing["payload"]) == (None, None, None)


def test_what_was_taken_is_in_the_files_before_anything_is_synced(tmp_path: Path) -> None:
    """The death of the process costs nothing that it had taken: no tick, no close, and all is there."""
    part = open_part(tmp_path)
    for burst in answers(600):
        part.take(burst)
    assert len(recorded(tmp_path)) == 600
    assert part.ask(STATISTICS, {})["durable"] == 0
    part.close()


def test_a_checkpoint_signs_only_what_is_durable(tmp_path: Path) -> None:
    """By time or by number; the copy elsewhere gets the same; an idle log signs nothing anew."""
    clock, elsewhere = ManualClock(), tmp_path / "elsewhere"
    log = open_log(tmp_path / "log", clock, checkpoint_s=60.0, sync_s=1.0, copy=elsewhere)
    log.append([b'["a"]'] * 10)
    clock.advance(61.0)
    log.tick()
    assert log.sync(60.0)
    log.tick()
    assert [one.size for one in checkpoints(tmp_path / "log")] == [12]
    assert elsewhere.read_text() == (tmp_path / "log" / NOTES_FILE).read_text()
    clock.advance(600.0)
    log.tick()
    assert log.sync(60.0)
    log.tick()
    assert len(checkpoints(tmp_path / "log")) == 1
    log.close()


def test_a_log_goes_on_where_its_writer_ended(tmp_path: Path) -> None:
    """The same segment, the next number, one chain; an end in good order leaves no gap."""
    written(tmp_path, 300)
    part = open_part(tmp_path)
    for burst in answers(300, 300):
        part.take(burst)
    part.close()
    report = verify(tmp_path, checkpoints(tmp_path))
    assert (report.faults, report.records, report.gaps) == ([], 600, [])
    assert len(listed(tmp_path)) == 1
    assert report.agreed == 2


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    """Two would break the chain; the lock goes with the first."""
    log = open_log(tmp_path)
    with pytest.raises(SettingsError, match="another process"):
        open_log(tmp_path)
    log.close()
    open_log(tmp_path).close()


@given(cut=st.integers(0, 10**9))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_tail_torn_at_any_byte_is_cut_at_the_last_whole_frame_and_told_of(tmp_path: Path, cut: int) -> None:
    """What is left verifies, the gap says how much was taken off, and the chain goes on."""
    folder = tmp_path / str(cut)
    log = open_log(folder)
    for _ in range(20):
        log.append([b'["0190b0a8-0000-7000-8000-000000000001","r"]'] * 7)
    path = raw_path(folder, 1)
    whole = path.stat().st_size
    kept = 2000 + cut % (whole - 2000)
    log.close()
    os.truncate(path, kept)
    ends = [frame.end for frame in frames(path)]
    log = open_log(folder)
    log.append([b'["b"]'])
    log.close()
    [gap] = controls(folder, "gap")
    assert gap["cause"] == "unclean-end"
    assert gap["cut_bytes"] == kept - max(ends)
    assert gap["records"] is None
    assert verify(folder).faults == []


def test_a_new_segment_that_was_never_whole_is_begun_again(tmp_path: Path) -> None:
    """The writer died between making the file and writing its first frame."""
    written(tmp_path, 300)
    raw_path(tmp_path, 2).write_bytes(b"TURN")
    part = open_part(tmp_path)
    part.close()
    assert [segment.number for segment in listed(tmp_path)] == [1]
    assert verify(tmp_path).faults == []


def test_what_the_gateway_lost_on_the_way_is_a_gap_record(tmp_path: Path) -> None:
    """With its cause and its number, in its place among the records."""
    part = open_part(tmp_path)
    part.take([answer(1)])
    part.told("gap", {"count": 17, "cause": "recorder"})
    part.take([answer(2)])
    part.close()
    [gap] = controls(tmp_path, "gap")
    assert (gap["records"], gap["cause"]) == (17, "recorder")


def test_a_record_that_cannot_be_written_is_a_gap_and_costs_no_other(tmp_path: Path) -> None:
    """A number that JSON has no place for, a time that is none: the rest of the burst is kept."""
    part = open_part(tmp_path)
    unfit = [answer(1, rows=2**70), answer(2, duration_s=float("nan")), answer(3, decision_id=None)]
    part.take([answer(0), *unfit, answer(4)])
    part.close()
    kept = recorded(tmp_path)
    assert {decision_id(0), decision_id(4)} <= set(kept)
    gaps = controls(tmp_path, "gap")
    assert len(kept) + sum(gap["records"] for gap in gaps) == 5
    assert {gap["cause"] for gap in gaps} == {"form"}


def test_a_gap_that_is_told_of_while_the_disk_is_full_is_written_with_its_number(small_disk: Path) -> None:
    """Records that the gateway lost on the way meanwhile are in no other record's number."""
    clock = ManualClock()
    junk = small_disk / "junk"
    junk.write_bytes(b"\0" * 300_000)
    part = open_part(small_disk / "log", clock)
    for burst in answers(4000):
        part.take(burst)
    assert part.full
    part.told("gap", {"count": 17, "cause": "recorder"})
    junk.unlink()
    clock.advance(1.0)
    part.tick()
    part.close()
    gaps = controls(small_disk / "log", "gap")
    assert [gap["cause"] for gap in gaps] == ["full", "recorder"]
    assert gaps[1]["records"] == 17
    assert verify(small_disk / "log").faults == []


def test_only_what_a_table_changes_is_written(tmp_path: Path) -> None:
    """Told again, the same table leaves nothing; a route that went is written as gone; each segment begins with all."""
    part = open_part(tmp_path)
    part.told("table", TABLE)
    part.told("table", {**TABLE, "revision": 8})
    part.told("version", VERSION)
    part.told("version", VERSION)
    part.told("table", {"revision": 9, "routes": {}})
    part.close()
    assert [one["revision"] for one in controls(tmp_path, "table")] == [7, 9]
    assert controls(tmp_path, "table")[1]["routes"] == {"digits": None}
    assert len(controls(tmp_path, "version")) == 1


def test_segments_end_by_size_and_by_age_and_each_explains_itself(tmp_path: Path) -> None:
    """The heading holds what is in force and where in the chain it begins."""
    clock = ManualClock()
    part = open_part(tmp_path, clock, segment_bytes=64 * 1024, segment_s=3600.0)
    part.told("table", TABLE)
    for burst in answers(1000):
        part.take(burst)
    by_size = len(listed(tmp_path))
    assert by_size > 2
    part.take([answer(1000)])
    clock.advance(3601.0)
    part.tick()
    assert len(listed(tmp_path)) == by_size + 1
    part.close()
    headings = controls(tmp_path, "segment")
    assert [one["number"] for one in headings] == list(range(1, by_size + 2))
    assert headings[-1]["standing"]["routes"]["digits"][-1][1]["weights"] == {"3": 95, "4": 5}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """One that is full at a few hundred kilobytes."""
    with small_file_system(tmp_path / "disk", size="512k") as disk:
        yield disk


def test_a_full_disk_is_counted_and_told_of_as_soon_as_there_is_room(small_disk: Path) -> None:
    """Every record is in the log or in the gap's number; memory holds none of them; the chain is whole."""
    clock = ManualClock()
    junk = small_disk / "junk"
    junk.write_bytes(b"\0" * 300_000)
    part = open_part(small_disk / "log", clock)
    part.told("table", TABLE)
    for burst in answers(4000):
        part.take(burst)
    assert part.full
    standing = part.ask(STATISTICS, {})
    assert standing["written"] + standing["dropped"] == 4000
    clock.advance(1.0)
    part.tick()
    assert part.full
    part.told("table", {**TABLE, "revision": 8, "routes": {}})
    junk.unlink()
    clock.advance(1.0)
    part.tick()
    assert not part.full
    part.take([answer(5000)])
    part.close()
    [gap] = controls(small_disk / "log", "gap")
    assert gap["records"] == standing["dropped"]
    assert "space" in gap["reason"].lower()
    assert controls(small_disk / "log", "standing")[0]["standing"]["revision"] == 8
    report = verify(small_disk / "log", checkpoints(small_disk / "log"))
    assert (report.faults, report.records) == ([], standing["written"] + 1)


def test_a_disk_that_is_full_at_the_start_is_waited_for(small_disk: Path) -> None:
    """The recorder's other parts go on; the log begins with how much it missed."""
    from_nothing = small_disk / "home"
    junk = small_disk / "junk"
    with junk.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    clock = ManualClock()
    options = {
        "home": str(from_nothing),
        "folder": str(from_nothing / "decisions"),
        "labels": {},
        "segment_bytes": 10**6,
        "segment_s": 1e6,
        "sync_s": 1.0,
        "checkpoint_s": 60.0,
        "checkpoint_records": 1000,
        "copy": None,
        "compact": False,
        "keep_s": None,
        "keep_bytes": None,
        "stands_s": 3600.0,
    }
    part = decision_part(options, clock)
    part.told("table", TABLE)
    part.take([answer(1), answer(2)])
    assert part.full
    assert part.ask(STATISTICS, {})["dropped"] == 2
    junk.unlink()
    clock.advance(2.0)
    part.tick()
    assert not part.full
    part.take([answer(3)])
    part.close()
    [gap] = controls(from_nothing / "decisions", "gap")
    assert (gap["records"], gap["cause"]) == (2, "not-begun")
    assert len(controls(from_nothing / "decisions", "table")) == 1


def test_the_newest_checkpoint_is_found_from_the_end_of_however_many(tmp_path: Path) -> None:
    """A note a minute is half a million a year: none but the last is opened, and what is torn behind it passed over."""
    clock = ManualClock()
    log = open_log(tmp_path, clock)
    log.append([b'["a"]'])
    log.close()
    path = tmp_path / NOTES_FILE
    note = path.read_text()
    path.write_text(("damaged\n" * 40 + "\n") * 1000 + note + note.splitlines()[0] + "\n99")
    again = open_log(tmp_path, clock)
    assert again.notes.newest == KEY.public.open(note.rstrip("\n") + "\n")
    again.close()


def test_nothing_is_retired_while_the_disk_has_no_room_to_say_so(small_disk: Path) -> None:
    """Else the verifier would take what was retired for removed; with room again, it goes."""
    folder, junk = small_disk / "log", small_disk / "junk"
    clock = ManualClock()
    part = open_part(folder, clock, segment_bytes=60_000)
    junk.write_bytes(b"\0" * 250_000)
    for burst in answers(4000):
        part.take(burst)
    assert part.full
    upkeep = LogUpkeep(part._log, UpkeepOptions(keep_bytes=100_000, compact=False), clock=clock)
    before = len(listed(folder))
    assert before > 2
    upkeep.look()
    assert len(listed(folder)) == before
    junk.unlink()
    clock.advance(1.0)
    part.tick()
    upkeep.look()
    part.close()
    assert len(listed(folder)) < before
    assert verify(folder, checkpoints(folder)).faults == []


def test_a_log_that_could_never_be_begun_is_tried_again_at_the_end(tmp_path: Path) -> None:
    """Its last writer has ended meanwhile: what was missed is a gap, and not forgotten."""
    clock, first = ManualClock(), open_log(tmp_path)
    part = AwaitedPart(lambda: open_part(tmp_path, clock), clock=clock)
    part.take([answer(1), answer(2)])
    first.close()
    part.close()
    [gap] = controls(tmp_path, "gap")
    assert (gap["cause"], gap["records"]) == ("not-begun", 2)
