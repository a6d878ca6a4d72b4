"""What a request's headers say: timeout, priority, pin, key and context. Each is checked; what is wrong gets a 400."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from gateway.codec.faults import shorten
from gateway.codec.json_inputs import read_context, read_key
from gateway.codec.limits import CodecLimits
from gateway.errors import BadRequest
from gateway.messages import NOTHING
from gateway.web.headers import Headers

__all__ = ["PRIORITIES", "RequestFacts", "read_facts", "read_version"]

PRIORITIES = frozenset({"high", "normal", "low"})

_MAX_TIMEOUT_MS = 24 * 3600 * 1000


class RequestFacts(NamedTuple):
    """None where the header is absent."""

    timeout_s: float | None
    priority: str | None
    pin: int | None
    key: str | None
    context: Mapping[str, Any]


_NOTHING = RequestFacts(None, None, None, None, NOTHING)
_NAMES = frozenset({b"x-timeout-ms", b"x-priority", b"x-model-version", b"x-key", b"x-context"})


def read_facts(headers: Headers, limits: CodecLimits) -> RequestFacts:
    """BadRequest naming the header and what it should hold."""
    if _NAMES.isdisjoint(headers.raw):
        return _NOTHING
    timeout = headers.get("x-timeout-ms")
    pin = headers.get("x-model-version")
    return RequestFacts(
        timeout_s=None if timeout is None else _whole("x-timeout-ms", timeout, _MAX_TIMEOUT_MS) / 1000,
        priority=_priority(headers.get("x-priority")),
        pin=None if pin is None else read_version(pin, "x-model-version"),
        key=read_key(headers.get("x-key"), "x-key") or None,
        context=_context(headers.get("x-context"), limits),
    )


def read_version(text: str, field: str) -> int:
    """A version number; BadRequest for anything else."""
    return _whole(field, text, 2**31 - 1)


def _whole(field: str, text: str, most: int) -> int:
    stripped = text.strip()
    if not (stripped.isascii() and stripped.isdigit() and len(stripped) <= 12 and 1 <= int(stripped) <= most):
        raise BadRequest.of(field, f"a whole number from 1 to {most}", repr(shorten(text)))
    return int(stripped)


def _priority(text: str | None) -> str | None:
    if text is None:
        return None
    if text not in PRIORITIES:
        raise BadRequest.of("x-priority", "high, normal or low", repr(shorten(text)))
    return text


def _context(text: str | None, limits: CodecLimits) -> Mapping[str, Any]:
    if text is None:
        return NOTHING
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as fault:
        raise BadRequest.of("x-context", "a JSON object", f"{shorten(text)!r} ({fault})") from None
    return read_context(value, "x-context", limits)
