"""Small real versions for tests: files on disk with their digests, and the specs that load them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.base import FileRef, LoadSpec
from runtimes.signature import Signature, TensorSpec


def stored(folder: Path, files: Mapping[str, bytes]) -> tuple[FileRef, ...]:
    """Writes the files as a blob store would, named by digest, and refers to them."""
    refs = []
    for name, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        path = folder / digest
        path.write_bytes(content)
        refs.append(FileRef(name, str(path), digest, len(content)))
    return tuple(refs)


def load_spec(folder: Path, format_name: str, entry: str, files: Mapping[str, bytes], **fields: Any) -> LoadSpec:
    return LoadSpec(format=format_name, entry=entry, files=stored(folder, files), **fields)


def signature(
    inputs: Mapping[str, tuple[str, tuple[int | str, ...]]],
    outputs: Mapping[str, tuple[str, tuple[int | str, ...]]],
    *,
    batched: bool = True,
) -> Signature:
    def side(tensors: Mapping[str, tuple[str, tuple[int | str, ...]]]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name, datatype, shape) for name, (datatype, shape) in tensors.items())

    return Signature(side(inputs), side(outputs), batched)


def iris() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    from sklearn.datasets import load_iris

    rows, labels = load_iris(return_X_y=True)
    return rows, labels


def exported_torch(width: int = 4) -> bytes:
    """A pt2 of a small linear classifier with a dynamic batch."""
    import torch

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(7)
            self.linear = torch.nn.Linear(width, 3)

        def forward(self, x: Any) -> Any:
            logits = self.linear(x)
            return {"logits": logits, "label": logits.argmax(-1)}

    program = torch.export.export(
        Small().eval(), (torch.zeros(2, width),), dynamic_shapes={"x": {0: torch.export.Dim("batch")}}
    )
    target = io.BytesIO()
    torch.export.save(program, target)
    return target.getvalue()
