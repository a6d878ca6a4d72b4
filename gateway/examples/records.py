"""What every example version carries beside its artifact: signature, example input, lineage, evaluation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from gateway import __version__
from gateway.intervals import wilson
from gateway.registry.lineage import environment

__all__ = ["SEED", "SIGNATURE", "Array", "Digits", "evaluation", "example", "lineage", "write_json"]

SEED = 7
TEST_SHARE = 0.25
Array = np.ndarray[Any, Any]

SIGNATURE: Mapping[str, Any] = {
    "inputs": [{"name": "pixels", "datatype": "FP32", "shape": ["batch", 64]}],
    "outputs": [
        {"name": "probabilities", "datatype": "FP32", "shape": ["batch", 10]},
        {"name": "label", "datatype": "INT64", "shape": ["batch"]},
    ],
    "batched": True,
}


@dataclass(frozen=True, slots=True)
class Digits:
    """1797 scans of handwritten digits, 8 by 8 grey levels from 0 to 16; a quarter is held out and never trained on."""

    train_pixels: Array
    train_labels: Array
    test_pixels: Array
    test_labels: Array
    sha256: str

    @classmethod
    def load(cls) -> Digits:
        pixels, labels = load_digits(return_X_y=True)
        pixels, labels = pixels.astype(np.float32), labels.astype(np.int64)
        train, test, train_labels, test_labels = train_test_split(
            pixels, labels, test_size=TEST_SHARE, stratify=labels, random_state=SEED
        )
        digest = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
        return cls(train, train_labels, test, test_labels, digest)


def lineage(
    digits: Digits,
    *,
    name: str,
    sources: Sequence[Path],
    parameters: Mapping[str, Any],
    packages: Sequence[str],
    features: Mapping[str, Any] | None,
    outputs: Mapping[str, Path],
) -> Any:
    """Code, data, parameters, packages and what came out, each by digest: enough to do it again and compare.

    Without a commit, a time or an author's name, so that training again on the next day gives the same version; the
    code is told by its files, which are the installed package's.
    """
    command = ["python", "-m", "gateway.examples.digits", ".", "--only", name]
    return {
        "code": {
            "package": "turnout",
            "version": __version__,
            "files": {f"gateway/examples/{path.name}": _sha256(path) for path in sources},
            "entry_point": {"command": command, "folder": "."},
        },
        "data": [
            {
                "name": "sklearn.datasets.load_digits",
                "digest": f"sha256:{digits.sha256}",
                "of": "values",
                "rows": len(digits.train_labels) + len(digits.test_labels),
                "split": {"train_rows": len(digits.train_labels), "test_share": TEST_SHARE, "stratified": True},
            }
        ],
        "parameters": {"values": dict(parameters), "seeds": {"split": SEED, "training": SEED}},
        "environment": environment.capture(tuple(packages)),
        "features": features,
        "run": {
            "system": "turnout",
            "outputs": [
                {"name": place, "digest": _sha256(path), "size_bytes": path.stat().st_size}
                for place, path in sorted(outputs.items())
            ],
        },
        "author": "turnout examples",
    }


def _sha256(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def evaluation(digits: Digits, predicted: Array, *, slice_name: str | None = None) -> list[dict[str, Any]]:
    """Accuracy on the held-out rows, with its 95% Wilson score interval and the digest of those rows."""
    hits, rows = int((predicted == digits.test_labels).sum()), len(digits.test_labels)
    interval = [round(end, 6) for end in wilson(hits, rows)]
    held_out = "sha256:" + hashlib.sha256(digits.test_pixels.tobytes() + digits.test_labels.tobytes()).hexdigest()
    record: dict[str, Any] = {"metric": "accuracy", "value": round(hits / rows, 6), "n": rows, "interval": interval}
    record |= {"dataset": held_out}
    return [record | ({"slice": slice_name} if slice_name else {})]


def example(pixels: Array) -> dict[str, Any]:
    """One row as ``/predict`` takes it."""
    return {"inputs": {"pixels": [[float(level) for level in pixels]]}}


def write_json(path: Path, body: Any) -> None:
    path.write_text(json.dumps(body, indent=2, sort_keys=True) + "\n", encoding="utf-8")
