"""A soak's record says what happened, also when it was cut short."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from loadtests.scenarios.long import Piece, growth_percent, read_record, summary

HEAD = json.dumps({"date": "2026-01-01 00:00 UTC", "machine": "a machine"})


def piece(minute: int, *, private_mb: float = 50.0, resident_mb: float = 80.0, **more: object) -> Piece:
    held = {
        "gateway": {"resident_mb": resident_mb, "private_mb": private_mb, "descriptors": 40, "threads": 5},
        "tiny/1": {"resident_mb": 30.0, "private_mb": 10.0, "descriptors": 8, "threads": 2},
    }
    values: dict[str, object] = {
        "ended_s": 60.0 * minute,
        "rate": 140.0,
        "statuses": {"200": 8400},
        "p50_ms": 30.0,
        "p99_ms": 55.0,
        "window_p99_ms": 60.0 if minute % 5 == 0 else None,
        "late_p99_ms": 1.0,
        "tiny_p99_ms": 3.0,
        "weight_changes": 4,
        "cpu_percent": 15.0,
        "held": held,
        "failures": (),
    }
    return Piece(**{**values, **more})  # type: ignore[arg-type]


def test_growth_is_counted_from_when_things_have_settled() -> None:
    """What a start allocates in its first minutes is no leak; what comes after is."""
    settled = [(60.0 * minute, 50.0 + 10.0 * min(minute, 5)) for minute in range(1, 61)]
    assert growth_percent(settled, settled_s=300) == 0
    leaking = [(60.0 * minute, 100.0 + minute) for minute in range(1, 61)]
    assert growth_percent(leaking, settled_s=300) == pytest.approx(100 * 158 / 108 - 100, abs=0.01)


def test_a_soak_too_short_to_settle_is_an_error() -> None:
    """No figure is better than one that means nothing."""
    with pytest.raises(ValueError, match="must last longer"):
        growth_percent([(10.0, 1.0)], settled_s=300)


def test_the_summary_holds_memory_and_errors_to_what_was_asked() -> None:
    """A quiet hour meets all; an error or a leak meets nothing."""
    figures = {figure.name: figure for figure in summary([piece(minute) for minute in range(1, 61)]).figures}
    assert all(figure.meets(figure.must) is not False for figure in figures.values())
    leaking = [piece(minute, private_mb=50 + minute) for minute in range(1, 61)]
    private = next(figure for figure in summary(leaking).figures if "private" in figure.name)
    assert private.meets(private.must) is False
    broken = [
        piece(1),
        piece(2, statuses={"200": 8390, "503": 9, "broken": 1}),
        piece(3, failures=("a scrape failed",)),
    ]
    errors = next(figure for figure in summary(broken).figures if figure.name.startswith("errors"))
    assert errors.value == 11
    assert errors.meets(errors.must) is False


def test_growth_in_a_child_counts_even_if_the_gateway_is_quiet() -> None:
    """Memory is that of all processes."""
    pieces = []
    for minute in range(1, 61):
        one = piece(minute)
        one.held["tiny/1"]["private_mb"] = 10.0 + minute  # type: ignore[index]
        pieces.append(one)
    resident, private, *_ = summary(pieces).figures
    assert resident.value == 0
    assert private.meets(private.must) is False


def test_a_record_that_was_cut_off_reads_up_to_there() -> None:
    """The last line may be half written; all before it counts."""
    lines = [HEAD, *(json.dumps(asdict(piece(minute))) for minute in range(1, 12)), '{"ended_s": 720.0, "rat']
    date, machine, pieces = read_record(lines)
    assert (date, machine) == ("2026-01-01 00:00 UTC", "a machine")
    assert [each.ended_s for each in pieces] == [60.0 * minute for minute in range(1, 12)]
    outcome = summary(pieces)
    assert "11 minutes" in outcome.figures[0].work
    by_window, by_process = outcome.tables
    assert [row[0] for row in by_window.rows] == ["5", "10", "11"]
    assert [row[0] for row in by_process.rows] == ["gateway", "tiny/1"]


def test_an_empty_record_sums_up_to_nothing() -> None:
    """Rather an error than a page that claims a soak."""
    with pytest.raises(ValueError, match="without a single piece"):
        summary(read_record([HEAD])[2])
