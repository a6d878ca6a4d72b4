"""The span tree of one request, and the span of a batch, out of their records. Pure.

    POST /predict/{route}            the request, as its client was told (ids of the answer's traceparent)
    ├── decode                       the body into arrays
    ├── decide                       with the event feature_flag.evaluation
    ├── attempt digits/4             only where the chosen version failed: its time, its error
    ├── queue                        ┐ of the version that answered; both name the batch and link to it
    ├── compute                      ┘
    └── encode
    batch                            a trace of its own, with a link to each kept request that rode in it
    shadow                           likewise: nobody waited for it, so it is no child, and links to its request

A record says how long each stage took, and not when it began. What is known of *when*: the request's beginning and
end, and the batch's. So the tree is laid out from three fixed points: decode and decide follow the beginning, encode
leads to the end, queue and compute stand around the moment at which the batch was handed over. The gap that is left
is where it was in fact: between deciding and the queue, and between the engine's answer and the encoding.
The batch's moment is by another reading of the system's clock than the request's; where they do not fit together,
the clock was set in between, and the layout goes by durations alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gateway.events.records import BatchRecord, RequestRecord, ShadowRecord
from gateway.telemetry.tracing.conventions import EVALUATION, Server, evaluation, of_request, template_of
from gateway.telemetry.tracing.spans import (
    Attributes,
    Event,
    Link,
    Span,
    Window,
    batch_place,
    child_id,
    nanoseconds,
)
from gateway.trace_context import parse

__all__ = ["Kept", "Place", "batch_span", "request_spans", "shadow_span"]

_SLACK_NS = 1_000_000
"""Two readings of the clock, one of a web worker and one of its batch's end, in either order."""

_MOST_LINKS = 128
"""As many as an SDK would keep."""


class Kept(NamedTuple):
    """A request whose trace is kept, why, and its caller's ``tracestate``."""

    record: RequestRecord
    sampled_by: str


class Place(NamedTuple):
    """Where all this happens: the gateway's own name, unique among replicas, and where it speaks HTTP."""

    gateway: str
    server: Server = Server()


class _Stages(NamedTuple):
    """Where the stages lie within the request; None for one that there was not."""

    decode: Window | None
    decide: Window | None
    attempt: Window | None
    queue: Window | None
    compute: Window | None
    encode: Window | None


def request_spans(kept: Kept, batch: BatchRecord | None, place: Place) -> list[Span]:
    """The request's span first, then its stages in order. Empty for a record without a trace."""
    record = kept.record
    if record.trace_id is None or record.span_id is None:
        return []
    start = nanoseconds(record.started_wall)
    whole = Window(start, start + max(0, nanoseconds(record.duration_s)))
    root = Span(
        f"POST {template_of(record.protocol)}",
        record.trace_id,
        record.span_id,
        record.parent_span_id,
        whole,
        of_request(record, place.server, kept.sampled_by),
        error=record.error or "internal" if record.code >= 500 else None,
        serves=True,
        state=record.trace_state,
    )
    return [root, *_stages(root, record, _layout(record, batch, whole), place)]


def batch_span(batch: BatchRecord, riders: Iterable[Kept], place: Place) -> Span:
    """The batch, with links to the kept ones of its requests."""
    end = nanoseconds(batch.ended_wall)
    trace_id, span_id = batch_place(place.gateway, batch.batch)
    said: dict[str, str | int | float | bool] = {
        "turnout.model": batch.version.model,
        "turnout.version": batch.version.number,
        "turnout.batch": batch.batch,
        "turnout.batch.rows": batch.rows,
        "turnout.batch.items": batch.items,
        "turnout.batch.ran_rows": batch.ran_rows,
        "turnout.batch.padded_rows": batch.padded_rows,
        "turnout.batch.release": batch.release,
        "turnout.compute_s": batch.compute_s,
        "turnout.engine": batch.engine,
        "turnout.instance": batch.instance,
        "turnout.device": batch.device,
    }
    if batch.limit:
        said["turnout.batch.limit"] = batch.limit
        said["turnout.batch.fill"] = round(batch.rows / batch.limit, 4)
    if batch.failure is not None:
        said["error.type"] = batch.failure
    window = Window(end - max(0, nanoseconds(batch.took_s)), end)
    links = tuple(link for kept in riders if (link := _to_request(kept.record)) is not None)
    return Span("batch", trace_id, span_id, None, window, said, links=links[:_MOST_LINKS], error=batch.failure)


