"""W3C Trace Context: read a caller's ``traceparent`` and ``tracestate``, start or continue a trace, write them again.

https://www.w3.org/TR/trace-context/ (levels 1 and 2). A ``traceparent`` that breaks the grammar
counts as absent, and its ``tracestate`` with it; a bad ``tracestate`` alone is dropped and the
trace goes on. Sampling is decided here, before any span exists, because a span that nobody keeps
still costs ten microseconds: the caller's flag, or else a share of the trace ids.
"""

from __future__ import annotations

import random
import re
from typing import NamedTuple

__all__ = ["Contexts", "TraceContext", "child", "parse"]

_new = tuple.__new__

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_STATE_MEMBER = re.compile(
    r"(?:[a-z0-9][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]",
    re.ASCII,
)
_MAX_HEADER_CHARACTERS = 512
_MAX_STATE_MEMBERS = 32
_SAMPLED, _RANDOM = 0x01, 0x02
_DIGITS = 32 + 16
_IDS_AT_ONCE = 128
_FLAGS = (("0", "1"), ("2", "3"))
"""The flags' digit, by random and sampled."""
_ID_SPACE = 2**64
_NO_SPAN = "0" * 16  # which the specification keeps for "no id"; twice, it is no trace's


class TraceContext(NamedTuple):
    """One span's place in a trace. Ids are lower-case hexadecimal, 32 and 16 digits, never all zero.

    ``parent_span_id`` is the caller's span, None where the trace starts here. ``random`` is
    level 2's flag: the trace id was made at random. ``state`` is passed on as it came.
    """

    trace_id: str
    span_id: str
    sampled: bool
    state: str = ""
    parent_span_id: str | None = None
    random: bool = False

    @property
    def traceparent(self) -> str:
        """The header for the next hop, and for the answer."""
        trace_id, span_id, sampled, _, _, random = self
        return f"00-{trace_id}-{span_id}-0{_FLAGS[random][sampled]}"


def parse(traceparent: str | None, tracestate: str | None = None) -> TraceContext | None:
    """The caller's context (its span is ``span_id``), or None when there is none that the grammar allows.

    Versions above 00 are read by the parts that version 00 knows, as the specification asks.
    """
    if traceparent is None or len(traceparent) > _MAX_HEADER_CHARACTERS:
        return None
    found = _TRACEPARENT.fullmatch(traceparent.strip(" \t"))
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest is not None) or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    bits = int(flags, 16)
    state = _state(tracestate) if tracestate else ""
    return TraceContext(trace_id, span_id, bool(bits & _SAMPLED), state, random=bool(bits & _RANDOM))


def child(caller: TraceContext) -> TraceContext:
    """A new span under the caller's, with the caller's sampling."""
    span_id = f"{random.getrandbits(64) or 1:016x}"
    return TraceContext(caller.trace_id, span_id, caller.sampled, caller.state, caller.span_id, caller.random)


class Contexts:
    """Contexts of requests: the caller's trace continued, or a new one, of which ``ratio`` (0 to 1) are sampled.

    Ids are made a hundred at a time, which takes a tenth of what they cost one by one. They name and do not
    protect, so the system's generator, at seven microseconds a call, is not asked for them.
    """

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        # Compared with an id's lower half as text, in which "g" comes after all digits.
        self._sampled_below = f"{round(ratio * _ID_SPACE):016x}" if ratio < 1 else "g"
        # Ids one behind the other, and where the next one begins.
        self._digits = ""
        self._next = 0

    def __repr__(self) -> str:
        return f"<Contexts [{self._ratio:g} sampled]>"

    def new(self) -> TraceContext:
        """A trace that starts here. Sampled when the id's lower half falls into the first ``ratio`` of its range, as
        OpenTelemetry's ``TraceIdRatioBased`` has it, so that services with equal ratios agree."""
        start = self._next
        if start == len(self._digits):
            self._digits, start = _more_digits(), 0
        end = self._next = start + _DIGITS
        trace_id, span_id = self._digits[start : start + 32], self._digits[start + 32 : end]
        return _new(TraceContext, (trace_id, span_id, trace_id[16:] < self._sampled_below, "", None, True))

    def accept(self, traceparent: str | None, tracestate: str | None = None) -> TraceContext:
        """The caller's trace continued, or a new one."""
        caller = parse(traceparent, tracestate)
        return self.new() if caller is None else child(caller)


def _more_digits() -> str:
    octets = _DIGITS * _IDS_AT_ONCE // 2
    digits = random.getrandbits(8 * octets).to_bytes(octets).hex()  # as text at once, they take five times as long
    return _more_digits() if _NO_SPAN in digits else digits


def _state(header: str) -> str:
    """The members that may be passed on, or nothing: too long, too many, a member that is none, a key twice."""
    if len(header) > _MAX_HEADER_CHARACTERS:
        return ""
    members = [member for part in header.split(",") if (member := part.strip(" \t"))]
    keys = {member.partition("=")[0] for member in members}
    if len(members) > _MAX_STATE_MEMBERS or len(keys) != len(members):
        return ""
    return ",".join(members) if all(_STATE_MEMBER.fullmatch(member) for member in members) else ""
