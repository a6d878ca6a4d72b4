"""A unit, or growth: a column that comes multiplied, over distributions, factors, directions and seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from gateway.telemetry.drift.blame import DATA_PIPELINE, WORLD, Blame, blame_of
from gateway.telemetry.drift.evidence import Reference
from tests.telemetry.drift.scene import counted, reference_of

Values = np.ndarray
Change = Callable[[Values, np.random.Generator], Values]

KNOWN, SEEDS = 8_000, range(6)

COLUMNS: dict[str, Callable[[np.random.Generator, int], Values]] = {
    "incomes": lambda rng, rows: np.exp(rng.normal(1.2, 0.45, rows)),
    "ages": lambda rng, rows: rng.integers(1, 52, rows).astype(float),
    "lengths": lambda rng, rows: rng.normal(5.0, 1.0, rows),
    "shares": lambda rng, rows: rng.uniform(0.0, 1.0, rows),
    "waits": lambda rng, rows: rng.exponential(1.0, rows),
}
TEMPERATURES = "temperatures"


@cache
def reference(column: str) -> Reference:
    return reference_of({"x": drawn(column, np.random.default_rng(77), KNOWN)[:, None]})


def drawn(column: str, rng: np.random.Generator, rows: int) -> Values:
    if column == TEMPERATURES:
        return rng.normal(15.0, 8.0, rows)
    return COLUMNS[column](rng, rows)


def blamed(column: str, change: Change, rows: int, seed: int) -> Blame:
    known, rng = reference(column), np.random.default_rng(seed)
    values = change(drawn(column, rng, rows), rng)
    return blame_of(known, counted(known.plan, {"x": values[:, None]}), known.names[0])


def blames(column: str, change: Change, rows: int) -> Counter[str]:
    return Counter(blamed(column, change, rows, seed).blame for seed in SEEDS)


def times(factor: float) -> Change:
    return lambda values, _: values * factor


@pytest.mark.parametrize("factor", [12.0, 60.0, 100.0, 1000.0])
@pytest.mark.parametrize("column", COLUMNS)
def test_a_factor_that_no_growth_has_is_another_unit_in_both_directions(column: str, factor: float) -> None:
    """In 300 rows, over all seeds."""
    for way in (factor, 1.0 / factor):
        assert blames(column, times(way), 300) == {DATA_PIPELINE: len(SEEDS)}


@pytest.mark.parametrize("factor", [2.204623, 2.54, 3.28084, 3.6])
@pytest.mark.parametrize("column", ["incomes", "lengths", "ages"])
def test_a_factor_that_units_have_is_another_unit_once_rows_tell_it_from_others(column: str, factor: float) -> None:
    """Below five, in ten thousand rows, both ways; the units are named."""
    for way in (factor, 1.0 / factor):
        found = Counter(blamed(column, times(way), 10_000, seed).blame for seed in SEEDS)
        assert found[DATA_PIPELINE] >= len(SEEDS) - 1, (way, found)
    causes = [blamed(column, times(factor), 10_000, seed).cause for seed in SEEDS]
    assert sum("another unit" in cause for cause in causes) >= len(SEEDS) - 1


@pytest.mark.parametrize("column", ["incomes", "waits", "shares"])
def test_few_rows_do_not_tell_a_known_factor_from_growth(column: str) -> None:
    """A blame never becomes less precise, so none is given too early."""
    assert blames(column, times(2.54), 200) == {WORLD: len(SEEDS)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda values, _: values * 1.8 + 32.0, "Fahrenheit"),
        (lambda values, _: (values - 32.0) / 1.8, "Fahrenheit"),
        (lambda values, _: values + 273.15, "Kelvin"),
        (lambda values, _: values - 273.15, "Kelvin"),
    ],
)
def test_a_scale_with_another_zero_is_another_unit(change: Change, words: str) -> None:
    """Temperatures, in 2,000 rows."""
    for seed in SEEDS:
        found = blamed(TEMPERATURES, change, 2_000, seed)
        assert (found.blame, words in found.cause) == (DATA_PIPELINE, True), found


@pytest.mark.parametrize("rows", [300, 10_000])
@pytest.mark.parametrize("factor", [1.5, 2.0, 3.0, 4.0])
@pytest.mark.parametrize("column", COLUMNS)
def test_growth_by_a_factor_that_no_unit_has_is_the_worlds_doing(column: str, factor: float, rows: int) -> None:
    """All rows alike, up and down, with few rows and with many."""
    for way in (factor, 1.0 / factor):
        assert blames(column, times(way), rows) == {WORLD: len(SEEDS)}


def unevenly(factor: float) -> Change:
    return lambda values, rng: values * factor * np.exp(rng.normal(-0.08, 0.4, len(values)))


def some(factor: float) -> Change:
    return lambda values, rng: np.where(rng.random(len(values)) < 0.5, values, values * factor)


def added(factor: float) -> Change:
    return lambda values, _: values + (factor - 1.0) * values.mean()


@pytest.mark.parametrize("rows", [300, 10_000])
@pytest.mark.parametrize("factor", [1.6, 2.54, 3.6])
@pytest.mark.parametrize("growth", [unevenly, some, added])
def test_growth_that_changes_the_shape_is_the_worlds_doing_whatever_its_factor(
    growth: Callable[[float], Change], factor: float, rows: int
) -> None:
    """The mean is as many times larger as a unit would make it: rows by factors of their own, half of the rows, or all
    by the same amount."""
    for column in ("incomes", "ages", "shares"):
        assert blames(column, growth(factor), rows) == {WORLD: len(SEEDS)}, column


def test_what_is_far_beyond_any_growth_is_the_pipelines_fault() -> None:
    """A quantity that hardly varies, half as large again; and one without a natural zero, three times as large."""
    rng = np.random.default_rng(5)
    pressure = reference_of({"x": rng.normal(1013.0, 10.0, (KNOWN, 1))})
    rows = rng.normal(1013.0, 10.0, (400, 1)) + 500.0
    assert blame_of(pressure, counted(pressure.plan, {"x": rows}), pressure.names[0]).blame == DATA_PIPELINE
    assert blames(TEMPERATURES, times(3.0), 400) == {DATA_PIPELINE: len(SEEDS)}


def test_a_column_that_stands_still_is_told_from_one_that_is_scaled_away() -> None:
    still = blamed("incomes", lambda values, _: np.full_like(values, 3.0), 300, 1)
    nothing = blamed("incomes", lambda values, _: values / 5_000.0, 300, 1)
    assert "the same" in still.cause
    assert "scaled away" in nothing.cause
    assert still.blame == nothing.blame == DATA_PIPELINE
