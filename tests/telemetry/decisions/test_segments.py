"""Segments' lives: compacted by a process of their own, found in all along, retired with a record that says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gateway.clock import ManualClock
from gateway.errors import InvalidInput, NotFound
from gateway.events.records import RequestRecord
from gateway.messages import Decision, VersionRef
from gateway.telemetry.decisions.compaction import compact, prove
from gateway.telemetry.decisions.found import Question
from gateway.telemetry.decisions.log import DecisionLog, LogOptions
from gateway.telemetry.decisions.lookup import Lookup
from gateway.telemetry.decisions.notes import NOTES_FILE
from gateway.telemetry.decisions.parquet import lines_in_order
from gateway.telemetry.decisions.part import DecisionPart
from gateway.telemetry.decisions.reader import opened
from gateway.telemetry.decisions.scribe import Scribe
from gateway.telemetry.decisions.secret import KeyedHash
from gateway.telemetry.decisions.segments import listed
from gateway.telemetry.decisions.sql import query
from gateway.telemetry.decisions.upkeep import LogUpkeep, UpkeepOptions
from gateway.telemetry.decisions.verify import verify
from tests.telemetry.decisions.scene import (
    BEGAN_MS,
    KEY,
    TABLE,
    VERSION,
    answer,
    answers,
    checkpoints,
    compact_closed,
    controls,
    decision_id,
    frames,
    open_log,
    open_part,
    written,
)

MANY = 200_000


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200,000 answers in several segments: the first ones compacted, the last two still frames."""
    folder = written(tmp_path_factory.mktemp("many"), MANY, segment_bytes=16 * 1024 * 1024)
    for segment in listed(folder)[:-2]:
        compact(segment)
    return folder


def test_200_000_records_are_written_and_each_is_found_again(many: Path) -> None:
    """By SQL all of them, once each, in both kinds of segments; by id those at every boundary and some between."""
    kinds = [(segment.raw, segment.compacted) for segment in listed(many)]
    assert {(False, True), (True, False)} == set(kinds)
    count, different, least, most = query(
        many, "SELECT count(*), count(DISTINCT decision), min(decision), max(decision) FROM decisions"
    ).rows[0]
    assert (count, different, least, most) == (MANY, MANY, decision_id(0), decision_id(MANY - 1))
    lookup = opened(many)
    for number in (*range(0, MANY, 9_973), MANY - 1):
        found = lookup.one(decision_id(number))
        assert (found["request"], found["recorded"]["sequence"] > number) == (f"request-{number}", True)
        assert lookup.one(f"request-{number}")["decision"] == decision_id(number)
    with pytest.raises(NotFound, match="request-x"):
        lookup.one("request-x")


def test_a_decision_is_answered_with_bytes_weights_interval_and_how_to_rebuild(many: Path) -> None:
    """The same out of frames and out of a Parquet file."""
    for number in (1, MANY - 1):
        found = opened(many).one(decision_id(number))
        assert found["bytes"] == {"digest": "sha256:ab", "loaded": {"model.onnx": "cd"}}
        assert found["why"]["weights"] == {"3": 95, "4": 5}
        assert found["why"]["interval"] == [0, 4_080_218_931, 3]
        assert found["rebuild"]["version"] == "turnout show digits/3"
        assert found["key"] != f"user-{number % 100}"


def paged(lookup: Lookup, **question: Any) -> list[str]:
    """All pages, one below the other: a machine that is slow has shorter ones."""
    seen: list[str] = []
    below = None
    while True:
        page = lookup.page(Question(**question, below=below))
        seen += [one["decision"] for one in page["decisions"]]
        below = page["cursor"]
        if below is None:
            return seen


def test_pages_go_back_through_all_segments_without_a_gap_or_a_double(many: Path) -> None:
    """Newest first, each page below the one before; conditions hold."""
    lookup = opened(many)
    seen = paged(lookup, route="digits", version=4, limit=997)
    assert seen == [decision_id(number) for number in reversed(range(0, MANY, 20))]
    begin = BEGAN_MS * 1000 + 5_000_000
    assert paged(lookup, since=begin, until=begin + 3000, limit=10) == [decision_id(n) for n in (5002, 5001, 5000)]
    assert paged(lookup, code=500) == []


