"""The protocol's counters, from events alone."""

from __future__ import annotations

from gateway.events.records import BatchRecord, RequestRecord
from gateway.messages import Decision, VersionRef
from gateway.web.statistics import ModelStatistics

CHOSEN, FALLBACK = VersionRef("digits", 2), VersionRef("digits", 1)


def finished(code: int, *, answered_by: VersionRef | None, failure: str | None = None) -> RequestRecord:
    return RequestRecord(
        route="digits",
        request_id="r",
        decision_id="d",
        decision=Decision("digits", CHOSEN, "split", 1, 1),
        answered_by=answered_by,
        code=code,
        chosen_failure=failure,
        error=failure,
        rows=3,
        started_wall=100.0,
        duration_s=0.5,
        queue_s=0.1,
    )


def test_a_success_counts_rows_and_requests_for_the_version_that_answered() -> None:
    """Durations in nanoseconds."""
    statistics = ModelStatistics()

    statistics.requests_finished([finished(200, answered_by=CHOSEN)])
    statistics.batch_finished(BatchRecord(CHOSEN, rows=8, items=2, compute_s=0.25, waits_s=(0.1, 0.1)))
    statistics.batch_finished(BatchRecord(CHOSEN, rows=8, items=2, compute_s=0.25, waits_s=(), failure="ModelError"))

    report = statistics.report("digits", CHOSEN)
    assert (report["version"], report["inference_count"], report["execution_count"]) == ("2", 3, 1)
    assert report["last_inference"] == 100_500
    assert report["inference_stats"]["success"] == {"count": 1, "ns": 500_000_000}
    assert report["inference_stats"]["queue"] == {"count": 1, "ns": 100_000_000}
    assert report["inference_stats"]["compute_infer"] == {"count": 1, "ns": 250_000_000}
    assert [(batch["batch_size"], batch["compute_infer"]["count"]) for batch in report["batch_stats"]] == [(8, 1)]


def test_a_failure_counts_for_the_chosen_also_when_a_fallback_answered() -> None:
    """What a fallback hid is still the chosen version's failure."""
    statistics = ModelStatistics()

    statistics.requests_finished([finished(200, answered_by=FALLBACK, failure="ModelError")])
    statistics.requests_finished([finished(500, answered_by=None, failure="ModelError")])

    assert statistics.report("digits", CHOSEN)["inference_stats"]["fail"]["count"] == 2
    assert statistics.report("digits", FALLBACK)["inference_stats"]["success"]["count"] == 1


def test_a_retired_version_is_forgotten() -> None:
    """Its memory goes with it."""
    statistics = ModelStatistics()
    statistics.requests_finished([finished(200, answered_by=CHOSEN)])

    statistics.version_retired(CHOSEN)

    assert statistics.report("digits", CHOSEN)["inference_count"] == 0
    assert repr(statistics) == "<ModelStatistics [0 versions]>"
