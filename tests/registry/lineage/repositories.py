"""A real Git repository with a training in it, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent.parent

TRAINING = """
import csv, json, sys
import steps

with open("data/train.csv") as file:
    rows = list(csv.DictReader(file))
total = sum(steps.weight(row) for row in rows)
with open("model.echo.json", "w") as file:
    json.dump({"delay_ms": total}, file)
"""

STEPS = """
def weight(row):
    return int(row["a"])
"""

RECORDED = """
import sys
from gateway.registry import record

with record("fraud", **{options}) as run:
    run.parameters(depth=3, rate=0.5, api_key="hunter2")
    run.seed(7)
    exec(compile(open("train.py").read(), "train.py", "exec"))
    run.proportion("accuracy", 3, len(rows), dataset="data/train.csv")
    {more}
"""


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def repository(folder: Path) -> Path:
    """One commit: a script, a module of its own, and a data file of three rows."""
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "train.csv").write_text("a,b\n1,2\n3,4\n5,6\n")
    (folder / "train.py").write_text(TRAINING)
    (folder / "steps.py").write_text(STEPS)
    (folder / ".gitignore").write_text("*.echo.json\n*.lineage.json\n__pycache__/\n")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "config", "user.name", "Ada")
    git(folder, "config", "user.email", "ada@example.org")
    commit(folder, "first")
    return folder


def commit(folder: Path, message: str) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)
    return git(folder, "rev-parse", "HEAD")


def python(folder: Path, *words: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The interpreter of the tests, with Turnout on its path and nothing of Turnout's in its environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TURNOUT_")}
    environ = {**kept, "PYTHONPATH": str(ROOT), **(environment or {})}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=300)
