"""The way from target to target: may this version go there now, and what would be its next step? Values in and out.

A refusal names the path and where the version stands on it, so that whoever reads it knows the next command.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

from gateway.errors import Conflict, FieldProblem, InvalidInput, NotFound
from gateway.registry.catalogue import ModelDocument
from gateway.registry.standing import Standing, TargetState
from gateway.settings import TargetSettings

__all__ = ["Step", "TargetPath"]


@dataclass(frozen=True, slots=True)
class Step:
    """A promotion that the path allows. ``origin``: the target that the version comes from; ``again``: it was promoted
    to this one before and not demoted since, so it has passed what is asked."""

    origin: str | None
    again: bool = False


@dataclass(frozen=True, slots=True)
class TargetPath:
    """The targets of the settings."""

    targets: Mapping[str, TargetSettings]

    def target(self, name: str) -> TargetSettings:
        """Raises NotFound."""
        if name not in self.targets:
            known = ", ".join(self.in_order()) or "none: name some under targets in the settings (--config on a home)"
            raise NotFound(f"no target {name!r:.80}; the settings have {known}")
        return self.targets[name]

    def in_order(self) -> Sequence[str]:
        """Each after those that versions come to it from, otherwise as the settings have them."""
        order = {name: place for place, name in enumerate(self.targets)}
        sorter = TopologicalSorter({name: target.origins for name, target in self.targets.items()})
        sorter.prepare()
        found: list[str] = []
        while sorter.is_active():
            ready = sorted(sorter.get_ready(), key=lambda name: order.get(name, len(order)))
            found += ready
            sorter.done(*ready)
        return found

    def step(self, model: ModelDocument, number: int, name: str, *, by: str, at: float) -> Step:
        """Raises NotFound, UnknownVersion, and Conflict when the version may not go there now."""
        target = self.target(name)
        if model.version(number).archived:
            raise Conflict(f"{model.name}/{number} is archived and goes to no target; choose a version that is not")
        if number in _state(model, name).admitted:
            before = _state(model, name).entered(number)
            return Step(None if before is None else before.origin, again=True)
        if not target.origins:
            return Step(None)
        origin = next((one for one in target.origins if number in _state(model, one).admitted), None)
        if origin is None:
            raise Conflict(self._off_the_path(model, number, name))
        entered = _state(model, origin).entered(number)
        if entered is not None:
            _check_stay(target, entered, f"{model.name}/{number}", origin, name, by=by, at=at)
        return Step(origin)

    def check_reason(self, name: str, reason: str) -> None:
        """Raises InvalidInput where the target wants one and there is none."""
        if self.target(name).reason == "required" and not reason.strip():
            problem = FieldProblem("reason", f"text; target {name} wants to know why", "nothing")
            raise InvalidInput(f"reason: target {name} wants to know why; give a reason", problem)

    def following(self, model: ModelDocument, number: int) -> Sequence[str]:
        """The targets that the version can go to next, as the path has it."""
        stands = model.targets_of(number)
        return [
            name
            for name in self.in_order()
            if name not in stands
            and (not self.targets[name].origins or any(one in stands for one in self.targets[name].origins))
        ]

    def _off_the_path(self, model: ModelDocument, number: int, name: str) -> str:
        stands = [one for one in self.in_order() if number in _state(model, one).admitted]
        where = f"it stands in {', '.join(stands)}" if stands else "it stands in no target yet"
        ways = [" → ".join(way) for way in self._ways(name)]
        following = [one for one in self.following(model, number) if any(one in way for way in self._ways(name))]
        hint = f"Next: turnout promote {model.name}/{number} --to {following[0]}" if following else "Register it anew"
        origins = " or ".join(self.targets[name].origins)
        return (
            f"{model.name}/{number} cannot go to {name}: versions come there from {origins}, and {where}. "
            f"The path is {'; or '.join(ways)}. {hint}"
        )

    def _ways(self, name: str) -> Iterator[tuple[str, ...]]:
        origins = self.targets[name].origins
        if not origins:
            yield (name,)
        for origin in origins:
            for way in self._ways(origin):
                yield (*way, name)


def _check_stay(
    target: TargetSettings, entered: Standing, version: str, origin: str, name: str, *, by: str, at: float
) -> None:
    """It must have been there long enough, and another must have brought it there."""
    stood_s = at - entered.at
    if stood_s < target.stood_s:
        raise Conflict(
            f"{version} has been in {origin} for {_span(stood_s)}, and {name} takes versions that were there for "
            f"{_span(target.stood_s)}: {_span(target.stood_s - stood_s)} to go"
        )
    if target.by_another and str(by) == entered.by:
        raise Conflict(
            f"{entered.by} promoted {version} to {origin}, and {name} wants another to promote it on (by_another)"
        )


def _state(model: ModelDocument, name: str) -> TargetState:
    return model.targets.get(name, TargetState())


def _span(seconds: float) -> str:
    whole = max(0, round(seconds))
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if whole >= 2 * size:
            return f"{whole / size:.1f} {unit}".replace(".0 ", " ")
    return f"{whole} s"
