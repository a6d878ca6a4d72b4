"""What pydantic found wrong with a document, in our words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.errors import FieldProblem

__all__ = ["problem_of", "sentence_of"]

_NAME = "letters, digits, dots, dashes or underscores, the first a letter or digit"
_EXPECTED: Mapping[str, str] = {
    "extra_forbidden": "no such field",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "int_type": "a whole number",
    "less_than_equal": "at most {le}",
    "list_type": "a list",
    "string_type": "text",
    "too_long": "at most {max_length} of them",
    "too_short": "at least {min_length} of them",
    "value_error": "{error}",
}
"""Pydantic's kinds of finding that we say in our own words."""
_UNION_MEMBERS = frozenset({"constrained-int", "int", "list[ArmSpec]", "condition-rule", "flag-rule"})


def problem_of(found: Any, patterns: Mapping[str, str]) -> FieldProblem:
    """Where, what was expected, what came. ``patterns``: what a text is to be that must match one of these."""
    kind, context = found["type"], found.get("ctx", {})
    if kind == "value_error" and not found["loc"] and isinstance(found["input"], Mapping):
        field, _, rest = str(context["error"]).partition(": ")
        if field in found["input"] and rest:  # of the whole, and it names the field that is to be changed
            return FieldProblem(field, rest[:500], repr(found["input"][field])[:100])
    if kind == "missing":
        return FieldProblem(_place(found), "a value: the field is required", "nothing")
    if kind in _EXPECTED:
        expected = _EXPECTED[kind].format(**context)
    elif kind == "string_pattern_mismatch":
        expected = patterns.get(context["pattern"], _NAME)
    else:
        expected = (found["msg"][:1].lower() + found["msg"][1:]).removeprefix("input should be ")
    return FieldProblem(_place(found), expected[:500], repr(found["input"])[:100])


def sentence_of(found: Any, patterns: Mapping[str, str]) -> str:
    problem = problem_of(found, patterns)
    if found["type"] == "value_error":  # its own sentence already
        return f"{problem.field}: {problem.expected}"
    return f"{problem.field}: expected {problem.expected}, got {problem.got}"


def _place(found: Any) -> str:
    place = ""
    for part in found["loc"]:
        if part not in _UNION_MEMBERS:
            place += f"[{part}]" if isinstance(part, int) else f".{part}"
    return place.lstrip(".") or "spec"
