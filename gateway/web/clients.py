"""Who asks: the one name by which a request's client is told from others, for fair queues and rate limits.

A token is proof; a key is only the client's word. On an open route a client that makes up a key for every request is
a new client every time, so where clients are not trusted, protect the route (``access: token``).
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Sequence
from typing import Any

__all__ = ["client_of"]

MAX_KEY_CHARS = 128
"""A longer key is named by its hash: names are kept, in queues and in rate limits."""

_MAPPED = bytes(10) + b"\xff\xff"


def client_of(*, token: str | None = None, key: str | None = None, peer: Sequence[Any] | None = None) -> str:
    """The token's name where the route asks for one, else the request's sticky key, else the address it came from.

    ``peer`` is the ASGI scope's ``client``: host and port, or None (a Unix socket). Of an IPv6 address the first
    64 bits count, since whoever has one has all below it.
    """
    if token is not None:
        return "token:" + token
    if key:
        return "key:" + (key if len(key) <= MAX_KEY_CHARS else _hashed(key))
    if peer is None:
        return "peer:"
    host = str(peer[0])
    return "peer:" + (_network(host) if ":" in host else host)


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _network(host: str) -> str:
    try:
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        return host
    if packed.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed[:8] + bytes(8)) + "/64"
