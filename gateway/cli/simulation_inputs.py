"""What ``turnout simulate`` is given, read and checked: plan, traffic, rates and shares."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gateway.cli.connection import perform
from gateway.cli.failures import USAGE, CommandFailed
from gateway.control.rollout_plan import PlanSpec
from gateway.control.simulation.recorded import Recording, read_recording
from gateway.environment import client_settings
from gateway.yaml_reading import read_yaml

__all__ = ["Tried", "plan_of", "rate_of", "recording_of", "route_of", "share_of", "shares_of"]

Json = Mapping[str, Any]

_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:/\s*(s|min|h))?")
_PER: Mapping[str | None, float] = {None: 1.0, "s": 1.0, "min": 60.0, "h": 3600.0}
_SHARE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(%?)")
_CANDIDATE = 2
MAX_RATE_PER_S = 1e6


class Tried(NamedTuple):
    """A plan, and what to call it."""

    plan: PlanSpec
    name: str


def route_of(name: str | None) -> Json | None:
    """The route's document; None without a name, or where neither a gateway nor a home is there to ask."""
    client = client_settings()
    if name is None or (client.url is None and not client.home.is_dir()):
        return None
    return perform(lambda backend: backend.route(name))


def plan_of(file: Path | None, steps: str | None, route: Json | None) -> Tried:
    """The plan in the file, else that of the rollout that runs on the route, else the careful one; ``steps`` replace
    its steps."""
    if file is not None:
        body, name = _read_plan(file), f"the plan in {file.name}"
    else:
        rollout = None if route is None else route["status"].get("rollout")
        body = {} if rollout is None else dict(rollout["plan"])
        name = "the careful plan" if rollout is None else f"the plan of rollout {rollout['id']}"
    if steps is not None:
        body["steps"] = [_step(text) for text in steps.split(",")]
        name += ", with other steps"
    return Tried(PlanSpec.parse({"candidate": _CANDIDATE} | body), name)


def _read_plan(file: Path) -> dict[str, Any]:
    try:
        body = read_yaml(sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CommandFailed(f"--plan {file}: it is not YAML ({error})", status=USAGE) from None
    if not isinstance(body, dict):
        raise CommandFailed(f"--plan {file}: expected a plan's fields, such as steps and alpha", status=USAGE)
    return body


def _step(text: str) -> float:
    try:
        return float(text.strip().removesuffix("%"))
    except ValueError:
        raise CommandFailed(
            f"--steps: expected weights in percent like 1,5,25,50, got {text!r}", status=USAGE
        ) from None


def recording_of(file: Path, *, route: str | None, slow_ms: float | None) -> Recording:
    """Raises InvalidInput, which names the line."""
    if str(file) == "-":
        return read_recording(sys.stdin.buffer, route=route, slow_ms=slow_ms)
    with file.open("rb") as lines:
        return read_recording(lines, route=route, slow_ms=slow_ms)


def rate_of(text: str) -> float:
    """Requests a second, from ``50/s``, ``300/min``, ``9000/h`` or a number of them a second."""
    match = _RATE.fullmatch(text.strip())
    rate = 0.0 if match is None else float(match[1]) / _PER[match[2]]
    if not 0 < rate <= MAX_RATE_PER_S:
        raise CommandFailed(f"--rate {text!r}: expected requests in a time, like 50/s or 300/min", status=USAGE)
    return rate


def shares_of(option: str, text: str | None) -> tuple[float, ...]:
    """``1%,5%`` or ``0.01,0.05``."""
    return tuple(share_of(option, part.strip()) for part in (text or "").split(",") if part.strip())


def share_of(option: str, text: str) -> float:
    match = _SHARE.fullmatch(text)
    share = -1.0 if match is None else float(match[1]) / (100 if match[2] else 1)
    if not 0 <= share <= 1:
        raise CommandFailed(f"{option}: expected shares like 1%,5% or 0.01, got {text!r}", status=USAGE)
    return share
