"""Counts are integers that add up: in any order, in any partition, whatever the rows hold."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runtimes.base import Array
from runtimes.counting import COSINE_UNITS, FEATURE_MOST, FEATURE_SIGMA, PHASE_BITS, Plan, decoded, encoded
from runtimes.counting_profile import Profile, Reckoning
from runtimes.counting_rows import Counter, flattened
from runtimes.counting_sketch import Sketch
from runtimes.signature import Signature, TensorSpec
from tests.runtimes.counted import profile_body, profile_of, rows_of, signature_of

ANY_FLOAT = hnp.arrays(
    np.float32, st.tuples(st.integers(0, 70), st.just(3)), elements=st.floats(width=32, allow_subnormal=True)
)
REFERENCE = rows_of(600, 3)
SCORES = np.abs(rows_of(600, 3, seed=1))
PROFILE = profile_of({"x": REFERENCE}, {"p": SCORES})


def counted(plan: Plan, parts: list[tuple[Array, Array]]) -> Array:
    counter = Counter(plan)
    for inputs, outputs in parts:
        assert counter.add({"x": inputs}, {"p": outputs}, len(inputs))
    rows, vector = counter.take()
    plan.check(vector, rows)
    return vector


@settings(max_examples=60, deadline=None)
@given(rows=ANY_FLOAT, cuts=st.lists(st.integers(0, 70), max_size=6), seed=st.integers(0, 9))
def test_any_order_and_any_partition_give_the_same_integers(rows: Array, cuts: list[int], seed: int) -> None:
    """NaN, infinities, -0.0, subnormals and no rows at all among them: bit for bit."""
    whole = counted(PROFILE.plan, [(rows, rows)])
    edges = [0, *sorted(cut for cut in cuts if cut <= len(rows)), len(rows)]
    order = np.random.default_rng(seed).permutation(len(rows))
    parts = [(rows[order[a:b]], rows[order[a:b]]) for a, b in itertools.pairwise(edges)]
    assert np.array_equal(counted(PROFILE.plan, parts), whole)


@pytest.mark.parametrize("replicas", [1, 4, 16])
def test_replicas_add_up_bit_for_bit(replicas: int) -> None:
    """Rows dealt out to 1, 4 and 16 counters, in small batches, sum to one counter's vector."""
    live = rows_of(3000, 3, seed=4)
    live[::11, 1] = np.nan
    whole = counted(PROFILE.plan, [(live, live)])
    dealt = [live[place::replicas] for place in range(replicas)]
    vectors = [
        counted(PROFILE.plan, [(own[at : at + 17], own[at : at + 17]) for at in range(0, len(own), 17)])
        for own in dealt
    ]
    assert np.array_equal(np.sum(vectors, axis=0), whole)


def test_bins_are_the_quantiles_of_the_reference() -> None:
    """Ten bins of equal share; what is missing, beyond and how large is counted besides."""
    plan, vector = PROFILE.plan, PROFILE.reference
    feature = plan.features[0]
    assert (feature.name, feature.kind, feature.bins) == ("x[0]", "numeric", 10)
    assert set(vector[feature.counts]) == {60}
    assert (vector[feature.missing], vector[feature.low], vector[feature.high]) == (0, 0, 0)
    rows = np.array([[np.nan, 0, 0], [1e30, 0, 0], [-np.inf, 0, 0], [-0.0, 0, 0]], np.float32)
    live = counted(plan, [(rows, rows)])
    assert (live[feature.missing], live[feature.low], live[feature.high]) == (1, 1, 1)
    assert (live[feature.at], live[feature.at + feature.bins - 1]) == (1, 1)
    assert live[feature.square] >= 2 * FEATURE_MOST**2


def test_moments_come_back_out_of_fixed_point() -> None:
    """Mean and standard deviation to a thousandth of a standard deviation."""
    feature, live = PROFILE.plan.features[1], rows_of(20_000, 3, seed=7) * 2 + 1
    vector = counted(PROFILE.plan, [(live, live)])
    n = vector[0]
    mean = vector[feature.total] / n
    deviation = np.sqrt(vector[feature.square] / n - mean**2)
    assert feature.center + mean / feature.scale == pytest.approx(live[:, 1].mean(), abs=2e-3)
    assert deviation / feature.scale == pytest.approx(live[:, 1].std(), rel=2e-3)
    assert feature.scale == pytest.approx(FEATURE_SIGMA / REFERENCE[:, 1].std(), rel=1e-6)


