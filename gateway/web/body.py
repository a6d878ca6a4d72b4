"""The request's body, received under limits on size, time and compression."""

from __future__ import annotations

import asyncio
from functools import partial

from gateway.codec.inflate import inflate, is_compressed
from gateway.errors import BadRequest, TooLarge, UnsupportedContent
from gateway.web.exchange import ClientLeft, Exchange
from gateway.web.intake import Intake, Share, hasten, late
from gateway.web.services import WebLimits

__all__ = ["check_content_type", "receive_body"]

_INFLATE_IN_THREAD_BYTES = 64 * 1024
"""zlib lets go of the interpreter lock, and below this a thread's round trip costs more than the work."""


async def receive_body(
    exchange: Exchange, limits: WebLimits, *, until_bytes: int | None = None, intake: Intake | None = None
) -> bytes:
    """The whole body, inflated if it was compressed. ``intake`` counts what comes of it.

    Given ``until_bytes``, it stops when as much has come (of a compressed body, an eighth): the start of the body as
    it came, with ``exchange.whole`` False.

    Raises TooLarge (by Content-Length before a byte is read, else while it streams in),
    ReceiveTimeout, BadRequest, UnsupportedContent, QueueFull where bodies hold as much as they may, and ClientLeft
    when the client disconnects.
    """
    encoding = exchange.headers.get("content-encoding", "")
    compressed = is_compressed(encoding) if encoding else False
    _check_length(exchange.headers.get("content-length"), limits.body_bytes)
    until = limits.body_bytes if until_bytes is None else until_bytes // 8 if compressed else until_bytes
    wait = asyncio.timeout(limits.receive_s)
    share = None if intake is None else intake.share(partial(hasten, wait))
    try:
        async with wait:
            body = await _receive(exchange, limits.body_bytes, until, share)
    except TimeoutError:
        raise late(limits.receive_s, gave_way=share is not None and share.gave_way) from None
    finally:
        if share is not None:
            share.end()
    if not compressed or not exchange.whole:
        return body
    if len(body) < _INFLATE_IN_THREAD_BYTES:
        return inflate(body, encoding, max_bytes=limits.body_bytes, limits=limits.codec)
    return await asyncio.to_thread(inflate, body, encoding, max_bytes=limits.body_bytes, limits=limits.codec)


def check_content_type(exchange: Exchange, accepted: frozenset[str]) -> None:
    """UnsupportedContent unless the content type is absent or one of ``accepted``, in UTF-8 if it names a charset."""
    sent = exchange.headers.get("content-type")
    if sent is None or sent in accepted:
        return
    media, _, parameters = sent.partition(";")
    media = media.strip().lower()
    if media not in accepted and not (media.startswith("application/") and media.endswith("+json")):
        raise UnsupportedContent(f"content-type {sent[:80]!r} is not handled; send {' or '.join(sorted(accepted))}")
    charset = _charset(parameters)
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise UnsupportedContent(f"charset {charset[:40]!r} is not handled; send UTF-8")


def _charset(parameters: str) -> str:
    for parameter in parameters.lower().split(";"):
        name, _, value = parameter.partition("=")
        if name.strip() == "charset":
            return value.strip().strip('"')
    return ""


def _check_length(declared: str | None, max_bytes: int) -> None:
    if declared is None:
        return
    if not (declared.isascii() and declared.isdigit() and len(declared) <= 18):
        raise BadRequest(f"content-length: expected a whole number, got {declared[:40]!r}")
    if int(declared) > max_bytes:
        raise _too_large(max_bytes)


async def _receive(exchange: Exchange, max_bytes: int, until_bytes: int, share: Share | None) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await exchange.receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > max_bytes:
            raise _too_large(max_bytes)
        if share is not None:
            share.came(len(part))
        if not message.get("more_body", False):
            exchange.whole = True
            return b"".join((*parts, part)) if parts else part
        parts.append(part)
        if size >= until_bytes:
            return b"".join(parts)


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"the body is larger than the limit of {max_bytes} bytes; send fewer rows a request")
