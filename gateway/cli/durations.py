"""Spans of time as people write them: ``90s``, ``15m``, ``2h``, ``1d``, or a bare number of seconds."""

from __future__ import annotations

import re

from gateway.cli.failures import USAGE, CommandFailed

__all__ = ["seconds_of"]

_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|m|h|d)?")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds_of(text: str, option: str) -> float:
    """CommandFailed, with the option's name, for what is no span."""
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise CommandFailed(f"{option} is {text!r:.40}; expected a time like 90s, 15m, 2h or 1d", status=USAGE)
    return float(found[1]) * _SECONDS[found[2] or "s"]