def test_the_mean_embedding_is_that_of_the_frequencies() -> None:
    """The table's cosines agree with the ones that they stand for to one part in a thousand."""
    block = next(block for block in PROFILE.plan.blocks if block.side == "input")
    live = rows_of(300, 3, seed=8)
    vector = counted(PROFILE.plan, [(live, live)])
    z = np.rint((live.astype(np.float64) - block.center) * block.scale)
    angles = 2 * np.pi * (z @ block.frequencies) / 2**PHASE_BITS
    assert vector[block.cos] / 300 / COSINE_UNITS == pytest.approx(np.cos(angles).mean(axis=0), abs=2e-3)
    assert vector[block.sin] / 300 / COSINE_UNITS == pytest.approx(np.sin(angles).mean(axis=0), abs=2e-3)
    assert np.array_equal(vector[block.outer], (z.T @ z)[np.triu_indices(3)].astype(np.int64))


KINDS = {
    "constant": (np.full((400, 1), 5.0), "categories", 2),
    "two values": (np.tile([[0.0], [1.0]], (200, 1)), "categories", 3),
    "ties": (np.repeat([[0.0], *[[v] for v in range(1, 21)]], [200, *[10] * 20], axis=0), "numeric", 6),
    "few whole numbers": (np.arange(400).reshape(-1, 1) % 20, "categories", 21),
    "many whole numbers": (np.arange(400).reshape(-1, 1), "numeric", 10),
    "flags": (np.arange(400).reshape(-1, 1) % 2 == 0, "categories", 3),
    "nothing but missing": (np.full((400, 1), np.nan), "categories", 1),
    "huge": (np.array([[2**62], [-(2**62)]] * 200), "categories", 3),
    "beyond moments": (np.linspace(-1.0, 1.0, 400).reshape(-1, 1) * 1e308, "numeric", 10),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_column_finds_bins_that_fit_it(name: str) -> None:
    """Ties, constants and few values become categories or fewer bins, of which none is empty by construction."""
    rows, kind, bins = KINDS[name]
    profile = profile_of({"x": rows})
    feature = profile.plan.features[0]
    assert (feature.kind, feature.bins) == (kind, bins)
    filled = profile.reference[feature.counts]
    assert (filled[: bins if kind == "numeric" else bins - 1] > 0).all()
    assert profile.reference[feature.unseen] == 0
    profile.plan.check(profile.reference, profile.rows)


def test_a_category_never_seen_is_told_from_a_rare_one() -> None:
    """Texts with no bin of their own are remembered by hash; bytes that are no UTF-8 are texts like others."""
    names = [f"city {place}".encode() for place in range(31)] + [b"\xff\xfe"]
    values = np.array([*(names * 10), *[f"village {place}".encode() for place in range(50)], b""], dtype=object)
    profile = profile_of({"city": values.reshape(-1, 1)})
    feature = profile.plan.features[0]
    assert (feature.kind, feature.bins, len(feature.labels)) == ("text", 33, 33)
    assert profile.reference[feature.missing - 1] == 50
    counter = Counter(profile.plan)
    live = np.array([b"\xff\xfe", b"village 7", b"atlantis", b""], dtype=object).reshape(-1, 1)
    counter.add({"city": live}, {}, 4)
    _, vector = counter.take()
    assert (vector[feature.missing - 1], vector[feature.unseen], vector[feature.missing]) == (2, 1, 1)
    assert vector[feature.at + feature.values.index(b"\xff\xfe")] == 1


def test_outputs_give_score_histograms_and_class_rates() -> None:
    """Each score, the largest of a row, and which class that is."""
    by_name = {feature.name: feature for feature in PROFILE.plan.features}
    rates = PROFILE.reference[by_name["p.argmax"].counts]
    assert rates[:3].tolist() == np.bincount(SCORES.argmax(axis=1)).tolist()
    assert by_name["p.max"].kind == by_name["p[2]"].kind == "numeric"


def test_the_same_data_gives_the_same_profile_and_a_plan_survives_json() -> None:
    """Byte for byte, also of a sample; and what is read counts as what was written."""
    bodies = [json.dumps(profile_body({"x": REFERENCE}, {"p": SCORES}), sort_keys=True) for _ in "ab"]
    assert bodies[0] == bodies[1]
    again = Profile.from_json(json.loads(bodies[0]))
    assert np.array_equal(counted(again.plan, [(REFERENCE, SCORES)]), PROFILE.reference)
    assert sum(rows for rows, _ in PROFILE.segments) == PROFILE.rows
    assert np.array_equal(sum(vector for _, vector in PROFILE.segments), PROFILE.reference)
    assert np.array_equal(decoded(encoded(PROFILE.reference)), PROFILE.reference)


def test_what_does_not_fit_a_sample_is_sampled_and_said_so() -> None:
    """Bins of a reservoir are near the true quantiles; extremes are of all rows; the same seed gives the same bins."""
    rows = rows_of(20_000, 1, seed=3)
    rows[19_000] = 99.0
    bodies = []
    for _ in "ab":
        sketch = Sketch(signature_of({"x": rows}, {}), sample_bytes=8 * 2000)
        for begin in range(0, 20_000, 1500):
            sketch.add(flattened({"x": rows[begin : begin + 1500]}, {}))
        bodies.append(sketch.frozen())
    assert bodies[0] == bodies[1]
    feature = bodies[0]["features"][0]
    assert (bodies[0]["rows"], bodies[0]["sampled_rows"], feature["highest"]) == (20_000, 2000, 99.0)
    assert feature["edges"] == pytest.approx(np.quantile(rows, np.arange(1, 10) / 10), abs=0.12)


def test_a_row_of_150_000_is_a_projection_of_a_few_of_its_elements() -> None:
    """No feature of its own, a small vector, and the same counts of the picked columns alone."""
    rows = rows_of(60, 150_000)
    profile = profile_of({"x": rows})
    assert profile.plan.features == ()
    assert profile.plan.size < 1000
    (picked,) = Counter(profile.plan).picks.values()
    counter = Counter(profile.plan)
    assert counter.add({"x": rows[:, picked]}, {}, 60)
    assert np.array_equal(counter.take()[1], profile.reference)


def test_a_shift_shows_in_the_projection_of_a_wide_row() -> None:
    """By half a standard deviation everywhere: many of its means move far beyond their error."""
    profile = profile_of({"x": rows_of(400, 2000)})
    block = profile.plan.blocks[0]
    counter = Counter(profile.plan)
    counter.add({"x": rows_of(400, 2000, seed=5) + 0.5}, {}, 400)
    _, live = counter.take()
    variance = profile.reference[block.outer][[0]] / 400
    moved = (live[block.total] - profile.reference[block.total]) / 400
    assert (np.abs(moved) > 4 * np.sqrt(variance / 200)).mean() > 0.3


@pytest.mark.parametrize("datatype", ["BOOL", "UINT8", "INT64", "UINT64", "FP16", "BF16", "FP64"])
def test_every_datatype_is_counted(datatype: str) -> None:
    """Also the largest numbers that one holds."""
    kinds: dict[str, Any] = {"BOOL": np.bool_, "UINT8": np.uint8, "INT64": np.int64, "UINT64": np.uint64}
    kinds |= {"FP16": np.float16, "BF16": np.float32, "FP64": np.float64}
    numbers = np.arange(200).reshape(100, 2).astype(kinds[datatype])
    signature = Signature((TensorSpec("x", datatype, ("batch", 2)),), ())
    sketch = Sketch(signature)
    sketch.add(flattened({"x": numbers}, {}))
    reckoning = Reckoning(sketch.frozen(), 100)
    assert reckoning.add(flattened({"x": numbers}, {}))
    profile = Profile.from_json(reckoning.finished())
    profile.plan.check(profile.reference, 100)
    if numbers.dtype.kind in "iu":
        extreme = np.full((1, 2), np.iinfo(numbers.dtype).max, numbers.dtype)
        counter = Counter(profile.plan)
        counter.add({"x": extreme}, {}, 1)
        profile.plan.check(counter.take()[1], 1)


def test_rows_that_differ_in_size_are_left_out_and_named() -> None:
    """A tensor without a fixed width has no columns to count; the others are counted all the same."""
    signature = Signature((TensorSpec("a", "FP32", ("batch", "n")), TensorSpec("b", "FP32", ("batch", 1))), ())
    sketch = Sketch(signature)
    for width in (3, 5):
        sketch.add(flattened({"a": rows_of(50, width), "b": rows_of(50, 1)}, {}))
    body = sketch.frozen()
    assert body["skipped"] == {"a": "its rows differ in size"}
    assert [feature["name"] for feature in body["features"]] == ["b"]


def test_batches_that_do_not_fit_the_plan_are_refused_whole() -> None:
    """A narrower row, a missing tensor, unequal lengths: nothing is counted of them."""
    counter = Counter(PROFILE.plan)
    assert not counter.add({"x": REFERENCE[:5, :2]}, {"p": SCORES[:5]}, 5)
    assert not counter.add({"x": REFERENCE[:5]}, {}, 5)
    assert not counter.add({"x": REFERENCE[:5]}, {"p": SCORES[:4]}, 5)
    assert counter.add({"x": REFERENCE[:0]}, {"p": SCORES[:0]}, 0)
    assert counter.take() == (0, pytest.approx(np.zeros(PROFILE.plan.size)))


BROKEN = [
    {},
    {"schema": "turnout-profile/9"},
    profile_body({"x": REFERENCE}) | {"features": [{"name": "x"}]},
    profile_body({"x": REFERENCE}) | {"segments": [{"rows": 1, "counts": encoded(np.zeros(3))}]},
    profile_body({"x": REFERENCE}) | {"spreads": []},
]


@pytest.mark.parametrize("body", BROKEN)
def test_what_is_no_profile_is_refused(body: dict[str, Any]) -> None:
    """In words, and with nothing else than a ValueError."""
    with pytest.raises(ValueError, match="profile"):
        Profile.from_json(body)
