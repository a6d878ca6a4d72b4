"""What stands in a target (``staging``, ``production``), what may, and what stood there when: values of the catalogue.

A target names one version of a model, the one promoted last. Versions that were promoted before and not demoted are
*admitted* still: they may be arms of the target's routes beside it, since a rollout has two, and a way back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.errors import Conflict
from gateway.registry import canonical
from gateway.registry.fields import Fields

__all__ = ["MAX_ADMITTED", "MAX_PAST", "PastStanding", "Standing", "TargetState"]

MAX_PAST = 200
"""The audit log and the store's history have the rest."""
MAX_ADMITTED = 64


@dataclass(frozen=True, slots=True)
class Standing:
    """The version that the target names: since when (seconds since the epoch), by whom and why. ``origin`` is the
    target that it came from. ``how``: ``promoted``, or ``returned`` to when a later one was demoted, or promoted anew.
    ``gates``: ``{"record": digest}``, or ``{"overridden": reason, "failed": [...]}``; None where nothing was asked."""

    number: int
    at: float
    by: str
    reason: str = ""
    origin: str | None = None
    how: str = "promoted"
    gates: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "gates", canonical.freeze(self.gates))

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {"number": self.number, "at": self.at, "by": self.by, "how": self.how}
        body |= {"reason": self.reason} if self.reason else {}
        body |= {} if self.origin is None else {"from": self.origin}
        return body | ({} if self.gates is None else {"gates": canonical.thaw(self.gates)})


@dataclass(frozen=True, slots=True)
class PastStanding:
    """One that is over: until when, ended by whom and why."""

    stood: Standing
    until: float
    ended_by: str
    ended: str
    ended_reason: str = ""

    def to_json(self) -> dict[str, Any]:
        body = self.stood.to_json() | {"until": self.until, "ended_by": self.ended_by, "ended": self.ended}
        return body | ({"ended_reason": self.ended_reason} if self.ended_reason else {})


@dataclass(frozen=True, slots=True)
class TargetState:
    """``now`` None: nothing stands there. ``admitted`` in the order of promotion, the last promoted last; ``past``
    oldest first."""

    now: Standing | None = None
    admitted: tuple[int, ...] = ()
    past: tuple[PastStanding, ...] = field(default=())

    @property
    def number(self) -> int | None:
        return None if self.now is None else self.now.number

    def entered(self, number: int) -> Standing | None:
        """The version's last promotion to this target; None where it is not known, or not admitted any more."""
        if number not in self.admitted:
            return None
        stays = [*(past.stood for past in self.past), *([] if self.now is None else [self.now])]
        return next((one for one in reversed(stays) if one.number == number and one.how == "promoted"), None)

    def promoted(self, fresh: Standing) -> TargetState:
        admitted = (*(number for number in self.admitted if number != fresh.number), fresh.number)[-MAX_ADMITTED:]
        ended = self._over(fresh.at, fresh.by, "superseded", f"by {fresh.number}")
        return TargetState(fresh, admitted, ended)

    def demoted(self, number: int, *, at: float, by: str, reason: str) -> TargetState:
        """Without the version. Where it stood, the one promoted last before it does again. Conflict when it is not
        admitted."""
        if number not in self.admitted:
            known = ", ".join(map(str, self.admitted)) or "none"
            raise Conflict(f"version {number} does not stand in this target; those that do: {known}")
        left = tuple(one for one in self.admitted if one != number)
        if self.number != number:
            return replace(self, admitted=left)
        back = self.entered(left[-1]) if left else None
        origin, gates = (None, None) if back is None else (back.origin, back.gates)
        now = Standing(left[-1], at, by, reason, origin, "returned", gates) if left else None
        return TargetState(now, left, self._over(at, by, "demoted", reason))

    def _over(self, at: float, by: str, ended: str, reason: str) -> tuple[PastStanding, ...]:
        over = () if self.now is None else (PastStanding(self.now, at, str(by), ended, reason),)
        return (*self.past, *over)[-MAX_PAST:]

    def to_json(self) -> dict[str, Any]:
        return {
            "now": None if self.now is None else self.now.to_json(),
            "admitted": list(self.admitted),
            "past": [past.to_json() for past in self.past],
        }

    @classmethod
    def from_json(cls, body: Any, place: str) -> TargetState:
        with Fields(body, place) as take:
            now = take.anything("now")
            return cls(
                None if now is None else _standing(now, f"{place}.now"),
                tuple(_number(row, where) for row, where in take.rows("admitted")),
                tuple(_past(row, where) for row, where in take.rows("past")),
            )


def _number(row: Any, place: str) -> int:
    return Fields({"number": row}, place).integer("number", at_least=1)


_OVER = ("until", "ended_by", "ended", "ended_reason")


def _past(body: Any, place: str) -> PastStanding:
    take = Fields(body, place)
    stood = _standing({key: value for key, value in body.items() if key not in _OVER}, place)
    why = take.optional_text("ended_reason") or ""
    return PastStanding(stood, take.number("until"), take.text("ended_by"), take.text("ended"), why)


def _standing(body: Any, place: str) -> Standing:
    with Fields(body, place) as take:
        return Standing(
            number=take.integer("number", at_least=1),
            at=take.number("at"),
            by=take.text("by"),
            reason=take.optional_text("reason") or "",
            origin=take.optional_text("from"),
            how=take.text("how"),
            gates=None if take.anything("gates") is None else take.mapping("gates"),
        )