def test_sql_reads_weights_and_digests_as_columns(many: Path) -> None:
    """Resolved for each record, in frames and in Parquet files."""
    [row] = query(
        many, "SELECT DISTINCT weights, digest, loaded, instance, build FROM decisions WHERE answered = 3"
    ).rows
    assert row == ('{"3":95,"4":5}', "sha256:ab", '{"model.onnx": "cd"}', "here", "1.0")


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM read_text('{outside}')",
        "SELECT (SELECT content FROM read_text('{outside}')) FROM decisions",
        "SELECT * FROM glob('/etc/*')",
        "COPY (SELECT 1) TO '{outside}'",
        "COPY (SELECT 1) TO '{segment}' (FORMAT parquet, USE_TMP_FILE false)",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{segment}' (FORMAT parquet, USE_TMP_FILE false)",
        "ATTACH '{outside}'",
        "SELECT 1; SELECT 2",
        "SET memory_limit = '1TB'",
        "SELECT * FROM allowed",
        "DROP VIEW decisions",
        "",
    ],
)
def test_sql_reads_the_log_and_nothing_else_and_writes_nowhere(tmp_path: Path, text: str) -> None:
    """Neither files outside, nor variables of this program; not even the log's own files are written."""
    folder = written(tmp_path / "log", 600, segment_bytes=40_000)
    compact_closed(folder)
    outside, segment = tmp_path / "outside", listed(folder)[0].parquet
    outside.write_text("secret")
    before = segment.read_bytes()
    with pytest.raises(InvalidInput):
        query(folder, text.format(outside=outside, segment=segment))
    assert (outside.read_text(), segment.read_bytes()) == ("secret", before)


def test_sql_is_answered_while_segments_are_compacted_and_retired(tmp_path: Path) -> None:
    """A file that goes under the question is looked for again."""
    folder = written(tmp_path, 3000, segment_bytes=40_000)
    compacting = threading.Thread(target=compact_closed, args=(folder,))
    compacting.start()
    counted = set()
    while compacting.is_alive():
        counted.add(query(folder, "SELECT count(*) FROM decisions").rows[0][0])
    compacting.join()
    counted.add(query(folder, "SELECT count(*) FROM decisions").rows[0][0])
    assert counted == {3000}


def test_a_segment_is_the_same_lines_after_compaction(tmp_path: Path) -> None:
    """Every line's bytes, in the chain's order, from the Parquet file alone; also lines of control."""
    folder = written(tmp_path, 2000, segment_bytes=200_000)
    first = listed(folder)[0]
    lines = [line for frame in frames(first.log) for line in frame.lines]
    compact(first)
    with pq.ParquetFile(first.parquet) as file:
        assert [line for _, line in lines_in_order(file)] == lines
    assert prove(first.parquet).last == len(lines)
    assert not first.log.exists()


def test_every_value_a_record_may_have_survives_compaction(tmp_path: Path) -> None:
    """What is rare: no decision, odd texts, great numbers, lists, payloads."""
    part = open_part(tmp_path)
    part.told("table", TABLE)
    odd = [
        answer(1, decision=None, answered_by=None, code=429, error='said "no"\n\x00ü\U0001f600', key=None),
        answer(2, request_id="", batch=2**62, rows=0, slow=True, trace_id="00", client_id="a,b"),
        answer(3, started_wall=0.0, duration_s=1e6, chosen_failure="ModelError", code=500),
    ]
    part.take(odd)
    part._log.rotate()
    part.close()
    first = listed(tmp_path)[0]
    before = [line for frame in frames(first.log) for line in frame.lines]
    compact(first)
    with pq.ParquetFile(first.parquet) as file:
        assert [line for _, line in lines_in_order(file)] == before


