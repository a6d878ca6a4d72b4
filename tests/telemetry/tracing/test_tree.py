"""Span trees out of records: who hangs under whom, when each stage was, what it says; and batches with their links."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.events.records import BatchRecord, RequestRecord, ShadowRecord
from gateway.messages import VersionRef
from gateway.telemetry.tracing.conventions import Server
from gateway.telemetry.tracing.spans import Span, batch_place
from gateway.telemetry.tracing.tree import Kept, Place, batch_span, request_spans, shadow_span
from tests.telemetry.records import DIGITS_3, DIGITS_4, PARENT_ID, SPAN_ID, TRACE_ID, batch, decision, request

PLACE = Place("replica-1", Server("https", "10.0.0.7", 8443))
START_S = 1_700_000_000.25
START_NS = 1_700_000_000_250_000_000
US = 1_000

STAGES: dict[str, Any] = {
    "duration_s": 0.010,
    "decode_s": 0.001,
    "decide_s": 0.0005,
    "queue_s": 0.002,
    "compute_s": 0.003,
    "encode_s": 0.001,
    "batch": 77,
    "batch_rows": 12,
}


def told(**changes: Any) -> RequestRecord:
    return request(**{"sampled": True, "started_wall": START_S, **STAGES, **changes})


def ran(**changes: Any) -> BatchRecord:
    """Handed over 4.5 ms after the request came, and back 4 ms later."""
    return batch(
        **{
            "rows": 12,
            "items": 3,
            "compute_s": 0.003,
            "batch": 77,
            "ended_wall": START_S + 0.0085,
            "took_s": 0.004,
            "release": "full",
            "limit": 16,
            "ran_rows": 12,
            "padded_rows": 4,
            "engine": "process",
            "instance": 1,
            "device": "cuda:0",
            **changes,
        }
    )


def tree(record: RequestRecord, batch: BatchRecord | None = None) -> dict[str, Span]:
    return {span.name: span for span in request_spans(Kept(record, "ratio"), batch, PLACE)}


def times(span: Span) -> tuple[int, int]:
    """In microseconds after the request came."""
    return (span.window.start_ns - START_NS) // US, (span.window.end_ns - START_NS) // US


def test_a_request_has_its_stages_as_children_in_their_order() -> None:
    """The ids of the request's span are those that its client was told; the children's follow from them."""
    spans = request_spans(Kept(told(), "ratio"), ran(), PLACE)
    assert [span.name for span in spans] == ["POST /predict/{route}", "decode", "decide", "queue", "compute", "encode"]
    root, *stages = spans
    assert (root.trace_id, root.span_id, root.parent_id, root.serves) == (TRACE_ID, SPAN_ID, None, True)
    assert {(span.trace_id, span.parent_id, span.serves) for span in stages} == {(TRACE_ID, SPAN_ID, False)}
    assert len({span.span_id for span in spans}) == 6


def test_a_stage_has_the_same_id_whichever_others_there_were() -> None:
    """Two gateways that tell of one request name its stages alike, also where one measured fewer."""
    whole, part = tree(told(), ran()), tree(told(decode_s=0.0, queue_s=0.0))
    assert part.keys() == whole.keys() - {"decode", "queue"}
    assert {name: span.span_id for name, span in part.items()}.items() <= {
        name: span.span_id for name, span in whole.items()
    }.items()


def test_stages_lie_where_the_batch_says_that_they_were() -> None:
    """Queue and compute stand around the hand-over; the gaps are the ways to the engine and back."""
    spans = tree(told(), ran())
    assert [times(spans[name]) for name in ("decode", "decide", "queue", "compute", "encode")] == [
        (0, 1000),
        (1000, 1500),
        (2500, 4500),
        (5500, 8500),
        (9000, 10000),
    ]
    assert times(spans["POST /predict/{route}"]) == (0, 10000)


def test_without_its_batch_a_request_is_laid_out_by_durations() -> None:
    """Its record came too late, or was lost: computing is then taken to have led up to the encoding."""
    spans = tree(told())
    assert [times(spans[name]) for name in ("queue", "compute", "encode")] == [
        (4000, 6000),
        (6000, 9000),
        (9000, 10000),
    ]


@pytest.mark.parametrize("jump_s", [-3600.0, -0.006, 0.006, 3600.0])
def test_a_clock_that_was_set_in_between_is_not_believed(jump_s: float) -> None:
    """The batch's time then does not fit into the request's; its durations, of a clock that only goes on, do."""
    jumped = tree(told(), ran(ended_wall=START_S + 0.0085 + jump_s))
    assert {name: span.window for name, span in jumped.items()} == {
        name: span.window for name, span in tree(told()).items()
    }


seconds = st.floats(-10, 1e5, allow_nan=False)


@given(
    stages=st.fixed_dictionaries(
        dict.fromkeys(("duration_s", "decode_s", "decide_s", "queue_s", "compute_s", "encode_s"), seconds)
    ),
    ended_s=st.floats(-1e6, 1e6),
    took_s=seconds,
    failed=st.booleans(),
    answered=st.booleans(),
)
def test_no_span_ever_ends_before_it_starts_or_leaves_its_request(
    stages: dict[str, float], ended_s: float, took_s: float, failed: bool, answered: bool
) -> None:
    """Whatever the records say: stages longer than the whole, a clock that ran backwards."""
    record = told(
        **stages,
        chosen_failure="VersionCrashed" if failed else None,
        answered_by=DIGITS_3 if answered else None,
        code=200 if answered else 500,
    )
    batch = ran(ended_wall=START_S + ended_s, took_s=took_s)
    root, *children = request_spans(Kept(record, "error"), batch, PLACE)
    assert root.window.start_ns <= root.window.end_ns
    for span in children:
        assert root.window.start_ns <= span.window.start_ns <= span.window.end_ns <= root.window.end_ns
    window = batch_span(batch, [], PLACE).window
    assert window.start_ns <= window.end_ns


def test_a_continued_trace_hangs_under_the_callers_span_and_keeps_its_state() -> None:
    """W3C Trace Context: the caller's span is the parent, its ``tracestate`` is passed on."""
    root = request_spans(Kept(told(parent_span_id=PARENT_ID, trace_state="a=1,b=2"), "parent"), None, PLACE)[0]
    assert (root.parent_id, root.state, root.attributes["turnout.sampled_by"]) == (PARENT_ID, "a=1,b=2", "parent")


