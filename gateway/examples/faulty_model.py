"""A version that looks fine until it is not: it reads its grey-level table from a shared place for every batch.

Loaded, warmed and evaluated, it is as good as its elders. When somebody tidies the table away, it raises
on every request. Copied into a folder beside ``weights.npy`` and ``settings.json``, it is registered as a
python version; the demonstration deletes the table.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]

SIGNATURE = {
    "inputs": [{"name": "pixels", "datatype": "FP32", "shape": ["batch", 64]}],
    "outputs": [
        {"name": "probabilities", "datatype": "FP32", "shape": ["batch", 10]},
        {"name": "label", "datatype": "INT64", "shape": ["batch"]},
    ],
    "batched": True,
}


class Files(Protocol):
    def read(self, name: str) -> bytes: ...


class Model:
    """Softmax regression on grey levels that are mapped through the table; the last row of weights is the bias."""

    def __init__(self, files: Files) -> None:
        self._weights: Array = np.load(io.BytesIO(files.read("weights.npy")))
        self._table = Path(json.loads(files.read("settings.json"))["table"])

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        levels = np.clip(np.rint(inputs["pixels"]), 0, 16).astype(np.int64)
        table = np.array(json.loads(self._table.read_text("utf-8")), np.float32)
        scores = table[levels] @ self._weights[:-1] + self._weights[-1]
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities = powers / powers.sum(axis=1, keepdims=True)
        return {"probabilities": probabilities.astype(np.float32), "label": probabilities.argmax(axis=1)}
