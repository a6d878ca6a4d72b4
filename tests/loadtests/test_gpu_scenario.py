"""The GPU benchmark where there is no GPU: it says so; and its two models are one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from loadtests.measurement import Skipped
from loadtests.scenarios.gpu import Tower, _make, _runner, gpu
from loadtests.scenarios.rounds import Plan


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_the_benchmark_is_skipped_with_the_reason(tmp_path: Path) -> None:
    """Not failed, and not measured on something else."""
    with pytest.raises(Skipped, match="neither torch nor ONNX Runtime finds a CUDA device"):
        gpu(Plan(1, 1.0, tmp_path))


def test_torch_and_onnx_serve_the_same_tower(tmp_path: Path) -> None:
    """Same weights, same answers, for one row and for several."""
    tower = Tower(width=8, depth=2)
    runs = [_runner(_make(tower, tmp_path / f"tower{suffix}"), "cpu") for suffix in (".pt2", ".onnx")]
    for rows in (1, 5):
        batch = np.random.default_rng(rows).random((rows, 3, 64, 64), dtype=np.float32)
        ours, theirs = (np.asarray(run(batch)).reshape(rows, 10) for run in runs)
        assert np.allclose(ours, theirs, atol=1e-4)
