"""A soak: an hour at 70% of capacity, and whether memory grows, descriptors leak, p99 drifts or anything fails.

It is to run in the background of a machine that does other work, so it costs little: the 20 ms step with four rows a
batch serves some 200 requests a second. Beside it go a trickle of ``tiny`` over two versions (one in a process, one
inline), weight changes between them and scrapes of the metrics. What was found goes to a file as JSON lines, piece by
piece: a soak that is cut short still says something (``--soak-from FILE`` puts it on the page).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from loadtests.cores import Cores, shared
from loadtests.live_gateway import LiveGateway
from loadtests.measurement import Figure, Outcome, Table
from loadtests.models import STEP, TINY, make_model
from loadtests.open_loop import BROKEN, OpenLoop
from loadtests.page import machine
from loadtests.scenarios.rounds import Plan, value_table
from loadtests.servers import Server, place, start_gateway
from loadtests.usage import Held, cpu_s, held, processes

__all__ = ["Piece", "growth_percent", "read_record", "soak", "summary"]

_SHARE = 0.7
_ROWS = 4
_SETTLED_S = 300.0
_LONGEST_PIECE_S = 60.0
_TICK_S = 0.5
_READ_S = 5.0
_CHANGE_S = 15.0
_WINDOW = 5
"""Pieces; at a minute each, five minutes."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A minute of a soak (less in a short one). ``held``: medians by process, called as the version that it runs.

    ``window_p99_ms``: of the five pieces that end with this one, where it is a fifth. ``cpu_percent`` of one core, the
    gateway's and its children's.
    """

    ended_s: float
    rate: float
    statuses: Mapping[str, int]
    p50_ms: float
    p99_ms: float
    window_p99_ms: float | None
    late_p99_ms: float
    tiny_p99_ms: float
    weight_changes: int
    cpu_percent: float
    held: Mapping[str, Mapping[str, float]]
    failures: Sequence[str] = field(default=())

    @property
    def requests(self) -> int:
        return sum(self.statuses.values())

    @property
    def errors(self) -> int:
        return self.requests - self.statuses.get("200", 0) + len(self.failures)

    def total(self, what: str) -> float:
        return sum(each[what] for each in self.held.values())


def percentile(times: Sequence[float] | np.ndarray[Any, np.dtype[np.float64]], percent: float) -> float:
    return float(np.percentile(times, percent)) if len(times) else math.nan


def soak(plan: Plan) -> Outcome:
    total_s = plan.soak_minutes * 60
    pieces = []
    if plan.record is not None:
        head = {"date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "machine": machine()}
        plan.record.write_text(json.dumps(head) + "\n", encoding="utf-8")
    with soaked(plan.folder, shared()) as under_test:
        for piece in _run(under_test, total_s):
            pieces.append(piece)
            if plan.record is not None:
                with plan.record.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(asdict(piece)) + "\n")
            print(
                f"  {piece.ended_s / 60:.1f} min: {piece.requests} requests, {piece.errors} errors, p99 "
                f"{piece.p99_ms:.1f} ms, private {piece.total('private_mb'):.1f} MB, {piece.cpu_percent:.0f}% CPU",
                flush=True,
            )
    return summary(pieces)


@dataclass(frozen=True, slots=True)
class Soaked:
    """A gateway with both models up. ``rate``: 70% of what the 20 ms step can do."""

    live: LiveGateway
    cores: Cores
    rate: float
    versions: tuple[int, int]


@contextlib.contextmanager
def soaked(folder: Path, cores: Cores) -> Iterator[Soaked]:
    settings = {
        "telemetry": {"request_log": str(folder / "soak-requests.jsonl")},
        "runtimes": {"allow_inline": [TINY.name]},
    }
    with start_gateway(folder, "soak", cores, settings=settings) as live:
        place(live, STEP, folder, max_rows=_ROWS)
        first = place(live, TINY, folder)
        second = live.register(TINY.name, make_model(TINY, folder), placement="inline")
        split = [{"version": first, "weight": 50}, {"version": second, "weight": 50}]
        live.put_route(TINY.name, {"model": TINY.name, "split": split})
        server = Server("soak", live.pid, live.port, cores)
        capacity = statistics.median(
            server.closed(STEP.json(), clients=4 * _ROWS, seconds=2).per_second for _ in range(3)
        )
        yield Soaked(live, cores, _SHARE * capacity, (first, second))


def _run(under_test: Soaked, total_s: float) -> Iterator[Piece]:
    piece_s = min(_LONGEST_PIECE_S, max(5.0, total_s / 12))
    began, recent = time.monotonic(), []
    for number in itertools.count(1):
        if time.monotonic() - began > total_s - piece_s / 2:
            return
        side, before = Side(under_test), cpu_s(under_test.live.pid)
        with OpenLoop(
            under_test.live.port,
            STEP.json(),
            rate=under_test.rate,
            seconds=piece_s,
            prefix=under_test.cores.client_prefix,
            seed=number,
        ) as load:
            side.work(until=load.began + piece_s)
            answers = load.answers()
        recent.append(answers.took_ms[answers.status == 200])
        window = None
        if number % _WINDOW == 0:
            window, recent = percentile(np.concatenate(recent), 99), []
        names = {float(BROKEN): "broken"}
        counts = Counter(names.get(status, str(int(status))) for status in answers.status.tolist())
        counts += side.statuses
        yield Piece(
            ended_s=time.monotonic() - began,
            rate=under_test.rate,
            statuses=dict(counts),
            p50_ms=answers.percentile_ms(50),
            p99_ms=answers.percentile_ms(99),
            window_p99_ms=window,
            late_p99_ms=answers.late_p99_ms,
            tiny_p99_ms=percentile(side.took_ms, 99),
            weight_changes=side.changes,
            cpu_percent=100 * (cpu_s(under_test.live.pid) - before) / piece_s,
            held=side.medians(),
            failures=tuple(side.failures),
        )


class Side:
    """What goes on beside the open loop: two ``tiny`` requests a second, weight changes, scrapes, and the readings."""

    def __init__(self, under_test: Soaked) -> None:
        self._soaked = under_test
        self._readings: dict[str, list[Held]] = {}
        self._body = TINY.json()
        self.statuses: Counter[str] = Counter()
        self.took_ms: list[float] = []
        self.failures: list[str] = []
        self.changes = 0

    def work(self, *, until: float) -> None:
        read, changed = 0.0, 0.0
        while (now := time.monotonic()) < until:
            self._ask()
            if now - read >= _READ_S:
                read = now
                self._read()
            if now - changed >= _CHANGE_S:
                changed = now
                self._change()
            time.sleep(max(0.0, min(until, now + _TICK_S) - time.monotonic()))

    def _ask(self) -> None:
        began = time.monotonic()
        try:
            answer = self._soaked.live.client.post(
                self._body.path, content=self._body.body, headers=dict(self._body.headers)
            )
        except httpx.TransportError as error:
            self.failures.append(f"tiny: {error!r}")
            return
        self.statuses[str(answer.status_code)] += 1
        self.took_ms.append((time.monotonic() - began) * 1000)

    def _change(self) -> None:
        """A weight change and a scrape."""
        first, second = self._soaked.versions
        share = 10 + (37 * int(time.monotonic())) % 81
        try:
            self._soaked.live.weights(TINY.name, {first: share, second: 100 - share})
            if "gateway_requests_total" not in self._soaked.live.metrics():
                raise AssertionError("the metrics lack gateway_requests_total")
        except (AssertionError, httpx.TransportError) as error:
            self.failures.append(f"control plane: {str(error)[:300]}")
            return
        self.changes += 1

    def _read(self) -> None:
        try:
            names = {row["pid"]: name for name, row in self._soaked.live.resident().items() if row.get("pid")}
        except (AssertionError, httpx.TransportError) as error:
            self.failures.append(f"reading: {str(error)[:300]}")
            return
        names[self._soaked.live.pid] = "gateway"
        others = 0
        for pid in sorted(processes(self._soaked.live.pid)):
            if pid not in names:
                others += 1
            name = names.get(pid, f"helper process {others}")
            with contextlib.suppress(ProcessLookupError):
                self._readings.setdefault(name, []).append(held(pid))

    def medians(self) -> dict[str, dict[str, float]]:
        found = {}
        for name, readings in self._readings.items():
            rows = [asdict(reading) for reading in readings]
            found[name] = {what: statistics.median(row[what] for row in rows) for what in rows[0]}
        return found


def summary(pieces: Sequence[Piece]) -> Outcome:
    """Raises ValueError when there is nothing to sum up."""
    if not pieces:
        raise ValueError("a soak without a single piece: nothing to sum up")
    total_s, requests = pieces[-1].ended_s, sum(piece.requests for piece in pieces)
    settled_s = min(_SETTLED_S, total_s / 10)
    work = (
        f"{total_s / 60:.0f} minutes' soak, 20 ms model at 70% of its capacity ({pieces[-1].rate:,.0f} requests/s), "
        f"a trickle of `tiny` and weight changes"
    )

    def growth(name: str, sizes: Iterator[tuple[float, float]]) -> Figure:
        value = growth_percent(list(sizes), settled_s=settled_s)
        return Figure(work, f"growth after the first five minutes: {name}", (value,), "%", 2, 0)

    resident = ((piece.ended_s, piece.held["gateway"]["resident_mb"]) for piece in pieces)
    private = ((piece.ended_s, piece.total("private_mb")) for piece in pieces)
    descriptors = ((piece.ended_s, piece.total("descriptors")) for piece in pieces)
    leaked = growth_percent(list(descriptors), settled_s=settled_s)
    errors = float(sum(piece.errors for piece in pieces))
    figures = (
        growth("gateway's resident memory", resident),
        growth("private memory of all processes", private),
        Figure(work, f"errors in {requests:,} requests", (errors,), must=0, aim=0),
        Figure(work, "growth after the first five minutes: open descriptors of all processes", (leaked,), "%"),
    )
    return Outcome(figures, (_by_window(work, pieces), _by_process(work, pieces, settled_s)))


def growth_percent(readings: Sequence[tuple[float, float]], *, settled_s: float) -> float:
    """Of (seconds, size): the last tenth's median over that of the first tenth after ``settled_s``."""
    sizes = [size for at, size in readings if at > settled_s]
    if not sizes:
        raise ValueError(f"no reading after {settled_s:g} s: a soak must last longer")
    tenth = max(1, len(sizes) // 10)
    return 100 * (statistics.median(sizes[-tenth:]) / statistics.median(sizes[:tenth]) - 1)


def read_record(lines: Iterable[str]) -> tuple[str, str, list[Piece]]:
    """Date, machine and pieces of what a soak wrote; its last line may be cut off in the middle."""
    head, *rest = lines
    begin, pieces = json.loads(head), []
    for line in rest:
        with contextlib.suppress(json.JSONDecodeError):
            pieces.append(Piece(**json.loads(line)))
    return begin["date"], begin["machine"], pieces


def _by_window(work: str, pieces: Sequence[Piece]) -> Table:
    rows = []
    for at in range(0, len(pieces), _WINDOW):
        window = pieces[at : at + _WINDOW]
        last = window[-1]
        p99 = last.window_p99_ms if last.window_p99_ms is not None else max(piece.p99_ms for piece in window)
        rows.append(
            (
                round(last.ended_s / 60, 1),
                sum(piece.requests for piece in window),
                sum(piece.errors for piece in window),
                statistics.median(piece.p50_ms for piece in window),
                p99,
                max(piece.late_p99_ms for piece in window),
                statistics.median(piece.tiny_p99_ms for piece in window),
                statistics.median(piece.held["gateway"]["resident_mb"] for piece in window),
                f"{statistics.median(piece.total('private_mb') for piece in window):.1f}",
                int(statistics.median(piece.total("descriptors") for piece in window)),
                statistics.median(piece.cpu_percent for piece in window),
            )
        )
    head = (
        "until minute",
        "requests",
        "errors",
        "p50 ms",
        "p99 ms",
        "client late p99 ms",
        "`tiny` p99 ms",
        "gateway RSS MB",
        "private MB, all",
        "descriptors, all",
        "CPU %",
    )
    return value_table(work, head, rows)


def _by_process(work: str, pieces: Sequence[Piece], settled_s: float) -> Table:
    """At the first piece that counts, and at the last."""
    first = next(piece for piece in pieces if piece.ended_s > settled_s)
    rows = []
    for name, last in pieces[-1].held.items():
        begin = first.held.get(name, {})
        pairs = ((begin.get(what, math.nan), last[what]) for what in ("resident_mb", "private_mb", "descriptors"))
        rows.append((name, *(f"{before:.1f} → {after:.1f}" for before, after in pairs)))
    return value_table(f"{work}: by process", ("process", "RSS MB", "private MB", "descriptors"), rows)
