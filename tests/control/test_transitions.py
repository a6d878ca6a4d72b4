"""Transitions of a route: pure, and no sequence of them leaves a document that must not be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.control import transitions
from gateway.control.compile import compile_route
from gateway.control.documents import MIGRATIONS, SCHEMA, Quarantine, RouteDocument
from gateway.control.key_space import Assignments
from gateway.control.route_spec import RouteSpec
from gateway.control.transitions import Catalogue, faults
from gateway.errors import BadRequest, Conflict, InvalidInput, Quarantined, StoreUnavailable, TurnoutError
from gateway.messages import VersionRef
from gateway.routing.assignment import SPACE, first, moved, transfers
from gateway.routing.decide import Facts, decide
from gateway.routing.table import CachePolicy, Route, RoutingTable, Shadow

DIGITS = Catalogue("digits", frozenset(range(1, 8)), frozenset({7}))
SPLIT = [{"version": 3, "weight": 95}, {"version": 4, "weight": 5}]


def spec(**changes: Any) -> RouteSpec:
    return RouteSpec.parse({"model": "digits", "split": SPLIT, **changes})


def made(**changes: Any) -> RouteDocument:
    return transitions.put(spec(**changes), None, DIGITS)


def compiled(asked: RouteSpec) -> Route:
    return compile_route("digits", transitions.put(asked, None, DIGITS), default_timeout_ms=10_000)


def rolled_back(document: RouteDocument, to: int | None = None) -> RouteDocument:
    return transitions.rollback(document, to=to, reason="it is bad", by="olga", at=5.0)


def split(document: RouteDocument) -> dict[int, int]:
    return {arm.version: arm.weight for arm in document.status.split}


def arms(document: RouteDocument) -> dict[int, int]:
    return {arm.version: arm.weight for arm in document.spec.split}


@pytest.mark.parametrize(
    ("body", "field", "expected"),
    [
        ([], "spec", "object"),
        ({"model": "digits"}, "split", "required"),
        ({"split": SPLIT}, "model", "required"),
        ({"model": "digits", "split": []}, "split", "at least 1"),
        ({"model": "digits", "split": [{"version": 3, "weight": -1}]}, "split[0].weight", "at least 0"),
        ({"model": "digits", "split": [{"version": 3, "weight": 2**31}]}, "split[0].weight", "2147483647"),
        ({"model": "digits", "split": [{"version": 3, "weight": 0}]}, "split", "add up to 0"),
        ({"model": "digits", "split": [{"version": "3", "weight": 1}]}, "split[0].version", "whole number"),
        ({"model": "digits", "split": [{"version": 3, "weight": 0.5}]}, "split[0].weight", "whole number"),
        ({"model": "digits", "split": [{"version": 3, "weight": True}]}, "split[0].weight", "whole number"),
        ({"model": "digits", "split": [SPLIT[0], SPLIT[0]]}, "split", "names version 3 twice"),
        (
            {"model": "digits", "split": [{"version": 3, "weight": 2**31 - 1}, {"version": 4, "weight": 1}]},
            "split",
            "add up to 2147483648",
        ),
        ({"model": "digits", "split": SPLIT, "weight": 3}, "weight", "no such field"),
        ({"model": "digits", "split": SPLIT, "key": "cookie:user"}, "key", "context:<field>"),
        ({"model": "digits", "split": SPLIT, "pin": "maybe"}, "pin", "allowed"),
        ({"model": "digits", "split": SPLIT, "access": "secret"}, "access", "token"),
        ({"model": "digits", "split": SPLIT, "limits": {"timeout_ms": 0}}, "limits.timeout_ms", "1"),
        ({"model": "digits", "split": SPLIT, "limits": {"rate_per_s": 0}}, "limits.rate_per_s", "more than 0"),
        ({"model": "digits", "split": SPLIT, "limits": {"rate_per_s": "5"}}, "limits.rate_per_s", "a number"),
        ({"model": "digits", "split": SPLIT, "limits": {"rate_per_s": float("nan")}}, "limits.rate_per_s", ""),
        ({"model": "digits", "split": SPLIT, "limits": {"burst": 5}}, "limits", "burst is 5 without a rate_per_s"),
        ({"model": "digits", "split": SPLIT, "cache": {"max_bytes": 1000}}, "cache.max_bytes", "at least 65536"),
        ({"model": "digits", "split": SPLIT, "cache": {"max_bytes": "64MiB"}}, "cache.max_bytes", "a whole number"),
        ({"model": "digits", "split": SPLIT, "cache": {"ttl_s": 0}}, "cache.ttl_s", "more than 0"),
        ({"model": "digits", "split": SPLIT, "cache": {"ttl_s": float("inf")}}, "cache.ttl_s", ""),
        ({"model": "digits", "split": SPLIT, "cache": {"size": 5}}, "cache.size", "no such field"),
        ({"model": "digits", "split": SPLIT, "cache": True}, "cache", ""),
        ({"model": "digits", "split": SPLIT, "shadow": [{"version": 5, "share": 0}]}, "shadow[0].share", "more than 0"),
        ({"model": "digits", "split": SPLIT, "shadow": [{"version": 5, "share": 2}]}, "shadow[0].share", "at most 1"),
        ({"model": "digits", "split": SPLIT, "shadow": [{"version": 5}]}, "shadow[0].share", "required"),
        (
            {"model": "digits", "split": SPLIT, "shadow": [{"version": 5, "share": 0.5}] * 2},
            "shadow",
            "names version 5 twice",
        ),
        ({"model": "digits", "split": SPLIT, "tolerance": -1}, "tolerance", "at least 0"),
        (
            {"model": "digits", "split": SPLIT, "rules": [{"name": "b", "flag": "f", "use": 3}]},
            "rules[0].use",
            "no such field",
        ),
        (
            {"model": "digits", "split": SPLIT, "rules": [{"name": "b", "flag": "f", "variants": {"on": "four"}}]},
            "rules[0].variants.on",
            "a whole number",
        ),
        (
            {"model": "digits", "split": SPLIT, "rules": [{"name": "b", "if": {"nope": 1}, "use": 3}]},
            "rules[0]",
            "nope",
        ),
        (
            {"model": "digits", "split": SPLIT, "rules": [{"name": "b", "if": {"fractional": []}, "use": 3}]},
            "rules[0]",
            "split",
        ),
        ({"model": "digits", "split": SPLIT, "rules": [{"name": "b", "use": 3}]}, "rules[0].if", "required"),
        (
            {"model": "digits", "split": SPLIT, "rules": [{"name": "b", "if": {"!": 1}, "use": "4"}]},
            "rules[0].use",
            "",
        ),
        (
            {"model": "digits", "split": SPLIT, "rules": [{"name": "b", "if": {"!": 1}, "use": 3}] * 2},
            "rules",
            "two rules are named 'b'",
        ),
    ],
)
def test_a_spec_that_does_not_fit_is_refused_by_field(body: Any, field: str, expected: str) -> None:
    """Every fault names its field, what was expected and what came; nothing is silently ignored."""
    with pytest.raises(InvalidInput) as caught:
        RouteSpec.parse(body)
    problem = caught.value.problems[0]
    assert problem.field == field
    assert expected in problem.expected
    assert problem.got


def test_a_spec_survives_storage_without_its_defaults() -> None:
    """What is written is what was asked, and reads as the same spec again; the order of the arms stays."""
    body = {
        "model": "digits",
        "split": [{"version": 4, "weight": 5}, {"version": 3, "weight": 95}],
        "key": "header:x-user-id",
        "pin": "allowed",
        "rules": [{"name": "staff", "if": {"==": [{"var": "group"}, "staff"]}, "use": 4}],
        "fallback": 3,
        "known_good": 3,
        "limits": {"timeout_ms": 2000, "slow_ms": 200, "queue_rows": 4096, "rate_per_s": 2.5, "burst": 10},
        "cache": {"max_bytes": 1_000_000, "ttl_s": 60.0},
        "access": "token",
        "shadow": [{"version": 4, "share": 0.25}],
        "tolerance": 0.01,
    }
    assert RouteSpec.parse(body).to_json() == body
    assert "shadow" not in RouteSpec.parse({**body, "shadow": []}).to_json()
    assert spec().to_json() == {"model": "digits", "split": SPLIT}
    document = transitions.put(RouteSpec.parse(body), None, DIGITS)
    assert RouteDocument.from_json(document.to_json()) == document


def test_a_cache_without_its_own_figures_takes_the_defaults_and_stays_as_it_was_asked_for() -> None:
    """``cache: {}`` turns it on; nothing, or null, leaves it off."""
    assert spec(cache={}).to_json()["cache"] == {}
    assert compiled(spec(cache={})).cache == CachePolicy(64 * 1024 * 1024, None)
    assert compiled(spec(cache={"max_bytes": 65536, "ttl_s": 5})).cache == CachePolicy(65536, 5.0)
    assert compiled(spec(cache=None)).cache is None
    assert compiled(spec()).cache is None


def test_a_rate_without_a_burst_lets_through_at_once_what_it_lets_through_in_a_second() -> None:
    """At least one; without a rate there is no limit."""
    for limits, burst in (({"rate_per_s": 2.5}, 3), ({"rate_per_s": 0.1}, 1), ({"rate_per_s": 5, "burst": 2}, 2)):
        found = compiled(spec(limits=limits)).limits
        assert (found.rate_per_s, found.burst) == (limits["rate_per_s"], burst)
    assert compiled(spec()).limits.rate_per_s is None


def test_a_document_of_a_newer_schema_is_refused_and_an_older_one_migrates() -> None:
    """Forward only: the numbers are named, and a step is applied to what is older."""
    body = made().to_json()
    with pytest.raises(StoreUnavailable, match=f"schema {SCHEMA + 1}"):
        RouteDocument.from_json({**body, "schema": SCHEMA + 1})
    old = {"schema": 0, "route": {"spec": body["spec"], "status": body["status"]}}
    assert RouteDocument.from_json(old, migrations={**MIGRATIONS, 0: lambda found: dict(found["route"])}) == made()
    with pytest.raises(StoreUnavailable):
        RouteDocument.from_json({"schema": 1, "spec": body["spec"]})


def test_the_known_good_is_the_heaviest_arm_and_moves_only_when_an_operator_says_so() -> None:
    """Weights do not move it; a spec that names it does; a rollback makes its target it."""
    document = made()
    assert document.status.known_good == 3
    document = transitions.set_weights(document, {3: 1, 4: 99}, DIGITS)
    assert document.status.known_good == 3
    document = transitions.put(spec(), document, DIGITS)
    assert document.status.known_good == 3
    document = transitions.put(spec(known_good=4), document, DIGITS)
    assert document.status.known_good == 4
    assert made(split=[{"version": 5, "weight": 1}, {"version": 4, "weight": 1}]).status.known_good == 5


def test_weights_are_the_whole_split() -> None:
    """Arms not named get 0 and keep their place, a new one goes last, what is in force has only arms with weight."""
    document = transitions.set_weights(made(), {5: 10, 4: 90}, DIGITS)
    assert list(arms(document).items()) == [(3, 0), (4, 90), (5, 10)]
    assert split(document) == {4: 90, 5: 10}


@pytest.mark.parametrize(
    ("weights", "error", "words"),
    [
        ({9: 5}, InvalidInput, "no version 9; it has 1, 2, 3, 4, 5, 6"),
        ({7: 5}, Conflict, "archived"),
        ({3: 0}, InvalidInput, "add up to 0"),
        ({3: -1}, InvalidInput, "at least 0"),
        ({3: 2**31}, InvalidInput, "2147483647"),
        ({}, InvalidInput, "add up to 0"),
    ],
)
def test_weights_that_cannot_be_are_refused(weights: dict[int, int], error: type[Exception], words: str) -> None:
    """Unknown, archived, negative, too large, nothing at all."""
    with pytest.raises(error, match=words):
        transitions.set_weights(made(), weights, DIGITS)


@pytest.mark.parametrize(
    "changes",
    [
        {"split": [{"version": 9, "weight": 1}]},
        {"fallback": 9},
        {"known_good": 9},
        {"rules": [{"name": "r", "if": {"!": 1}, "use": 9}]},
        {"rules": [{"name": "r", "if": {"!": 1}, "use": [{"version": 9, "weight": 1}]}]},
    ],
)
def test_a_version_that_does_not_exist_is_refused_wherever_it_is_named(changes: dict[str, Any]) -> None:
    """Split, rule, rule's split, fallback, known good; an archived one likewise."""
    with pytest.raises(InvalidInput, match="no version 9"):
        made(**changes)
    archived = Catalogue("digits", frozenset(range(1, 10)), frozenset({9}))
    with pytest.raises(Conflict, match="archived"):
        transitions.put(spec(**changes), None, archived)


