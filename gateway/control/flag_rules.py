"""Rules that name a flag, compiled: from what the flag says to a version that may answer, or to none."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from gateway.control.documents import RouteDocument
from gateway.control.flags import Evaluation
from gateway.control.route_spec import FlagRuleSpec
from gateway.events.records import FlagMiss
from gateway.messages import VersionRef
from gateway.routing.table import Choice, Choose

__all__ = ["FlagRules", "FlagSourceLike", "version_said", "without_flags"]

log = logging.getLogger("turnout.control")

_NUMBER = re.compile(r"[1-9][0-9]{0,15}")
_MOST_SAID = 1000
_ROUTE = "route"
"""The attribute that the gateway adds to the request's context; a client's own of that name is not seen."""


class FlagSourceLike(Protocol):
    """What a rule asks of the provider's bridge."""

    @property
    def name(self) -> str: ...

    def age_s(self) -> float | None: ...

    def evaluate(self, flag: str, key: str, context: Mapping[str, Any]) -> Evaluation: ...


class FlagRules:
    """``here`` says whether a version can be asked in this process. ``missed`` is told whenever a rule could not do
    what its flag says; each kind of miss is logged once."""

    def __init__(
        self,
        flags: FlagSourceLike,
        *,
        here: Callable[[VersionRef], bool],
        missed: Callable[[FlagMiss], None],
    ) -> None:
        self._flags = flags
        self._here = here
        self._missed = missed
        self._said: set[tuple[object, ...]] = set()

    def __repr__(self) -> str:
        return f"<FlagRules of {self._flags!r}>"

    def compile(self, route: str, document: RouteDocument, rule: FlagRuleSpec) -> Choose:
        flags, model, limit_s = self._flags, document.spec.model, document.spec.stale_after_s
        listed = frozenset(rule.versions()) or document.versions()
        barred = frozenset(document.status.quarantined)

        def miss(cause: str, said: object = None, version: int | None = None) -> None:
            self._miss(FlagMiss(route, rule.name, rule.flag, cause, model, version), said)

        def choose(key: str, context: Mapping[str, Any]) -> Choice:
            age = flags.age_s()
            if age is None or (limit_s is not None and age > limit_s):
                miss("not-ready" if age is None else "stale")
                return Choice(None, age, (rule.flag, None, flags.name), stale=True)
            said = flags.evaluate(rule.flag, key, {**context, _ROUTE: route})
            flag = (rule.flag, said.variant, flags.name)
            if said.fault is not None:
                miss(said.fault)  # one that was ended in the middle of this very question has no data to go by either
                return Choice(None, age, flag, stale=said.fault == "not-ready")
            number = version_said(said, rule.variants, model)
            if number is None:
                if said.value is not None and rule.variants is None:
                    miss("no-version", said.value)
                return Choice(None, age, flag)
            wrong = self._wrong(VersionRef(model, number), listed, barred)
            if wrong is not None:
                miss(wrong, number, number)
                return Choice(None, age, flag)
            return Choice(number, age, flag)

        return choose

    def _wrong(self, ref: VersionRef, listed: frozenset[int], barred: frozenset[int]) -> str | None:
        if ref.number in barred:
            return "quarantined"
        if ref.number not in listed:
            return "not-named"
        return None if self._here(ref) else "not-loaded"

    def _miss(self, miss: FlagMiss, said: object) -> None:
        self._missed(miss)
        told = (miss.route, miss.rule, miss.cause, str(said)[:100])
        if told not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(told)
            log.warning(
                "route %s, rule %s: flag %r %s%s", miss.route, miss.rule, miss.flag, _SENTENCES[miss.cause], _of(said)
            )


_SENTENCES: Mapping[str, str] = {
    "not-ready": "has no data to go by; the known good answers",
    "stale": "is older than the route's stale_after_s; the known good answers",
    "error": "could not be evaluated; the rule does not match",
    "not-found": "is not known to the provider; the rule does not match",
    "type": "is neither text, nor a whole number, nor true or false; the rule does not match",
    "context": "is not asked with a context this large; the rule does not match",
    "no-version": "names no version of the route's model; the rule does not match",
    "not-named": "names a version that the route does not keep loaded; add it to the rule's 'versions'",
    "quarantined": "names a version in quarantine; the rule does not match",
    "not-loaded": "names a version that is not loaded here; the rule does not match",
}


def _of(said: object) -> str:
    return "" if said is None else f" (it says {said!r:.100})"


def version_said(said: Evaluation, variants: Mapping[str, int] | None, model: str) -> int | None:
    """The version that a value or a variant stands for; None when it stands for none."""
    if variants is not None:
        return None if said.variant is None else variants.get(said.variant)
    value = said.value
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return value if value > 0 else None
    name, slash, number = str(value).strip().rpartition("/")
    if (slash and name != model) or not _NUMBER.fullmatch(number):
        return None
    return int(number)


class _NoFlags:
    """Where there is no bridge to a provider: flags have no data."""

    name = "none"

    def age_s(self) -> float | None:
        return None

    def evaluate(self, flag: str, key: str, context: Mapping[str, Any]) -> Evaluation:
        return Evaluation(fault="not-ready")


def without_flags() -> FlagRules:
    return FlagRules(_NoFlags(), here=lambda _: True, missed=lambda _: None)