def test_files_of_a_compacted_segment_are_nobody_elses_whatever_the_umask(tmp_path: Path) -> None:
    """Payloads are in them, as they were in the frames."""
    written(tmp_path, 600, segment_bytes=40_000)
    first = listed(tmp_path)[0]
    command = [sys.executable, "-m", "gateway.telemetry.decisions.compaction", str(tmp_path), str(first.number)]
    done = subprocess.run(command, umask=0, check=False, timeout=200)
    assert done.returncode == 0
    assert [path.stat().st_mode & 0o007 for path in (first.parquet, first.ids)] == [0, 0]


def test_a_damaged_segment_stays_as_it_is(tmp_path: Path) -> None:
    """It is evidence; its neighbours are compacted all the same, and the log goes on."""
    clock = ManualClock()
    written(tmp_path, 1000, segment_bytes=40_000)
    path = listed(tmp_path)[0].log
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    log = open_log(tmp_path, clock)
    log.rotate()
    assert log.sync(60.0)
    upkeep = LogUpkeep(log, UpkeepOptions(), clock=clock)
    waiting = sum(segment.number <= log.settled for segment in listed(tmp_path))
    for _ in range(waiting):
        upkeep.look()
        upkeep.wait(200.0)
    upkeep.look()
    assert path.exists()
    assert upkeep.statistics()["damaged_segments"] == 1
    assert upkeep.statistics()["compacted"] == waiting - 1
    upkeep.close()
    log.close()


def test_a_segment_that_cannot_be_compacted_holds_up_no_other_and_is_tried_again(tmp_path: Path) -> None:
    """Something stands in the way of the first one's files, as lack of memory for it may: the others go first, and it
    follows once it can."""
    clock = ManualClock()
    written(tmp_path, 500, segment_bytes=40_000)
    log = open_log(tmp_path, clock)
    log.rotate()
    assert log.sync(60.0)
    closed = [segment for segment in listed(tmp_path) if segment.number <= log.settled]
    assert len(closed) > 1
    closed[0].ids.mkdir()
    upkeep = LogUpkeep(log, UpkeepOptions(), clock=clock)
    for _ in closed:
        upkeep.look()
        upkeep.wait(200.0)
        clock.advance(60.0)
    assert upkeep.statistics()["compactions_failed"] == 1
    assert upkeep.statistics()["compacted"] == len(closed) - 1
    assert closed[0].log.exists()
    closed[0].ids.rmdir()
    upkeep.look()
    upkeep.wait(200.0)
    assert upkeep.statistics()["compacted"] == len(closed)
    upkeep.close()
    log.close()


def test_segments_wait_while_processors_are_short_but_only_so_many(tmp_path: Path) -> None:
    """A compaction takes as much as the recording did; look-ups search what waits, so there is a bound."""
    written(tmp_path, 2000, segment_bytes=40_000)
    log = open_log(tmp_path)
    log.rotate()
    assert log.sync(60.0)
    short = [True]
    upkeep = LogUpkeep(log, UpkeepOptions(), clock=ManualClock(), short=lambda: short[0])
    closed = sum(segment.number <= log.settled for segment in listed(tmp_path))
    assert closed > 5
    for _ in range(closed):
        upkeep.look()
        upkeep.wait(200.0)
    assert upkeep.statistics()["compacted"] == closed - 4
    short[0] = False
    for _ in range(4):
        upkeep.look()
        upkeep.wait(200.0)
    assert upkeep.statistics()["compacted"] == closed
    upkeep.close()
    log.close()


def test_what_a_killed_compaction_has_left_is_cleared_and_nothing_is_lost(tmp_path: Path) -> None:
    """Half a file beside the frames; the frames are there until the Parquet file is proved."""
    written(tmp_path, 1000, segment_bytes=40_000)
    half = tmp_path / ".00000001.parquet.partial"
    half.write_bytes(b"PAR1half")
    log = open_log(tmp_path)
    upkeep = LogUpkeep(log, UpkeepOptions(), clock=ManualClock())
    assert not half.exists()
    upkeep.close()
    log.close()
    assert verify(tmp_path).records == 1000


