"""Decisions: pins, then rules, then the split; quarantine everywhere; one version for one key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.errors import Forbidden, Quarantined, UnknownRoute, UnknownVersion, VersionUnavailable
from gateway.messages import Decision, InferRequest, VersionRef
from gateway.routing.decide import Facts, decide
from gateway.routing.rules import compile_condition
from gateway.routing.split import place_of
from gateway.routing.table import Arm, Route, RoutingTable, Rule

DECISION = "0190b0a8-0000-7000-8000-000000000001"
STAFF = {"==": [{"var": "group"}, "staff"]}


def rule(name: str, expr: Mapping[str, Any], use: int | tuple[Arm, ...]) -> Rule:
    return Rule(name, compile_condition(expr, name=name), use)


def route(**changes: Any) -> Route:
    settled: dict[str, Any] = {"arms": (Arm(3, 95), Arm(4, 5)), "pinnable": frozenset({3, 4, 5})}
    return Route("digits", "digits", **{**settled, **changes})


def table(*routes: Route, default: str | None = "digits") -> RoutingTable:
    return RoutingTable({each.name: each for each in routes}, default, 7)


def facts(**changes: Any) -> Facts:
    return Facts(**{"route": "digits", "decision_id": DECISION, **changes})


def version(where: Route, **changes: Any) -> int:
    return decide(table(where), facts(**changes)).version.number


def test_a_decision_says_route_version_reason_bucket_and_revision() -> None:
    """Everything a record needs to be read later."""
    place = place_of("digits", "ada")
    expected = Decision("digits", VersionRef("digits", 3), "split", place, 7)
    assert decide(table(route()), facts(key="ada")) == expected


def test_no_route_asked_for_means_the_default_route() -> None:
    """``POST /predict`` without a name."""
    assert decide(table(route()), facts(route=None)).route == "digits"


def test_an_unknown_route_is_an_error_that_names_the_known_ones() -> None:
    """Also the empty name, and a default that is not set or not there."""
    for name in ("digit", "", "DIGITS"):
        with pytest.raises(UnknownRoute, match="routes here: digits"):
            decide(table(route()), facts(route=name))
    with pytest.raises(UnknownRoute, match="no default route is set"):
        decide(table(route(), default=None), facts(route=None))
    with pytest.raises(UnknownRoute, match="no default route"):
        decide(table(route(), default="gone"), facts(route=None))
    with pytest.raises(UnknownRoute, match="none yet"):
        decide(table(default=None), facts(route="x" * 10_000))


def test_an_infer_request_stands_in_for_its_facts() -> None:
    """The data plane need not copy a request to have it decided."""
    request = InferRequest("digits", "r", DECISION, None, key="ada", pin=None)
    assert decide(table(route()), request) == decide(table(route()), facts(key="ada"))


@pytest.mark.parametrize(
    ("pin", "by_protocol", "permitted"),
    [
        ("allowed", False, True),
        ("allowed", True, True),
        ("denied", False, False),
        ("denied", True, False),
        (None, False, False),
        (None, True, True),
    ],
)
def test_pins_are_denied_for_predict_and_allowed_for_the_protocol_unless_the_route_says(
    pin: str | None, by_protocol: bool, permitted: bool
) -> None:
    """The default of each door, and the route's word over both."""
    where, asked = route(pin=pin), facts(pin=5, pin_by_protocol=by_protocol)
    if permitted:
        assert decide(table(where), asked) == Decision("digits", VersionRef("digits", 5), "pin", None, 7)
    else:
        with pytest.raises(Forbidden, match="does not let clients choose"):
            decide(table(where), asked)


def test_a_pin_comes_before_rules_and_split() -> None:
    """Whoever may choose has chosen."""
    where = route(pin="allowed", rules=(rule("staff", STAFF, 4),))
    assert version(where, pin=5, context={"group": "staff"}) == 5


def test_a_pin_on_a_version_the_route_does_not_name_is_unknown() -> None:
    """The message lists what could be pinned, without the quarantined."""
    where = route(pin="allowed", quarantined=frozenset({4}))
    with pytest.raises(UnknownVersion, match="does not name version 9; it names 3, 5"):
        version(where, pin=9)


@pytest.mark.parametrize("pinnable", [frozenset({3, 4}), frozenset({3})])
def test_a_pin_on_a_quarantined_version_is_a_conflict(pinnable: frozenset[int]) -> None:
    """409 and not 404, also when the rolled-back version is no longer named by the route."""
    where = route(pin="allowed", quarantined=frozenset({4}), pinnable=pinnable)
    with pytest.raises(Quarantined, match="version 4 was rolled back from route 'digits'"):
        version(where, pin=4)


