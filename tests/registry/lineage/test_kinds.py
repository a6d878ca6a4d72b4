"""Lineage of any origin is read into its kinds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.registry import canonical
from gateway.registry.lineage.kinds import data_digests, read_kinds
from tests.registry.test_canonical import values

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["code", "data", "parameters", "environment", "features", "run"]), values))
def test_whatever_stands_in_a_manifest_is_read(lineage: dict[str, Any]) -> None:
    """Other systems and people write what they like: it is kept, covered by a digest, and never fails."""
    kinds = read_kinds(lineage)
    assert set(kinds.digests) == {kind for kind in kinds.digests if lineage.get(kind)}
    assert isinstance(data_digests(lineage), frozenset)


def test_each_of_the_five_kinds_has_a_digest() -> None:
    """Of the canonical JSON that stands there: the order of keys changes nothing, a value changes it."""
    lineage = {
        "code": {"commit": "1" * 40},
        "data": [{"name": "train", "digest": A}],
        "parameters": {"values": {"depth": 3, "rate": 0.1}, "seeds": {"numpy": 7}},
        "environment": {"python": "3.11"},
    }
    kinds = read_kinds(lineage, [{"metric": "accuracy", "value": 0.9}])
    assert set(kinds.digests) == {"code", "data", "parameters", "environment", "metrics"}
    assert kinds.digests["parameters"] == canonical.digest_of(canonical.dumps(lineage["parameters"]))
    turned = {"seeds": {"numpy": 7}, "values": {"rate": 0.1, "depth": 3}}
    assert read_kinds({"parameters": turned}).digests["parameters"] == kinds.digests["parameters"]


@pytest.mark.parametrize(
    ("place", "digests"),
    [
        ([{"name": "train", "digest": A}, {"name": "test", "digest": B}], {A, B}),
        ({"name": "train", "sha256": "a" * 64, "train_rows": 10}, {A}),
        ({"inputs": [{"name": "train", "digest": "a" * 64}]}, {A}),
        ({"train": {"digest": "5" * 32, "algorithm": "md5"}, "test": B}, {"md5:" + "5" * 32, B}),
        ([{"name": "train", "digest": A, "dvc": {"file": "t.dvc", "md5": "5" * 32}}], {A, "md5:" + "5" * 32}),
        ([{"name": "train", "digest": "odd", "digest_algorithm": "etag"}], {"etag:odd"}),
        ("a table", set()),
        (None, set()),
    ],
)
def test_data_is_found_by_every_digest_that_it_is_known_by(place: Any, digests: set[str]) -> None:
    """Our recorder's list, one input, inputs by name, MLflow's and DVC's digests."""
    assert data_digests({"data": place}) == digests


def test_what_people_write_is_read_too() -> None:
    """Short forms: versions beside Python's own, a seed among parameters, a run by its id, steps as a list."""
    kinds = read_kinds(
        {
            "environment": {"python": "3.11", "numpy": "2.1.0", "os": "Linux"},
            "parameters": {"C": 1.0, "seed": 3},
            "run": "4f2a",
            "features": ["scale", {"name": "pca"}],
        }
    )
    assert kinds.environment.packages == {"numpy": "2.1.0"}
    assert (kinds.parameters.values["C"], kinds.parameters.seeds) == (1.0, {"seed": 3})
    assert kinds.run.id == "4f2a"
    assert [step["name"] for step in kinds.features.steps] == ["scale", "pca"]
