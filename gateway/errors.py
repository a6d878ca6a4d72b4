"""Everything that can go wrong, by meaning; ``gateway.web.problem_table`` maps it to HTTP in one table.

TurnoutError
├── BadRequest                the envelope cannot be read
├── InvalidInput              a tensor does not fit the signature, or a value is out of range
├── TooLarge                  a limit on size, depth, elements or compression was passed
├── UnsupportedContent        content type or encoding not handled
├── Unauthenticated           no or wrong token
├── Forbidden                 the token lacks the role or the route; a pin where pins are denied
├── NotFound
│   ├── UnknownRoute
│   ├── UnknownModel
│   └── UnknownVersion
├── Conflict                  the state forbids it
│   ├── Quarantined           the version was rolled back from this route
│   ├── GateRefused           a gate of the model holds the version back; ``report`` has the numbers
│   └── Fenced                who asks has led, and another leads now
├── StaleRevision             If-Match does not match
├── Overloaded                come back after ``retry_after_s``
│   ├── QueueFull
│   ├── DeadlineUnreachable   the predicted wait alone would pass the deadline
│   └── RateLimited
├── DeadlineExceeded          the deadline passed after the request was admitted
├── VersionFailed             the chosen version did not deliver: a fallback may
│   ├── VersionUnavailable    not loaded, draining, backing off
│   │   └── NotBegun          its process ended under an earlier batch; nothing of this one ran
│   ├── ModelError            the model raised
│   ├── VersionCrashed        its process died on this work
│   ├── VersionHung           its process did not answer in time
│   └── DeviceMemoryExhausted one row does not fit the device
├── LoadError                 a version cannot be loaded
│   └── IntegrityError        stored bytes are not what the manifest names
├── RegistryError             an artifact or manifest cannot be stored or read
│   ├── InvalidRegistration   what was offered is not taken: a name, a file, an option, a version that does not load
│   ├── StorageFull           the disk, or the quota, of the home is used up
│   └── SourceUnavailable     the system that a source is in does not answer, or not in time
├── StoreUnavailable          desired state cannot be read or written
│   ├── RecorderUnavailable   what is written of requests (decisions, labels) cannot be asked for or added to now
│   └── StoreRefused          the store came back empty, older or as another one: an operator must decide
├── ServiceDraining           the gateway is shutting down
├── DecisionLogFull           the route wants no answer that cannot be recorded
└── SettingsError             configuration: file, key, value, expectation
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "BadRequest",
    "Conflict",
    "DeadlineExceeded",
    "DeadlineUnreachable",
    "DecisionLogFull",
    "DeviceMemoryExhausted",
    "Fenced",
    "FieldProblem",
    "Forbidden",
    "GateRefused",
    "IntegrityError",
    "InvalidInput",
    "InvalidRegistration",
    "LoadError",
    "ModelError",
    "NotBegun",
    "NotFound",
    "Overloaded",
    "Quarantined",
    "QueueFull",
    "RateLimited",
    "RecorderUnavailable",
    "RegistryError",
    "ServiceDraining",
    "SettingsError",
    "SourceUnavailable",
    "StaleRevision",
    "StorageFull",
    "StoreRefused",
    "StoreUnavailable",
    "TooLarge",
    "TurnoutError",
    "Unauthenticated",
    "UnknownModel",
    "UnknownRoute",
    "UnknownVersion",
    "UnsupportedContent",
    "VersionCrashed",
    "VersionFailed",
    "VersionHung",
    "VersionUnavailable",
]


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One field of bad input: where it stands, what was expected, what came."""

    field: str
    expected: str
    got: str

    def to_json(self) -> dict[str, str]:
        return {"field": self.field, "expected": self.expected, "got": self.got}


class TurnoutError(Exception):
    """Base of all errors Turnout raises on purpose. The message says what happened and what to do."""


class BadRequest(TurnoutError):
    def __init__(self, message: str, *problems: FieldProblem) -> None:
        super().__init__(message)
        self.problems = problems

    @classmethod
    def of(cls, field: str, expected: str, got: str) -> BadRequest:
        """One field (or header, or parameter) that does not hold what it should."""
        return cls(f"{field}: expected {expected}, got {got}", FieldProblem(field, expected, got))


class InvalidInput(TurnoutError):
    def __init__(self, message: str, *problems: FieldProblem) -> None:
        super().__init__(message)
        self.problems = problems


class TooLarge(TurnoutError):
    pass


class UnsupportedContent(TurnoutError):
    pass


class Unauthenticated(TurnoutError):
    pass


class Forbidden(TurnoutError):
    pass


class NotFound(TurnoutError):
    pass


class UnknownRoute(NotFound):
    pass


class UnknownModel(NotFound):
    pass


class UnknownVersion(NotFound):
    pass


class Conflict(TurnoutError):
    pass


class Quarantined(Conflict):
    pass


class GateRefused(Conflict):
    """``report``: what each gate found, as plain JSON."""

    def __init__(self, message: str, report: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.report = report or {}


class Fenced(Conflict):
    pass


class StaleRevision(TurnoutError):
    pass


class Overloaded(TurnoutError):
    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFull(Overloaded):
    pass


class DeadlineUnreachable(Overloaded):
    pass


class RateLimited(Overloaded):
    pass


class DeadlineExceeded(TurnoutError):
    pass


class VersionFailed(TurnoutError):
    pass


class VersionUnavailable(VersionFailed):
    pass


class NotBegun(VersionUnavailable):
    pass


class ModelError(VersionFailed):
    pass


class VersionCrashed(VersionFailed):
    pass


class VersionHung(VersionFailed):
    pass


class DeviceMemoryExhausted(VersionFailed):
    pass


class LoadError(TurnoutError):
    pass


class IntegrityError(LoadError):
    pass


class RegistryError(TurnoutError):
    pass


class InvalidRegistration(RegistryError):
    pass


class StorageFull(RegistryError):
    pass


class SourceUnavailable(RegistryError):
    pass


class StoreUnavailable(TurnoutError):
    pass


class RecorderUnavailable(StoreUnavailable):
    pass


class StoreRefused(StoreUnavailable):
    pass


class ServiceDraining(TurnoutError):
    pass


class DecisionLogFull(TurnoutError):
    pass


class SettingsError(TurnoutError):
    pass
