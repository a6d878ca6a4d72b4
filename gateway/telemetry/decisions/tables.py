"""Reads compacted segments: the rows of one decision, the newest that fit a question, and what the control rows say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gateway.telemetry.decisions.fields import COLUMNS, PLACE
from gateway.telemetry.decisions.found import Hit, Question
from gateway.telemetry.decisions.parquet import rows_of

__all__ = ["ParquetTables"]

_ALL = ["sequence", *COLUMNS, "control"]
_ASKED = ["decision", "started", "route", "version", "answered", "code", "control"]
_DECISION = 1
"""The place of the column in the file, whose order is ``SCHEMA``'s."""


class ParquetTables:
    """Nothing is kept open. Raises OSError, and ValueError for a file that cannot be read as what it should be."""

    def span(self, path: Path) -> tuple[str, str] | None:
        """Least and greatest decision id; None: it has no decisions."""
        with _opened(path) as file:
            spans = [span for group in range(file.num_row_groups) if (span := _span(file, group)) is not None]
        return (min(low for low, _ in spans), max(high for _, high in spans)) if spans else None

    def find(self, path: Path, decision: str) -> Sequence[Hit]:
        found: list[Hit] = []
        with _opened(path) as file:
            for group in range(file.num_row_groups):
                span = _span(file, group)
                if span is not None and span[0] <= decision <= span[1]:
                    table = file.read_row_group(group, columns=_ALL, use_threads=False)
                    found += _hits(table.filter(pc.equal(table["decision"], decision)))
        return found

    def requested(self, path: Path, request: str) -> Sequence[str]:
        """The decisions of a request id, without a file of hashes."""
        with _opened(path) as file:
            table = file.read(columns=["request", "decision"], use_threads=False)
            kept: list[str] = table.filter(pc.equal(table["request"], request))["decision"].to_pylist()
        return kept

    def newest(self, path: Path, question: Question, limit: int) -> Sequence[Hit]:
        """At most ``limit``, in descending order of decision ids."""
        found: list[Hit] = []
        with _opened(path) as file:
            for group in reversed(range(file.num_row_groups)):
                span = _span(file, group)
                if span is None or (question.below is not None and span[0] >= question.below):
                    continue
                narrow = file.read_row_group(group, columns=_ASKED, use_threads=False)
                places = pc.indices_nonzero(_mask(narrow, question))
                if not len(places):
                    continue
                table = file.read_row_group(group, columns=_ALL, use_threads=False)
                chosen = table.take(places[-(limit - len(found)) :])
                found += reversed(list(_hits(chosen)))
                if len(found) >= limit:
                    break
        return found

    def controls(self, path: Path) -> Sequence[tuple[int, str]]:
        """Places and texts of control records, but for those about one decision, in the chain's order."""
        texts: list[tuple[int, str]] = []
        with _opened(path) as file:
            groups = [group for group in range(file.num_row_groups) if _nameless(file, group)]
            columns = ["sequence", "decision", "control"]
            for batch in file.iter_batches(row_groups=groups, columns=columns, use_threads=False):
                kept = batch.filter(pc.and_(pc.is_valid(batch.column("control")), pc.is_null(batch.column("decision"))))
                texts += zip(kept.column("sequence").to_pylist(), kept.column("control").to_pylist(), strict=True)
        return sorted(texts)


class _opened:  # noqa: N801 (read as a function)
    """pyarrow's errors, as ValueError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> pq.ParquetFile:
        try:
            self._file = pq.ParquetFile(self._path, memory_map=False)
        except pa.ArrowException as error:
            raise ValueError(f"{self._path.name} cannot be read: {error}") from None
        return self._file

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._file.close()
        if isinstance(error, pa.ArrowException) and not isinstance(error, ValueError | OSError):
            raise ValueError(f"{self._path.name} cannot be read: {error}") from None


def _span(file: pq.ParquetFile, group: int) -> tuple[str, str] | None:
    statistics: Any = file.metadata.row_group(group).column(_DECISION).statistics
    if statistics is None or not statistics.has_min_max:
        return None
    return _text(statistics.min), _text(statistics.max)


def _nameless(file: pq.ParquetFile, group: int) -> bool:
    """Whether it has rows of no decision: they stand at the file's end."""
    statistics: Any = file.metadata.row_group(group).column(_DECISION).statistics
    return statistics is None or not statistics.has_null_count or statistics.null_count > 0


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _mask(table: pa.Table, question: Question) -> pa.ChunkedArray:
    """Where nothing is known, nothing is taken."""
    mask = pc.is_null(table["control"])
    asked: list[tuple[str, str, Any]] = [
        ("equal", "route", question.route),
        ("equal", "code", question.code),
        ("greater_equal", "started", question.since),
        ("less", "started", question.until),
        ("less", "decision", question.below),
    ]
    started = table["started"].cast(pa.int64())
    for comparison, name, value in asked:
        if value is not None:
            column = started if name == "started" else table[name]
            mask = pc.and_kleene(mask, pc.call_function(comparison, [column, pa.scalar(value)]))
    if question.version is not None:
        version = pa.scalar(question.version)
        either = pc.or_kleene(pc.equal(table["version"], version), pc.equal(table["answered"], version))
        mask = pc.and_kleene(mask, either)
    return pc.fill_null(mask, fill_value=False)


def _hits(table: pa.Table) -> Iterator[Hit]:
    for batch in table.to_batches():
        controls = batch.column("control").to_pylist()
        sequences = batch.column("sequence").to_pylist()
        for sequence, control, line in zip(sequences, controls, rows_of(batch), strict=True):
            yield Hit(sequence, line[PLACE["decision"]], line if control is None else None, control)
