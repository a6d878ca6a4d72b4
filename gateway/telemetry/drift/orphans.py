"""Alarms that stand although nobody believes them any more: their version has left the routes, or is judged by another
reference or beside another known good since, of which nothing is known yet. Pure.

Whoever waits for their end would wait for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.messages import VersionRef
from gateway.telemetry.drift.blame import ADVICE
from gateway.telemetry.drift.looking import DriftAlarm

__all__ = ["Round", "orphans"]


@dataclass(frozen=True, slots=True)
class Round:
    """Of looks: the alarms that were ``told`` of, by name; versions that were ``judged``, and all that are
    ``served``."""

    told: frozenset[str]
    judged: frozenset[VersionRef]
    served: frozenset[VersionRef]


def orphans(standing: Iterable[Mapping[str, Any]], looks: Round) -> Iterator[DriftAlarm]:
    """Their ends. A version that is served and could not be judged keeps its alarms."""
    for row in standing:
        found = _named(str(row["name"]))
        if found is None or row["name"] in looks.told:
            continue
        version, blame = found
        if version in looks.served and version not in looks.judged:
            continue
        why = "is judged by another reference or beside another known good" if version in looks.served else "is gone"
        reason = f"version {version} {why}, so what was said of it no longer stands"
        route = str(row["subject"]).removeprefix("route/")
        yield DriftAlarm(route, version, blame, False, (), reason, "", {})


def _named(name: str) -> tuple[VersionRef, str] | None:
    """None for what is no alarm of drift, or of a kind that is not known here."""
    kind, _, rest = name.partition("/")
    model, _, blame = rest.rpartition("/")
    model, _, number = model.rpartition("/")
    if kind != "drift" or blame not in ADVICE or not number.isdecimal():
        return None
    return VersionRef(model, int(number)), blame
