"""Spans on their way out: a bounded queue, one thread, and counts of what was lost.

A collector that is slow or gone costs this much memory and no more, and nobody waits for it: when the queue is full
the oldest spans make room, since after an outage the newest say most of what is so now. What an exporter could not
deliver, after its own tries, is counted and not kept: a queue of failures would only put off the loss.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from gateway.telemetry.tracing.spans import Span

__all__ = ["DROPS", "Exporter", "Exporting"]

log = logging.getLogger("turnout.telemetry.tracing")

DROPS = ("queue-full", "not-delivered", "closing", "recorder")
"""Why spans were lost: no room here, the collector did not take them (or has no form for them), the gateway ended
first, or the recorder, in whose process this runs, was not there."""

MOST_SPANS = 16_384
"""Some 6 MB: a span takes a third of a kilobyte where it waits encoded, and a whole one where it does not."""
_AT_ONCE = 512
_EVERY_S = 1.0


class Exporter(Protocol):
    """``prepared`` says in what form each span waits, None for one that cannot be exported; it is quick, and called by
    the thread that puts. ``export`` takes some of these; it may block, within a bound of its own, and says whether the
    collector has them. ``close`` ends an ``export`` under way soon; it may be called from another thread."""

    def prepared(self, spans: Iterable[Span]) -> Sequence[Any]: ...

    def export(self, prepared: Sequence[Any]) -> bool: ...

    def renew(self, headers: Mapping[str, str]) -> None:
        """What is exported from now on has these; from another thread."""

    def close(self) -> None: ...


class Exporting:
    """Owns ``exporter`` and a thread. ``put`` never blocks; safe from one thread besides its own."""

    def __init__(self, exporter: Exporter, *, most_spans: int = MOST_SPANS) -> None:
        self._exporter = exporter
        self._most = most_spans
        self._queue: deque[Any] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._flushing = False
        self._idle = True
        self.exported = 0
        self._dropped = dict.fromkeys(DROPS, 0)
        self._thread = threading.Thread(target=self._run, name="turnout-spans", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return (
            f"<Exporting [{len(self._queue)} queued | {self.exported} exported | {sum(self._dropped.values())} lost]>"
        )

    @property
    def dropped(self) -> Mapping[str, int]:
        with self._changed:
            return dict(self._dropped)

    def put(self, spans: Iterable[Span]) -> None:
        """They are prepared here and now, while they lie in the processor's caches: a span that waited for it took half
        as long again, and three times the memory."""
        prepared = self._exporter.prepared(spans)
        ready = [one for one in prepared if one is not None]
        with self._changed:
            if self._closing:
                self._dropped["closing"] += len(prepared)
                return
            self._dropped["not-delivered"] += len(prepared) - len(ready)
            self._queue.extend(ready)
            while len(self._queue) > self._most:
                self._queue.popleft()
                self._dropped["queue-full"] += 1
            if len(self._queue) >= _AT_ONCE:
                self._changed.notify_all()

    def renew(self, headers: Mapping[str, str]) -> None:
        self._exporter.renew(headers)

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Returns once all that was put has been tried; False when that took too long."""
        with self._changed:
            self._flushing = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._idle and not self._queue, timeout_s)

    def close(self, timeout_s: float = 2.0) -> bool:
        """Exports what is queued and ends; False when that was given up after ``timeout_s``, with what it had."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            return True
        with self._changed:
            self._dropped["closing"] += len(self._queue)
            self._queue.clear()
        self._exporter.close()
        return False

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._due, _EVERY_S)
                count = min(len(self._queue), _AT_ONCE)
                spans = [self._queue.popleft() for _ in range(count)]
                self._idle = not spans
                if not spans:
                    self._flushing = False
                    self._changed.notify_all()
                    if self._closing:
                        break
                    continue
            self._export(spans)
        self._exporter.close()

    def _due(self) -> bool:
        return self._closing or self._flushing or len(self._queue) >= _AT_ONCE

    def _export(self, spans: Sequence[Any]) -> None:
        try:
            delivered = self._exporter.export(spans)
        except Exception:  # a vendor's code, on a thread of its own: it must not end with its first surprise
            log.exception("the exporter of spans failed; %d spans are lost", len(spans))
            delivered = False
        with self._changed:
            if delivered:
                self.exported += len(spans)
            else:
                self._dropped["not-delivered"] += len(spans)
