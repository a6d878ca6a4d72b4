"""The statistics of drift against other people's, and against what they are said to be without drift."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from gateway.telemetry.drift.arms import Arms
from gateway.telemetry.drift.calibration import calibrate
from gateway.telemetry.drift.distributions import chi_square_tail, effect_bounds, log_gamma, normal_quantile
from gateway.telemetry.drift.sizes import feature_sizes
from gateway.telemetry.drift.wholes import whole_sizes
from tests.telemetry.drift.scene import counted, reference_of

RNG_SEED = 11


def normal_rows(rng: np.random.Generator, rows: int, features: int = 1) -> np.ndarray:
    return rng.standard_normal((rows, features))


def test_functions_are_those_of_scipy() -> None:
    """Gamma, the tail of chi-square, quantiles, and the interval's coverage, to what they are used for."""
    values = np.array([1e-3, 0.5, 1.0, 2.5, 7.99, 8.0, 100.0, 1e6, 1e8])
    assert np.allclose(log_gamma(values), special.gammaln(values), rtol=1e-11, atol=1e-11)
    for value, degrees in ((0.0, 3), (3.0, 1), (20.0, 9), (100.0, 10), (900.0, 300), (1e5, 20)):
        assert chi_square_tail(value, degrees) == pytest.approx(stats.chi2.sf(value, degrees), rel=1e-9)
    assert normal_quantile(0.975) == pytest.approx(1.959964, abs=1e-5)
    squares, degrees, rows = np.array([0.04, 0.3, 2.0]), np.array([10.0, 10.0, 12.0]), np.array([900.0, 100.0, 1000.0])
    low, high = effect_bounds(squares, degrees, rows)
    for place in range(3):
        seen, n = rows[place] * squares[place], rows[place]
        assert stats.ncx2.cdf(seen, degrees[place], n * low[place] ** 2) == pytest.approx(0.975, abs=2e-3)
        assert stats.ncx2.cdf(seen, degrees[place], n * high[place] ** 2) == pytest.approx(0.025, abs=2e-3)


def test_without_drift_psi_is_its_expectation_and_goes_over_a_tenth_on_four_of_ten_small_windows() -> None:
    """So a fixed limit alarms by the number of rows: 0.1 at 100 rows; beside it stands what it is without drift."""
    rng = np.random.default_rng(RNG_SEED)
    reference = reference_of({"x": normal_rows(rng, 20_000)})
    found = []
    for _ in range(400):
        size = feature_sizes(reference, counted(reference.plan, {"x": normal_rows(rng, 100)}))[0]
        found.append((size.psi, size.psi_expected, size.p_value))
    psi, expected, p_values = np.array(found).T
    assert 0.8 < psi.mean() / expected.mean() < 1.25
    assert 0.25 < (psi > 0.1).mean() < 0.55
    assert 0.02 < (p_values < 0.05).mean() < 0.12, "the G-test's level, some above it with 100 rows in 12 cells"


@pytest.mark.parametrize(("shift", "rows"), [(0.0, 3000), (0.2, 3000), (0.5, 1000), (1.5, 500)])
def test_an_effect_is_the_shift_in_standard_deviations(shift: float, rows: int) -> None:
    """So are Wasserstein's distance and the shift of the mean; the interval holds the truth in nineteen of twenty."""
    rng = np.random.default_rng((RNG_SEED, rows))
    reference = reference_of({"x": normal_rows(rng, 20_000)})
    sizes = [
        feature_sizes(reference, counted(reference.plan, {"x": normal_rows(rng, rows) + shift}))[0] for _ in range(60)
    ]
    assert np.median([size.effect.value for size in sizes]) == pytest.approx(shift, abs=0.03 + 0.15 * shift)
    assert np.median([size.shift or 0.0 for size in sizes]) == pytest.approx(shift, abs=0.02)
    assert np.median([size.wasserstein or 0.0 for size in sizes]) == pytest.approx(shift, abs=0.07 + 0.1 * shift)
    if shift < 1.0:
        holds = np.mean([size.effect.low <= 0.97 * shift + 0.01 and shift * 0.93 <= size.effect.high for size in sizes])
        assert holds >= 0.85


def test_evidence_pays_one_on_average_when_there_is_no_drift() -> None:
    """Over references and rows together: the mean of an e-value is 1 at most, and its tail falls off as promised."""
    rng = np.random.default_rng(RNG_SEED)
    found = []
    for _ in range(60):
        reference = reference_of({"x": normal_rows(rng, 400, 10)})
        windows = [counted(reference.plan, {"x": normal_rows(rng, rows, 10)}) for rows in (30, 300, 3000)]
        found.append(reference.log_e(np.array(windows))[:, :10])
    log_e = np.array(found).transpose(1, 0, 2).reshape(3, -1)
    for row in log_e:
        assert np.exp(np.minimum(row, 12.0)).mean() < 1.6
        assert (row >= math.log(20)).mean() <= 0.05
        assert (row >= math.log(200)).mean() <= 0.006


