"""Which versions go when memory is short. Pure.

The rule is GreedyDual-Size (Cao and Irani, "Cost-Aware WWW Proxy Caching Algorithms", USITS 1997) with the time since
the last use in the place of its aging: what is worth least for its bytes goes first, where the worth is the seconds
that a reload would take over the seconds that nobody has asked for it. Versions that no traffic reaches go before all
that it does reach; the known good of a route never goes, since a rollback must not wait for a load.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from gateway.control.desired import DesiredRoute
from gateway.messages import VersionRef

__all__ = ["Choice", "Demand", "Resident", "Standing", "choose", "standing"]

_LEAST_IDLE_S = 1e-3


class Standing(IntEnum):
    """The lower, the sooner it goes."""

    UNUSED = 0
    """No traffic reaches it: weight 0, in quarantine, or only for clients that pin it."""
    SERVING = 1
    """It has weight, or a rule sends traffic to it."""
    PINNED = 2
    """A known good, a fallback, or loaded by an operator's word."""


@dataclass(frozen=True, slots=True)
class Resident:
    """A loaded version: its bytes on the device in question, the seconds that it took to load, and when it was last
    used, on the clock that ``now`` is read from."""

    ref: VersionRef
    size_bytes: int
    reload_s: float
    last_used: float
    standing: Standing


@dataclass(frozen=True, slots=True)
class Demand:
    """``needed_bytes``: of a version that is to be loaded. ``lazy``: idle versions that serve may go as well."""

    budget_bytes: int
    needed_bytes: int = 0
    lazy: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """Who goes, first one first. ``short_bytes``: what is still lacking when all of them have gone."""

    victims: tuple[VersionRef, ...] = ()
    short_bytes: int = 0


def choose(residents: Iterable[Resident], demand: Demand, now: float) -> Choice:
    """The fewest, by the rule, whose going brings the rest within the budget: none is named in vain."""
    held = list(residents)
    excess = sum(one.size_bytes for one in held) + demand.needed_bytes - demand.budget_bytes
    highest = Standing.SERVING if demand.lazy else Standing.UNUSED
    may_go = sorted(
        (one for one in held if one.standing <= highest and one.size_bytes), key=lambda one: _order(one, now)
    )
    chosen: list[Resident] = []
    for one in may_go:
        if excess <= 0:
            break
        chosen.append(one)
        excess -= one.size_bytes
    for one in reversed(chosen[:]):
        if excess + one.size_bytes <= 0:  # those chosen after it suffice without it
            chosen.remove(one)
            excess += one.size_bytes
    return Choice(tuple(one.ref for one in chosen), max(0, excess))


def _order(one: Resident, now: float) -> tuple[Standing, float, VersionRef]:
    idle_s = max(_LEAST_IDLE_S, now - one.last_used)
    return one.standing, one.reload_s / idle_s / one.size_bytes, one.ref


def standing(ref: VersionRef, routes: Iterable[DesiredRoute], residents: frozenset[VersionRef]) -> Standing:
    """What the routes say of a version, the highest of them; ``residents`` are those that were loaded by name."""
    if ref in residents:
        return Standing.PINNED
    return max(
        (_on_route(ref.number, route) for route in routes if route.ref(ref.number) == ref), default=Standing.UNUSED
    )


def _on_route(number: int, route: DesiredRoute) -> Standing:
    status, spec = route.document.status, route.document.spec
    if number == status.known_good:
        return Standing.PINNED
    if number in status.quarantined:
        return Standing.UNUSED
    if number == spec.fallback:
        return Standing.PINNED
    weighted = any(arm.version == number and arm.weight for arm in status.split)
    ruled = any(number in rule.versions() for rule in spec.rules)
    return Standing.SERVING if weighted or ruled else Standing.UNUSED
