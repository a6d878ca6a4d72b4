"""Precision, torch.compile, TorchScript and devices of torch versions; what needs a GPU says so."""

from __future__ import annotations

import io
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runtimes.base import LoadFailed, Runtime
from runtimes.execution import execute, load
from runtimes.padding import next_size, padded, sizes_alone_vary
from runtimes.signature import Signature, TensorSpec
from tests.runtimes.versions import exported_torch, load_spec, signature

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device and a torch built for it")
LINEAR = signature({"x": ("FP32", ("batch", 4))}, {"y": ("FP32", ("batch", 3))})
FREE = signature({"x": ("FP32", ("batch", "width"))}, {"y": ("FP32", ("batch", "width"))})
X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


def loaded(tmp_path: Path, content: bytes, entry: str = "m.pt2", **fields: Any) -> Runtime:
    return load(load_spec(tmp_path, "torch", entry, {entry: content}, **fields)).runtime


def scripted(module: torch.nn.Module) -> bytes:
    target = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(module.eval()), target)
    return target.getvalue()


def script_loaded(tmp_path: Path, content: bytes, *, free: bool = False, **fields: Any) -> Runtime:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return loaded(tmp_path, content, "m.pt", signature=FREE if free else LINEAR, **fields)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_program_computes_in_half_precision_and_answers_in_its_signatures_types(
    tmp_path: Path, precision: str
) -> None:
    """Rounded as that type rounds, so not the same as in full; integers stay what they are."""
    full = execute(loaded(tmp_path, exported_torch()), {"x": X}, 5)
    half = execute(loaded(tmp_path, exported_torch(), precision=precision), {"x": X}, 5)
    assert (half["logits"].dtype, half["label"].dtype) == (np.float32, np.int64)
    assert not np.array_equal(half["logits"], full["logits"])
    assert np.allclose(half["logits"], full["logits"], atol=0.05)


def test_torchscript_runs_on_the_device_and_in_the_precision_asked_for(tmp_path: Path) -> None:
    """Scripted control flow included."""

    class Gate(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.linear = torch.nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x)
            if bool((y > 0).any()):
                y = torch.relu(y)
            return y

    content = scripted(Gate())
    full = script_loaded(tmp_path, content, device="cpu")
    half = script_loaded(tmp_path, content, device="cpu", precision="bf16")
    assert full.device == "cpu"
    first, second = execute(full, {"x": X}, 5)["y"], execute(half, {"x": X}, 5)["y"]
    assert second.dtype == np.float32
    assert np.allclose(first, second, atol=0.05)
    assert not np.array_equal(first, second)


def test_torchscript_cannot_be_compiled_and_says_what_to_do(tmp_path: Path) -> None:
    """torch.compile works on Python code, which TorchScript has left behind."""
    with pytest.raises(LoadFailed, match=r"torch\.compile does not take; export it to a \.pt2 file"):
        script_loaded(tmp_path, scripted(torch.nn.Linear(4, 3)), compiled=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_program_answers_as_the_program_does(tmp_path: Path) -> None:
    """For batches of every size, by one compilation."""
    plain, compiled = loaded(tmp_path, exported_torch()), loaded(tmp_path, exported_torch(), compiled=True)
    for rows in (2, 5, 1):
        ours, theirs = execute(compiled, {"x": X[:rows]}, rows), execute(plain, {"x": X[:rows]}, rows)
        assert np.allclose(ours["logits"], theirs["logits"], atol=1e-6)


def test_graph_sizes_are_of_no_account_on_the_cpu(tmp_path: Path) -> None:
    """A version registered with CUDA graphs serves on a machine without a GPU too."""
    runtime = loaded(tmp_path, exported_torch(), graph_rows=(1, 2, 4))
    assert execute(runtime, {"x": X}, 5)["label"].shape == (5,)


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (2, 2), (3, 4), (5, 8), (8, 8), (9, None)])
def test_a_batch_goes_to_the_next_size_that_was_prepared(rows: int, size: int | None) -> None:
    """And beyond the largest to none."""
    assert next_size(rows, (1, 2, 4, 8)) == size


@pytest.mark.parametrize(
    ("shape", "batched", "prepared"),
    [(("batch", 4), True, True), (("batch",), True, True), (("batch", "width"), True, False), ((4, 4), False, False)],
)
def test_work_is_prepared_for_sizes_only_where_nothing_but_the_rows_varies(
    shape: tuple[int | str, ...], batched: bool, prepared: bool
) -> None:
    """A graph has one shape: captured at width 1, it would fail every other width, or stretch a column over it."""
    assert sizes_alone_vary(Signature((TensorSpec("x", "FP32", shape),), (), batched)) is prepared


def test_padding_is_zeros_behind_the_rows() -> None:
    """A batch that fills the size is handed on as it is."""
    rows = np.ones((2, 3), np.float32)
    assert padded(rows, 2) is rows
    assert padded(rows, 4).tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]]


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("graph_rows", [(), (1, 2, 4, 8)])
@pytest.mark.parametrize("precision", [None, "fp16", "bf16"])
def test_a_program_answers_on_a_cuda_device_as_on_the_cpu(
    tmp_path: Path, graph_rows: tuple[int, ...], precision: str | None
) -> None:
    """With and without graphs, for sizes that were captured and others, again and again."""
    cpu = loaded(tmp_path, exported_torch(), device="cpu")
    gpu = loaded(tmp_path, exported_torch(), device="cuda:0", graph_rows=graph_rows, precision=precision)
    for rows in (1, 3, 8, 5, 20, 1):
        x = np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float32)
        ours, theirs = execute(gpu, {"x": x}, rows), execute(cpu, {"x": x}, rows)
        assert np.allclose(ours["logits"], theirs["logits"], atol=1e-3 if precision is None else 0.05)
    gpu.close()


@pytest.mark.gpu
@needs_cuda
def test_a_program_of_free_widths_answers_on_a_cuda_device_without_graphs(tmp_path: Path) -> None:
    """Though they were asked for."""
    gpu = script_loaded(tmp_path, scripted(torch.nn.ReLU()), free=True, device="cuda:0", graph_rows=(1, 2))
    for width in (1, 3, 2):
        x = np.full((2, width), 2.0, np.float32)
        assert np.array_equal(execute(gpu, {"x": x}, 2)["y"], x)
    gpu.close()


@pytest.mark.gpu
@needs_cuda
def test_a_version_on_a_gpu_is_held_to_its_share_of_the_memory(tmp_path: Path) -> None:
    """More than that is out of memory, while the device has some."""
    from runtimes.base import OutOfMemory

    class Wide(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.repeat(1, 1 << 20).sum(1)

    target = io.BytesIO()
    program = torch.export.export(Wide(), (torch.ones(2, 8),), dynamic_shapes={"x": {0: torch.export.Dim("batch")}})
    torch.export.save(program, target)
    runtime = loaded(tmp_path, target.getvalue(), device="cuda:0", memory_limit_bytes=256 << 20)
    assert execute(runtime, {"x": np.ones((2, 8), np.float32)}, 2)
    with pytest.raises(OutOfMemory):
        execute(runtime, {"x": np.ones((64, 8), np.float32)}, 64)
