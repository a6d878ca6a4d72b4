"""What an operator or the guard may do to a route: pure steps from one document to the next.

What holds of every document (``faults`` says where it does not):

- the known good, the fallback and every arm of the split that has weight are not quarantined;
- the split in force has at least one arm with weight;
- the assignment gives each arm, of the split and of the rules, the share of keys that its weight says.

Every step ends in ``_counted``, which moves the keys: only as many as the weights require.

A rollback quarantines every other version that the split or a rule names. A version that is
*only* the fallback is spared, since no decision picks it; a fallback that falls into quarantine,
because it was an arm too, is replaced by the target. The target becomes the known good: it is
where an operator, or the guard in his name, chose to stand.

While a rollout runs, the split in force is the rollout's and the spec keeps what the operator asked before it: an
abort goes back to that, a promotion writes it anew. No hand moves weights meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gateway.control.documents import Quarantine, RouteDocument, RouteStatus
from gateway.control.key_space import Assignments
from gateway.control.rollout_state import Phase, Proof, RolloutState
from gateway.control.rollout_truth import check_truth
from gateway.control.route_spec import ArmSpec, RouteSpec
from gateway.errors import Conflict, FieldProblem, InvalidInput, Quarantined
from gateway.registry.catalogue import ModelDocument

__all__ = [
    "Catalogue",
    "at_rest",
    "busy",
    "faults",
    "lift",
    "put",
    "renew",
    "restore",
    "rollback",
    "rollback_target",
    "set_weights",
    "settle",
    "turn",
    "with_proof",
]

MAX_PROVED = 16


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What a route must know of its model: which numbers exist, which of them are archived, and which may answer in
    which target."""

    model: str
    numbers: frozenset[int]
    archived: frozenset[int] = frozenset()
    admitted: Mapping[str, frozenset[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, document: ModelDocument) -> Catalogue:
        numbers = frozenset(entry.number for entry in document.versions)
        archived = frozenset(entry.number for entry in document.versions if entry.archived)
        admitted = {name: frozenset(state.admitted) for name, state in document.targets.items()}
        return cls(document.name, numbers, archived, admitted)

    def check(self, place: str, number: int) -> None:
        """Raises InvalidInput for a version that does not exist, Conflict for an archived one."""
        if number not in self.numbers:
            known = ", ".join(map(str, sorted(self.numbers - self.archived))) or "none yet"
            problem = FieldProblem(place, f"a version of model {self.model!r} (it has {known})", str(number))
            raise InvalidInput(f"{place}: model {self.model!r} has no version {number}; it has {known}", problem)
        if number in self.archived:
            raise Conflict(f"{place}: {self.model}/{number} is archived and no longer routable; name another version")

    def check_target(self, target: str | None, place: str, number: int) -> None:
        """Raises Conflict for a version that may not answer on a route of the target."""
        if target is None or number in self.admitted.get(target, frozenset()):
            return
        stands = sorted(name for name, numbers in self.admitted.items() if number in numbers)
        where = f"stands in {', '.join(stands)}" if stands else "stands in no target"
        raise Conflict(
            f"{place}: {self.model}/{number} {where}, and this route serves {target}; promote it first: "
            f"turnout promote {self.model}/{number} --to {target}"
        )


def put(
    spec: RouteSpec, current: RouteDocument | None, catalogue: Catalogue, *, by: str = "", at: float = 0.0
) -> RouteDocument:
    """The route as ``spec`` asks. Quarantines stay, and the known good unless the spec names one: that one counts as
    proved by who names it.

    Another model under the same name is another route: its known good is the heaviest arm, its quarantine empty.
    Raises Conflict while a rollout runs whose evidence the change would spoil.
    """
    for place, number in _named(spec):
        catalogue.check(place, number)
    _refuse_during_rollout(current, spec)
    if current is not None and current.spec.model != spec.model:
        status = RouteStatus(_in_force(spec), _heaviest(spec), epoch=current.status.epoch)
    elif current is None:
        status = RouteStatus(_in_force(spec), _heaviest(spec), epoch=0)
    else:
        status = current.status
    known_good = spec.known_good if spec.known_good is not None else status.known_good
    catalogue.check("known_good", known_good)
    _refuse_quarantined(spec, known_good, status.quarantined)
    _refuse_outside(spec, known_good, status, catalogue)
    split = _in_force(spec) if status.rollout is None else status.split
    proved = status.proved
    if spec.known_good is not None and (current is None or current.status.known_good != known_good):
        proved = with_proof(proved, Proof(known_good, at, by))
    followed = status.follow is not None and spec.follow is not None and status.follow.source == spec.follow.source
    follow = status.follow if followed else None
    fresh = replace(status, split=split, known_good=known_good, proved=proved, follow=follow)
    return _counted(current, RouteDocument(spec, fresh))


def _refuse_during_rollout(current: RouteDocument | None, spec: RouteSpec) -> None:
    if current is None or (rollout := current.status.rollout) is None:
        return
    was = current.spec
    fields = [name for name in ("model", "key", "known_good") if getattr(was, name) != getattr(spec, name)]
    fields += ["split"] if _in_force(was) != _in_force(spec) else []
    if fields:
        raise Conflict(f"{fields[-1]}: {busy(rollout)}")
    if was.truth != spec.truth:
        try:
            check_truth(spec, rollout.plan)
        except Conflict as without:
            raise Conflict(f"truth: version {rollout.candidate} is being rolled out by it ({without})") from without


def busy(rollout: RolloutState) -> str:
    """Why a hand must not move weights now, and how the rollout ends."""
    return (
        f"version {rollout.candidate} is being rolled out ({rollout.phase}, at {rollout.percent:g}%), and what changes "
        "who gets what would spoil its evidence; promote it, abort it (turnout rollout ROUTE --abort), or roll back"
    )


def with_proof(proved: tuple[Proof, ...], proof: Proof) -> tuple[Proof, ...]:
    """Newest last; a version has one record."""
    return (*(old for old in proved if old.version != proof.version), proof)[-MAX_PROVED:]


def _in_force(spec: RouteSpec) -> tuple[ArmSpec, ...]:
    """The arms that get traffic. Those at weight 0 keep their place in the spec."""
    return tuple(arm for arm in spec.split if arm.weight)


def _named(spec: RouteSpec) -> Sequence[tuple[str, int]]:
    named = [(f"split[{index}].version", arm.version) for index, arm in enumerate(spec.split)]
    for place, rule in enumerate(spec.rules):
        named += [(f"rules[{place}].{rule.naming}", number) for number in rule.versions()]
    named += [(f"shadow[{index}].version", shadow.version) for index, shadow in enumerate(spec.shadow)]
    if spec.fallback is not None:
        named.append(("fallback", spec.fallback))
    if spec.known_good is not None:
        named.append(("known_good", spec.known_good))
    return named


def _heaviest(spec: RouteSpec) -> int:
    """The first of the heaviest arms."""
    return max(spec.split, key=lambda arm: arm.weight).version


def _refuse_quarantined(spec: RouteSpec, known_good: int, quarantined: Mapping[int, Quarantine]) -> None:
    """Rules may name a quarantined version: they fall through. What would send it traffic may not."""
    places = [(f"split[{index}]", arm.version) for index, arm in enumerate(spec.split) if arm.weight]
    places += [("fallback", spec.fallback)] if spec.fallback is not None else []
    for place, number in [*places, ("known_good", known_good)]:
        if number in quarantined:
            why = quarantined[number].reason or "no reason given"
            raise Quarantined(
                f"{place}: version {number} is in quarantine on this route ({why}); lift it first "
                f"(turnout lift ROUTE {number}), or leave the version out"
            )


def _refuse_outside(spec: RouteSpec, known_good: int, status: RouteStatus, catalogue: Catalogue) -> None:
    """On a route of a target, everything that may answer stands there. Shadows answer nobody; nor does what is in
    quarantine, until it is lifted."""
    shadows = {f"shadow[{index}].version" for index in range(len(spec.shadow))}
    places = [(place, number) for place, number in _named(spec) if place not in shadows]
    places += [] if status.rollout is None else [("candidate of the rollout", status.rollout.candidate)]
    for place, number in [*places, ("known_good", known_good)]:
        if number not in status.quarantined:
            catalogue.check_target(spec.target, place, number)


def _counted(current: RouteDocument | None, fresh: RouteDocument, *, start: Assignments | None = None) -> RouteDocument:
    """With its keys assigned, and a new epoch when anything decides differently who gets which version.

    Keys move from where they are in ``current`` (or in ``start``), as few as can be; another model's are laid out anew.
    """
    if start is None:
        same_model = current is not None and current.spec.model == fresh.spec.model
        start = current.status.assignment if current is not None and same_model else Assignments()
    assigned = replace(fresh, status=replace(fresh.status, assignment=start.moved(*fresh.weights())))
    epoch = fresh.status.epoch if current is None else current.status.epoch
    if current is None or _who_gets_what(current) != _who_gets_what(assigned):
        epoch += 1
    return replace(assigned, status=replace(assigned.status, epoch=epoch))


def _who_gets_what(document: RouteDocument) -> tuple[object, ...]:
    spec, status = document.spec, document.status
    barred = frozenset(status.quarantined)
    return spec.model, spec.key, spec.rules, barred, status.assignment.keys()


def set_weights(document: RouteDocument, weights: Mapping[int, int], catalogue: Catalogue) -> RouteDocument:
    """The whole split: arms not named get 0 and keep their place, new arms go last in the order given."""
    for number in weights:
        catalogue.check(f"weights.{number}", number)
    if document.status.rollout is not None:
        raise Conflict(f"weights: {busy(document.status.rollout)}")
    arms = {arm.version: weights.get(arm.version, 0) for arm in document.spec.split} | dict(weights)
    return put(_with_split(document.spec, arms), document, catalogue)


def _with_split(spec: RouteSpec, arms: Mapping[int, int], **others: object) -> RouteSpec:
    """A spec checked anew, as ``model_copy`` would not; ``arms`` maps version to weight, in order."""
    split = [{"version": number, "weight": weight} for number, weight in arms.items()]
    body = spec.to_json() | {"split": split} | others
    return RouteSpec.parse({key: value for key, value in body.items() if value is not None})


def turn(document: RouteDocument, rollout: RolloutState, arms: Mapping[int, int]) -> RouteDocument:
    """The rollout's next state, and the split that it puts in force; the spec keeps what was asked before it."""
    split = tuple(ArmSpec(version=number, weight=weight) for number, weight in arms.items() if weight)
    return _counted(document, replace(document, status=replace(document.status, split=split, rollout=rollout)))


def settle(
    document: RouteDocument, ended: RolloutState, arms: Mapping[int, int] | None = None, proof: Proof | None = None
) -> RouteDocument:
    """The rollout is over. ``arms`` is what is asked of the split from now on (None: what was asked before it); with a
    ``proof`` its version is the known good."""
    spec, status = document.spec, document.status
    known_good = status.known_good if proof is None else proof.version
    if arms is not None:
        explicit = None if spec.known_good is None else known_good
        spec = _with_split(spec, {arm.version: 0 for arm in spec.split} | dict(arms), known_good=explicit)
    proved = status.proved if proof is None else with_proof(status.proved, proof)
    fresh = replace(
        status, split=_in_force(spec), known_good=known_good, rollout=None, last_rollout=ended, proved=proved
    )
    return _counted(document, RouteDocument(spec, fresh))


def renew(document: RouteDocument) -> RouteDocument:
    """A new epoch of the rollout, with everybody where they are: what was counted before is lost."""
    status = document.status
    rollout = None if status.rollout is None else replace(status.rollout, renewals=status.rollout.renewals + 1)
    return replace(document, status=replace(status, epoch=status.epoch + 1, rollout=rollout))


def at_rest(document: RouteDocument) -> RouteDocument:
    """The last document of a deleted route, as a route may begin from it: its rollout ended with it."""
    return replace(document, status=replace(document.status, split=_in_force(document.spec), rollout=None))


def rollback_target(document: RouteDocument, to: int | None) -> int:
    """Where a rollback goes. Conflict when there is nowhere to go, Quarantined when it is barred."""
    status = document.status
    target = status.known_good if to is None else to
    if target in status.quarantined:
        why = status.quarantined[target].reason or "no reason given"
        raise Quarantined(
            f"version {target} is in quarantine on this route ({why}); lift it first (turnout lift ROUTE {target}), "
            "or go back to another version"
        )
    if target not in document.versions():
        named = ", ".join(map(str, sorted(document.routable())))
        raise Conflict(
            f"the route does not name version {target}, so it is not kept loaded; it names {named}. "
            "Add it to the split (weight 0 is enough), wait until it is loaded, then roll back to it"
        )
    return target


def rollback(
    document: RouteDocument,
    *,
    to: int | None,
    reason: str,
    by: str,
    at: float,
    offender: int | None = None,
    harm: str = "",
) -> RouteDocument:
    """Everything to ``to``, or the known good; the others into quarantine. The same document if it is so already.

    It ends a rollout. Where ``offender`` is the candidate of one, only that is quarantined: the versions beside which
    it was tried did nothing wrong. ``harm`` names the stream by which it was found. What is quarantined is no longer
    proved.
    """
    target = rollback_target(document, to)
    spec, status = document.spec, document.status
    rollout = status.rollout
    others = {arm.version for arm in spec.split} | {number for rule in spec.rules for number in rule.versions()}
    others |= set() if rollout is None else {rollout.candidate}
    if rollout is not None and offender == rollout.candidate:
        others = {offender}
    fresh = others - {target} - set(status.quarantined)
    quarantined = dict(status.quarantined) | {number: Quarantine(reason, at, by) for number in sorted(fresh)}
    total = sum(arm.weight for arm in status.split)
    arms = {arm.version: 0 for arm in spec.split} | {target: total}
    fallback = target if spec.fallback in quarantined else spec.fallback
    known_good = None if spec.known_good is None else target
    spec = _with_split(spec, arms, fallback=fallback, known_good=known_good)
    ended = status.last_rollout
    if rollout is not None:
        ended = rollout.ended(Phase.ROLLED_BACK, at=at, by=by, reason=reason, harm=harm)
    moved = replace(
        status,
        split=_in_force(spec),
        known_good=target,
        quarantined=quarantined,
        rollout=None,
        last_rollout=ended,
        proved=tuple(proof for proof in status.proved if proof.version not in quarantined),
    )
    return _counted(document, RouteDocument(spec, moved))


def lift(document: RouteDocument, version: int, catalogue: Catalogue | None = None) -> RouteDocument:
    """Ends a quarantine. The version gets traffic again only when weights, or a rule that names it, say so. Conflict on
    a route of a target (which needs the ``catalogue``) that the version was demoted from."""
    held = dict(document.status.quarantined)
    if version not in held:
        found = ", ".join(map(str, sorted(held))) or "none"
        raise Conflict(f"version {version} is not in quarantine on this route; in quarantine: {found}")
    del held[version]
    if catalogue is not None and version in document.spec.answering():
        catalogue.check_target(document.spec.target, "lift", version)
    return _counted(document, replace(document, status=replace(document.status, quarantined=held)))


def restore(past: RouteDocument, current: RouteDocument, catalogue: Catalogue) -> RouteDocument:
    """A past spec as a new revision. Quarantines are those of ``current``, so what was rolled back does not return
    by it; each key goes back to where it was then. For a route that was deleted meanwhile, ``current`` is the last
    document that it had. Raises Conflict while a rollout runs.
    """
    if current.status.rollout is not None:
        raise Conflict(f"restore: {busy(current.status.rollout)}")
    if past.status.known_good in current.status.quarantined or past.spec.model != current.spec.model:
        base = current
    else:
        base = replace(current, status=replace(current.status, known_good=past.status.known_good))
    return _counted(current, put(past.spec, base, catalogue), start=past.status.assignment)


def faults(document: RouteDocument) -> list[str]:
    """What must never be: empty for every document that a transition made."""
    spec, status = document.spec, document.status
    found = []
    if status.known_good in status.quarantined:
        found.append(f"the known good {status.known_good} is quarantined")
    if spec.fallback in status.quarantined:
        found.append(f"the fallback {spec.fallback} is quarantined")
    barred = [arm.version for arm in status.split if arm.weight and arm.version in status.quarantined]
    found += [f"arm {version} has weight and is quarantined" for version in barred]
    if not any(arm.weight for arm in status.split):
        found.append("no arm has weight")
    if status.rollout is None and _in_force(spec) != status.split:
        found.append("the split asked for and the split in force differ")
    return found + status.assignment.faults(*document.weights())
