"""A process with the truth's part in it, to be killed: reads what to do line by line, and says when it is done."""

from __future__ import annotations

import sys
from pathlib import Path

from gateway.clock import SystemClock
from gateway.telemetry.feedback.asks import ASK_JOIN
from gateway.telemetry.feedback.part import TruthPart
from tests.telemetry.feedback.stream import FUTURE_MS, cases, record, told


def main() -> None:
    """``python -m tests.telemetry.feedback.victim FILE COUNT``; then ``take FROM TO`` or ``join FROM TO`` on stdin."""
    stream = cases(int(sys.argv[2]), at_ms=FUTURE_MS)
    part = TruthPart(Path(sys.argv[1]), SystemClock())
    part.told("table", told())
    for line in sys.stdin:
        verb, start, end = line.split()
        chosen = stream[int(start) : int(end)]
        if verb == "take":
            part.take([record(case) for case in chosen])
        else:
            part.ask(ASK_JOIN, {"labels": [(case.id, case.label) for case in chosen], "routes": None})
        print("done", flush=True)


if __name__ == "__main__":
    main()
