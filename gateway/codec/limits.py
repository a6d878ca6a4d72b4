"""What a body may cost before anyone looks at its meaning, and JSON read under these limits."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from gateway.errors import BadRequest, TooLarge

__all__ = ["CodecLimits", "Document", "count_strings", "read_document"]


_FEW_QUOTES = 32


@dataclass(frozen=True, slots=True)
class CodecLimits:
    """``max_depth`` counts nested lists and objects; ``max_elements`` the values of one request, all tensors
    together; ``max_context_values`` the values of a request's context. ``max_ratio`` bounds what a compressed
    body may grow to, beyond the first ``ratio_free_bytes``."""

    max_depth: int = 32
    max_elements: int = 16 * 1024 * 1024
    max_context_values: int = 10_000
    max_ratio: int = 200
    ratio_free_bytes: int = 1024 * 1024


class Document(NamedTuple):
    """A JSON object as read, with what the text tells faster than the values do.

    ``strings`` is the number of strings in the text, keys included; ``words`` False proves that
    neither a boolean nor a null is in it.
    """

    value: dict[str, Any]
    text: bytes | memoryview
    strings: int
    words: bool


def read_document(text: bytes | memoryview, limits: CodecLimits) -> Document:
    """Raises BadRequest when the text is not a JSON object, TooLarge when it is too deep or holds too many values.

    A body that could hold more than ``max_elements`` has its commas counted before it is parsed.
    Depth beyond the parser's own limit (1024) is refused by it; the rest is checked where values
    are used, so that plain rows need no walk of their own.
    """
    raw = bytes(text) if isinstance(text, memoryview) else text
    if len(raw) > 2 * limits.max_elements:  # each value takes two bytes
        _refuse_too_many(raw.count(b",") + 1, limits)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as fault:
        if "depth limit" in fault.msg:
            raise TooLarge(f"the body is nested deeper than the limit of {limits.max_depth} levels") from None
        raise BadRequest(f"the body is not valid JSON: {fault}") from None
    if not isinstance(value, dict):
        raise BadRequest(f"the body is a JSON {_kind(value)}, expected an object")
    return Document(value, raw, _count_string_tokens(raw), _may_hold_words(raw))


def _refuse_too_many(values: int, limits: CodecLimits) -> None:
    if values > limits.max_elements:
        raise TooLarge(f"the body holds {values} or more values, the limit is {limits.max_elements}; send fewer rows")


def count_strings(value: Any, limits: CodecLimits, *, max_values: int | None = None) -> int:
    """Strings in a parsed value, keys included. No recursion; TooLarge past ``max_depth`` or ``max_values``."""
    strings = 0
    values = 0
    level: list[Any] = [value]
    for _ in range(limits.max_depth + 1):
        strings += list(map(type, level)).count(str)
        lists = [item for item in level if type(item) is list]
        objects = [item for item in level if type(item) is dict]
        strings += sum(map(len, objects))
        values += len(level)
        if max_values is not None and values > max_values:
            raise TooLarge(f"more than {max_values} values where a small object was expected")
        if not lists and not objects:
            return strings
        level = list(itertools.chain(*lists, *(item.values() for item in objects)))
    raise TooLarge(f"the body is nested deeper than the limit of {limits.max_depth} levels")


def _count_string_tokens(raw: bytes) -> int:
    """Every string of a valid JSON text has two quotes that are not escaped."""
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    quotes, start = 0, raw.find(b'"')
    while start >= 0 and quotes < _FEW_QUOTES:  # find skips ten times faster than count where quotes are rare
        quotes += 1
        start = raw.find(b'"', start + 1)
    return (quotes if start < 0 else quotes + raw.count(b'"', start)) // 2


def _may_hold_words(raw: bytes) -> bool:
    # The single letters first: a scan for one byte is ten times faster than one for a word.
    return (b"r" in raw and b"true" in raw) or (b"l" in raw and (b"null" in raw or b"false" in raw))


def _kind(value: object) -> str:
    if value is None:
        return "null"
    return {list: "list", str: "string", bool: "boolean"}.get(type(value), "number")
