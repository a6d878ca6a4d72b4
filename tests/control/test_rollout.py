"""A rollout's steps: pure, so every end, every wait and every refusal is tried without a clock or a gateway."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.control import rollout as steps
from gateway.control import transitions
from gateway.control.documents import RouteDocument
from gateway.control.rollout import Facts, Finding, Kind, Move, advance, arms_at, targets
from gateway.control.rollout_evidence import policy_of
from gateway.control.rollout_plan import PlanSpec
from gateway.control.rollout_report import report_of
from gateway.control.rollout_report_text import report_text
from gateway.control.rollout_run import budgeted, budgeted_alone
from gateway.control.rollout_state import Phase
from gateway.control.rollout_truth import check_scores
from gateway.control.route_spec import RouteSpec
from gateway.control.transitions import Catalogue, faults
from gateway.control.verdicts import Policy
from gateway.errors import Conflict, InvalidInput, Quarantined, TurnoutError
from gateway.messages import Signature, TensorSpec

DIGITS = Catalogue("digits", frozenset(range(1, 8)), frozenset({7}))
DONE = Facts(elapsed_s=1e6, units=10**6, pairs=10**6)
HARM = Finding(harm="error", reason="error: 9 of 20", detail={"streams": {}})


def route(split: dict[int, int] | None = None, **changes: Any) -> RouteDocument:
    arms = [{"version": version, "weight": weight} for version, weight in (split or {3: 100}).items()]
    return transitions.put(RouteSpec.parse({"model": "digits", "split": arms, **changes}), None, DIGITS)


def plan(**changes: Any) -> PlanSpec:
    return PlanSpec.parse({"candidate": 4, **changes})


def begun(document: RouteDocument | None = None, **changes: Any) -> RouteDocument:
    return steps.start(document or route(), plan(**changes), DIGITS, name="4-a", by="olga", at=1.0)


def split(document: RouteDocument) -> dict[int, int]:
    return {arm.version: arm.weight for arm in document.status.split}


def phase(document: RouteDocument) -> str:
    state = document.status.rollout or document.status.last_rollout
    assert state is not None
    return str(state.phase)


def move(document: RouteDocument, finding: Finding | None = None, facts: Facts = DONE) -> Move:
    found = advance(document, finding or Finding(), facts, at=9.0)
    assert faults(found.document) == []
    assert RouteDocument.from_json(found.document.to_json()) == found.document
    return found


def onward(document: RouteDocument, times: int) -> RouteDocument:
    for _ in range(times):
        document = move(document).document
    return document


def ended(document: RouteDocument, **changes: Any) -> RouteDocument:
    return transitions.rollback(document, to=None, by="rollout:error", at=9.0, reason="bad", offender=4, harm="error")


def test_a_good_candidate_climbs_its_steps_bakes_and_is_the_known_good() -> None:
    """Every step is an epoch of its own; the spec is as asked until the end, and then says what is so."""
    document = begun(steps=[5, 50])
    seen, epochs = [], set()
    while document.status.rollout is not None:
        seen.append((phase(document), split(document)))
        epochs.add(document.status.epoch)
        assert document.spec.to_json() == route().spec.to_json()
        document = move(document).document
    assert seen == [
        ("preparing", {3: 100}),
        ("shadowing", {3: 100}),
        ("stepping", {3: 95, 4: 5}),
        ("stepping", {3: 50, 4: 50}),
        ("baking", {3: 2, 4: 98}),
    ]
    assert len(epochs) == 4
    assert (phase(document), split(document), document.status.known_good) == ("promoted", {4: 100}, 4)
    assert [(arm.version, arm.weight) for arm in document.spec.split] == [(3, 0), (4, 100)]
    [proof] = document.status.proved
    assert (proof.version, proof.rollout, proof.by) == (4, "4-a", "rollout")


ERRORS = {"of": "error", "worst": 10.0, "best": 0.0}


def test_a_plan_that_judges_by_a_score_says_of_what_from_worst_to_best() -> None:
    """Watched where it is there, asked for where the plan needs it, in its own unit; and a plan without one is written
    as the release before writes it."""
    asked = plan(score=ERRORS, needs=["error", "score"], max_harm={"score": 0.5})
    assert PlanSpec.parse(asked.to_json()) == asked
    *_, stream = policy_of(asked, slow_ms=None).streams
    assert (stream.stream, stream.max_harm, stream.required, stream.low, stream.high) == ("score", 0.5, True, 10.0, 0.0)
    *_, stream = policy_of(plan(score=ERRORS), slow_ms=None).streams
    assert (stream.max_harm, stream.required) == (0.5, False)
    assert "score" not in plan().to_json()
    assert plan().to_json()["max_harm"].keys() == {"error", "slow", "label"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"needs": ["score"]}, "needs: score is asked for without a 'score'"),
        ({"max_harm": {"score": 0.1}}, "max_harm: score has a margin, and the plan has no 'score'"),
        ({"score": ERRORS, "max_harm": {"score": 10.0}}, "less than 10, got 10"),
        ({"score": {**ERRORS, "best": 10.0}}, "another number than worst"),
        ({"score": {"of": "error", "worst": 0.0, "best": 10.0}}, "less error is better"),
        ({"score": {"of": "brier", "worst": 2.0, "best": 0.0}}, "worst: at most 1, got 2"),
        ({"score": {"of": "accuracy", "worst": 0.0, "best": 1.0}}, "score.of"),
        ({"score": {**ERRORS, "worst": float("inf")}}, "score.worst"),
    ],
)
def test_a_score_that_cannot_be_judged_is_refused_in_words(changes: dict[str, Any], said: str) -> None:
    """By its field, before anything begins."""
    with pytest.raises(InvalidInput, match=said):
        plan(**changes)


@pytest.mark.parametrize(
    ("truth", "changes", "said"),
    [
        (None, {"needs": ["label"]}, "the route has no truth"),
        ({"task": "regression", "output": "y"}, {"needs": ["label"]}, "by which no answer is wrong.*with wrong_above"),
        ({"task": "grade"}, {"needs": ["label"]}, "has a truth of grade, by which no answer is wrong"),
        (None, {"score": ERRORS}, "judges by error, and the route has no truth"),
        (
            {"task": "classification", "output": "y"},
            {"score": ERRORS},
            "has a truth of classification, which gives brier",
        ),
    ],
)
def test_a_plan_that_no_truth_of_the_route_can_feed_does_not_begin(
    truth: dict[str, Any] | None, changes: dict[str, Any], said: str
) -> None:
    """It would wait for evidence that never comes."""
    document = route() if truth is None else route(truth=truth)
    with pytest.raises(Conflict, match=said):
        begun(document, **changes)
    fitting = {"task": "regression", "output": "y", "wrong_above": 1.0}
    assert begun(route(truth=fitting), needs=["label", "score"], score=ERRORS).status.rollout is not None


BRIER = {"of": "brier", "worst": 1.0, "best": 0.0}


def answering(**datatypes: str) -> Signature:
    outputs = tuple(TensorSpec(name, datatype, ("batch", 2)) for name, datatype in datatypes.items())
    return Signature((TensorSpec("x", "FP32", ("batch", 4)),), outputs)


@pytest.mark.parametrize(
    ("truth", "outputs", "said"),
    [
        ({"output": "label"}, {"label": "INT64"}, r"version 4 has none in 'label' \(truth.output\): it is INT64"),
        ({"output": "label", "score": "p"}, {"label": "INT64"}, r"none in 'p' \(truth.score\): it has label"),
        ({"output": "label", "score": "p"}, {"label": "INT64", "p": "BYTES"}, "it is BYTES, which holds classes"),
    ],
)
def test_a_plan_by_brier_does_not_begin_where_answers_have_no_scores(
    truth: dict[str, Any], outputs: dict[str, str], said: str
) -> None:
    """It would wait for evidence that no label can bring; it names the field to set, and the other way."""
    asked = plan(score=BRIER, needs=["score"])
    spec = route(truth={"task": "classification", **truth}).spec
    with pytest.raises(Conflict, match=said) as refused:
        check_scores(spec, asked, 4, answering(**outputs))
    assert "name an output of scores as truth.score" in str(refused.value)
    check_scores(spec, plan(), 4, answering(**outputs))


@pytest.mark.parametrize(
    ("truth", "outputs"),
    [
        ({"output": "p"}, {"p": "FP32"}),
        ({"output": "label", "score": "p"}, {"label": "BYTES", "p": "FP64"}),
    ],
)
def test_scores_beside_the_answer_or_as_the_answer_feed_a_plan_by_brier(
    truth: dict[str, Any], outputs: dict[str, str]
) -> None:
    """Without truth.score, the output of the answer is read as scores, if it holds numbers of that kind."""
    spec = route(truth={"task": "classification", **truth}).spec
    check_scores(spec, plan(score=BRIER), 4, answering(**outputs))


def test_numbers_and_grades_need_no_scores() -> None:
    """They come of the answer and the label alone."""
    spec = route(truth={"task": "regression", "output": "y"}).spec
    check_scores(spec, plan(score=ERRORS), 4, answering(y="INT64"))


@pytest.mark.parametrize(
    ("stream", "units", "said"),
    [
        ("label", 0, "label: no label of an answer of version 4, or none of version 3's, has come"),
        ("label", 3, "label: not enough yet"),
        ("score", 0, "score: no brier of an answer of version 4, or none of version 3's, has come: it takes labels"),
        ("score", 3, "score: not enough yet"),
    ],
)
def test_a_step_says_that_nothing_has_come_of_what_it_waits_for(stream: str, units: int, said: str) -> None:
    """Nobody sees from "not enough" that nobody sends labels, or that answers have no scores."""
    fitting = {"task": "classification", "output": "label", "score": "p"}
    document = onward(begun(route(truth=fitting), needs=["error", "label", "score"], score=BRIER, shadow=None), 1)
    seen = {"streams": {stream: {"candidate": {"units": units}}}}
    found = move(document, Finding(lacking={stream: None}, detail=seen))
    assert found.kind is Kind.WAIT
    assert [wait for wait in found.waits if wait.startswith(said)], found.waits


@pytest.mark.parametrize(
    ("truth", "said"),
    [
        (None, "truth: version 4 is being rolled out by it .*the route has no truth"),
        ({"task": "regression", "output": "y"}, "by which no answer is wrong"),
        ({"task": "classification", "output": "y"}, "which gives brier"),
    ],
)
def test_a_truth_that_a_rollout_is_judged_by_is_not_taken_away(truth: dict[str, Any] | None, said: str) -> None:
    """It would wait for evidence that no longer comes. What feeds it as well may change, and so may all else."""
    fitting = {"task": "regression", "output": "y", "wrong_above": 1.0}
    document = begun(route(truth=fitting), needs=["label", "score"], score=ERRORS)
    with pytest.raises(Conflict, match=said):
        transitions.put(route(truth=truth).spec, document, DIGITS)
    wider = route(truth={**fitting, "wrong_above": 2.0})
    assert transitions.put(wider.spec, document, DIGITS).status.rollout is not None
    plain = begun(route(truth=fitting))
    assert transitions.put(route(truth=truth).spec, plain, DIGITS).status.rollout is not None


def test_without_a_bake_the_weight_moves_and_the_known_good_stays() -> None:
    """The known good is moved only by an operator, or by a rollout that has baked."""
    document = onward(begun(steps=[100], bake=None, shadow=None), 2)
    assert (phase(document), split(document), document.status.known_good) == ("promoted", {4: 100}, 3)
    assert document.status.proved == ()


@pytest.mark.parametrize(
    ("finding", "facts", "word"),
    [
        (Finding(), replace(DONE, elapsed_s=1.0), "29 s more"),
        (Finding(), replace(DONE, units=49), "1 more requests"),
        (Finding(lacking={"error": 120}), DONE, "error: not enough yet, about 120 more"),
        (Finding(lacking={"disagreement": None}), DONE, "disagreement: not enough yet"),
        (Finding(broken_split="12% instead of 5%"), DONE, "12% instead of 5%"),
        (Finding(), replace(DONE, ready=False), "on every replica"),
        (Finding(), replace(DONE, unconfirmed="https://a said no"), "https://a said no"),
    ],
)
def test_a_step_waits_for_all_that_it_needs_and_says_so(finding: Finding, facts: Facts, word: str) -> None:
    """Not enough is neither good nor bad: the document stays the very same."""
    document = onward(begun(), 2)
    found = move(document, finding, facts)
    assert (found.kind, found.document) == (Kind.WAIT, document)
    assert any(word in wait for wait in found.waits), found.waits


def test_a_stream_that_is_not_needed_holds_nothing_up() -> None:
    """Slow answers are watched for harm; whether they are proved fine is asked only where the plan needs it."""
    document = onward(begun(), 2)
    assert move(document, Finding(lacking={"slow": 10})).kind is Kind.STEP
    document = onward(begun(needs=["error", "slow"]), 2)
    assert move(document, Finding(lacking={"slow": 10})).kind is Kind.WAIT


@pytest.mark.parametrize("steps_done", [1, 2, 4, 5])
def test_harm_is_rolled_back_from_every_step(steps_done: int) -> None:
    """Shadowing, stepping, baking: back to the known good; only the candidate is quarantined, with the reason."""
    document = onward(begun(), steps_done)
    assert move(document, HARM, Facts(ready=False)).kind is Kind.ROLL_BACK
    back = ended(document)
    assert faults(back) == []
    assert (phase(back), split(back), back.status.known_good) == ("rolled-back", {3: 100}, 3)
    assert list(back.status.quarantined) == [4]
    assert back.status.rollout is None
    with pytest.raises(Quarantined, match="lift it first"):
        begun(back)
    lifted = transitions.lift(back, 4)
    assert phase(steps.start(lifted, plan(), DIGITS, name="4-b", by="olga", at=2.0)) == "preparing"


def test_the_versions_beside_which_a_candidate_was_tried_are_not_quarantined() -> None:
    """Three arms and a candidate: all goes to the known good, nobody but the candidate is blamed."""
    document = onward(begun(route({1: 40, 2: 30, 3: 30})), 2)
    assert split(document) == {1: 76, 2: 57, 3: 57, 4: 10}
    back = ended(document)
    assert list(back.status.quarantined) == [4]
    assert split(back) == {1: 200}


def test_harm_may_pause_instead_and_is_then_for_an_operator_to_end() -> None:
    """Weights stay; it does not resume, since evidence does not unhappen; it can be aborted."""
    document = onward(begun(on_harm="pause"), 2)
    paused = move(document, HARM).document
    assert (phase(paused), split(paused)) == ("paused", {3: 95, 4: 5})
    assert move(paused, HARM).kind is Kind.WAIT
    with pytest.raises(Conflict, match="paused for harm"):
        steps.resume(paused, by="olga", at=3.0)
    assert split(steps.abort(paused, by="olga", at=3.0)) == {3: 100}


def test_harm_in_a_pause_still_goes_back() -> None:
    """A pause stops the climb, not the watch."""
    paused = steps.pause(onward(begun(), 2), by="olga", at=3.0)
    assert move(paused).kind is Kind.WAIT
    assert move(paused, HARM).kind is Kind.ROLL_BACK


def test_a_manual_gate_waits_for_an_operator() -> None:
    """The step is done, and stays; promote opens it."""
    document = onward(begun(steps=[{"weight": 5, "gate": "manual"}, 50]), 3)
    assert phase(document) == "waiting"
    assert move(document).kind is Kind.WAIT
    assert split(steps.promote(document, Finding(), by="olga", at=3.0)) == {3: 50, 4: 50}


def test_confirmation_is_asked_when_nothing_else_is_missing() -> None:
    """``due`` tells the driver when to ask."""
    document = onward(begun(webhooks={"confirm": [{"url": "https://gate"}]}), 2)
    assert not move(document, facts=replace(DONE, unconfirmed="x", units=0)).due
    assert move(document, facts=replace(DONE, unconfirmed="x")).due


def test_promote_goes_one_step_or_to_the_bake_and_in_the_bake_to_the_end() -> None:
    """On the operator's word, without the evidence; never past a split that is broken, nor while it loads."""
    document = begun()
    with pytest.raises(Conflict, match="not loaded"):
        steps.promote(document, Finding(), by="olga", at=3.0)
    document = onward(document, 2)
    with pytest.raises(Conflict, match="does not split"):
        steps.promote(document, Finding(broken_split="x"), by="olga", at=3.0)
    assert split(steps.promote(document, Finding(), by="olga", at=3.0)) == {3: 75, 4: 25}
    baking = steps.promote(document, Finding(), by="olga", at=3.0, full=True)
    assert (phase(baking), split(baking)) == ("baking", {3: 2, 4: 98})
    promoted = steps.promote(baking, Finding(), by="olga", at=4.0)
    assert (phase(promoted), promoted.status.known_good) == ("promoted", 4)
    assert promoted.status.proved[-1].by == "olga"