def test_a_rollback_sends_everything_to_the_known_good_and_quarantines_the_others() -> None:
    """Those of the split, also at weight 0, and those that a rule names; the reason, who and when are kept."""
    document = rolled_back(
        made(
            split=[*SPLIT, {"version": 2, "weight": 0}],
            rules=[
                {"name": "a", "if": {"!": 1}, "use": 5},
                {"name": "b", "if": {"!": 1}, "use": [{"version": 6, "weight": 1}, {"version": 3, "weight": 1}]},
            ],
            fallback=1,
        )
    )
    assert split(document) == {3: 100}
    assert arms(document) == {3: 100, 4: 0, 2: 0}
    assert sorted(document.status.quarantined) == [2, 4, 5, 6]
    assert document.status.quarantined[4].to_json() == {"reason": "it is bad", "at": 5.0, "by": "olga"}
    assert document.spec.fallback == 1
    assert document.status.known_good == 3
    assert faults(document) == []


def test_a_fallback_that_is_quarantined_is_replaced_by_the_target() -> None:
    """It was an arm too; a quarantined version answers nobody."""
    document = rolled_back(made(fallback=4))
    assert document.spec.fallback == 3
    assert faults(document) == []


def test_a_rollback_to_a_named_version_makes_it_the_known_good() -> None:
    """The former known good was an arm: it is in quarantine, and can be nobody's way out."""
    document = rolled_back(made(known_good=3), to=4)
    assert split(document) == {4: 100}
    assert document.status.known_good == 4
    assert document.spec.known_good == 4
    assert list(document.status.quarantined) == [3]


