"""Every figure of docs/benchmarks.md: ``python -m loadtests.bench`` measures them and writes them there.

``--only NAME`` (more than once) measures some of the work and leaves the other figures as they are; ``--quick`` is for
trying out the benchmarks, writes nothing and proves nothing.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from loadtests.measurement import Outcome, Skipped
from loadtests.page import Result, machine, read_results, render, rewrite, unexplained, write_results
from loadtests.peers import PEERS
from loadtests.scenarios import (
    batch,
    batches,
    calm,
    catalogue,
    cost,
    counting,
    decision_log,
    drift,
    everything,
    evidence,
    fair,
    gates,
    long,
    overhead,
    replicas,
    sync,
    traces,
    truth,
)
from loadtests.scenarios.rounds import Plan
from loadtests.usage import machine_time
from loadtests.wrk import MissingTool, require_wrk

__all__ = ["WORK", "main"]

_MUCH_PERCENT = 5
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def _gpu(plan: Plan) -> Outcome:
    """Imported when asked for: it needs packages that a machine without a GPU has no use for."""
    try:
        scenario = importlib.import_module("loadtests.scenarios.gpu")
    except ModuleNotFoundError as missing:
        raise Skipped(f"the GPU benchmark cannot be loaded here: {missing}") from missing
    outcome: Outcome = scenario.gpu(plan)
    return outcome


WORK: Mapping[str, Callable[[Plan], Outcome]] = {
    "tiny": cost.tiny,
    "one-client": cost.one_client,
    "mlp": cost.mlp,
    "image-binary": cost.image_binary,
    "image-json": cost.image_json,
    "cnn": cost.cnn,
    "big-bodies": calm.big_bodies,
    "step": calm.step,
    "overload": calm.overload,
    "telemetry": overhead.telemetry,
    "everything": everything.everything,
    "loading": calm.loading,
    "decide": overhead.decisions,
    "counting": counting.counting,
    "decisions": decision_log.decision_log,
    "traces": traces.traces,
    "truth": truth.truth,
    "sync": sync.sync,
    "memory": overhead.memory,
    "workers": cost.workers,
    "batch-size": batches.batch_size,
    "fair": fair.fair,
    "cache": overhead.cache,
    "swap": overhead.swapping,
    "replicas": replicas.replicas,
    "false-rollbacks": evidence.false_rollbacks,
    "detection": evidence.detecting,
    "drift": drift.drift,
    "gates": gates.gates,
    "catalogue": catalogue.catalogue,
    "batch": batch.batch,
    "gpu": _gpu,
}
"""What a plain run measures, in the order of the page."""

SIMULATED = frozenset({"false-rollbacks", "detection", "drift", "gates", "catalogue"})
"""Neither rounds nor seconds; their outcome says what was run."""

EXTRA: Mapping[str, Callable[[Plan], Outcome]] = {"sweep": cost.sweep, "soak": long.soak}
"""What takes hours, and runs when it is asked for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when all the work could be measured, met or not; 1 when some failed; 2 for a tool that is missing."""
    chosen = parse(arguments)
    if chosen.soak_from is not None:
        return report_soak(chosen)
    try:
        require_wrk()
    except MissingTool as missing:
        print(missing, file=sys.stderr)
        return 2
    command = " ".join(["python -m loadtests.bench", *(sys.argv[1:] if arguments is None else arguments)])
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    names = [name for name in (*WORK, *EXTRA) if name in wanted(chosen)]
    failed = [name for name in names if not run(name, chosen, command, date)]
    if chosen.page:
        results = read_results(chosen.page.with_suffix(".json"))
        silent = unexplained(chosen.page.read_text(encoding="utf-8"), results)
        if silent:
            print(f"not met, and the page does not say why: {', '.join(silent)}; see 'Not met' there", file=sys.stderr)
    if failed:
        print(f"could not be measured: {', '.join(failed)}; see the errors above", file=sys.stderr)
    return 1 if failed else 0


def run(name: str, chosen: argparse.Namespace, command: str, date: str) -> bool:
    """Measures, prints and publishes one kind of work; False when that failed."""
    before = machine_time()
    try:
        outcome = measure(name, chosen)
    except Skipped as reason:
        print(f"{name}: left out: {reason}", flush=True)
        return True
    if outcome is None:
        return False
    stolen, others = machine_time().since(before)
    if others > _MUCH_PERCENT:
        print(f"{name}: other processes took {others:.0f}% of the machine meanwhile; measure again when it is quiet")
    result = Result(outcome, machine(), date, command, chosen.rounds, chosen.seconds, stolen, others)
    print(render({name: result}), flush=True)
    if chosen.page:
        publish(chosen.page, {name: result})
    return True


def report_soak(chosen: argparse.Namespace) -> int:
    """The record's own date and machine stand on the page: it may be from another checkout."""
    date, where, pieces = long.read_record(chosen.soak_from.read_text(encoding="utf-8").splitlines())
    outcome = long.summary(pieces)
    minutes = pieces[-1].ended_s / 60
    result = Result(outcome, where, date, f"python -m loadtests.bench --soak {minutes:.0f}", 1, 60 * minutes)
    print(render({"soak": result}), flush=True)
    if chosen.page:
        publish(chosen.page, {"soak": result})
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=[*WORK, *EXTRA], metavar="NAME", help=", ".join(WORK))
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; the page's figures need five")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one measurement")
    parser.add_argument("--quick", action="store_true", help="one round of a second each; writes no page")
    parser.add_argument("--with", dest="peers", default="", metavar="NAMES", help=f"peers: {', '.join(PEERS)}")
    parser.add_argument("--sweep", action="store_true", help="also every model at 1, 16, 64 and 256 clients")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="only a soak of so many minutes")
    parser.add_argument(
        "--record", type=Path, default=Path("soak.jsonl"), metavar="FILE", help="where a soak writes lines as it goes"
    )
    parser.add_argument(
        "--soak-from", type=Path, metavar="FILE", help="put a soak's recorded lines on the page: a cut-short one's, too"
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="where the figures go")
    parser.add_argument("--no-page", dest="page", action="store_const", const=None, help="print only")
    chosen = parser.parse_args(arguments)
    chosen.peers = tuple(filter(None, chosen.peers.split(",")))
    unknown = [name for name in chosen.peers if name not in PEERS]
    if unknown:
        parser.error(f"--with {unknown[0]}: unknown peer; there are {', '.join(PEERS)}")
    if chosen.quick:
        chosen.rounds, chosen.seconds, chosen.page = 1, 1.0, None
    if chosen.soak is not None:
        chosen.rounds, chosen.seconds = 1, chosen.soak * 60
    if chosen.rounds < 1 or chosen.seconds < 1:
        parser.error("--rounds and --seconds are 1 or more: processor time is counted in steps of 10 ms")
    return chosen


