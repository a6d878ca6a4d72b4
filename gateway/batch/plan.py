"""What a batch is to do: a version's bytes, a file of rows, a file for the answers, and how they belong together.

A plan and its input's digest have one identity. Parts that were finished under it are taken up again after a death,
and those of another are not: so a file that changed in between, or an alias that moved, never joins two half answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.errors import InvalidInput
from gateway.messages import Signature
from gateway.registry import canonical
from gateway.serving.engine import VersionSpec
from runtimes.base import LoadSpec

__all__ = ["DEFAULT_BATCH_ROWS", "FORMATS", "MISSING", "BatchOptions", "BatchPlan", "format_of", "plan_for"]

FORMATS: Mapping[str, str] = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".npz": "npz",
    ".npy": "npy",
}
MISSING = ("refuse", "nan")
DEFAULT_BATCH_ROWS = 256
PART_ROWS = 65_536
MOST_BATCH_ROWS = 1 << 20


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """``ids`` and ``key`` are columns carried through to the answers; with a ``key`` each row has a record of its own.
    ``columns``: those that make up the version's only input, in order. ``missing``: what a value that is not there
    becomes in an input of floats. ``overwrite``: an output that is there is replaced, in one step, at the end."""

    key: str | None = None
    ids: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    batch_rows: int | None = None
    missing: str = "refuse"
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.missing not in MISSING:
            raise InvalidInput(f"missing is {self.missing!r}; expected {' or '.join(MISSING)}")
        if self.batch_rows is not None and not 1 <= self.batch_rows <= MOST_BATCH_ROWS:
            raise InvalidInput(f"batch_rows is {self.batch_rows}; expected from 1 to {MOST_BATCH_ROWS}")
        twice = {name for name in self.carried if name in self.columns}
        if twice:
            raise InvalidInput(f"column {min(twice)!r} is both carried through and a feature; name it once")

    @property
    def carried(self) -> tuple[str, ...]:
        """The key first, then the others, each once."""
        return tuple(dict.fromkeys((*(() if self.key is None else (self.key,)), *self.ids)))


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """``version`` as people write it, ``fraud/3``; ``digest`` is its manifest's. ``batch_rows``: rows that the version
    is given at once, the last of the file but for. ``told``: whoever started it takes each part's records.
    ``part_rows``: rows of a part, about; fewer where they are large. ``priority``: ``idle``, ``nice`` or ``normal``."""

    version: str
    digest: str
    load: LoadSpec
    signature: Signature
    source: Path
    target: Path
    batch_rows: int
    interpreter: str | None = None
    retry: bool = True
    timeout_s: float = 120.0
    options: BatchOptions = field(default_factory=BatchOptions)
    told: bool = False
    part_rows: int = PART_ROWS
    priority: str = "idle"

    def identity(self, input_sha256: str) -> str:
        """Of what would make other answers, or the same in another form."""
        options = self.options
        return hashlib.sha256(
            canonical.dumps(
                {
                    "schema": 1,
                    "version": self.digest,
                    "input": input_sha256,
                    "format": format_of(self.target),
                    "batch_rows": self.batch_rows,
                    "part_rows": self.part_rows,
                    "key": options.key,
                    "ids": list(options.ids),
                    "columns": list(options.columns),
                    "missing": options.missing,
                }
            )
        ).hexdigest()

    def to_json(self) -> dict[str, Any]:
        options = self.options
        return {
            "version": self.version,
            "digest": self.digest,
            "load": self.load.to_json(),
            "signature": self.signature.to_json(),
            "source": str(self.source),
            "target": str(self.target),
            "batch_rows": self.batch_rows,
            "interpreter": self.interpreter,
            "retry": self.retry,
            "timeout_s": self.timeout_s,
            "told": self.told,
            "part_rows": self.part_rows,
            "priority": self.priority,
            "options": {
                "key": options.key,
                "ids": list(options.ids),
                "columns": list(options.columns),
                "batch_rows": options.batch_rows,
                "missing": options.missing,
                "overwrite": options.overwrite,
            },
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> BatchPlan:
        options = dict(body["options"])
        options |= {name: tuple(options[name]) for name in ("ids", "columns")}
        return cls(
            version=body["version"],
            digest=body["digest"],
            load=LoadSpec.from_json(body["load"]),
            signature=Signature.from_json(body["signature"]),
            source=Path(body["source"]),
            target=Path(body["target"]),
            batch_rows=body["batch_rows"],
            interpreter=body["interpreter"],
            retry=body["retry"],
            timeout_s=body["timeout_s"],
            told=body["told"],
            part_rows=body["part_rows"],
            priority=body["priority"],
            options=BatchOptions(**options),
        )


def plan_for(
    spec: VersionSpec,
    source: Path,
    target: Path,
    options: BatchOptions,
    *,
    told: bool = False,
    timeout_s: float = 120.0,
) -> BatchPlan:
    """``spec`` is what serving would run. Without a number of rows the version is given no more at once than online.
    Raises InvalidInput for files that no batch reads or writes."""
    signature = spec.load.signature
    if signature is None:
        raise InvalidInput(f"{spec.ref} has no signature, so no file's columns can be its inputs; register it again")
    for path in (source, target):
        format_of(path)
    if source.resolve() == target.resolve():
        raise InvalidInput(f"{target}: the answers would replace the rows; name another output")
    rows = options.batch_rows or min(DEFAULT_BATCH_ROWS, spec.batch.max_rows)
    return BatchPlan(
        version=str(spec.ref),
        digest=spec.digest,
        load=spec.load,
        signature=signature,
        source=source,
        target=target,
        batch_rows=rows if signature.batched else 1,
        interpreter=spec.interpreter,
        retry=spec.retry,
        timeout_s=timeout_s,
        options=options,
        told=told,
    )


def format_of(path: Path) -> str:
    """By the end of the name. Raises InvalidInput."""
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise InvalidInput(f"{path}: expected a file of {', '.join(FORMATS)}") from None