def test_a_rollback_to_where_it_is_already_is_the_same_document() -> None:
    """So the second of two operators changes nothing."""
    once = rolled_back(made())
    assert rolled_back(once) == once


def test_a_rollback_with_nowhere_to_go_is_a_conflict() -> None:
    """To a quarantined version, and to one that the route does not name and so does not keep loaded."""
    with pytest.raises(Quarantined):
        rolled_back(rolled_back(made()), to=4)
    with pytest.raises(Conflict, match="does not name version 5"):
        rolled_back(made(), to=5)


def test_a_quarantined_version_gets_no_traffic_until_it_is_lifted() -> None:
    """Weights, split, fallback and known good refuse it; a rule may name it and falls through; 0 is no traffic."""
    document = rolled_back(made())
    for attempt in (
        lambda: transitions.set_weights(document, {4: 5, 3: 95}, DIGITS),
        lambda: transitions.put(spec(), document, DIGITS),
        lambda: transitions.put(spec(split=SPLIT[:1], fallback=4), document, DIGITS),
        lambda: transitions.put(spec(split=SPLIT[:1], known_good=4), document, DIGITS),
    ):
        with pytest.raises(Quarantined, match="quarantine"):
            attempt()
    assert split(transitions.set_weights(document, {3: 100, 4: 0}, DIGITS)) == {3: 100}
    ruled = transitions.put(spec(split=SPLIT[:1], rules=[{"name": "r", "if": {"!": [0]}, "use": 4}]), document, DIGITS)
    assert 4 in ruled.status.quarantined
    lifted = transitions.lift(document, 4)
    assert split(lifted) == {3: 100}
    assert split(transitions.set_weights(lifted, {4: 5, 3: 95}, DIGITS)) == {3: 95, 4: 5}
    with pytest.raises(Conflict, match="not in quarantine"):
        transitions.lift(lifted, 4)


