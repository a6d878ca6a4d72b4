"""A version in a home, and batches of rows for it: a Python model whose answers tell what it was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gateway.batch.parts import Part
from gateway.batch.plan import PART_ROWS, BatchOptions, BatchPlan, plan_for
from gateway.control.assembly import Assembly
from gateway.messages import VersionRef
from gateway.registry.blobs import BlobStore
from gateway.registry.registration import RegistrationOptions, prepare
from gateway.settings import RuntimeSettings

SUMS = """
SIGNATURE = {"inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 4]}],
             "outputs": [{"name": "total", "datatype": "FP64", "shape": ["batch"]},
                         {"name": "share", "datatype": "FP32", "shape": ["batch", 2]}]}

class Model:
    def predict(self, inputs):
        x = inputs["x"]
        if (x == 666).any():
            raise ValueError("the number of the beast")
        if (x == 13).any():
            import os
            os._exit(13)
        # What a row gets depends on how many came with it: batches of other sizes would be seen.
        return {"total": x.astype("f8").sum(axis=1) / len(x), "share": x[:, :2] / 3}
"""


def version(folder: Path, source: str = SUMS, *, model: str = "sums", **options: Any) -> tuple[BlobStore, str]:
    """The blobs of a home, and the digest of a version there."""
    blobs = BlobStore(folder / "home")
    path = folder / f"{model}.py"
    path.write_text(source)
    manifest = prepare(model, path, RegistrationOptions(prove=False, **options), blobs)
    return blobs, manifest.digest


def plan(
    made: tuple[BlobStore, str],
    source: Path,
    target: Path,
    *,
    told: bool = False,
    part_rows: int = PART_ROWS,
    priority: str = "normal",
    **asked: Any,
) -> BatchPlan:
    blobs, digest = made
    spec = Assembly(blobs, RuntimeSettings()).spec(VersionRef("sums", 1), digest)
    made_of = plan_for(spec, source, target, BatchOptions(**asked), told=told, timeout_s=200.0)
    return replace(made_of, part_rows=part_rows, priority=priority)


def numbers(rows: int, columns: int = 4, *, seed: int = 1) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype("f4")


class Heard:
    """A listener that keeps what it hears. One that dies does so when so many parts that were not there before are on
    the disk, as a process would: nothing of ours catches it."""

    def __init__(self, *, dies_after: int = 0) -> None:
        self.parts: list[Part] = []
        self.began_at: tuple[int, int | None, int] = (0, None, 0)
        self.done: list[int] = []
        self._left = dies_after

    def began(self, done: int, total: int | None, batch_rows: int) -> None:
        self.began_at = (done, total, batch_rows)

    def answered(self, done: int) -> None:
        self.done.append(done)

    def part(self, part: Part) -> None:
        self.parts.append(part)
        if part.first >= self.began_at[0]:
            self._left -= 1
            if self._left == 0:
                raise KeyboardInterrupt


def answers(x: np.ndarray[Any, Any], batch_rows: int) -> Mapping[str, np.ndarray[Any, Any]]:
    """What ``SUMS`` gives for the rows in such batches."""
    pieces: Sequence[np.ndarray[Any, Any]] = [x[at : at + batch_rows] for at in range(0, len(x), batch_rows)]
    totals = [piece.astype("f8").sum(axis=1) / len(piece) for piece in pieces]
    return {"total": np.concatenate(totals), "share": x[:, :2] / 3}
