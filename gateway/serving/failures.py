"""What goes wrong behind the wall, by the kind that the runtimes give it, as errors of the gateway."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.errors import DeviceMemoryExhausted, IntegrityError, InvalidInput, LoadError, ModelError, TurnoutError
from gateway.messages import VersionRef

__all__ = ["failure_of"]

_KINDS: Mapping[str, type[TurnoutError]] = {
    "load-failed": LoadError,
    "integrity": IntegrityError,
    "invalid-input": InvalidInput,
    "out-of-memory": DeviceMemoryExhausted,
    "model-error": ModelError,
}
"""As in ``runtimes.base``."""


def failure_of(ref: VersionRef, kind: str, message: object) -> TurnoutError:
    """A kind that nobody knows is the model's fault: it ran when that was said."""
    return _KINDS.get(kind, ModelError)(f"{ref}: {message}")
