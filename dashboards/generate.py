"""Every file that this package writes, and its text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.drift_and_truth import drift_and_truth
from dashboards.overview import overview
from dashboards.provisioning import board_provider, datasources
from dashboards.rollout import rollout
from dashboards.route import route

__all__ = ["FOLDER", "files"]

FOLDER = Path(__file__).parent.parent / "config" / "grafana"


def files() -> Mapping[Path, str]:
    """By path within ``FOLDER``."""
    boards = (overview(), route(), rollout(), drift_and_truth())
    return {
        **{Path("dashboards") / f"{_name(board)}.json": _json(board) for board in boards},
        Path("provisioning/datasources/turnout.yaml"): _yaml(datasources()),
        Path("provisioning/dashboards/turnout.yaml"): _yaml(board_provider()),
    }


def _name(board: Dashboard) -> str:
    return (board.uid or "").removeprefix("turnout-")


def _json(board: Dashboard) -> str:
    return json.dumps(board, cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _yaml(body: Mapping[str, Any]) -> str:
    return "# Written by `make dashboards`; change it there.\n" + yaml.safe_dump(dict(body), sort_keys=False)
