"""A home and a gateway for the commands, and the commands run as a user runs them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from loadtests.live_gateway import LiveGateway
from tests.cli.warm import WarmCommands

ROOT = Path(__file__).parent.parent.parent
COMMAND_S = 200.0


@dataclass(frozen=True)
class Done:
    """What a command left: exit status, standard output, standard error."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode()


@dataclass(frozen=True)
class Turnout:
    """The command, with what its environment says of Turnout."""

    environment: dict[str, str]
    folder: Path
    commands: WarmCommands

    def __call__(self, *words: str | Path, stdin: str = "", **environment: str) -> Done:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TURNOUT_")}
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(stdin.encode())
            given.seek(0)
            status = self.commands.run(
                [str(word) for word in words],
                environment={**kept, "PYTHONPATH": str(ROOT), **self.environment, **environment},
                folder=self.folder,
                streams=[given.fileno(), out.fileno(), err.fileno()],
                timeout_s=COMMAND_S,
            )
            left = Done(status, _text(out), _text(err))
        assert "Traceback" not in left.err, left.err
        return left

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


@pytest.fixture(scope="package")
def commands() -> Iterator[WarmCommands]:
    """A command's imports take a second, and the tests run hundreds of commands. It ends with these tests: others count
    their processes."""
    warm = WarmCommands()
    yield warm
    warm.close()


@pytest.fixture
def remote(live: LiveGateway, tmp_path: Path, commands: WarmCommands) -> Turnout:
    """The command talking to the gateway."""
    return Turnout({"TURNOUT_URL": live.url, "TURNOUT_TOKEN": live.token}, tmp_path, commands)


@pytest.fixture
def local(tmp_path: Path, commands: WarmCommands) -> Turnout:
    """The command on a fresh home, without any gateway."""
    return Turnout({"TURNOUT_HOME": str(tmp_path / "home")}, tmp_path, commands)


def echo_source(folder: Path, name: str = "model", **script: Any) -> Path:
    """A version that answers with its inputs; another script is another version."""
    path = folder / f"{name}.echo.json"
    path.write_text(json.dumps(script), encoding="utf-8")
    return path
