"""The page of other systems' pains, held to its word: each complaint has its row, and each row a test that exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "pains.md").read_text(encoding="utf-8")

PAINS = (
    "No traffic",
    "No data counts as success",
    "Few requests, false alarm",
    "A failed analysis that stops nothing",
    "An abort that a promotion overrides",
    "A hook that holds up the rollback",
    "Stuck in promotion",
    "No way back once promoted",
    "A fast rollback that walks the weights",
    "The old version is gone when it is needed",
    "Traffic flaps at promotion",
    "An inherited score",
    "A third version comes back",
    "Sticky users change version",
    "A share that creeps up",
    "Users go back to an older version",
    "Edited weights that do not apply",
    "Two versions and no more",
    "No test between versions",
    "Rare errors are missed",
    "A judge that does not say why",
    "Shadow traffic that doubles the load",
    "No split below a percent",
    "Weights that reshuffle everybody",
    "The same alarm at every interval",
    "A broken split that nobody notices",
    "An endless loop of rollbacks",
    "A verdict that depends on the batch",
    "Many features, many false alarms",
    "Too slow, or out of memory",
    "One change, many messages",
    "Another p-value each run",
    "Chunks that decide or crash",
    "A record log that drops, blocks or eats memory",
    "No record of what was in production",
    "Made-up names that mint series, and series that never go",
    "No latency by version",
    "Latencies that cannot be added up",
    "Latency metrics that cost a third of the throughput",
    "A scrape that times out",
    "Series that are dropped or stay for ever",
    "Histograms lost with several processes",
)
"""Complaints of users of other progressive-delivery, drift and metrics systems, by the names on the page."""


@cache
def rows() -> Mapping[str, str]:
    """Name of a pain to the rest of its row."""
    return dict(re.findall(r"^\| \*\*(.+?)\*\*(.*)$", PAGE, re.MULTILINE))


@cache
def known_tests() -> frozenset[str]:
    return frozenset(name for path in (ROOT / "tests").rglob("test_*.py") for name in _tests_in(path))


def _tests_in(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name


def test_every_pain_has_its_row() -> None:
    """None is left out, none is told twice, and the page tells of no other."""
    assert sorted(rows()) == sorted(PAINS)
    assert len(re.findall(r"^\| \*\*", PAGE, re.MULTILINE)) == len(PAINS)


def test_every_row_says_what_happens_here_and_names_its_tests() -> None:
    """Three columns, of which the last names at least one test."""
    for name, rest in rows().items():
        columns = [column.strip() for column in rest.split("|")]
        assert len(columns) == 4, name
        assert columns[1], name
        assert re.findall(r"`(test_\w+)`", columns[2]), name


def test_every_test_that_the_page_names_is_there() -> None:
    """A test that was renamed or thrown away is missed here."""
    named = set(re.findall(r"`(test_\w+)`", PAGE)) - {"test_pains"}
    assert not sorted(named - known_tests())
