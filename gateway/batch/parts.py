"""The folder of finished parts beside an output: what a batch goes on from when it was cut off.

A part counts only with its record, which holds its digest and is written after the part is on the disk. The output is
put in place by one rename, with everything in it, so whoever sees it sees all of it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from gateway.errors import Conflict
from gateway.registry.disk import explained, sync_folder, write_whole

__all__ = ["Part", "Parts", "sha256_of"]

_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """``first`` counts from 0. ``told``: whoever keeps records has taken its ones."""

    number: int
    first: int
    rows: int
    sha256: str
    size_bytes: int
    records: tuple[Sequence[Any], ...] = ()
    told: bool = False


class Parts:
    """A context: nobody else can have the same output's folder meanwhile. Raises Conflict when somebody has."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._folder = target.with_name(f".{target.name}.parts")
        self._lock: IO[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Parts of {self._target}>"

    def __enter__(self) -> Self:
        while self._lock is None:
            with explained(f"keep parts beside {self._target}"):
                self._lock = self._locked()
        return self

    def _locked(self) -> IO[bytes] | None:
        """None where the folder was removed meanwhile, by a batch that has just ended."""
        if self._folder.is_symlink():
            raise Conflict(f"{self._folder} is a link, and what lies there would be swept away; remove it")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = (self._folder / "lock").open("wb")
        except FileNotFoundError:
            if self._target.parent.is_dir():
                return None
            raise
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.fstat(lock.fileno())
            with suppress(FileNotFoundError):
                if os.path.samestat(held, (self._folder / "lock").stat()):
                    return lock
        except BlockingIOError:
            lock.close()
            raise Conflict(f"{self._target} is being written by another batch; wait for it, or cancel it") from None
        lock.close()
        return None

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is None:
            return
        if kind is not None and not any(self._folder.glob("part-*.json")):
            self.drop()  # there is nothing to go on from
        self._lock.close()

    def found(self, identity: str) -> list[Part]:
        """The parts of this identity that are whole, in order; whatever else lies there is removed."""
        state = self._folder / "state.json"
        with explained(f"read the parts beside {self._target}"):
            if _json(state).get("identity") != identity:
                self._sweep(keep=0)
                write_whole(state, json.dumps({"identity": identity}).encode())
                return []
            parts: list[Part] = []
            while (part := self._part(len(parts), sum(one.rows for one in parts))) is not None:
                parts.append(part)
            self._sweep(keep=len(parts))
        return parts

    def _part(self, number: int, first: int) -> Part | None:
        record = _json(self._record(number))
        try:
            part = Part(**{**record, "records": tuple(record["records"])})
            whole = part.first == first and sha256_of(self.path(number)) == part.sha256
        except (KeyError, TypeError, FileNotFoundError):
            return None
        return part if whole else None

    def _sweep(self, *, keep: int) -> None:
        kept = {f"part-{number:06d}{end}" for number in range(keep) for end in ("", ".json")} | {"lock", "state.json"}
        for path in self._folder.iterdir():
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def path(self, number: int) -> Path:
        return self._folder / f"part-{number:06d}"

    def _record(self, number: int) -> Path:
        return self._folder / f"part-{number:06d}.json"

    def add(
        self, number: int, first: int, rows: int, write: Callable[[IO[bytes]], None], records: Sequence[Sequence[Any]]
    ) -> Part:
        """Writes a part, and says so when it is on the disk."""
        path = self.path(number)
        with explained(f"write part {number} beside {self._target}", "what is finished stays, and is gone on from; "):
            with path.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            part = Part(number, first, rows, sha256_of(path), path.stat().st_size, tuple(records))
            self._keep(part)
        return part

    def mark_told(self, part: Part) -> None:
        with explained(f"keep the record of part {part.number}"):
            self._keep(replace(part, told=True, records=()))

    def _keep(self, part: Part) -> None:
        write_whole(self._record(part.number), json.dumps(asdict(part)).encode())

    def finish(
        self,
        parts: Sequence[Part],
        join: Callable[[Sequence[Path], Path], None],
        receipt: Callable[[str, int], Mapping[str, Any]],
        receipt_path: Path,
    ) -> Mapping[str, Any]:
        """Joins the parts, and puts the receipt and then the output in place; the folder is gone then. ``receipt`` is
        made of the output's SHA-256 and size."""
        whole = self._folder / "joined"
        with explained(f"write {self._target}", "what is finished stays, and is gone on from; "):
            join([self.path(part.number) for part in parts], whole)
            with whole.open("rb") as file:
                os.fsync(file.fileno())
            made = receipt(sha256_of(whole), whole.stat().st_size)
            write_whole(receipt_path, json.dumps(made, indent=1).encode())
            whole.replace(self._target)
            sync_folder(self._target.parent)
        self.drop()
        return made

    def drop(self) -> None:
        with suppress(OSError):
            shutil.rmtree(self._folder)


def sha256_of(path: Path, told: Callable[[int], None] | None = None) -> str:
    """In pieces; ``told`` of the bytes of each."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
            if told is not None:
                told(len(piece))
    return digest.hexdigest()


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
