"""What the gates found: a finding each, with its numbers; and the whole, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gateway.registry.fields import Fields

__all__ = ["Finding", "Report", "State"]


class State(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    """It could not be looked at: as good as failed, since nothing was shown."""
    SKIPPED = "skipped"
    """It does not apply: no champion to compare with."""


@dataclass(frozen=True, slots=True)
class Finding:
    """``said``: one sentence with the figures that decided. ``numbers``: all of them, as JSON."""

    name: str
    kind: str
    state: State
    said: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    took_s: float = 0.0

    @property
    def passes(self) -> bool:
        return self.state in (State.PASSED, State.SKIPPED)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "state": str(self.state),
            "said": self.said,
            "numbers": dict(self.numbers),
            "took_s": round(self.took_s, 3),
        }

    @classmethod
    def from_json(cls, body: Any, place: str = "finding") -> Finding:
        """RegistryError, or ValueError for a state that is none."""
        with Fields(body, place) as take:
            return cls(
                name=take.text("name"),
                kind=take.text("kind"),
                state=State(take.text("state")),
                said=take.free_text("said"),
                numbers=take.mapping("numbers"),
                took_s=take.number("took_s"),
            )


@dataclass(frozen=True, slots=True)
class Report:
    """Of one version. ``against``: the champion's number and digest, if there is one. Times in seconds since the
    epoch."""

    model: str
    version: int
    digest: str
    findings: tuple[Finding, ...]
    declaration: str
    basis: str
    against: Mapping[str, Any] | None = None
    purpose: str = ""
    started_at: float = 0.0
    ended_at: float = 0.0
    machine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return all(finding.passes for finding in self.findings)

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(finding.name for finding in self.findings if not finding.passes)

    def sentence(self) -> str:
        """Why it does not pass, with the numbers."""
        told = [f"{one.name}: {one.said}" for one in self.findings if not one.passes]
        return "; ".join(told)

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "version": self.version,
            "digest": self.digest,
            "passed": self.passed,
            "gates": [finding.to_json() for finding in self.findings],
            "declaration": self.declaration,
            "basis": self.basis,
            "against": None if self.against is None else dict(self.against),
            "purpose": self.purpose,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "machine": dict(self.machine),
        }
