"""Rules: flagd's JSON Logic, refused early where it would surprise, bounded whatever the client sends."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.rules import MAX_CONTEXT_VALUES, MAX_DEPTH, MAX_NODES, compile_condition

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
json = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
contexts = st.dictionaries(st.text(max_size=8), json, max_size=6)


def matches(expr: Any, context: dict[str, Any]) -> bool:
    return compile_condition(expr, name="test")(context)


def var(name: str) -> dict[str, Any]:
    return {"var": name}


@pytest.mark.parametrize(
    ("expr", "context", "expected"),
    [
        ({"==": [var("group"), "staff"]}, {"group": "staff"}, True),
        ({"==": [var("group"), "staff"]}, {"group": "guest"}, False),
        ({"==": [var("group"), "staff"]}, {}, False),
        ({"==": [var("user.plan"), "pro"]}, {"user": {"plan": "pro"}}, True),
        ({"in": [var("country"), ["DE", "AT", "CH"]]}, {"country": "AT"}, True),
        ({"in": [var("country"), ["DE", "AT", "CH"]]}, {"country": "US"}, False),
        ({"and": [{">=": [var("age"), 18]}, {"!": [var("minor")]}]}, {"age": 30}, True),
        ({"if": [{"<": [var("age"), 18]}, False, True]}, {"age": 17}, False),
        ({"or": [var("beta"), var("staff")]}, {"staff": True}, True),
        ({"sem_ver": [var("app"), ">=", "1.2.0"]}, {"app": "1.10.0"}, True),
        ({"sem_ver": [var("app"), "^", "1.2.0"]}, {"app": "v2.0"}, False),
        ({"starts_with": [var("email"), "ops@"]}, {"email": "ops@example.org"}, True),
        ({"ends_with": [var("email"), "@example.org"]}, {"email": "a@example.org"}, True),
        ({"ends_with": [var("email"), "@example.org"]}, {"email": 3}, False),
        ({"some": [var("roles"), {"==": [var(""), "admin"]}]}, {"roles": ["a", "admin"]}, True),
        ({"all": [var("scores"), {">": [var(""), 3]}]}, {"scores": [4, 5]}, True),
        ({"none": [var("scores"), {">": [var(""), 3]}]}, {"scores": [1, 2]}, True),
        ({">": [{"reduce": [var("xs"), {"+": [var("current"), var("accumulator")]}, 0]}, 5]}, {"xs": [1, 2, 3]}, True),
        (
            {"==": [{"reduce": [var("xs"), {"merge": [var("accumulator"), var("current")]}, []]}, "1,2"]},
            {"xs": [1, 2]},
            True,
        ),
        ({"missing": ["a", "b"]}, {"a": 1, "b": 2}, False),
        ({"missing_some": [1, ["a", "b"]]}, {"b": 2}, False),
        ({"==": [{"filter": [[1, 2, 3], {">": [var(""), 1]}]}, "2,3"]}, {}, True),
        ({"==": [{"map": [var("xs"), {"*": [var(""), 2]}]}, "2,4"]}, {"xs": [1, 2]}, True),
        ({"in": ["Spring", "Springfield"]}, {}, True),
    ],
)
def test_conditions_mean_what_json_logic_says(expr: Any, context: dict[str, Any], expected: bool) -> None:
    """Operators of JSON Logic and flagd's own, on the request's context."""
    assert matches(expr, context) is expected


@pytest.mark.parametrize(
    ("value", "truth"),
    [
        *((value, False) for value in (None, False, 0, 0.0, "", [], float("nan"))),
        *((value, True) for value in (True, 1, -0.5, "0", "false", [0], {})),
    ],
)
def test_a_result_is_true_as_json_logic_defines_truth(value: Any, truth: bool) -> None:
    """The text "0" is true, an empty list is not, an object is."""
    assert matches(var("x"), {"x": value}) is truth


def test_the_context_is_asked_and_left_alone() -> None:
    """A condition is compiled once, keeps no state between requests, and does not write into the context."""
    condition = compile_condition({"==": [{"merge": [var("xs"), [1]]}, "2,1"]}, name="test")
    context = {"xs": [2]}
    assert [condition(context), condition({"xs": [3]}), condition(context)] == [True, False, True]
    assert context == {"xs": [2]}


def test_a_rule_changed_after_compilation_does_not_change_the_condition() -> None:
    """What was checked is what runs."""
    expr = {"in": [var("group"), ["staff", "ops"]]}
    condition = compile_condition(expr, name="test")
    expr["in"][1].append("everybody")  # type: ignore[union-attr]
    assert not condition({"group": "everybody"})


@pytest.mark.parametrize(
    ("expr", "message"),
    [
        ({"fractional": [["a", 1]]}, "'fractional' is not available in rules: .* split"),
        ({"and": [True, {"if": [{"fractional": []}, 1]}]}, r"rule 'test', at and\[1\]\.if\[0\]: 'fractional'"),
        ({"in": [1, [{"fractional": []}]]}, "'fractional' is not available"),
        ({"reduce": [[1], var(""), {"fractional": []}]}, "'fractional' is not available"),
        ({"log": "x"}, "'log' is not available in rules: it would write the clients' data"),
        ({"equals": [1, 2]}, r"unknown operator 'equals'; expected one of ! !!"),
        ({"some.operator": []}, "unknown operator 'some.operator'"),
        ({"\0literal": [0]}, "unknown operator"),
        ({3: [1, 2]}, "unknown operator a value of type int"),
        ({}, "exactly one operator, got 0 keys"),
        ({"==": [1, 1], "and": []}, "exactly one operator, got 2 keys"),
        ({"in": [var("x"), {"a": 1, "b": 2}]}, "exactly one operator, got 2 keys"),
        ("staff", "expected an object with one operator, .* got 'staff'"),
        (None, "expected an object with one operator"),
        ([{"==": [1, 1]}], "expected an object with one operator"),
        ({"==": [1, {1, 2}]}, r"at ==\[1\]: expected a JSON value, got a value of type set"),
        ({"==": [1, float("nan")]}, "expected a JSON value, got nan"),
        ({"starts_with": ["a"]}, "expected 2 arguments, got 1"),
        ({"sem_ver": ["1.0.0", ">="]}, "expected 3 arguments, got 2"),
        ({"sem_ver": ["1.0.0", "==", "1.0.0"]}, "as the comparison, got '=='"),
        ({"<": [var("$flagd.timestamp"), 1]}, "the time is not available in rules"),
        ({"reduce": [[1], var("current"), var("x")]}, "expected a plain value to start from"),
    ],
)
def test_a_rule_that_would_surprise_is_refused_when_it_is_made(expr: Any, message: str) -> None:
    """The message names the rule, the place, what stands there and what to do."""
    with pytest.raises(ValueError, match=message):
        compile_condition(expr, name="test")


def test_rules_too_deep_too_long_or_round_are_refused() -> None:
    """Depth and size are bounded, also for the shared and circular structures that YAML can write."""
    deep: Any = var("x")
    for _ in range(MAX_DEPTH):
        deep = {"!": [deep]}
    with pytest.raises(ValueError, match="nested deeper than 32 levels"):
        compile_condition(deep, name="test")
    with pytest.raises(ValueError, match="more than 10000 values"):
        compile_condition({"in": [var("x"), list(range(MAX_NODES))]}, name="test")
    round_trip: dict[str, Any] = {"!": []}
    round_trip["!"].append(round_trip)
    with pytest.raises(ValueError, match="nested deeper"):
        compile_condition(round_trip, name="test")
    laughs: Any = [1] * 10
    for _ in range(20):
        laughs = [laughs] * 10
    with pytest.raises(ValueError, match="more than 10000 values"):
        compile_condition({"in": [1, laughs]}, name="test")


@pytest.mark.parametrize(
    ("expr", "context"),
    [
        ({"/": [1, var("x")]}, {"x": 0}),
        ({"%": [1, var("x")]}, {"x": 0}),
        ({"==": [var("x"), var("y")]}, {"x": [1], "y": None}),
        ({"<": [var("x"), 1]}, {"x": {}}),
        ({"*": [var("x"), 1e308]}, {"x": 10**400}),
        ({"cat": [var("x"), "a"]}, {"x": 10**5000}),
        ({"in": [var("x"), "abc"]}, {"x": 10**5000}),
        ({"sem_ver": [var("x"), ">=", "1.0.0"]}, {"x": "1." + "9" * 5000 + ".0"}),
    ],
)
def test_an_error_inside_is_no_match(expr: Any, context: dict[str, Any]) -> None:
    """A client's zero divisor or endless number decides nothing and raises nothing."""
    assert matches(expr, context) is False


