"""Drift and truth: have inputs or outputs moved, whose doing is it, and how right are the answers?"""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.board import Section, Variable, board
from dashboards.panels import Panel

__all__ = ["drift_and_truth"]


def drift_and_truth() -> Dashboard:
    sections: list[Section] = [Section("Has anything moved?", _moved())]
    return board(
        "turnout-drift-and-truth",
        "Turnout / Drift and truth",
        says="Have inputs or outputs moved since the version was made, whose doing is it, and how right is it?",
        variables=[
            Variable("model", "gateway_version_state", "model"),
            Variable("version", 'gateway_version_state{model=~"$model"}', "version", several=True),
        ],
        sections=sections,
        marks=(),
        span="now-24h",
    )


def _moved() -> list[Panel]:
    return []
