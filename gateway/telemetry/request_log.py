"""One JSON line a request, and one for each change of state, crash and rollback: a part of the recorder.

The recorder's loop makes the lines, appends them to a bounded queue and goes on; a thread writes what is queued.
When the sink is slow the queue fills and lines are dropped and counted, and a line says how many as
soon as one gets through; it counts, too, what was lost on the way to the recorder. Lines hold no inputs, no outputs,
and no routing key.

The thread wakes at most twenty times a second, joins what has gathered and writes it. For a file there is no thread:
what has been taken has been written, so that a recorder that dies loses no line that it has acknowledged.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import repeat
from typing import Any

import orjson

from gateway.clock import Clock
from gateway.events.observer import Observer
from gateway.events.records import RequestRecord, RollbackRecord
from gateway.messages import VersionRef
from gateway.recording.arrived import Arrived
from gateway.recording.parts import GAP
from gateway.telemetry.sink import Sink

__all__ = ["LINE", "EventLines", "RequestLog", "RequestLogStatistics"]

log = logging.getLogger("turnout.telemetry.request_log")

LINE = "line"
"""The control event whose body is a line as it stands, but for its ``wall`` time."""

_GATHER_S = 0.05
_BATCH = 512
_MAX_TEXT = 500
_LONG_LINE_BYTES = 2000


@dataclass(frozen=True, slots=True)
class RequestLogStatistics:
    """Lines waiting, written and dropped so far."""

    queued: int
    written: int
    dropped: int


class EventLines(Observer):
    """At the gateway: what is no request, as lines for the log. ``tell`` brings them to the recorder."""

    def __init__(self, tell: Callable[[str, Mapping[str, Any]], object], *, clock: Clock) -> None:
        self._tell = tell
        self._clock = clock

    def version_state(self, version: VersionRef, state: str, reason: str) -> None:
        level = "error" if state == "failed" else "info"
        self._event(level, "version-state", version=str(version), state=state, reason=reason)

    def version_crashed(self, version: VersionRef, cause: str, isolating: bool) -> None:
        self._event("error", "version-crashed", version=str(version), cause=cause, isolating=isolating)

    def version_retired(self, version: VersionRef) -> None:
        self._event("info", "version-retired", version=str(version))

    def table_applied(self, revision: int) -> None:
        self._event("info", "table-applied", revision=revision)

    def store_reachable(self, up: bool) -> None:
        self._event("info" if up else "error", "store-reachable", up=up)

    def rolled_back(self, record: RollbackRecord) -> None:
        self._event(
            "warning",
            "rolled-back",
            route=record.route,
            trigger=record.trigger,
            target=record.target,
            quarantined=record.quarantined,
            reason=record.reason,
            durable=record.durable,
        )

    def _event(self, level: str, event: str, **fields: Any) -> None:
        self._tell(LINE, {"wall": self._clock.wall(), "level": level, "event": event, **fields})


class RequestLog:
    """A part of the recorder (``gateway.recording.parts``) that owns ``sink`` and one thread, and never waits for them.

    ``_refused`` is added to by the loop (queue full, or lost on the way) and ``_lost`` by the thread (sink failed), so
    that neither loses the other's.
    """

    full = False

    def __init__(self, sink: Sink, *, clock: Clock, limit: int = 10_000, prompt: bool = False) -> None:
        """``prompt``: the sink keeps nobody waiting, and gets each line at once."""
        self._sink = sink
        self._prompt = prompt
        self._clock = clock
        self._limit = limit
        self._queue: deque[bytes] = deque()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._closed = self._awake = False
        self._written = 0
        self._refused = 0
        self._lost = 0
        self._told = 0
        self._failing = False
        self._times = _Times()
        self._writing = threading.Thread(target=self._work, name="turnout-request-log", daemon=True)
        if not prompt:
            self._writing.start()

    def __repr__(self) -> str:
        counts = self.statistics()
        return f"<RequestLog [{counts.queued} queued | {counts.written} written | {counts.dropped} dropped]>"

    def statistics(self) -> RequestLogStatistics:
        return RequestLogStatistics(len(self._queue), self._written, self._refused + self._lost)

    def take(self, records: Sequence[RequestRecord]) -> None:
        room = 0 if self._closed else max(0, self._limit - len(self._queue))
        self._refused += max(0, len(records) - room)  # what is dropped need not be made
        times = self._times
        if isinstance(records, Arrived) and room >= len(records) and (lines := _all_good(records, times)) is not None:
            self._put(lines)
        else:
            self._put([_good(record, times) or _request(record, times) for record in records[:room]])

    def told(self, event: str, body: Mapping[str, Any]) -> None:
        if event == GAP:
            self._refused += body["count"]
            self._rouse()
        elif event == LINE:
            fields = dict(body)
            line = _encoded({"time": self._times.of(fields.pop("wall")), **fields})
            if self._closed or len(self._queue) >= self._limit:
                self._refused += 1
            else:
                self._put([line])

    def tick(self) -> None:
        """The thread looks after itself."""

    def ask(self, kind: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if kind != "request-log":
            raise KeyError(kind)
        counts = self.statistics()
        return {"queued": counts.queued, "written": counts.written, "dropped": counts.dropped}

    def close(self, timeout_s: float = 2.0) -> bool:
        """Writes what is queued, then closes the sink; False when that took too long and was given up.

        A sink that hangs keeps its thread, which ends with the process.
        """
        if self._prompt:
            if not self._closed:
                self._closed = True
                self._drain()
                self._close_sink()
            return True
        self._closed = True
        self._closing.set()
        self._wake.set()
        self._writing.join(timeout_s)
        return not self._writing.is_alive()

    def _put(self, lines: Sequence[bytes]) -> None:
        self._queue.extend(lines)
        if lines:
            self._rouse()

    def _rouse(self) -> None:
        if self._prompt:
            self._drain()
        elif not self._awake:
            self._awake = True
            self._wake.set()

    def _work(self) -> None:
        """The thread: until closed and empty. Clearing the event before looking loses no wake-up."""
        while not self._closing.is_set():
            self._wake.wait()
            self._closing.wait(_GATHER_S)
            self._wake.clear()
            self._awake = False
            self._drain()
        self._drain()
        self._close_sink()

    def _drain(self) -> None:
        """What waits now. What comes meanwhile gathers until the next wake-up: else the thread would ask for the
        interpreter's lock again after each write, and at load never cease to."""
        batches = -(-len(self._queue) // _BATCH)
        while batches > 0 or self._refused + self._lost > self._told:
            batches -= 1
            if not self._write_some():
                break

    def _write_some(self) -> bool:
        """One batch, with the news of lines dropped meanwhile. False when the sink took nothing: later, then."""
        lines = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
        dropped = self._refused + self._lost
        notice = [_encoded(self._drop_notice(dropped - self._told))] if dropped > self._told else []
        try:
            self._sink.write(b"".join(lines + notice))
        except (OSError, ValueError) as failure:  # ValueError: a file object that somebody closed
            self._lost += len(lines)
            self._tell_failing(failure)
            return bool(self._queue)
        self._written += len(lines)
        self._told = dropped
        self._failing = False
        return True

    def _drop_notice(self, count: int) -> Mapping[str, Any]:
        return {"time": _time(self._clock.wall()), "level": "warning", "event": "log-lines-dropped", "count": count}

    def _tell_failing(self, failure: Exception) -> None:
        if not self._failing:
            log.error("the request log cannot be written (%s); lines are dropped until it can be", failure)
        self._failing = True

    def _close_sink(self) -> None:
        try:
            self._sink.close()
        except OSError as failure:
            log.error("the request log could not be closed: %s", failure)


def _good(record: RequestRecord, times: _Times) -> bytes | None:
    """The line of a request that went well, as most do, at half of what it costs to make one of any; else None."""
    decision, request_id, trace_id = record.decision, record.request_id, record.trace_id
    if decision is None or record.code != 200 or record.chosen_failure is not None or trace_id is None:
        return None
    if decision.flag_age_s is not None or decision.flag_stale:
        return None
    # The other ids are of our own making, or were held against their grammar.
    plain = request_id is trace_id or (
        request_id.isascii() and request_id.replace("-", "").isalnum() and len(request_id) <= _MAX_TEXT
    )
    if record.answered_by != decision.version or not plain:
        return None
    chosen = _chosen(record.route, decision.version, decision.reason)
    if chosen is None:
        return None
    return _good_line(
        times.of(record.started_wall), request_id, record.decision_id, trace_id,
        chosen, decision.epoch, decision.revision,
        record.duration_s, record.queue_s, record.compute_s, record.rows,
    )  # fmt: skip


def _good_line(  # noqa: PLR0917 (called by columns: with tuples between it cost twice as much)
    time: str, request: str, decision: str, trace: str,
    chosen: str, epoch: int, revision: int,
    duration: float, queue: float, compute: float, rows: int,
) -> bytes:  # fmt: skip
    return (
        f'{{"time":"{time}","level":"info","event":"request","request_id":"{request}","decision_id":"{decision}",'
        f'"trace_id":"{trace}",{chosen},"epoch":{epoch},"revision":{revision},"code":200,'
        f'"duration_ms":{duration * 1000:.3f},"queue_ms":{queue * 1000:.3f},'
        f'"compute_ms":{compute * 1000:.3f},"rows":{rows},"error":null,"fallback_from":null}}\n'
    ).encode()


def _all_good(burst: Arrived, times: _Times) -> list[bytes] | None:
    """The lines of a burst that went well in all its parts, as most do, by its columns; else None."""
    told = [burst.column(name) for name in ("code", "chosen_failure", "trace_id")]
    if not burst.plain or not burst.named_by_trace or [*told[0]] != [200] or [*told[1]] != [None] or None in told[2]:
        return None
    chosen = _all_chosen(burst)
    if chosen is None:
        return None
    started, *named = burst.each("started_wall", "request_id", "decision_id", "trace_id")
    decided = burst.each_decided("epoch", "revision")
    took = burst.each("duration_s", "queue_s", "compute_s", "rows")
    return list(map(_good_line, times.each(started), *named, chosen, *decided, *took))


def _all_chosen(burst: Arrived) -> Iterable[str] | None:
    """What ``_chosen`` says for each; None where it cannot for one."""
    named = [burst.decided(name) for name in ("model", "number", "reason")]
    if all(len(column) == 1 for column in named):
        model, number, reason = (column[0] for column in named)
        said = _chosen(burst.route, VersionRef(model, number), reason)
        return None if said is None else repeat(said, len(burst))
    *versions, reasons = burst.each_decided("model", "number", "reason")
    each = [said for said in map(_chosen, repeat(burst.route), map(VersionRef, *versions), reasons) if said is not None]
    return each if len(each) == len(burst) else None


@lru_cache(maxsize=1024)
def _chosen(route: str, version: VersionRef, reason: str) -> str | None:
    """The members of a line that say which version answered, and why, but for epoch and revision, of which there would
    soon be as many as are kept; None when they cannot be written as they are."""
    members = {"route": route, "model": version.model, "version": version.number, "reason": reason}
    try:
        written = orjson.dumps(members).decode()[1:-1]
    except orjson.JSONEncodeError:
        return None
    return written if len(written) <= _MAX_TEXT else None


def _request(record: RequestRecord, times: _Times) -> bytes:
    decision = record.decision
    answered = record.answered_by
    chosen = None if decision is None else decision.version
    shown = answered or chosen
    fell_back = answered is not None and chosen is not None and answered != chosen
    line = {
        "time": times.of(record.started_wall),
        "level": "info" if record.code < 500 else "error",
        "event": "request",
        "request_id": record.request_id,
        "decision_id": record.decision_id,
        "trace_id": record.trace_id,
        "route": record.route,
        "model": None if shown is None else shown.model,
        "version": None if shown is None else shown.number,
        "reason": "fallback" if fell_back else None if decision is None else decision.reason,
        "epoch": None if decision is None else decision.epoch,
        "revision": None if decision is None else decision.revision,
        "code": record.code,
        "duration_ms": round(record.duration_s * 1000, 3),
        "queue_ms": round(record.queue_s * 1000, 3),
        "compute_ms": round(record.compute_s * 1000, 3),
        "rows": record.rows,
        "error": record.error or record.chosen_failure,
        "fallback_from": chosen.number if fell_back and chosen is not None else None,
    }
    if decision is not None and (decision.flag_age_s is not None or decision.flag_stale):
        key, variant, provider = decision.flag or (None, None, None)
        line |= {"flag": key, "variant": variant, "flag_provider": provider}
        line |= {"flag_age_s": decision.flag_age_s, "flag_stale": decision.flag_stale}
    try:
        written = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        return _encoded(line)
    return written if len(written) <= _LONG_LINE_BYTES else _encoded(line)


def _time(wall: float) -> str:
    return _Times().of(wall)


class _Times:
    """Seconds since the epoch as RFC 3339 with milliseconds; what the lines of one second share is written once."""

    def __init__(self) -> None:
        self._second = -1
        self._prefix = ""

    def of(self, wall: float) -> str:
        return self._written(int(wall * 1000))

    def each(self, walls: Iterable[float]) -> list[str]:
        """Of many at once, which mostly lie within one second."""
        stamps = [int(wall * 1000) for wall in walls]
        first = self._written(stamps[0])
        begin, prefix = self._second * 1000, first[:-4]
        if not begin <= min(stamps) <= max(stamps) < begin + 1000:
            return list(map(self._written, stamps))
        return [f"{prefix}{stamp - begin:03d}Z" for stamp in stamps]

    def _written(self, stamp: int) -> str:
        second, milliseconds = divmod(stamp, 1000)
        if second != self._second:
            self._second = second
            self._prefix = datetime.fromtimestamp(second, UTC).isoformat(timespec="seconds").removesuffix("+00:00")
        return f"{self._prefix}.{milliseconds:03d}Z"


def _encoded(line: Mapping[str, Any]) -> bytes:
    """Texts are cut to a sane length; one that has no UTF-8 form is written with replacement marks."""
    cut = {name: value[:_MAX_TEXT] if isinstance(value, str) else value for name, value in line.items()}
    try:
        return orjson.dumps(cut, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        legible = {
            name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
            for name, value in cut.items()
        }
        return orjson.dumps(legible, option=orjson.OPT_APPEND_NEWLINE, default=repr)
