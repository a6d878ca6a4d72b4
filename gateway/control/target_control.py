"""What operators do with targets: promote a version along the path, demote it, see what stood where, when and why.

A promotion asks the model's gates first, which may take minutes, and then writes by compare-and-set: the path is looked
at again, and if another version was promoted meanwhile, nobody's decision is overwritten in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.clock import Clock
from gateway.control.changes import Changes, Decision
from gateway.control.gatekeeping import Gatekeeper, GateOutcome, OpenGate, Override
from gateway.control.rollout_control import RolloutControl
from gateway.control.rollout_plan import PlanSpec
from gateway.control.route_control import RouteControl
from gateway.control.store import AuditEntry, DocumentKey, Snapshot, Store
from gateway.control.target_path import TargetPath
from gateway.control.target_routes import TargetRoutes
from gateway.control.target_views import model_view, target_view
from gateway.errors import Conflict, InvalidInput, SettingsError, UnknownModel
from gateway.registry.catalogue import ModelDocument
from gateway.registry.gates.purposes import asked_for
from gateway.registry.standing import Standing, TargetState
from gateway.settings import TargetSettings

__all__ = ["Move", "Permit", "TargetControl"]

View = dict[str, Any]
Permit = Callable[[str, str, frozenset[str]], None]
"""Target, the role that it asks for, and its routes of the model; raises Forbidden where who asks may not."""

MAX_REASON = 1000


def _anyone(target: str, role: str, routes: frozenset[str]) -> None:
    """Who can write to the home may do anything with it."""


@dataclass(frozen=True, slots=True)
class Move:
    """A version that is to stand in a target, or not to: who wants it, and why."""

    model: str
    number: int
    target: str
    actor: str
    reason: str = ""
    permit: Permit = _anyone

    @property
    def key(self) -> DocumentKey:
        return DocumentKey("model", self.model)

    @property
    def why(self) -> str:
        return self.reason.strip()[:MAX_REASON]

    def audited(self, action: str, detail: View) -> AuditEntry:
        asked = {"target": self.target, "version": self.number}
        return AuditEntry(self.actor, action, str(self.key), self.why, asked | detail)


class TargetControl:
    """``rollouts`` starts what a target's settings start with a promotion, ``routes`` takes a version off before it is
    demoted; ``ungated`` is asked in place of ``gates`` where a target wants none: signatures are not the model's to
    waive. Raises SettingsError for a plan that is none."""

    def __init__(
        self,
        targets: Mapping[str, TargetSettings],
        store: Store,
        *,
        gates: Gatekeeper,
        rollouts: RolloutControl,
        routes: RouteControl,
        clock: Clock,
        ungated: Gatekeeper | None = None,
    ) -> None:
        self._path = TargetPath(targets)
        self._store = store
        self._gates = gates
        self._ungated = ungated or OpenGate()
        self._routes = TargetRoutes(store, routes, rollouts)
        self._clock = clock
        self._changes = Changes(store)
        _check_plans(targets)

    def __repr__(self) -> str:
        return f"<TargetControl {list(self._path.in_order())}>"

    async def list(self) -> Sequence[View]:
        """Every target in the order of the path: what it asks, and what stands there."""
        desired = self._routes.desired(await self._store.snapshot())
        return [target_view(name, self._path, desired) for name in self._path.in_order()]

    async def get(self, model: str) -> View:
        """What of a model stands, may stand and stood in each target. Raises UnknownModel."""
        snapshot = await self._store.snapshot()
        revision, document = _model(snapshot, model)
        return model_view(document, revision, self._path, self._routes.desired(snapshot))

    async def promote(self, move: Move, *, override: Override | None = None, expected: int | None = None) -> View:
        """The version stands in the target, and the alias of that name points at it; where the settings say so, the
        routes of the target begin to roll it out.

        Raises NotFound, UnknownModel, UnknownVersion; Conflict naming the path; GateRefused with the numbers; Forbidden
        from the move's ``permit``; StaleRevision. Cancelling it while gates run changes nothing.
        """
        rule = self._path.target(move.target)
        self._path.check_reason(move.target, move.why)
        snapshot = await self._store.snapshot()
        _, document = _model(snapshot, move.model)
        self._check_permitted(snapshot, move)
        step = self._path.step(document, move.number, move.target, by=move.actor, at=self._clock.wall())
        seen = _state(document, move.target).number
        if rule.rollout is not None:
            self._routes.check_free(snapshot, move.model, move.target, move.number)
        # What it was promoted by before has passed them: the way back is not to wait for an evaluation.
        outcome = None if step.again else await self._passed(document, move, override)
        made: list[ModelDocument] = []

        def decide(snapshot: Snapshot) -> Decision:
            self._check_permitted(snapshot, move)
            decision, moved = self._promoted(_model(snapshot, move.model)[1], move, seen, outcome)
            made[:] = [moved]
            return decision

        written = await self._changes.write(move.key, decide, expected=expected)
        started: Sequence[View] = []
        if rule.rollout is not None:
            started = await self._routes.begin(move.model, move.target, move.number, rule.rollout, actor=move.actor)
        view = _view(move, made[0], written.revision) | {"before": seen, "changed": written.changed}
        return view | {"rollouts": list(started)}

    async def demote(self, move: Move, *, roll_back: bool = False, expected: int | None = None) -> View:
        """The version may not answer in the target any more. Where it stood, the one promoted before it does again.

        ``roll_back``: routes of the target that it may answer on go back to their known good first, at once; without
        it, one is a Conflict. Raises what ``promote`` raises of names, reasons and permission.
        """
        self._path.check_reason(move.target, move.why)
        snapshot = await self._store.snapshot()
        self._check_permitted(snapshot, move)
        _check_standing(_model(snapshot, move.model)[1], move)
        rolled: Sequence[str] = []
        if roll_back:
            why = move.why or f"{move.model}/{move.number} is demoted from {move.target}"
            rolled = await self._routes.roll_back(move.model, move.target, move.number, reason=why, actor=move.actor)
        made: list[ModelDocument] = []

        def decide(snapshot: Snapshot) -> Decision:
            self._check_permitted(snapshot, move)
            self._routes.check_unused(snapshot, move.model, move.target, move.number)
            decision, moved = self._demoted(_model(snapshot, move.model)[1], move)
            made[:] = [moved]
            return decision

        written = await self._changes.write(move.key, decide, expected=expected)
        return _view(move, made[0], written.revision) | {"rolled_back": list(rolled)}

    def _promoted(
        self, model: ModelDocument, move: Move, seen: int | None, outcome: GateOutcome | None
    ) -> tuple[Decision, ModelDocument]:
        """By the catalogue of now, which may be another than gates were asked with."""
        now, state = self._clock.wall(), _state(model, move.target)
        step = self._path.step(model, move.number, move.target, by=move.actor, at=now)
        if state.number == move.number:
            return Decision(model.to_json(), move.audited("promote", {})), model
        _check_still(state, seen, move)
        if outcome is not None:
            outcome.check(model, move.number)
        before, passed = state.entered(move.number), {} if outcome is None else outcome.detail()
        gates = passed.get("gates") or (None if before is None else before.gates)
        fresh = Standing(move.number, now, str(move.actor), move.why, step.origin, "promoted", gates)
        moved = model.with_target(move.target, state.promoted(fresh))
        detail = {"before": state.number, "from": step.origin, **passed}
        return Decision(moved.to_json(), move.audited("promote", detail)), moved

    def _demoted(self, model: ModelDocument, move: Move) -> tuple[Decision, ModelDocument]:
        _check_standing(model, move)
        state = _state(model, move.target).demoted(
            move.number, at=self._clock.wall(), by=str(move.actor), reason=move.why
        )
        moved = model.with_target(move.target, state)
        return Decision(moved.to_json(), move.audited("demote", {"after": state.number})), moved

    def _check_permitted(self, snapshot: Snapshot, move: Move) -> None:
        routes = frozenset(self._routes.of(snapshot, move.model, move.target))
        move.permit(move.target, self._path.target(move.target).role, routes)

    async def _passed(self, model: ModelDocument, move: Move, override: Override | None) -> GateOutcome | None:
        """None where the target wants no gates."""
        wants, purpose = self._path.target(move.target).gates, f"target:{move.target}"
        lacking = wants == "required" and not asked_for(model.gates, purpose)
        if lacking and override is None:
            raise Conflict(
                f"{move.target} takes versions of models that declare gates, and {model.name} declares none for it; "
                f"declare some (turnout gates {model.name} -f gates.yaml), or override with a reason as an admin"
            )
        outcome = await (self._ungated if wants == "none" else self._gates).require(
            move.model,
            move.number,
            purpose=purpose,
            against=_state(model, move.target).number,
            override=override,
            actor=move.actor,
        )
        if lacking and override is not None:
            return replace(outcome, overridden=override.reason, failed=("none is declared",))
        return None if wants == "none" else outcome


def _check_plans(targets: Mapping[str, TargetSettings]) -> None:
    for name, target in targets.items():
        try:
            PlanSpec.parse({**(target.rollout or {}), "candidate": 1})
        except InvalidInput as error:
            raise SettingsError(f"targets.{name}.rollout: {error}") from None


def _check_standing(model: ModelDocument, move: Move) -> None:
    admitted = _state(model, move.target).admitted
    if move.number not in admitted:
        known = ", ".join(f"{move.model}/{number}" for number in admitted) or f"none of {move.model}"
        raise Conflict(f"{move.model}/{move.number} does not stand in {move.target}; standing there: {known}")


def _check_still(state: TargetState, seen: int | None, move: Move) -> None:
    """Two operators at once: the one who comes second decided by what is no longer so."""
    if state.number == seen:
        return
    now = state.now
    who = "nothing does now" if now is None else f"{now.by} put {move.model}/{now.number} there meanwhile"
    before = "nothing stood" if seen is None else f"{move.model}/{seen} stood"
    raise Conflict(f"{before} in {move.target} when this promotion began, and {who}; look at it, then promote again")


def _view(move: Move, model: ModelDocument, revision: int) -> View:
    now = _state(model, move.target).now
    standing = None if now is None else now.to_json()
    return {
        "model": move.model,
        "target": move.target,
        "version": move.number,
        "revision": revision,
        "standing": standing,
    }


def _state(model: ModelDocument, target: str) -> TargetState:
    return model.targets.get(target, TargetState())


def _model(snapshot: Snapshot, name: str) -> tuple[int, ModelDocument]:
    found = snapshot.documents.get(DocumentKey("model", name))
    if found is None or found.body is None:
        known = ", ".join(sorted(key.name for key in snapshot.documents if key.kind == "model")) or "none yet"
        raise UnknownModel(f"no model {name!r:.140} is registered; registered are {known}")
    return found.revision, ModelDocument.from_json(found.body)
