"""``turnout serve``: reads the settings and runs the gateway until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from gateway import is_compiled
from gateway.app import Gateway
from gateway.control.token_file import ADMIN_TOKEN_FILE
from gateway.server import allow_descriptors, spare_the_collector
from gateway.settings import Settings, load_settings
from runtimes.process import give_back_code

__all__ = ["commands"]

commands = typer.Typer()

log = logging.getLogger("turnout")

_ENDING = (signal.SIGTERM, signal.SIGINT)


@commands.command("serve")
def serve_gateway(
    *,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Settings; every key is in config/gateway.yaml.")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", metavar="HOST", help="Address to listen on.")] = None,
    port: Annotated[
        int | None, typer.Option("--port", metavar="PORT", min=0, max=65535, help="Port to listen on; 0: any free one.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", min=1, max=256, help="Web processes that share the port; default 1."),
    ] = None,
) -> None:
    """Run the gateway. SIGTERM or Ctrl-C: answer what was admitted, then stop."""
    chosen: dict[str, Any] = {"server.host": host, "server.port": port, "server.workers": workers}
    settings = load_settings(config, overrides={key: value for key, value in chosen.items() if value is not None})
    status = serve(settings)
    if status:
        raise typer.Exit(status)


def serve(settings: Settings) -> int:
    """Runs a gateway until SIGTERM or SIGINT; the exit status. Raises TurnoutError when it cannot start."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # its start and end are told in our own words
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs addresses, and some of them are secrets
    logging.getLogger("openfeature.contrib").setLevel(logging.CRITICAL)  # it logs what clients send, at each request
    allow_descriptors()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _ENDING:
        loop.add_signal_handler(number, told.set)
    gateway = Gateway(settings)
    await gateway.start()
    spare_the_collector()
    give_back_code()
    for url in gateway.urls:
        log.info("listening on %s, home %s%s", url, settings.home, ", compiled" if is_compiled() else "")
    if settings.server.workers > 1:
        log.info("%d web workers share %s", settings.server.workers, gateway.urls[0])
    if (token := settings.home / ADMIN_TOKEN_FILE).exists():
        log.info("admin token in %s", token)
    ended = asyncio.ensure_future(gateway.failed())
    await asyncio.wait({ended, asyncio.ensure_future(told.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if not told.is_set():
        log.error("a listener ended by itself; stopping")
    log.info("stopping: no new work, answering what was admitted")
    await gateway.stop()
    for number in _ENDING:  # one more, while the interpreter ends, would turn the exit status into a failure's
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
    return 0 if told.is_set() else 1
