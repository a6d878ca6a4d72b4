"""A home with a decision log in it, and answers to record there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.checkpoints import DECISIONS, Checkpoint, SigningKey, read_notes
from gateway.clock import Clock, ManualClock
from gateway.events.records import RequestRecord
from gateway.messages import Decision, VersionRef
from gateway.telemetry.decisions.compaction import compact
from gateway.telemetry.decisions.frames import CONTROL, Frame, read_frames
from gateway.telemetry.decisions.log import DecisionLog, LogOptions
from gateway.telemetry.decisions.notes import NOTES_FILE
from gateway.telemetry.decisions.part import DecisionPart
from gateway.telemetry.decisions.scribe import Scribe
from gateway.telemetry.decisions.secret import KeyedHash
from gateway.telemetry.decisions.segments import listed

KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))), DECISIONS)
BEGAN_MS = 1_700_000_000_000
TABLE = {
    "revision": 7,
    "routes": {
        "digits": {
            "model": "digits",
            "epoch": 2,
            "weights": {"3": 95, "4": 5},
            "intervals": [[4_080_218_931, 3], [4_294_967_296, 4]],
            "known_good": 3,
            "decisions": {"content": "digest", "redact": [], "refuse": False},
        }
    },
}
VERSION = {"model": "digits", "number": 3, "digest": "sha256:ab", "loaded": {"model.onnx": "cd"}}


def decision_id(number: int) -> str:
    """A UUID of version 7 whose time is the number's, a millisecond each."""
    text = f"{BEGAN_MS + number:012x}"
    return f"{text[:8]}-{text[8:]}-7000-8000-{number:012x}"


def answer(number: int, **changes: Any) -> RequestRecord:
    version = VersionRef("digits", 3 + (number % 20 == 0))
    settled: dict[str, Any] = {
        "route": "digits",
        "request_id": f"request-{number}",
        "decision_id": decision_id(number),
        "decision": Decision("digits", version, "split", number * 7919 % 2**32, 7, 2),
        "answered_by": version,
        "code": 200,
        "chosen_failure": None,
        "error": None,
        "rows": 1,
        "started_wall": (BEGAN_MS + number) / 1e3,
        "duration_s": 0.004,
        "key": f"user-{number % 100}",
    }
    return RequestRecord(**{**settled, **changes})


def answers(count: int, start: int = 0) -> Iterator[list[RequestRecord]]:
    """In bursts, as the gateway sends them."""
    for begin in range(start, start + count, 256):
        yield [answer(number) for number in range(begin, min(begin + 256, start + count))]


def open_part(folder: Path, clock: Clock | None = None, **options: Any) -> DecisionPart:
    return DecisionPart(open_log(folder, clock, **options), Scribe(KeyedHash(bytes(32))))


def open_log(folder: Path, clock: Clock | None = None, **options: Any) -> DecisionLog:
    labels = (("build", "1.0"), ("instance", "here"))
    return DecisionLog(folder, KEY, clock=clock or ManualClock(), options=LogOptions(labels=labels, **options))


def written(folder: Path, count: int = 1000, **options: Any) -> Path:
    """A log of so many answers, ended in good order."""
    part = open_part(folder, **options)
    part.told("table", TABLE)
    part.told("version", VERSION)
    for burst in answers(count):
        part.take(burst)
    part.close()
    return folder


def compact_closed(folder: Path) -> None:
    """All but the last segment."""
    for segment in listed(folder)[:-1]:
        if segment.raw:
            compact(segment)


def frames(path: Path) -> list[Frame]:
    with path.open("rb") as file:
        return [found for found in read_frames(file) if isinstance(found, Frame)]


def controls(folder: Path, event: str) -> list[dict[str, Any]]:
    """Control records of one kind, in segments that are still frames."""
    lines: Sequence[bytes] = [
        line for one in listed(folder) if one.raw for frame in frames(one.log) if frame.kind == CONTROL
        for line in frame.lines
    ]  # fmt: skip
    return [found for line in lines if (found := orjson.loads(line))["event"] == event]


def checkpoints(folder: Path) -> list[Checkpoint]:
    return [KEY.public.open(note) for note in read_notes((folder / NOTES_FILE).read_text(), DECISIONS)[0]]
