"""``turnout simulate``: figures for people and machines, the picture, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Turnout

FEW = ("--runs", "2", "--requests", "3000", "--jobs", "1")
WITHOUT_MATPLOTLIB = """
import sys
sys.modules["matplotlib"] = None
from gateway.cli.entry import main
main(["simulate", "--plot", "curve.svg"])
"""


def test_a_simulation_prints_a_row_for_each_candidate(local: Turnout) -> None:
    """Without any home or gateway: an equal candidate first, then those asked for, each by who decided."""
    done = local.done("simulate", *FEW, "--error-rates", "50%", "--disagreement", "40%", "--against", "z-test")
    lines = [line for line in done.out.splitlines() if " evidence " in line or " z-test " in line]
    names = [line.split("  ")[0] for line in lines]
    assert names == [name for name in ("equal, 1% errors", "50% errors", "40% disagreement") for _ in range(2)]
    assert "the careful plan" in done.out


def test_the_same_seed_gives_the_same_json(local: Turnout) -> None:
    """For machines; the seed is in it."""
    first, second, other = (
        local.done("simulate", *FEW, "--error-rates", "50%", "--seed", seed, "--json").json for seed in ("5", "5", "6")
    )
    assert first == second
    assert first["rows"] != other["rows"]
    assert first["seed"] == 5
    assert first["rows"][1]["rolled_back"] == {**first["rows"][1]["rolled_back"], "count": 2, "of": 2, "share": 1.0}


def test_recorded_traffic_is_taken_from_a_file_or_a_pipe(local: Turnout, tmp_path: Path) -> None:
    """CSV here; what was put in order is said beside the figures."""
    rows = [f"{n / 50},user-{n % 900},{'error' if n % 30 == 0 else 'ok'}" for n in range(2000)]
    text = "\n".join(["time,key,outcome", *rows[1:], rows[0]]) + "\n"
    (tmp_path / "traffic.csv").write_text(text)
    done = local.done("simulate", *FEW, "--error-rates", "60%", "--traffic", "traffic.csv")
    assert "2,000 recorded requests of 900 users" in done.out
    assert "1 lines were not in the order of their times" in done.err
    piped = local("simulate", *FEW, "--error-rates", "60%", "--traffic", "-", stdin=text)
    assert piped.out == done.out


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_detection_curve_is_drawn(local: Turnout, tmp_path: Path, suffix: str) -> None:
    """A picture of the format that its name says, with its axes named."""
    path = tmp_path / f"curve{suffix}"
    local.done("simulate", *FEW, "--error-rates", "50%", "--plot", path)
    written = path.read_bytes()
    assert written.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    assert suffix == ".png" or b"requests of the route" in written


def test_without_matplotlib_the_plot_says_what_to_install(tmp_path: Path) -> None:
    """Before the work, not after it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TURNOUT_")}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MATPLOTLIB],
        check=False, capture_output=True, text=True, cwd=tmp_path, timeout=200,
        env=environment | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'turnout[plot]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--error-rates", "5"), "expected shares like 1%,5% or 0.01, got '5'"),
        (("--baseline", "many"), "--baseline: expected shares"),
        (("--rate", "0/s"), "expected requests in a time, like 50/s or 300/min"),
        (("--steps", "1,five"), "expected weights in percent like 1,5,25,50, got 'five'"),
        (("--steps", "5,1"), "each with more weight than the one before"),
        (("--against", "luck"), "--against 'luck': expected fixed-rule or z-test"),
        (("--plot", "curve.pdf"), "expected a file that ends in .svg or .png"),
        (("--plot", "nowhere/curve.svg"), "there is no folder"),
        (("--traffic", "nowhere.jsonl"), "No such file"),
        (("--plan", "nowhere.yaml"), "No such file"),
    ],
)
def test_what_is_asked_wrongly_is_said_in_one_line(local: Turnout, words: tuple[str, ...], said: str) -> None:
    """With what came, and what was expected."""
    done = local("simulate", *words)
    assert done.status in (1, 2)
    assert said in done.err
    assert done.out == ""


def test_a_bad_line_of_traffic_is_named(local: Turnout, tmp_path: Path) -> None:
    """And an empty file is called empty."""
    (tmp_path / "bad.csv").write_text("time,key,outcome\n1,a,ok\n2,a,perhaps\n")
    (tmp_path / "empty.jsonl").write_text("")
    assert (
        "line 3: expected an outcome (ok, error, slow), got 'perhaps'" in local("simulate", "--traffic", "bad.csv").err
    )
    assert "the traffic is empty" in local("simulate", "--traffic", "empty.jsonl").err


def test_a_plan_comes_from_a_file(local: Turnout, tmp_path: Path) -> None:
    """Fields that are left out have their defaults; a gate needs somebody, or --approve."""
    (tmp_path / "plan.yaml").write_text("steps: [{weight: 20, gate: manual}]\nalpha: 0.01\n")
    refused = local("simulate", *FEW, "--plan", "plan.yaml")
    assert "open them all at once with --approve" in refused.err
    body = local.done("simulate", *FEW, "--plan", "plan.yaml", "--approve", "--json").json
    assert (body["plan"]["alpha"], body["plan"]["steps"][0]["weight"]) == (0.01, 20.0)
    (tmp_path / "plan.yaml").write_text("steps: [1, 2\n")
    assert "it is not YAML" in local("simulate", "--plan", "plan.yaml").err
