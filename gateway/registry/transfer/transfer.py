"""Sends versions from one store to another: what the other lacks, several files at once.

It may be cut off anywhere. What has arrived counts, file by file; the next run sends the rest. A version can be found
at the target once its files, then its manifest, then its record are there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from gateway.errors import IntegrityError, NotFound, RegistryError, TurnoutError
from gateway.registry.manifest import Manifest
from gateway.registry.transfer.ends import End, Piece
from gateway.registry.transfer.records import VersionRecord

__all__ = ["Progress", "Refused", "TransferReport", "transfer"]

Progress = Callable[[int, int], None]
Refused = Callable[[VersionRecord, TurnoutError], None]
"""Told a version that is left out: something of its own is missing, damaged or false."""

_OF_ONE = (IntegrityError, NotFound)
"""Faults of one version's bytes; any other is the store's, and ends the transfer."""


@dataclass(slots=True)
class TransferReport:
    """What was sent, and what was there already."""

    versions: int = 0
    files: int = 0
    bytes: int = 0
    files_there: int = 0
    bytes_there: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "versions": self.versions,
            "files": self.files,
            "bytes": self.bytes,
            "files_there": self.files_there,
            "bytes_there": self.bytes_there,
        }


@dataclass(slots=True)
class _Shipment:
    """One version; ``missing`` are its blobs that have not arrived."""

    record: VersionRecord
    manifest: bytes
    blobs: dict[str, int]
    missing: set[str] = field(default_factory=set)


class _Count:
    """Bytes of all files together, told as one number."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total = total
        self._progress = progress
        self._lock = threading.Lock()
        self._done: dict[str, int] = {}

    def told(self, digest: str, done: int) -> None:
        with self._lock:
            self._done[digest] = max(self._done.get(digest, 0), done)
            if self._progress is not None:
                self._progress(min(self._total, sum(self._done.values())), self._total)


def transfer(
    source: End,
    target: End,
    records: Sequence[VersionRecord],
    *,
    parallel: int = 8,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    refused: Refused | None = None,
) -> TransferReport:
    """Raises the first failure when what was under way has ended; what has arrived by then stays, and is noted. A
    failure that is one version's own goes to ``refused`` where it is given, and the others go on. Once ``stop`` is set
    no further file is begun."""
    report = TransferReport()
    with ThreadPoolExecutor(parallel, thread_name_prefix="turnout-transfer") as pool:
        shipments = _shipments(source, records, pool, refused)
        wanted = {digest: size for shipment in shipments for digest, size in shipment.blobs.items()}
        there = target.holds(list(wanted.items()))
        report.files_there, report.bytes_there = len(there), sum(wanted[digest] for digest in there)
        todo = {digest: size for digest, size in wanted.items() if digest not in there}
        count = _Count(sum(todo.values()), progress)
        for shipment in shipments:
            shipment.missing = shipment.blobs.keys() & todo.keys()

        def send(digest: str, size: int) -> None:
            if stop is not None and stop.is_set():
                raise RegistryError("the transfer was stopped; what has arrived stays, and the next one sends the rest")
            _send(source, target, digest, size, count)

        work = {pool.submit(send, digest, size): digest for digest, size in todo.items()}
        _finish(target, shipments, report)
        _settle(target, shipments, work, todo, report, refused=refused)
        for digest in there - target.still({(digest, wanted[digest]) for digest in there}):
            _send(source, target, digest, wanted[digest], count)  # it was garbage there, and somebody swept
            report.files, report.files_there = report.files + 1, report.files_there - 1
    return report


def _settle(
    target: End,
    shipments: list[_Shipment],
    work: dict[Future[None], str],
    sizes: dict[str, int],
    report: TransferReport,
    *,
    refused: Refused | None,
) -> None:
    """Notes versions as they become whole. After a failure nothing is begun but for versions that it leaves alone."""
    pending: set[Future[None]] = set(work)
    while pending:
        done, pending = wait(pending, return_when=FIRST_EXCEPTION, timeout=1.0)
        failed = [future for future in done if not future.cancelled() and future.exception() is not None]
        for future in done - set(failed):
            if not future.cancelled():
                report.files += 1
                report.bytes += sizes[work[future]]
                for shipment in shipments:
                    shipment.missing.discard(work[future])
        _finish(target, shipments, report)
        for future in failed:
            error = future.exception()
            if refused is None or not isinstance(error, _OF_ONE):
                _cancel(pending)
                future.result()
            else:
                _leave_out(work[future], error, shipments, refused)
        if failed:
            needed = {digest for shipment in shipments for digest in shipment.missing}
            for future in pending:
                if work[future] not in needed:
                    future.cancel()


def _cancel(pending: set[Future[None]]) -> None:
    """Returns when what was under way has ended."""
    for future in pending:
        future.cancel()
    wait(pending)


def _leave_out(digest: str, error: TurnoutError, shipments: list[_Shipment], refused: Refused) -> None:
    for shipment in [one for one in shipments if digest in one.missing]:
        shipments.remove(shipment)
        refused(shipment.record, error)


def _finish(target: End, shipments: list[_Shipment], report: TransferReport) -> None:
    for shipment in [one for one in shipments if not one.missing]:
        digest, data = shipment.record.digest, shipment.manifest
        if not target.holds([(digest, len(data))]):
            target.take(Piece(digest, len(data), lambda data=data: iter([data])), lambda _: None)  # type: ignore[misc]
        target.note(shipment.record)
        report.versions += 1
        shipments.remove(shipment)


def _shipments(
    source: End, records: Sequence[VersionRecord], pool: ThreadPoolExecutor, refused: Refused | None
) -> list[_Shipment]:
    found = []
    for record, made in [(record, pool.submit(_shipment, source, record)) for record in records]:
        try:
            found.append(made.result())
        except _OF_ONE as error:
            if refused is None:
                raise
            refused(record, error)
    return found


def _shipment(source: End, record: VersionRecord) -> _Shipment:
    data = source.read(record.digest)
    try:
        manifest = Manifest.from_bytes(data)
    except RegistryError as error:
        raise IntegrityError(f"the manifest of {record} in {source.where} ({record.digest}): {error}") from error
    if manifest.model != record.model:  # what a model may do (load pickles) is settled by its name
        raise IntegrityError(
            f"{source.where} calls {record.digest} a version of {record.model}, and its manifest is of "
            f"{manifest.model}: somebody moved it there. It is not taken; remove {record.name}"
        )
    blobs = {digest: size for _, digest, size in manifest.blobs()}
    for digest in record.beside - blobs.keys():
        blobs[digest] = len(source.read(digest))
    return _Shipment(record, data, blobs)


def _send(source: End, target: End, digest: str, size: int, count: _Count) -> None:
    with source.give(digest, size) as piece:
        target.take(piece, lambda done: count.told(digest, done))
    count.told(digest, size)
