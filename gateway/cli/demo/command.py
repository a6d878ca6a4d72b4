"""The demo as a command: prepares, starts gateway, traffic and watch, tells the story, ends all of them in order."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gateway.cli.demo.gateway_process import running_gateway
from gateway.cli.demo.preparation import ROUTE, cast_of, register_all, write_settings
from gateway.cli.demo.screen import Screen
from gateway.cli.demo.story import FAST, NORMAL, Pace, Story
from gateway.cli.demo.traffic import Digits, Tally, Traffic
from gateway.cli.demo.watch import Watch
from gateway.cli.examples import ExampleModels, make_examples
from gateway.cli.http_backend import open_http
from gateway.cli.output import Output
from gateway.control.token_file import ADMIN_TOKEN_FILE
from gateway.environment import client_settings

__all__ = ["commands"]

commands = typer.Typer()

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@commands.command("demo")
def demo(*, fast: Annotated[bool, typer.Option("--fast", help="The same story in a few seconds.")] = False) -> None:
    """Tell the story in the terminal: a live gateway, a canary that fails and the guard that takes it off, a rollout
    whose answers turn wrong and the evidence that takes it back."""
    output = Output.standard()
    output.note("Preparing the example models (trained once, some ten seconds) ...")
    examples = make_examples(client_settings().home / "examples")
    try:
        with tempfile.TemporaryDirectory(prefix="turnout-demo-") as folder:
            asyncio.run(_until_stopped(Path(folder), examples, FAST if fast else NORMAL, output.results))
    except KeyboardInterrupt:
        output.note("Stopped. The demo's gateway has ended, nothing is left behind.")


async def _until_stopped(folder: Path, examples: ExampleModels, pace: Pace, console: Console) -> None:
    """Ctrl-C, SIGTERM and a closed terminal end the demo in the same way.

    SIGINT has a handler of its own, too: what a script starts with ``&`` inherits that it is ignored, and
    ``asyncio.run`` then leaves it so, while ``turnout serve`` obeys it.
    """
    task = asyncio.current_task()
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        if task is not None:
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in _ENDING:
        loop.add_signal_handler(number, stop)
    try:
        await _run(folder, examples, pace, console)
    except asyncio.CancelledError:
        if not stopped:
            raise
    if stopped:
        raise KeyboardInterrupt


async def _run(folder: Path, examples: ExampleModels, pace: Pace, console: Console) -> None:
    config, home = write_settings(folder), folder / "home"
    with Screen(console, live=console.is_terminal) as screen:
        screen.event("starting a gateway with a fresh home on a free port")
        async with running_gateway(home, config) as gateway:
            token = (home / ADMIN_TOKEN_FILE).read_text(encoding="utf-8").strip()
            screen.event(f"gateway at {gateway.url}")
            async with open_http(gateway.url, token) as backend:
                cast, tally = cast_of(examples, folder), Tally()
                await register_all(backend, cast, screen)
                watch = Watch(gateway.url, token, ROUTE, backend, tally, screen, cast.kinds)
                traffic = Traffic(gateway.url, ROUTE, Digits(examples.pixels, examples.labels), tally, rate=pace.rate)
                story = Story(ROUTE, backend, screen, watch, *cast.tables, pace)
                await _together(story, watch, traffic)
        screen.event("the gateway has stopped, its home is deleted")


async def _together(story: Story, watch: Watch, traffic: Traffic) -> None:
    """The story, with traffic and watch beside it; they end with it, or it ends with the first that fails."""
    tasks = [asyncio.create_task(work) for work in (story.tell(), watch.run(), traffic.run())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
