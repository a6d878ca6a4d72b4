"""The decoder's process: reads one text after another out of shared memory, and writes typed arrays into another.

It answers with the facts of the envelope and, for the signature that it was told, the arrays or why
they do not fit. A blocking loop without threads; it ends with the gateway.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import orjson

from gateway.codec.inflate import inflate
from gateway.codec.json_inputs import PredictEnvelope
from gateway.codec.large import Envelope, LargeText
from gateway.codec.limits import CodecLimits
from gateway.decoding.wire import FACTS, receive, refusal_of, send
from gateway.errors import TooLarge, TurnoutError
from gateway.messages import Array, Signature
from runtimes.channel import Plan
from runtimes.memory import Memory
from runtimes.process import die_with, go_first, ignore_signals, keep_heap, name_process

__all__ = ["facts_of", "main", "serve"]

_NICENESS = 5
_KEPT_HEAP_BYTES = 256 * 1024 * 1024
"""A parser takes ten times the text for a moment, and faulting that in was a third of a decoding. The process ends when
no large body has come for a while."""
_KEPT_MAPPINGS = 4
_LARGE_BYTES = 4 * 1024 * 1024
_HUGE_BYTES = 32 * 1024 * 1024


def serve(channel: socket.socket, *, limits: CodecLimits, body_bytes: int) -> None:
    """Returns when the gateway closes the channel."""
    attached = _Attached()
    while (came := receive(channel)) is not None:
        message, fds = came
        text, output = (attached.memory(fd, writable=writable) for fd, writable in zip(fds, (False, True), strict=True))
        send(channel, _answer(message, text, output, limits, body_bytes))
        if message["size"] > _LARGE_BYTES:
            attached.let_go()
        if message["size"] > _HUGE_BYTES:
            ctypes.CDLL(None).malloc_trim(0)


class _Attached:
    """The memories that came last, mapped still: mapping and faulting them anew was a tenth of a decoding.

    Known by inode, which no other file can have while it is mapped.
    """

    def __init__(self) -> None:
        self._memories: dict[int, Memory] = {}

    def memory(self, fd: int, *, writable: bool) -> Memory:
        """Owns the descriptor from here on."""
        number = os.fstat(fd).st_ino
        known = self._memories.pop(number, None)
        if known is None:
            known = Memory.attach(fd, writable=writable)
            known.forget_fd()
        else:
            os.close(fd)
        self._memories[number] = known
        if len(self._memories) > _KEPT_MAPPINGS:
            self._memories.pop(next(iter(self._memories))).close()
        return known

    def let_go(self) -> None:
        """Pages stay for as long as anybody maps them, and large ones are to go when the gateway lets go of them."""
        for memory in self._memories.values():
            memory.close()
        self._memories.clear()


def _answer(
    message: dict[str, Any], text: Memory, output: Memory, limits: CodecLimits, body_bytes: int
) -> dict[str, Any]:
    view = memoryview(text.buffer)[: message["size"]]
    try:
        body = view
        if message["encoding"]:
            inflated = inflate(bytes(view), message["encoding"], max_bytes=body_bytes, limits=limits)
            body = memoryview(inflated)
        return _decode(LargeText(body, message["protocol"], limits), message["signature"], output)
    except TurnoutError as error:
        return {"refused": refusal_of(error)}
    except MemoryError:
        return {"refused": refusal_of(TooLarge("the body takes more memory than there is; send fewer rows"))}


def _decode(large: LargeText, wanted: dict[str, Any] | None, output: Memory) -> dict[str, Any]:
    facts = np.frombuffer(orjson.dumps(facts_of(large.envelope)), np.uint8)
    arrays: dict[str, Array] = {}
    rows, unfit = None, None
    if wanted is not None:
        try:
            fitted, rows = large.fit(Signature.from_json(wanted))
            arrays.update(fitted)
        except TurnoutError as error:
            unfit = refusal_of(error)
    plan = Plan([{FACTS: facts, **arrays}], [FACTS, *arrays], rows=rows)
    if plan.total_bytes > output.size_bytes:
        raise TooLarge(f"the body's tensors take {plan.total_bytes} bytes; {output.size_bytes} is the most")
    return {"header": plan.write(output), "rows": rows, "unfit": unfit}


def facts_of(envelope: Envelope) -> dict[str, Any]:
    """What is in an envelope beside its tensors."""
    facts: dict[str, Any] = {
        "id": envelope.id,
        "key": envelope.key,
        "context": dict(envelope.context),
        "timeout_s": envelope.timeout_s,
        "priority": envelope.priority,
        "outputs": None,
        "binary_default": False,
    }
    if not isinstance(envelope, PredictEnvelope):
        facts["binary_default"] = envelope.binary_default
        if envelope.outputs is not None:
            facts["outputs"] = [[output.name, output.binary, output.classification] for output in envelope.outputs]
    return facts


def main(arguments: Sequence[str]) -> None:
    """``--fd N --parent PID --limits JSON --body-bytes N``."""
    parser = argparse.ArgumentParser("gateway.decoding.process")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--limits", required=True)
    parser.add_argument("--body-bytes", type=int, required=True)
    told = parser.parse_args(arguments)
    die_with(told.parent)
    ignore_signals()
    go_first()
    name_process("turnout decode")
    os.nice(_NICENESS)  # a large body waits rather than the many small ones beside it
    keep_heap(_KEPT_HEAP_BYTES)
    with suppress(ConnectionError):  # the gateway is gone, and so is the work
        channel = socket.socket(fileno=told.fd)
        serve(channel, limits=CodecLimits(**orjson.loads(told.limits)), body_bytes=told.body_bytes)


if __name__ == "__main__":
    main(sys.argv[1:])
