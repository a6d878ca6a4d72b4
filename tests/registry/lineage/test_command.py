"""``turnout record -- COMMAND``: a training that knows nothing of the recorder."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from gateway.registry.lineage.command import CommandRun, Finished, run_recorded
from tests.registry.lineage.repositories import RECORDED, ROOT, repository


def _recorded(folder: Path, *command: str, **more: str) -> tuple[Finished, Path]:
    file = folder / "lineage.json"

    def environment(first: Path) -> dict[str, str]:
        places = [str(first), *more.values(), str(ROOT)]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}

    here = Path.cwd()
    os.chdir(folder)
    try:
        run = CommandRun("fraud", file, None, None, None, keep_patch=True, identify=True)
        return run_recorded(run, command, folder, environment), file
    finally:
        os.chdir(here)


def test_a_script_that_knows_nothing_of_turnout_is_recorded(tmp_path: Path) -> None:
    """Data, modules, packages of its interpreter, and what it made: the script stays its author's."""
    folder = repository(tmp_path / "fraud")
    finished, file = _recorded(folder, sys.executable, "train.py")
    assert (finished.status, finished.notes) == (0, ())
    lineage = json.loads(file.read_text())
    assert [row["name"] for row in lineage["data"]] == ["data/train.csv"]
    assert set(lineage["code"]["files"]) == {"train.py", "steps.py"}
    assert lineage["code"]["entry_point"]["command"] == ["python", "train.py"]
    assert "pytest" in lineage["environment"]["packages"]
    assert [row["name"] for row in lineage["run"]["outputs"]] == ["model.echo.json"]
    assert lineage["code"]["clean"] is True


def test_what_children_of_the_script_read_is_seen_too(tmp_path: Path) -> None:
    """A training that starts its own processes, as data loaders do."""
    folder = repository(tmp_path / "fraud")
    (folder / "more.csv").write_text("a\n1\n")
    child = "open('more.csv').read()"
    (folder / "parent.py").write_text(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])\n")
    _, file = _recorded(folder, sys.executable, "parent.py")
    assert [row["name"] for row in json.loads(file.read_text())["data"]] == ["more.csv"]


def test_the_interpreters_own_sitecustomize_still_runs(tmp_path: Path) -> None:
    """Ours comes first, and hands over."""
    folder = repository(tmp_path / "fraud")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import sys\nsys.was_customized = True\n")
    (folder / "ask.py").write_text("import sys\nassert sys.was_customized\n")
    assert _recorded(folder, sys.executable, "ask.py", beside=str(tmp_path / "site"))[0].status == 0


def test_what_the_training_records_by_itself_wins(tmp_path: Path) -> None:
    """Into the same file: its parameters and metrics, and what only the command sees beside them."""
    folder = repository(tmp_path / "fraud")
    (folder / "recorded.py").write_text(RECORDED.format(options='{"file": "lineage.json"}', more="pass"))
    lineage = json.loads(_recorded(folder, sys.executable, "recorded.py")[1].read_text())
    assert lineage["parameters"]["values"]["depth"] == 3
    assert lineage["evaluation"][0]["metric"] == "accuracy"
    assert [row["name"] for row in lineage["data"]] == ["data/train.csv"]


def test_a_failing_training_gives_its_status_and_no_lineage(tmp_path: Path) -> None:
    """A signal is told as shells do."""
    folder = repository(tmp_path / "fraud")
    finished, file = _recorded(folder, sys.executable, "-c", "import sys; sys.exit(3)")
    assert (finished.status, finished.lineage, file.exists()) == (3, None, False)
    assert _recorded(folder, "sh", "-c", "kill -9 $$")[0].status == 137


def test_a_program_that_is_no_python_is_recorded_as_far_as_it_can_be_seen(tmp_path: Path) -> None:
    """What it made is found by looking before and after; that its data is not known is said."""
    folder = repository(tmp_path / "fraud")
    finished, file = _recorded(folder, "sh", "-c", "cp data/train.csv copy.csv")
    assert "no Python was seen" in finished.notes[0]
    lineage = json.loads(file.read_text())
    assert [row["name"] for row in lineage["run"]["outputs"]] == ["copy.csv"]
    assert "data" not in lineage