def test_another_model_under_the_same_name_is_another_route() -> None:
    """Its numbers mean other versions: quarantine and known good start anew."""
    document = rolled_back(made())
    letters = Catalogue("letters", frozenset({4}))
    fresh = transitions.put(
        RouteSpec.parse({"model": "letters", "split": [{"version": 4, "weight": 1}]}), document, letters
    )
    assert (fresh.status.known_good, dict(fresh.status.quarantined)) == (4, {})
    assert fresh.status.epoch > document.status.epoch


def test_restore_brings_the_spec_back_and_never_what_was_rolled_back() -> None:
    """A past split that names a version quarantined since is refused; after the lift it comes back."""
    first = made()
    second = transitions.put(spec(split=[{"version": 5, "weight": 1}], known_good=5), first, DIGITS)
    assert split(transitions.restore(first, second, DIGITS)) == {3: 95, 4: 5}
    assert transitions.restore(first, second, DIGITS).status.known_good == 3
    back = rolled_back(first)
    with pytest.raises(Quarantined):
        transitions.restore(first, back, DIGITS)
    assert split(transitions.restore(first, transitions.lift(back, 4), DIGITS)) == {3: 95, 4: 5}


def test_the_epoch_counts_changes_of_who_gets_what() -> None:
    """Limits do not change it; weights, rules, key, rollback and lift do."""
    document = made()
    assert document.status.epoch == 1
    assert transitions.put(spec(limits={"timeout_ms": 5}), document, DIGITS).status.epoch == 1
    assert transitions.put(spec(key="header:x"), document, DIGITS).status.epoch == 2
    back = rolled_back(transitions.set_weights(document, {3: 50, 4: 50}, DIGITS))
    assert back.status.epoch == 3
    assert transitions.lift(back, 4).status.epoch == 4


