"""Problems of bad input, collected with their places; bounded in number and in text."""

from __future__ import annotations

from typing import Any

from gateway.errors import FieldProblem, InvalidInput

__all__ = ["MAX_PROBLEMS", "Faults", "at", "describe", "shorten"]

MAX_PROBLEMS = 8
_MAX_TEXT = 60


class Faults:
    """Collects up to ``MAX_PROBLEMS``; ``full`` tells a search to stop."""

    __slots__ = ("problems",)

    def __init__(self) -> None:
        self.problems: list[FieldProblem] = []

    def __bool__(self) -> bool:
        return bool(self.problems)

    @property
    def full(self) -> bool:
        return len(self.problems) >= MAX_PROBLEMS

    def add(self, field: str, expected: str, got: str) -> None:
        if not self.full:
            self.problems.append(FieldProblem(field, expected, got))

    def error(self) -> InvalidInput:
        """The first problem is the message, so that protocols with one line of error say it too."""
        first = self.problems[0]
        more = len(self.problems) - 1
        tail = f" (and {more} more problem{'s' if more > 1 else ''})" if more else ""
        return InvalidInput(f"{first.field}: expected {first.expected}, got {first.got}{tail}", *self.problems)


def at(where: str, path: tuple[int, ...]) -> str:
    """``inputs.x[3][2]``."""
    return where + "".join(f"[{index}]" for index in path)


def describe(value: Any) -> str:
    """A value in few words; never walks into it."""
    if value is None:
        return "null"
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is str:
        return f"the string {shorten(value)!r}"
    if type(value) is list:
        return f"a list of {len(value)}"
    if type(value) is dict:
        return "an object"
    return shorten(repr(value))


def shorten(text: str) -> str:
    """Client text as it may stand in a message: short, and encodable whatever it holds."""
    if len(text) > _MAX_TEXT:
        text = text[: _MAX_TEXT - 1] + "…"
    return text.encode("utf-8", "backslashreplace").decode()
