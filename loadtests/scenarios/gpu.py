"""A model that keeps a GPU busy: the gateway's throughput over that of a loop without one, on the same device.

The model is a tower of convolutions, 3x64x64 floats in and some 20 GFLOP a row: a request's bytes are then few beside
its work, so that the device is what is full, not the web. It is served from torch and from ONNX. The loop is in a
process of its own and copies its batches to the device and the answers back, as the gateway must; it is given the batch
size at which it does best. ``python -m loadtests.scenarios.gpu FILE DEVICE SECONDS`` is that loop.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from loadtests.cores import shared
from loadtests.measurement import Figure, Outcome, Skipped
from loadtests.models import Model
from loadtests.scenarios.rounds import Plan, value_table
from loadtests.servers import Server, start_gateway

__all__ = ["Tower", "compare", "gpu"]

SIZES = (1, 4, 16, 32, 64, 128)
_ROWS = 8
"""Of a request: 400 KB."""
_CLIENTS = 64


@dataclass(frozen=True, slots=True)
class Tower:
    """``depth`` convolutions of ``width`` channels on 16x16."""

    width: int = 512
    depth: int = 16

    def weights(self) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
        random = np.random.default_rng(7)
        widths = [(3, self.width, 4), *[(self.width, self.width, 3)] * self.depth]
        scaled = [
            random.standard_normal((out, into, size, size), dtype=np.float32)
            * np.float32((2 / (into * size * size)) ** 0.5)
            for into, out, size in widths
        ]
        return [*scaled, random.standard_normal((10, self.width), dtype=np.float32)]


def gpu(plan: Plan) -> Outcome:
    """Skipped where there is no GPU, or no runtime that can use it."""
    torch_on, onnx_on = _finds("torch"), _finds("onnxruntime")
    if not torch_on and not onnx_on:
        raise Skipped("neither torch nor ONNX Runtime finds a CUDA device here")
    suffixes = [suffix for suffix, found in ((".pt2", torch_on), (".onnx", onnx_on)) if found]
    return compare(plan, "cuda:0", Tower(), suffixes)


def _finds(vendor: str) -> bool:
    """Asked in a process of its own, which gives back what that takes of the device."""
    questions = {
        "torch": "import torch; print(torch.cuda.is_available())",
        "onnxruntime": "import onnxruntime as o; print('CUDAExecutionProvider' in o.get_available_providers())",
    }
    asked = subprocess.run([sys.executable, "-c", questions[vendor]], capture_output=True, text=True, check=False)
    return asked.stdout.strip() == "True"


def compare(plan: Plan, device: str, tower: Tower, suffixes: list[str], sizes: tuple[int, ...] = SIZES) -> Outcome:
    """On any device, so that it can be tried without a GPU."""
    figures, tables = [], []
    for suffix in suffixes:
        model = Model(f"tower-{suffix[1:]}", (3, 64, 64), suffix)
        folder = plan.folder / model.name
        folder.mkdir()
        path = _make(tower, folder / f"{model.name}{suffix}")
        shares, rows, failed = [], [], 0
        settings = {"runtimes": {"preload": ["torch", "onnx"], "device": device, "load_timeout_s": 600.0}}
        with start_gateway(folder, model.name, shared(), settings=settings) as live:
            options = {"max_rows": max(sizes)}
            version = live.register(model.name, path, **options)
            live.put_route(model.name, {"model": model.name, "split": [{"version": version, "weight": 100}]})
            server = Server("process", live.pid, live.port, shared())
            for number in range(plan.rounds):
                best, at = _offline(path, device, plan.seconds, sizes)
                sample = server.closed(model.binary(_ROWS), clients=_CLIENTS, seconds=plan.seconds)
                reached = sample.per_second * _ROWS
                shares.append(reached / best)
                failed += int(sample.errors)
                rows.append((number + 1, best, at, reached, sample.p50_ms, sample.p99_ms))
        work = f"`{model.name}` on {device}, {_CLIENTS} clients with {_ROWS} rows each"
        name = "rows a second over an offline loop's at its best batch size"
        figures.append(Figure(work, name, tuple(shares), must=0.85, aim=0.95, at_least=True, errors=failed))
        head = ("round", "offline rows/s", "at rows a batch", "gateway rows/s", "p50 ms", "p99 ms")
        tables.append(value_table(work, head, rows))
    return Outcome(tuple(figures), tuple(tables))


def _offline(path: Path, device: str, seconds: float, sizes: tuple[int, ...]) -> tuple[float, int]:
    """Rows a second, and the batch size that gave them."""
    command = [sys.executable, "-m", "loadtests.scenarios.gpu", str(path), device, str(seconds)]
    asked = subprocess.run([*command, *map(str, sizes)], capture_output=True, text=True, check=True)
    found = {int(size): float(rate) for size, rate in json.loads(asked.stdout).items()}
    best = max(found, key=lambda size: found[size])
    return found[best], best


def _make(tower: Tower, path: Path) -> Path:
    if path.suffix == ".onnx":
        onnx.save(_onnx(tower), path)
    else:
        _save_torch(tower, path)
    return path


def _onnx(tower: Tower) -> Any:
    *kernels, last = tower.weights()
    nodes, held, before = [], [], "x"
    for index, kernel in enumerate(kernels):
        held.append(numpy_helper.from_array(kernel, f"w{index}"))
        stem = {"strides": [4, 4]} if index == 0 else {"pads": [1, 1, 1, 1]}
        nodes.append(helper.make_node("Conv", [before, f"w{index}"], [f"c{index}"], **stem))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        before = f"r{index}"
    held.append(numpy_helper.from_array(last, "last"))
    nodes.append(helper.make_node("ReduceMean", [before], ["pooled"], axes=[2, 3], keepdims=0))
    nodes.append(helper.make_node("Gemm", ["pooled", "last"], ["y"], transB=1))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 64, 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])
    graph = helper.make_graph(nodes, "tower", [x], [y], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _save_torch(tower: Tower, path: Path) -> None:
    import torch  # noqa: PLC0415  (a second and 200 MB that only this model needs)

    *kernels, last = (torch.from_numpy(array) for array in tower.weights())

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernels = torch.nn.ParameterList(kernels)
            self.last = torch.nn.Parameter(last)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            x = torch.relu(torch.nn.functional.conv2d(x, self.kernels[0], stride=4))
            for kernel in list(self.kernels)[1:]:
                x = torch.relu(torch.nn.functional.conv2d(x, kernel, padding=1))
            return {"y": x.mean((2, 3)) @ self.last.T}

    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.export.export(Net().eval(), (torch.zeros(2, 3, 64, 64),), dynamic_shapes={"x": {0: batch}})
    torch.export.save(program, path)


# The loop without a gateway


def _runner(path: Path, device: str) -> Callable[[Any], Any]:
    """A batch in, its answers out, both in the machine's memory: written as one would by hand."""
    if path.suffix == ".onnx":
        import onnxruntime  # noqa: PLC0415

        providers = ["CPUExecutionProvider"]
        if device != "cpu":
            onnxruntime.preload_dlls()
            providers = ["CUDAExecutionProvider"]
        session = onnxruntime.InferenceSession(str(path), providers=providers)
        return lambda rows: session.run(None, {"x": rows})
    import torch  # noqa: PLC0415

    program = torch.export.load(path)
    if device != "cpu":
        program = torch.export.passes.move_to_device_pass(program, device)
    module = program.module()

    def run(rows: Any) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(rows).to(device))["y"].cpu().numpy()

    return run


def _rate(run: Callable[[Any], Any], rows: int, seconds: float) -> float:
    batch = np.random.default_rng(1).random((rows, 3, 64, 64), dtype=np.float32)
    for _ in range(3):
        run(batch)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        run(batch)
        count += rows
    return count / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("device")
    parser.add_argument("seconds", type=float)
    parser.add_argument("sizes", type=int, nargs="+")
    chosen = parser.parse_args()
    run = _runner(chosen.file, chosen.device)
    print(json.dumps({size: _rate(run, size, chosen.seconds / 3) for size in chosen.sizes}))


if __name__ == "__main__":
    main()
