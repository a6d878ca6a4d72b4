"""What ``make serve`` does before it serves: three trained versions and their route, once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Turnout
from tests.cli.warm import WarmCommands


def quickstart(folder: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TURNOUT_")}
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli.quickstart"],
        capture_output=True,
        text=True,
        env={**kept, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        timeout=500,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_the_quick_start_makes_three_versions_and_a_route_and_leaves_them_alone_afterwards(
    tmp_path: Path, commands: WarmCommands
) -> None:
    """An operator's change survives the next ``make serve``; the example's gates are asked of them as they stand."""
    shutil.copytree(ROOT / "config" / "examples", tmp_path / "config" / "examples")
    first = quickstart(tmp_path)
    assert first.returncode == 0, first.stderr
    turnout = Turnout({"TURNOUT_HOME": str(tmp_path / ".turnout")}, tmp_path, commands)
    models = turnout.done("models", "--json").json
    assert [(model["name"], len(model["versions"])) for model in models] == [("digits", 3)]
    evaluation = turnout.done("show", "digits/2", "--json").json["manifest"]["evaluation"]
    assert evaluation[0]["metric"] == "accuracy"
    assert evaluation[0]["value"] > 0.9
    gates = turnout.done("gates", "digits", "-f", "config/examples/gates.yaml", "--json").json["gates"]
    assert [gate["kind"] for gate in gates["gates"]] == ["metric", "champion", "latency"]
    turnout.done("weights", "digits", "2=1")
    again = quickstart(tmp_path)
    assert again.returncode == 0, again.stderr
    assert "registered" not in again.stderr
    arms = turnout.done("routes", "--json").json[0]["status"]["split"]
    assert {arm["version"]: arm["weight"] for arm in arms if arm["weight"]} == {2: 1}
