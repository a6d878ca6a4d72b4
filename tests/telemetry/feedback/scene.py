"""The truth's part as a process after another has it, and what is asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.clock import ManualClock
from gateway.telemetry.feedback.asks import ASK_JOIN, ASK_REPORT
from gateway.telemetry.feedback.nouns import Bounds
from gateway.telemetry.feedback.part import TruthPart
from tests.telemetry.feedback.stream import told


def restarted(path: Path, clock: ManualClock, bounds: Bounds | None = None) -> TruthPart:
    part = TruthPart(path, clock, bounds)
    part.told("table", told())
    part.tick()
    return part


def join(part: TruthPart, *labels: tuple[str, Any]) -> list[str]:
    return [verdict[0] for verdict in part.ask(ASK_JOIN, {"labels": labels, "routes": None})["verdicts"]]


def send(part: TruthPart, sender: str, *ids: str) -> list[str]:
    asked = {"labels": [(one, 1, sender) for one in ids], "routes": None}
    return [verdict[0] for verdict in part.ask(ASK_JOIN, asked)["verdicts"]]


def report(part: TruthPart) -> dict[str, Any]:
    return dict(part.ask(ASK_REPORT, {"route": "digits", "days": 0}))
