"""The commands of lineage: record, lineage, compare, reproduce, on a home."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Turnout
from tests.registry.lineage.repositories import commit, repository


@pytest.fixture
def recorded(local: Turnout, tmp_path: Path) -> Turnout:
    """Two versions of fraud: the second on more rows, from the first."""
    folder = repository(tmp_path / "work")
    turnout = Turnout(local.environment, folder, local.commands)
    for number, more in ((1, ""), (2, "7,8\n")):
        with (folder / "data" / "train.csv").open("a") as file:
            file.write(more)
        commit(folder, f"data {number}") if more else None
        (folder / "metrics.json").write_text(json.dumps([{"metric": "auc", "value": 0.7 + number / 10, "n": 50}]))
        options = ["--model", "fraud", "--param", f"depth={number}", "--metrics", "metrics.json"]
        options += ["--parent", "fraud/1"] if number > 1 else []
        turnout.done("record", *options, "--register", "model.echo.json", "--", sys.executable, "train.py")
    return turnout


@pytest.mark.timeout(600)
def test_a_training_is_recorded_registered_drawn_compared_and_trained_again(recorded: Turnout, tmp_path: Path) -> None:
    """The whole way, as a user goes it."""
    turnout = recorded
    shown = turnout.done("lineage", "fraud/2").out
    for words in ("fraud/2", "python train.py", "data/train.csv", "4 rows", "depth = 2", "auc 0.9", "parent fraud/1"):
        assert words in shown
    told = turnout.done("lineage", "fraud/2", "--svg", tmp_path / "l.svg", "--json").json
    assert set(told["digests"]) == {"code", "data", "parameters", "environment", "metrics"}
    assert (tmp_path / "l.svg").read_text().startswith("<svg ")

    compared = turnout.done("compare", "fraud/1", "fraud/2", "--json").json
    assert compared["changed"] == ["code", "data", "parameters", "metrics", "files"]
    [data] = compared["sections"]["data"]["changes"]
    assert (data["what"], data["note"]) == ("data/train.csv", "3 → 4 rows")
    assert "data/train.csv" in turnout.done("compare", "fraud/1", "fraud/2").out
    assert "are the same version" in turnout.done("compare", "fraud/1", "fraud/1").out

    again = tmp_path / "again"
    done = turnout.done("reproduce", "fraud/1", again, "--run", "--json", PYTHONPATH=str(ROOT)).json
    assert done["complete"] is True
    assert done["trained"]["same"] is True
    assert [file["name"] for file in done["trained"]["files"]] == ["model.echo.json"]
    refused = turnout("reproduce", "fraud/1", again)
    assert (refused.status, "is there already" in refused.err) == (1, True)


def test_a_training_that_fails_ends_the_command_with_its_status(local: Turnout, tmp_path: Path) -> None:
    """And what is asked wrongly is said before an hour's training."""
    assert local("record", "--", sys.executable, "-c", "import sys; sys.exit(7)").status == 7
    assert not (tmp_path / "lineage.json").exists()
    for words in (
        ("--register", "m.onnx", "--", "true"),
        ("--data", "train=nowhere.csv", "--", "true"),
        ("--param", "depth", "--", "true"),
    ):
        assert local("record", *words).status == 2


def test_names_of_no_version_are_refused(local: Turnout, tmp_path: Path) -> None:
    """In one line, with what to write."""
    (tmp_path / "home").mkdir()
    refused = local("lineage", "fraud")
    assert (refused.status, "write fraud/3 or fraud@alias" in refused.err) == (2, True)
    assert local("compare", "fraud/1", "fraud/2").status == 1
    assert local("reproduce", "fraud/1").status == 1
