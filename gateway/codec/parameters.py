"""Request parameters that mean the same in both dialects: timeout, priority; and those that are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.codec.faults import describe
from gateway.errors import BadRequest

__all__ = ["read_priority", "read_size", "read_timeout", "refuse_unsupported", "wrong"]


def read_timeout(parameters: Mapping[str, Any]) -> float | None:
    """Seconds. The parameter is in microseconds, 0 for none, as the schedule policy extension says."""
    microseconds = read_size(parameters.get("timeout"), "parameters.timeout")
    return microseconds / 1e6 if microseconds else None


def read_priority(parameters: Mapping[str, Any]) -> str | None:
    """The extension counts from 1, the highest; 0 is the default. The header's names are taken too."""
    value = parameters.get("priority")
    if value is None or (type(value) is int and value == 0):
        return None
    if type(value) is int and value > 0:
        return ("high", "normal", "low")[min(value, 3) - 1]
    if value in ("high", "normal", "low"):
        return str(value)
    raise wrong("parameters.priority", "a whole number from 0, or high, normal or low", value)


def refuse_unsupported(parameters: Mapping[str, Any]) -> None:
    """Parameters whose silent loss would change the answer's meaning; others that are unknown are let be."""
    if parameters.get("sequence_id") not in (None, 0, ""):
        raise BadRequest("sequence_id: stateful sequences are not supported; send each request whole")


def read_size(value: Any, field: str) -> int | None:
    """An optional whole number, not negative."""
    if value is None:
        return None
    if type(value) is not int or value < 0:
        raise wrong(field, "a whole number, not negative", value)
    return value


def wrong(field: str, expected: str, value: Any) -> BadRequest:
    return BadRequest.of(field, expected, "nothing" if value is None else describe(value))
