"""``turnout top``: a running gateway as it is now; on a terminal until one has seen enough, elsewhere once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Annotated

import typer

from gateway.cli.connection import token_for
from gateway.cli.http_backend import open_admin
from gateway.cli.output import JsonOption, Output
from gateway.cli.top.asking import Asking
from gateway.cli.top.live import LiveView, looked, paper_of
from gateway.cli.top.rates import Window
from gateway.cli.top.screen import screen
from gateway.environment import client_settings

__all__ = ["commands"]

commands = typer.Typer()

_USUAL = "http://127.0.0.1:8000"


@commands.command("top")
def top(
    *,
    every: Annotated[
        float, typer.Option("--every", metavar="SECONDS", min=0.5, max=3600.0, help="Look so often.")
    ] = 2.0,
    route: Annotated[
        list[str] | None, typer.Option("--route", metavar="ROUTE", help="Only this one; may be given several times.")
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Print one snapshot and end, as off a terminal; rates over --every.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Watch a running gateway: routes, versions, rates and latencies, what is in trouble first. q ends it.

    TURNOUT_URL names the gateway, else http://127.0.0.1:8000 is asked; TURNOUT_TOKEN a token of role viewer. Without
    one, what needs it is not shown.
    """
    asyncio.run(_shown(Output.standard(machine=json), every, tuple(route or ()), once=once or json))


async def _shown(output: Output, every_s: float, routes: tuple[str, ...], *, once: bool) -> None:
    client = client_settings()
    client = replace(client, url=client.url or _USUAL)
    async with open_admin(client.url or _USUAL, token_for(client)) as admin:
        asking, console = Asking(admin), output.results
        window, picture = await looked(asking, Window(), routes)
        if console.is_terminal and not console.is_dumb_terminal and not once:
            await LiveView(console, asking, every_s, routes, window, picture).show()
            return
        await asyncio.sleep(every_s)
        _, picture = await looked(asking, window, routes)
    if output.machine:
        output.json(picture)
    else:
        for line in screen(picture, paper_of(console, height=None)):
            output.line(line)