def test_a_candidate_that_had_traffic_before_is_shown_with_it_until_the_first_step_and_after_an_abort() -> None:
    """A version with a tenth of the split is rolled out: nobody is told that it has none."""
    document = begun(route({3: 90, 4: 10}), shadow=None, steps=[50])
    stepping = onward(document, 1)
    back = steps.abort(stepping, by="olga", at=3.0)
    ended = back.status.last_rollout
    assert ended is not None
    assert split(back) == {3: 90, 4: 10}
    assert [mark.percent for mark in ended.marks] == [10.0, 50.0, 10.0]


def test_a_report_says_when_no_one_rate_fits_what_was_seen() -> None:
    """Bounds that hold at every look may cross, where a rate changed on the way: that is no interval."""
    stream = {"verdict": "harmful", "candidate": {"bad": 19, "units": 161}, "baseline": {"bad": 0, "units": 0}}
    stream |= {"log_harm": 15.0, "harm_threshold": 4.2, "log_health": 6.5, "health_threshold": 3.0, "difference": 0.118}
    ended = steps.abort(begun(), by="olga", at=3.0).status.last_rollout
    assert ended is not None
    texts = []
    for low, high in ((0.01, 0.2), (0.4, 0.2)):
        evidence = {"streams": {"disagreement": stream | {"low": low, "high": high}}}
        told = report_of("digits", "digits", ended, evidence=evidence, webhooks=[], written_at=4.0)
        texts.append(report_text(told))
    assert "interval +0.0100 to +0.2000" in texts[0]
    assert "no interval: the rate changed on the way" in texts[1]