def test_a_version_that_a_client_misspells_is_no_match_and_leaves_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """flagd's operator logs a traceback for each; a client could fill a disk with them."""
    caplog.set_level(logging.DEBUG)
    condition = compile_condition({"sem_ver": [var("app"), ">=", "1.2.0"]}, name="test")
    for wrong in ("latest", "", None, [1], {}, "1.2.3.4", "9" * 300, True):
        assert not condition({"app": wrong})
    assert caplog.records == []


@pytest.mark.parametrize(
    "context",
    [
        {"group": ["staff"] * (MAX_CONTEXT_VALUES + 1)},
        {"group": "s" * 70_000},
        {"a": [[["x" * 40_000]], {"b": "x" * 40_000}]},
        {str(number): number for number in range(MAX_CONTEXT_VALUES + 1)},
    ],
)
def test_a_huge_context_is_no_match(context: dict[str, Any]) -> None:
    """Rules cost in proportion to the context; what no honest client sends is not evaluated at all."""
    assert matches({"!": [var("nothing")]}, context) is False


def test_a_context_nested_past_any_sense_is_no_match() -> None:
    """Turning it to text would pass the interpreter's depth; the walk over it does not recurse."""
    value: Any = "x"
    for _ in range(1_500):
        value = [value]
    assert matches({"==": [var("x"), "x"]}, {"x": value}) is False