def wanted(chosen: argparse.Namespace) -> list[str]:
    if chosen.soak is not None:
        return ["soak"]
    if chosen.only:
        return list(chosen.only)
    return [*WORK, *(["sweep"] if chosen.sweep else [])]


def measure(name: str, chosen: argparse.Namespace) -> Outcome | None:
    """None, with the traceback printed, when the work itself failed: the other figures are still worth having. Raises
    Skipped when this machine cannot do it."""
    began = time.monotonic()
    length = "simulated" if name in SIMULATED else f"{chosen.rounds} rounds of {chosen.seconds:g} s"
    print(f"{name}: measuring ({length})", flush=True)
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as folder:
        minutes = chosen.soak if chosen.soak is not None else 60.0
        plan = Plan(chosen.rounds, chosen.seconds, Path(folder), chosen.peers, minutes, chosen.record)
        try:
            outcome = {**WORK, **EXTRA}[name](plan)
        except Skipped:
            raise
        except Exception:  # noqa: BLE001  (one broken piece of work must not cost an hour's other figures)
            traceback.print_exc()
            return None
    load = os.getloadavg()[0]
    print(f"{name}: {time.monotonic() - began:.0f} s; the machine's load average is {load:.1f}", flush=True)
    return outcome


def publish(page: Path, fresh: Mapping[str, Result]) -> None:
    """Puts the results on the page, in the page's order, and keeps those of other work that are there."""
    kept = page.with_suffix(".json")
    results = {**read_results(kept), **fresh}
    ordered = {name: results[name] for name in (*WORK, *EXTRA) if name in results}
    text = rewrite(page.read_text(encoding="utf-8"), ordered)
    write_results(kept, ordered)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
