"""docs/reference.md and config/gateway.yaml name all that the code has: commands, options, keys, metrics, problems."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from pydantic import BaseModel

from gateway.cli.root import application
from gateway.control.rollout_plan import PlanSpec
from gateway.control.route_spec import RouteSpec
from gateway.settings import SecretSource, Settings
from gateway.web.problem_table import TABLE

ROOT = Path(__file__).parent.parent
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
COMMANDS = REFERENCE[REFERENCE.index("## Commands") : REFERENCE.index("## Settings")]
SETTINGS = REFERENCE[REFERENCE.index("## Settings") : REFERENCE.index("## Metrics")]
METRICS = REFERENCE[REFERENCE.index("## Metrics") : REFERENCE.index("## Status codes")]
ROUTES = REFERENCE[REFERENCE.index("## Route document") : REFERENCE.index("## Rollout plan")]
PLAN = REFERENCE[REFERENCE.index("## Rollout plan") :]


def commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    below = getattr(command, "commands", None)
    if below is None or command.invoke_without_command:
        yield words, command
    if below is None:
        return
    for name, child in below.items():
        yield from commands(child, (*words, name))


ALL_COMMANDS = dict(commands(typer.main.get_command(application), ("turnout",)))


def keys(model: type[BaseModel], before: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        optional = isinstance(field.annotation, types.UnionType)
        kinds = typing.get_args(field.annotation) if optional else (field.annotation,)
        group = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if group in (None, SecretSource):  # what a secret is, is said once
            yield before + name
        else:
            yield from keys(group, f"{before}{name}.")


def metric_names() -> set[str]:
    """As they stand in telemetry's source; counters are written there without their ``_total``."""
    found = set()
    for path in (ROOT / "gateway" / "telemetry").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        counters = set(re.findall(r'(?:CounterMetricFamily|_counter)\(\s*"(gateway_[a-z_]+)"', source))
        found |= {name + "_total" if name in counters else name for name in re.findall(r'"(gateway_[a-z_]+)"', source)}
    return found


def names(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", text) is not None


@pytest.mark.parametrize("words", ALL_COMMANDS, ids=" ".join)
def test_the_reference_names_every_command_with_every_option(words: tuple[str, ...]) -> None:
    """A command or option that nobody can look up is not finished."""
    missing = [] if names(COMMANDS, " ".join(words)) else [" ".join(words)]
    for parameter in ALL_COMMANDS[words].params:
        if parameter.param_type_name == "option":
            missing += [name for name in (*parameter.opts, *parameter.secondary_opts) if not names(COMMANDS, name)]
    assert not missing


def test_the_reference_names_no_command_that_is_not_there() -> None:
    """What the page promises can be typed."""
    known = {" ".join(words) for words in ALL_COMMANDS}
    written = set(re.findall(r"`turnout ((?:(?:tokens|audit|store|decisions|config) )?[a-z][a-z-]+)", COMMANDS))
    assert {f"turnout {words}" for words in written} <= known


def test_every_command_says_what_it_does() -> None:
    """--help is the first page that people read."""
    assert not [words for words, command in ALL_COMMANDS.items() if not command.help]


def test_the_reference_names_every_settings_key() -> None:
    """Every key, in full, as it is written in a file."""
    assert not [key for key in keys(Settings) if f"`{key}`" not in SETTINGS]


def test_the_reference_names_every_field_of_a_plan() -> None:
    """Down to what stands in a step."""
    fields = {name.rpartition(".")[2] for name in keys(PlanSpec)} | {"min_requests", "gate", "url", "secret", "preset"}
    assert not [field for field in fields if not names(PLAN, field)]


def test_the_reference_names_every_field_of_a_route_and_no_other() -> None:
    """What can be written into a route's document can be looked up."""
    fields = set(keys(RouteSpec))
    assert not [field for field in fields if f"`{field}`" not in ROUTES]
    table = [line for line in ROUTES.splitlines() if line.startswith("| `")]
    assert {name for line in table for name in re.findall(r"`([^`]+)`", line.split("|")[1])} == fields


def test_the_example_route_is_one() -> None:
    """``turnout apply -f config/examples/route.yaml`` is the first thing that people try."""
    body = yaml.safe_load((ROOT / "config" / "examples" / "route.yaml").read_text(encoding="utf-8"))
    assert body.pop("route")
    spec = RouteSpec.parse(body).to_json()
    assert spec["cache"]
    assert spec["truth"]["output"] == "label", "labels that POST /feedback brings are taken out of the box"


def test_the_reference_names_no_settings_key_that_is_not_there() -> None:
    """A key that was renamed does not linger."""
    written = {key for key in re.findall(r"`([a-z_]+(?:\.[a-z_0-9]+)+)`", SETTINGS) if not key.endswith(("yaml", "md"))}
    assert written <= set(keys(Settings))


def test_the_example_configuration_has_every_key_with_its_default() -> None:
    """Copying config/gateway.yaml changes nothing."""
    body = yaml.safe_load((ROOT / "config" / "gateway.yaml").read_text(encoding="utf-8"))

    def flat(values: dict[str, Any], before: str = "") -> Iterator[str]:
        for name, value in values.items():
            if isinstance(value, dict) and value:
                yield from flat(value, f"{before}{name}.")
            else:
                yield before + name

    assert set(flat(body)) == set(keys(Settings))
    assert Settings(**body) == Settings()


def test_the_reference_names_every_metric() -> None:
    """Dashboards are built from this table."""
    found = metric_names()
    assert found
    assert not [name for name in sorted(found) if f"`{name}`" not in METRICS]


def test_the_reference_names_no_metric_that_is_not_there() -> None:
    """A panel over a metric that never comes is worse than none."""
    assert set(re.findall(r"`(gateway_[a-z_]+)`", METRICS)) <= metric_names()


def test_the_reference_names_every_kind_of_problem_with_its_status() -> None:
    """Clients branch on these."""
    missing = [
        row.kind
        for row in TABLE.values()
        if not re.search(rf"^\| {row.status} \|[^|]*`{row.kind}`", REFERENCE, re.MULTILINE)
    ]
    assert not missing