def test_retirement_by_size_and_by_age_is_told_of_in_the_log_and_accepted_by_the_verifier(tmp_path: Path) -> None:
    """The oldest first, none in the middle; what is left is one chain, and its old checkpoints do not accuse it."""
    clock = ManualClock()
    written(tmp_path, 2000, segment_bytes=60_000)
    compact_closed(tmp_path)
    every = listed(tmp_path)
    log = open_log(tmp_path, clock)
    log.rotate()
    assert log.sync(60.0)
    kept = sum(segment.bytes for segment in every[2:])
    upkeep = LogUpkeep(log, UpkeepOptions(keep_bytes=kept + 5000, compact=False), clock=clock)
    upkeep.look()
    assert listed(tmp_path)[0].number in (2, 3, 4)
    aged = listed(tmp_path)[0]
    os.utime(aged.parquet, (clock.wall() - 86_400, clock.wall() - 86_400))
    for other in listed(tmp_path)[1:]:
        for path in (other.parquet, other.log):
            if path.exists():
                os.utime(path, (clock.wall(), clock.wall()))
    upkeep = LogUpkeep(log, UpkeepOptions(keep_s=3600.0, compact=False), clock=clock)
    upkeep.look()
    assert listed(tmp_path)[0].number == aged.number + 1
    log.close()
    assert {one["reason"] for one in controls(tmp_path, "retired")} == {"size", "age"}
    report = verify(tmp_path, checkpoints(tmp_path))
    assert report.faults == []
    assert report.first > 1


def test_readers_find_everything_while_segments_are_compacted_and_retired_under_their_eyes(tmp_path: Path) -> None:
    """A file that goes while it is read is looked for again; only what was retired is not found."""
    written(tmp_path, 3000, segment_bytes=60_000)
    lookup, missed, done = opened(tmp_path), list[str](), threading.Event()
    newest = 2990

    def read() -> None:
        while not done.is_set():
            for number in range(newest - 20, newest):
                if lookup.one(decision_id(number))["request"] != f"request-{number}":
                    missed.append(decision_id(number))
            if len(lookup.page(Question(limit=50))["decisions"]) != 50:
                missed.append("page")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        compact_closed(tmp_path)
        log = open_log(tmp_path)
        upkeep = LogUpkeep(log, UpkeepOptions(keep_bytes=150_000, compact=False), clock=ManualClock())
        upkeep.look()
        log.close()
    finally:
        done.set()
        reader.join()
    assert missed == []


def test_a_shadows_outcome_joins_its_decision_when_it_comes(tmp_path: Path) -> None:
    """Later, in a record of its own; found with the decision, before compaction and after."""
    part = open_part(tmp_path)
    part.told("version", VERSION)
    for burst in answers(10):
        part.take(burst)
    outcome = {"decision_id": decision_id(4), "shadow": "digits/5", "outcome": "differs", "difference": float("inf")}
    part.told("shadow", outcome)
    part.tick()
    before = opened(tmp_path).one(decision_id(4))["later"]
    part._log.rotate()
    part.close()
    compact_closed(tmp_path)
    after = opened(tmp_path).one(decision_id(4))["later"]
    assert before == after
    assert (before[0]["shadow"], before[0]["outcome"], before[0]["difference"]) == ("digits/5", "differs", None)
    assert verify(tmp_path).faults == []


def told_table(revision: int, weights: dict[str, int]) -> dict[str, Any]:
    route = {**TABLE["routes"]["digits"], "weights": weights}  # type: ignore[index]
    return {"revision": revision, "routes": {"digits": route}}


def at_revision(number: int, revision: int) -> RequestRecord:
    return answer(number, decision=Decision("digits", VersionRef("digits", 3), "split", 1, revision, 2))


