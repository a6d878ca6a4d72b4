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

from collections.abc import Iterable
from typing import NamedTuple

from gateway.events.records import BatchRecord, RequestRecord, ShadowRecord
from gateway.messages import VersionRef
from gateway.telemetry.tracing.conventions import EVALUATION, Server, evaluation, of_request, template_of
from gateway.telemetry.tracing.spans import (
    Attributes,
    Event,
    Link,
    Span,
    Window,
    batch_place,
    child_id,
    child_ids,
    nanoseconds,
)
from gateway.trace_context import parse

__all__ = ["Kept", "Place", "batch_span", "request_spans", "shadow_span"]

_SLACK_NS = 1_000_000
"""Two readings of the clock, one of a web worker and one of its batch's end, in either order."""

_MOST_LINKS = 128
"""As many as an SDK would keep."""

_TO_BATCH: Attributes = {"turnout.link": "batch"}


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
    evaluated: Attributes = {} if record.decision is None else evaluation(record.decision)
    root = Span(
        f"POST {template_of(record.protocol)}",
        record.trace_id,
        record.span_id,
        record.parent_span_id,
        whole,
        of_request(record, place.server, kept.sampled_by, evaluated),
        error=record.error or "internal" if record.code >= 500 else None,
        serves=True,
        state=record.trace_state,
    )
    return [root, *_stages(root, record, _layout(record, batch, whole), evaluated, place)]


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
        links.append(Link(*batch_place(place.gateway, shadow.batch), _TO_BATCH))
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
    if batch is not None and (away := _away(batch, whole)) is not None:
        back = min(away.end_ns, encoding)
        handed = back - (away.end_ns - away.start_ns)
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


def _away(batch: BatchRecord, whole: Window) -> Window | None:
    """From handing the batch over to having it back; None where that was not within the request."""
    end = nanoseconds(batch.ended_wall)
    start = end - nanoseconds(batch.took_s)
    return Window(start, end) if whole.start_ns - _SLACK_NS <= start and end <= whole.end_ns + _SLACK_NS else None


def _stages(root: Span, record: RequestRecord, laid: _Stages, evaluated: Attributes, place: Place) -> list[Span]:
    _, trace_id, parent_id, *_ = root
    decode_id, decide_id, attempt_id, queue_id, compute_id, encode_id = child_ids(parent_id, len(laid))
    decision = record.decision
    spans: list[Span] = []
    if laid.decode is not None:
        rows = {"turnout.rows": record.rows}
        spans.append(Span("decode", trace_id, decode_id, parent_id, laid.decode, rows))
    if laid.decide is not None and decision is not None:
        event = Event(EVALUATION, laid.decide.end_ns, evaluated)
        why = {"turnout.reason": decision.reason}
        spans.append(Span("decide", trace_id, decide_id, parent_id, laid.decide, why, (), (event,)))
    if laid.attempt is not None and decision is not None:
        failure = record.chosen_failure
        tried = {**_by(decision.version), "error.type": failure or ""}
        spans.append(Span("attempt", trace_id, attempt_id, parent_id, laid.attempt, tried, error=failure))
    rode: dict[str, str | int | float | bool] = {} if record.answered_by is None else _by(record.answered_by)
    links: tuple[Link, ...] = ()
    if record.answered_by is not None and record.chosen_failure is not None:
        rode["turnout.fallback"] = True
    if record.batch:
        rode["turnout.batch"] = record.batch
        links = (Link(*batch_place(place.gateway, record.batch), _TO_BATCH),)
    if laid.queue is not None:
        spans.append(Span("queue", trace_id, queue_id, parent_id, laid.queue, rode, links))
    if laid.compute is not None:
        ran = {**rode, "turnout.batch.ran_rows": record.batch_rows}
        spans.append(Span("compute", trace_id, compute_id, parent_id, laid.compute, ran, links))
    if laid.encode is not None:
        spans.append(Span("encode", trace_id, encode_id, parent_id, laid.encode, {}))
    return spans


def _by(version: VersionRef) -> dict[str, str | int | float | bool]:
    return {"turnout.model": version.model, "turnout.version": version.number}
