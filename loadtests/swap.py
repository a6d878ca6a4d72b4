"""What changing versions costs those who wait for answers: p99 during changes over p99 in quiet.

``python -m loadtests.swap``: a live gateway with the three digits models (scikit-learn, ONNX, torch), 32
closed-loop clients; rounds of quiet and of changes take turns, and medians over the rounds are compared.
A round of changes is weight changes, new versions (loaded, warmed, put on the route) and rollbacks.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway.settings import Settings
from loadtests.closed_loop import Answer, Load
from loadtests.live_gateway import LiveGateway

ROUTE = "digits"


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of load: answers a second and latency in milliseconds."""

    answers: int
    failed: int
    per_second: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Report:
    """Medians over rounds; ``ratio`` is the median of each round's p99 during changes over its quiet one."""

    rounds: int
    clients: int
    weight_changes: int
    new_versions: int
    rollbacks: int
    quiet: Phase
    changing: Phase
    p99_ratios: tuple[float, ...]
    p99_ratio: float
    p50_ratio: float
    failed: int
    rollback_ms: float


@dataclass(frozen=True, slots=True)
class Plan:
    rounds: int
    clients: int
    quiet_s: float


def measure(plan: Plan) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        examples = Path(folder) / "examples"
        subprocess.run([sys.executable, "-m", "gateway.examples.digits", str(examples)], check=True)
        rows = json.loads((examples / "held_out.json").read_text(encoding="utf-8"))
        settings = {"runtimes": {"preload": list(Settings().runtimes.preload)}}
        with LiveGateway(Path(folder) / "home", settings=settings) as gateway:
            good = prepare(gateway, examples)
            return _measure(gateway, examples, good, rows["pixels"], plan)


def prepare(gateway: LiveGateway, examples: Path) -> list[int]:
    """Registers the good examples and puts them on the route; their version numbers."""
    versions = [register(gateway, examples, entry) for entry in listed(examples)]
    gateway.put_route(ROUTE, spec(versions, versions[0]))
    return versions


def listed(examples: Path) -> list[dict[str, Any]]:
    versions: list[dict[str, Any]] = json.loads((examples / "models.json").read_text(encoding="utf-8"))["versions"]
    return versions


def register(gateway: LiveGateway, examples: Path, entry: dict[str, Any], **options: Any) -> int:
    files = {name: f"file:{examples / entry[name]}" for name in ("signature", "example") if entry.get(name)}
    return gateway.register(ROUTE, examples / entry["source"], **files, **options)


def spec(versions: list[int], known_good: int) -> dict[str, Any]:
    weights = [100 // len(versions)] * len(versions)
    split = [{"version": version, "weight": weight} for version, weight in zip(versions, weights, strict=True)]
    return {"model": ROUTE, "split": split, "known_good": known_good, "fallback": known_good}


def _measure(
    gateway: LiveGateway,
    examples: Path,
    good: list[int],
    pixels: list[list[float]],
    plan: Plan,
) -> Report:
    onnx = next(entry for entry in listed(examples) if entry["source"].endswith(".onnx"))
    counts = {"weights": 0, "versions": 0, "rollbacks": 0}
    took: list[float] = []

    def ask(client: int, sequence: int) -> tuple[dict[str, Any], dict[str, str]]:
        return {"inputs": [pixels[(client * 37 + sequence) % len(pixels)]], "key": f"{client}-{sequence}"}, {}

    def change(number: int) -> None:
        for index in range(200 // plan.rounds):
            share = (number * 53 + index * 17) % 100
            gateway.weights(ROUTE, {good[0]: 100 - share, good[1]: share // 2, good[2]: share - share // 2}, wait=False)
            counts["weights"] += 1
        for index in range(max(1, 20 // plan.rounds)):
            fresh = register(gateway, examples, onnx, queue_rows=1000 + number * 100 + index)
            counts["versions"] += 1
            gateway.put_route(ROUTE, spec([good[0], fresh], good[0]))
            started = time.monotonic()
            gateway.rollback(ROUTE)
            took.append(time.monotonic() - started)
            counts["rollbacks"] += 1
            gateway.lift(ROUTE, fresh)
        gateway.put_route(ROUTE, spec(good, good[0]))

    quiet, changing = [], []
    with Load(gateway.port, f"/predict/{ROUTE}", ask, clients=plan.clients) as load:
        time.sleep(2)
        for number in range(plan.rounds):
            quiet.append(_phase(load, lambda: time.sleep(plan.quiet_s)))
            changing.append(_phase(load, functools.partial(change, number)))
    ratios = tuple(b.p99_ms / a.p99_ms for a, b in zip(quiet, changing, strict=True))
    return Report(
        rounds=plan.rounds,
        clients=plan.clients,
        weight_changes=counts["weights"],
        new_versions=counts["versions"],
        rollbacks=counts["rollbacks"],
        quiet=_median(quiet),
        changing=_median(changing),
        p99_ratios=ratios,
        p99_ratio=statistics.median(ratios),
        p50_ratio=statistics.median(b.p50_ms / a.p50_ms for a, b in zip(quiet, changing, strict=True)),
        failed=sum(answer.status != 200 for answer in load.answers),
        rollback_ms=statistics.median(took) * 1000,
    )


def _phase(load: Load, during: Callable[[], None]) -> Phase:
    first, started = load.count(), time.monotonic()
    during()
    answers: list[Answer] = load.answers[first : load.count()]
    seconds = time.monotonic() - started
    times = sorted((answer.finished - answer.started) * 1000 for answer in answers)
    return Phase(
        answers=len(answers),
        failed=sum(answer.status != 200 for answer in answers),
        per_second=len(answers) / seconds,
        p50_ms=times[len(times) // 2],
        p99_ms=times[int(len(times) * 0.99)],
    )


def _median(phases: list[Phase]) -> Phase:
    rows = [asdict(phase) for phase in phases]
    return Phase(**{name: statistics.median(row[name] for row in rows) for name in rows[0]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--quiet-s", type=float, default=8.0)
    chosen = parser.parse_args()
    print(json.dumps(asdict(measure(Plan(chosen.rounds, chosen.clients, chosen.quiet_s))), indent=2))


if __name__ == "__main__":
    main()
