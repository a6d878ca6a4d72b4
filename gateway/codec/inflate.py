"""Compressed bodies: gzip and deflate under a cap, so that a bomb costs no more than the largest honest body."""

from __future__ import annotations

import gzip
import zlib

from gateway.codec.limits import CodecLimits
from gateway.errors import BadRequest, TooLarge, UnsupportedContent

__all__ = ["accepted_encoding", "deflate", "inflate", "is_compressed"]

_MAX_MEMBERS = 16
_GZIP_WBITS = 31
_ZLIB_WBITS = 15
_RAW_WBITS = -15


def is_compressed(encoding: str) -> bool:
    """Whether a Content-Encoding asks for inflation. UnsupportedContent for what is not handled."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return False
    if name in ("gzip", "x-gzip", "deflate"):
        return True
    raise UnsupportedContent(f"content-encoding {encoding[:60]!r} is not handled; send gzip, deflate or identity")


def inflate(body: bytes, encoding: str, *, max_bytes: int, limits: CodecLimits) -> bytes:
    """The body as it was before compression.

    TooLarge past ``max_bytes`` or the ratio of the limits, BadRequest for a stream that is
    corrupt, cut short, or followed by anything else. Never holds more than the cap.
    """
    allowed = min(max_bytes, max(limits.ratio_free_bytes, len(body) * limits.max_ratio))
    name = encoding.strip().lower()
    try:
        return _inflate_deflate(body, allowed) if name == "deflate" else _inflate_gzip(body, allowed)
    except zlib.error as fault:
        raise BadRequest(f"the body is not valid {name}: {fault}") from None
    except _PastCapError:
        raise TooLarge(
            f"the {name} body of {len(body)} bytes inflates past {allowed} bytes"
            f" (limit {max_bytes} bytes, ratio {limits.max_ratio}); send it uncompressed or smaller"
        ) from None


def accepted_encoding(accept: str) -> str | None:
    """``gzip``, ``deflate`` or None, as an Accept-Encoding header allows; first one named wins."""
    for part in accept.lower().split(","):
        name, _, parameters = part.partition(";")
        name = name.strip()
        weight = parameters.strip().replace(" ", "")
        if name in ("gzip", "deflate") and weight not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            return name
    return None


def deflate(body: bytes, encoding: str) -> bytes:
    """Fast rather than small: level 1. ``deflate`` is the zlib format, as RFC 9110 says."""
    return gzip.compress(body, 1, mtime=0) if encoding == "gzip" else zlib.compress(body, 1)


class _PastCapError(Exception):
    pass


def _inflate_gzip(body: bytes, allowed: int) -> bytes:
    parts: list[bytes] = []
    rest = body
    while rest:  # a gzip file may hold several members
        if len(parts) == _MAX_MEMBERS:  # each member copies the rest, so many small ones would cost a square
            raise BadRequest(f"the gzip body holds more than {_MAX_MEMBERS} members; send one")
        part, rest = _inflate_stream(rest, _GZIP_WBITS, allowed)
        parts.append(part)
        allowed -= len(part)
    if not parts:
        raise BadRequest("the body is empty, expected a gzip stream")
    return b"".join(parts) if len(parts) > 1 else parts[0]


def _inflate_deflate(body: bytes, allowed: int) -> bytes:
    # RFC 9110 means the zlib format; some clients send a bare deflate stream.
    try:
        part, rest = _inflate_stream(body, _ZLIB_WBITS, allowed)
    except zlib.error:
        part, rest = _inflate_stream(body, _RAW_WBITS, allowed)
    if rest:
        raise BadRequest(f"{len(rest)} bytes follow the end of the deflate stream")
    return part


def _inflate_stream(body: bytes, wbits: int, allowed: int) -> tuple[bytes, bytes]:
    stream = zlib.decompressobj(wbits)
    part = stream.decompress(body, allowed + 1)  # one more than allowed tells that there is more
    if len(part) > allowed:
        raise _PastCapError
    if not stream.eof:
        raise BadRequest("the compressed body ends too early; send the whole stream")
    return part, stream.unused_data
