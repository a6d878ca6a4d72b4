"""How a rollout looks in the terminal: one line, and the evidence meter: what was seen, what is needed, how long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

__all__ = ["meter_rows", "picture", "sentence", "stands"]

Json = Mapping[str, Any]

BAR_WIDTH = 24
_STYLES = {"healthy": "green", "harmful": "bold red", "not-enough": "yellow"}


def sentence(view: Json) -> str:
    """Where it stands, for a log or a pipe."""
    return f"route {view['route']}: {stands(view)}"


def stands(view: Json) -> str:
    """The same, where it is said already which route."""
    state = view["rollout"]
    words = f"version {state['candidate']} is {state['phase']} at {state['percent']:g}%"
    if state["reason"]:  # why it is paused, or how it ended
        return f"{words}: {state['reason']}"
    waits = _waits(view)
    return f"{words}; it waits for: {', '.join(waits)}" if waits else words


def _waits(view: Json) -> list[str]:
    """What it waited for when it was last driven; a rollout that is paused or over waits for an operator alone."""
    if not view["running"] or view["rollout"]["phase"] == "paused":
        return []
    return (view.get("live") or {}).get("waits") or []


def picture(view: Json) -> RenderableType:
    state, live = view["rollout"], view.get("live") or {}
    parts: list[RenderableType] = [
        Text(sentence({**view, "live": {}}), style="bold"),
        Text(_climb(state), style="cyan"),
    ]
    rows = list(meter_rows(live))
    if rows:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("STREAM", "VERDICT", "CANDIDATE", "KNOWN GOOD", "EVIDENCE", "STILL NEEDED", "EXPECTED"):
            table.add_column(column, no_wrap=True)
        for row in rows:
            table.add_row(*row)
        parts.append(table)
    parts += [Text(f"waits for {wait}", style="dim") for wait in _waits(view)]
    if live.get("trouble"):
        parts.append(Text(f"does not go on: {live['trouble']}", style="bold red"))
    for hook in live.get("webhooks") or []:
        parts.append(Text(f"webhook {hook['event']} {hook['url']}: {hook['state']} {hook['answer']}", style="dim"))
    return Group(*parts)


def meter_rows(live: Json) -> Iterator[tuple[str | Text, ...]]:
    """One for each stream: verdict, bad of all on both sides, how far its evidence is, what it still needs."""
    for name, stream in ((live.get("judgement") or {}).get("streams") or {}).items():
        verdict = str(stream["verdict"])
        needed = "-" if verdict != "not-enough" else "?" if stream.get("needed") is None else f"{stream['needed']}"
        expected = stream.get("expected_s")
        yield (
            name + ("" if stream["required"] else " (watched)"),
            Text(verdict, style=_STYLES.get(verdict, "")),
            _counts(stream["candidate"]),
            _counts(stream["baseline"]),
            _bar(stream),
            needed,
            "-" if expected is None or verdict != "not-enough" else _duration(float(expected)),
        )


def _climb(state: Json) -> str:
    """The steps, the present one in brackets."""
    plan = state["plan"]
    words = [f"{step['weight']:g}%" for step in plan["steps"]] + (["bake"] if plan["bake"] else [])
    place = state["step"]
    marked = [f"[{word}]" if index == place else word for index, word in enumerate(words)]
    shadow = "[shadow]" if state["phase"] == "shadowing" else "shadow"
    return " > ".join([*([shadow] if plan["shadow"] and plan["shadow"]["first"] else []), *marked])


def _counts(counts: Json) -> str:
    mean = counts.get("mean")
    return f"{counts['bad']}/{counts['units']}" if mean is None else f"{mean:.4g} of {counts['units']}"


def _bar(stream: Json) -> Text:
    """The nearer of the two verdicts."""
    harm = _part(stream["log_harm"], stream["harm_threshold"])
    health = _part(stream["log_health"], stream["health_threshold"])
    part, style = (harm, "red") if harm > health else (health, "green")
    filled = round(part * BAR_WIDTH)
    return Text("█" * filled, style=style) + Text("░" * (BAR_WIDTH - filled), style="dim")


def _part(value: float, threshold: float) -> float:
    return min(1.0, max(0.0, value / threshold)) if threshold > 0 else 0.0


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