def test_silence_waits_or_pauses_as_the_plan_says() -> None:
    """No traffic is no verdict; with on_silence: pause it stops after silence_s, and resumes."""
    quiet = Facts(elapsed_s=1e4, quiet_s=400.0)
    assert move(onward(begun(), 2), facts=quiet).kind is Kind.WAIT
    paused = move(onward(begun(on_silence="pause"), 2), facts=quiet)
    assert (paused.kind, "400 s" in paused.reason) == (Kind.PAUSE, True)
    resumed = steps.resume(paused.document, by="olga", at=5.0)
    assert (phase(resumed), split(resumed)) == ("stepping", {3: 95, 4: 5})


def test_a_candidate_that_cannot_serve_ends_the_rollout_before_it_began() -> None:
    """It did not load, or clients could not use it: aborted with the reason, and nobody noticed."""
    found = move(begun(), facts=Facts(ready=False, refused="its output 'y' is FP64"))
    assert (found.kind, phase(found.document), split(found.document)) == (Kind.ABORT, "aborted", {3: 100})
    assert "FP64" in found.reason
    assert move(begun(), facts=Facts(ready=False)).kind is Kind.WAIT


@pytest.mark.parametrize(
    ("document", "candidate", "error", "word"),
    [
        (route(), 9, InvalidInput, "no version 9"),
        (route(), 7, Conflict, "archived"),
        (route(), 3, Conflict, "known good already"),
        (route({3: 100}, known_good=2), 4, Conflict, "gets no traffic"),
    ],
)
def test_what_cannot_be_a_candidate_is_refused(
    document: RouteDocument, candidate: int, error: type[TurnoutError], word: str
) -> None:
    """Each with what to do instead."""
    with pytest.raises(error, match=word):
        steps.start(document, plan(candidate=candidate), DIGITS, name="x", by="olga", at=1.0)


