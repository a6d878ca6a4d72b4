"""The way out: bounded, counted, and nobody's wait."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pytest

from gateway.telemetry.tracing.exporting import Exporting
from gateway.telemetry.tracing.spans import Span, Window


def span(number: int = 0) -> Span:
    return Span(str(number), "a" * 32, "b" * 16, None, Window(0, 1), {})


class Scripted:
    """Waits for ``gate``, then takes what it is given, refuses it, or raises. A span without a name it cannot take."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.asked = threading.Event()
        self.taken: list[str] = []
        self.refuses = False
        self.raises = False
        self.closed = 0

    def prepared(self, spans: Iterable[Span]) -> Sequence[str | None]:
        return [span.name or None for span in spans]

    def export(self, prepared: Sequence[str]) -> bool:
        self.asked.set()
        self.gate.wait(60)
        if self.raises:
            raise ConnectionError("no collector")
        if not self.refuses:
            self.taken += prepared
        return not self.refuses

    def renew(self, headers: Mapping[str, str]) -> None:
        """It has none."""

    def close(self) -> None:
        self.closed += 1
        self.gate.set()


@pytest.fixture
def exporter() -> Iterator[Scripted]:
    found = Scripted()
    yield found
    found.gate.set()


def test_spans_arrive_in_order_and_are_counted(exporter: Scripted) -> None:
    """By the thread; ``flush`` waits for it."""
    exporter.gate.set()
    exporting = Exporting(exporter)
    exporting.put([span(number) for number in range(1500)])
    assert exporting.flush(60)
    assert exporter.taken == [str(number) for number in range(1500)]
    assert exporting.exported == 1500
    assert exporting.close(60)
    assert exporter.closed == 1


def test_a_dead_collector_costs_a_bounded_queue_and_the_oldest_spans(exporter: Scripted) -> None:
    """Ten spans are on their way, a hundred wait; of the rest the oldest are lost, and counted."""
    exporting = Exporting(exporter, most_spans=100)
    exporting.put([span(number) for number in range(10)])
    threading.Thread(target=exporting.flush, daemon=True).start()
    assert exporter.asked.wait(60)
    for number in range(10, 1000):
        exporting.put([span(number)])
    assert exporting.dropped["queue-full"] == 890
    assert repr(exporting) == "<Exporting [100 queued | 0 exported | 890 lost]>"
    exporter.gate.set()
    assert exporting.close(60)
    assert exporter.taken == [str(number) for number in (*range(10), *range(900, 1000))]


def test_what_the_collector_refuses_is_counted_and_not_kept(exporter: Scripted) -> None:
    """The exporter has had its own tries."""
    exporter.gate.set()
    exporter.refuses = True
    exporting = Exporting(exporter)
    exporting.put([span(), span()])
    assert exporting.flush(60)
    assert (exporting.dropped["not-delivered"], exporting.exported) == (2, 0)
    assert exporting.close(60)


def test_a_span_that_cannot_be_exported_is_lost_alone_and_counted(exporter: Scripted) -> None:
    """Those around it go out."""
    exporter.gate.set()
    exporting = Exporting(exporter)
    exporting.put([span(1), span()._replace(name=""), span(2)])
    assert exporting.flush(60)
    assert (exporter.taken, exporting.exported, exporting.dropped["not-delivered"]) == (["1", "2"], 2, 1)
    assert exporting.close(60)


def test_an_exporter_that_raises_loses_its_spans_and_not_its_thread(exporter: Scripted) -> None:
    """The next ones go out."""
    exporter.gate.set()
    exporter.raises = True
    exporting = Exporting(exporter)
    exporting.put([span(1)])
    assert exporting.flush(60)
    exporter.raises = False
    exporting.put([span(2)])
    assert exporting.flush(60)
    assert (exporter.taken, exporting.dropped["not-delivered"]) == (["2"], 1)
    assert exporting.close(60)


def test_an_exporter_that_hangs_is_given_up_at_the_end(exporter: Scripted) -> None:
    """A dead collector must not keep anything from ending; what is given up is counted."""
    exporting = Exporting(exporter)
    exporting.put([span()])
    threading.Thread(target=exporting.flush, daemon=True).start()
    assert exporter.asked.wait(60)
    exporting.put([span(), span()])
    assert not exporting.close(0.01)
    assert exporter.closed == 1
    assert exporting.dropped["closing"] == 2
    exporting.put([span()])
    assert exporting.dropped["closing"] == 3
