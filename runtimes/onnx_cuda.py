"""ONNX Runtime on CUDA: batches are bound to memory of the device, and a graph may be captured for each batch size.

A session has a stream of its own, and an engine is a process with one session, so engines never wait for each
other's streams; no stream of ours need be handed in (``user_compute_stream``).

Written from ONNX Runtime's documentation of its CUDA provider and its Python I/O binding; it has not run on a GPU
yet. What needs none is tested with the CPU as the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from runtimes.base import Array, Arrays, LoadSpec
from runtimes.padding import cut, next_size, padded
from runtimes.signature import DATATYPES, Signature, TensorSpec

__all__ = ["CudaBinding", "provider_options", "ungraphed"]

_WARM_RUNS = 2
"""One run allocates, the next is captured; replays begin after them."""


def provider_options(spec: LoadSpec, index: int) -> dict[str, Any]:
    """Memory is asked for as it is needed, not in doubling steps: versions share the device. Convolutions are chosen by
    heuristics, since an exhaustive search would happen again, in service, for each new batch size."""
    options: dict[str, Any] = {
        "device_id": index,
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "do_copy_in_default_stream": True,
    }
    if spec.memory_limit_bytes is not None:
        options["gpu_mem_limit"] = spec.memory_limit_bytes
    if spec.graph_rows:
        options["enable_cuda_graph"] = True
    return options


def ungraphed(graph_rows: Sequence[int]) -> Any:
    """Run options for what no graph is of. A session that captures would else capture the first shapes that come, and
    replay them for all others."""
    if not graph_rows:
        return None
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", "-1")
    return options


@dataclass(frozen=True, slots=True)
class _Fixed:
    """One batch size whose tensors never move, as a graph needs it."""

    rows: int
    binding: Any
    inputs: Mapping[str, Any]
    outputs: Sequence[Any]
    run_options: Any


class CudaBinding:
    """Moves one batch to the device, runs it there, and brings the outputs back. ``device_type`` is for tests."""

    def __init__(
        self,
        session: Any,
        signature: Signature,
        index: int,
        *,
        graph_rows: Sequence[int] = (),
        device_type: str = "cuda",
    ) -> None:
        self._session = session
        self._signature = signature
        self._device = (device_type, index)
        self._ungraphed = ungraphed(graph_rows)
        static = signature.batched and all(_fixed_shape(spec) for spec in (*signature.inputs, *signature.outputs))
        self._fixed = {rows: self._capture(rows) for rows in sorted(graph_rows)} if static else {}

    def __repr__(self) -> str:
        return f"<CudaBinding {':'.join(map(str, self._device))} [{len(self._fixed)} graphs]>"

    def run(self, feeds: Arrays) -> list[Array]:
        """The outputs in the signature's order, in memory of their own."""
        if not self._fixed:
            return self._run_any(feeds)
        rows = len(next(iter(feeds.values())))
        size = next_size(rows, tuple(self._fixed))
        return self._run_any(feeds) if size is None else self._run_fixed(feeds, rows, self._fixed[size])

    def _run_any(self, feeds: Arrays) -> list[Array]:
        binding = self._session.io_binding()
        for spec in self._signature.inputs:
            value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(feeds[spec.name]), *self._device)
            binding.bind_ortvalue_input(spec.name, value)
        for spec in self._signature.outputs:
            binding.bind_output(spec.name, *self._device)
        self._session.run_with_iobinding(binding, self._ungraphed)
        answers: list[Array] = binding.copy_outputs_to_cpu()
        return answers

    def _run_fixed(self, feeds: Arrays, rows: int, fixed: _Fixed) -> list[Array]:
        for name, value in fixed.inputs.items():
            value.update_inplace(padded(feeds[name], fixed.rows))
        self._session.run_with_iobinding(fixed.binding, fixed.run_options)
        return [cut(value.numpy(), rows) for value in fixed.outputs]

    def _capture(self, rows: int) -> _Fixed:
        binding, options = self._session.io_binding(), onnxruntime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(rows))
        inputs = {spec.name: self._zeros(spec, rows) for spec in self._signature.inputs}
        outputs = [self._zeros(spec, rows) for spec in self._signature.outputs]
        for spec in self._signature.inputs:
            binding.bind_ortvalue_input(spec.name, inputs[spec.name])
        for spec, value in zip(self._signature.outputs, outputs, strict=True):
            binding.bind_ortvalue_output(spec.name, value)
        for _ in range(_WARM_RUNS):
            self._session.run_with_iobinding(binding, options)
        return _Fixed(rows, binding, inputs, outputs, options)

    def _zeros(self, spec: TensorSpec, rows: int) -> Any:
        zeros = np.zeros((rows, *(int(axis) for axis in spec.shape[1:])), DATATYPES[spec.datatype])
        return onnxruntime.OrtValue.ortvalue_from_numpy(zeros, *self._device)


def _fixed_shape(spec: TensorSpec) -> bool:
    """All but the rows."""
    return all(isinstance(axis, int) for axis in spec.shape[1:])