def test_a_second_rollout_is_refused_while_one_runs() -> None:
    """Whoever comes second is told what runs, and how it ends."""
    with pytest.raises(Conflict, match=r"a rollout runs already.*abort"):
        begun(begun())


def test_no_hand_moves_weights_during_a_rollout() -> None:
    """Weights, another split, another key, restore: 409 with the way out; other fields of the spec may change."""
    document = onward(begun(), 2)
    with pytest.raises(Conflict, match="--abort"):
        transitions.set_weights(document, {3: 50, 4: 50}, DIGITS)
    for change in ({"split": [{"version": 5, "weight": 1}]}, {"key": "header:x-user"}, {"known_good": 5}):
        body = {**document.spec.to_json(), **change}
        with pytest.raises(Conflict, match="being rolled out"):
            transitions.put(RouteSpec.parse(body), document, DIGITS)
    with pytest.raises(Conflict, match="restore"):
        transitions.restore(route(), document, DIGITS)
    limited = transitions.put(RouteSpec.parse({**document.spec.to_json(), "limits": {"slow_ms": 5}}), document, DIGITS)
    assert (split(limited), phase(limited), limited.status.epoch) == (
        split(document),
        "stepping",
        document.status.epoch,
    )


def test_an_operators_rollback_ends_a_rollout_and_quarantines_its_candidate() -> None:
    """Also while the candidate has no weight yet."""
    for done in (0, 1, 2):
        back = transitions.rollback(onward(begun(), done), to=None, reason="no", by="olga", at=2.0)
        assert (phase(back), split(back)) == ("rolled-back", {3: 100})
        assert list(back.status.quarantined) == [4]