def intervals(document: RouteDocument) -> list[tuple[int, int, int]]:
    return [tuple(interval) for interval in document.status.assignment.split]


def test_the_first_assignment_is_flagds_and_a_change_moves_the_fewest_keys() -> None:
    """Three arms, of which two change: the third keeps every key."""
    document = made(split=[{"version": n, "weight": w} for n, w in ((3, 80), (4, 10), (5, 10))])
    assert document.status.assignment.split == first({3: 80, 4: 10, 5: 10})
    changed = transitions.set_weights(document, {3: 70, 4: 20, 5: 10}, DIGITS)
    moves = transfers(document.status.assignment.split, changed.status.assignment.split)
    assert moves.keys() == {(3, 4)}
    assert abs(moves[3, 4] / SPACE - 0.1) < 1e-9


def test_a_route_of_another_model_is_assigned_anew_and_a_change_beside_the_split_moves_nobody() -> None:
    """Numbers of another model mean other versions; limits mean nobody."""
    document = transitions.set_weights(made(), {3: 10, 4: 80, 5: 10}, DIGITS)
    limited = transitions.put(document.spec.model_copy(update={"pin": "allowed"}), document, DIGITS)
    assert limited.status.assignment == document.status.assignment
    assert limited.status.epoch == document.status.epoch
    letters = Catalogue("letters", frozenset({3, 4, 5}))
    asked = RouteSpec.parse({**document.spec.to_json(), "model": "letters"})
    assert transitions.put(asked, document, letters).status.assignment.split == first({3: 10, 4: 80, 5: 10})


def test_a_restore_puts_every_key_back_where_it_was() -> None:
    """To the very intervals of then, though a change back by weights would have kept others where they are."""
    document = transitions.set_weights(made(), {3: 40, 4: 20, 5: 40}, DIGITS)
    later = document
    for weights in ({3: 10, 4: 80, 5: 10}, {4: 10, 5: 90}, {3: 50, 4: 25, 5: 25}):
        later = transitions.set_weights(later, weights, DIGITS)
    back = transitions.restore(document, later, DIGITS)
    assert intervals(back) == intervals(document)
    assert back.status.epoch == later.status.epoch + 1
    assert faults(back) == []


