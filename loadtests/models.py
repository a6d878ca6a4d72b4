"""The models of the benchmarks, made on the spot: a few lines of ONNX or torch each, weights from a fixed seed.

``tiny``   4 → 3, one matrix: nearly nothing to compute, so the rest shows
``mlp``    784-1024-1024-10
``image``  3x224x224 floats, averaged over each channel: a large input, little to compute
``cnn``    a small convolutional network in torch, 3x64x64 → 10
``big``    a table of 500 MB, of which a request reads one row
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import orjson
from onnx import TensorProto, helper, numpy_helper

from loadtests.measurement import COUNT, Ask

__all__ = ["CNN", "IMAGE", "MLP", "STEP", "TINY", "Model", "make_big", "make_model", "make_reference"]

BIG_BYTES = 500_000_000
_BIG_WIDTH = 64
_REFERENCE_ROWS = 2000


@dataclass(frozen=True, slots=True)
class Model:
    """``shape``: one row's input. ``datatype`` of input ``x`` is FP32."""

    name: str
    shape: tuple[int, ...]
    suffix: str = ".onnx"

    def rows(self, count: int = 1) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.random.default_rng(11).random((count, *self.shape), dtype=np.float32)

    def json(self, count: int = 1, *, route: str | None = None, **more: Any) -> Ask:
        """Eight decimals, what a float32 needs: 150,528 numbers are 1.65 MB. ``more``: further fields of the body."""
        rows = self.rows(count).astype(np.float64).round(8).tolist()
        return Ask(f"/predict/{route or self.name}", orjson.dumps({"inputs": rows, **more}))

    def counted_json(self, *, route: str | None = None) -> Ask:
        """A row whose first number no other request has."""
        ask = self.json(route=route)
        before, _, after = ask.body.partition(b"[[")
        _, comma, rest = after.partition(b",")
        return Ask(ask.path, before + b"[[" + COUNT + comma + rest)

    def binary(self, count: int = 1) -> Ask:
        """The Open Inference Protocol with its binary tensor extension, both ways."""
        rows = self.rows(count)
        tensor = {
            "name": "x",
            "shape": list(rows.shape),
            "datatype": "FP32",
            "parameters": {"binary_data_size": rows.nbytes},
        }
        head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
        headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
        return Ask(f"/v2/models/{self.name}/infer", head + rows.tobytes(), headers)


TINY = Model("tiny", (4,))
MLP = Model("mlp", (784,))
IMAGE = Model("image", (3, 224, 224))
CNN = Model("cnn", (3, 64, 64), ".pt2")
STEP = Model("step", (4,), ".echo.json")
"""The shipped echo runtime with a fixed delay for each batch, whatever its size."""


def make_model(model: Model, folder: Path) -> Path:
    """Writes the model's file; the same bytes each time."""
    path = folder / f"{model.name}{model.suffix}"
    if path.exists():
        return path
    if model == TINY:
        _save(path, *_layers([4, 3]), (4,), (3,))
    elif model == MLP:
        _save(path, *_layers([784, 1024, 1024, 10]), (784,), (10,))
    elif model == IMAGE:
        pooled = helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)
        _save(path, [pooled], [], IMAGE.shape, (3,))
    elif model == CNN:
        _save_cnn(path)
    elif model == STEP:
        path.write_bytes(orjson.dumps({"delay_ms": 20}))
    else:
        raise ValueError(f"no recipe for model {model.name!r}; see loadtests/models.py")
    return path


def make_reference(model: Model, folder: Path) -> Path:
    """Rows that drift is measured against."""
    path = folder / f"{model.name}-reference.npy"
    if not path.exists():
        np.save(path, model.rows(_REFERENCE_ROWS))
    return path


def make_big(path: Path, *, size_bytes: int = BIG_BYTES, seed: int = 0) -> Path:
    """A version of ``size_bytes`` whose requests stay cheap: it looks one row up."""
    rows = size_bytes // 4 // _BIG_WIDTH
    table = np.random.default_rng(seed).random((rows, _BIG_WIDTH), dtype=np.float32)
    first = numpy_helper.from_array(np.array([0], np.int64), "first")
    nodes = [
        helper.make_node("Cast", ["x"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["index", "first"], ["row"], axis=1),
        helper.make_node("Squeeze", ["row", "axis"], ["flat"]),
        helper.make_node("Gather", ["table", "flat"], ["y"], axis=0),
    ]
    axis = numpy_helper.from_array(np.array([1], np.int64), "axis")
    _save(path, nodes, [numpy_helper.from_array(table, "table"), first, axis], (4,), (_BIG_WIDTH,))
    return path


def _layers(widths: Sequence[int]) -> tuple[list[Any], list[Any]]:
    random = np.random.default_rng(3)
    nodes, weights, last = [], [], len(widths) - 2
    for index, (width, following) in enumerate(itertools.pairwise(widths)):
        matrix = random.standard_normal((width, following), dtype=np.float32) / np.sqrt(width, dtype=np.float32)
        weights.append(numpy_helper.from_array(matrix, f"w{index}"))
        weights.append(numpy_helper.from_array(np.zeros(following, np.float32), f"b{index}"))
        source = "x" if index == 0 else f"h{index}"
        target = "y" if index == last else f"g{index}"
        nodes.append(helper.make_node("Gemm", [source, f"w{index}", f"b{index}"], [target]))
        if index != last:
            nodes.append(helper.make_node("Relu", [target], [f"h{index + 1}"]))
    return nodes, weights


def _save(path: Path, nodes: list[Any], weights: list[Any], shape: tuple[int, ...], answer: tuple[int, ...]) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", *answer])
    graph = helper.make_graph(nodes, path.stem, [x], [y], weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(proto, path)


def _save_cnn(path: Path) -> None:
    import torch  # noqa: PLC0415  (a second and 200 MB that only this model needs)

    torch.manual_seed(5)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(32, 10),
    ).eval()

    class Named(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"y": self.network(x)}

    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.export.export(Named(), (torch.zeros(2, *CNN.shape),), dynamic_shapes={"x": {0: batch}})
    torch.export.save(program, path)
