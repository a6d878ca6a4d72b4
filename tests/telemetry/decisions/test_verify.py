"""Damage of every kind is found offline and named, in frames and in Parquet files alike."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.checkpoints import DECISIONS, Checkpoint, SigningKey, read_notes
from gateway.clock import ManualClock
from gateway.telemetry.decisions.frames import RECORDS, pack
from gateway.telemetry.decisions.notes import NOTES_FILE
from gateway.telemetry.decisions.segments import listed, remove
from gateway.telemetry.decisions.signers import signing_faults
from gateway.telemetry.decisions.upkeep import LogUpkeep, UpkeepOptions
from gateway.telemetry.decisions.verify import Report, verify
from tests.telemetry.decisions.scene import KEY, checkpoints, compact_closed, frames, open_log, written

SMALL = 40_000


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of several segments, all frames."""
    return written(tmp_path_factory.mktemp("raw"), 1000, segment_bytes=SMALL)


@pytest.fixture(scope="module")
def compacted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, all but the last compacted."""
    folder = written(tmp_path_factory.mktemp("compacted"), 1000, segment_bytes=SMALL)
    compact_closed(folder)
    return folder


def copied(source: Path, target: Path) -> Path:
    target.mkdir(parents=True)
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def proved(folder: Path, kept: list[Checkpoint] | None = None) -> Report:
    return verify(folder, checkpoints(folder) if kept is None else kept)


@pytest.mark.parametrize("kind", ["raw", "compacted"])
def test_a_whole_log_is_proved_with_all_its_checkpoints(kind: str, request: pytest.FixtureRequest) -> None:
    """No fault, each record, and how far it is signed."""
    folder = request.getfixturevalue(kind)
    report = proved(folder)
    assert report.faults == []
    assert (report.records, report.agreed, report.signed) == (1000, 1, report.last)
    assert report.head == checkpoints(folder)[-1].head


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), which=st.integers(0, 2))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_of_a_frame_is_found_and_its_segment_named(
    raw: Path, tmp_path_factory: pytest.TempPathFactory, place: float, bit: int, which: int
) -> None:
    """Heads, links, bodies: no byte of a segment can be other than it was."""
    folder = copied(raw, tmp_path_factory.mktemp("flip") / "log")
    path = listed(folder)[which].log
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    report = proved(folder)
    assert report.faults
    assert any(path.name in fault for fault in report.faults)


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_of_a_parquet_file_is_found_wherever_it_changes_a_record(
    compacted: Path, tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
) -> None:
    """Where the pages of data are, every bit counts: their check sums tell, and behind them the chain."""
    folder = copied(compacted, tmp_path_factory.mktemp("flip") / "log")
    path = listed(folder)[1].parquet
    with pq.ParquetFile(path) as file:
        group = file.metadata.row_group(0)
        begin, end = 4, 4 + sum(group.column(one).total_compressed_size for one in range(group.num_columns))
    content = bytearray(path.read_bytes())
    content[begin + int(place * (end - begin))] ^= 1 << bit
    path.write_bytes(content)
    try:
        same = pq.read_table(path) == pq.read_table(listed(compacted)[1].parquet)
    except (OSError, pa.ArrowException):
        same = False
    report = proved(folder)
    assert same or any(path.name in fault for fault in report.faults)


def removed(content: bytes, ends: list[tuple[int, int]]) -> bytes:
    begin, end = ends[2]
    return content[:begin] + content[end:]


def swapped(content: bytes, ends: list[tuple[int, int]]) -> bytes:
    (first, middle), (_, last) = ends[1], ends[2]
    return content[:first] + content[middle:last] + content[first:middle] + content[last:]


def doubled(content: bytes, ends: list[tuple[int, int]]) -> bytes:
    begin, end = ends[2]
    return content[:end] + content[begin:]


def truncated(content: bytes, ends: list[tuple[int, int]]) -> bytes:
    return content[: ends[-1][0]]


@pytest.mark.parametrize(
    ("harm", "words"),
    [(removed, "missing before"), (swapped, "missing before"), (doubled, "twice"), (truncated, "was cut off")],
)
def test_a_burst_removed_put_elsewhere_doubled_or_cut_off_is_found(
    raw: Path, tmp_path: Path, harm: Callable[[bytes, list[tuple[int, int]]], bytes], words: str
) -> None:
    """Whole frames, each sound by itself: the chain tells, and names the records."""
    folder = copied(raw, tmp_path / "log")
    path = listed(folder)[0].log
    path.write_bytes(harm(path.read_bytes(), [(frame.offset, frame.end) for frame in frames(path)]))
    report = proved(folder)
    assert any(words in fault for fault in report.faults), report.faults


def test_a_burst_written_anew_with_sound_sums_is_found_at_the_next(raw: Path, tmp_path: Path) -> None:
    """Whoever can write here can make any frame, and its link; not that of the frame which stands behind it."""
    folder = copied(raw, tmp_path / "log")
    path = listed(folder)[0].log
    found = frames(path)
    place = next(at for at, frame in enumerate(found) if frame.kind == RECORDS)
    frame = found[place]
    lines = [line.replace(b"200", b"500") for line in frame.lines]
    forged, _ = pack(found[place - 1].link, frame.kind, frame.sequence, frame.written_ms, lines)
    content = path.read_bytes()
    path.write_bytes(content[: frame.offset] + forged + content[frame.end :])
    report = proved(folder)
    assert any("do not follow" in fault for fault in report.faults)


def rows_harmed(path: Path, harm: Callable[[pa.Table], pa.Table]) -> None:
    """The file again with other rows, and the same passport: as somebody would who knows the form."""
    with pq.ParquetFile(path) as file:
        table, metadata = file.read(), file.metadata.metadata
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(harm(table))
        writer.add_key_value_metadata({key: value for key, value in metadata.items() if key != b"ARROW:schema"})


def changed(table: pa.Table) -> pa.Table:
    codes = table["code"].to_pylist()
    codes[7] = 500
    place = table.schema.get_field_index("code")
    return table.set_column(place, "code", pa.array(codes, table.schema.field("code").type))


def one_less(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table.slice(0, 50), table.slice(51)])


def two_exchanged(table: pa.Table) -> pa.Table:
    """Their numbers in the chain, which is their order."""
    numbers = table["sequence"].to_pylist()
    numbers[10], numbers[11] = numbers[11], numbers[10]
    return table.set_column(0, "sequence", pa.array(numbers))


def other_bytes(table: pa.Table) -> pa.Table:
    """Which bytes answered is resolved from control records; no link covers the column itself."""
    place = table.schema.get_field_index("digest")
    return table.set_column(place, "digest", pa.array(["sha256:ef"] * len(table)))


@pytest.mark.parametrize("harm", [changed, one_less, two_exchanged, other_bytes])
def test_a_parquet_file_with_a_record_altered_removed_or_reordered_is_found(
    compacted: Path, tmp_path: Path, harm: Callable[[pa.Table], pa.Table]
) -> None:
    """From the file alone, by making its records' bytes and their links again."""
    folder = copied(compacted, tmp_path / "log")
    path = listed(folder)[1].parquet
    rows_harmed(path, harm)
    report = proved(folder)
    assert any(path.name in fault and "record" in fault for fault in report.faults), report.faults


