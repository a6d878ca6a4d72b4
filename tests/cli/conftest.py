"""A home and a gateway for the commands, and the commands run as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loadtests.live_gateway import LiveGateway

ROOT = Path(__file__).parent.parent.parent
COMMAND_S = 60.0


@dataclass(frozen=True)
class Done:
    """What a command left: exit status, standard output, standard error."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Turnout:
    """The command, with what its environment says of Turnout."""

    environment: dict[str, str]
    folder: Path

    def __call__(self, *words: str | Path, stdin: str = "", **environment: str) -> Done:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TURNOUT_")}
        done = subprocess.run(
            [sys.executable, "-m", "gateway.cli", *map(str, words)],
            input=stdin,
            capture_output=True,
            text=True,
            env={**kept, "PYTHONPATH": str(ROOT), **self.environment, **environment},
            cwd=self.folder,
            timeout=COMMAND_S,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def done(self, *words: str | Path, **environment: str) -> Done:
        """Run, and expected to succeed."""
        result = self(*words, **environment)
        assert result.status == 0, result
        return result


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """One gateway for a module's tests."""
    with LiveGateway(tmp_path_factory.mktemp("live") / "home") as gateway:
        yield gateway


@pytest.fixture
def remote(live: LiveGateway, tmp_path: Path) -> Turnout:
    """The command talking to the gateway."""
    return Turnout({"TURNOUT_URL": live.url, "TURNOUT_TOKEN": live.token}, tmp_path)


@pytest.fixture
def local(tmp_path: Path) -> Turnout:
    """The command on a fresh home, without any gateway."""
    return Turnout({"TURNOUT_HOME": str(tmp_path / "home")}, tmp_path)


def echo_source(folder: Path, name: str = "model", **script: Any) -> Path:
    """A version that answers with its inputs; another script is another version."""
    path = folder / f"{name}.echo.json"
    path.write_text(json.dumps(script), encoding="utf-8")
    return path
