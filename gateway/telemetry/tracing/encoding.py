"""Spans as OTLP has them on the wire: protobuf, written here because nothing else is as quick.

A kept request is six spans with some forty-five attributes. To make the SDK's objects of them and its bytes of those
takes 190 µs, to fill the protocol's own classes directly 44, and to write the bytes 20, most of all because a gateway's
attributes are the same few over and over (route, model, version, ...): such a one is written once. What is decoded from
these bytes is what is decoded from the SDK's; a test compares the two over generated spans.

The format: https://protobuf.dev/programming-guides/encoding/. The messages and the numbers of their fields:
https://github.com/open-telemetry/opentelemetry-proto, ``trace/v1/trace.proto`` and ``common/v1/common.proto``. Before a
field stands its tag, ``number << 3 | kind``, with kind 0 for a number in sevens of bits, 1 for eight bytes, 2 for a
length and so many bytes, 5 for four bytes. Fields may come in any order.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

from gateway.telemetry.tracing.conventions import UNIQUE
from gateway.telemetry.tracing.spans import Attributes, Event, Link, Span

__all__ = ["Encoding"]

Value = str | float | bool

_MOST_KNOWN: Final = 4096
_MOST_BYTES: Final = 256
"""Of an attribute that is kept for the next time: all of them take three megabytes at most, and mostly a hundredth."""

_IDS = struct.Struct("<H16sH8s")
_IDS_AND_TIMES = struct.Struct("<H16sH8sBQBQHI")
_PARENT = struct.Struct("<H8s")
_MOMENT = struct.Struct("<BQ")
_DOUBLE = struct.Struct("<d")
_TRACE_ID, _SPAN_ID, _PARENT_ID = 0x100A, 0x0812, 0x0822  # with their lengths behind them, which never change
_START, _END, _FLAGS = 0x39, 0x41, 0x0185
_LOCAL, _REMOTE = 0x100, 0x300  # where the parent is, or the link's span: "known", and "in another process"
_LINK_FLAGS = b"\x35" + _LOCAL.to_bytes(4, "little")
_WENT_WELL = b"\x7a\x00"


class Encoding:
    """``resource`` is a ``ResourceSpans`` without scopes, ``scope`` a ``ScopeSpans`` without spans; ``state_of`` says
    what of a caller's ``tracestate`` is passed on."""

    def __init__(self, resource: bytes, scope: bytes, state_of: Callable[[str], str]) -> None:
        self._resource = resource
        self._scope = scope
        self._state_of = state_of
        # Attributes as they are written, by type too: True, 1 and 1.0 are equal, and are not written alike.
        self._known: dict[tuple[type, str, Value], bytes] = {}
        # The last links, because a request's queue and its computing have the same.
        self._linked: tuple[tuple[Link, ...], bytes] = ((), b"")

    def __repr__(self) -> str:
        return f"<Encoding [{len(self._known)} attributes known]>"

    def encoded(self, spans: Iterable[Span]) -> list[bytes | None]:
        """None for a span that cannot be written, since its ids, its times or its texts are none. Of one thread."""
        encoded: list[bytes | None] = []
        for span in spans:
            try:
                encoded.append(self._span(span))
            except (AttributeError, TypeError, ValueError, struct.error):
                encoded.append(None)
        return encoded

    def request(self, spans: Iterable[bytes]) -> bytes:
        """An ``ExportTraceServiceRequest``."""
        scope = _field(b"\x12", self._scope + b"".join(spans))
        return _field(b"\x0a", self._resource + scope)

    def _span(self, span: Span) -> bytes:
        name, trace_id, span_id, parent_id, (start, end), attributes, links, events, failed, serves, state = span
        if parent_id is None:
            ids = _octets(trace_id, span_id)
            flags = _LOCAL
        else:
            ids = _octets(trace_id, span_id, parent_id)
            flags = _REMOTE if serves else _LOCAL
        head = _IDS_AND_TIMES.pack(_TRACE_ID, ids[:16], _SPAN_ID, ids[16:24], _START, start, _END, end, _FLAGS, flags)
        if parent_id is not None:
            head += _PARENT.pack(_PARENT_ID, ids[24:])
        head += _described(name, serves) + (_WENT_WELL if failed is None else _failure(failed))
        if events:
            head += b"".join(map(self._event, events))
        if links:
            if links is not self._linked[0]:
                self._linked = links, b"".join(map(self._link, links))
            head += self._linked[1]
        if state and (passed := self._state_of(state)):
            head += _field(b"\x1a", passed.encode())
        return _field(b"\x12", b"\x4a".join([head, *self._pairs(attributes)]) if attributes else head)

    def _event(self, event: Event) -> bytes:
        head = _MOMENT.pack(0x09, event.at_ns) + _field(b"\x12", _utf8(event.name))
        return _field(b"\x5a", b"\x1a".join([head, *self._pairs(event.attributes)]))

    def _link(self, link: Link) -> bytes:
        ids = _octets(link.trace_id, link.span_id)
        head = _IDS.pack(_TRACE_ID, ids[:16], _SPAN_ID, ids[16:]) + _LINK_FLAGS
        return _field(b"\x6a", b"\x22".join([head, *self._pairs(link.attributes)]))

    def _pairs(self, attributes: Attributes) -> list[bytes]:
        """Each a ``KeyValue`` behind its length. The tag, which depends on whose attribute it is, comes between."""
        values = attributes.values()
        keys = zip(map(type, values), attributes, values, strict=True)
        pairs = list(map(self._known.get, keys))
        if all(pairs):
            return pairs  # type: ignore[return-value]
        items = list(attributes.items())
        for at, pair in enumerate(pairs):
            if pair is None:
                pairs[at] = self._pair(*items[at])
        return list(filter(None, pairs))

    def _pair(self, key: str, value: Value) -> bytes:
        """Nothing where the protocol has no form for the value: the SDK leaves it out, too, and keeps its span."""
        if isinstance(value, float):  # seldom the same twice; and where 0.0 and -0.0 are equal, they are not the same
            return _before_double(key) + _DOUBLE.pack(value)
        held = _held(value)
        if held:
            held = _field(b"", _named(key) + _field(b"\x12", held))
            if key not in UNIQUE and len(held) <= _MOST_BYTES:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[type(value), key, value] = held
        return held


