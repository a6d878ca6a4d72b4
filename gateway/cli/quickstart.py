"""``python -m gateway.cli.quickstart``: what ``make serve`` does before it serves.

Trains the example models once, registers them in the home that the example configuration names, and applies
the example route if there is none. Run again, it changes nothing: an operator's changes stay.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gateway.cli.examples import ExampleModels, make_examples
from gateway.cli.failures import FAILED, describe
from gateway.cli.local_backend import open_local
from gateway.cli.output import Meter
from gateway.cli.route_files import read_route_file
from gateway.errors import TurnoutError
from gateway.settings import load_settings

__all__ = ["main"]

EXAMPLES = Path("config") / "examples"


def main() -> int:
    """The exit status; what was done goes to standard error."""
    try:
        home = load_settings(EXAMPLES / "digits.yaml").home
        routes = read_route_file(EXAMPLES / "route.yaml")
        if not asyncio.run(_has_routes(home, routes)):
            asyncio.run(_set_up(home, make_examples(home / "examples"), routes))
    except TurnoutError as error:
        print(f"error: {describe(error)}", file=sys.stderr)
        return FAILED
    return 0


async def _has_routes(home: Path, routes: Iterable[str]) -> bool:
    """The routes are made last, so where they are, everything is."""
    async with open_local(home) as backend:
        present = {view["route"] for view in await backend.routes()}
    return present.issuperset(routes)


async def _set_up(home: Path, examples: ExampleModels, routes: Mapping[str, Mapping[str, Any]]) -> None:
    async with open_local(home) as backend:
        for version in examples.versions:
            found = await backend.register(version.registration, _no_steps)
            _tell(f"registered {found['model']}/{found['version']}: {version.name}, accuracy {version.accuracy:.1%}")
        present = {view["route"] for view in await backend.routes()}
        for name, spec in routes.items():
            if name not in present:
                await backend.put_route(name, spec, expected=0)
                _tell(f"made route {name}")


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def _no_steps(_label: str, _total: int) -> Meter:
    """Small models: no bars."""
    return lambda _: None


if __name__ == "__main__":
    sys.exit(main())
