"""The recorder's process: an interpreter of its own with few imports, started by the node, ended with it.

Which parts it has is said in plain options; what each takes is described where it is built.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from gateway.clock import Clock, SystemClock
from gateway.recording.desk import Desk
from gateway.recording.parts import Part
from gateway.telemetry.decisions.assembly import decision_part
from gateway.telemetry.feedback.asks import ASK_CLOCK
from gateway.telemetry.feedback.opening import truth_part
from gateway.telemetry.request_log import RequestLog
from gateway.telemetry.sink import DescriptorSink
from gateway.telemetry.tracing.part import traces_part
from runtimes.process import die_with, give_back_code, give_back_heap, ignore_signals, keep_heap, name_process

__all__ = ["build_parts", "main"]

_NICENESS = 5
_KEPT_HEAP_BYTES = 8 * 1024 * 1024
"""A burst and what is made of it are a megabyte or two, which come and go fifty times a second."""
_END_S = 10


SHOWN = ("request-log", "traces", "decisions", ASK_CLOCK)


def build_parts(options: Mapping[str, Any], fds: Sequence[int], clock: Clock) -> list[Part]:
    """``request_log``: ``{limit}``, and the log's descriptor is the first; ``traces``: ``ExportOptions``."""
    parts: list[Part] = []
    left = list(fds)
    if (request_log := options.get("request_log")) is not None:
        sink = DescriptorSink(left.pop(0))
        parts.append(RequestLog(sink, clock=clock, limit=request_log["limit"], prompt=sink.prompt))
    if (traces := options.get("traces")) is not None:
        parts.append(traces_part(traces))
    if (decisions := options.get("decisions")) is not None:
        parts.append(decision_part(decisions, clock))
    if (truth := options.get("truth")) is not None:
        parts.append(truth_part(truth, clock))
    return parts


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gateway.recording.process", description="Started by turnout serve.")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    given = parser.parse_args(arguments)
    ignore_signals()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # The gateway is gone: what it sent is read to its end, but not for ever.
    signal.signal(signal.SIGUSR1, lambda *_: signal.alarm(_END_S))
    die_with(given.parent, signal.SIGUSR1)
    name_process("turnout records")
    keep_heap(_KEPT_HEAP_BYTES)
    with suppress(OSError):
        os.nice(_NICENESS)  # requests go first; what it does not manage meanwhile waits for it, within bounds
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    clock = SystemClock()

    def build(options: Mapping[str, Any], fds: Sequence[int]) -> list[Part]:
        parts = build_parts(options, fds, clock)
        gc.collect()
        gc.freeze()  # what start has made stays, and need not be looked at again
        gc.set_threshold(10_000, 20, 20)  # beyond what a burst makes and drops
        give_back_code()
        return parts

    desk = Desk(socket.socket(fileno=given.fd), build, clock, shown=SHOWN, rest=give_back_heap)
    desk.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
