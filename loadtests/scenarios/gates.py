"""What gates take: a promotion that is evaluated on ten thousand rows, and memory over two gigabytes of them.

Two versions of a small classifier, the one in service and the one that shall take its place, answer every row in
processes of their own; accuracy, log loss and the area under the curve are held against limits and between the two, and
gaps between groups are counted.
"""

from __future__ import annotations

import asyncio
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy
from pyarrow import parquet

from gateway.control.local_control import LocalControl, open_control
from gateway.registry.registration import RegistrationOptions
from gateway.settings import load_settings
from loadtests.measurement import Figure, Outcome, Table
from loadtests.scenarios.rounds import Plan

__all__ = ["gates"]

FEATURES, SMALL = 256, 10_000
LARGE_BYTES, QUICK_BYTES = 2 << 30, 64 << 20
MUST_MB = 500.0
_STRETCH = 16_384
_MB = 1e6

MODEL = "fraud"
CODE = """
import numpy as np

SIGNATURE = {{"inputs": [{{"name": "x", "datatype": "FP32", "shape": ["batch", {features}]}}],
             "outputs": [{{"name": "label", "datatype": "INT64", "shape": ["batch"]}},
                         {{"name": "score", "datatype": "FP32", "shape": ["batch"]}}]}}


class Model:
    def predict(self, inputs):
        score = inputs["x"][:, 0] * np.float32({scale})
        return {{"label": (score > 0.5).astype(np.int64), "score": np.minimum(score, 1)}}
"""
Arrays = Mapping[str, np.ndarray[Any, Any]]


def gates(plan: Plan) -> Outcome:
    quick = plan.rounds == 1
    size = QUICK_BYTES if quick else LARGE_BYTES
    rows = size // (4 * FEATURES)
    files = {".npz": _npz, ".parquet": _parquet}
    figures, lines = list[Figure](), list[tuple[str, ...]]()
    small = plan.folder / "small.npz"
    _npz(small, SMALL)
    took = [asyncio.run(_promoted(plan.folder / f"small-{turn}", small))[0] for turn in range(min(3, plan.rounds))]
    figures.append(Figure(f"a promotion over {SMALL:,} rows", "from asking to the alias", tuple(took), "s", 10.0, 5.0))
    for suffix, write in files.items():
        path = plan.folder / f"large{suffix}"
        write(path, rows)
        written = path.stat().st_size
        seconds, held = asyncio.run(_promoted(plan.folder / f"large{suffix[1:]}", path))
        path.unlink()
        own, child = held["peak_bytes"] / _MB, held["largest_child_bytes"] / _MB
        work = f"{written / 1e9:.2f} GB of evaluation data, {suffix[1:]}, {rows:,} rows"
        figures.append(Figure(work, "memory of the run, all its processes", (own + 2 * child,), "MB", MUST_MB, 300.0))
        per_second = f"{rows / seconds:,.0f}"
        lines.append((suffix[1:], f"{written / 1e9:.2f}", f"{own:.0f}", f"{child:.0f}", f"{seconds:.0f}", per_second))
    table = Table(
        "Both versions answer each row; times include the check of the file's digest",
        ("format", "GB", "gates' process (MB)", "larger version's process (MB)", "took (s)", "rows/s"),
        tuple(lines),
    )
    return Outcome(tuple(figures), (table,), f"gates over {SMALL:,} rows and over {size / 1e9:.1f} GB of features")


async def _promoted(folder: Path, data: Path) -> tuple[float, Mapping[str, float]]:
    """Seconds of the second version's promotion, and what its run held."""
    async with open_control(load_settings(overrides={"home": folder / "home"})) as control:
        first, second = await _register(folder, control, 1.0), await _register(folder, control, 1.0001)
        await control.models.set_alias(MODEL, "champion", first, actor="bench")
        stored = await asyncio.to_thread(control.blobs.put_file, data)
        file = {"name": data.name, "digest": stored.digest, "size_bytes": stored.size_bytes}
        holdout = {"file": file, "label": "y", "prediction": "label", "score": "score", "groups": ["sex"]}
        asked: list[dict[str, Any]] = [
            {"kind": "metric", "metric": "accuracy", "at_least": 0.9},
            {"kind": "metric", "metric": "roc_auc", "at_least": 0.9},
            {"kind": "champion", "metric": "accuracy"},
            {"kind": "champion", "metric": "log_loss"},
            {"kind": "fairness", "group": "sex", "demographic_parity": 0.1},
        ]
        body = {"timeout_s": 7200.0, "data": {"h": holdout}, "gates": [{**gate, "data": "h"} for gate in asked]}
        await control.gates.declare(MODEL, body, actor="bench")
        began = time.monotonic()
        await control.models.set_alias(MODEL, "champion", second, actor="bench")
        took = time.monotonic() - began
        return took, (await control.gates.results(MODEL, str(second)))["report"]["machine"]


async def _register(folder: Path, control: LocalControl, scale: float) -> int:
    path = folder / f"model-{scale}.py"
    path.write_text(CODE.format(features=FEATURES, scale=scale))
    return int((await control.models.register(MODEL, path, RegistrationOptions(prove=False), actor="bench"))["version"])


def _stretches(rows: int) -> Iterator[Arrays]:
    rng = np.random.default_rng(11)
    for begin in range(0, rows, _STRETCH):
        x = rng.random((min(_STRETCH, rows - begin), FEATURES), dtype=np.float32)
        wrong = rng.random(len(x)) < 0.03
        yield {"x": x, "y": (x[:, 0] > 0.5).astype(np.int64) ^ wrong, "sex": (x[:, 1] > 0.5).astype(np.int64)}


def _npz(path: Path, rows: int) -> None:
    """As numpy.savez writes it, without holding it."""
    shapes: Mapping[str, tuple[tuple[int, ...], str]] = {
        "x": ((rows, FEATURES), "<f4"),
        "y": ((rows,), "<i8"),
        "sex": ((rows,), "<i8"),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, (shape, dtype) in shapes.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                npy.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
                for stretch in _stretches(rows):
                    file.write(np.ascontiguousarray(stretch[name]).tobytes())


def _parquet(path: Path, rows: int) -> None:
    """In row groups of a quarter of a million rows: a quarter of a gigabyte each."""
    fields = [*(pa.field(f"f{place}", pa.float32()) for place in range(FEATURES))]
    schema = pa.schema([*fields, pa.field("y", pa.int64()), pa.field("sex", pa.int64())])
    held, waiting = list[pa.RecordBatch](), 0
    with parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for stretch in _stretches(rows):
            columns = [*stretch["x"].T, stretch["y"], stretch["sex"]]
            held.append(pa.record_batch([np.ascontiguousarray(column) for column in columns], schema=schema))
            waiting += held[-1].num_rows
            if waiting >= 1 << 18:
                writer.write_table(pa.Table.from_batches(held), row_group_size=waiting)
                held, waiting = [], 0
        if held:
            writer.write_table(pa.Table.from_batches(held), row_group_size=waiting)
