"""A gateway of the demo's own: a subprocess with a fresh home on a free port, stopped at the end."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from gateway.cli.failures import CommandFailed
from gateway.environment import child_environment

__all__ = ["RunningGateway", "free_port", "running_gateway"]

START_S = 60.0
STOP_S = 20.0
LOG_TAIL_LINES = 5


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """``log`` takes its standard output and error."""

    url: str
    home: Path
    log: Path


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def running_gateway(home: Path, config: Path) -> AsyncIterator[RunningGateway]:
    """Starts it, waits until it answers, and stops it as an operator would (SIGTERM). Raises CommandFailed."""
    port = free_port()
    log = home.parent / "gateway.log"
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(config), "--port", str(port)]
    with log.open("wb") as sink:
        # A group of its own: Ctrl-C is for the demo, which then stops the gateway in order.
        process = await asyncio.create_subprocess_exec(
            *command, stdout=sink, stderr=sink, env=child_environment(home), start_new_session=True
        )
    try:
        gateway = RunningGateway(f"http://127.0.0.1:{port}", home, log)
        await _answers(gateway, process)
        yield gateway
    finally:
        await _stop(process)


async def _answers(gateway: RunningGateway, process: asyncio.subprocess.Process) -> None:
    give_up = time.monotonic() + START_S
    async with httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
        while time.monotonic() < give_up:
            if process.returncode is not None:
                raise CommandFailed(f"the gateway ended at start with status {process.returncode}: {_tail(gateway)}")
            try:
                if (await client.get(f"{gateway.url}/healthz")).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.1)
    raise CommandFailed(f"the gateway did not answer within {START_S:.0f} s: {_tail(gateway)}")


def _tail(gateway: RunningGateway) -> str:
    lines = gateway.log.read_text(encoding="utf-8", errors="replace").splitlines()
    return " | ".join(lines[-LOG_TAIL_LINES:]) or "it printed nothing"


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
