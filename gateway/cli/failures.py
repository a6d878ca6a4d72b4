"""What a command says when it cannot: one line, what was wrong in which field, and an exit status."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.errors import BadRequest, FieldProblem, InvalidInput, TurnoutError

__all__ = ["FAILED", "INTERRUPTED", "USAGE", "CommandFailed", "NoAnswer", "describe"]

FAILED = 1
USAGE = 2
INTERRUPTED = 130


class CommandFailed(TurnoutError):
    """A command that cannot do what was asked. ``status`` is 1 (failed) or 2 (asked wrongly)."""

    def __init__(self, message: str, *, problems: Sequence[FieldProblem] = (), status: int = FAILED) -> None:
        super().__init__(message)
        self.problems = tuple(problems)
        self.status = status


class NoAnswer(CommandFailed):
    """Nothing answers at the gateway's address, or not in time."""


def describe(error: TurnoutError) -> str:
    """The message, and under it one line for each field that was wrong."""
    problems: Sequence[FieldProblem] = ()
    if isinstance(error, CommandFailed | BadRequest | InvalidInput):
        problems = error.problems
    lines = [str(error) or type(error).__name__]
    lines += [f"  {problem.field}: expected {problem.expected}, got {problem.got}" for problem in problems]
    return "\n".join(lines)