def test_columns_that_no_longer_hang_together_are_seen_in_the_whole_alone() -> None:
    """Each column is as it was; their correlation is gone: the mean embedding tells, no single feature does."""
    rng = np.random.default_rng(RNG_SEED)

    def rows(count: int, together: float) -> np.ndarray:
        covariance = np.full((4, 4), together) + (1 - together) * np.eye(4)
        return rng.multivariate_normal(np.zeros(4), covariance, count)

    reference = reference_of({"x": rows(5000, 0.9)})
    assert reference.names[-1] == "inputs"
    same = counted(reference.plan, {"x": rows(2000, 0.9)})
    apart = counted(reference.plan, {"x": rows(2000, 0.0)})
    log_e = reference.log_e(np.array([same, apart]))
    assert log_e[0].max() < 8.0
    assert log_e[1, :4].max() < 8.0
    assert log_e[1, 4] > 30.0
    (whole,) = whole_sizes(reference, apart)
    assert whole.mean_shift.low < 0.1
    assert not 0.8 < whole.covariance < 1.25
    assert whole.mmd > 5 * whole.mmd_expected


def test_two_arms_are_compared_wherever_the_world_has_moved_to() -> None:
    """The same inputs to both are no evidence, also far from the reference; a shift of one of them is."""
    rng = np.random.default_rng(RNG_SEED)
    reference = reference_of({"x": normal_rows(rng, 2000, 3)})
    arms = Arms(reference)

    def both(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        parts = [counted(reference.plan, {"x": rows}) for rows in (one, other)]
        return np.concatenate(parts)[None, :]

    moved = both(normal_rows(rng, 500, 3) + 1.0, normal_rows(rng, 3000, 3) + 1.0)
    assert arms.log_e(moved).max() < 3.0
    apart = both(normal_rows(rng, 500, 3) + np.array([0.0, 0.6, 0.0]), normal_rows(rng, 3000, 3))
    found = arms.log_e(apart)[0]
    assert found[1] > 13.0
    assert max(found[0], found[2]) < 3.0
    assert arms.effects(apart, np.zeros(3, np.intp))[1].low > 0.3


@pytest.mark.parametrize("rows", [150, 6000])
def test_calibration_finds_the_promise_kept_on_the_reference(rows: int) -> None:
    """Simulated on a small reference and a large one: fewer alarms than promised, the same for the same seed."""
    rng = np.random.default_rng(RNG_SEED)
    reference = reference_of({"x": normal_rows(rng, rows, 5)})
    found = calibrate(reference, looks=120)
    assert found == calibrate(reference, looks=120)
    assert found.alarms <= found.promised
    assert found.correction == 0.0
    assert found.ratio < 1.0


@pytest.mark.parametrize("rows", [200, 1000])
def test_columns_of_few_values_pay_nothing_however_many_rows_come(rows: int) -> None:
    """Constant, binary, counts and rare ones, beside a small reference: what the reference has none of, and live rows
    have none of either, is no evidence. It was 12 nats for a column that never changes."""
    worst = []
    for seed in range(8):
        rng = np.random.default_rng((11, rows, seed))

        def drawn(count: int, rng: np.random.Generator = rng) -> np.ndarray:
            flags = [rng.random(count) < share for share in (0.002, 0.01, 0.1, 0.5)]
            return np.column_stack([np.full(count, 3.0), *flags, rng.poisson(0.05, count), rng.poisson(5, count)])

        reference = reference_of({"x": drawn(rows).astype(float)})
        counts = counted(reference.plan, {"x": drawn(20_000).astype(float)})
        worst.append(reference.log_e_of_cells(reference.cells.count(counts[None]))[0])
    assert np.exp(np.array(worst)).mean() <= 1.0
    assert np.max(worst) < 6.0  # in 56 columns, each at most one in 400


@pytest.mark.parametrize("values", ["names", "words", "ages"])
def test_values_that_are_mostly_new_are_as_new_as_the_reference_says(values: str) -> None:
    """A column of names, of words with a long tail, and of ages beside 25 rows have new values every day: as many as
    the reference had once is what may be expected. Far more of them is drift all the same."""
    rng = np.random.default_rng(5)
    draw = {
        "names": lambda count: _texts(rng.integers(0, 1_000_000, count)),
        "words": lambda count: _texts(rng.zipf(1.5, count)),
        "ages": lambda count: rng.integers(18, 80, (count, 1)),
    }[values]
    reference = reference_of({"c": draw(25 if values == "ages" else 1000)})
    counts = counted(reference.plan, {"c": draw(5_000)})
    assert reference.log_e(counts[None])[0].max() < 4.0
    strange = counted(reference.plan, {"c": draw(5_000) if values == "names" else draw(5_000) + _strange(values)})
    if values != "names":  # all of whose values are new
        assert reference.log_e(strange[None])[0].max() > 15.0


def _texts(numbers: np.ndarray) -> np.ndarray:
    return np.array([str(number).encode() for number in numbers], object)[:, None]


def _strange(values: str) -> object:
    return b"?" if values == "words" else 1000