def test_the_first_rule_that_matches_decides() -> None:
    """In the order of the document; those that do not match fall through to the split."""
    where = route(
        arms=(Arm(3, 1),),
        rules=(rule("never", {"==": [1, 2]}, 9), rule("staff", STAFF, 4), rule("all", {"==": [1, 1]}, 5)),
    )
    assert decide(table(where), facts(context={"group": "staff"})).reason == "rule:staff"
    assert version(where, context={"group": "staff"}) == 4
    assert decide(table(where), facts()) == Decision("digits", VersionRef("digits", 5), "rule:all", None, 7)


def test_a_rule_may_use_another_split() -> None:
    """Its own arms, the same key and scheme; the bucket is recorded."""
    arms = (Arm(4, 1), Arm(5, 1))
    where = route(arms=(Arm(3, 1),), rules=(rule("staff", STAFF, arms),))
    decisions = [decide(table(where), facts(key=str(key), context={"group": "staff"})) for key in range(200)]
    assert {each.version.number for each in decisions} == {4, 5}
    assert {each.reason for each in decisions} == {"rule:staff"}
    assert [each.bucket for each in decisions] == [place_of("digits", str(key)) for key in range(200)]


def test_a_rule_whose_version_is_quarantined_falls_through() -> None:
    """No flag brings back what a rollback took away."""
    where = route(
        arms=(Arm(3, 1),), rules=(rule("staff", STAFF, 4), rule("also", STAFF, 5)), quarantined=frozenset({4})
    )
    assert decide(table(where), facts(context={"group": "staff"})).reason == "rule:also"


def test_a_rules_split_leaves_out_quarantined_arms_and_falls_through_when_none_is_left() -> None:
    """Its arms count as weight 0, one by one."""
    arms = (Arm(4, 1), Arm(5, 1))
    half = route(arms=(Arm(3, 1),), rules=(rule("staff", STAFF, arms),), quarantined=frozenset({4}))
    none = route(arms=(Arm(3, 1),), rules=(rule("staff", STAFF, arms),), quarantined=frozenset({4, 5}))
    idle = route(arms=(Arm(3, 1),), rules=(rule("staff", STAFF, (Arm(4, 0),)),))
    staff = {"group": "staff"}
    assert {version(half, key=str(key), context=staff) for key in range(50)} == {5}
    assert decide(table(none), facts(context=staff)).reason == "split"
    assert decide(table(idle), facts(context=staff)).reason == "split"


def test_a_rule_can_ask_for_the_key_and_the_route_as_in_flagd() -> None:
    """``targetingKey`` is the request's key and ``$flagd.flagKey`` the route; a context cannot forge them."""
    where = route(
        arms=(Arm(3, 1),),
        rules=(
            rule("ada", {"==": [{"var": "targetingKey"}, "ada"]}, 4),
            rule("other", {"!=": [{"var": "$flagd.flagKey"}, "digits"]}, 5),
        ),
    )
    forged = {"targetingKey": "ada", "$flagd": {"flagKey": "x"}}
    assert version(where, key="ada") == 4
    assert version(where, key="bob", context=forged) == 3
    assert version(where, context=forged) == 3


def test_a_split_without_weight_is_unavailable_and_says_what_to_do() -> None:
    """All zero, or all quarantined."""
    for empty in (route(arms=(Arm(3, 0),)), route(quarantined=frozenset({3, 4})), route(arms=())):
        with pytest.raises(VersionUnavailable, match="still loading, quarantined, or of weight 0"):
            version(empty)


KEYED = {"header:x-user-id": {"headers": {"x-user-id": "ada"}}, "context:user": {"context": {"user": "ada"}}}


@pytest.mark.parametrize("key", list(KEYED))
def test_the_key_is_the_requests_then_the_routes_then_the_decision_id(key: str) -> None:
    """In this order, and the same user always lands in the same place."""
    where = table(route(key=key))
    own, named = facts(key="bob", **KEYED[key]), facts(**KEYED[key])
    assert decide(where, own).bucket == place_of("digits", "bob")
    assert decide(where, named).bucket == place_of("digits", "ada")
    assert decide(where, facts()).bucket == place_of("digits", DECISION)


def test_the_name_of_a_key_header_may_be_written_in_any_case() -> None:
    """Headers arrive in lower case; documents are written by people."""
    where = table(route(key="header:X-User-Id"))
    assert decide(where, facts(headers={"x-user-id": "ada"})).bucket == place_of("digits", "ada")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("ada", "ada"),
        (7, "7"),
        (7.0, "7"),
        (-0.0, "0"),
        (7.5, "7.5"),
        (True, "true"),
        (False, "false"),
        (2**64 - 1, "18446744073709551615"),
        (2**64, "1.8446744073709552e+19"),
        (1e300, "1e+300"),
    ],
)
def test_a_scalar_in_the_context_is_a_key_by_its_one_text(value: Any, text: str) -> None:
    """However a client's JSON library writes a number, the user stays where they are."""
    decided = decide(table(route(key="context:user")), facts(context={"user": value}))
    assert decided.bucket == place_of("digits", text)


