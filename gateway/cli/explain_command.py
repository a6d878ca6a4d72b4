"""``turnout explain``: which version a key gets and why; and what other weights would move."""

from __future__ import annotations

import json as json_text
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from gateway.cli.connection import perform
from gateway.cli.failures import USAGE, CommandFailed
from gateway.cli.output import JsonOption, Output
from gateway.control.explain_question import Question
from gateway.routing.assignment import SPACE

__all__ = ["commands"]

commands = typer.Typer()

_PIN = "x-model-version"
_NUMBER = re.compile(r"[0-9]{1,15}")
_WEIGHT = re.compile(r"[0-9]+=[0-9]+")


@commands.command("explain")
def explain_key(
    *,
    route: Annotated[str, typer.Argument(metavar="ROUTE", help="The route's name.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY]", help="The request's own key; without it, as the route's key: says."),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            "-w",
            metavar="VERSION=WEIGHT...",
            help="What would this split change? 3=80 4=20, others get 0.",
        ),
    ] = None,
    context: Annotated[
        str | None, typer.Option("--context", metavar="JSON", help="The request's context, for rules and the key.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="NAME=VALUE", help="A header of the request.")
    ] = None,
    revision: Annotated[
        int | None, typer.Option("--revision", metavar="REVISION", min=1, help="As it was at this revision.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Tell which version a key of a route gets, why, and whom other weights would move."""
    output = Output.standard(machine=json)
    key, split = _words(words or [], weights or [])
    if split and revision is not None:
        raise CommandFailed("--weights asks what a change would do now; leave --revision out", status=USAGE)
    question = _question(key, context, header or [], split, revision)
    view = perform(lambda backend: backend.explain(route, question))
    if json:
        output.json(view)
        return
    output.line(_sentence(view))
    output.fields([fact for fact in _facts(view) if fact[1] is not None])
    if "change" in view:
        output.line("")
        output.line(_change_sentence(view))
        moves = [(move["from"], move["to"], _percent(move["share"])) for move in view["change"]["moves"]]
        output.table(("FROM", "TO", "OF ALL KEYS"), moves, empty="No key moves.")


def _words(words: Sequence[str], weights: Sequence[str]) -> tuple[str | None, list[str]]:
    """The key and the weights: of ``--weights 3=80 4=20`` an option takes only the first."""
    more = [word for word in words if weights and _WEIGHT.fullmatch(word)]
    keys = [word for word in words if word not in more]
    if len(keys) > 1:
        raise CommandFailed(f"{keys[1]!r} is one word too many: ask about one key at a time", status=USAGE)
    return (keys[0] if keys else None), [*weights, *more]


def _question(
    key: str | None, context: str | None, headers: Sequence[str], weights: Sequence[str], revision: int | None
) -> Question:
    named = {name.strip().lower(): value.strip() for name, value in _pairs(headers, "NAME=VALUE, like x-user-id=ada")}
    pin = named.get(_PIN)
    if pin is not None and not _NUMBER.fullmatch(pin):
        raise CommandFailed(f"--header {_PIN}={pin}: expected a version's number", status=USAGE)
    split: dict[str, object] = {}
    for version, weight in _pairs([pair for text in weights for pair in text.split(",")], "VERSION=WEIGHT, like 3=95"):
        if not _NUMBER.fullmatch(version) or not _NUMBER.fullmatch(weight):
            raise CommandFailed(
                f"'{version}={weight}': expected VERSION=WEIGHT in whole numbers, like 3=95", status=USAGE
            )
        if version in split:
            raise CommandFailed(f"version {version} is there twice; give it one weight", status=USAGE)
        split[version] = int(weight)
    own = key or named.get("x-key")
    return Question(own, _context(context), named, None if pin is None else int(pin), split or None, revision)


def _pairs(texts: Sequence[str], expected: str) -> list[tuple[str, str]]:
    found = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise CommandFailed(f"{text!r}: expected {expected}", status=USAGE)
        found.append((name, value))
    return found


def _context(text: str | None) -> Mapping[str, Any]:
    if text is None:
        return {}
    try:
        value = json_text.loads(text)
    except ValueError as fault:
        raise CommandFailed(f"--context is not valid JSON: {fault}", status=USAGE) from None
    if not isinstance(value, dict):
        raise CommandFailed(f"--context: expected a JSON object, got {text[:60]!r}", status=USAGE)
    return value


def _sentence(view: Mapping[str, Any]) -> str:
    key = view["key"]
    who = "A request without a key" if key is None else f"Key {key['value']!r} (of {_source(key['from'])})"
    if view["version"] is None:
        return f"{who} on route {view['route']}: {view.get('detail', 'no version')}"
    return f"{who} on route {view['route']} gets version {view['version']}, by {_reason(view['reason'])}."


def _source(source: str) -> str:
    return "the request" if source == "request" else source


def _reason(reason: str) -> str:
    kind, _, name = reason.partition(":")
    return {"split": "the split", "pin": "its pin"}.get(kind, f"rule {name}")


def _facts(view: Mapping[str, Any]) -> list[tuple[str, object]]:
    interval, flag = view.get("interval"), view.get("flag")
    where = None
    if interval is not None:
        where = f"{interval['start']} to {interval['end'] - 1} ({_percent(interval['share'])} of all keys)"
    return [
        ("place", f"{view['place']} of {SPACE}" if "place" in view else None),
        ("interval", where),
        ("weights", _split_text(view["weights"]) if "weights" in view else None),
        ("flag", None if flag is None else f"{flag['flag']} of {flag['provider']}, variant {flag['variant']}"),
        ("epoch", view["epoch"]),
        ("revision", view["revision"]),
        ("known good", view["known_good"]),
        ("served here", None if view.get("applied", True) else "not yet: this replica still serves an older revision"),
    ]


def _change_sentence(view: Mapping[str, Any]) -> str:
    change, key = view["change"], ""
    if view["version"] is not None:
        stays = change.get("version") == view["version"]
        key = f" the key {'stays at' if stays else 'goes to'} version {change['version']};"
    moved = _percent(change["moved"])
    return f"With {_split_text(change['weights'])}{key} {moved} of all keys move, the fewest that can be."


def _split_text(weights: Mapping[str, int]) -> str:
    return " ".join(f"{version}={weight}" for version, weight in weights.items())


def _percent(share: float) -> str:
    return f"{share * 100:.6g}%"
