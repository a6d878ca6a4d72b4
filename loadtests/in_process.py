"""What a request takes of the gateway's own process, without a kernel: ``python -m loadtests.in_process tiny``.

A gateway as users start it, its recorder beside it, in this very process with 64 clients that are objects: they hand
their requests to the protocol that uvicorn runs, and take what it writes. No network, no load generator and nothing to
wait for lie between two requests, so that a microsecond shows on a machine that others share: told is the least of many
rounds, each configuration in several processes that take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import uvloop
from uvicorn.server import ServerState

from gateway.app import Gateway
from gateway.server import spare_the_collector
from gateway.settings import load_settings
from gateway.web.wire import WireProtocol
from loadtests.cores import pinned
from loadtests.live_gateway import free_port
from loadtests.measurement import Ask
from loadtests.models import MLP, TINY, Model, make_reference
from loadtests.servers import place, start_gateway
from loadtests.span_collector import SpanCollector

__all__ = ["main"]

MODELS = {model.name: model for model in (TINY, MLP)}
CLIENTS, A_TURN, A_ROUND = 64, 32, 32
"""So many ask in one turn of the loop, and each so often in a round."""
_WARM_ROUNDS, _BOOT_S = 2, 60.0
_OFF: Mapping[str, Any] = {
    "request_log": "off", "decisions": {"enabled": False}, "drift": {"enabled": False}, "trace_exporter": "none",
}  # fmt: skip


class Turn:
    """Requests that are asked together. ``refused``: an answer that is none of a request that went well."""

    def __init__(self) -> None:
        self._left = 0
        self._over = asyncio.Event()
        self.refused = b""

    async def ask(self, connections: Sequence[WireProtocol], body: bytes) -> None:
        """Returns when all are answered."""
        self._left = len(connections)
        self._over.clear()
        for connection in connections:
            connection.data_received(body)
        await self._over.wait()

    def answered(self, answer: bytes | bytearray | memoryview) -> None:
        if bytes(answer[:12]) != b"HTTP/1.1 200":
            self.refused = bytes(answer)
        self._left -= 1
        if not self._left:
            self._over.set()


class Client(asyncio.Transport):
    """One connection without a socket."""

    def __init__(self, turn: Turn) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self._turn = turn

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._turn.answered(data)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """It stays as long as the process."""

    def pause_reading(self) -> None:
        """It sends nothing of its own accord."""

    def resume_reading(self) -> None:
        """See ``pause_reading``."""

    def get_write_buffer_size(self) -> int:
        return 0


def request(ask: Ask) -> bytes:
    head = f"POST {ask.path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(ask.body)}\r\n\r\n".encode() + ask.body


async def cost(config: Path, ask: Ask, rounds: int) -> list[float]:
    """Microseconds of processor time a request, in each round."""
    gateway = Gateway(load_settings(config, overrides={"server.port": free_port()}))
    await gateway.start()
    served = gateway.listeners[0]._server.config  # noqa: SLF001 - to hand it connections that have no socket
    state, body, turn = ServerState(), request(ask), Turn()
    connections = []
    for _ in range(CLIENTS):
        connections.append(WireProtocol(served, state, {}))
        connections[-1].connection_made(Client(turn))
    await _loaded(turn, connections[:1], body)
    spare_the_collector()
    turns = [connections[first : first + A_TURN] for first in range(0, CLIENTS, A_TURN)]
    found = []
    for _ in range(_WARM_ROUNDS + rounds):
        began = time.process_time()
        for _ in range(A_ROUND):
            for asking in turns:
                await turn.ask(asking, body)
        found.append((time.process_time() - began) * 1e6 / (A_ROUND * CLIENTS))
    await gateway.stop()
    if turn.refused:
        raise RuntimeError(f"not every request was answered: {turn.refused[:500]!r}")
    return found[_WARM_ROUNDS:]


async def _loaded(turn: Turn, connections: Sequence[WireProtocol], body: bytes) -> None:
    """Returns when the version answers."""
    limit = time.monotonic() + _BOOT_S
    while True:
        turn.refused = b""
        await turn.ask(connections, body)
        if not turn.refused:
            return
        if time.monotonic() > limit:
            raise RuntimeError(f"nothing answers after {_BOOT_S:g} s: {turn.refused[:500]!r}")
        await asyncio.sleep(0.2)


def configurations(folder: Path, collector: str) -> dict[str, dict[str, Any]]:
    """Telemetry, by what is on."""
    log = {"request_log": str(folder / "requests.jsonl")}
    spans = {"trace_ratio": 0.01, "trace_exporter": "otlp", "otlp_endpoint": collector}
    return {
        "nothing": dict(_OFF),
        "request log": {**_OFF, **log},
        "decisions": {**_OFF, "decisions": {"enabled": True}},
        "drift": {**_OFF, "drift": {"enabled": True}},
        "traces": {**_OFF, **spans},
        "everything": {**log, **spans},
    }


def prepare(folder: Path, name: str, model: Model, telemetry: Mapping[str, Any]) -> Path:
    """The configuration of a gateway with the model and its route."""
    settings = {"telemetry": telemetry, "runtimes": {"allow_inline": [model.name]}}
    with start_gateway(folder, name, pinned(), settings=settings) as live:
        place(live, model, folder, placement="inline", reference=f"file:{make_reference(model, folder)}")
    return live.config


def compare(model: Model, *, rounds: int, processes: int) -> dict[str, list[float]]:
    """The least of each process, by what is on."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="turnout-in-process-") as name, SpanCollector() as collector:
        folder = Path(name)
        configs = {
            what: prepare(folder, what.replace(" ", "-"), model, telemetry)
            for what, telemetry in configurations(folder, collector.url).items()
        }
        for _ in range(processes):
            for what, config in configs.items():
                found.setdefault(what, []).append(min(_measured(model, config, rounds)))
    return found


def _measured(model: Model, config: Path, rounds: int) -> list[float]:
    command = [
        sys.executable,
        "-m",
        "loadtests.in_process",
        model.name,
        "--config",
        str(config),
        "--rounds",
        str(rounds),
    ]
    done = subprocess.run([*pinned().server_prefix, *command], capture_output=True, text=True, check=True, timeout=300)
    costs: list[float] = json.loads(done.stdout.splitlines()[-1])
    return costs


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.in_process", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument("--rounds", type=int, default=25, help=f"of {A_ROUND * CLIENTS:,} requests, in each process")
    parser.add_argument("--processes", type=int, default=4, help="of each configuration")
    parser.add_argument("--config", type=Path, help=argparse.SUPPRESS)  # one process's part
    chosen = parser.parse_args(arguments)
    model = MODELS[chosen.model]
    if chosen.config is not None:
        print(json.dumps(uvloop.run(cost(chosen.config, model.json(), chosen.rounds))))
        return 0
    found = compare(model, rounds=chosen.rounds, processes=chosen.processes)
    least = min(found["nothing"])
    print(f"{'on':12} {'µs':>7} {'more':>7}   of each process")
    for what, each in found.items():
        print(
            f"{what:12} {min(each):7.1f} {min(each) - least:7.1f}   {', '.join(f'{one:.1f}' for one in sorted(each))}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
