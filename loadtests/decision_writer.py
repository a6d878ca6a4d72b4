"""Writes a decision log as the recorder does, or proves one, in a process of its own, and says what that cost.

``python -m loadtests.decision_writer write FOLDER COUNT``, ``… compact FOLDER`` and ``… verify FOLDER``; one line of
JSON at the end. Segments are compacted after the writing, at the benchmark's own priority: in a gateway that is done
behind everybody else, which on a busy machine says more of the others than of the work.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gateway.checkpoints import DECISIONS, SigningKey
from gateway.clock import SystemClock
from gateway.events.records import Content, RequestRecord
from gateway.messages import Decision, VersionRef
from gateway.telemetry.decisions.log import DecisionLog, LogOptions
from gateway.telemetry.decisions.part import STATISTICS, DecisionPart
from gateway.telemetry.decisions.scribe import Scribe
from gateway.telemetry.decisions.secret import KeyedHash
from gateway.telemetry.decisions.segments import listed
from gateway.telemetry.decisions.verify import verify
from gateway.web.identity import DecisionIds

BURST = 256
TABLE = {
    "revision": 7,
    "routes": {
        "digits": {
            "model": "digits",
            "epoch": 1,
            "weights": {"3": 95, "4": 5},
            "intervals": [[4_080_218_931, 3], [4_294_967_296, 4]],
            "known_good": 3,
            "decisions": {"content": "digest", "redact": [], "refuse": False},
        }
    },
}


def answers(count: int, clock: SystemClock) -> Iterator[list[RequestRecord]]:
    """Bursts of answers that differ in all that differs between real ones."""
    ids, chance = DecisionIds(clock), random.Random(1)
    versions = VersionRef("digits", 3), VersionRef("digits", 4)
    for begin in range(0, count, BURST):
        yield [_answer(number, ids, chance, versions) for number in range(begin, min(begin + BURST, count))]


def _answer(
    number: int, ids: DecisionIds, chance: random.Random, versions: tuple[VersionRef, VersionRef]
) -> RequestRecord:
    place = chance.getrandbits(32)
    version = versions[place >= 4_080_218_931]
    content = Content({"image": np.full((1, 64), number, np.float32)}, {"label": np.array([number % 10 + place])})
    return RequestRecord(
        route="digits",
        request_id=f"{chance.getrandbits(128):032x}",
        decision_id=ids(),
        decision=Decision("digits", version, "split", place, 7, 1),
        answered_by=version,
        code=200,
        chosen_failure=None,
        error=None,
        rows=1,
        started_wall=time.time(),
        duration_s=0.001 + chance.random() / 100,
        queue_s=chance.random() / 1000,
        compute_s=chance.random() / 1000,
        trace_id=f"{chance.getrandbits(128):032x}",
        span_id=f"{chance.getrandbits(64):016x}",
        batch=number // 4 + 1,
        batch_rows=4,
        key=f"user-{place % 100_000}",
        decode_s=chance.random() / 1e4,
        decide_s=1e-5,
        encode_s=chance.random() / 1e4,
        content=content,
    )


def write(folder: Path, count: int) -> dict[str, float]:
    clock = SystemClock()
    log = DecisionLog(folder, SigningKey.of(folder.parent, DECISIONS), clock=clock, options=LogOptions())
    part = DecisionPart(log, Scribe(KeyedHash.of(folder.parent)))
    part.told("table", TABLE)
    part.told("version", {"model": "digits", "number": 3, "digest": "sha256:" + "ab" * 32, "loaded": {"a.onnx": "cd"}})
    taking = cpu = 0.0
    for burst in answers(count, clock):
        began, used = time.perf_counter(), time.process_time()
        part.take(burst)
        part.tick()
        taking += time.perf_counter() - began
        cpu += time.process_time() - used
    written = part.ask(STATISTICS, {})["written"]
    part.close()
    return {
        "written": written,
        "per_second": count / taking,
        "cpu_us": cpu / count * 1e6,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "raw_bytes": sum(segment.log.stat().st_size for segment in listed(folder)) / count,
    }


def compact(folder: Path) -> dict[str, float]:
    """Each closed segment by a process, as the gateway does it."""
    began = time.perf_counter()
    for segment in listed(folder)[:-1]:
        program = (
            f"import sys; from gateway.telemetry.decisions import compaction as c; c.compact(c.Segment({segment.number}"
        )
        command = [sys.executable, "-c", f"{program}, c.Path(sys.argv[1]), True, False))", str(folder)]
        subprocess.run(command, check=True)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": time.perf_counter() - began,
        "cpu_s": children.ru_utime + children.ru_stime,
        "peak_mb": children.ru_maxrss / 1024,
        "bytes": sum(segment.bytes for segment in listed(folder)),
        "segments": len(listed(folder)),
    }


def prove(folder: Path) -> dict[str, float]:
    began, used = time.perf_counter(), time.process_time()
    report = verify(folder)
    return {
        "seconds": time.perf_counter() - began,
        "cpu_s": time.process_time() - used,
        "records": report.records,
        "faults": len(report.faults),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> int:
    folder = Path(sys.argv[2])
    match sys.argv[1]:
        case "write":
            found = write(folder, int(sys.argv[3]))
        case "compact":
            found = compact(folder)
        case _:
            found = prove(folder)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