def accumulated(body: Any, start: Any = "a") -> dict[str, Any]:
    return {"reduce": [var("xs"), body, start]}


BOTH = [var("accumulator"), var("accumulator")]


@pytest.mark.parametrize(
    "expr",
    [
        accumulated({"cat": BOTH}),
        accumulated({"merge": BOTH}, [1]),
        accumulated({"*": BOTH}, 3),
        {"cat": [accumulated(BOTH, 1)]},
        {"===": [accumulated(BOTH, 1), accumulated(BOTH, 1)]},
        {"in": [accumulated(BOTH, 1), [accumulated(BOTH, 1)]]},
        {"map": [var("xs"), {"map": [[1] * 50, {"map": [[1] * 50, 1]}]}]},
        {"all": [[1] * 99, {"all": [[1] * 99, {"all": [[1] * 99, {"all": [[1] * 99, 1]}]}]}]},
    ],
)
@pytest.mark.timeout(120)
def test_a_rule_that_grows_exponentially_runs_out_of_its_budget(expr: Any) -> None:
    """Two lines of JSON Logic can ask for 2**1000 bytes; evaluation stops and counts as no match."""
    assert matches(expr, {"xs": list(range(1_000))}) is False


def test_the_budget_is_a_new_one_for_every_request() -> None:
    """A hostile request does not spend what the next one needs."""
    condition = compile_condition({"==": [accumulated({"cat": BOTH}), "aaaa"]}, name="test")
    assert [condition({"xs": [0] * 500}), condition({"xs": [0, 0]})] == [False, True]


@given(json, contexts)
def test_anything_either_compiles_or_is_refused_with_a_value_error(expr: Any, context: dict[str, Any]) -> None:
    """No document makes the compiler or the condition raise anything else."""
    try:
        condition = compile_condition(expr, name="any")
    except ValueError:
        return
    assert condition(context) in (True, False)


COMPARISONS = ("==", "===", "!=", "!==", "<", "<=", ">", ">=", "!", "!!", "in", "sem_ver", "starts_with", "ends_with")
ARITHMETIC = ("+", "-", "*", "/", "%", "min", "max", "cat", "substr", "merge", "missing", "missing_some", "var")
LOOPS = ("map", "filter", "reduce", "all", "some", "none")
operators = st.sampled_from((*COMPARISONS, *ARITHMETIC, *LOOPS, "if", "?:", "and", "or"))
names = st.sampled_from(["", "a", "b", "a.b", "a.0", "accumulator", "current", "length"])
logic = st.recursive(
    scalars | st.builds(var, names),
    lambda inner: st.builds(lambda operator, args: {operator: args}, operators, st.lists(inner, max_size=4)),
    max_leaves=12,
)


@given(logic, st.dictionaries(st.sampled_from(["a", "b", "c"]), json, max_size=3))
def test_no_rule_and_no_context_make_a_condition_raise(expr: Any, context: dict[str, Any]) -> None:
    """Whatever operators are put together and whatever the client sends: yes or no."""
    try:
        condition = compile_condition(expr, name="any")
    except ValueError:
        return
    assert condition(context) in (True, False)
