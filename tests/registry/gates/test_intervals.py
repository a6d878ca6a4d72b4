"""Intervals and tests of figures: against published values, against their definitions, and by how often they hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gateway.intervals import wilson
from gateway.messages import Array
from gateway.registry.gates.intervals import bootstrap, mcnemar, newcombe, tango


def test_wilson_gives_the_published_interval() -> None:
    """Newcombe (1998), table I: 81 of 263 is [0.2553, 0.3662], 0 of 20 is [0, 0.1611]."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_newcombe_gives_the_published_interval() -> None:
    """Newcombe (1998), table II, method 10: 56/70 - 48/80 is [0.0524, 0.3339]."""
    assert newcombe((56, 70), (48, 80), 0.95) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_tango_gives_the_published_interval() -> None:
    """Tango (1998): of 44 pairs, 0 gained and 1 lost is [-0.118, 0.0602] to its printed digits."""
    low, high = tango(0, 1, 44, 0.95)
    assert (low, high) == pytest.approx((-0.1184, 0.0602), abs=2e-3)


def test_of_pairs_that_never_differ_tango_still_says_how_little_is_known() -> None:
    """Five equal answers are no proof that two versions are equal; ten thousand are nearly one."""
    few, many = tango(0, 0, 5, 0.95), tango(0, 0, 10_000, 0.95)
    assert few[0] < -0.4
    assert few[1] > 0.4
    assert -0.0005 < many[0] < 0 < many[1] < 0.0005


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test(gained: int, lost: int) -> None:
    """Of the pairs that differ, half are expected to go either way."""
    wanted = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(wanted, rel=1e-9)


def test_mcnemar_of_very_many_pairs_is_close_to_exact() -> None:
    assert mcnemar(5_100, 5_000) == pytest.approx(stats.binomtest(5_100, 10_100).pvalue, rel=1e-2)


@settings(max_examples=50)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 200))
def test_tango_turns_with_its_sides(gained: int, lost: int, rest: int) -> None:
    """Whose gain it is only changes the sign."""
    n = gained + lost + rest
    if n == 0:
        return
    low, high = tango(gained, lost, n, 0.95)
    back_low, back_high = tango(lost, gained, n, 0.95)
    assert (low, high) == pytest.approx((-back_high, -back_low), abs=1e-6)
    assert low <= (gained - lost) / n <= high


def test_the_bootstrap_of_a_mean_is_that_of_the_textbook() -> None:
    """Where the normal interval holds, the two agree."""
    values = np.random.default_rng(3).normal(10, 2, 1000)
    sums = np.stack([np.ones(1000), values], axis=1)

    def mean(total: Array) -> Array:
        return np.asarray(total[..., 1] / total[..., 0])

    half = 1.96 * values.std() / math.sqrt(1000)
    assert bootstrap(sums, mean, 0.95) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    assert bootstrap(sums, mean, 0.95) == bootstrap(sums, mean, 0.95)


def test_ninety_five_of_a_hundred_intervals_hold_the_truth() -> None:
    """Of a ratio of sums, which has no textbook interval: 200 samples, and so many hold it as should, within chance."""

    def ratio(total: Array) -> Array:
        return np.asarray(total[..., 1] / total[..., 0])

    draw, held = np.random.default_rng(5), 0
    for _ in range(200):
        x = draw.exponential(1, 300)
        y = 0.5 * x + draw.normal(0, 0.2, 300)
        low, high = bootstrap(np.stack([x, y], axis=1), ratio, 0.95)
        held += low <= 0.5 <= high
    assert 180 <= held <= 199
