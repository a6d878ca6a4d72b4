"""Bound batches, with the CPU in the device's place; and on a CUDA device where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from runtimes.base import LoadFailed, LoadSpec
from runtimes.execution import execute, load
from runtimes.onnx_cuda import CudaBinding, provider_options, ungraphed
from runtimes.onnx_runtime import OnnxRuntime
from tests.runtimes.versions import load_spec, signature

SIGNATURE = signature({"x": ("FP32", ("batch", 4))}, {"y": ("FP32", ("batch", 4)), "n": ("FP32", ("batch",))})
HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
needs_cuda = pytest.mark.skipif(not HAS_CUDA, reason="needs onnxruntime-gpu and a CUDA device; there is none here")


def model(*, free: bool = False) -> bytes:
    """``y`` is x + 1, ``n`` the sum of each row."""
    width: Any = "width" if free else 4
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("Add", ["x", "one"], ["y"]),
        helper.make_node("ReduceSum", ["x", "axes"], ["n"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", width]),
            helper.make_tensor_value_info("n", TensorProto.FLOAT, ["batch"]),
        ],
        [one, axes],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    content: bytes = made.SerializeToString()
    return content


def bound(**options: Any) -> CudaBinding:
    session = onnxruntime.InferenceSession(model(), providers=["CPUExecutionProvider"])
    return CudaBinding(session, SIGNATURE, 0, device_type="cpu", **options)


@pytest.mark.parametrize("graph_rows", [(), (1, 2, 4)])
def test_bound_batches_of_changing_sizes_answer_as_unbound_ones(graph_rows: tuple[int, ...]) -> None:
    """Also those that are padded up to a size that is kept, and those that are larger than any."""
    binding = bound(graph_rows=graph_rows)
    for rows in (1, 3, 4, 2, 7, 1, 4):
        x = np.random.default_rng(rows).random((rows, 4), dtype=np.float32)
        y, n = binding.run({"x": x})
        assert np.array_equal(y, x + 1)
        assert np.allclose(n, x.sum(axis=1))


def test_answers_stay_as_they_were_given(tmp_path: Path) -> None:
    """The next batch of the same size writes over the bound memory, not over answers."""
    binding = bound(graph_rows=(2,))
    first, _ = binding.run({"x": np.zeros((2, 4), np.float32)})
    binding.run({"x": np.full((2, 4), 7, np.float32)})
    assert np.array_equal(first, np.ones((2, 4), np.float32))


def test_padding_holds_nothing_of_the_batch_before() -> None:
    """A smaller batch after a larger one meets zeros in the rows that it does not fill."""
    binding = bound(graph_rows=(4,))
    binding.run({"x": np.full((4, 4), 9, np.float32)})
    binding.run({"x": np.full((1, 4), 1, np.float32)})
    assert np.array_equal(binding._fixed[4].inputs["x"].numpy()[1:], np.zeros((3, 4), np.float32))


def test_graphs_are_for_shapes_that_are_known() -> None:
    """An axis besides the rows that may change leaves nothing to capture."""
    session = onnxruntime.InferenceSession(model(free=True), providers=["CPUExecutionProvider"])
    free = signature(
        {"x": ("FP32", ("batch", "width"))}, {"y": ("FP32", ("batch", "width")), "n": ("FP32", ("batch",))}
    )
    binding = CudaBinding(session, free, 0, graph_rows=(1, 2), device_type="cpu")
    assert repr(binding) == "<CudaBinding cpu:0 [0 graphs]>"
    assert binding.run({"x": np.zeros((2, 3), np.float32)})[0].shape == (2, 3)
    assert binding._ungraphed.get_run_config_entry("gpu_graph_id") == "-1", "else the session captures by itself"


def test_only_a_session_that_captures_is_told_not_to() -> None:
    """Strings and BF16 run unbound, and would be captured all the same: with the first shapes that come."""
    assert ungraphed(()) is None
    session = onnxruntime.InferenceSession(model(), providers=["CPUExecutionProvider"])
    runtime = OnnxRuntime(session, SIGNATURE, "cpu", run_options=ungraphed((1, 2)))
    assert runtime.run({"x": np.ones((3, 4), np.float32)})["y"].shape[0] == 3


def test_the_provider_is_told_what_memory_it_may_take() -> None:
    """Versions share a device, so none takes more than it asks for, in steps that double."""
    spec = LoadSpec(format="onnx", entry="m", files=(), graph_rows=(1,), memory_limit_bytes=1 << 30)
    options = provider_options(spec, 1)
    assert options["device_id"] == 1
    assert options["gpu_mem_limit"] == 1 << 30
    assert options["arena_extend_strategy"] == "kSameAsRequested"
    assert options["enable_cuda_graph"] is True
    assert "enable_cuda_graph" not in provider_options(LoadSpec(format="onnx", entry="m", files=()), 0)


@pytest.mark.skipif(HAS_CUDA, reason="there is a CUDA device here")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:1"])
def test_a_device_that_is_not_here_fails_the_load(tmp_path: Path, device: str) -> None:
    """Never a silent fall back to the CPU: it would be ten times slower, and nobody would know why."""
    with pytest.raises(LoadFailed, match=f"device {device} needs onnxruntime-gpu"):
        load(load_spec(tmp_path, "onnx", "m.onnx", {"m.onnx": model()}, device=device))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"precision": "fp16"}, "an ONNX model has its precision in its file"),
        ({"compiled": True}, "which is torch.compile"),
        ({"device": "tpu"}, "device 'tpu' is unknown; expected auto, cpu, cuda or cuda:N"),
    ],
)
def test_what_onnx_runtime_cannot_do_is_refused_by_name(tmp_path: Path, asked: Any, words: str) -> None:
    """Rather than ignored."""
    with pytest.raises(LoadFailed, match=words):
        load(load_spec(tmp_path, "onnx", "m.onnx", {"m.onnx": model()}, **asked))


def test_a_session_does_not_keep_the_files_bytes(tmp_path: Path) -> None:
    """They would be as much memory again as the model takes."""
    runtime: Any = load(load_spec(tmp_path, "onnx", "m.onnx", {"m.onnx": model()})).runtime
    assert runtime._session._model_bytes is None
    assert execute(runtime, {"x": np.zeros((1, 4), np.float32)}, 1)["y"].tolist() == [[1, 1, 1, 1]]


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("graph_rows", [(), (1, 2, 4, 8)])
def test_a_model_answers_on_a_cuda_device(tmp_path: Path, graph_rows: tuple[int, ...]) -> None:
    """With and without graphs, for sizes that were captured and others."""
    files = {"m.onnx": model()}
    runtime = load(load_spec(tmp_path, "onnx", "m.onnx", files, device="cuda:0", graph_rows=graph_rows)).runtime
    assert runtime.device == "cuda:0"
    for rows in (1, 3, 8, 5, 20, 1):
        x = np.random.default_rng(rows).random((rows, 4), dtype=np.float32)
        assert np.allclose(execute(runtime, {"x": x}, rows)["y"], x + 1)
