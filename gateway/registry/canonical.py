"""Canonical JSON: one value has one sequence of bytes, so that a digest can be its name.

UTF-8, keys sorted by code point, no white space. Integers fit 64 bits. Floats are written as
Python's shortest form that reads back the same; NaN and infinities are refused and -0.0 is
written as 0.0. Reading refuses duplicate keys and anything that writing would not have made.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from gateway.errors import RegistryError

__all__ = ["DIGEST_PREFIX", "digest_of", "dumps", "freeze", "loads", "loads_any", "thaw"]

DIGEST_PREFIX = "sha256:"
MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 32
_INTEGERS = range(-(2**63), 2**64)


def digest_of(data: bytes) -> str:
    """``sha256:`` and the hexadecimal SHA-256 of the bytes."""
    return DIGEST_PREFIX + hashlib.sha256(data).hexdigest()


def dumps(value: Any) -> bytes:
    """The canonical bytes. RegistryError names the place of a value that has none."""
    plain = _checked(value, "", 0)
    return json.dumps(plain, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")).encode()


def loads(data: bytes, *, what: str, max_bytes: int = MAX_BYTES) -> Any:
    """Reads bytes that ``dumps`` wrote, and no others. ``what`` names the text in error messages."""
    value = loads_any(data, what=what, max_bytes=max_bytes)
    if dumps(value) != data:
        raise RegistryError(
            f"{what} is JSON but not in canonical form: it was edited, or written by another program. "
            "Restore it from a backup, or register the version again."
        )
    return value


def loads_any(data: bytes, *, what: str, max_bytes: int = MAX_BYTES) -> Any:
    """Reads JSON as people write it, under the same limits: size, depth, no duplicate keys, no NaN."""
    if len(data) > max_bytes:
        raise RegistryError(f"{what} has {len(data)} bytes; at most {max_bytes} are read")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except RecursionError:
        raise RegistryError(f"{what} is nested too deeply; at most {MAX_DEPTH} levels are read") from None
    except ValueError as error:  # includes UnicodeDecodeError and JSONDecodeError
        raise RegistryError(f"{what} is not valid JSON: {error}") from None
    try:
        return _checked(value, "", 0)
    except RegistryError as error:
        raise RegistryError(f"{what}: {error}") from None


def freeze(value: Any) -> Any:
    """The same JSON, immutable through and through; raises as ``dumps`` does."""
    return _frozen(_checked(value, "", 0))


def thaw(value: Any) -> Any:
    """Plain dicts and lists again."""
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [thaw(item) for item in value]
    return value


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return MappingProxyType({key: _frozen(item) for key, item in value.items()})
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    return value


def _checked(value: Any, place: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise RegistryError(f"nested too deeply at {_name(place)}; at most {MAX_DEPTH} levels are kept")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _checked_number(value, place)
    if isinstance(value, str):
        return _checked_text(value, place)
    if isinstance(value, Mapping):
        return _checked_object(value, place, depth)
    if isinstance(value, list | tuple):
        return [_checked(item, f"{place}[{index}]", depth + 1) for index, item in enumerate(value)]
    raise RegistryError(f"{_name(place)}: {type(value).__name__} is not a JSON type")


def _checked_number(value: float, place: str) -> float:
    if isinstance(value, int):
        if value not in _INTEGERS:
            raise RegistryError(f"{_name(place)}: an integer outside 64 bits; write it as a string")
        return int(value)
    if not math.isfinite(value):
        raise RegistryError(f"{_name(place)}: {value!r} is not a JSON number")
    return float(value) + 0.0  # -0.0 + 0.0 is 0.0


def _checked_text(value: str, place: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise RegistryError(f"{_name(place)}: text that is not valid Unicode ({value!r})") from None
    return str(value)


def _checked_object(value: Mapping[Any, Any], place: str, depth: int) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise RegistryError(f"{_name(place)}: key {key!r} is a {type(key).__name__}; keys are strings")
        name = _checked_text(key, place)
        checked[name] = _checked(item, f"{place}.{name}" if place else name, depth + 1)
    return checked


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice!r} appears twice")
    return body


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _name(place: str) -> str:
    return place or "the value"