SPLIT_RULE = {"name": "beta", "if": {"!": [0]}, "use": [{"version": 4, "weight": 1}, {"version": 5, "weight": 3}]}


def test_a_rules_split_gives_up_the_keys_of_what_is_quarantined_and_a_lift_gives_them_back() -> None:
    """Those of the other arm stay; after the lift all are where they were."""
    document = made(rules=[SPLIT_RULE], known_good=3)
    before = document.status.assignment.rules["beta"]
    assert before == first({4: 1, 5: 3})
    back = rolled_back(document)
    assert back.status.assignment.rules["beta"].sizes() == {}
    lifted = transitions.lift(back, 5)
    assert lifted.status.assignment.rules["beta"].sizes() == {5: SPACE}
    both = transitions.lift(lifted, 4)
    assert both.status.assignment.rules["beta"].same_keys(before)
    assert [found.status.epoch for found in (document, back, lifted, both)] == [1, 2, 3, 4]


def test_a_document_of_schema_1_keeps_every_key_where_it_was() -> None:
    """It held no intervals and was decided by flagd's formula, over the arms that were not in quarantine."""
    body = rolled_back(made(rules=[SPLIT_RULE], split=SPLIT), to=4).to_json()
    body["status"]["quarantined"]["6"] = body["status"]["quarantined"]["3"]
    old = {**body, "schema": 1, "status": {k: v for k, v in body["status"].items() if k != "assignment"}}
    old["status"]["quarantined"] = {"4": body["status"]["quarantined"]["3"]}
    old["status"]["split"] = old["spec"]["split"] = [{"version": 3, "weight": 90}, {"version": 5, "weight": 10}]
    old["status"]["known_good"] = 3
    document = RouteDocument.from_json(old)
    assert document.status.assignment.split == first({3: 90, 5: 10})
    assert document.status.assignment.rules == {"beta": first({5: 3})}
    assert faults(document) == []
    assert RouteDocument.from_json(document.to_json()) == document


@pytest.mark.parametrize(
    "ends", [[5], [0, SPACE], [7, 7, SPACE], [9, 8, SPACE], [SPACE, SPACE + 1], ["x", SPACE], [None]]
)
def test_a_document_with_intervals_that_cannot_be_is_refused(ends: list[Any]) -> None:
    """A damaged store is told, never routed by."""
    body = made().to_json()
    body["status"]["assignment"]["split"]["intervals"] = [[end, 3] for end in ends]
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        RouteDocument.from_json(body)


def test_intervals_that_do_not_fit_their_weights_are_found_and_never_served() -> None:
    """``faults`` names them; a table that is compiled all the same follows the weights, at the fewest moves."""
    document = made()
    split = first({3: 50, 4: 50})
    wrong = replace(document, status=replace(document.status, assignment=Assignments(split)))
    assert any("intervals of the split" in fault for fault in faults(wrong))
    served = compile_route("digits", wrong, default_timeout_ms=1000).places
    assert served.ends == moved(split, {3: 95, 4: 5}).ends


versions = st.integers(1, 8)
arm_lists = st.dictionaries(versions, st.integers(0, 100), min_size=1, max_size=4)


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "digits"}
    body["split"] = [{"version": version, "weight": weight} for version, weight in draw(arm_lists).items()]
    for name in ("fallback", "known_good"):
        if draw(st.booleans()):
            body[name] = draw(versions)
    rules = draw(st.lists(st.one_of(versions, arm_lists), max_size=2))
    body["rules"] = [
        {
            "name": f"r{place}",
            "if": {"==": [{"var": "n"}, place]},
            "use": use if isinstance(use, int) else [{"version": v, "weight": w} for v, w in use.items()],
        }
        for place, use in enumerate(rules)
    ]
    return body


steps = st.one_of(
    st.tuples(st.just("put"), specs()),
    st.tuples(st.just("weights"), arm_lists),
    st.tuples(st.just("rollback"), st.one_of(st.none(), versions)),
    st.tuples(st.just("lift"), versions),
    st.tuples(st.just("restore"), st.integers(0, 20)),
)


