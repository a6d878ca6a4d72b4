"""Named tuples that are made past their own ``__new__`` have all their fields: nothing else would count them."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def made_past_new() -> Iterator[tuple[str, int, str, int]]:
    """Module, line, class and how many values it is given."""
    for path in sorted((ROOT / "gateway").rglob("*.py")):
        text = path.read_text("utf-8")
        if "tuple.__new__" not in text:
            continue
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_new":
                kind, values = node.args
                assert isinstance(kind, ast.Name)
                assert isinstance(values, ast.Tuple)
                yield module, node.lineno, kind.id, len(values.elts)


@pytest.mark.parametrize("made", list(made_past_new()), ids=lambda made: f"{made[0]}:{made[2]}")
def test_it_is_given_a_value_for_each_field(made: tuple[str, int, str, int]):
    module, line, name, values = made
    kind = getattr(importlib.import_module(module), name)
    assert values == len(kind._fields), f"{module}, line {line}: {name} has {', '.join(kind._fields)}"


def test_there_are_some():
    assert len(list(made_past_new())) >= 9
