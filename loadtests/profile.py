"""Where a request's processor time goes: ``python -m loadtests.profile tiny --placement inline``, some twenty seconds.

The server is pinned to one core and driven with ``wrk`` from another. First its CPU per request, taking turns with
*bare* (so that there is a ratio to judge by on a shared machine); then py-spy samples it, and each function's share is
multiplied with that cost: microseconds a request, a function's own (its C calls included) and with its callees.

``--native`` names C functions too (slower, and only those that have symbols); ``--gil`` counts only what holds the
interpreter lock; ``--only gateway|child`` keeps one kind of process; ``--save FOLDER`` keeps the folded
stacks. ``--placement bare`` and ``bare-ort`` profile the floors.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from loadtests.cores import pinned
from loadtests.measurement import Ask
from loadtests.models import CNN, IMAGE, MLP, STEP, TINY, Model, make_model
from loadtests.page import machine, put_profile
from loadtests.servers import Server, floor, gateway
from loadtests.stacks import by_function, by_part, by_thread, parse, weigh
from loadtests.usage import each_cpu_s, threads_cpu_s
from loadtests.wrk import MissingTool, closed_loop, require_wrk

__all__ = ["main"]

MODELS = {model.name: model for model in (TINY, MLP, IMAGE, CNN, STEP)}
FLOORS = ("bare", "bare-ort")
_WORTH_US, _WORTH_SHARE = 0.5, 0.005
_ON_THE_PAGE = 15
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"


@dataclass(frozen=True, slots=True)
class Cost:
    """One round: microseconds of processor time a request, of each process by its id; ``per_second`` answers.

    ``threads_s``: of all threads by their ids, seconds in this round.
    """

    each_us: dict[int, float]
    threads_s: dict[int, float]
    per_second: float
    p50_ms: float
    p99_ms: float

    @property
    def all_us(self) -> float:
        return sum(self.each_us.values())


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = parse_arguments(arguments)
    try:
        require_wrk()
        py_spy = find_py_spy()
    except MissingTool as missing:
        print(missing, file=sys.stderr)
        return 2
    model = MODELS[chosen.model]
    ask = model.binary() if chosen.binary else model.json()
    with tempfile.TemporaryDirectory(prefix="turnout-profile-") as name:
        folder = Path(name)
        with floor("bare", pinned()) as bare, server(chosen.placement, model, folder) as profiled:
            cost, ratio = costs(profiled, bare, ask, chosen)
            stacks = sample(py_spy, profiled, cost, ask, chosen)
            show(profiled, cost, stacks, chosen)
            if chosen.page:
                asking = "1 client" if chosen.clients == 1 else f"{chosen.clients} clients"
                named = f"`{chosen.model}`, {chosen.placement}, {asking}, one core"
                text = page_text(profiled, cost, stacks, ratio)
                PAGE.write_text(put_profile(PAGE.read_text(encoding="utf-8"), named, text), encoding="utf-8")
        for pid, lines in stacks.items() if chosen.save else ():
            kind = "gateway" if pid == profiled.pid else f"child-{pid}"
            keep(lines, chosen.save, f"{chosen.model}-{chosen.placement}-{kind}")
    return 0


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument("--placement", default="process", choices=["inline", "process", *FLOORS])
    parser.add_argument("--seconds", type=float, default=6.0, help="of sampling; 0: only the cost")
    parser.add_argument("--rounds", type=int, default=3, help="of a second each, for the cost")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rate", type=int, default=500, help="samples a second")
    parser.add_argument("--top", type=int, default=40)
    parser.add_argument("--binary", action="store_true", help="the binary tensor envelope instead of JSON")
    parser.add_argument("--native", action="store_true")
    parser.add_argument("--gil", action="store_true")
    parser.add_argument("--only", choices=["gateway", "child"])
    parser.add_argument("--page", action="store_true", help="put a short table on docs/benchmarks.md")
    parser.add_argument("--save", type=Path, metavar="FOLDER")
    return parser.parse_args(arguments)


def find_py_spy() -> str:
    beside = Path(sys.executable).parent / "py-spy"
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise MissingTool("the profile needs py-spy: pip install py-spy")
    return found


@contextlib.contextmanager
def server(placement: str, model: Model, folder: Path) -> Iterator[Server]:
    if placement in FLOORS:
        path = make_model(model, folder) if placement == "bare-ort" else None
        with floor(placement, pinned(), model=path) as started:
            yield started
        return
    settings = {"runtimes": {"preload": ["torch"]}} if model is CNN else None
    with gateway(folder, placement, pinned(), [model], placement=placement, settings=settings) as started:
        yield started


def costs(profiled: Server, bare: Server, ask: Ask, chosen: argparse.Namespace) -> tuple[Cost, float]:
    """Prints each round; gives the one whose cost is the median, and the median ratio. Server and bare take turns."""
    for each in (profiled, bare):
        cost_round(each, ask, chosen.clients)
    rounds, ratios = [], []
    for number in range(chosen.rounds):
        order = (profiled, bare) if number % 2 else (bare, profiled)
        found = {each.pid: cost_round(each, ask, chosen.clients) for each in order}
        rounds.append(found[profiled.pid])
        ratios.append(found[profiled.pid].all_us / found[bare.pid].all_us)
        mine = rounds[-1]
        print(
            f"round {number + 1}: {mine.all_us:.1f} µs a request, bare {found[bare.pid].all_us:.1f}, ratio "
            f"{ratios[-1]:.2f}; {mine.per_second:,.0f}/s, p50 {mine.p50_ms:.2f} ms, p99 {mine.p99_ms:.2f} ms",
            flush=True,
        )
    middle = sorted(rounds, key=lambda cost: cost.all_us)[len(rounds) // 2]
    ratio = statistics.median(ratios)
    print(f"median ratio over bare: {ratio:.2f}", flush=True)
    return middle, ratio


def cost_round(server: Server, ask: Ask, clients: int, seconds: float = 1.0) -> Cost:
    before, threads_before = each_cpu_s(server.pid), threads_cpu_s(server.pid)
    found = closed_loop(server.port, ask, clients=clients, seconds=seconds, prefix=server.cores.client_prefix)
    after, threads_after = each_cpu_s(server.pid), threads_cpu_s(server.pid)
    if found.refused or found.broken:
        print(f"{server.name}: {found.refused} refused, {found.broken} broken", flush=True)
    good = max(1, found.good)
    each = {pid: (now - before.get(pid, 0.0)) * 1e6 / good for pid, now in after.items()}
    threads = {thread: now - threads_before.get(thread, 0.0) for thread, now in threads_after.items()}
    return Cost(each, threads, found.good / found.seconds, found.p50_us / 1000, found.p99_us / 1000)


def sample(py_spy: str, server: Server, cost: Cost, ask: Ask, chosen: argparse.Namespace) -> dict[int, list[str]]:
    """Folded stacks of each process that costs something; none when no time is to be spent on them.

    py-spy runs beside the clients, not on the server's core. Its pauses slow the server down and wake threads that
    sleep; neither is in the cost, which was measured before, thread by thread. A py-spy for each process: its own
    --subprocesses puts command lines, line breaks and all, into the stacks.
    """
    if not chosen.seconds:
        return {}
    flags = [flag for flag, wanted in (("--native", chosen.native), ("--gil", chosen.gil)) if wanted]
    flags += ["--format", "raw", "--function", "--threads", "--rate", str(chosen.rate)]
    flags += ["--duration", str(max(1, round(chosen.seconds)))]
    stacks: dict[int, list[str]] = {}
    with tempfile.TemporaryDirectory(prefix="turnout-stacks-") as folder, contextlib.ExitStack() as stack:
        spies = []
        for pid in (pid for pid, each_us in cost.each_us.items() if each_us >= _WORTH_US):
            path = Path(folder) / f"{pid}.txt"
            command = [*server.cores.client_prefix, py_spy, "record", "--pid", str(pid), "--output", str(path), *flags]
            spy = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            spies.append((pid, path, stack.enter_context(spy)))
        closed_loop(
            server.port, ask, clients=chosen.clients, seconds=chosen.seconds + 1, prefix=server.cores.client_prefix
        )
        for pid, path, spy in spies:
            said, _ = spy.communicate(timeout=60)
            if not path.exists():
                raise RuntimeError(f"py-spy ended with {spy.returncode} and wrote no stacks: {said.strip()}")
            stacks[pid] = path.read_text(encoding="utf-8").splitlines()
    return stacks


def show(server: Server, cost: Cost, stacks: Mapping[int, Sequence[str]], chosen: argparse.Namespace) -> None:
    """A table for each process, scaled with its own cost."""
    children = sum(us for pid, us in cost.each_us.items() if pid != server.pid)
    print(f"\ngateway {cost.each_us[server.pid]:.1f} µs a request, its children {children:.1f}")
    for pid, lines in stacks.items():
        kind = "gateway" if pid == server.pid else "child"
        found = weigh(parse(lines), cost.threads_s)
        if not found or chosen.only not in (None, kind):
            continue
        whole, samples = cost.each_us[pid], sum(int(line.rpartition(" ")[2]) for line in lines)
        print(f"\n{kind} {pid}: {whole:.1f} µs a request, {samples} samples")
        print("      µs  thread (an idle one's stacks show where it sleeps, its cost is what it did between)")
        for name, share in by_thread(found):
            print(f"{share * whole:9.2f}  {name}")
        print("   own µs      %  part")
        for name, share in by_part(found):
            print(f"{share * whole:9.2f} {100 * share:6.1f}  {name}")
        print("   own µs      %  inclusive µs      %  function")
        for row in by_function(found)[: chosen.top]:
            print(
                f"{row.own * whole:9.2f} {100 * row.own:6.1f} {row.inclusive * whole:13.2f} "
                f"{100 * row.inclusive:6.1f}  {row.name}"
            )


def page_text(server: Server, cost: Cost, stacks: Mapping[int, Sequence[str]], ratio: float) -> str:
    """The same, shorter, as the page has it."""
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [f"{cost.all_us:.0f} µs of processor time a request, {ratio:.2f} times bare's; {date}; {machine()}", ""]
    for pid, folded in stacks.items():
        found, whole = weigh(parse(folded), cost.threads_s), cost.each_us[pid]
        if not found:
            continue
        kind = "gateway" if pid == server.pid else Path(f"/proc/{pid}/comm").read_text("utf-8").strip()
        lines += [f"{kind}: {whole:.1f} µs", "", "| part | own µs | % |", "|---|---|---|"]
        parts = (part for part in by_part(found) if part[1] >= _WORTH_SHARE)
        lines += [f"| {name} | {share * whole:.1f} | {100 * share:.0f} |" for name, share in parts]
        lines += ["", "| function | own µs | with callees µs |", "|---|---|---|"]
        for row in by_function(found)[:_ON_THE_PAGE]:
            lines.append(f"| `{row.name}` | {row.own * whole:.1f} | {row.inclusive * whole:.1f} |")
        lines.append("")
    return "\n".join(lines)


def keep(lines: Sequence[str], folder: Path, name: str) -> None:
    """The folded stacks, as flamegraph.pl, inferno and speedscope read them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.folded"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"stacks: {path} (open it on speedscope.app, or with flamegraph.pl)")


if __name__ == "__main__":
    sys.exit(main())