def test_a_route_deleted_during_a_rollout_can_be_restored_at_rest() -> None:
    """The rollout ended with the route."""
    rested = transitions.at_rest(onward(begun(), 2))
    assert (rested.status.rollout, split(rested)) == (None, {3: 100})
    assert split(transitions.restore(route(), rested, DIGITS)) == {3: 100}


def test_an_abort_returns_to_the_weights_before_the_rollout_and_blames_nobody() -> None:
    """From every phase."""
    for done in range(6):
        document = begun(route({3: 60, 2: 40}))
        for _ in range(done):
            document = move(document).document
        back = steps.abort(document, by="olga", at=2.0)
        assert (phase(back), split(back), back.status.quarantined) == ("aborted", {3: 60, 2: 40}, {})


def test_rollback_goes_to_the_newest_proved_version_that_was_not_rolled_back() -> None:
    """4 is proved after 3; then 5 is tried. 4 first, then 3; once 4 was rolled back it is proved no longer."""
    document = transitions.put(route().spec, None, DIGITS)
    document = transitions.put(
        RouteSpec.parse({**document.spec.to_json(), "known_good": 3}), None, DIGITS, by="olga", at=0.5
    )
    document = onward(begun(document), 6)
    assert [proof.version for proof in document.status.proved] == [3, 4]
    document = steps.start(document, plan(candidate=5), DIGITS, name="5-a", by="olga", at=2.0)
    assert targets(document) == (4, 3)
    back = transitions.rollback(document, to=3, reason="4 too", by="olga", at=3.0)
    assert [proof.version for proof in back.status.proved] == [3]
    assert targets(transitions.lift(back, 4)) == (3,)


