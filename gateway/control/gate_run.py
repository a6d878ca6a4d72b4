"""One run of the gates of a version: facts gathered, the process run, the report signed and stored. Blocks.

What is wrong with the version becomes a finding; only what is wrong with the store of artifacts is raised.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway import __version__
from gateway.clock import Clock
from gateway.control.compatibility import incompatibility
from gateway.control.gate_asking import Question
from gateway.errors import IntegrityError, TurnoutError
from gateway.messages import VersionRef
from gateway.registry.authors import signed_by
from gateway.registry.blobs import BlobStore
from gateway.registry.catalogue import CatalogueEntry
from gateway.registry.environments import Environments
from gateway.registry.gates.kinds import AuthorGate
from gateway.registry.gates.report import Report
from gateway.registry.gates.request import GateRequest, Side
from gateway.registry.gates.running import GateProgress, run_gates
from gateway.registry.loading import read_manifest
from gateway.registry.manifest import Manifest
from gateway.serving.engine import VersionSpec

__all__ = ["GateRunner"]

Assemble = Callable[[VersionRef, str], VersionSpec]


@dataclass(frozen=True, slots=True)
class GateRunner:
    """``assemble``: as for serving, so that what is looked at is what will serve. ``environments``: None where no
    version has any of its own."""

    blobs: BlobStore
    assemble: Assemble
    clock: Clock
    environments: Environments | None = None

    def run(self, asked: Question, purpose: str, *, progress: GateProgress, stopped: Callable[[], bool]) -> Report:
        """Raises IntegrityError or RegistryError where the version's manifest cannot be read."""
        started = self.clock.wall()
        manifest = read_manifest(asked.entry.digest, self.blobs)
        # Before its environment is looked at: to assemble it is to build that.
        version = self._side(asked, asked.entry, manifest)
        request = GateRequest(
            version=version,
            declaration=asked.declaration,
            champion=None if asked.champion is None else self._champion(asked, asked.champion),
            routes=tuple(self._route(name, entry, manifest, asked) for name, entry in asked.routes),
            signed=self._signed(asked),
            environment=self._environment(manifest, version.problem),
            load_timeout_s=120.0,
        )
        ran = run_gates(request, self.blobs, progress=progress, stopped=stopped)
        return Report(
            model=asked.model.name,
            version=asked.entry.number,
            digest=asked.entry.digest,
            findings=ran.findings,
            declaration=asked.digest,
            basis=asked.basis,
            against=None if asked.champion is None else _named(asked.champion),
            purpose=purpose,
            started_at=started,
            ended_at=self.clock.wall(),
            machine={**_machine(), **ran.memory},
        )

    def _champion(self, asked: Question, entry: CatalogueEntry) -> Side:
        return self._side(asked, entry, read_manifest(entry.digest, self.blobs))

    def _side(self, asked: Question, entry: CatalogueEntry, manifest: Manifest) -> Side:
        ref = VersionRef(asked.model.name, entry.number)
        spec: VersionSpec | None = None
        problem = ""
        try:
            spec = self.assemble(ref, entry.digest)
        except TurnoutError as fault:
            problem = str(fault)
        return Side(
            ref=str(ref),
            number=entry.number,
            digest=entry.digest,
            signature=manifest.signature,
            spec=None if spec is None else spec.load,
            problem=problem,
            interpreter=None if spec is None else spec.interpreter,
            example=None if manifest.example is None else manifest.example.digest,
            golden=None if manifest.golden is None else manifest.golden.digest,
        )

    def _route(self, name: str, entry: CatalogueEntry, manifest: Manifest, asked: Question) -> Mapping[str, Any]:
        try:
            before = read_manifest(entry.digest, self.blobs).signature
        except IntegrityError as fault:
            why = f"what it takes cannot be read: {fault}"
        else:
            why = incompatibility(before, manifest.signature)
        return {"route": name, "version": f"{asked.model.name}/{entry.number}", "why": why}

    def _signed(self, asked: Question) -> Mapping[str, Any]:
        return {
            gate.name: signed_by(asked.entry, gate.keys, self.blobs)
            for gate in asked.declaration.gates
            if isinstance(gate, AuthorGate)
        }

    def _environment(self, manifest: Manifest, problem: str) -> Mapping[str, Any]:
        if manifest.environment is None or self.environments is None:
            return {}
        lock = manifest.environment.digest
        if problem:
            return {"lock": lock, "problem": problem}
        wrong = self.environments.check(lock)
        return {
            "lock": lock,
            "python": str(self.environments.interpreter(lock)),
            "mismatches": [str(one) for one in wrong],
        }


def _named(entry: CatalogueEntry) -> Mapping[str, Any]:
    return {"version": entry.number, "digest": entry.digest}


def _machine() -> Mapping[str, Any]:
    return {
        "host": platform.node(),
        "processors": os.cpu_count() or 0,
        "system": platform.platform(),
        "python": platform.python_version(),
        "turnout": __version__,
    }
