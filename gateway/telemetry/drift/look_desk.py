"""The process that looks for drift, one look after the other, in the time that others leave. Started by turnout serve.

It imports next to nothing by itself: what it is to do arrives as a pickle, which imports the rest, once the process has
stepped back behind those that answer requests.
"""

from __future__ import annotations

import importlib
import os
import pickle
import sys
from contextlib import suppress
from typing import Any, BinaryIO

from runtimes.process import die_with, ignore_signals, name_process

__all__ = ["main"]

_LOOKS = "gateway.telemetry.drift.looks"
_NICENESS = 15
"""Not the idle class: on a machine that is never idle drift is to be found, too."""
_HEAD = 8
_FAULTS = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError)


def main() -> int:
    ignore_signals()
    die_with(int(sys.argv[1]))
    name_process("turnout drift")
    with suppress(OSError):
        os.nice(_NICENESS)
    references: dict[str, Any] = {}
    looks = importlib.import_module(_LOOKS)
    while (message := _read(sys.stdin.buffer)) is not None:
        look, octets = pickle.loads(message)  # noqa: S301 - the gateway's own, over a pipe that nobody else holds
        answer: object
        try:
            if octets is not None:
                references[look.profile] = looks.reference_of(octets, look.profile)
            answer = look.done(references[look.profile])
        except _FAULTS as fault:  # the gateway tells of it; the next look may be of another profile
            answer = f"{type(fault).__name__}: {fault}"
        packed = pickle.dumps(answer, protocol=5)
        sys.stdout.buffer.write(len(packed).to_bytes(_HEAD, "little") + packed)
        sys.stdout.buffer.flush()
    return 0


def _read(source: BinaryIO) -> bytes | None:
    """None at the end."""
    head = source.read(_HEAD)
    if len(head) < _HEAD:
        return None
    size = int.from_bytes(head, "little")
    message = source.read(size)
    return message if len(message) == size else None


if __name__ == "__main__":
    sys.exit(main())
