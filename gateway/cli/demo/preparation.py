"""What the demo needs before its story begins: examples, a home, settings, registered versions, a route."""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import yaml

from gateway.cli.backend import Backend
from gateway.cli.demo.screen import Screen
from gateway.cli.examples import MODEL, ExampleModels, ExampleVersion
from gateway.cli.failures import CommandFailed
from gateway.cli.output import Meter

__all__ = ["ROUTE", "WEIGHTS", "Cast", "cast_of", "register_all", "write_settings"]

ROUTE = "digits"
WEIGHTS = {1: 40, 2: 30, 3: 30}
"""The split that the demo starts from; version 1 is the known good."""
LOAD_S = 120.0
LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Cast:
    """Three good versions; the ``faulty`` one; and that one ``repaired``: it has a table of its own. ``tables`` are the
    files that these two read for each batch."""

    versions: tuple[ExampleVersion, ...]
    tables: tuple[Path, Path]

    @property
    def kinds(self) -> dict[int, str]:
        return {number: version.name for number, version in enumerate(self.versions, start=1)}


def write_settings(folder: Path) -> Path:
    """The demo gateway's configuration: what differs from the defaults."""
    settings: dict[str, Any] = {
        "default_route": ROUTE,
        "telemetry": {"request_log": str(folder / "requests.jsonl")},
        "store": {"poll_ms": 100},
    }
    path = folder / "gateway.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def cast_of(examples: ExampleModels, folder: Path) -> Cast:
    """The example versions, and two on tables of the demo's own, which may be spoiled."""
    faulty, table = _on_own_table(examples, folder, "faulty")
    repaired, other = _on_own_table(examples, folder, "repaired")
    return Cast((*examples.versions, faulty, repaired), (table, other))


def _on_own_table(examples: ExampleModels, folder: Path, name: str) -> tuple[ExampleVersion, Path]:
    table = folder / f"{name}.json"
    shutil.copy(examples.table, table)
    source = folder / name
    shutil.copytree(examples.faulty.registration.source, source)
    (source / "settings.json").write_bytes(orjson.dumps({"table": str(table.resolve())}))
    registration = replace(examples.faulty.registration, source=str(source), tags={"example": name})
    return replace(examples.faulty, name=name, registration=registration), table


async def register_all(backend: Backend, cast: Cast, screen: Screen) -> None:
    """Versions 1 to 3 and their route, then versions 4 and 5, of which the route does not know yet."""
    for version in cast.versions[:3]:
        await _register(backend, version, screen)
    spec = {
        "model": MODEL,
        "split": [{"version": number, "weight": weight} for number, weight in WEIGHTS.items()],
        "fallback": 1,
        "known_good": 1,
    }
    await backend.put_route(ROUTE, spec, expected=0)
    screen.event(f"route {ROUTE}: " + " ".join(f"{number}={weight}" for number, weight in WEIGHTS.items()))
    for version in cast.versions[3:]:
        await _register(backend, version, screen)
    await _loaded(backend, screen)


async def _loaded(backend: Backend, screen: Screen) -> None:
    """Until the route's versions are warm; CommandFailed says why they are not."""
    give_up = time.monotonic() + LOAD_S
    while True:
        status = (await backend.route(ROUTE))["status"]
        if status["applied"] and not status["pending"]:
            screen.event("every version of the route is loaded and warm", "green")
            return
        if status["failed"] or time.monotonic() > give_up:
            raise CommandFailed(f"the example versions are not loaded: {status['failed'] or status['pending']}")
        await asyncio.sleep(LOOK_EVERY_S)


async def _register(backend: Backend, version: ExampleVersion, screen: Screen) -> None:
    found = await backend.register(version.registration, _no_steps)
    words = f"registered {MODEL}/{found['version']} ({version.name}, accuracy {version.accuracy:.1%})"
    screen.event(f"{words} {str(found['digest'])[:19]}")


def _no_steps(_label: str, _total: int) -> Meter:
    """The story needs no bars: its models are small."""
    return lambda _: None
