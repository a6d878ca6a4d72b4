"""What ``explain`` is asked: a key and what else a request would say, or what other weights would change."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

__all__ = ["Question"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Question(NamedTuple):
    """``key`` is the request's own; without one, the route's ``key:`` setting looks for it in ``headers`` (lower-case
    names) and ``context``. ``weights`` asks what they would change; ``revision``: as it was then."""

    key: str | None = None
    context: Mapping[str, Any] = _NOTHING
    headers: Mapping[str, str] = _NOTHING
    pin: int | None = None
    weights: Mapping[str, object] | None = None
    revision: int | None = None
