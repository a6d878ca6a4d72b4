"""Which version a key gets, and why: the decision that a request would get, told with what it was made of. Pure.

The very function that decides requests is asked, with the route compiled from its document; so what is told cannot
differ from what is done. Rules that name a flag ask the provider as it is now, whatever revision is asked about.
"""

from __future__ import annotations

from typing import Any

from gateway.control.compile import compile_route
from gateway.control.documents import RouteDocument
from gateway.control.explain_question import Question
from gateway.control.flag_rules import FlagRules
from gateway.errors import Forbidden, Quarantined, UnknownVersion, VersionUnavailable
from gateway.messages import Decision
from gateway.routing.assignment import SPACE, Assignment, Interval, transfers
from gateway.routing.decide import Facts, decide, key_by_route
from gateway.routing.table import Route, RoutingTable

__all__ = ["explain", "explain_change"]

View = dict[str, Any]

_NO_KEY = "the split decides by a place of the request's own, drawn with its decision id; name a key to ask about one"


def explain(
    name: str, document: RouteDocument, revision: int, question: Question, flags: FlagRules | None = None
) -> View:
    """``version`` is None where the request would be refused, or has no key; ``detail`` says so."""
    route = compile_route(name, document, default_timeout_ms=1, flags=flags)
    key, source = _key(route, question)
    asked = {
        "route": name,
        "revision": revision,
        "epoch": document.status.epoch,
        "known_good": document.status.known_good,
        "key": None if key is None else {"value": key, "from": source},
    }
    facts = Facts(name, question.key, question.context, question.headers, question.pin, decision_id="")
    try:
        decision = decide(RoutingTable({name: route}, name, revision), facts)
    except (Forbidden, Quarantined, UnknownVersion, VersionUnavailable) as refusal:
        return asked | {"version": None, "reason": None, "detail": str(refusal)}
    return asked | _decided(document, decision, known=key is not None)


def explain_change(
    name: str, before: RouteDocument, after: RouteDocument, question: Question, flags: FlagRules | None
) -> View:
    """What another split would change: for the key, and for the whole key space. ``moved`` is the least it can be."""
    told = explain(name, after, 0, question, flags)
    moves = transfers(before.status.assignment.split, after.status.assignment.split)
    return {
        **{field: told[field] for field in ("version", "reason", "interval", "detail") if field in told},
        "weights": _weights(after, None),
        "moved": sum(moves.values()) / SPACE,
        "moves": [
            {"from": giver, "to": taker, "share": places / SPACE} for (giver, taker), places in sorted(moves.items())
        ],
    }


def _key(route: Route, question: Question) -> tuple[str | None, str | None]:
    if question.key:
        return question.key, "request"
    found = None if route.key is None else key_by_route(route.key, question.headers, question.context)
    return found, None if found is None else route.key


def _decided(document: RouteDocument, decision: Decision, *, known: bool) -> View:
    rule = decision.reason.removeprefix("rule:") if decision.reason.startswith("rule:") else None
    view: View = {"version": decision.version.number, "reason": decision.reason, "rule": rule}
    if decision.flag is not None:
        flag, variant, provider = decision.flag
        view["flag"] = {"flag": flag, "variant": variant, "provider": provider, "age_s": decision.flag_age_s}
        view["flag"] |= {"stale": decision.flag_stale}
    if decision.bucket is None:
        return view
    view["weights"] = _weights(document, rule)
    if not known:
        return view | {"version": None, "detail": _NO_KEY}
    return view | {"place": decision.bucket, "interval": _interval(_assignment(document, rule).at(decision.bucket))}


def _assignment(document: RouteDocument, rule: str | None) -> Assignment:
    assigned = document.status.assignment
    return assigned.split if rule is None else assigned.rules[rule]


def _interval(interval: Interval) -> View:
    share = (interval.end - interval.start) / SPACE
    return {"start": interval.start, "end": interval.end, "version": interval.version, "share": share}


def _weights(document: RouteDocument, rule: str | None) -> dict[str, int]:
    split, ruled = document.weights()
    return {str(version): weight for version, weight in (split if rule is None else ruled[rule]).items()}