@pytest.mark.parametrize("kind", ["raw", "compacted"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_segment_that_is_missing_is_named(
    kind: str, which: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """In the middle, and at the beginning, where only a record could say that it was retired."""
    folder = copied(request.getfixturevalue(kind), tmp_path / "log")
    gone = listed(folder)[which]
    remove(gone)
    report = proved(folder)
    assert any(f"segment {gone.number} is missing" in fault for fault in report.faults), report.faults


def test_a_tail_cut_off_cleanly_is_found_by_a_checkpoint_kept_elsewhere_and_by_nothing_else(
    raw: Path, tmp_path: Path
) -> None:
    """Whoever cuts the log takes its own checkpoints along."""
    folder = copied(raw, tmp_path / "log")
    elsewhere = checkpoints(folder)
    path = listed(folder)[-1].log
    os.truncate(path, frames(path)[-2].end)
    assert proved(folder, []).faults == []
    [fault] = proved(folder, elsewhere).faults
    assert f"{elsewhere[-1].size} were signed" in fault


def test_a_log_written_anew_is_found_by_a_checkpoint_kept_elsewhere(raw: Path, tmp_path: Path) -> None:
    """Its own chain is sound."""
    elsewhere = checkpoints(raw)
    anew = written(tmp_path / "log", 1010, segment_bytes=SMALL)
    assert proved(anew, []).faults == []
    assert any("written anew" in fault for fault in proved(anew, elsewhere).faults)


def ids_emptied(path: Path) -> None:
    path.with_suffix(".ids").write_bytes(b"")


def least_id_raised(path: Path) -> None:
    """In the footer alone, so that a look-up passes the group over."""
    content = path.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    with pq.ParquetFile(path) as file:
        column = file.schema_arrow.get_field_index("decision")
        least = str(file.metadata.row_group(0).column(column).statistics.min).encode()
    raised = least[:-1] + b"f"
    path.write_bytes(content[:footer] + content[footer:].replace(least, raised))


def column_added(path: Path) -> None:
    table = pq.read_table(path)
    told = pa.array(["the operator"] * len(table))
    pq.write_table(table.append_column("approved_by", told), path)


@pytest.mark.parametrize("harm", [ids_emptied, least_id_raised, column_added])
def test_what_no_link_covers_must_agree_with_the_records_all_the_same(
    compacted: Path, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    """The file of request ids, the footer's least and greatest values, and columns that a question in SQL would show:
    whoever alters these hides or colours a record without touching it."""
    folder = copied(compacted, tmp_path / "log")
    segment = listed(folder)[0]
    harm(segment.parquet)
    assert any(segment.parquet.name in fault for fault in proved(folder).faults)


def test_where_no_log_is_nothing_is_proved(tmp_path: Path) -> None:
    """A folder that was emptied, or misspelt, is no sound log."""
    assert "no decision log" in verify(tmp_path / "nowhere").faults[0]
    assert verify(tmp_path).faults


def test_a_key_that_was_replaced_is_told_from_those_that_the_log_names(raw: Path, tmp_path: Path) -> None:
    """The log written anew by nobody: only its checkpoints were signed again. A key that was changed by its owner is
    named by the log, and accuses nobody."""
    notes = read_notes((raw / NOTES_FILE).read_text(), DECISIONS)[0]
    named = proved(raw).keys
    other = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))), DECISIONS)
    again = [other.sign(one) for one in checkpoints(raw)]
    assert list(signing_faults(named, KEY.public, notes)) == []
    assert any("replaced" in fault for fault in signing_faults(named, other.public, again))
    assert any("no key that it names" in fault for fault in signing_faults(named, KEY.public, again))
    changed = [*named, (named[-1][0] + 1, str(other.public))]
    assert list(signing_faults(changed, other.public, [*notes, *again])) == []


def test_a_log_is_proved_while_its_segments_are_compacted_and_retired(tmp_path: Path) -> None:
    """What goes under the verifier's eyes is no fault of the log."""
    written(tmp_path, 4000, segment_bytes=SMALL)
    faults: list[str] = []
    done = threading.Event()

    def prove() -> None:
        while not done.is_set():
            faults.extend(proved(tmp_path).faults)

    proving = threading.Thread(target=prove)
    proving.start()
    try:
        compact_closed(tmp_path)
        log = open_log(tmp_path)
        for kept in range(1_000_000, 100_000, -50_000):
            upkeep = LogUpkeep(log, UpkeepOptions(keep_bytes=kept, compact=False), clock=ManualClock())
            upkeep.look()
            upkeep.close()
        log.close()
    finally:
        done.set()
        proving.join()
    assert faults == []
    assert proved(tmp_path).faults == []