@settings(max_examples=200, deadline=None)
@given(
    before=st.dictionaries(st.sampled_from([1, 2, 3, 5, 6]), st.integers(1, 10**6), min_size=1, max_size=5),
    percent=st.integers(1, 1_000_000).map(lambda n: n / 10_000),
)
def test_the_candidate_gets_its_percent_and_the_others_keep_their_shares(
    before: dict[int, int], percent: float
) -> None:
    """Exactly, in whole numbers; to a billionth where the sum would be too large for a split."""
    arms = arms_at(before, 4, percent)
    total = sum(arms.values())
    assert 0 < total < 2**31
    assert arms[4] / total == pytest.approx(percent / 100, abs=2e-6)
    if percent < 99:
        rest = sum(before.values())
        for version, weight in before.items():
            share = weight / rest * (1 - percent / 100)
            assert arms.get(version, 0) / total == pytest.approx(share, abs=3e-6)


VERBS = st.sampled_from(["advance", "harm", "lack", "promote", "full", "pause", "resume", "abort", "rollback", "start"])


@settings(max_examples=300, deadline=None)
@given(verbs=st.lists(VERBS, max_size=25), pausing=st.booleans())
def test_no_sequence_of_verbs_leaves_a_document_that_must_not_be(verbs: list[str], pausing: bool) -> None:
    """Whatever is done in whatever order: sound documents, one rollout at most, no way back to what was rolled back."""
    document = route({3: 90, 2: 10})
    asked = plan(on_harm="pause" if pausing else "rollback")
    for number, verb in enumerate(verbs):
        try:
            document = _done(document, verb, asked, number)
        except TurnoutError:
            continue
        assert faults(document) == []
        assert RouteDocument.from_json(document.to_json()) == document
        assert 4 not in document.status.quarantined or 4 not in targets(document)


