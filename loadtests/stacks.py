"""Stacks that py-spy sampled ("outer;inner 12" a line), added up by function: its own time, and that with callees."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

__all__ = ["Function", "Stack", "by_function", "by_part", "by_thread", "parse", "weigh"]

_LINE = re.compile(r":\d+\)$")
_THREAD = re.compile(r"^thread \((\d+)\)(?:: (.*))?$")


@dataclass(frozen=True, slots=True)
class Stack:
    """``functions`` from the outermost to the one that ran; ``weight``: samples, or what a caller makes of them."""

    thread: int
    thread_name: str
    functions: tuple[str, ...]
    weight: float


@dataclass(frozen=True, slots=True)
class Function:
    """``own`` and ``inclusive``: shares of all weight, 0 to 1."""

    name: str
    own: float
    inclusive: float


def parse(lines: Iterable[str]) -> Iterator[Stack]:
    """Stacks as ``py-spy record --threads --format raw`` writes them. Raises ValueError for any other line."""
    for line in filter(None, (line.strip() for line in lines)):
        frames, _, count = line.rpartition(" ")
        thread, *functions = frames.split(";")
        found = _THREAD.match(thread)
        if found is None or not functions or not count.isdigit():
            raise ValueError(
                f"not a folded stack: {line[:200]!r}; expected 'thread (1): name;outer;inner 12', as py-spy writes it"
            )
        yield Stack(
            int(found[1]), found[2] or found[1], tuple(_LINE.sub(")", frame) for frame in functions), int(count)
        )


def weigh(stacks: Iterable[Stack], spent: Mapping[int, float]) -> list[Stack]:
    """Each thread's stacks weigh together what the thread spent.

    py-spy takes a thread that waits for a lock within C (an idle pool's) for a busy one; its processor time tells.
    """
    kept = [stack for stack in stacks if spent.get(stack.thread)]
    samples: Counter[int] = Counter()
    for stack in kept:
        samples[stack.thread] += int(stack.weight)
    return [replace(stack, weight=stack.weight * spent[stack.thread] / samples[stack.thread]) for stack in kept]


def by_function(stacks: Iterable[Stack]) -> list[Function]:
    """The most own time first. A function that calls itself counts once for each sample."""
    own: defaultdict[str, float] = defaultdict(float)
    inclusive: defaultdict[str, float] = defaultdict(float)
    total = 0.0
    for stack in stacks:
        total += stack.weight
        own[stack.functions[-1]] += stack.weight
        for name in set(stack.functions):
            inclusive[name] += stack.weight
    rows = [Function(name, own[name] / total, inclusive[name] / total) for name in inclusive]
    return sorted(rows, key=lambda row: (-row.own, -row.inclusive, row.name))


def by_thread(stacks: Iterable[Stack]) -> list[tuple[str, float]]:
    """Name and share of all weight, the largest first."""
    weights: defaultdict[tuple[int, str], float] = defaultdict(float)
    for stack in stacks:
        weights[stack.thread, stack.thread_name] += stack.weight
    total = sum(weights.values())
    return sorted(((name, weight / total) for (_, name), weight in weights.items()), key=lambda row: -row[1])


def by_part(stacks: Iterable[Stack]) -> list[tuple[str, float]]:
    """Own time's share by package; the gateway's by part. What runs the event loop owns what uvloop, httptools and the
    kernel do there in C."""
    weights: defaultdict[str, float] = defaultdict(float)
    for stack in stacks:
        weights[part_of(stack.functions[-1])] += stack.weight
    total = sum(weights.values())
    return sorted(((name, weight / total) for name, weight in weights.items()), key=lambda row: -row[1])


def part_of(function: str) -> str:
    """``run (asyncio/runners.py)`` is *event loop*, ``decide (gateway/routing/decide.py)`` is *gateway/routing*."""
    name, _, place = function.rpartition(" (")
    path = place.removesuffix(")")
    if name.endswith("Runner.run"):
        return "event loop, in C"
    if path == "<string>":
        return "records being made (dataclasses, tuples)"
    if path.endswith((".c", ".h", ".cc", ".cpp")) or ".so" in path or path == "[vdso]":
        return "C, named by --native"
    folders = path.split("/")[:-1]
    if not folders:
        return "standard library"
    return "/".join(folders[:2]) if folders[0] == "gateway" else folders[0]
