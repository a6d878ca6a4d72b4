"""Scores one batch and ends: ``python -m gateway.batch.process``, mostly behind everybody else on the machine.

The plan is a line of JSON on standard input. Lines of JSON on standard output tell of it: ``began``, ``answered``,
``records``, ``part``, and at last ``done`` or ``failed``. Where the plan says that records are taken, a part is gone on
from only when a line of any content has come back.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import IO, Any

from gateway.batch.parts import Part
from gateway.batch.plan import BatchPlan
from gateway.batch.scoring import score
from gateway.errors import InvalidInput, TurnoutError
from runtimes.process import be_nice, die_with, name_process, own_group, step_back

__all__ = ["main"]


RECORDS_AT_ONCE = 500
"""A line of them is read by a process that answers requests: a hundred kilobytes, a millisecond."""


class Pipe:
    """A listener at the other end of a pipe. A part that nobody takes ends the process."""

    def __init__(self, out: IO[bytes], answers: IO[bytes], *, told: bool) -> None:
        self._out = out
        self._answers = answers
        self._told = told

    def say(self, event: str, **body: Any) -> None:
        self._out.write(json.dumps({"event": event, **body}).encode() + b"\n")
        self._out.flush()

    def began(self, done: int, total: int | None, batch_rows: int) -> None:
        self.say("began", done=done, total=total, batch_rows=batch_rows)

    def answered(self, done: int) -> None:
        self.say("answered", done=done)

    def part(self, part: Part) -> None:
        if not self._told or part.told:
            return
        for start in range(0, len(part.records), RECORDS_AT_ONCE):
            self.say("records", records=part.records[start : start + RECORDS_AT_ONCE])
        self.say("part", number=part.number, first=part.first, rows=part.rows)
        if not self._answers.readline():
            os._exit(1)  # whoever keeps the records is gone


def main() -> int:
    request: Mapping[str, Any] = json.loads(sys.stdin.buffer.readline())
    own_group()
    die_with(request["parent"])
    name_process("turnout-batch")
    plan = BatchPlan.from_json(request["plan"])
    if plan.priority != "normal":
        be_nice()
    if plan.priority == "idle":
        step_back()  # and so the version's process, which is started from here
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    pipe = Pipe(out, sys.stdin.buffer, told=plan.told)
    try:
        receipt = score(plan, pipe)
    except TurnoutError as error:
        fields = [one.to_json() for one in error.problems] if isinstance(error, InvalidInput) else []
        pipe.say("failed", kind=type(error).__name__, message=str(error), fields=fields)
        return 2
    pipe.say("done", receipt=receipt)
    return 0


if __name__ == "__main__":
    sys.exit(main())