def test_each_decision_has_the_weights_of_its_own_moment_however_often_they_changed(tmp_path: Path) -> None:
    """A ramp of twenty steps in a segment, one of them without a new revision, and a record that comes before its
    table; in frames, in Parquet, and in SQL."""
    part = open_part(tmp_path)
    for step in range(1, 21):
        part.told("table", told_table(step, {"3": 100 - step, "4": step}))
        part.take([at_revision(step, step)])
    part.told("table", told_table(20, {"3": 1}))
    part.take([at_revision(21, 20), at_revision(22, 21)])
    part.told("table", told_table(21, {"4": 1}))
    part._log.rotate()
    part.close()
    expected = [{"3": 100 - step, "4": step} for step in range(1, 21)] + [{"3": 1}, {"4": 1}]
    for _ in range(2):  # as frames, then compacted
        lookup = opened(tmp_path)
        assert [lookup.one(decision_id(number))["why"]["weights"] for number in range(1, 23)] == expected
        rows = query(tmp_path, "SELECT weights FROM decisions ORDER BY decision").rows
        assert [json.loads(weights) for (weights,) in rows] == expected
        compact_closed(tmp_path)
    assert verify(tmp_path).faults == []


def test_each_record_names_the_build_that_made_it_also_in_a_segment_of_two(tmp_path: Path) -> None:
    """A gateway that starts anew goes on in the same segment."""
    for number, build in enumerate(("1.0", "2.0")):
        options = LogOptions(labels=(("build", build), ("instance", "here")))
        part = DecisionPart(
            DecisionLog(tmp_path, KEY, clock=ManualClock(), options=options), Scribe(KeyedHash(bytes(32)))
        )
        part.take([answer(number)])
        part.close()
    rows = query(tmp_path, "SELECT build FROM decisions ORDER BY decision").rows
    assert rows == [("1.0",), ("2.0",)]
    told = [opened(tmp_path).one(decision_id(number))["recorded"] for number in range(2)]
    assert [(one["instance"], one["build"]) for one in told] == [("here", "1.0"), ("here", "2.0")]


def test_a_decision_by_a_rule_says_which_and_what_it_uses(tmp_path: Path) -> None:
    """A version, or weights of its own; those of the route stand beside the one that uses none."""
    route = {
        **TABLE["routes"]["digits"],  # type: ignore[index]
        "rules": [
            {"name": "vip", "if": {"==": [{"var": "tier"}, "vip"]}, "use": 4},
            {"name": "few", "weights": {"3": 9, "4": 1}, "intervals": []},
        ],
    }
    part = open_part(tmp_path)
    part.told("table", {"revision": 7, "routes": {"digits": route}})
    version = VersionRef("digits", 4)
    part.take([answer(n, decision=Decision("digits", version, f"rule:{name}", None, 7, 2))
               for n, name in enumerate(("vip", "few"))])  # fmt: skip
    part.close()
    vip, few = (opened(tmp_path).one(decision_id(number))["why"] for number in range(2))
    assert (vip["rule"], vip["use"], vip["weights"]) == ("vip", 4, {"3": 95, "4": 5})
    assert vip["if"] == {"==": [{"var": "tier"}, "vip"]}
    assert (few["rule"], few["weights"], "if" in few) == ("few", {"3": 9, "4": 1}, False)


def test_checkpoints_of_what_was_retired_go_and_what_is_left_is_proved_as_before(tmp_path: Path) -> None:
    """Once they are many; the newest stays whatever its time, and a file that cannot be written anew stays whole."""
    clock = ManualClock()
    written(tmp_path, 1000, segment_bytes=200_000)
    log = open_log(tmp_path, clock)
    for _ in range(20):
        log.control("told", {"of": "nothing"})
        assert log.sync(60.0)
        clock.advance(60)
        log.sign()
    path, signed = tmp_path / NOTES_FILE, clock.wall()
    whole = path.read_bytes()
    assert log.notes.prune(signed) == 0
    tmp_path.joinpath(f".{NOTES_FILE}.partial").mkdir()
    assert log.notes.prune(signed - 300, least_bytes=1) == 0
    assert path.read_bytes() == whole
    tmp_path.joinpath(f".{NOTES_FILE}.partial").rmdir()
    gone = log.notes.prune(signed - 300, least_bytes=1)
    assert gone > 0
    assert path.read_bytes() == whole[gone:]
    assert len(checkpoints(tmp_path)) in (5, 6, 7)
    log.notes.prune(signed + 1e6, least_bytes=1)
    assert len(checkpoints(tmp_path)) == 1
    log.close()
    assert verify(tmp_path, checkpoints(tmp_path)).faults == []
