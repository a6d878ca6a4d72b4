"""The rates of a null that lie nearest to others: a closed form, against halving an interval."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway.control.statistics.confidence import nearest

Rate = st.floats(1e-6, 1 - 1e-6)


def likelihood(p: float, q: float) -> float:
    return float(p * np.log(q) + (1 - p) * np.log1p(-q))


def halved(p_a: float, p_b: float, ratio: float, d: float) -> float:
    """The best logarithm of a likelihood on the line a - b = d, for a unit of b to each 1/ratio of a."""
    low, high = max(0.0, -d), min(1.0, 1.0 - d)
    for _ in range(60):
        b = (low + high) / 2
        a = b + d
        rising = ratio * (p_a - a) / (a * (1 - a)) + (p_b - b) / (b * (1 - b)) > 0
        low, high = (b, high) if rising else (low, b)
    b = min(max((low + high) / 2, max(0.0, -d) + 1e-15), min(1.0, 1.0 - d) - 1e-15)
    return ratio * likelihood(p_a, b + d) + likelihood(p_b, b)


@given(Rate, Rate, st.floats(0.001, 100.0), st.sampled_from([-0.75, -0.02, -0.001, 0.0, 0.001, 0.02, 0.3, 0.75]))
def test_the_closed_form_finds_rates_as_near_as_halving_does(p_a: float, p_b: float, ratio: float, d: float) -> None:
    """To a billionth of a nat a unit, and exactly d apart."""
    arrays = (np.array([[p_a]]), np.array([[p_b]]))
    q_a, q_b = (float(q[0, 0]) for q in nearest(*arrays, ratio, 1.0, np.array([[d]])))
    assert abs(q_a - q_b - d) < 1e-12
    assert ratio * likelihood(p_a, q_a) + likelihood(p_b, q_b) > halved(p_a, p_b, ratio, d) - 1e-9 * (1 + ratio)