def shadow_span(shadow: ShadowRecord, place: Place) -> Span | None:
    """A copy of a request that a shadow answered; None for one that it did not, or of no trace."""
    traced = None if shadow.trace is None else parse(shadow.trace)
    if traced is None or not shadow.ended_wall:
        return None
    end = nanoseconds(shadow.ended_wall)
    said: dict[str, str | int | float | bool] = {
        "turnout.route": shadow.route,
        "turnout.model": shadow.shadow.model,
        "turnout.version": shadow.shadow.number,
        "turnout.answered_by": str(shadow.answered),
        "turnout.shadow.outcome": shadow.outcome,
        "turnout.shadow.difference": shadow.difference,
        "turnout.rows": shadow.rows,
        "turnout.queue_s": shadow.queue_s,
        "turnout.compute_s": shadow.compute_s,
        "turnout.batch": shadow.batch,
    }
    own = child_id(traced.span_id, f"shadow {shadow.shadow}")
    links = [Link(traced.trace_id, traced.span_id, {"turnout.link": "request"})]
    if shadow.batch:
        links.append(Link(*batch_place(place.gateway, shadow.batch), {"turnout.link": "batch"}))
    window = Window(end - nanoseconds(max(0.0, shadow.queue_s) + max(0.0, shadow.compute_s)), end)
    return Span("shadow", child_id(own, "trace") + own, own, None, window, said, tuple(links))


def _to_request(record: RequestRecord) -> Link | None:
    if record.trace_id is None or record.span_id is None:
        return None
    return Link(record.trace_id, record.span_id, {"turnout.link": "request", "turnout.rows": record.rows})


def _layout(record: RequestRecord, batch: BatchRecord | None, whole: Window) -> _Stages:
    """Each within the request, none before the one it follows."""
    start, end = whole
    decoded = start + nanoseconds(record.decode_s)
    decided = decoded + nanoseconds(record.decide_s)
    encoding = end - nanoseconds(record.encode_s)
    computed, queued = nanoseconds(record.compute_s), nanoseconds(record.queue_s)
    handed, back = encoding - computed, encoding
    if batch is not None and _fits(batch, whole):
        back = min(nanoseconds(batch.ended_wall), encoding)
        handed = back - nanoseconds(batch.took_s)
    answered = record.answered_by is not None
    after = whole.part(decided, end)
    failed = record.chosen_failure is not None
    return _Stages(
        whole.part(start, decoded) if record.decode_s else None,
        whole.part(decoded, decided) if record.decision is not None else None,
        after.part(decided, handed - queued if answered else encoding) if failed else None,
        after.part(handed - queued, handed) if queued else None,
        after.part(max(handed, back - computed), back) if answered and record.batch else None,
        whole.part(encoding, end) if record.encode_s else None,
    )


def _fits(batch: BatchRecord, whole: Window) -> bool:
    end = nanoseconds(batch.ended_wall)
    start = end - nanoseconds(batch.took_s)
    return whole.start_ns - _SLACK_NS <= start and end <= whole.end_ns + _SLACK_NS


def _stages(root: Span, record: RequestRecord, laid: _Stages, place: Place) -> list[Span]:
    decision = record.decision
    spans: list[Span] = []

    def add(
        name: str,
        window: Window | None,
        said: Attributes,
        *,
        links: Sequence[Link] = (),
        events: Sequence[Event] = (),
        error: str | None = None,
    ) -> None:
        if window is not None:
            own = child_id(root.span_id, name)
            spans.append(Span(name, root.trace_id, own, root.span_id, window, said, tuple(links), tuple(events), error))

    add("decode", laid.decode, {"turnout.rows": record.rows})
    if decision is not None and laid.decide is not None:
        event = Event(EVALUATION, laid.decide.end_ns, evaluation(decision))
        add("decide", laid.decide, {"turnout.reason": decision.reason}, events=[event])
        failure = record.chosen_failure
        tried: Attributes = {
            "turnout.model": decision.version.model,
            "turnout.version": decision.version.number,
            "error.type": failure or "",
        }
        add("attempt", laid.attempt, tried, error=failure)
    rode: dict[str, str | int | float | bool] = {}
    links: list[Link] = []
    if record.answered_by is not None:
        rode = {"turnout.model": record.answered_by.model, "turnout.version": record.answered_by.number}
        if record.chosen_failure is not None:
            rode["turnout.fallback"] = True
    if record.batch:
        rode["turnout.batch"] = record.batch
        links = [Link(*batch_place(place.gateway, record.batch), {"turnout.link": "batch"})]
    add("queue", laid.queue, rode, links=links)
    add("compute", laid.compute, {**rode, "turnout.batch.ran_rows": record.batch_rows}, links=links)
    add("encode", laid.encode, {})
    return spans
