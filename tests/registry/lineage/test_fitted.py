"""Feature steps are named by what was fitted, in any process."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from gateway.errors import RegistryError
from gateway.registry.lineage.files import digest_of_file
from gateway.registry.lineage.fitted import describe, fitted_digest
from tests.registry.lineage.repositories import python

ROWS = np.random.default_rng(3).random((40, 3))

PROGRAM = """
from tests.registry.lineage.test_fitted import pipeline, words
from gateway.registry.lineage.fitted import fitted_digest
print(fitted_digest(pipeline(7)), fitted_digest(words()))
"""


def pipeline(rows: int) -> Any:
    columns = ColumnTransformer([("scale", StandardScaler(), [0, 1]), ("log", FunctionTransformer(np.log1p), [2])])
    return Pipeline([("columns", columns), ("pca", PCA(2, random_state=0))]).fit(ROWS[: 20 + rows])


def words() -> Any:
    return TfidfVectorizer(stop_words=["and"]).fit(["a stolen card and a fine one", "fine and dandy"])


def test_the_digest_of_a_fitted_pipeline_is_the_same_in_every_process(tmp_path: Path) -> None:
    """Whatever the hash seed and the addresses: only then can it be compared between machines."""
    told = {python(tmp_path, "-c", PROGRAM, environment={"PYTHONHASHSEED": seed}).stdout for seed in ("1", "2")}
    assert told == {f"{fitted_digest(pipeline(7))} {fitted_digest(words())}\n"}


def test_another_fit_is_another_digest_and_the_same_fit_the_same() -> None:
    """It is about the state, not the object."""
    assert fitted_digest(pipeline(7)) == fitted_digest(pipeline(7))
    assert fitted_digest(pipeline(7)) != fitted_digest(pipeline(8))


def test_steps_are_told_in_order_with_their_parameters() -> None:
    """Nested ones by their path."""
    told = describe(pipeline(7))
    assert [step["name"] for step in told["steps"]] == ["columns.scale", "columns.log", "pca"]
    assert told["steps"][0]["kind"] == "sklearn.preprocessing._data.StandardScaler"
    assert told["steps"][2]["parameters"]["n_components"] == 2
    assert told["digest"] == describe(pipeline(7))["digest"]


def test_two_equal_parts_are_equal_whether_they_are_one_or_two() -> None:
    """Sharing is an accident; a ring ends."""
    part = np.arange(3)
    assert fitted_digest([part, part]) == fitted_digest([np.arange(3), np.arange(3)])
    ring: list[Any] = [1]
    ring.append(ring)
    other: list[Any] = [1]
    other.append(other)
    assert fitted_digest(ring) == fitted_digest(other)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ([1, 2], (1, 2)),
        (1, 1.0),
        (True, 1),
        ({"a": 1}, {"a": 2}),
        ({1, 2}, {1, 3}),
        (np.zeros(3, np.float32), np.zeros(3)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.array(["a", None], object), np.array(["b", None], object)),
        (partial(max, 1), partial(max, 2)),
        ("ab", b"ab"),
    ],
)
def test_values_that_differ_have_digests_that_differ(one: Any, two: Any) -> None:
    """By type as well as by value."""
    assert fitted_digest(one) != fitted_digest(two)


def test_what_no_pickle_could_hold_is_refused_in_words(tmp_path: Path) -> None:
    """And what to do instead, which works."""
    with pytest.raises(RegistryError, match=r"cannot be taken apart .* Save it to a file"):
        fitted_digest({"lock": threading.Lock()})
    (tmp_path / "words.bin").write_bytes(b"fitted")
    [step] = describe([("words", tmp_path / "words.bin")])["steps"]
    assert (step["kind"], step["digest"]) == ("file", digest_of_file(tmp_path / "words.bin"))
