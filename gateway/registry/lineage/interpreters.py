"""What another interpreter is and has, asked of itself in a process of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from gateway.errors import RegistryError
from gateway.registry.lineage import environment
from gateway.registry.lineage.kinds import read_kinds
from gateway.registry.lineage.places import Environment

__all__ = ["capture_of", "environment_of", "folder_of_package"]

ASK_S = 60.0
_WHERE = (
    "import importlib.util,sys;s=importlib.util.find_spec(sys.argv[1]);"
    "print(next(iter(s.submodule_search_locations or []),'') if s else '')"
)


def capture_of(interpreter: str) -> dict[str, object]:
    """As ``environment.capture`` tells it. RegistryError when the interpreter cannot say."""
    script = str(Path(environment.__file__))
    said = _said([interpreter, "-E", script], f"what {interpreter} has")
    try:
        body: dict[str, object] = json.loads(said)
    except ValueError:
        raise RegistryError(f"{interpreter} did not say what it has; is it a Python of at least 3.8?") from None
    return body


def environment_of(interpreter: str) -> Environment:
    return read_kinds({"environment": capture_of(interpreter)}).environment


def folder_of_package(interpreter: str, package: str) -> Path | None:
    """The folder that the package's own folder stands in; None where it is not installed."""
    try:
        place = _said([interpreter, "-c", _WHERE, package], f"where {package} is").strip()
    except RegistryError:
        return None
    return Path(place).parent if place else None


def _said(command: list[str], what: str) -> str:
    try:
        done = subprocess.run(
            command, cwd="/", capture_output=True, text=True, check=False, timeout=ASK_S, stdin=subprocess.DEVNULL
        )
    except OSError as error:
        raise RegistryError(f"{what} cannot be asked: {command[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        raise RegistryError(f"{what} cannot be asked: {command[0]} gave no answer within {ASK_S:.0f} s") from None
    if done.returncode:
        raise RegistryError(f"{what} cannot be asked: {done.stderr.strip()[-300:]}")
    return done.stdout
