"""The parts of a manifest: frozen records that read and write their own JSON, strictly."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from gateway.errors import RegistryError
from gateway.registry import canonical
from gateway.registry.fields import Fields
from gateway.registry.names import check_file_name
from runtimes.devices import check_device

__all__ = [
    "PLACEMENTS",
    "PRECISIONS",
    "BlobRef",
    "Effects",
    "EvaluationRecord",
    "FileEntry",
    "Lineage",
    "ProfilePlace",
    "RuntimePlan",
    "optional_blob",
    "optional_json",
]

PLACEMENTS = ("process", "inline")
PRECISIONS = ("fp32", "fp16", "bf16")
_LATER = ("precision", "compile", "cuda_graphs", "run", "features", "source")
"""Left out of the JSON where they are not used, so that versions registered before keep their digests."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


class _Part(Protocol):
    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, order=True)
class FileEntry:
    """One artifact file; ``name`` is a relative path with forward slashes, ``sha256`` bare hexadecimal."""

    name: str
    sha256: str
    size_bytes: int

    @property
    def digest(self) -> str:
        return canonical.DIGEST_PREFIX + self.sha256

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": self.sha256, "size_bytes": self.size_bytes}

    @classmethod
    def from_json(cls, body: Any, place: str) -> FileEntry:
        with Fields(body, place) as take:
            name = check_file_name(take.text("name"))
            return cls(name, _sha256(take), take.integer("size_bytes", at_least=0))


@dataclass(frozen=True, slots=True)
class BlobRef:
    """Bytes that belong to a version and are not loaded by it."""

    sha256: str
    size_bytes: int

    @property
    def digest(self) -> str:
        return canonical.DIGEST_PREFIX + self.sha256

    def to_json(self) -> dict[str, Any]:
        return {"sha256": self.sha256, "size_bytes": self.size_bytes}

    @classmethod
    def from_json(cls, body: Any, place: str) -> BlobRef:
        with Fields(body, place) as take:
            return cls(_sha256(take), take.integer("size_bytes", at_least=0))


