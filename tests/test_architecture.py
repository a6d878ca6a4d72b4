"""The import law, as data: who may import whom, no cycles, no hidden imports, the environment read in two modules."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("gateway", "runtimes", "dashboards")
CLIENTS = "gateway.registry.sources.clients."
"""Scripts for processes of their own: they share no imports with the gateway, and no environment."""

WORDS = frozenset({"messages", "errors"})
MAY_IMPORT: Mapping[str, frozenset[str]] = {
    "app": frozenset({"*"}),
    "cli": frozenset({"*"}),
    "examples": frozenset({"registry", "intervals"}),
    "figures": frozenset({"control", "serving", "telemetry", "workers", "clock"}),
    "liaison": frozenset(
        {"control", "serving", "dataplane", "recording", "telemetry", "web", "events", "clock"} | WORDS
    ),
    "web": frozenset(
        {"batch", "codec", "dataplane", "control", "registry", "routing", "serving", "events", "clock", "trace_context"}
        | {"decoding"}
        | WORDS
    ),
    "decoding": frozenset({"codec", "clock", "runtimes"} | WORDS),
    "batch": frozenset({"codec", "registry", "recording", "serving", "runtimes"} | WORDS),
    "control": frozenset(
        {"serving", "routing", "registry", "dataplane", "settings", "events", "clock", "checkpoints", "runtimes"}
        | {"batch", "intervals", "signatures", "live_secrets", "secret_reading", "yaml_reading"}
        | WORDS
    ),
    "workers": frozenset(
        {
            "web",
            "decoding",
            "control",
            "dataplane",
            "routing",
            "serving",
            "codec",
            "server",
            "settings",
            "events",
            "clock",
            "recording",
        }
        | {"trace_context", "runtimes"}
        | WORDS
    ),
    "registry": frozenset(
        {
            "checkpoints",
            "environment",
            "intervals",
            "secret_reading",
            "settings",
            "settings_environments",
            "settings_artifacts",
            "live_secrets",
            "runtimes",
            "yaml_reading",
        }
        | WORDS
    ),
    "telemetry": frozenset(
        {"events", "settings", "settings_drift", "routing", "clock", "trace_context", "checkpoints", "recording"}
        | {"intervals", "signatures", "runtimes", "secret_reading"}
        | WORDS
    ),
    "dataplane": frozenset({"routing", "serving", "shadowing", "events", "clock"} | WORDS),
    "shadowing": frozenset({"routing", "serving", "events", "clock"} | WORDS),
    "serving": frozenset({"events", "clock", "runtimes"} | WORDS),
    "routing": WORDS,
    "codec": WORDS | {"runtimes"},
    "checkpoints": frozenset({"errors"}),
    "intervals": frozenset(),
    "signatures": frozenset(),
    "server": frozenset({"settings", "errors", "web"}),
    "settings": frozenset(
        {"errors", "settings_drift", "settings_groups", "settings_notifications", "settings_sinks"}
        | {"settings_sources", "settings_environments", "settings_artifacts"}
        | {"settings_tracing", "settings_decisions", "settings_truth", "settings_targets"}
        | {"settings_batch", "settings_runtimes", "settings_store"}
        | {"yaml_reading"}
    ),
    "secret_command": frozenset({"errors"}),
    "secret_reading": frozenset(
        {"environment", "errors", "secret_command", "settings_groups", "settings_notifications"}
    ),
    "secret_text": frozenset(),
    "yaml_reading": frozenset(),
    "live_secrets": frozenset({"secret_reading", "settings_groups", "clock", "errors"}),
    "settings_artifacts": frozenset({"settings_groups"}),
    "settings_batch": frozenset({"settings_groups"}),
    "settings_groups": frozenset(),
    "settings_decisions": frozenset({"settings_groups", "settings_sinks"}),
    "settings_drift": frozenset({"settings_groups"}),
    "settings_environments": frozenset({"settings_groups"}),
    "settings_notifications": frozenset({"settings_groups"}),
    "settings_runtimes": frozenset({"settings_groups", "runtimes"}),
    "settings_sinks": frozenset({"settings_groups"}),
    "settings_sources": frozenset({"settings_groups"}),
    "settings_store": frozenset({"settings_groups"}),
    "settings_targets": frozenset({"settings_groups"}),
    "settings_tracing": frozenset({"settings_groups"}),
    "settings_truth": frozenset({"settings_groups"}),
    "events": WORDS | {"clock"},
    "recording": frozenset(
        {"telemetry", "secret_reading", "settings", "routing", "events", "clock", "runtimes"} | WORDS
    ),
    "trace_context": frozenset(),
    "messages": frozenset({"runtimes"}),
    "environment": frozenset(),
    "errors": frozenset(),
    "clock": frozenset(),
    "__init__": frozenset(),
    "runtimes": frozenset(),
    "dashboards": frozenset(),
}
"""Part of ``gateway`` (or ``runtimes``, or ``dashboards``) to the parts it may import; everything may import itself."""

ONLY_IN: Mapping[str, frozenset[str]] = {
    "prometheus_client": frozenset({"telemetry"}),
    "opentelemetry": frozenset({"telemetry"}),
    "redis": frozenset({"control", "telemetry"}),  # a sink of decisions may be a stream
    "sqlite3": frozenset({"control", "telemetry"}),  # the join of labels must outlive its process, and be whole
    "starlette": frozenset({"web", "server"}),
    "uvicorn": frozenset({"server", "web"}),
    "typer": frozenset({"cli"}),
    "rich": frozenset({"cli"}),
    "openfeature": frozenset({"routing", "control"}),
    "mmh3": frozenset({"routing"}),
    "blake3": frozenset({"recording", "serving"}),  # digests of large tensors; whatever has a name has its SHA-256
    "simdjson": frozenset({"codec"}),
    "torch": frozenset({"runtimes", "examples"}),
    "onnxruntime": frozenset({"runtimes", "examples"}),
    "onnx": frozenset({"runtimes", "examples"}),
    "sklearn": frozenset({"runtimes", "examples"}),
    "skl2onnx": frozenset({"examples"}),
    "skops": frozenset({"runtimes", "examples"}),
    "matplotlib": frozenset({"cli"}),
    "mlflow": frozenset({"registry"}),
    "dvc": frozenset({"registry"}),
    "gto": frozenset({"registry"}),
    "wandb": frozenset({"registry"}),
    "fairlearn": frozenset({"registry"}),
    "model_signing": frozenset({"registry"}),
    "fsspec": frozenset({"registry"}),
    "grafana_foundation_sdk": frozenset({"dashboards"}),
}
"""Vendor to the parts that may know it."""

ENVIRONMENT = frozenset({"gateway.settings", "gateway.environment"})
"""Who reads it: the one with pydantic, the other without, for commands."""

FORBIDDEN_NAMES = frozenset({"utils", "helpers", "common", "misc", "manager", "processor"})


@dataclass(frozen=True)
class Import:
    target: str
    line: int
    hidden: bool
    typing_only: bool


@cache
def modules() -> Mapping[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


@cache
def imports(module: str) -> tuple[Import, ...]:
    return tuple(_imports(tree(module), hidden=False, typing_only=False))


def _imports(node: ast.AST, *, hidden: bool, typing_only: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, hidden, typing_only) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            for alias in child.names:
                full = f"{base}.{alias.name}"
                yield Import(full if full in modules() else base, child.lineno, hidden, typing_only)
        else:
            inside = hidden or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            guarded = typing_only or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test))
            yield from _imports(child, hidden=inside, typing_only=guarded)


def part_of(module: str) -> str:
    names = module.split(".")
    if names[0] != "gateway":
        return names[0]
    return names[1] if len(names) > 1 else "__init__"


def test_every_module_imports_only_what_the_table_allows() -> None:
    """An arrow against the table is a mistake in the design, not in the test."""
    wrong = []
    for module, path in modules().items():
        allowed = MAY_IMPORT[part_of(module)]
        for found in imports(module):
            if found.target.split(".")[0] not in PACKAGES:
                continue
            part = part_of(found.target)
            if part not in (part_of(module), "__init__") and part not in allowed and "*" not in allowed:
                wrong.append(f"{path.relative_to(ROOT)}:{found.line} imports {found.target}")
    assert not wrong, "\n".join(wrong)


def test_every_part_stands_in_the_table() -> None:
    """A new folder or file at the top of gateway needs a place in the import law."""
    assert {part_of(module) for module in modules()} <= MAY_IMPORT.keys()


def test_every_part_stands_in_the_layout_that_the_package_draws() -> None:
    """Whoever opens ``gateway/__init__.py`` finds a word on each folder and file beside it."""
    drawn = ast.get_docstring(tree("gateway")) or ""
    words = set(re.findall(r"\w+", drawn))
    parts = {part_of(module) for module in modules() if module.startswith("gateway.")}
    assert {part for part in parts if not part.startswith("settings_")} <= words


def test_nobody_imports_the_composition_root_or_the_commands() -> None:
    """``app`` knows everybody; only ``cli`` may start it."""
    wrong = [
        f"{module} imports {found.target}"
        for module in modules()
        for found in imports(module)
        if found.target.startswith(("gateway.app", "gateway.cli", "gateway.examples"))
        and part_of(module) not in ("cli", part_of(found.target))
    ]
    assert not wrong, "\n".join(wrong)


def test_vendors_are_known_only_where_the_table_says() -> None:
    """One place a vendor: metrics in telemetry, torch behind the wall, SQL in the store."""
    wrong = [
        f"{module}:{found.line} imports {found.target}"
        for module in modules()
        for found in imports(module)
        if (where := ONLY_IN.get(found.target.split(".")[0])) is not None and part_of(module) not in where
    ]
    assert not wrong, "\n".join(wrong)


def test_no_import_is_hidden_in_a_function_of_the_gateway() -> None:
    """Hidden imports hide cycles. (Behind the wall, vendors are imported when asked, by ``runtimes.catalog``.)"""
    wrong = [
        f"{module}:{found.line} imports {found.target} inside a function"
        for module in modules()
        for found in imports(module)
        if found.hidden and part_of(module) != "examples"
    ]
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_one_another_in_a_circle() -> None:
    """The graph of modules is a tree with shared branches, never a ring."""
    graph = {
        module: {found.target for found in imports(module) if found.target in modules() and not found.typing_only}
        - {module}
        for module in modules()
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            pytest.fail(" -> ".join([*path[path.index(module) :], module]))
        if module in done:
            return
        for target in sorted(graph[module]):
            visit(target, (*path, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def test_the_environment_is_read_in_two_modules_alone() -> None:
    """What a process does must not depend on who imported it where."""
    wrong = []
    for module in modules():
        if module in ENVIRONMENT:
            continue
        for node in ast.walk(tree(module)):
            reads = isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb")
            if reads and not module.startswith(("runtimes.", "gateway.examples", CLIENTS)):
                wrong.append(f"{module}:{node.lineno}")
    assert not wrong, "\n".join(wrong)


def test_clients_of_other_systems_know_nothing_of_the_gateway() -> None:
    """They run in processes of their own, with whatever interpreter has their vendor's packages."""
    wrong = [
        f"{module}:{found.line} imports {found.target}"
        for module in modules()
        if module.startswith(CLIENTS)
        for found in imports(module)
        if found.target.split(".")[0] in PACKAGES and not found.target.startswith(CLIENTS)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_module_or_class_is_called_by_an_empty_word() -> None:
    """utils, helpers, manager and their kin say nothing about what lives there."""
    names = [part for module in modules() for part in module.split(".")]
    for module in modules():
        names += [node.name for node in ast.walk(tree(module)) if isinstance(node, ast.ClassDef)]
    wrong = sorted({name for name in names if any(word in name.lower() for word in FORBIDDEN_NAMES)})
    assert not wrong, wrong


def test_every_module_opens_with_its_purpose() -> None:
    """One sentence on what it is for, before anything else."""
    assert not [module for module in modules() if not ast.get_docstring(tree(module))]


def test_no_compiled_module_waits_while_it_handles_an_exception() -> None:
    """What compiled code handles when it is suspended stays the thread's: another request's failure would have it as
    its context, then for ever, and a bare ``raise`` after the wait would raise another's."""
    waits = (ast.Await, ast.Yield, ast.YieldFrom, ast.AsyncFor, ast.AsyncWith)
    built = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    found = []
    for path in built["targets"]["wheel"]["hooks"]["custom"]["modules"]:
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Try):
                handling = [*node.handlers, *node.finalbody]
                found += [
                    f"{path}:{one.lineno}" for part in handling for one in ast.walk(part) if isinstance(one, waits)
                ]
            elif isinstance(node, ast.AsyncWith) and "asyncio.timeout(" not in ast.unparse(node.items[0]):
                found.append(f"{path}:{node.lineno}")  # its end may wait; that of a time-out does not
    assert not found, found


def test_the_gateway_imports_neither_torch_nor_onnxruntime() -> None:
    """Model libraries live in the children: starting the gateway's modules must not load them."""
    program = "import sys, gateway.app; print(*[m for m in ('torch', 'onnxruntime', 'sklearn') if m in sys.modules])"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
