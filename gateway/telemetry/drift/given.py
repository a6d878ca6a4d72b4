"""What else than chance gives a version its rows: rules of its route, and other routes that it answers on.

Rows are counted by version, so those of several routes are counted together, and rows that a rule has chosen with those
that the split has. Versions that are so fed differ by design, and are not compared; whoever is told that one's inputs
have moved is told this, too. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.messages import VersionRef
from gateway.routing.table import Route

__all__ = ["Given", "fed", "given", "why_uncompared"]

_NAMED = 3


@dataclass(frozen=True, slots=True)
class Given:
    """``rules`` of the route that may choose the version, and other ``routes`` that it answers on."""

    rules: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        found = []
        if self.rules:
            found.append(f"{_listed('rule', self.rules)} of the route may choose what it is given")
        if self.routes:
            found.append(f"it also answers on {_listed('route', self.routes)}: rows of all are counted together")
        return tuple(found)


def given(routes: Mapping[str, Route], route: Route, version: VersionRef) -> Given:
    return Given(
        tuple(rule.name for rule in route.rules if version.number in rule.versions()),
        tuple(other.name for other in routes.values() if other is not route and version in fed(other)),
    )


def fed(route: Route) -> frozenset[VersionRef]:
    """Versions that get requests of the route by its split or its rules, or copies of them."""
    numbers = {arm.version for arm in route.arms if arm.weight} | {shadow.version for shadow in route.shadows}
    return frozenset(map(route.ref, numbers.union(*(rule.versions() for rule in route.rules))))


def why_uncompared(routes: Mapping[str, Route], route: Route, version: VersionRef, good: VersionRef) -> str:
    """Why the inputs of the two are not alike by chance alone; empty where they are."""
    if route.rules:
        names = _listed("rule", [rule.name for rule in route.rules])
        return f"{names} of the route may choose as well, so they are given different inputs by design"
    for one in (version, good):
        others = given(routes, route, one).routes
        if others:
            return f"version {one.number} also answers on {_listed('route', others)}, whose rows are counted with these"
    return ""


def _listed(noun: str, names: Sequence[str]) -> str:
    return ", ".join(_quoted(noun, names))


def _quoted(noun: str, names: Sequence[str]) -> Iterator[str]:
    for name in names[:_NAMED]:
        yield f"{noun} {name!r}"
    if len(names) > _NAMED:
        yield f"{len(names) - _NAMED} more"
