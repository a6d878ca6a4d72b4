"""``python -m gateway.cli.quickstart``: what ``make serve`` does before it serves.

Trains the example models once, registers them in the home that the example configuration names, and applies
the example route if there is none. Run again, it changes nothing: an operator's changes stay.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from gateway.cli.backend import Backend
from gateway.cli.examples import ExampleModels, make_examples
from gateway.cli.failures import FAILED, describe
from gateway.cli.local_backend import open_local
from gateway.cli.output import Meter
from gateway.cli.route_files import read_route_file
from gateway.errors import TurnoutError, UnknownRoute
from gateway.settings import load_settings

__all__ = ["main"]

EXAMPLES = Path("config") / "examples"


def main() -> int:
    """The exit status; what was done goes to standard error."""
    try:
        home = load_settings(EXAMPLES / "digits.yaml").home
        asyncio.run(_set_up(home, make_examples(home / "examples")))
    except TurnoutError as error:
        print(f"error: {describe(error)}", file=sys.stderr)
        return FAILED
    return 0


async def _set_up(home: Path, examples: ExampleModels) -> None:
    async with open_local(home) as backend:
        for version in examples.versions:
            found = await backend.register(version.registration, _no_steps)
            if found["created"]:
                _tell(
                    f"registered {found['model']}/{found['version']}: {version.name}, accuracy {version.accuracy:.1%}"
                )
        for name, spec in read_route_file(EXAMPLES / "route.yaml").items():
            if not await _exists(backend, name):
                await backend.put_route(name, spec, expected=0)
                _tell(f"made route {name}")


async def _exists(backend: Backend, name: str) -> bool:
    try:
        await backend.route(name)
    except UnknownRoute:
        return False
    return True


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def _no_steps(_label: str, _total: int) -> Meter:
    """Small models: no bars."""
    return lambda _: None


if __name__ == "__main__":
    sys.exit(main())
