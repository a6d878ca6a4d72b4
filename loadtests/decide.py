"""What one decision costs: ``python -m loadtests.decide`` prints µs a call over 200 routes that name 1,000 versions.

Requests carry a user id and a small context and walk over all routes, so that nothing stays in a
cache by being the only one. The best of several rounds is shown: the machine's other work can
only add.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.messages import Decision
from gateway.routing.decide import Facts, decide
from gateway.routing.rules import compile_condition
from gateway.routing.table import Arm, Route, RoutingTable, Rule

ROUTES, VERSIONS, REQUESTS, ROUNDS = 200, 1_000, 10_000, 7
THREE_CLAUSES = {
    "and": [
        {"==": [{"var": "group"}, "staff"]},
        {"in": [{"var": "country"}, ["DE", "AT", "CH"]]},
        {">=": [{"var": "age"}, 18]},
    ]
}
CONTEXT = {"group": "staff", "country": "AT", "age": 17}
"""The first two clauses hold and the last does not: all three are evaluated, and the split decides."""


@dataclass(frozen=True)
class Case:
    name: str
    table: RoutingTable
    requests: Sequence[Facts]


def table(*, rules: tuple[Rule, ...] = (), pin: str | None = None) -> RoutingTable:
    each = VERSIONS // ROUTES
    routes = {}
    for index in range(ROUTES):
        numbers = range(1 + index * each, 1 + (index + 1) * each)
        arms = tuple(Arm(number, 92 if place == 0 else 2) for place, number in enumerate(numbers))
        name = f"route-{index:03}"
        routes[name] = Route(
            name, f"model-{index:03}", arms, key="header:x-user-id", pin=pin, rules=rules, pinnable=frozenset(numbers)
        )
    return RoutingTable(routes, "route-000", 1)


def requests(*, pinned: bool = False, keyed: bool = False) -> list[Facts]:
    each = VERSIONS // ROUTES
    return [
        Facts(
            f"route-{number % ROUTES:03}",
            key=f"user-{number}" if keyed else None,
            context=CONTEXT,
            headers={"x-user-id": f"user-{number}", "content-type": "application/json"},
            pin=1 + (number % ROUTES) * each if pinned else None,
            decision_id=f"decision-{number}",
        )
        for number in range(REQUESTS)
    ]


def cases() -> list[Case]:
    compiled = compile_condition(THREE_CLAUSES, name="three clauses")
    return [
        Case("split, key of the request", table(), requests(keyed=True)),
        Case("split, key from a header", table(), requests()),
        Case("pin", table(pin="allowed"), requests(pinned=True)),
        Case("a rule of three clauses, then split", table(rules=(Rule("staff", compiled, 1),)), requests()),
    ]


def microseconds(case: Case) -> float:
    """The best round's mean."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        last: Decision | None = None
        for facts in case.requests:
            last = decide(case.table, facts)
        best = min(best, time.perf_counter() - began)
        if last is None:
            raise ValueError("no requests to decide")
    return best / len(case.requests) * 1e6


def main() -> None:
    print(f"{ROUTES} routes, {VERSIONS} versions; Python {platform.python_version()}, {platform.machine()}")
    for case in cases():
        print(f"{case.name:<40} {microseconds(case):7.2f} µs")


if __name__ == "__main__":
    main()
