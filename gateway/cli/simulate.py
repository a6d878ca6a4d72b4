"""``turnout simulate``: what a rollout plan would do, before it is let loose."""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gateway.cli.failures import USAGE, CommandFailed
from gateway.cli.output import JsonOption, Output
from gateway.cli.simulation_inputs import plan_of, rate_of, recording_of, route_of, share_of, shares_of
from gateway.cli.simulation_view import notes, picture_of, show
from gateway.control.simulation.arrivals import Traffic
from gateway.control.simulation.recorded import Recording
from gateway.control.simulation.replay import TICK_S, Conduct
from gateway.control.simulation.report import report_of
from gateway.control.simulation.rivals import RIVALS
from gateway.control.simulation.sweep import Sweep, swept
from gateway.control.simulation.world import World

__all__ = ["commands"]

commands = typer.Typer()

_PLOTS = (".svg", ".png")
_PLOTTER = "gateway.cli.detection_plot"


def _option(*names: str, help: str, metavar: str) -> Any:  # noqa: A002 (typer's own name)
    return typer.Option(*names, help=help, metavar=metavar)


@commands.command("simulate")
def simulate(
    *,
    route: Annotated[
        str | None,
        typer.Argument(
            metavar="[ROUTE]", help="Try the plan of this route's rollout, if one runs, with its limit of slowness."
        ),
    ] = None,
    plan: Annotated[Path | None, _option("--plan", metavar="FILE", help="YAML with a rollout's plan.")] = None,
    steps: Annotated[str | None, _option("--steps", metavar="LIST", help="Weights in percent: 1,5,25,50.")] = None,
    traffic: Annotated[
        Path | None,
        _option("--traffic", metavar="FILE", help="A request log, or CSV with time, key and outcome; - reads stdin."),
    ] = None,
    rate: Annotated[str, _option("--rate", metavar="RATE", help="Of made-up traffic: 50/s, 300/min.")] = "50/s",
    requests: Annotated[int, typer.Option("--requests", min=1, max=10**7, help="How many to make up.")] = 50_000,
    keys: Annotated[int, typer.Option("--keys", min=0, max=10**7, help="Users; 0: each request its own.")] = 10_000,
    zipf: Annotated[float | None, typer.Option("--zipf", min=0.0, max=5.0, help="A few users send most: 1.1.")] = None,
    bursts: Annotated[int, typer.Option("--bursts", min=0, max=1000, help="Of failures that hit all versions.")] = 0,
    tied: Annotated[bool, typer.Option("--tied", help="Failures belong to users, who always fail or never.")] = False,
    baseline: Annotated[
        str | None, _option("--baseline", metavar="RATE", help="The known good's errors: 1% (default), or as recorded.")
    ] = None,
    error_rates: Annotated[
        str, _option("--error-rates", metavar="LIST", help="Candidates to try, by their errors.")
    ] = "5%,20%",
    slow: Annotated[
        str | None, _option("--slow", metavar="LIST", help="Candidates to try, by slow answers (baseline: 1%).")
    ] = None,
    disagreement: Annotated[
        str | None, _option("--disagreement", metavar="LIST", help="Candidates to try, by answers that differ.")
    ] = None,
    runs: Annotated[int, typer.Option("--runs", min=1, max=100_000, help="Rollouts of each candidate.")] = 200,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same figures.")] = 1,
    against: Annotated[
        str | None,
        _option("--against", metavar="LIST", help=f"Others on the same requests: {', '.join(RIVALS)}."),
    ] = None,
    look_s: Annotated[
        float | None, typer.Option("--look-s", min=0.1, help="How often those look (default: 30 looks in all).")
    ] = None,
    tick_s: Annotated[float, typer.Option("--tick-s", min=0.05, max=3600.0, help="How often a driver looks.")] = TICK_S,
    approve: Annotated[bool, typer.Option("--approve", help="Open manual gates at once.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", min=0, max=256, help="Processes; 0: one for each core.")] = 0,
    plot: Annotated[
        Path | None, _option("--plot", metavar="FILE", help="Draw the detection curve: an .svg or .png file.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Try a rollout's plan on recorded or made-up traffic: how soon is harm found, and how often where none is?

    Each run is a whole rollout, by the code that runs in a gateway, on requests of its own. The first row is a
    candidate that is as good as the known good: what rolls it back is a false alarm.
    """
    output = Output.standard(machine=json)
    if plot is not None:
        _check_plot(plot)
    found = route_of(route)
    tried = plan_of(plan, steps, found)
    slow_ms = None if found is None else found["spec"].get("limits", {}).get("slow_ms")
    recording = None if traffic is None else recording_of(traffic, route=route, slow_ms=slow_ms)
    made = Traffic(requests, rate_of(rate), keys, zipf, bursts)
    sweep = Sweep(
        conduct=Conduct(tried.plan, tick_s, approve).checked(),
        source=made if recording is None else recording.arrivals,
        worlds=_worlds(_equal(recording, baseline, tied=tied), error_rates, slow, disagreement),
        runs=runs,
        seed=seed,
        rivals=_rivals(against),
        look_s=look_s,
    )
    report = report_of(sweep, _swept(sweep, output, jobs))
    if plot is not None:
        importlib.import_module(_PLOTTER).draw(picture_of(report, tried.name), plot)
        output.note(f"drawn: {plot}")
    if json:
        output.json(report.to_json() | {"plan_name": tried.name})
        return
    for note in notes(recording):
        output.note(note)
    show(output, report, tried)


def _check_plot(plot: Path) -> None:
    """Before the work, not after it."""
    if plot.suffix not in _PLOTS:
        raise CommandFailed(f"--plot {plot}: expected a file that ends in {' or '.join(_PLOTS)}", status=USAGE)
    if not plot.absolute().parent.is_dir():
        raise CommandFailed(f"--plot {plot}: there is no folder {plot.absolute().parent}", status=USAGE)
    if importlib.util.find_spec("matplotlib") is None:
        raise CommandFailed("--plot needs matplotlib, which is not installed: pip install 'turnout[plot]'")


def _rivals(against: str | None) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in (against or "").split(",") if name.strip()))
    unknown = [name for name in names if name not in RIVALS]
    if unknown:
        raise CommandFailed(f"--against {unknown[0]!r}: expected {' or '.join(RIVALS)}", status=USAGE)
    return names


def _equal(recording: Recording | None, baseline: str | None, *, tied: bool) -> World:
    """A candidate that is as good as the known good."""
    if recording is None:
        error = share_of("--baseline", baseline or "1%")
        return World(error, error, tied=tied)
    if baseline is not None:
        raise CommandFailed("--baseline is for made-up traffic; recorded traffic has its own errors", status=USAGE)
    error, slow = recording.error_rate, recording.slow_rate
    return World(error, error, slow, slow, tied=tied)


def _worlds(equal: World, errors: str, slow: str | None, disagreement: str | None) -> tuple[World, ...]:
    """The equal candidate first, then those of each list."""
    found = [equal]
    found += [replace(equal, candidate_error=share) for share in shares_of("--error-rates", errors)]
    found += [replace(equal, candidate_slow=share) for share in shares_of("--slow", slow)]
    found += [replace(equal, disagreement=share) for share in shares_of("--disagreement", disagreement)]
    return tuple(dict.fromkeys(found))


def _swept(sweep: Sweep, output: Output, jobs: int) -> Any:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    quiet = output.machine or not output.notes.is_terminal
    total = sweep.runs * len(sweep.worlds)
    cores = len(os.sched_getaffinity(0))
    with Progress(*columns, console=output.notes, transient=True, disable=quiet) as progress:
        task = progress.add_task("rollouts", total=total)
        return swept(sweep, jobs=min(jobs or cores, total), done=lambda count: progress.advance(task, count))
