"""The gateway's side: finds a kept request's batch, hands both over once, and never waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.events.records import BatchRecord, RequestRecord, ShadowRecord
from gateway.messages import VersionRef
from gateway.routing.table import Limits
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.tracing.keeping import Keeping
from gateway.telemetry.tracing.message import Message, unpack
from gateway.telemetry.tracing.observer import HOLD_S, Tracing
from tests.telemetry.records import DIGITS_3, SPAN_ID, TRACE_ID, batch, digits, request, table


class Road:
    """Keeps what is handed over; refuses while ``full``."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.full = False

    def __call__(self, body: Mapping[str, Any]) -> bool:
        if not self.full:
            self.messages.append(unpack(body))
        return not self.full


class Scene:
    def __init__(self, per_s: float = 10.0) -> None:
        self.clock, self.road = ManualClock(), Road()
        self.route = digits()
        self.exemplified: list[RequestRecord] = []
        self.batches: list[tuple[int, int]] = []
        self.tracing = Tracing(
            self.road,
            Keeping(per_s, sampled_per_s=10_000),
            clock=self.clock,
            table=lambda: table(self.route),
            exemplars=self,
        )

    def exemplify(self, record: RequestRecord) -> None:
        self.exemplified.append(record)

    def exemplify_batch(self, record: RequestRecord, batch: BatchRecord) -> None:
        self.batches.append((record.batch, batch.batch))

    def wait(self) -> None:
        """Long enough for all that is held."""
        self.clock.advance(HOLD_S)
        self.clock.advance(HOLD_S)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def sampled(serial: int = 0, **changes: Any) -> RequestRecord:
    return request(**{"sampled": True, "batch": serial, **changes})


def rode(serial: int) -> BatchRecord:
    return batch(batch=serial)


def test_a_kept_request_is_handed_over_with_its_batch(scene: Scene) -> None:
    """Told of before it, as in one process."""
    scene.tracing.batch_finished(rode(7))
    scene.tracing.requests_finished([sampled(7), request(batch=7)])
    assert scene.road.messages == []
    scene.wait()
    [message] = scene.road.messages
    assert [kept.record.batch for kept in message.kept] == [7]
    assert message.batches == [rode(7)]


def test_a_batch_that_is_told_of_after_its_requests_is_found(scene: Scene) -> None:
    """As a web worker's burst has it."""
    scene.tracing.requests_finished([sampled(7)])
    scene.tracing.batch_finished(rode(7))
    scene.wait()
    assert scene.road.messages[0].batches == [rode(7)]


def test_a_batch_is_handed_over_once_with_all_its_requests(scene: Scene) -> None:
    """Those of the next burst too: two spans of one id would be one too many."""
    scene.tracing.batch_finished(rode(7))
    scene.tracing.requests_finished([sampled(7)])
    scene.clock.advance(HOLD_S)
    scene.tracing.requests_finished([sampled(7, span_id="b" * 16), sampled(8)])
    scene.clock.advance(HOLD_S)
    [message] = scene.road.messages
    assert [kept.record.span_id for kept in message.kept] == [SPAN_ID, "b" * 16]
    scene.wait()
    assert [kept.record.batch for kept in scene.road.messages[1].kept] == [8]
    scene.tracing.requests_finished([sampled(7, span_id="c" * 16)])
    scene.wait()
    assert scene.road.messages[2].batches == []


def test_batches_of_requests_that_are_not_kept_are_forgotten(scene: Scene) -> None:
    """Between one and two thousand at most, however long the gateway runs."""
    for serial in range(1, 10_000):
        scene.tracing.batch_finished(rode(serial))
    scene.tracing.requests_finished([sampled(1), sampled(9_999)])
    scene.wait()
    assert [found.batch for found in scene.road.messages[0].batches] == [9_999]


def test_keys_and_contents_stay_behind(scene: Scene) -> None:
    """They are nobody's business who looks at traces."""
    scene.tracing.requests_finished([sampled(key="who")])
    scene.wait()
    assert scene.road.messages[0].kept[0].record.key is None


def test_what_is_kept_becomes_an_exemplar_and_nothing_else(scene: Scene) -> None:
    """Whether it was sampled from the beginning or turned out to be worth it."""
    failed, drawn = request(code=500, answered_by=None), sampled()
    scene.tracing.requests_finished([drawn, failed, request()])
    assert scene.exemplified == [drawn, failed]
    scene.wait()
    assert [kept.sampled_by for kept in scene.road.messages[0].kept] == ["ratio", "error"]
    assert {reason: count for reason, count in scene.tracing.kept.items() if count} == {"ratio": 1, "error": 1}


def test_an_exemplar_made_afterwards_lies_in_the_bucket_of_its_latency() -> None:
    """The request was counted when nobody knew; its trace is shown where it was counted."""
    metrics = Metrics(table=lambda: table(digits()))
    metrics.version_state(DIGITS_3, "active", "")
    metrics.table_applied(7)
    slow = request(duration_s=0.7, trace_id=TRACE_ID)
    metrics.requests_finished([slow])
    metrics.exemplify(slow)
    [family] = [one for one in metrics.registry.collect() if one.name == "gateway_request_duration_seconds"]
    shown = {sample.labels["le"]: sample.exemplar for sample in family.samples if sample.exemplar}
    assert {bound: (one.labels, one.value) for bound, one in shown.items()} == {"1.0": ({"trace_id": TRACE_ID}, 0.7)}


