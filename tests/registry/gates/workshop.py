"""A home with versions of a small classifier, whose faults are known, and gates over data that says so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from gateway.control.local_control import LocalControl, open_control
from gateway.registry.gates.named_files import named_files
from gateway.registry.registration import RegistrationOptions
from gateway.settings import load_settings

MODEL = "fraud"

CODE = '''
import time
import numpy as np

SIGNATURE = {{"inputs": [{{"name": "x", "datatype": "FP32", "shape": ["batch", {width}]}}],
             "outputs": [{{"name": "label", "datatype": "INT64", "shape": ["batch"]}},
                         {{"name": "score", "datatype": "FP32", "shape": ["batch"]}}]}}


class Model:
    """Right wherever x1 is at least ``wrong``; waits, and holds, what it is told to."""

    def __init__(self, files):
        self.held = np.ones({held_mb} * 125000)

    def predict(self, inputs):
        time.sleep({delay_s})
        x = inputs["x"]
        {more}
        said = np.where(x[:, 1] < {wrong}, 1 - x[:, 0], x[:, 0])
        return {{"label": (said > 0.5).astype(np.int64), "score": said + np.float32({shift})}}
'''


@dataclass(frozen=True)
class Workshop:
    """``register`` gives the version's number."""

    control: LocalControl
    folder: Path

    async def register(self, **traits: Any) -> int:
        held = {"width": 4, "wrong": 0.0, "delay_s": 0.0, "held_mb": 0, "shift": 0.0, "more": "pass", "golden": None}
        held |= traits
        name = "-".join(str(value) for value in traits.values() if not isinstance(value, Path)).replace("/", "_")
        path = self.folder / f"model-{abs(hash(name))}.py"
        path.write_text(CODE.format(**held))
        example = self.folder / "example.json"
        example.write_text('{"inputs": [[0.9, 0.9, 0.1, 0.5]]}')
        # Not tried at registration: that is a process more each, and faults are the gates' to find.
        options = RegistrationOptions(
            signature=_signature(self.folder, held["width"]),
            example=example if held["width"] == 4 else None,
            golden=held["golden"],
            prove=False,
        )
        made = await self.control.models.register(MODEL, path, options, actor="olga")
        return int(made["version"])

    async def declare(self, gates: Sequence[Mapping[str, Any]], **more: Any) -> Mapping[str, Any]:
        """Files are named by their paths."""
        body: dict[str, Any] = {"gates": [dict(gate) for gate in gates], **more}
        for place, _ in named_files(body):
            path = Path(place["file"])
            stored = self.control.blobs.put_file(path)
            place["file"] = {"name": path.name, "digest": stored.digest, "size_bytes": stored.size_bytes}
        return await self.control.gates.declare(MODEL, body, actor="anna")

    async def run(self, version: int, **more: Any) -> Mapping[str, Any]:
        return await self.control.gates.run(MODEL, str(version), actor="olga", **more)

    async def promote(self, version: int, **more: Any) -> Mapping[str, Any]:
        return await self.control.models.set_alias(MODEL, "champion", version, actor="olga", **more)

    async def audited(self, action: str) -> list[Mapping[str, Any]]:
        return [row for row in await self.control.audit() if row["action"] == action]


@asynccontextmanager
async def workshop(folder: Path, **settings_of: Any) -> AsyncIterator[Workshop]:
    settings = load_settings(overrides={"home": folder / "home", **settings_of})
    async with open_control(settings) as control:
        yield Workshop(control, folder)


def finding(view: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(one for one in view["report"]["gates"] if one["kind"] == kind)
    return found


def holdout(rows: int = 10_000, seed: int = 7) -> dict[str, Any]:
    """``x``, the truth ``y``, and a group that the truth has nothing to do with."""
    x = np.random.default_rng(seed).random((rows, 4)).astype(np.float32)
    return {"x": x, "y": (x[:, 0] > 0.5).astype(np.int64), "sex": np.where(x[:, 2] < 0.4, "f", "m")}


def holdout_file(path: Path, rows: int = 10_000) -> Path:
    """As the suffix says."""
    data = holdout(rows)
    if path.suffix == ".npz":
        np.savez(
            path, **{name: array.astype("S") if array.dtype.kind == "U" else array for name, array in data.items()}
        )
    elif path.suffix == ".csv":
        lines = ["a,b,c,d,y,sex"]
        lines += [
            f"{','.join(repr(float(value)) for value in row)},{truth},{sex}"
            for row, truth, sex in zip(data["x"], data["y"], data["sex"], strict=True)
        ]
        path.write_text("\n".join(lines))
    else:
        columns = {name: data["x"][:, place] for place, name in enumerate("abcd")}
        table = pa.table({**columns, "y": data["y"], "sex": data["sex"]})
        parquet.write_table(table, path)
    return path


def _signature(folder: Path, width: int) -> Path:
    path = folder / "signature.json"
    path.write_text(
        f'{{"inputs": [{{"name": "x", "datatype": "FP32", "shape": ["batch", {width}]}}], "outputs": ['
        '{"name": "label", "datatype": "INT64", "shape": ["batch"]}, '
        '{"name": "score", "datatype": "FP32", "shape": ["batch"]}]}'
    )
    return path
