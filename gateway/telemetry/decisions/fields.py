"""What a decision's record says, field by field, and its one canonical form.

A record is a JSON array in the order of ``COLUMNS``, less its trailing nulls, without floats: the same record always
has the same bytes, so a hash over them can be made again from a table's columns. Times are whole microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

__all__ = ["COLUMNS", "PLACE", "SCHEMA", "Line", "decoded", "encoded", "named"]

SCHEMA = 1

COLUMNS = (
    "decision",  # the server's id
    "request",
    "started",  # microseconds since the epoch
    "duration_us",
    "route",
    "model",
    "version",  # the one that was chosen
    "answered",  # the one whose outputs were returned
    "code",
    "reason",  # pin, rule:<name>, split, fallback
    "bucket",
    "revision",  # of the routing table
    "epoch",
    "rows",
    "queue_us",
    "compute_us",
    "decode_us",
    "decide_us",
    "encode_us",
    "batch",
    "batch_rows",
    "slow",
    "protocol",
    "trace",
    "span",
    "parent_span",
    "key",  # keyed hash of the routing key
    "inputs",  # digest
    "outputs",  # digest
    "client",  # the client's own id
    "failure",  # what the chosen version met, also when a fallback answered
    "error",
    "flag",
    "variant",
    "provider",
    "flag_age_ms",
    "flag_stale",
    "redacted",  # names of the tensors that were left out
    "payload",  # JSON text
)
PLACE: Mapping[str, int] = {name: place for place, name in enumerate(COLUMNS)}

Line = list[Any]


def encoded(line: Sequence[Any]) -> bytes:
    """Text that is not Unicode (half of a surrogate pair, out of a client's JSON) is written with question marks."""
    end = len(line)
    while end and line[end - 1] is None:
        end -= 1
    try:
        return orjson.dumps(line[:end])
    except TypeError:
        return orjson.dumps([_sound(value) for value in line[:end]])


def _sound(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return [_sound(one) for one in value] if isinstance(value, list) else value


def decoded(text: bytes | str) -> Line:
    """All columns. Raises ValueError for what is no record."""
    line = orjson.loads(text)
    if not isinstance(line, list) or len(line) > len(COLUMNS):
        raise ValueError(f"not a decision's record: {text[:80]!r}")
    return line + [None] * (len(COLUMNS) - len(line))


def named(line: Iterable[Any]) -> dict[str, Any]:
    """The record by the names of its fields."""
    return dict(zip(COLUMNS, line, strict=False))
