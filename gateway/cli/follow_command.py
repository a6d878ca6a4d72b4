"""``turnout follow``: how far a route is with the name that it follows in another system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gateway.cli.connection import perform
from gateway.cli.output import JsonOption, Output, when_text

__all__ = ["commands"]

commands = typer.Typer()

_NEXT = {
    "offered": "roll it out with: turnout rollout {route} {version}",
    "refused": "once that is mended: turnout follow {route} --again",
    "ended": "once that is mended: turnout follow {route} --again",
    "unreachable": "nothing changes until it answers again",
}


@commands.command("follow")
def follow(
    *,
    route: Annotated[str, typer.Argument(metavar="ROUTE", help="The route's name.")],
    again: Annotated[bool, typer.Option("--again", help="Import and gate once more what was refused.")] = False,
    json: JsonOption = False,
) -> None:
    """Show what a route follows in another system, and what has become of the version found there."""
    output = Output.standard(machine=json)
    view = perform(lambda backend: backend.follow_again(route) if again else backend.followed(route))
    if json:
        output.json(view)
        return
    spec, state = view["follow"], view["status"]
    output.line(f"{route} follows {spec['source']}, asked every {spec['every_s']:g} s, then: {spec['then']}")
    if state is None:
        output.line("not looked at yet")
        return
    for line in _lines(view, state):
        output.line(line)


def _lines(view: Mapping[str, Any], state: Mapping[str, Any]) -> list[str]:
    identity = state["identity"]
    named = f"{identity.get('name')} version {identity.get('version')}" if identity else "nothing yet"
    here = "" if state["version"] is None else f", here {view['model']}/{state['version']}"
    lines = [f"{state['state']} since {when_text(state['since'])}: {named}{here}"]
    lines += [state["problem"]] if state["problem"] else []
    advice = _NEXT.get(state["state"])
    lines += [advice.format(route=view["route"], version=state["version"])] if advice else []
    return lines
