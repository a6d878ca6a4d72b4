"""Searches over versions: each term, by itself and together, and what is no term."""

from __future__ import annotations

import pytest

from gateway.errors import InvalidInput
from gateway.registry.catalogue import CatalogueEntry
from gateway.registry.facts import VersionFacts
from gateway.registry.search import read_query

DIGEST = "sha256:" + "0" * 64
ENTRY = CatalogueEntry(3, DIGEST, 1_700_000_000.0, {"team": "fraud", "stage": "b"})
FACTS = VersionFacts(
    format="onnx",
    metrics=(("accuracy", 0.95, None), ("accuracy", 0.8, "young"), ("log loss", 0.3, None)),
    data=("md5:00ff", "sha256:1f2e3d" + "0" * 58),
    commit="abcdef0123456789abcdef0123456789abcdef01",
    author="Olga <olga@example.org>",
    source="mlflow:fraud",
)


def found(**terms: str | list[str]) -> bool:
    query = read_query({name: texts if isinstance(texts, list) else [texts] for name, texts in terms.items()})
    return query.takes_model("fraud-eu") and query.takes(ENTRY, ("champion",)) and query.holds(FACTS)


@pytest.mark.parametrize(
    ("term", "holds", "fails"),
    [
        ("name", ["fraud", "eu", "fraud-*", "*", "fraud-e[tu]"], ["FRAUD", "fraud*x", "us"]),
        ("tag", ["team", "team=fraud"], ["team=", "owner", "team=frau"]),
        ("alias", ["champion", "@champion"], ["challenger"]),
        (
            "metric",
            ["accuracy>=0.95", "accuracy = 0.95", "accuracy[young]<0.9", "log loss<=0.3", "accuracy<1e0"],
            ["accuracy>0.95", "accuracy[young]>=0.9", "accuracy[old]>0", "auc>0"],
        ),
        ("data", ["sha256:1f2e", "md5:00ff"], ["sha256:2f2e", "md5:00fe"]),
        ("commit", ["abcd", "ABCDEF0123"], ["abce"]),
        ("format", ["onnx"], ["torch"]),
        ("author", ["olga@", "Olga"], ["Otto"]),
        ("source", ["mlflow", "mlflow:fraud"], ["dvc", "mlflow:churn"]),
        ("archived", ["no", "any", "False"], ["yes"]),
        ("registered_after", ["1700000000", "2023-11-14", "2023-11-14T22:13:20+00:00"], ["1700000001", "2024-01-01"]),
        ("registered_before", ["1700000001", "2024-01-01"], ["1700000000", "2023-11-14"]),
    ],
)
def test_a_term_takes_what_it_says_and_nothing_else(term: str, holds: list[str], fails: list[str]) -> None:
    """Each by itself."""
    assert [found(**{term: text}) for text in holds] == [True] * len(holds)
    assert [found(**{term: text}) for text in fails] == [False] * len(fails)


def test_all_terms_must_hold() -> None:
    """Also those that stand several times."""
    assert found(metric=["accuracy>0.9", "accuracy[young]>0.7"], tag=["team=fraud", "stage"], format="onnx")
    assert not found(metric=["accuracy>0.9", "accuracy[young]>0.9"])
    assert not found(tag=["team=fraud", "stage=a"])
    assert not found(name="fraud", format="torch")


@pytest.mark.parametrize(
    ("term", "text"),
    [
        ("metric", "accuracy"),
        ("metric", "accuracy>=high"),
        ("metric", ">=0.9"),
        ("data", "1f2e3d"),
        ("data", "sha256:xyz"),
        ("commit", "zzz"),
        ("archived", "perhaps"),
        ("registered_after", "yesterday"),
        ("tag", "=x"),
        ("colour", "blue"),
    ],
)
def test_what_is_no_term_is_refused_by_its_name(term: str, text: str) -> None:
    """With what was expected."""
    with pytest.raises(InvalidInput, match=f"^{term}: expected .*, got ") as caught:
        read_query({term: [text]})
    assert caught.value.problems[0].field == term


def test_a_metric_without_its_figure_is_answered_with_what_is_missing() -> None:
    """A shell that reads ``>`` leaves the bare name; a figure that is none is said as before."""
    with pytest.raises(InvalidInput, match=r"got 'accuracy' alone \(a shell takes > and < for itself"):
        read_query({"metric": ["accuracy"]})
    with pytest.raises(InvalidInput, match=r"a number behind >=, got 'high'$"):
        read_query({"metric": ["accuracy>=high"]})


@pytest.mark.parametrize(
    "text", [" " * 30_000 + "a", "a" * 30_000, "a[" + "b" * 30_000, "a" + " " * 30_000 + "=", "[" * 30_000]
)
def test_a_term_that_is_made_to_take_long_is_refused_like_any_other(text: str) -> None:
    """Anybody who may look may search: a kilobyte of blanks took the gateway minutes."""
    with pytest.raises(InvalidInput, match="metric: expected"):
        read_query({"metric": [text]})


def test_a_term_that_stands_once_is_not_taken_twice() -> None:
    """Which of the two was meant nobody knows."""
    with pytest.raises(InvalidInput, match="alias: expected one value, got 2"):
        read_query({"alias": ["a", "b"]})


def test_facts_come_back_from_their_line_as_they_were() -> None:
    """What is kept is what was found."""
    assert VersionFacts.from_json(FACTS.to_json()) == FACTS