def _done(document: RouteDocument, verb: str, asked: PlanSpec, number: int) -> RouteDocument:
    at = float(number)
    finding = {"harm": HARM, "lack": Finding(lacking={"error": 5})}.get(verb, Finding())
    by_hand: dict[str, Callable[[], RouteDocument]] = {
        "start": lambda: steps.start(document, asked, DIGITS, name=f"4-{number}", by="olga", at=at),
        "promote": lambda: steps.promote(document, finding, by="olga", at=at),
        "full": lambda: steps.promote(document, finding, by="olga", at=at, full=True),
        "pause": lambda: steps.pause(document, by="olga", at=at),
        "resume": lambda: steps.resume(document, by="olga", at=at),
        "abort": lambda: steps.abort(document, by="olga", at=at),
        "rollback": lambda: transitions.rollback(document, to=None, reason="x", by="olga", at=at),
    }
    if verb in by_hand:
        return by_hand[verb]()
    found = advance(document, finding, DONE, at=at)
    return ended(document) if found.kind is Kind.ROLL_BACK else found.document


def test_the_report_says_what_was_so_and_why() -> None:
    """For machines and, from the same body, for people."""
    state = ended(onward(begun(), 3)).status.last_rollout
    assert state is not None
    assert state.phase is Phase.ROLLED_BACK
    stream = {"verdict": "harmful", "candidate": {"units": 20, "bad": 9}, "baseline": {"units": 380, "bad": 2}}
    stream |= {"log_harm": 5.1, "harm_threshold": 4.4, "log_health": -9.0, "health_threshold": 3.0}
    stream |= {"difference": 0.44, "low": 0.1, "high": 0.7}
    report = report_of("digits", "digits", state, evidence={"streams": {"error": stream}}, webhooks=[], written_at=10.0)
    assert (report["verdict"], report["trigger"], report["requests_harmed"]) == ("rolled-back", "error", 9)
    assert [mark["percent"] for mark in report["weights"]] == [0.0, 5.0, 25.0, 0.0]
    text = report_text(report)
    for words in ("rolled-back (error)", "candidate 9 of 20, known good 2 of 380", "+0.4400, interval +0.1000", "25%"):
        assert words in text


def test_the_budgets_of_all_parts_of_a_rollouts_evidence_are_alpha() -> None:
    """The first part, those that begin anew, and what each replica proves by itself while it is cut off."""
    policy = Policy(alpha=0.05)
    parts = [budgeted(policy, renewals).alpha for renewals in range(60)]
    alone = [budgeted_alone(policy, 3).alpha] * 3
    assert sum(parts) + sum(alone) == pytest.approx(policy.alpha)
    assert sum(parts) + sum(alone) <= policy.alpha * (1 + 1e-9)
