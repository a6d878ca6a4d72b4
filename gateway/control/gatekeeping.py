"""What changes of aliases, rollouts and targets ask before they take a version: may it, by the gates of its model?

The answer is given by ``gateway.control.gate_control``; a place without gates has ``OpenGate``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.errors import Conflict
from gateway.registry import canonical
from gateway.registry.catalogue import ModelDocument

__all__ = ["NO_GATES", "GateOutcome", "Gatekeeper", "OpenGate", "Override", "compares_with", "declaration_digest"]

NO_GATES = ""
"""The digest of a declaration that is not there."""


@dataclass(frozen=True, slots=True)
class Override:
    """An administrator's leave to pass gates that refuse. Who calls has checked the role."""

    reason: str


@dataclass(frozen=True, slots=True)
class GateOutcome:
    """The version may pass. ``declaration``: digest of what it passed. ``record``: digest of the signed record, None
    where nothing was asked; ``overridden``: the reason why it passed although a gate refused; then ``failed`` names
    the gates. ``beside``: the alias of the version that it was compared with, and that version, if by name."""

    declaration: str = NO_GATES
    record: str | None = None
    overridden: str | None = None
    failed: tuple[str, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    beside: tuple[str, int | None] | None = None

    def detail(self) -> dict[str, Any]:
        """For the audit record of what was let pass; empty where nothing was asked."""
        if self.record is None and self.overridden is None:
            return {}
        held = {"record": self.record} if self.overridden is None else {"overridden": self.overridden}
        return {"gates": held | ({"failed": list(self.failed)} if self.failed else {})}

    def check(self, model: ModelDocument, number: int) -> None:
        """Conflict when the model asks for something else of the version now than what was passed."""
        if declaration_digest(model) != self.declaration:
            raise Conflict(f"the gates of model {model.name} were changed while its version passed them; try again")
        if self.beside is None or self.overridden is not None:
            return
        alias, before = self.beside
        now = model.aliases.get(alias)
        if now not in (before, number):
            was, is_now = ("nothing" if one is None else f"{model.name}/{one}" for one in (before, now))
            raise Conflict(
                f"{model.name}/{number} was compared with {was} while @{alias} was moved to {is_now}; try again, to "
                "compare it with that"
            )


class Gatekeeper(Protocol):
    async def require(
        self,
        model: str,
        version: int,
        *,
        purpose: str,
        against: int | None = None,
        override: Override | None = None,
        actor: str,
    ) -> GateOutcome:
        """Returns when the version may pass; raises GateRefused, with the numbers, when it may not.

        ``purpose``: ``alias:<name>``, ``rollout:<route>`` or ``target:<name>``. ``against``: the version to compare
        with; None: the one that the declaration's alias names. UnknownModel, UnknownVersion, StoreUnavailable.
        """
        ...


class OpenGate:
    """Lets everything pass."""

    async def require(
        self,
        model: str,
        version: int,
        *,
        purpose: str,
        against: int | None = None,
        override: Override | None = None,
        actor: str,
    ) -> GateOutcome:
        return GateOutcome()


def compares_with(model: ModelDocument, alias: str) -> bool:
    """Whether a gate of the model holds a version against the one of this name."""
    if model.gates is None or model.gates.get("champion") != alias:
        return False
    gates = model.gates["gates"]
    return any(
        gate["kind"] in ("champion", "python") or gate.get("of") == "champion" or "at_most_ratio" in gate
        for gate in gates
    )


def declaration_digest(model: ModelDocument) -> str:
    if model.gates is None:
        return NO_GATES
    return canonical.digest_of(canonical.dumps(canonical.thaw(model.gates)))
