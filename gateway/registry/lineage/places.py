"""The kinds of lineage as records, and what the recorder writes for each.

    code         {"repository", "commit", "tree", "clean", "patch": {"digest", "size_bytes", "content"?},
                  "untracked": [{"name", "digest"}], "files": {"train.py": "sha256:…"},
                  "entry_point": {"command": ["python", "train.py"], "folder": "."}}
    data         [{"name", "digest", "size_bytes", "rows", "schema": {"columns": …, "digest"}, "path", "dvc": {…},
                   "croissant": {…}, "url", "found"}, …]
    parameters   {"values": {…}, "seeds": {…}}
    environment  {"lock", "packages": {"numpy": "2.1.0"}, "python", "implementation", "os", "machine", "libc",
                  "cpu": {"model", "features", "cores"}, "cuda": {…}}
    features     {"steps": [{"name", "kind", "parameters", "digest"}], "digest"}
    run          {"id", "system", "started_at", "duration_s", "outputs": [{"name", "digest", "size_bytes"}], "parent"}

A digest is written ``algorithm:hexadecimal``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "KINDS",
    "Code",
    "DataInput",
    "EntryPoint",
    "Environment",
    "Features",
    "Kinds",
    "NamedDigest",
    "Parameters",
    "RunRecord",
]

KINDS = ("code", "data", "parameters", "environment", "metrics")

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NamedDigest:
    name: str
    digest: str
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """``command`` as it was typed, its first word ``python`` where an interpreter stood; ``folder`` below the code."""

    command: tuple[str, ...]
    folder: str = "."


@dataclass(frozen=True, slots=True)
class Code:
    """``clean`` False: files of the commit were changed; ``patch`` says how, with its text where it was kept."""

    repository: str | None = None
    commit: str | None = None
    tree: str | None = None
    clean: bool | None = None
    patch: Json = field(default_factory=dict)
    untracked: tuple[NamedDigest, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    entry_point: EntryPoint | None = None


@dataclass(frozen=True, slots=True)
class DataInput:
    """``digest`` of the snapshot as the training read it, of whatever algorithm its keeper uses."""

    name: str
    digest: str | None = None
    rows: int | None = None
    size_bytes: int | None = None
    schema: str | None = None
    path: str | None = None
    url: str | None = None
    dvc: Json | None = None
    croissant: Json | None = None


@dataclass(frozen=True, slots=True)
class Parameters:
    values: Json = field(default_factory=dict)
    seeds: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Environment:
    """``lock`` is the digest of the lock file that ``packages`` make, a line ``name==version`` each."""

    lock: str | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    python: str | None = None
    os: str | None = None
    machine: str | None = None
    cpu: Json = field(default_factory=dict)
    cuda: Json | None = None


@dataclass(frozen=True, slots=True)
class Features:
    steps: tuple[Json, ...] = ()
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    id: str | None = None
    system: str | None = None
    started_at: str | None = None
    duration_s: float | None = None
    outputs: tuple[NamedDigest, ...] = ()
    parent: Any = None


@dataclass(frozen=True, slots=True)
class Kinds:
    """A version's lineage and evaluation, typed; ``digests`` has those kinds of which anything is known."""

    code: Code
    data: tuple[DataInput, ...]
    parameters: Parameters
    environment: Environment
    features: Features
    run: RunRecord
    digests: Mapping[str, str]
