"""Distributions: a burst of observations counts as each of them would."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.series import SECONDS, Distribution

values = st.floats(0, 20) | st.sampled_from(SECONDS.upper)


@given(st.lists(st.lists(values, max_size=30), max_size=4))
def test_a_burst_counts_as_each_of_its_values_would(bursts: list[list[float]]) -> None:
    """Also values that lie on a bound, past the last one, and no values at all."""
    singly, together = Distribution(SECONDS), Distribution(SECONDS)
    for burst in bursts:
        together.observe_all(burst)
        for value in burst:
            singly.observe(value)
    one, other = singly.exposed(), together.exposed()
    assert one[0] == other[0]
    assert math.isclose(one[1], other[1], abs_tol=1e-9)