@settings(max_examples=400, deadline=None)
@given(specs(), st.lists(steps, max_size=12))
def test_no_sequence_of_transitions_leaves_an_invalid_document_or_routes_to_a_quarantined_version(
    first: dict[str, Any], sequence: list[tuple[str, Any]]
) -> None:
    """Whatever is done in whatever order: invariants hold, it survives storage, no decision picks what is barred."""
    past: list[RouteDocument] = []
    document: RouteDocument | None = None
    for verb, argument in [("put", first), *sequence]:
        try:
            document = step(document, verb, argument, past)
        except (InvalidInput, Conflict):
            continue
        except TurnoutError as error:
            raise AssertionError(f"{verb} raised {error!r}") from error
        if document is None:
            continue
        check_epochs(past[-1] if past else None, document, verb)
        past.append(document)
        assert faults(document) == []
        assert RouteDocument.from_json(document.to_json()) == document
        never_picks_the_quarantined(document)


def check_epochs(before: RouteDocument | None, after: RouteDocument, verb: str) -> None:
    """Who gets what changes under a new epoch only, and moves the fewest keys, but for a restore."""
    if before is None:
        return
    old, new = before.status.assignment, after.status.assignment
    assert after.status.epoch >= before.status.epoch
    if after.status.epoch == before.status.epoch:
        assert old.keys() == new.keys()
    was, now = old.split.sizes(), new.split.sizes()
    least = sum(max(0, size - now.get(version, 0)) for version, size in was.items())
    if verb != "restore":
        assert sum(transfers(old.split, new.split).values()) == least


def step(document: RouteDocument | None, verb: str, argument: Any, past: list[RouteDocument]) -> RouteDocument | None:
    if verb == "put":
        return transitions.put(RouteSpec.parse(argument), document, DIGITS)
    if document is None:
        return None
    if verb == "weights":
        return transitions.set_weights(document, argument, DIGITS)
    if verb == "rollback":
        return rolled_back(document, argument)
    if verb == "lift":
        return transitions.lift(document, argument)
    return transitions.restore(past[argument % len(past)], document, DIGITS)


def never_picks_the_quarantined(document: RouteDocument) -> None:
    route = compile_route("digits", document, default_timeout_ms=1000)
    table = RoutingTable({"digits": route}, "digits", 1)
    barred = {VersionRef("digits", number) for number in document.status.quarantined}
    for number in range(4):
        for key in ("a", "b", "c"):
            assert decide(table, Facts("digits", key=key, context={"n": number})).version not in barred
    for number in document.status.quarantined:
        with pytest.raises(Quarantined):
            decide(table, Facts("digits", pin=number, pin_by_protocol=True))


def test_the_errors_of_a_spec_are_no_bad_requests() -> None:
    """The body was JSON and an envelope; what it says is out of range: 422, not 400."""
    with pytest.raises(InvalidInput) as caught:
        spec(fallback="3")
    assert not isinstance(caught.value, BadRequest)


def test_a_shadow_is_kept_loaded_and_never_answers() -> None:
    """It cannot be pinned, takes no part in the split, and gets nothing while it is in quarantine."""
    asked = spec(shadow=[{"version": 5, "share": 0.1}, {"version": 4, "share": 1}], tolerance=0.5)
    document = transitions.put(asked, None, DIGITS)
    assert document.routable() == {3, 4, 5}
    route = compile_route("digits", document, default_timeout_ms=100)
    assert route.shadows == (Shadow(4, 1.0), Shadow(5, 0.1))
    assert (route.tolerance, route.pinnable) == (0.5, {3, 4})
    held = replace(document, status=replace(document.status, quarantined={5: Quarantine("", 0.0, "me")}))
    assert compile_route("digits", held, default_timeout_ms=100).shadows == (Shadow(4, 1.0),)
    assert 5 not in held.routable()
    with pytest.raises(InvalidInput, match="no version 99"):
        transitions.put(spec(shadow=[{"version": 99, "share": 0.1}]), None, DIGITS)
