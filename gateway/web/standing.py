"""How each route stands: which of its versions are here, in what state, and whether it can answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gateway.dataplane import Current
from gateway.errors import UnknownVersion, VersionUnavailable
from gateway.messages import VersionRef
from gateway.routing.table import Route
from gateway.serving.handle import Handle

__all__ = ["RouteStanding", "VersionStanding", "Whereabouts", "handle_for", "standings", "unknown", "versions_named"]


Whereabouts = Callable[[VersionRef], tuple[str, str]]
"""State and reason of a version that cannot be asked for answers now: on its way (``registered``, ``loading``,
``warming``), ``failed``, on its way out, or ``absent``."""

ON_ITS_WAY = frozenset({"registered", "loading", "warming"})


def unknown(_: VersionRef) -> tuple[str, str]:
    return "absent", "not loaded here"


@dataclass(frozen=True, slots=True)
class VersionStanding:
    """``state`` is ``absent`` when the version is not resident. ``weight`` is its share of the split in force."""

    version: int
    state: str
    ready: bool
    reason: str
    weight: int
    quarantined: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "state": self.state,
            "ready": self.ready,
            "reason": self.reason,
            "weight": self.weight,
            "quarantined": self.quarantined,
        }


@dataclass(frozen=True, slots=True)
class RouteStanding:
    """``ready``: a warm version with weight, or the fallback, can answer, and no version with weight is still
    coming up for the first time: who asks before would meet other shares than the split's. ``degraded``: what is
    not as it should be."""

    name: str
    model: str
    ready: bool
    versions: tuple[VersionStanding, ...]
    degraded: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "ready": self.ready,
            "versions": [version.to_json() for version in self.versions],
        }


def standings(current: Current, whereabouts: Whereabouts = unknown) -> Iterator[RouteStanding]:
    for route in current.table.routes.values():
        yield _stand(route, current, whereabouts)


def versions_named(route: Route) -> tuple[int, ...]:
    """Every version that the route names, in order."""
    named = {arm.version for arm in route.arms} | route.pinnable
    named.update(number for number in (route.fallback, route.known_good) if number is not None)
    return tuple(sorted(named))


def handle_for(current: Current, route: Route, pin: int | None) -> Handle:
    """The handle that speaks for a route: the version asked for, else a warm one, the heaviest first.

    Raises UnknownVersion when the route does not name the version, VersionUnavailable when none is here.
    """
    if pin is not None and pin not in versions_named(route):
        named = ", ".join(map(str, versions_named(route))) or "none"
        raise UnknownVersion(f"route {route.name!r} does not name version {pin}; it names {named}")
    for number in _by_weight(route) if pin is None else (pin,):
        handle = current.handles.get(route.ref(number))
        if handle is not None and handle.state == "active":
            return handle
    asked = f"version {pin}" if pin is not None else "no version"
    raise VersionUnavailable(f"{asked} of route {route.name!r} is loaded here; see /readyz for what is")


def _by_weight(route: Route) -> tuple[int, ...]:
    arms = sorted(route.arms, key=lambda arm: -arm.weight)
    first = [arm.version for arm in arms if arm.version not in route.quarantined]
    return tuple(dict.fromkeys([*first, *(number for number in (route.fallback,) if number), *versions_named(route)]))


def _stand(route: Route, current: Current, whereabouts: Whereabouts) -> RouteStanding:
    weights = {arm.version: arm.weight for arm in route.arms}
    versions = tuple(
        _version(route, number, weights.get(number, 0), current, whereabouts) for number in versions_named(route)
    )
    answering = [
        version
        for version in versions
        if not version.quarantined and (version.weight > 0 or version.version == route.fallback)
    ]
    degraded = [
        f"{route.name}: version {version.version} is {version.state}"
        + (f" ({version.reason})" if version.reason else " and not ready")
        for version in versions
        if not version.ready and not version.quarantined
    ]
    ready = any(version.ready for version in answering)
    if not ready:
        degraded.insert(0, f"{route.name}: no warm version can answer")
    else:
        ready = not any(version.state in ON_ITS_WAY and version.weight > 0 for version in answering)
    return RouteStanding(route.name, route.model, ready, versions, tuple(degraded))


def _version(route: Route, number: int, weight: int, current: Current, whereabouts: Whereabouts) -> VersionStanding:
    handle = current.handles.get(route.ref(number))
    quarantined = number in route.quarantined
    if handle is None:
        state, reason = whereabouts(route.ref(number))
        return VersionStanding(number, state, False, reason, weight, quarantined)
    return VersionStanding(number, str(handle.state), handle.ready, handle.reason, weight, quarantined)
