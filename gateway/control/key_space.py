"""Who has which keys of a route, as its document holds it: one assignment for the split, one for each rule with arms.

It is what is in force: an arm in quarantine has no places, and those it had are remembered by ``former``, so that a
lift gives them back. A document of schema 1 held none; it was decided by flagd's formula over the arms that were not
in quarantine, and so that is where ``migrated`` leaves every key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from gateway.control.store import Body
from gateway.routing.assignment import SPACE, Assignment, first, moved

__all__ = ["Assignments", "Weights", "migrated"]

Weights = Mapping[int, int]
"""Version to weight, in the order of the arms."""


@dataclass(frozen=True, slots=True)
class Assignments:
    """``rules`` by the rules' names."""

    split: Assignment = field(default_factory=Assignment)
    rules: Mapping[str, Assignment] = field(default_factory=dict)

    def moved(self, split: Weights, rules: Mapping[str, Weights]) -> Assignments:
        """For these weights, with the fewest keys moved. A rule under a new name is assigned as at first."""
        ruled = {name: moved(self.rules.get(name, Assignment()), weights) for name, weights in rules.items()}
        return Assignments(moved(self.split, split), ruled)

    def keys(self) -> tuple[object, ...]:
        """Equal where every key of the split, and of each rule, has the same version."""
        ruled = tuple(sorted((name, one.ends, one.versions) for name, one in self.rules.items()))
        return self.split.ends, self.split.versions, ruled

    def faults(self, split: Weights, rules: Mapping[str, Weights]) -> list[str]:
        """Where it does not say what the weights say; empty for every document that a transition made."""
        found = [] if self.split.fits(split) else ["the intervals of the split are not its weights' shares"]
        if self.rules.keys() != rules.keys():
            found.append(f"rules {sorted(rules)} have arms, and {sorted(self.rules)} have intervals")
        unfit = (name for name, weights in rules.items() if name in self.rules and not self.rules[name].fits(weights))
        return [*found, *(f"the intervals of rule {name!r} are not its weights' shares" for name in unfit)]

    def to_json(self) -> dict[str, Any]:
        """Intervals as ``[end, version]``, each from the end of the one before; ``former`` as ``[start, end]``."""
        return {"split": _to_json(self.split), "rules": {name: _to_json(one) for name, one in self.rules.items()}}

    @classmethod
    def from_json(cls, body: Body) -> Assignments:
        """Raises ValueError, TypeError or KeyError for what is no such body."""
        return cls(_from_json(body["split"]), {name: _from_json(one) for name, one in body["rules"].items()})


def migrated(body: Body) -> Body:
    """A route document of schema 1 as one of schema 2: every key keeps its version."""
    status, rules = body["status"], body["spec"].get("rules", ())
    barred = {int(number) for number in status["quarantined"]}
    ruled = {rule["name"]: _at_first(rule["use"], barred) for rule in rules if isinstance(rule.get("use"), list)}
    return {**body, "status": {**status, "assignment": Assignments(_at_first(status["split"], set()), ruled).to_json()}}


def _at_first(arms: Iterable[Body], barred: set[int]) -> Assignment:
    return first({arm["version"]: arm["weight"] for arm in arms if arm["version"] not in barred})


def _to_json(assignment: Assignment) -> dict[str, Any]:
    return {
        "intervals": [[interval.end, interval.version] for interval in assignment],
        "former": {str(version): [list(span) for span in spans] for version, spans in assignment.former.items()},
    }


def _from_json(body: Body) -> Assignment:
    ends = tuple(int(end) for end, _ in body["intervals"])
    if ends and (ends[-1] != SPACE or ends[0] <= 0 or any(one >= two for one, two in pairwise(ends))):
        raise ValueError(f"intervals must ascend from above 0 to {SPACE}, got ends {ends[:5]} to {ends[-1]}")
    former = {
        int(version): tuple((int(start), int(end)) for start, end in spans) for version, spans in body["former"].items()
    }
    return Assignment(ends, tuple(int(version) for _, version in body["intervals"]), former)
