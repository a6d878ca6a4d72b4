"""The benchmarks of evidence: their streams are what they say, and a case of each is run."""

from __future__ import annotations

import numpy as np
import pytest

from loadtests.evidence_streams import SCENARIOS, WEIGHT, detection
from loadtests.scenarios.evidence import ALPHA, CASES, first_detection


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_a_fresh_key_is_the_first_of_its_epoch_and_arms_do_not_matter(name: str) -> None:
    """Each key is fresh once, and the outcome depends on key, time and chance alone."""
    stream = SCENARIOS[name](np.random.default_rng(1), 5_000, 0.1)
    assert (stream.fresh <= stream.first).all()
    assert 0 < stream.candidate[stream.epoch == 0].mean() < 4 * WEIGHT
    assert (np.diff(stream.epoch) >= 0).all()


def test_great_harm_is_found_near_the_bound() -> None:
    """500 runs from 1% to 20%: the median is at most 1.3 times what a test needs that knew both rates. The full table
    is printed by ``make bench``."""
    baseline, candidate, bound = CASES[0]
    found = [
        first_detection(detection(np.random.default_rng((6, run)), 4_000, baseline, candidate), ALPHA)
        for run in range(500)
    ]
    assert None not in found
    assert np.median(np.array(found)) <= 1.3 * bound
