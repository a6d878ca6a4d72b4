"""What a rollout adds to a compiled route: candidate and known good are copied to each other while it runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.control import rollout as steps
from gateway.control import transitions
from gateway.control.compile import compile_route
from gateway.control.documents import RouteDocument
from gateway.control.rollout_plan import PlanSpec
from gateway.control.rollout_state import ENDED, Phase
from gateway.control.route_spec import RouteSpec
from gateway.control.transitions import Catalogue
from gateway.errors import InvalidInput
from gateway.routing.table import Recording, Route, Shadow
from gateway.routing.truth import Truth
from gateway.telemetry.decisions.told import route_body

DIGITS = Catalogue("digits", frozenset(range(1, 8)))


def begun(plan: dict[str, Any], **spec: Any) -> RouteDocument:
    asked = RouteSpec.parse({"model": "digits", "split": [{"version": 3, "weight": 100}], **spec})
    document = transitions.put(asked, None, DIGITS)
    return steps.start(document, PlanSpec.parse({"candidate": 4, **plan}), DIGITS, name="4-a", by="olga", at=1.0)


def compiled(document: RouteDocument, phase: Phase) -> Route:
    rollout = document.status.rollout
    assert rollout is not None
    status = replace(document.status, rollout=replace(rollout, phase=phase))
    return compile_route("digits", replace(document, status=status), default_timeout_ms=100)


def test_candidate_and_known_good_are_copied_to_each_other_while_a_rollout_runs() -> None:
    """From the load's end to the rollout's; by the plan's share and tolerance; and the candidate cannot be pinned
    before it answers."""
    document = begun({"shadow": {"share": 0.5}, "tolerance": 0.25})
    both = (Shadow(3, 0.5, of=4), Shadow(4, 0.5, of=3))
    for phase in Phase:
        route = compiled(document, phase)
        running = phase not in (*ENDED, Phase.PREPARING)
        assert (route.shadows, route.tolerance) == ((both, 0.25) if running else ((), None)), phase
        assert 4 not in route.pinnable


def test_a_rollout_without_a_shadow_adds_none_and_the_operators_own_stay() -> None:
    """A version that is a shadow by both words stands twice, side by side: it gets one copy of a request at most."""
    asked = [{"version": 5, "share": 1}, {"version": 4, "share": 0.1}]
    alone = compiled(begun({"shadow": None, "max_disagreement": None}, shadow=asked), Phase.STEPPING)
    assert alone.shadows == (Shadow(4, 0.1), Shadow(5, 1.0))
    with_both = compiled(begun({"shadow": {"share": 0.5}}, shadow=asked, tolerance=2.0), Phase.STEPPING)
    assert [shadow.version for shadow in with_both.shadows] == [3, 4, 4, 5]
    assert with_both.tolerance == 2.0


def test_what_is_recorded_of_a_route_is_its_operators_wish() -> None:
    """Digests unless the document says otherwise; a route may be left out; a refusal needs a record to refuse by."""
    assert compiled(begun({}), Phase.SHADOWING).recording == Recording("digest", frozenset(), refuse=False)
    asked = {"content": "payload", "redact": ["age"], "on_full": "refuse"}
    assert compiled(begun({}, decisions=asked), Phase.SHADOWING).recording == Recording(
        "payload", frozenset({"age"}), refuse=True
    )
    assert compiled(begun({}, decisions={"record": False}), Phase.SHADOWING).recording is None
    with pytest.raises(InvalidInput, match="on_full"):
        begun({}, decisions={"record": False, "on_full": "refuse"})


def test_rules_are_told_to_the_record_with_their_conditions() -> None:
    """So the log alone says why a rule picked a version, also when the route has long changed."""
    condition = {"==": [{"var": "tier"}, "gold"]}
    rules = [{"name": "gold", "if": condition, "use": 3}, {"name": "beta", "flag": "new-model"}]
    told = route_body(compiled(begun({}, rules=rules), Phase.STEPPING))["rules"]
    assert told == [{"name": "gold", "if": condition, "use": 3}, {"name": "beta", "flag": "new-model"}]


def test_how_labels_are_compared_stands_in_the_route_as_its_operator_wrote_it() -> None:
    """Classes by name whatever their type, slices short or whole, and nothing kept of a route without it."""
    asked = {
        "task": "classification",
        "output": "label",
        "score": "probabilities",
        "classes": [0, True, "two"],
        "positive": 1,
        "slices": ["context:country", {"name": "age", "of": "input:years", "edges": [30, 50]}],
        "horizon_s": 3600,
        "late_after_s": 60,
    }
    truth = compiled(begun({}, truth=asked), Phase.SHADOWING).truth
    assert truth is not None
    assert (truth.classes, truth.positive, truth.fields, truth.inputs) == (
        ("0", "1", "two"),
        "1",
        ("country",),
        ("years",),
    )
    assert [truth.slices[1].group_of(age) for age in (29, 30, 49.5, 50, None)] == [
        "< 30", "30 to 50", "30 to 50", ">= 50", "(none)",
    ]  # fmt: skip
    assert Truth.from_json(truth.to_json()) == truth
    assert compiled(begun({}), Phase.SHADOWING).truth is None


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"task": "ranking"}, "truth.task"),
        ({"positive": "no"}, "positive"),
        ({"late_after_s": 7200.0, "horizon_s": 3600.0}, "late_after_s"),
        ({"slices": ["country"]}, r"truth.slices\[0\]"),
        ({"slices": [{"name": "a", "of": "input:x", "edges": [2, 1]}]}, "each edge above"),
        ({"task": "regression"}, "score"),
        ({"wrong_above": 1.0}, "wrong_above"),
        ({"horizon_s": 1e9}, "truth.horizon_s"),
        ({"colour": "red"}, "truth.colour"),
        ({"output": None}, "name the output"),
        ({"task": "grade", "score": None, "classes": []}, "compared with no output"),
    ],
)
def test_a_truth_that_cannot_be_names_its_field(wrong: dict[str, object], field: str) -> None:
    """Each fault by its place, before anything is stored."""
    sound = {"task": "classification", "output": "label", "score": "p", "classes": ["yes", "not"]}
    with pytest.raises(InvalidInput, match=field):
        begun({}, truth={**sound, **wrong})