@pytest.mark.parametrize("value", [None, "", [], ["ada"], {"id": "ada"}, float("nan"), float("inf"), 10**400])
def test_what_is_no_usable_key_counts_as_missing(value: Any) -> None:
    """All users with an empty field would share one bucket otherwise."""
    decided = decide(table(route(key="context:user")), facts(context={"user": value}))
    assert decided.bucket == place_of("digits", DECISION)


def test_an_empty_key_of_the_request_counts_as_missing() -> None:
    """As flagd requires of a targeting key."""
    assert decide(table(route()), facts(key="")).bucket == place_of("digits", DECISION)


def test_a_context_key_may_lie_deeper_and_a_field_with_that_very_name_wins() -> None:
    """``context:user.id`` reads as ``var`` reads it."""
    where = table(route(key="context:user.id"))
    deep, flat = {"user": {"id": "ada"}}, {"user.id": "bob", "user": {"id": "ada"}}
    assert decide(where, facts(context=deep)).bucket == place_of("digits", "ada")
    assert decide(where, facts(context=flat)).bucket == place_of("digits", "bob")
    assert decide(where, facts(context={"user": [1]})).bucket == place_of("digits", DECISION)


versions = st.integers(1, 6)
arms = st.lists(st.builds(Arm, versions, st.integers(0, 50)), max_size=5).map(tuple)
conditions = st.sampled_from([STAFF, {"==": [1, 1]}, {"==": [1, 2]}, {"in": [{"var": "targetingKey"}, ["a", "b"]]}])
rules = st.lists(st.builds(lambda expr, use: rule("some", expr, use), conditions, versions | arms), max_size=3).map(
    tuple
)
routes = st.builds(
    Route,
    st.just("digits"),
    st.just("digits"),
    arms,
    key=st.sampled_from([None, "header:x-user-id", "context:user"]),
    pin=st.sampled_from([None, "allowed", "denied"]),
    rules=rules,
    quarantined=st.frozensets(versions, max_size=4),
    pinnable=st.frozensets(versions),
)
asked = st.builds(
    Facts,
    st.just("digits"),
    key=st.none() | st.text(max_size=5),
    context=st.fixed_dictionaries(
        {},
        optional={"user": st.text(max_size=5) | st.integers() | st.floats(), "group": st.sampled_from(["staff", "x"])},
    ),
    headers=st.fixed_dictionaries({}, optional={"x-user-id": st.text(max_size=5)}),
    pin=st.none() | versions,
    pin_by_protocol=st.booleans(),
    decision_id=st.uuids().map(str),
)
REFUSALS = (Forbidden, Quarantined, UnknownVersion, VersionUnavailable)


@given(routes, asked)
def test_a_quarantined_version_is_never_chosen(where: Route, request: Facts) -> None:
    """By no pin, rule or split, and a decision is one of the four reasons or a refusal with meaning."""
    try:
        decided = decide(table(where), request)
    except REFUSALS:
        return
    assert decided.version.number not in where.quarantined
    assert decided.reason in ("pin", "rule:some", "split")
    assert decided.revision == 7


@given(routes, asked)
def test_a_version_of_weight_0_is_never_chosen_by_a_split(where: Route, request: Facts) -> None:
    """A weight of 0 means 0 on the next request."""
    assume(request.pin is None)
    try:
        decided = decide(table(where), request)
    except VersionUnavailable:
        return
    if decided.reason == "split":
        assert sum(arm.weight for arm in where.arms if arm.version == decided.version.number) > 0


@given(routes, asked, asked)
def test_the_same_key_gets_the_same_version(where: Route, one: Facts, other: Facts) -> None:
    """Whatever else differs between the requests, as long as no rule or pin looks at it."""
    plain = Route("digits", "digits", where.arms, quarantined=where.quarantined)
    assume(any(arm.weight and arm.version not in where.quarantined for arm in where.arms))
    first = Facts("digits", key="ada", context=one.context, headers=one.headers, decision_id=one.decision_id)
    second = Facts("digits", key="ada", context=other.context, headers=other.headers, decision_id=other.decision_id)
    assert decide(table(plain), first) == decide(table(plain), second)


@given(routes, asked)
def test_deciding_twice_decides_alike(where: Route, request: Facts) -> None:
    """No clock, no randomness, nothing kept."""

    def outcome() -> Decision | type[Exception]:
        try:
            return decide(table(where), request)
        except REFUSALS as refusal:
            return type(refusal)

    assert outcome() == outcome()
