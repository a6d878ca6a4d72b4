"""The one table from error to status: what HTTP makes of each, and what a client makes of it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gateway import errors
from gateway.errors import BadRequest, TurnoutError

__all__ = ["TABLE", "ReceiveTimeout", "Row"]


class ReceiveTimeout(BadRequest):
    """The client took too long to send its body. Only HTTP knows this one, hence here."""


@dataclass(frozen=True, slots=True)
class Row:
    """``kind`` ends the problem's type URI. ``retry_after_s``: where coming back helps and the error has no time
    of its own."""

    status: int
    kind: str
    title: str
    retry_after_s: float | None = None


TABLE: Mapping[type[TurnoutError], Row] = MappingProxyType(
    {
        errors.TurnoutError: Row(500, "internal", "The gateway failed"),
        errors.BadRequest: Row(400, "bad-request", "The request cannot be read"),
        ReceiveTimeout: Row(408, "receive-timeout", "The body did not arrive in time"),
        errors.InvalidInput: Row(422, "invalid-input", "The input does not fit"),
        errors.TooLarge: Row(413, "too-large", "A limit on the request was passed"),
        errors.UnsupportedContent: Row(415, "unsupported-content", "The content is not handled"),
        errors.Unauthenticated: Row(401, "unauthenticated", "A valid token is needed"),
        errors.Forbidden: Row(403, "forbidden", "Not allowed"),
        errors.NotFound: Row(404, "not-found", "There is nothing here"),
        errors.UnknownRoute: Row(404, "unknown-route", "There is no such route"),
        errors.UnknownModel: Row(404, "unknown-model", "There is no such model"),
        errors.UnknownVersion: Row(404, "unknown-version", "There is no such version"),
        errors.Conflict: Row(409, "conflict", "The present state forbids it"),
        errors.Quarantined: Row(409, "quarantined", "The version is quarantined"),
        errors.GateRefused: Row(409, "gate-refused", "A gate holds the version back"),
        errors.Fenced: Row(409, "fenced", "Another replica leads now"),
        errors.StaleRevision: Row(412, "stale-revision", "The document has changed"),
        errors.Overloaded: Row(429, "overloaded", "Too much work"),
        errors.QueueFull: Row(429, "queue-full", "The queue is full"),
        errors.DeadlineUnreachable: Row(429, "deadline-unreachable", "The deadline cannot be met"),
        errors.RateLimited: Row(429, "rate-limited", "Too many requests"),
        errors.DeadlineExceeded: Row(504, "deadline-exceeded", "The deadline has passed"),
        errors.VersionFailed: Row(500, "version-failed", "The version failed"),
        errors.VersionUnavailable: Row(503, "version-unavailable", "Nothing can answer now", 1.0),
        errors.NotBegun: Row(503, "not-begun", "The work had not begun", 1.0),
        errors.ModelError: Row(500, "model-error", "The model raised"),
        errors.VersionCrashed: Row(500, "version-crashed", "The version's process died on this request"),
        errors.VersionHung: Row(500, "version-hung", "The version did not answer"),
        errors.DeviceMemoryExhausted: Row(500, "device-memory-exhausted", "The device's memory does not suffice"),
        errors.LoadError: Row(409, "load-error", "The version cannot be loaded"),
        errors.IntegrityError: Row(409, "integrity-error", "The stored bytes are not what the manifest names"),
        errors.RegistryError: Row(500, "registry-error", "An artifact cannot be stored or read"),
        errors.InvalidRegistration: Row(422, "invalid-registration", "The registry does not take this"),
        errors.StorageFull: Row(507, "storage-full", "The disk is full"),
        errors.SourceUnavailable: Row(502, "source-unavailable", "The source's system does not answer", 10.0),
        errors.StoreUnavailable: Row(503, "store-unavailable", "The store of desired state does not answer", 1.0),
        errors.RecorderUnavailable: Row(503, "recorder-unavailable", "What is recorded cannot be reached now", 1.0),
        errors.StoreRefused: Row(503, "store-refused", "The store of desired state is not the one that was left", 1.0),
        errors.ServiceDraining: Row(503, "draining", "The gateway is shutting down", 1.0),
        errors.DecisionLogFull: Row(503, "decision-log-full", "The answer could not be recorded", 1.0),
        errors.SettingsError: Row(500, "settings-error", "The configuration is wrong"),
    }
)
"""A class that is not here takes its base's row."""
