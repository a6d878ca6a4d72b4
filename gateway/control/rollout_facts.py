"""What a rollout's steps are decided by, and what is decided: the nouns between evidence, plan and driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gateway.control.documents import RouteDocument

__all__ = ["ACTOR", "Facts", "Finding", "Kind", "Move"]

ACTOR = "rollout"


class Kind(StrEnum):
    WAIT = "wait"
    STEP = "rollout-step"
    GATE = "rollout-gate"
    BAKE = "rollout-bake"
    PAUSE = "rollout-pause"
    EPOCH = "rollout-epoch"
    PROMOTE = "rollout-promoted"
    ABORT = "rollout-aborted"
    ROLL_BACK = "rollback"


@dataclass(frozen=True, slots=True)
class Finding:
    """What the evidence says so far. ``harm`` names the stream in which harm was found; ``lacking`` the streams that
    have not excluded it, each with the units still needed (None: none can be told); ``broken_split`` why the split
    itself is not to be believed. ``detail`` are the numbers behind it."""

    harm: str = ""
    reason: str = ""
    lacking: Mapping[str, int | None] = field(default_factory=dict)
    broken_split: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a driver has seen of the present step. ``units``: of the candidate's evidence; ``quiet_s``: how long there
    was no new one. ``refused``: why the candidate can never serve here. ``unconfirmed``: who has not said yes.
    ``drift``: the alarm that holds the step, where the plan lets one."""

    ready: bool = True
    refused: str = ""
    elapsed_s: float = 0.0
    units: int = 0
    pairs: int = 0
    quiet_s: float = 0.0
    unconfirmed: str = ""
    drift: str = ""


@dataclass(frozen=True, slots=True)
class Move:
    """``waits`` says what the step waits for, in words for people; ``due``: for nothing but its confirmation."""

    kind: Kind
    document: RouteDocument
    reason: str = ""
    waits: tuple[str, ...] = ()
    due: bool = False
