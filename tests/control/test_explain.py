"""Explaining a decision: what is told is what is done, for every way to a version, now and in the past."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.control import transitions
from gateway.control.compile import compile_route
from gateway.control.documents import RouteDocument
from gateway.control.explain import explain, explain_change
from gateway.control.explain_question import Question
from gateway.control.route_spec import RouteSpec
from gateway.control.transitions import Catalogue
from gateway.routing.assignment import SPACE
from gateway.routing.decide import Facts, decide
from gateway.routing.split import place_of
from gateway.routing.table import RoutingTable

DIGITS = Catalogue("digits", frozenset(range(1, 8)))
STAFF = {"==": [{"var": "group"}, "staff"]}
RULES = [
    {"name": "staff", "if": STAFF, "use": 5},
    {
        "name": "beta",
        "if": {"==": [{"var": "beta"}, True]},
        "use": [{"version": 4, "weight": 1}, {"version": 6, "weight": 1}],
    },
]


def document(**changes: Any) -> RouteDocument:
    split = [{"version": 3, "weight": 90}, {"version": 4, "weight": 10}]
    return transitions.put(RouteSpec.parse({"model": "digits", "split": split, **changes}), None, DIGITS)


def told(document: RouteDocument, **question: Any) -> dict[str, Any]:
    return explain("digits", document, 12, Question(**question))


def test_a_key_by_the_split_is_told_with_place_interval_weights_epoch_and_revision() -> None:
    """All that the decision was made of."""
    view = told(document(), key="ada")
    place = place_of("digits", "ada")
    border = -(-90 * SPACE // 100)
    assert place < border
    assert view == {
        "route": "digits",
        "revision": 12,
        "epoch": 1,
        "known_good": 3,
        "key": {"value": "ada", "from": "request"},
        "version": 3,
        "reason": "split",
        "rule": None,
        "place": place,
        "interval": {"start": 0, "end": border, "version": 3, "share": border / SPACE},
        "weights": {"3": 90, "4": 10},
    }


def test_a_rule_is_told_by_its_name_and_a_rules_split_with_its_own_interval() -> None:
    """A version has no place; another split has."""
    ruled = document(rules=RULES)
    one = told(ruled, key="ada", context={"group": "staff"})
    assert (one["version"], one["reason"], one["rule"], "place" in one) == (5, "rule:staff", "staff", False)
    other = told(ruled, key="ada", context={"beta": True})
    assert (other["reason"], other["weights"]) == ("rule:beta", {"4": 1, "6": 1})
    assert other["interval"]["version"] == other["version"]
    assert other["interval"]["share"] == 0.5


@pytest.mark.parametrize(
    ("key", "facts"),
    [
        ("header:X-User-Id", {"headers": {"x-user-id": "ada"}}),
        ("context:user.id", {"context": {"user": {"id": "ada"}}}),
    ],
)
def test_the_routes_own_key_setting_is_followed_and_named(key: str, facts: dict[str, Any]) -> None:
    """The same user, however the request says who it is; the request's own key comes first."""
    keyed = document(key=key)
    view = told(keyed, **facts)
    assert view["key"] == {"value": "ada", "from": key}
    assert view["place"] == place_of("digits", "ada")
    assert told(keyed, key="bob", **facts)["key"] == {"value": "bob", "from": "request"}


def test_without_a_key_nobody_can_tell_and_it_says_so_but_a_rule_still_decides() -> None:
    """Each request has a place of its own then."""
    view = told(document(rules=RULES))
    assert (view["version"], view["reason"], view["key"]) == (None, "split", None)
    assert "name a key to ask about one" in view["detail"]
    assert told(document(rules=RULES), context={"group": "staff"})["version"] == 5


def test_a_pin_is_explained_as_predict_would_take_it() -> None:
    """Allowed, or refused with the very words of the refusal."""
    assert told(document(pin="allowed"), key="ada", pin=4)["reason"] == "pin"
    refused = told(document(), key="ada", pin=4)
    assert (refused["version"], refused["reason"]) == (None, None)
    assert "does not let clients choose" in refused["detail"]


def test_a_change_says_where_the_key_goes_and_who_moves_from_which_to_which() -> None:
    """Before it is made; and a third arm takes from those alone who lose weight."""
    before = document()
    key = next(name for name in map(str, range(1000)) if told(before, key=name)["place"] > 0.85 * SPACE)
    after = transitions.set_weights(before, {3: 70, 4: 10, 5: 20}, DIGITS)
    view = explain_change("digits", before, after, Question(key=key), None)
    assert view["weights"] == {"3": 70, "4": 10, "5": 20}
    assert view["version"] == told(after, key=key)["version"]
    assert [(move["from"], move["to"]) for move in view["moves"]] == [(3, 5)]
    assert view["moved"] == view["moves"][0]["share"] == pytest.approx(0.2)


@given(st.text(min_size=1, max_size=10), st.sampled_from([{}, {"group": "staff"}, {"beta": True}]), st.integers(0, 100))
def test_what_is_told_is_what_is_decided(key: str, context: dict[str, Any], weight: int) -> None:
    """For any key, context and weights: the same version, reason, place and epoch as a request gets."""
    now = transitions.set_weights(document(rules=RULES), {3: 100 - weight, 4: weight}, DIGITS)
    route = compile_route("digits", now, default_timeout_ms=1000)
    decision = decide(RoutingTable({"digits": route}, "digits", 12), Facts("digits", key=key, context=context))
    view = told(now, key=key, context=context)
    assert view["version"] == decision.version.number
    assert (view["reason"], view["epoch"], view.get("place")) == (decision.reason, decision.epoch, decision.bucket)
    if decision.bucket is not None:
        assert view["interval"]["start"] <= decision.bucket < view["interval"]["end"]
        assert view["interval"]["version"] == decision.version.number
