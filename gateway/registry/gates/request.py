"""What the process that runs gates is given, and what it says: JSON both ways.

It is given one request on standard input, and says lines on standard output: ``{"stage": …, "done": n, "total": n}``
while it goes on, ``{"finding": …}`` for each gate, and last ``{"end": {"peak_bytes", …}}``. It inherits files as
descriptors, so that nothing can be put in their place meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.messages import Signature
from gateway.registry.gates.declaration import Declaration
from runtimes.base import LoadSpec

__all__ = ["GateRequest", "Side"]


@dataclass(frozen=True, slots=True)
class Side:
    """A version that is asked. ``spec`` None: it cannot be loaded, for the reason in ``problem``. ``example``,
    ``golden``: digests of its blobs, if it has them."""

    ref: str
    number: int
    digest: str
    signature: Signature
    spec: LoadSpec | None = None
    problem: str = ""
    interpreter: str | None = None
    example: str | None = None
    golden: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "ref": self.ref,
            "number": self.number,
            "digest": self.digest,
            "signature": self.signature.to_json(),
            "spec": None if self.spec is None else self.spec.to_json(),
            "problem": self.problem,
            "interpreter": self.interpreter,
            "example": self.example,
            "golden": self.golden,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Side:
        made = dict(body)
        made["spec"] = None if body["spec"] is None else LoadSpec.from_json(body["spec"])
        made["signature"] = Signature.from_json(body["signature"])
        return cls(**made)

    def blobs(self) -> tuple[str, ...]:
        return tuple(one for one in (self.example, self.golden) if one is not None)


@dataclass(frozen=True, slots=True)
class GateRequest:
    """``routes``, ``signed`` (by name of gate), ``environment``: what was found out beforehand for the gates of
    signature, author and environment (see ``checks``). ``load_timeout_s`` bounds a version's loading and each batch."""

    version: Side
    declaration: Declaration
    champion: Side | None = None
    routes: tuple[Mapping[str, Any], ...] = ()
    signed: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    load_timeout_s: float = 120.0

    def to_json(self) -> dict[str, Any]:
        return {
            "version": self.version.to_json(),
            "declaration": self.declaration.to_json(),
            "champion": None if self.champion is None else self.champion.to_json(),
            "routes": [dict(one) for one in self.routes],
            "signed": dict(self.signed),
            "environment": dict(self.environment),
            "load_timeout_s": self.load_timeout_s,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> GateRequest:
        return cls(
            version=Side.from_json(body["version"]),
            declaration=Declaration.from_json(body["declaration"]),
            champion=None if body["champion"] is None else Side.from_json(body["champion"]),
            routes=tuple(body["routes"]),
            signed=body["signed"],
            environment=body["environment"],
            load_timeout_s=float(body["load_timeout_s"]),
        )

    def blobs(self) -> tuple[str, ...]:
        """Digests of all files that the gates read, each once."""
        found = [file.digest for file in self.declaration.blobs()]
        for side in (self.version, self.champion):
            found += [] if side is None else side.blobs()
        return tuple(dict.fromkeys(found))
