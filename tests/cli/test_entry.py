"""Which module has a command: a table, so that a command imports no other."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module

import pytest
import typer

from gateway.cli.entry import COMMANDS


@pytest.mark.parametrize("module", COMMANDS)
def test_the_table_names_the_commands_that_a_module_has(module: str) -> None:
    """All of them and no other, or a command would be known to ``--help`` alone."""
    group = typer.main.get_group(import_module(f"gateway.cli.{module}").commands)
    assert tuple(group.commands) == COMMANDS[module]


def test_no_two_modules_have_a_command_of_one_name() -> None:
    """The first would hide the other."""
    names = [name for commands in COMMANDS.values() for name in commands]
    assert len(names) == len(set(names))


def test_a_command_imports_no_other_and_no_gateway() -> None:
    """``turnout --version`` not even one; ``serve`` alone needs the gateway's own parts."""
    code = "import sys; from gateway.cli.entry import _application; _application(sys.argv[1:]); print(*sys.modules)"

    def imported(*words: str) -> set[str]:
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    assert not {name for name in imported("--version") if name.startswith("gateway.control")}
    alone = imported("rollout", "digits", "4")
    assert "gateway.cli.rollout_command" in alone
    assert not {"gateway.cli.transfer_commands", "gateway.app"} & alone
    assert {"gateway.app", "gateway.cli.rollout_command"} & imported("serve") == {"gateway.app"}
    assert "gateway.cli.transfer_commands" in imported("--help")


@pytest.mark.parametrize(
    "words",
    [
        ["routes"],
        ["weights", "digits", "3=5"],
        ["rollout", "digits", "--status"],
        ["models"],
        ["explain", "digits", "ada"],
        ["gates", "digits"],
        ["jobs"],
        ["tokens", "list"],
    ],
    ids=" ".join,
)
def test_a_command_to_a_gateway_brings_no_part_of_one(words: list[str]) -> None:
    """Documents, settings and tensors are over there; here they took three quarters of a second a command."""
    code = "import sys; from gateway.cli.entry import _run; status = _run(sys.argv[1:]); print(status, *sys.modules)"
    nobody = os.environ | {"TURNOUT_URL": "http://127.0.0.1:1"}
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=nobody, timeout=60)
    assert "no gateway answers at http://127.0.0.1:1" in done.stderr
    status, *imported = done.stdout.split()
    assert status == "1"
    assert "gateway.cli.http_backend" in imported
    heavy = {"numpy", "gateway.settings", "gateway.control.documents", "gateway.control.store", "gateway.web.problems"}
    assert not heavy & set(imported)