def test_attributes_speak_of_http_and_of_a_feature_flag() -> None:
    """HTTP's names; a route is a flag whose variants are versions; what neither names is ours."""
    assert tree(told())["POST /predict/{route}"].attributes == {
        "http.request.method": "POST",
        "http.route": "/predict/{route}",
        "http.response.status_code": 200,
        "url.scheme": "https",
        "url.path": "/predict/digits",
        "server.address": "10.0.0.7",
        "server.port": 8443,
        "feature_flag.key": "digits",
        "feature_flag.provider.name": "turnout",
        "feature_flag.result.variant": "3",
        "feature_flag.result.reason": "split",
        "feature_flag.version": "7",
        "turnout.request_id": "r-1",
        "turnout.decision_id": "0190b0a8-0000-7000-8000-000000000001",
        "turnout.sampled_by": "ratio",
        "turnout.route": "digits",
        "turnout.model": "digits",
        "turnout.version": 3,
        "turnout.reason": "split",
        "turnout.revision": 7,
        "turnout.epoch": 2,
        "turnout.bucket": 17,
        "turnout.rows": 2,
        "turnout.queue_s": 0.002,
        "turnout.compute_s": 0.003,
        "turnout.answered_by": "digits/3",
    }


@pytest.mark.parametrize(
    ("reason", "expected"), [("pin", "static"), ("rule:staff", "targeting_match"), ("split", "split")]
)
def test_the_decision_is_told_as_the_evaluation_of_a_flag(reason: str, expected: str) -> None:
    """An event of the name that the conventions give it, when the decision was taken."""
    [event] = tree(told(decision=decision(reason=reason)))["decide"].events
    assert event.name == "feature_flag.evaluation"
    assert event.attributes["feature_flag.result.reason"] == expected
    assert event.at_ns == START_NS + 1500 * US


def test_a_flag_that_chose_stands_in_the_specifications_names() -> None:
    """Key, variant and provider of the flag; that its data was too old; and no version of rules that are not ours."""
    chose = decision(DIGITS_4, reason="rule:beta")._replace(flag_age_s=0.5, flag=("new-model", "on", "flagd-file"))
    said = tree(told(decision=chose))["POST /predict/{route}"].attributes
    names = ("feature_flag.key", "feature_flag.result.variant", "feature_flag.provider.name", "turnout.flag_age_s")
    assert [said[name] for name in names] == ["new-model", "on", "flagd-file", 0.5]
    assert (said["feature_flag.result.reason"], said["turnout.flag_stale"]) == ("targeting_match", False)
    assert "feature_flag.version" not in said
    said = tree(told(decision=chose._replace(flag_stale=True)))["POST /predict/{route}"].attributes
    assert (said["feature_flag.result.reason"], said["turnout.flag_stale"]) == ("stale", True)


def test_a_failure_of_ours_is_an_error_and_a_clients_is_not() -> None:
    """As the HTTP conventions have it for servers: 5xx. A request without a decision has no stages to show."""
    ours = told(code=500, error="ModelError", chosen_failure="ModelError", answered_by=None, batch=0)
    assert tree(ours)["POST /predict/{route}"].error == "ModelError"
    theirs = told(code=422, error="InvalidInput", answered_by=None, batch=0)
    assert tree(theirs)["POST /predict/{route}"].error is None
    assert tree(theirs)["POST /predict/{route}"].attributes["error.type"] == "InvalidInput"
    nobody = told(code=404, error="UnknownRoute", decision=None, answered_by=None, batch=0, route="", decode_s=0.0)
    assert "decide" not in tree(nobody)
    assert "url.path" not in tree(nobody)["POST /predict/{route}"].attributes


