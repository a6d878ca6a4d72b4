"""What is believed of a version, as bytes that outlive its watcher: a restart, or another replica that leads, goes on.

Arrays are compressed; all else is JSON. Whoever reads bytes that are not what was written begins anew.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from gateway.telemetry.drift.blame import Blame
from gateway.telemetry.drift.calibration import Calibration
from gateway.telemetry.drift.cells import Counts
from gateway.telemetry.drift.judging import Raised, State
from gateway.telemetry.drift.sharing import Tally
from gateway.telemetry.drift.sizes import Effect
from gateway.telemetry.drift.starts import Starts

__all__ = ["Belief", "from_bytes", "to_bytes"]

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Belief:
    """``blames`` of the alarms that stand; ``groups``: every kind of blame that was ever told of. ``seen``: rows that
    ran, counted or not, and ``looked_at`` when the last of them were judged; ``lives`` of the processes that
    counted. ``calibration`` is simulated, ``held_out`` measured on the reference's own rows."""

    state: State
    blames: Mapping[str, Blame] = field(default_factory=dict)
    groups: frozenset[str] = frozenset()
    seen: int = 0
    looked_at: float = 0.0
    lives: frozenset[str] = frozenset()
    calibration: Calibration | None = None
    held_out: Calibration | None = None

    @classmethod
    def begin(cls, tally: Tally, at: float) -> Belief:
        """Nothing is believed, and what was counted until now is nobody's evidence."""
        return cls(State(Starts.begin(tally.counts, at), began_at=at), looked_at=at, lives=tally.lives)


def to_bytes(belief: Belief) -> bytes:
    state, starts = belief.state, belief.state.starts
    windows = {id(one.counts): one.counts for one in state.raised.values()}
    places = {key: place for place, key in enumerate(windows)}
    body = {
        "schema": SCHEMA,
        "now": _text(starts.now),
        "before": None if starts.before is None else _text(starts.before),
        "serials": starts.serials,
        "times": starts.times,
        "opened": starts.opened,
        "windows": [_text(counts) for counts in windows.values()],
        "raised": {name: _raised(one, places[id(one.counts)]) for name, one in state.raised.items()},
        "since": dict(state.since),
        "alarms": state.alarms,
        "began_at": state.began_at,
        "blames": {name: [one.blame, one.cause] for name, one in belief.blames.items()},
        "groups": sorted(belief.groups),
        "seen": belief.seen,
        "looked_at": belief.looked_at,
        "lives": sorted(belief.lives),
        "calibration": None if belief.calibration is None else asdict(belief.calibration),
        "held_out": None if belief.held_out is None else asdict(belief.held_out),
    }
    return json.dumps(body).encode()


def from_bytes(octets: bytes, size: int) -> Belief | None:
    """None for what is no belief about counts of this size."""
    try:
        body = json.loads(octets)
        if body["schema"] != SCHEMA:
            return None
        serials = tuple(map(int, body["serials"]))
        before = None if body["before"] is None else _array(body["before"]).reshape(len(serials), size)
        times = tuple(map(float, body["times"]))
        starts = Starts(_array(body["now"]).reshape(size), serials, before, times, int(body["opened"]))
        windows = [_array(text).reshape(size) for text in body["windows"]]
        raised = {str(name): _raised_from(one, windows) for name, one in body["raised"].items()}
        since = {str(name): int(first) for name, first in body["since"].items()}
        found, held_out = body["calibration"], body.get("held_out")  # which the release before did not keep
        return Belief(
            State(starts, raised, since, int(body["alarms"]), float(body["began_at"])),
            {str(name): Blame(*map(str, one)) for name, one in body["blames"].items()},
            frozenset(map(str, body["groups"])),
            int(body["seen"]),
            float(body["looked_at"]),
            frozenset(map(str, body["lives"])),
            None if found is None else Calibration(**found),
            None if held_out is None else Calibration(**held_out),
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, zlib.error):
        return None


def _raised(one: Raised, window: int) -> dict[str, Any]:
    told = {name: getattr(one, name) for name in ("at", "began", "log_evidence", "rows", "serial")}
    return told | {"effect": asdict(one.effect), "window": window}


def _raised_from(body: Mapping[str, Any], windows: Sequence[Counts]) -> Raised:
    return Raised(
        float(body["at"]),
        float(body["began"]),
        float(body["log_evidence"]),
        Effect(**body["effect"]),
        int(body["rows"]),
        serial=int(body["serial"]),
        counts=windows[int(body["window"])],
    )


def _text(counts: Counts) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(counts, "<i8").tobytes(), 1)).decode("ascii")


def _array(text: str) -> Counts:
    return np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), "<i8").astype(np.int64)
