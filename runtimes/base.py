"""The interface of a runtime: load a version's files, run batches of arrays, close. Synchronous, one thread.

A format is a module with one function ``load(spec, files) -> Runtime``; ``runtimes.catalog``
knows which. Everything here crosses a process boundary as JSON, so it is plain data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np

from runtimes.signature import Signature

Array: TypeAlias = np.ndarray[Any, Any]
Arrays: TypeAlias = Mapping[str, Array]


class RuntimeFailure(Exception):
    """Base of what a runtime may raise; ``kind`` names it on the wire."""

    kind = "model-error"


class LoadFailed(RuntimeFailure):
    """The version cannot be loaded: unreadable, unsupported, or incompatible."""

    kind = "load-failed"


class IntegrityFailed(LoadFailed):
    """The bytes read are not the bytes the manifest names; the message holds both digests."""

    kind = "integrity"


class InvalidInput(RuntimeFailure):
    """Model code refuses this input (the caller's fault: 422). Raise it from a python model."""

    kind = "invalid-input"


class OutOfMemory(RuntimeFailure):
    """The batch does not fit the device; a smaller one may."""

    kind = "out-of-memory"


class ModelFailed(RuntimeFailure):
    """Model code raised anything else."""

    kind = "model-error"


@dataclass(frozen=True, slots=True)
class FileRef:
    """One artifact file: its ``name`` within the version, where its bytes lie, and what they must hash to."""

    name: str
    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """All that a child needs to load one version.

    ``entry`` names the main file among ``files``. ``signature`` is None when the format tells
    it (ONNX). ``device`` is ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. ``precision`` (``fp16``, ``bf16``) is what a
    model computes in, None as it is stored. ``compiled``: by torch.compile. ``graph_rows``: batch sizes to capture as
    CUDA graphs. ``memory_limit_bytes``: of the device, for runtimes that can be held to it. ``options`` belong to the
    format.
    """

    format: str
    entry: str
    files: tuple[FileRef, ...]
    signature: Signature | None = None
    device: str = "auto"
    threads: int = 1
    allow_pickle: bool = False
    precision: str | None = None
    compiled: bool = False
    graph_rows: tuple[int, ...] = ()
    memory_limit_bytes: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        body = asdict(self)
        body["files"] = [asdict(file) for file in self.files]
        body["signature"] = None if self.signature is None else self.signature.to_json()
        body["options"] = dict(self.options)
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> LoadSpec:
        fields = dict(body)
        fields["files"] = tuple(FileRef(**file) for file in body["files"])
        fields["graph_rows"] = tuple(body.get("graph_rows", ()))
        signature = body.get("signature")
        fields["signature"] = None if signature is None else Signature.from_json(signature)
        return cls(**fields)


class Files(Protocol):
    """A version's bytes, hashed as they are read: ``IntegrityFailed`` unless they match the manifest."""

    def read(self, name: str) -> bytes: ...

    def names(self) -> tuple[str, ...]: ...


class Runtime(Protocol):
    """A loaded version. Used by one thread; ``run`` may raise InvalidInput, OutOfMemory or ModelFailed."""

    @property
    def signature(self) -> Signature: ...

    @property
    def device(self) -> str: ...

    def run(self, inputs: Arrays) -> Arrays: ...

    def close(self) -> None: ...
