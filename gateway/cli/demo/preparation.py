"""What the demo needs before its story begins: examples, a home, settings, registered versions, a route."""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import yaml

from gateway.cli.backend import Backend
from gateway.cli.demo.screen import Screen
from gateway.cli.examples import MODEL, ExampleModels, ExampleVersion
from gateway.cli.failures import CommandFailed
from gateway.cli.output import Meter

__all__ = ["ROUTE", "WEIGHTS", "register_all", "with_own_table", "write_settings"]

ROUTE = "digits"
WEIGHTS = {1: 40, 2: 30, 3: 30}
"""The split that the demo starts from; version 1 is the known good."""
LOAD_S = 120.0
LOOK_EVERY_S = 0.1


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


def with_own_table(examples: ExampleModels, folder: Path) -> ExampleModels:
    """The faulty version on a table of the demo's own, which may be deleted."""
    table = folder / "table.json"
    shutil.copy(examples.table, table)
    source = folder / "faulty"
    shutil.copytree(examples.faulty.registration.source, source)
    (source / "settings.json").write_bytes(orjson.dumps({"table": str(table.resolve())}))
    registration = replace(examples.faulty.registration, source=str(source))
    return replace(examples, table=table, faulty=replace(examples.faulty, registration=registration))


async def register_all(backend: Backend, examples: ExampleModels, screen: Screen) -> None:
    """Versions 1 to 3 and their route, then version 4, resident in the route at weight 0."""
    for version in examples.versions:
        await _register(backend, version, screen)
    spec = {
        "model": MODEL,
        "split": [{"version": number, "weight": weight} for number, weight in WEIGHTS.items()],
        "fallback": 1,
        "known_good": 1,
    }
    await backend.put_route(ROUTE, spec, expected=0)
    screen.event(f"route {ROUTE}: " + " ".join(f"{number}={weight}" for number, weight in WEIGHTS.items()))
    await _register(backend, examples.faulty, screen)
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
