"""The way of a torch batch: arrays become tensors on the device, the program runs, tensors become arrays again.

On CUDA each engine has a stream of its own. Inputs go through pinned memory, kept and used again, so that the copy
runs beside the host's work; and where graphs were asked for, each batch size has one, captured at load on memory that
never moves. Smaller batches are padded up to the next size. All graphs share one pool: they never run side by side.

Written from PyTorch's documentation of streams, pinned memory and CUDA graphs; it has not run on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from runtimes.base import Array, Arrays
from runtimes.padding import next_size

__all__ = ["CudaLane", "HostLane", "Lane", "Program"]

Tensors = Mapping[str, Any]
Program = Callable[[Tensors], dict[str, Any]]
"""Tensors by name in, tensors by name out, on the device."""

_WARM_RUNS = 3


class Lane(Protocol):
    def run(self, program: Program, inputs: Arrays) -> dict[str, Array]: ...

    def close(self) -> None: ...


class HostLane:
    """The CPU: one copy in, none out."""

    def run(self, program: Program, inputs: Arrays) -> dict[str, Array]:
        # A copy: the batch's memory cannot be written, and a model may work in place.
        tensors = {name: torch.from_numpy(np.array(array, copy=True, order="C")) for name, array in inputs.items()}
        return {name: _host(value).numpy() for name, value in program(tensors).items()}

    def close(self) -> None:
        """Nothing is kept."""


@dataclass(slots=True)
class _Graph:
    """One batch size: memory that never moves, and the work on it."""

    rows: int
    inputs: Tensors
    outputs: Tensors = field(default_factory=dict)
    graph: Any = None


class CudaLane:
    """One device, one stream. ``shapes``: of one row of each input, with its type, for the graphs of ``graph_rows``."""

    def __init__(self, index: int) -> None:
        self._device = torch.device("cuda", index)
        self._stream = torch.cuda.Stream(self._device)
        self._pinned: dict[str, Any] = {}
        self._graphs: dict[int, _Graph] = {}

    def __repr__(self) -> str:
        return f"<CudaLane {self._device} [{len(self._graphs)} graphs]>"

    def capture(self, program: Program, zeros: Callable[[int], Arrays], sizes: Sequence[int]) -> None:
        """One graph for each batch size, the largest first: the others find its memory in the pool. ``zeros`` gives a
        batch of a size."""
        pool = torch.cuda.graph_pool_handle()
        for rows in sorted(sizes, reverse=True):
            inputs = {name: torch.from_numpy(array).to(self._device) for name, array in zeros(rows).items()}
            made = _Graph(rows, inputs)
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.inference_mode(), torch.cuda.stream(self._stream):
                for _ in range(_WARM_RUNS):
                    program(inputs)
                self._stream.synchronize()
                made.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(made.graph, pool=pool, stream=self._stream):
                    made.outputs = program(inputs)
            self._graphs[rows] = made

    def run(self, program: Program, inputs: Arrays) -> dict[str, Array]:
        with torch.cuda.stream(self._stream):
            rows = len(next(iter(inputs.values()))) if self._graphs else 0
            size = next_size(rows, self._graphs) if rows else None
            if size is None:
                outputs = program({name: self._sent(name, array) for name, array in inputs.items()})
            else:
                outputs = self._replayed(self._graphs[size], inputs, rows)
            arriving = {name: _host(value, wait=False) for name, value in outputs.items()}
            self._stream.synchronize()
            return {name: value.numpy() for name, value in arriving.items()}

    def close(self) -> None:
        self._graphs.clear()
        self._pinned.clear()
        torch.cuda.empty_cache()

    def _replayed(self, made: _Graph, inputs: Arrays, rows: int) -> dict[str, Any]:
        for name, array in inputs.items():
            target = made.inputs[name]
            target[:rows].copy_(self._staged(name, array), non_blocking=True)
            if rows < made.rows:
                target[rows:].zero_()  # an answer never depends on who was in the batch before
        made.graph.replay()
        return {name: value[:rows] for name, value in made.outputs.items()}

    def _sent(self, name: str, array: Array) -> Any:
        return self._staged(name, array).to(self._device, non_blocking=True)

    def _staged(self, name: str, array: Array) -> Any:
        """The array in pinned memory. It is free again when the batch's stream has been waited for."""
        source = torch.from_numpy(np.ascontiguousarray(array))
        kept = self._pinned.get(name)
        if kept is None or kept.numel() < source.numel() or kept.dtype != source.dtype:
            kept = self._pinned[name] = torch.empty(source.numel(), dtype=source.dtype, pin_memory=True)
        staged = kept[: source.numel()].view(source.shape)
        staged.copy_(source)
        return staged


def _host(value: Any, *, wait: bool = True) -> Any:
    """numpy has no bfloat16."""
    tensor = value.detach()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return tensor.to("cpu", non_blocking=not wait)
