"""Servers under test, each a process of its own with a port: the floors, and gateways in several configurations."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.cores import Cores
from loadtests.live_gateway import LiveGateway, free_port, wait_until
from loadtests.measurement import Ask, Sample
from loadtests.models import Model, make_model
from loadtests.usage import usage
from loadtests.wrk import closed_loop

__all__ = ["Server", "floor", "gateway", "place", "start_gateway"]

_BOOT_S = 30.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: what it is called in the tables, its process and where it listens."""

    name: str
    pid: int
    port: int
    cores: Cores

    def closed(self, ask: Ask, *, clients: int, seconds: float) -> Sample:
        """One round of ``wrk``: what came back and what it cost the server, its children included."""
        before = usage(self.pid)
        load = closed_loop(self.port, ask, clients=clients, seconds=seconds, prefix=self.cores.client_prefix)
        after = usage(self.pid)
        return Sample(
            per_second=load.good / load.seconds,
            cpu_ms=(after.cpu_s - before.cpu_s) * 1000 / max(1, load.good),
            p50_ms=load.p50_us / 1000,
            p99_ms=load.p99_us / 1000,
            resident_mb=after.resident_mb,
            errors=load.refused + load.broken,
        )


@contextlib.contextmanager
def floor(name: str, cores: Cores, *, model: Path | None = None) -> Iterator[Server]:
    """``bare`` or ``bare-ort`` (with its model)."""
    port = free_port()
    more = [] if model is None else ["--model", str(model)]
    command = [sys.executable, "-m", "loadtests.floors", name, "--port", str(port), *more]
    process = subprocess.Popen([*cores.server_prefix, *command])
    try:
        wait_until(lambda: _listens(port), within_s=_BOOT_S, what=f"{name} on port {port}")
        yield Server(name, process.pid, port, cores)
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def start_gateway(
    folder: Path, name: str, cores: Cores, *, settings: Mapping[str, Any] | None = None, workers: int = 1
) -> Iterator[LiveGateway]:
    """A gateway as users start it, but for ``settings``; its home and log lie in ``folder``."""
    more = ("--workers", str(workers)) if workers > 1 else ()
    chosen: dict[str, Any] = {"runtimes": {}, **(settings or {})}
    chosen["runtimes"] = {"preload": ["onnx", "echo"], **chosen["runtimes"]}
    home = folder / f"home-{name.replace(' ', '-')}"
    with LiveGateway(home, settings=chosen, prefix=cores.server_prefix, options=more) as live:
        yield live


def place(
    live: LiveGateway,
    model: Model,
    folder: Path,
    *,
    called: str | None = None,
    route: Mapping[str, Any] | None = None,
    **options: Any,
) -> int:
    """Registers the model (under another name when ``called`` so) and gives it all traffic of a route with its name,
    with the further fields of ``route``; returns when it answers."""
    name = called or model.name
    version = live.register(name, make_model(model, folder), **options)
    live.put_route(name, {"model": name, "split": [{"version": version, "weight": 100}], **(route or {})})
    return version


@contextlib.contextmanager
def gateway(
    folder: Path,
    name: str,
    cores: Cores,
    models: Sequence[Model],
    *,
    placement: str = "process",
    settings: Mapping[str, Any] | None = None,
    workers: int = 1,
    **options: Any,
) -> Iterator[Server]:
    """A gateway that serves ``models``, all with one placement, with its telemetry as it is by default but for the
    request log, which goes to a file: a log on a terminal would measure the terminal."""
    runtimes = {"allow_inline": [model.name for model in models]} if placement == "inline" else {}
    chosen: dict[str, Any] = {"telemetry": {"request_log": str(folder / f"{name.replace(' ', '-')}.jsonl")}}
    chosen |= settings or {}
    chosen["runtimes"] = runtimes | dict(chosen.get("runtimes", {}))
    with start_gateway(folder, name, cores, settings=chosen, workers=workers) as live:
        for model in models:
            place(live, model, folder, placement=placement, **options)
        yield Server(name, live.pid, live.port, cores)
