"""Figures on the page: verdicts without kindness, and results that survive a partial run."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.bench import PAGE, WORK, publish
from loadtests.measurement import Figure, Outcome, Table
from loadtests.page import (
    BEGIN,
    END,
    PROFILES_BEGIN,
    PROFILES_END,
    Result,
    put_profile,
    read_results,
    render,
    rewrite,
    unexplained,
    verdict,
)


def result(value: float, *, date: str = "2026-01-01") -> Result:
    figure = Figure("work", "ratio", (value, value + 1, value - 1), must=2, aim=1)
    return Result(Outcome((figure,), (Table("t", ("a",), (("1",),)),)), "machine", date, "command", 3, 1.0)


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        (Figure("w", "n", (0.5, 1.0, 9.0), must=2, aim=1), "aim"),
        (Figure("w", "n", (1.5,), must=2, aim=1), "must"),
        (Figure("w", "n", (2.1,), must=2, aim=1), "**not met**"),
        (Figure("w", "n", (2.1,), must=2, aim=3, at_least=True), "must"),
        (Figure("w", "n", (1.9,), must=2, aim=3, at_least=True), "**not met**"),
        (Figure("w", "n", (1.2,), aim=1.1), "aim missed"),
        (Figure("w", "n", (1.2,)), ""),
        (Figure("w", "n", (math.nan,), must=2, aim=1), "**not met**"),
        (Figure("w", "n", (0.5,), must=2, aim=1, errors=3), "**not met: 3 errors**"),
    ],
)
def test_a_verdict_is_the_median_against_what_was_asked(figure: Figure, said: str) -> None:
    """Errors and figures that do not exist meet nothing, however good the number looks."""
    assert verdict(figure) == said


def test_work_that_is_simulated_says_what_was_run() -> None:
    """Runs and requests, where "rounds of 3 s" would mean nothing; also after its journey through the file."""
    measured = result(1.0)
    simulated = replace(measured, outcome=replace(measured.outcome, ran="2,000 runs of 20,000 requests"))
    travelled = Result.from_json(json.loads(json.dumps(simulated.to_json())))
    assert travelled == simulated
    assert "`command`, medians of 3 rounds of 1 s; 2,000 runs of 20,000 requests." in render(
        {"tiny": measured, "detection": travelled}
    )
    assert "rounds of" not in render({"detection": travelled}).partition("\n")[0]


def test_a_run_of_some_of_the_work_keeps_the_other_figures(tmp_path: Path) -> None:
    """Each figure stays with its own date and command, in the order of the catalogue."""
    page = tmp_path / "benchmarks.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    first, second = list(WORK)[:2]
    publish(page, {second: result(5, date="yesterday")})
    publish(page, {first: result(1, date="today")})
    publish(page, {first: result(3, date="today")})
    assert list(read_results(page.with_suffix(".json"))) == [first, second]
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert text.index("today") < text.index("yesterday")
    assert "**3**" in text
    assert "**5**" in text
    assert "**1**" not in text


def test_results_read_back_as_they_were_written(tmp_path: Path) -> None:
    """The page is drawn from the file beside it, so nothing may be lost there."""
    page = tmp_path / "benchmarks.md"
    page.write_text(f"{BEGIN}{END}", encoding="utf-8")
    publish(page, {"tiny": result(1.25)})
    assert read_results(page.with_suffix(".json")) == {"tiny": result(1.25)}


def test_a_page_without_markers_is_not_written() -> None:
    """Figures never land in the middle of prose."""
    with pytest.raises(ValueError, match="put both lines where that belongs"):
        rewrite("no markers", {})


def test_the_page_of_the_repository_has_its_markers_and_names_no_unknown_work() -> None:
    """What ``make bench`` will write to is there, and what it wrote still renders the same."""
    text = PAGE.read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    results = read_results(PAGE.with_suffix(".json"))
    if results:
        assert rewrite(text, results) == text
    assert PROFILES_BEGIN in text
    assert PROFILES_END in text


def test_what_people_wrote_survives_new_figures_and_new_profiles() -> None:
    """The story of the profile and the reasons stand outside the markers."""
    page = f"intro\n{BEGIN}\nold\n{END}\nreasons\n{PROFILES_BEGIN}\n{PROFILES_END}\nstory\n"
    page = rewrite(page, {"tiny": result(1)})
    page = put_profile(page, "`tiny`, inline", "first")
    page = put_profile(page, "`mlp`, process", "other")
    page = put_profile(page, "`tiny`, inline", "second\n\n| a | b |")
    assert page.startswith("intro\n")
    assert page.endswith("\nstory\n")
    assert "\nreasons\n" in page
    assert "first" not in page
    assert page.index("### `mlp`, process\n\nother") < page.index("### `tiny`, inline\n\nsecond")
    assert put_profile(page, "`mlp`, process", "other") == page


def test_a_figure_that_is_not_met_points_to_its_reason() -> None:
    """And where there is no reason yet, the run says so."""
    page = f"{BEGIN}{END}"
    results = {"tiny": result(5), "mlp": result(1)}
    assert unexplained(page, results) == ["tiny"]
    assert "[why]" not in rewrite(page, results)
    explained = page + '<a id="why-tiny"></a>Since the sky is blue.'
    assert unexplained(explained, results) == []
    assert rewrite(explained, results).count("**not met** ([why](#why-tiny))") == 1


def test_a_row_names_the_run_that_it_is_from() -> None:
    """Machine, date and command of every figure, without repeating them in each."""
    page = rewrite(f"{BEGIN}{END}", {"tiny": result(1, date="monday"), "mlp": result(1, date="tuesday")})
    assert "1. tiny: monday" in page
    assert "2. mlp: tuesday" in page
    rows = [line for line in page.splitlines() if line.startswith("| work |")]
    assert [row.removesuffix(" |").rpartition(" ")[2] for row in rows] == ["run", "1", "2"]