def _held(value: str | int | bool) -> bytes:
    """An ``AnyValue``."""
    if isinstance(value, str):
        return _field(b"\x0a", _utf8(value))
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return b"\x18" + _sevens(value & (2**64 - 1))
    return b""


@lru_cache(256)
def _before_double(key: str) -> bytes:
    named = _named(key)
    return _sevens(len(named) + 11) + named + b"\x12\x09\x21"


@lru_cache(256)
def _named(key: str) -> bytes:
    return _field(b"\x0a", _utf8(key))


@lru_cache(256)
def _described(name: str, serves: bool) -> bytes:
    """A span's name and kind."""
    return _field(b"\x2a", _utf8(name)) + (b"\x30\x02" if serves else b"\x30\x01")


def _failure(failed: str) -> bytes:
    """A ``Status``."""
    return _field(b"\x7a", _field(b"\x12", _utf8(failed)) + b"\x18\x02")


def _octets(trace_id: str, span_id: str, parent_id: str | None = None) -> bytes:
    """All in one; what one of them is short of must not come from the next."""
    octets = bytes.fromhex(trace_id + span_id + (parent_id or ""))
    if len(trace_id) != 32 or len(span_id) != 16 or len(octets) != (24 if parent_id is None else 32):
        raise ValueError(f"expected ids of 16, 8 and 8 bytes, got {trace_id!r}, {span_id!r} and {parent_id!r}")
    return octets


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a pair, which JSON can name and UTF-8 cannot
        return text.encode("utf-8", "replace")


def _field(tag: bytes, body: bytes) -> bytes:
    size = len(body)
    return tag + (_LENGTHS[size] if size < _SHORT else _sevens(size)) + body


def _sevens(number: int) -> bytes:
    """Seven bits to a byte, the lowest first; the eighth says that more follow."""
    octets = bytearray()
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)


_SHORT: Final = 2048
_LENGTHS: Final = tuple(map(_sevens, range(_SHORT)))
