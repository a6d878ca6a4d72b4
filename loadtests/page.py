"""docs/benchmarks.md: the figures between its two markers are written here, from results kept as JSON beside it.

A run of some of the work replaces these results and leaves the others with their own date, so that every figure on the
page says when and by which command it was measured.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import sys
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gateway import is_compiled
from loadtests.measurement import Figure, Outcome, Table

__all__ = [
    "BEGIN",
    "END",
    "Result",
    "machine",
    "put_profile",
    "read_results",
    "render",
    "rewrite",
    "unexplained",
    "write_results",
]

BEGIN, END = "<!-- figures: written by python -m loadtests.bench -->", "<!-- end of figures -->"
PROFILES_BEGIN, PROFILES_END = (
    "<!-- profiles: written by python -m loadtests.profile --page -->",
    "<!-- end of profiles -->",
)
_REASON = re.compile(r'<a id="why-([a-z0-9-]+)">')
_PACKAGES = ("uvicorn", "uvloop", "httptools", "orjson", "numpy", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Result:
    """One kind of work: what was found, where, when and how. ``stolen_percent``: of the machine's time, by its host for
    other machines meanwhile; ``others_percent``: by processes that are no part of it. Throughput and latency suffer
    from both, processor time less."""

    outcome: Outcome
    machine: str
    date: str
    command: str
    rounds: int
    seconds: float
    stolen_percent: float = 0.0
    others_percent: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Result:
        found = body["outcome"]
        figures = tuple(Figure(**figure | {"rounds": tuple(figure["rounds"])}) for figure in found["figures"])
        tables = tuple(
            Table(table["title"], tuple(table["head"]), tuple(tuple(row) for row in table["rows"]))
            for table in found["tables"]
        )
        rest = {name: value for name, value in body.items() if name != "outcome"}
        return cls(Outcome(figures, tables, found.get("ran", "")), **rest)


def machine() -> str:
    """Processor, cores, kernel, interpreter and the packages that the figures depend on."""
    cpu = platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    memory = Path("/proc/meminfo").read_text(encoding="utf-8").split()[1]
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    cores = _cores()
    return (
        f"{cpu}, {cores} core{'s' if cores != 1 else ''}, {int(memory) / 1e6:.0f} GB; Linux {platform.release()}; "
        f"Python {sys.version.split()[0]}{', gateway compiled' if is_compiled() else ''}, {packages}"
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def read_results(path: Path) -> dict[str, Result]:
    if not path.exists():
        return {}
    body = json.loads(path.read_text(encoding="utf-8"))
    return {name: Result.from_json(result) for name, result in body.items()}


def write_results(path: Path, results: Mapping[str, Result]) -> None:
    body = {name: result.to_json() for name, result in results.items()}
    path.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def rewrite(page: str, results: Mapping[str, Result]) -> str:
    """What people wrote outside the markers stays. Raises ValueError when the page has lost its markers."""
    before, _, after = _between(page, BEGIN, END)
    return f"{before}{BEGIN}\n\n{render(results, reasons(page))}\n{END}{after}"


def _between(page: str, begin: str, end: str) -> tuple[str, str, str]:
    if begin not in page or end not in page:
        raise ValueError(f"the page has no {begin!r} … {end!r}: put both lines where that belongs")
    before, _, rest = page.partition(begin)
    inside, _, after = rest.partition(end)
    return before, inside, after


def reasons(page: str) -> frozenset[str]:
    """The work whose missed figures the page explains: ``<a id="why-tiny">`` stands before each explanation."""
    return frozenset(_REASON.findall(page))


def unexplained(page: str, results: Mapping[str, Result]) -> list[str]:
    """Work of which some figure is not met and for which the page gives no reason."""
    given = reasons(page)
    return [
        name
        for name, result in results.items()
        if name not in given and any(figure.meets(figure.must) is False for figure in result.outcome.figures)
    ]


def put_profile(page: str, name: str, text: str) -> str:
    """Replaces the profile of that name, or adds it. Raises ValueError when the page has lost its markers."""
    before, inside, after = _between(page, PROFILES_BEGIN, PROFILES_END)
    found = dict(re.findall(r"^### (.+)\n([\s\S]*?)(?=^### |\Z)", inside, re.MULTILINE))
    found[name] = f"\n{text.strip()}\n\n"
    sections = "".join(f"### {title}\n{found[title]}" for title in sorted(found))
    return f"{before}{PROFILES_BEGIN}\n\n{sections}{PROFILES_END}{after}"


def render(results: Mapping[str, Result], given: Container[str] = ()) -> str:
    return "\n".join([*_provenance(results), *_claims(results, given), *_behind(results)])


def _runs(results: Mapping[str, Result]) -> dict[tuple[str, str, str, int, float], dict[str, Result]]:
    """Work that was measured together."""
    runs: dict[tuple[str, str, str, int, float], dict[str, Result]] = {}
    for name, result in results.items():
        key = (result.date, result.command, result.machine, result.rounds, result.seconds)
        runs.setdefault(key, {})[name] = result
    return runs


def _provenance(results: Mapping[str, Result]) -> Iterator[str]:
    for number, ((date, command, where, rounds, seconds), names) in enumerate(_runs(results).items(), 1):
        stolen = f"Of the machine's time its host took up to {max(one.stolen_percent for one in names.values()):.0f}%"
        others = [one.others_percent for one in names.values() if one.others_percent is not None]
        stolen += f", other processes up to {max(others):.0f}%." if others else "."
        usual = f"medians of {rounds} rounds of {seconds:g} s" if rounds > 1 else f"one round of {seconds:g} s"
        length = "; ".join(dict.fromkeys(one.outcome.ran or usual for one in names.values()))
        yield f"{number}. {', '.join(names)}: {date}, `{command}`, {length}. {stolen}"
        yield f"   {where}"
    yield ""


def _claims(results: Mapping[str, Result], given: Container[str]) -> Iterator[str]:
    """The last column is the number of the run above: machine, date, command."""
    numbers = {name: number for number, names in enumerate(_runs(results).values(), 1) for name in names}
    yield "| work | figure | measured | rounds, least to most | must | aim | | run |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, result in results.items():
        for figure in result.outcome.figures:
            yield _claim(figure, f"#why-{name}" if name in given else None, numbers[name])
    yield ""


def _claim(figure: Figure, why: str | None, run: int) -> str:
    sign = "≥" if figure.at_least else "≤"
    wanted = (f"{sign} {number(value)}" if value is not None else "" for value in (figure.must, figure.aim))
    spread = f"{number(min(figure.rounds))} to {number(max(figure.rounds))}" if len(figure.rounds) > 1 else ""
    unit = f" {figure.unit}" if figure.unit else ""
    said = verdict(figure)
    if why is not None and figure.meets(figure.must) is False:
        said += f" ([why]({why}))"
    cells = (figure.work, figure.name, f"**{number(figure.value)}**{unit}", spread, *wanted, said, str(run))
    return "| " + " | ".join(cells) + " |"


def verdict(figure: Figure) -> str:
    if figure.errors:
        return f"**not met: {figure.errors} errors**"
    must, aim = figure.meets(figure.must), figure.meets(figure.aim)
    if must is False:
        return "**not met**"
    if aim is False:
        return "must" if must else "aim missed"
    return "aim" if aim else ""


def number(value: float) -> str:
    """Three digits that count; "none" for a value that does not exist."""
    if math.isnan(value):
        return "none"
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _behind(results: Mapping[str, Result]) -> Iterator[str]:
    for result in results.values():
        for table in result.outcome.tables:
            yield f"**{table.title}**"
            yield ""
            yield _line(table.head)
            yield _line("---" for _ in table.head)
            yield from (_line(row) for row in table.rows)
            yield ""


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