@dataclass(frozen=True, slots=True)
class RuntimePlan:
    """How the version wants to run. None: as the settings say. ``options`` belong to the format.

    ``precision``: what the model computes in; None, or ``fp32``, is as it is stored. ``compile``: by torch.compile.
    ``cuda_graphs``: one captured for each batch size of the warm-up. These may change answers in their last digits,
    so they are the version's own. How many instances run, and on which devices, is the settings' to say.
    """

    device: str | None = None
    threads: int | None = None
    placement: str = "process"
    interpreter: str | None = None
    max_rows: int | None = None
    queue_rows: int | None = None
    hang_floor_ms: int | None = None
    precision: str | None = None
    compile: bool = False
    cuda_graphs: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", canonical.freeze(self.options))
        if self.device is not None:
            try:
                check_device(self.device)
            except ValueError as error:
                raise RegistryError(f"runtime.{error}") from None
        if self.precision not in (None, *PRECISIONS):
            raise RegistryError(f"runtime.precision is {self.precision!r}; expected one of {', '.join(PRECISIONS)}")
        if self.precision == "fp32":
            object.__setattr__(self, "precision", None)
        if self.placement not in PLACEMENTS:
            raise RegistryError(f"runtime.placement is {self.placement!r}; expected one of {', '.join(PLACEMENTS)}")
        for name in ("threads", "max_rows", "queue_rows", "hang_floor_ms"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise RegistryError(f"runtime.{name} is {number}; expected at least 1")

    def to_json(self) -> dict[str, Any]:
        body = {item.name: getattr(self, item.name) for item in fields(self)}
        body = {name: value for name, value in body.items() if value or name not in _LATER}
        return body | {"options": canonical.thaw(self.options)}

    @classmethod
    def from_json(cls, body: Any, place: str) -> RuntimePlan:
        with Fields(body, place) as take:
            return cls(
                device=take.optional_text("device"),
                threads=take.optional_integer("threads", at_least=1),
                placement=take.text("placement"),
                interpreter=take.optional_text("interpreter"),
                max_rows=take.optional_integer("max_rows", at_least=1),
                queue_rows=take.optional_integer("queue_rows", at_least=1),
                hang_floor_ms=take.optional_integer("hang_floor_ms", at_least=1),
                precision=take.optional_text("precision"),
                compile=take.optional_boolean("compile"),
                cuda_graphs=take.optional_boolean("cuda_graphs"),
                options=take.mapping("options"),
            )


@dataclass(frozen=True, slots=True)
class Effects:
    """``retry`` False: what the model does outside must not happen twice, so a batch is never run again."""

    retry: bool = True

    def to_json(self) -> dict[str, Any]:
        return {"retry": self.retry}

    @classmethod
    def from_json(cls, body: Any, place: str) -> Effects:
        with Fields(body, place) as take:
            return cls(take.boolean("retry"))


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where the version comes from: any JSON in each place, None where nothing is known.

    ``gateway.registry.lineage`` gives the places their types. ``source``: what the version is called in the system that
    it was imported from, ``{"system", "name", "version", "digest", "algorithm", "url"}``, None where unknown.
    """

    code: Any = None
    data: Any = None
    parameters: Any = None
    environment: Any = None
    parent: Any = None
    author: Any = None
    notes: Any = None
    run: Any = None
    features: Any = None
    source: Any = None

    def __post_init__(self) -> None:
        for item in fields(self):
            object.__setattr__(self, item.name, canonical.freeze(getattr(self, item.name)))

    def to_json(self) -> dict[str, Any]:
        body = {item.name: canonical.thaw(getattr(self, item.name)) for item in fields(self)}
        return {name: value for name, value in body.items() if value is not None or name not in _LATER}

    @classmethod
    def from_json(cls, body: Any, place: str) -> Lineage:
        """Places left out are None; a place that does not exist is an error that names the nearest."""
        with Fields(body, place) as take:
            return cls(**{item.name: take.anything(item.name) for item in fields(cls)})


@dataclass(frozen=True, slots=True)
class EvaluationRecord:
    """One figure of quality: over ``n`` rows, of a ``slice`` of the data if named, with its confidence interval.

    ``dataset``: the digest of the evaluation set, ``sha256:…`` or under another algorithm's name.
    """

    metric: str
    value: float
    n: int | None = None
    slice: str | None = None
    interval: tuple[float, float] | None = None
    dataset: str | None = None

    def __post_init__(self) -> None:
        if not self.metric:
            raise RegistryError("evaluation: a record's metric has no name")
        if self.interval is not None and not self.interval[0] <= self.interval[1]:
            raise RegistryError(f"evaluation: interval of {self.metric!r} is {self.interval}; expected [low, high]")

    def to_json(self) -> dict[str, Any]:
        interval = None if self.interval is None else list(self.interval)
        body = {"metric": self.metric, "value": self.value, "n": self.n, "slice": self.slice, "interval": interval}
        return body if self.dataset is None else body | {"dataset": self.dataset}

    @classmethod
    def from_json(cls, body: Any, place: str) -> EvaluationRecord:
        with Fields(body, place) as take:
            return cls(
                metric=take.text("metric"),
                value=take.number("value"),
                n=take.optional_integer("n", at_least=0),
                slice=take.optional_text("slice"),
                interval=take.optional_pair("interval"),
                dataset=take.optional_text("dataset"),
            )


@dataclass(frozen=True, slots=True)
class ProfilePlace:
    """The data that live traffic is compared with; ``computed`` holds its frozen bins once they are counted."""

    reference: BlobRef
    name: str
    computed: BlobRef | None = None

    def to_json(self) -> dict[str, Any]:
        return {"reference": self.reference.to_json(), "name": self.name, "computed": optional_json(self.computed)}

    @classmethod
    def from_json(cls, body: Any, place: str) -> ProfilePlace:
        with Fields(body, place) as take:
            reference = BlobRef.from_json(take.anything("reference"), f"{place}.reference")
            return cls(reference, check_file_name(take.text("name")), optional_blob(take, "computed"))


def _sha256(take: Fields) -> str:
    text = take.text("sha256")
    if not _SHA256.fullmatch(text):
        raise RegistryError(f"{take.place}.sha256 is {text!r}; expected 64 lower-case hexadecimal digits")
    return text


def optional_json(part: _Part | None) -> dict[str, Any] | None:
    return None if part is None else part.to_json()


def optional_blob(take: Fields, key: str) -> BlobRef | None:
    body = take.anything(key)
    return None if body is None else BlobRef.from_json(body, f"{take.place}.{key}")
