"""One table from error to status."""

from __future__ import annotations

import orjson
import pytest

from gateway import errors
from gateway.errors import FieldProblem, InvalidInput, QueueFull, TurnoutError
from gateway.web.problem_table import TABLE
from gateway.web.problems import explain, render_oip, render_problem


def every_error() -> list[type[TurnoutError]]:
    found = [TurnoutError]
    for kind in found:
        found += [child for child in kind.__subclasses__() if child not in found]
    return [kind for kind in found if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", every_error())
def test_every_error_stands_in_the_table(kind: type[TurnoutError]) -> None:
    """A new error has to say what it means over HTTP."""
    assert kind in TABLE


def test_kinds_are_unique() -> None:
    """A client can tell them apart by type."""
    kinds = [row.kind for row in TABLE.values()]

    assert len(set(kinds)) == len(kinds)


def test_a_subclass_without_a_row_takes_its_bases() -> None:
    """So that a private subclass cannot become a 500."""

    class Odd(QueueFull):
        pass

    assert explain(Odd("full")).status == 429


@pytest.mark.parametrize(("seconds", "header"), [(0.0, b"1"), (0.2, b"1"), (1.0, b"1"), (1.01, b"2"), (12.0, b"12")])
def test_retry_after_is_never_too_early(seconds: float, header: bytes) -> None:
    """Whole seconds, rounded up."""
    assert explain(QueueFull("full", retry_after_s=seconds)).headers == ((b"retry-after", header),)


def test_both_faces_say_what_happened() -> None:
    """Problem details with fields, and the protocol's one line; surrogates and length do no harm."""
    problem = explain(InvalidInput("inputs.x: \udc80" + "x" * 5000, FieldProblem("inputs.x", "a number", "\ud800")))

    body = orjson.loads(render_problem(problem, "r1"))
    assert (body["type"], body["status"], body["request_id"]) == ("urn:turnout:problem:invalid-input", 422, "r1")
    assert body["errors"][0]["field"] == "inputs.x"
    assert len(body["detail"]) < 2100
    assert orjson.loads(render_oip(problem)) == {"error": body["detail"]}