def test_a_fallback_shows_the_attempt_that_failed_and_who_answered() -> None:
    """The chosen version's time and error, then the queue and the batch of the one that stepped in."""
    spans = tree(told(decision=decision(DIGITS_4), answered_by=DIGITS_3, chosen_failure="VersionCrashed"), ran())
    attempt = spans["attempt"]
    assert (attempt.error, attempt.attributes["turnout.version"]) == ("VersionCrashed", 4)
    assert times(attempt) == (1500, 2500)
    assert spans["compute"].attributes["turnout.version"] == 3
    assert spans["compute"].attributes["turnout.fallback"] is True
    assert spans["POST /predict/{route}"].error is None


def test_an_attempt_without_a_fallback_lasts_to_the_end() -> None:
    """Nobody answered: no batch, no compute."""
    record = told(code=500, error="ModelError", chosen_failure="ModelError", answered_by=None, batch=0, encode_s=0.0)
    spans = tree(record._replace(queue_s=0.0, compute_s=0.0))
    assert times(spans["attempt"]) == (1500, 10000)
    assert not {"queue", "compute", "encode"} & spans.keys()


def test_a_kept_answer_has_no_batch() -> None:
    """Nothing was computed for it."""
    spans = tree(told(batch=0, batch_rows=0, queue_s=0.0, compute_s=0.0))
    assert not {"queue", "compute"} & spans.keys()


def test_a_batch_links_to_its_requests_and_they_to_it() -> None:
    """A trace of its own, since it belongs to none of them more than to the others."""
    other = told(trace_id="a" * 32, span_id="b" * 16)
    span = batch_span(ran(), [Kept(told(), "ratio"), Kept(other, "slow")], PLACE)
    assert [(link.trace_id, link.span_id) for link in span.links] == [(TRACE_ID, SPAN_ID), ("a" * 32, "b" * 16)]
    assert (span.trace_id, span.span_id) == batch_place("replica-1", 77)
    assert span.parent_id is None
    for stage in ("queue", "compute"):
        mine = tree(told(), ran())[stage]
        assert [(link.trace_id, link.span_id) for link in mine.links] == [(span.trace_id, span.span_id)]
        assert mine.attributes["turnout.batch"] == 77


def test_a_batch_says_why_it_was_released_how_full_it_was_and_where_it_ran() -> None:
    """What an operator asks of one that was slow."""
    span = batch_span(ran(rows=12, limit=16), [], PLACE)
    assert span.window == (START_NS + 4500 * US, START_NS + 8500 * US)
    assert span.attributes == {
        "turnout.model": "digits",
        "turnout.version": 3,
        "turnout.batch": 77,
        "turnout.batch.rows": 12,
        "turnout.batch.items": 3,
        "turnout.batch.ran_rows": 12,
        "turnout.batch.padded_rows": 4,
        "turnout.batch.release": "full",
        "turnout.batch.limit": 16,
        "turnout.batch.fill": 0.75,
        "turnout.compute_s": 0.003,
        "turnout.engine": "process",
        "turnout.instance": 1,
        "turnout.device": "cuda:0",
    }


def test_a_batch_that_failed_is_an_error() -> None:
    """Named by its class."""
    span = batch_span(ran(failure="VersionHung"), [], PLACE)
    assert (span.error, span.attributes["error.type"]) == ("VersionHung", "VersionHung")


def test_replicas_give_their_batches_different_names() -> None:
    """Serial numbers are a gateway's own."""
    assert batch_place("replica-1", 77) != batch_place("replica-2", 77)


def test_a_shadows_copy_is_linked_and_no_child() -> None:
    """Nobody waited for it, so it is no part of the request's time."""
    shadow = ShadowRecord(
        "digits", 2, 17, DIGITS_3, VersionRef("digits", 5), "differs", 2, 0.5,
        trace=f"00-{TRACE_ID}-{SPAN_ID}-01", batch=78, queue_s=0.001, compute_s=0.002, ended_wall=START_S,
    )  # fmt: skip
    span = shadow_span(shadow, PLACE)
    assert span is not None
    assert span.trace_id != TRACE_ID
    assert span.parent_id is None
    assert [(link.trace_id, link.span_id) for link in span.links] == [
        (TRACE_ID, SPAN_ID),
        batch_place("replica-1", 78),
    ]
    assert span.window == (START_NS - 3000 * US, START_NS)
    assert (span.attributes["turnout.version"], span.attributes["turnout.shadow.outcome"]) == (5, "differs")
    assert shadow_span(shadow._replace(ended_wall=0.0), PLACE) is None
