"""The signature on what is sent to others: who has the secret can tell who sent it, when, and that it is whole."""

from __future__ import annotations

import hashlib
import hmac

__all__ = ["HEADER", "sign"]

HEADER = "x-turnout-signature"


def sign(secret: bytes, at: int, body: bytes) -> str:
    """The header's value. ``at`` in seconds since the epoch; signed too, so that what was sent cannot be sent again
    later."""
    digest = hmac.new(secret, str(at).encode("ascii") + b"." + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"
