"""What MLflow shall say of the versions that came from it: aliases and tags, as the state here has them. Pure.

    alias champion of model fraud here          alias champion there (or what registry.mlflow.aliases calls it)
    known good of route fraud                   the alias that registry.mlflow.routes gives the route
    what becomes of a version on route fraud    tag turnout.route.fraud of the version there

Written is what changes here, and nothing else: an alias that somebody moves in MLflow stays where he put it until it
moves here, or a version of its route is rolled back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.control.desired import Desired, DesiredRoute
from gateway.registry.catalogue import CatalogueEntry, ModelDocument

__all__ = ["Facts", "Naming", "standing_of", "writes_between"]

Facts = Mapping[str, str]
"""Place in MLflow to what stands there: ``URL␟NAME␟alias␟champion`` to ``7``, ``URL␟NAME␟tag␟7␟turnout.route.fraud`` to
a text. An alias's value has, after a space, why it is written again though it is the same."""

_BETWEEN = "\x1f"
_MAX_TAG = 500


@dataclass(frozen=True, slots=True)
class Naming:
    """``aliases``: alias here to alias there, where they differ. ``routes``: route to the alias of its known good."""

    aliases: Mapping[str, str] = field(default_factory=dict)
    routes: Mapping[str, str] = field(default_factory=dict)


def standing_of(desired: Desired, naming: Naming) -> Facts:
    facts: dict[str, str] = {}
    for _, model in sorted(desired.models.items()):
        for alias, number in sorted(model.aliases.items()):
            home = _home(model.version(number))
            if home is not None:
                url, name, version = home
                facts[_BETWEEN.join((url, name, "alias", naming.aliases.get(alias, alias)))] = version
    for name, route in sorted(desired.routes.items()):
        facts |= dict(_of_route(name, route, desired.models.get(route.document.spec.model), naming))
    return facts


def _of_route(
    route: str, desired: DesiredRoute, model: ModelDocument | None, naming: Naming
) -> Iterator[tuple[str, str]]:
    if model is None:
        return
    status = desired.document.status
    homes = {entry.number: _home(entry) for entry in model.versions}
    for number, words in _words(desired).items():
        home = homes.get(number)
        if home is not None:
            url, name, version = home
            yield _BETWEEN.join((url, name, "tag", version, f"turnout.route.{route}")), words[:_MAX_TAG]
    good = homes.get(status.known_good)
    if route in naming.routes and good is not None:
        url, name, version = good
        again = "".join(f" {number}" for number in sorted(status.quarantined))
        yield _BETWEEN.join((url, name, "alias", naming.routes[route])), version + again


def _words(desired: DesiredRoute) -> Mapping[int, str]:
    """Steps of a rollout are not told: each would be a write, and a moment later another."""
    status = desired.document.status
    words = {arm.version: "in traffic" for arm in status.split if arm.weight}
    words[status.known_good] = "known good"
    if status.rollout is not None:
        words[status.rollout.candidate] = "candidate of a rollout"
    for number, why in status.quarantined.items():
        words[number] = f"rolled back: {why.reason}" if why.reason else "rolled back"
    return words


def _home(entry: CatalogueEntry) -> tuple[str, str, str] | None:
    """Server, registered model and version there; None for what has no such name: of another system, or a run's."""
    imported = entry.imported
    if imported is None or imported.get("system") != "mlflow":
        return None
    url, name, version = (str(imported.get(key) or "") for key in ("url", "name", "version"))
    server, registered, _ = url.partition("/#/models/")
    return (server, name, version) if registered and version.isdecimal() else None


def writes_between(told: Facts, standing: Facts) -> list[dict[str, Any]]:
    """What makes the one into the other, a write for each registered model (``tell`` of ``mlflow_client``)."""
    writes: dict[tuple[str, str], dict[str, Any]] = {}
    for place in sorted(told.keys() | standing.keys()):
        if told.get(place) == standing.get(place):
            continue
        url, name, kind, *rest = place.split(_BETWEEN)
        write = writes.setdefault((url, name), {"server": url, "name": name, "aliases": {}, "dropped": {}, "tags": {}})
        if kind == "tag":
            write["tags"].setdefault(rest[0], {})[rest[1]] = standing.get(place, "gone")
        elif place in standing:
            write["aliases"][rest[0]] = standing[place].split(" ")[0]
        else:
            write["dropped"][rest[0]] = told[place].split(" ")[0]
    return list(writes.values())