def test_a_kept_request_stands_for_its_wait_and_its_batch(scene: Scene) -> None:
    """But not for a batch that was only one of several that it rode in."""
    scene.tracing.batch_finished(batch(batch=7, compute_s=0.002))
    scene.tracing.batch_finished(batch(batch=8, compute_s=0.002))
    scene.tracing.requests_finished([sampled(7, compute_s=0.002), sampled(8, compute_s=0.006)])
    scene.wait()
    assert scene.batches == [(7, 7)]


def test_metrics_that_are_told_of_traces_take_nobody_elses_word() -> None:
    """A sampled request beyond the rate leads to no trace."""
    metrics = Metrics(table=lambda: table(digits()), told_of_traces=True)
    metrics.version_state(DIGITS_3, "active", "")
    metrics.table_applied(7)
    metrics.requests_finished([sampled()])
    assert not [sample for family in metrics.registry.collect() for sample in family.samples if sample.exemplar]


def test_exemplars_of_waits_and_batches_lie_in_the_buckets_of_what_was_counted() -> None:
    """A wait that was not counted for this request (it ran again) has none."""
    metrics = Metrics(table=lambda: table(digits()))
    metrics.version_state(DIGITS_3, "active", "")
    metrics.table_applied(7)
    ran = batch(batch=7, compute_s=0.002, waits_s=(0.0002, 0.003), ended_wall=1.0)
    metrics.batch_finished(ran)
    metrics.exemplify_batch(sampled(7, queue_s=0.003), ran)
    metrics.exemplify_batch(sampled(7, queue_s=0.7), ran)
    shown = {
        (family.name, sample.labels["le"]): (sample.exemplar.labels["trace_id"], sample.exemplar.value)
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert shown == {
        ("gateway_compute_duration_seconds", "0.0025"): (TRACE_ID, 0.002),
        ("gateway_queue_duration_seconds", "0.005"): (TRACE_ID, 0.003),
    }


def test_a_route_that_says_what_is_slow_is_believed(scene: Scene) -> None:
    """From the table in force."""
    scene.route = digits(limits=Limits(slow_ms=50))
    scene.tracing.table_applied(7)
    scene.tracing.requests_finished([request(duration_s=0.001)] * 500)
    scene.tracing.requests_finished([request(duration_s=9.0), request(duration_s=0.06, slow=True)])
    scene.wait()
    assert [kept.record.duration_s for kept in scene.road.messages[0].kept] == [0.06]


def test_copies_for_shadows_follow_their_sampled_requests(scene: Scene) -> None:
    """By the ``traceparent`` that the request was told; a copy that was not answered has nothing to show."""
    copy = ShadowRecord("digits", 1, 17, DIGITS_3, VersionRef("digits", 5), "agrees", 1, ended_wall=1.0)
    for trace in (f"00-{TRACE_ID}-{SPAN_ID}-03", f"00-{TRACE_ID}-{SPAN_ID}-02", None):
        scene.tracing.shadow_compared(copy._replace(trace=trace))
    scene.tracing.shadow_compared(copy._replace(trace=f"00-{TRACE_ID}-{SPAN_ID}-01", ended_wall=0.0))
    scene.wait()
    assert [shadow.trace for shadow in scene.road.messages[0].shadows] == [f"00-{TRACE_ID}-{SPAN_ID}-03"]


def test_a_road_that_takes_nothing_costs_spans_and_nothing_else(scene: Scene) -> None:
    """They are counted: two requests of three spans each, and a batch."""
    scene.road.full = True
    scene.tracing.batch_finished(rode(7))
    scene.tracing.requests_finished([sampled(7), sampled(7)])
    scene.wait()
    assert scene.tracing.lost_spans == 9
    scene.road.full = False
    scene.tracing.requests_finished([sampled()])
    scene.wait()
    assert len(scene.road.messages) == 1


def test_closing_hands_over_what_is_held(scene: Scene) -> None:
    """And no timer is left behind."""
    scene.tracing.requests_finished([sampled()])
    scene.tracing.close()
    assert len(scene.road.messages) == 1
    assert scene.clock.waiting == 0


def test_what_is_told_after_closing_is_handed_over_at_once(scene: Scene) -> None:
    """The last burst is told while everything ends."""
    scene.tracing.close()
    scene.tracing.requests_finished([sampled()])
    assert len(scene.road.messages) == 1
    assert scene.clock.waiting == 0


def test_a_flood_of_sampled_requests_is_handed_over_in_pieces(scene: Scene) -> None:
    """A ratio of one at full load must not gather without bound."""
    scene.tracing.requests_finished([sampled()] * 10_000)
    assert [len(message.kept) for message in scene.road.messages] == [4096, 4096]


def test_records_without_a_trace_are_passed_over(scene: Scene) -> None:
    """There is nothing to hang a span on."""
    scene.tracing.requests_finished([sampled(trace_id=None)])
    scene.wait()
    assert scene.road.messages == []
