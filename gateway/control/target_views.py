"""What is shown of targets: what each asks, what stands there, what its routes serve, what stood there before."""

from __future__ import annotations

from typing import Any

from gateway.control.desired import Desired, DesiredRoute
from gateway.control.target_path import TargetPath
from gateway.registry.catalogue import ModelDocument
from gateway.registry.standing import TargetState

__all__ = ["model_view", "target_view"]

View = dict[str, Any]


def target_view(name: str, path: TargetPath, desired: Desired) -> View:
    """One target over all models."""
    rule = path.targets[name]
    return {
        "target": name,
        "from": list(rule.origins),
        "role": rule.role,
        "gates": rule.gates,
        "stood_s": rule.stood_s,
        "by_another": rule.by_another,
        "reason": rule.reason,
        "rollout": rule.rollout,
        "models": {
            model.name: _standing(state) | {"routes": _routes(desired, model.name, name)}
            for model in sorted(desired.models.values(), key=lambda model: model.name)
            if (state := model.targets.get(name)) is not None
        },
    }


def model_view(model: ModelDocument, revision: int, path: TargetPath, desired: Desired) -> View:
    """All targets of one model: those of the settings in order, then those that the settings no longer have."""
    names = [*path.in_order(), *(name for name in model.targets if name not in path.targets)]
    waiting = {entry.number: path.following(model, entry.number) for entry in model.versions if not entry.archived}
    return {
        "model": model.name,
        "revision": revision,
        "targets": [_of_model(model, name, path, desired) for name in names],
        "next": {str(number): list(names) for number, names in waiting.items() if names},
    }


def _of_model(model: ModelDocument, name: str, path: TargetPath, desired: Desired) -> View:
    state = model.targets.get(name, TargetState())
    rule = path.targets.get(name)
    return {
        "target": name,
        "from": None if rule is None else list(rule.origins),
        **_standing(state),
        "admitted": list(state.admitted),
        "past": [past.to_json() for past in reversed(state.past)],
        "routes": _routes(desired, model.name, name),
    }


def _standing(state: TargetState) -> View:
    """``now`` None: nothing stands there."""
    return {"version": state.number, "standing": None if state.now is None else state.now.to_json()}


def _routes(desired: Desired, model: str, target: str) -> dict[str, View]:
    return {
        name: _served(route)
        for name, route in desired.routes.items()
        if route.document.spec.model == model and route.document.spec.target == target
    }


def _served(route: DesiredRoute) -> View:
    status = route.document.status
    split = {str(arm.version): arm.weight for arm in status.split if arm.weight}
    rollout = None if status.rollout is None else status.rollout.candidate
    return {"split": split, "known_good": status.known_good, "rolling_out": rollout}
