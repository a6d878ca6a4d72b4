"""``turnout serve``: reads the settings and runs the gateway until it is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.app import serve
from gateway.settings import load_settings

__all__ = ["commands"]

commands = typer.Typer()


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
