"""The documents of desired state: a route's, with its *spec*, which operators write (``route_spec``), and its *status*,
the system's own; and what is to be resident. They carry a schema number and migrate forward."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.control.follow_state import FollowState
from gateway.control.key_space import Assignments, Weights, migrated
from gateway.control.rollout_state import Proof, RolloutState
from gateway.control.route_spec import ArmSpec, RouteSpec
from gateway.control.store import Body, DocumentKey
from gateway.errors import FieldProblem, InvalidInput, RegistryError, StoreUnavailable
from gateway.registry.migration import Migration, migrate

__all__ = [
    "SCHEMA",
    "Quarantine",
    "ResidentDocument",
    "RouteDocument",
    "RouteStatus",
    "check_route_name",
    "route_key",
]

SCHEMA = 2
MIGRATIONS: Mapping[int, Migration] = {1: migrated}
"""Of routes: from schema number n to a pure function that makes a body of n + 1."""

RESIDENT_SCHEMA = 1
RESIDENT_MIGRATIONS: Mapping[int, Migration] = {}

_ROUTE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NAME_EXPECTED = "1 to 128 letters, digits, dots, dashes or underscores, the first a letter or digit"


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Why a version was taken off a route, when (seconds since the epoch) and by whom (a token or ``guard:<rule>``)."""

    reason: str
    at: float
    by: str

    def to_json(self) -> dict[str, Any]:
        return {"reason": self.reason, "at": self.at, "by": self.by}


@dataclass(frozen=True, slots=True)
class RouteStatus:
    """What the system holds of a route: ``split`` in force, ``assignment`` of keys to arms, and ``epoch``, which counts
    changes of who gets what.

    ``rollout`` is the one that runs, ``last_rollout`` the one that ended last. ``proved``: versions that earned their
    place as known good, newest last. ``follow``: how far it is with the name that the spec follows."""

    split: tuple[ArmSpec, ...]
    known_good: int
    quarantined: Mapping[int, Quarantine] = field(default_factory=dict)
    epoch: int = 1
    rollout: RolloutState | None = None
    last_rollout: RolloutState | None = None
    proved: tuple[Proof, ...] = ()
    assignment: Assignments = field(default_factory=Assignments)
    follow: FollowState | None = None

    def to_json(self) -> dict[str, Any]:
        held = {str(number): why.to_json() for number, why in sorted(self.quarantined.items())}
        # Left out where nothing is followed, so that documents written before are what they were.
        follow = {} if self.follow is None else {"follow": self.follow.to_json()}
        return {
            "split": [arm.model_dump() for arm in self.split],
            "known_good": self.known_good,
            "quarantined": held,
            "epoch": self.epoch,
            "rollout": None if self.rollout is None else self.rollout.to_json(),
            "last_rollout": None if self.last_rollout is None else self.last_rollout.to_json(),
            "proved": [proof.to_json() for proof in self.proved],
            "assignment": self.assignment.to_json(),
            **follow,
        }

    @classmethod
    def from_json(cls, body: Body) -> RouteStatus:
        return cls(
            split=tuple(ArmSpec.model_validate(arm) for arm in body["split"]),
            known_good=int(body["known_good"]),
            quarantined={int(number): Quarantine(**why) for number, why in body["quarantined"].items()},
            epoch=int(body["epoch"]),
            rollout=_rollout(body.get("rollout")),
            last_rollout=_rollout(body.get("last_rollout")),
            proved=tuple(Proof.from_json(proof) for proof in body.get("proved", ())),
            assignment=Assignments.from_json(body["assignment"]),
            follow=None if body.get("follow") is None else FollowState.from_json(body["follow"]),
        )


def _rollout(body: Body | None) -> RolloutState | None:
    return None if body is None else RolloutState.from_json(body)


@dataclass(frozen=True, slots=True)
class RouteDocument:
    spec: RouteSpec
    status: RouteStatus

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "spec": self.spec.to_json(), "status": self.status.to_json()}

    @classmethod
    def from_json(cls, body: Body, *, migrations: Mapping[int, Migration] = MIGRATIONS) -> RouteDocument:
        """Raises StoreUnavailable when the document is newer than this program, or damaged."""
        try:
            body = migrate(body, migrations, SCHEMA, what="the route document")
            return cls(RouteSpec.parse(body["spec"]), RouteStatus.from_json(body["status"]))
        except (AttributeError, KeyError, TypeError, ValueError, InvalidInput, RegistryError) as error:
            raise StoreUnavailable(f"a stored route cannot be read: {error}") from error

    def named(self) -> frozenset[int]:
        """Every version that the spec names, is in force, is the known good, or is being rolled out."""
        candidate = set() if self.status.rollout is None else {self.status.rollout.candidate}
        return self.spec.versions() | {arm.version for arm in self.status.split} | {self.status.known_good} | candidate

    def weights(self) -> tuple[Weights, Mapping[str, Weights]]:
        """Of the split in force, and by name of each rule with arms; without the arms in quarantine."""
        held = self.status.quarantined
        ruled = {
            rule.name: {arm.version: arm.weight for arm in rule.use if arm.version not in held}
            for rule in self.spec.rules
            if isinstance(rule.use, list)
        }
        return {arm.version: arm.weight for arm in self.status.split}, ruled

    def versions(self) -> frozenset[int]:
        """All that the route knows of: those it names, and those in quarantine."""
        return self.named() | set(self.status.quarantined)

    def answering(self) -> frozenset[int]:
        """Of ``versions``, those that may answer a client: a shadow never does."""
        held = set(self.status.quarantined)
        return self.spec.answering() | {arm.version for arm in self.status.split} | {self.status.known_good} | held

    def may_answer(self) -> frozenset[int]:
        """Of ``answering``, those that are not quarantined; and the candidate of a rollout, which soon will."""
        rollout = self.status.rollout
        candidate = frozenset() if rollout is None else frozenset({rollout.candidate})
        return (self.answering() | candidate) - set(self.status.quarantined)

    def routable(self) -> frozenset[int]:
        """The versions that may be asked for an answer: these are kept loaded."""
        return self.versions() - set(self.status.quarantined)


@dataclass(frozen=True, slots=True)
class ResidentDocument:
    """A version that an operator wants loaded although no route names it."""

    model: str
    version: int

    @property
    def key(self) -> DocumentKey:
        return DocumentKey("resident", f"{self.model}/{self.version}")

    def to_json(self) -> dict[str, Any]:
        return {"schema": RESIDENT_SCHEMA, "model": self.model, "version": self.version}

    @classmethod
    def from_json(cls, body: Body, *, migrations: Mapping[int, Migration] = RESIDENT_MIGRATIONS) -> ResidentDocument:
        try:
            body = migrate(body, migrations, RESIDENT_SCHEMA, what="the resident document")
            return cls(str(body["model"]), int(body["version"]))
        except (KeyError, TypeError, ValueError, RegistryError) as error:
            raise StoreUnavailable(f"a stored resident cannot be read: {error}") from error


def check_route_name(name: str) -> str:
    if not _ROUTE_NAME.fullmatch(name):
        problem = FieldProblem("route", _NAME_EXPECTED, repr(name)[:140])
        raise InvalidInput(f"route name {name!r:.140}: expected {_NAME_EXPECTED}", problem)
    return name


def route_key(name: str) -> DocumentKey:
    return DocumentKey("route", name)
