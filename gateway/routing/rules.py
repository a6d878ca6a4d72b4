"""Rules: a condition in JSON Logic, as flagd defines it, compiled once and then asked on every request.

Evaluation is ``openfeature-flagd-core``'s, operators included; there is no expression language of
our own. Around it stands what a gateway needs when the rule comes from an operator and the
context from anybody:

- A rule is checked when it is made. Unknown operators, wrong numbers of arguments and ``fractional``
  (its bucketing differs between flagd releases; the split is ours) are refused with what to do
  instead. So are ``log``, which writes the client's data to the gateway's output, ``$flagd.timestamp``,
  since decisions know no clock, and objects with several keys: JSON Logic takes them for literals,
  which are true, so the rule would match everybody.
- Evaluation is bounded. A context of more than ``MAX_CONTEXT_VALUES`` values or ``MAX_CONTEXT_CHARACTERS``
  is no match. Without iteration the work is then at most rule size times context size. With it
  (``map``, ``reduce`` …) a few lines can ask for exponential work (an accumulator joined to itself), so
  every operator and every turn of a loop pays from a budget of ``MAX_STEPS``; an empty purse is no match.
- An error inside (a client's zero divisor, a comparison of a list with null) is no match.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from json_logic import jsonLogic
from json_logic.builtins import to_bool
from openfeature.contrib.tools.flagd.core.targeting.custom_ops import normalize_version
from openfeature.contrib.tools.flagd.core.targeting.targeting import OPERATORS as FLAGD_OPERATORS

from gateway.routing.table import Condition

__all__ = [
    "MAX_CONTEXT_CHARACTERS",
    "MAX_CONTEXT_VALUES",
    "MAX_DEPTH",
    "MAX_NODES",
    "MAX_STEPS",
    "compile_condition",
    "fits",
]

MAX_DEPTH = 32
MAX_NODES = 10_000
MAX_STEPS = 20_000
MAX_CONTEXT_VALUES = 2_000
MAX_CONTEXT_CHARACTERS = 65_536

Operator = Callable[..., Any]

_LAZY = frozenset({"if", "?:", "and", "or"})
_LOOPS = frozenset({"map", "filter", "reduce", "all", "some", "none"})
_ARITY = {"starts_with": 2, "ends_with": 2, "sem_ver": 3}
_VERSION_COMPARISONS = frozenset({"=", "!=", "<", "<=", ">", ">=", "^", "~"})
_REFUSED = {
    "fractional": "a share of the traffic belongs into the split: give the rule a split of its own under 'use'",
    "log": "it would write the clients' data to the gateway's output; remove it, the value passes through unchanged",
}
_KNOWN = (frozenset(FLAGD_OPERATORS) | _LAZY | _LOOPS) - frozenset(_REFUSED)
_LITERAL, _TICK = "\0literal", "\0tick"
_MAX_INTEGER_BITS = 1024
_MAX_VERSION_CHARACTERS = 256
_EVALUATION_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,  # RecursionError: a deeply nested value turned to text
    TypeError,
    ValueError,
)


def compile_condition(expr: object, *, name: str) -> Condition:
    """Checks ``expr`` and makes a condition of it that never raises and keeps nothing of the context.

    Raises ``ValueError`` that names the rule, the place inside it, what stands there and what was expected.
    """
    return _Compiler(name).compile(expr)


class _Compiler:
    """One pass over the expression: refuses what must not run, hoists literal lists, plants the loops' toll."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes = 0
        self._loops = False
        self._literals: list[list[Any]] = []

    def compile(self, expr: object) -> Condition:
        if not isinstance(expr, Mapping):
            raise self._fault(
                "",
                f'expected an object with one operator, as {{"==": [{{"var": "group"}}, "staff"]}}, got {_shown(expr)}',
            )
        logic = self._expression(expr, "", 1)
        literals = self._literals
        operators: dict[str, Operator] = {
            **FLAGD_OPERATORS,
            "sem_ver": _quiet_sem_ver,
            _LITERAL: lambda _data, index: literals[index],
        }
        if self._loops:
            return _MeteredCondition(self._name, logic, operators)
        return _PlainCondition(self._name, logic, operators)

    def _fault(self, place: str, message: str) -> ValueError:
        return ValueError(f"rule {self._name!r}{', at ' + place if place else ''}: {message}")

    def _enter(self, place: str, depth: int) -> None:
        self._nodes += 1
        if depth > MAX_DEPTH:
            raise self._fault(place, f"nested deeper than {MAX_DEPTH} levels; simplify the rule or cut it in two")
        if self._nodes > MAX_NODES:
            raise self._fault(place, f"more than {MAX_NODES} values; keep long lists of keys outside the rule")

    def _expression(self, node: object, place: str, depth: int) -> Any:
        self._enter(place, depth)
        if isinstance(node, Mapping):
            return self._operation(node, place, depth)
        if isinstance(node, list | tuple):
            items = [self._expression(item, f"{place}[{index}]", depth + 1) for index, item in enumerate(node)]
            return self._hoisted(items)
        if node is None or isinstance(node, str | bool | int) or (isinstance(node, float) and math.isfinite(node)):
            return node
        raise self._fault(place, f"expected a JSON value, got {_shown(node)}")

    def _hoisted(self, items: list[Any]) -> Any:
        """A list of literals becomes one look-up: the evaluator would otherwise copy it on every request."""
        if len(items) < 2 or any(isinstance(item, dict | list) for item in items):
            return items
        self._literals.append(items)
        return {_LITERAL: [len(self._literals) - 1]}

    def _operation(self, node: Mapping[Any, Any], place: str, depth: int) -> dict[str, Any]:
        if len(node) != 1:
            raise self._fault(
                place,
                f"expected an object with exactly one operator, got {len(node)} keys"
                " (JSON Logic takes that for a literal, which is always true); join conditions with 'and'",
            )
        operator, raw = next(iter(node.items()))
        self._permitted(operator, place)
        place = f"{place}.{operator}" if place else operator
        given = list(raw) if isinstance(raw, list | tuple) else [raw]
        self._arguments_fit(operator, given, place)
        before = self._nodes
        arguments = [self._expression(argument, f"{place}[{index}]", depth + 1) for index, argument in enumerate(given)]
        if operator in _LOOPS:
            self._loops = True
            if len(arguments) > 1:
                arguments[1] = {_TICK: [arguments[1], self._nodes - before]}
        if operator == "reduce" and len(given) > 2:
            arguments[2] = self._start_value(given[2], f"{place}[2]")
        return {operator: arguments}

    def _start_value(self, given: object, place: str) -> Any:
        """The evaluator hands a reduction's start value on as it stands, so it must be a plain value."""
        items = given if isinstance(given, list | tuple) else [given]
        if any(isinstance(item, Mapping | list | tuple) for item in items):
            raise self._fault(place, "expected a plain value to start from; expressions are not evaluated here")
        return list(items) if isinstance(given, list | tuple) else given

    def _permitted(self, operator: object, place: str) -> None:
        if operator in _KNOWN:
            return
        if operator in _REFUSED:
            raise self._fault(place, f"{operator!r} is not available in rules: {_REFUSED[str(operator)]}")
        known = " ".join(sorted(_KNOWN))
        raise self._fault(place, f"unknown operator {_shown(operator)}; expected one of {known}")

    def _arguments_fit(self, operator: str, given: list[Any], place: str) -> None:
        expected = _ARITY.get(operator)
        if expected is not None and len(given) != expected:
            raise self._fault(place, f"expected {expected} arguments, got {len(given)}")
        if operator == "sem_ver" and isinstance(given[1], str) and given[1] not in _VERSION_COMPARISONS:
            comparisons = " ".join(sorted(_VERSION_COMPARISONS))
            raise self._fault(place, f"expected one of {comparisons} as the comparison, got {_shown(given[1])}")
        if operator == "var" and given and isinstance(given[0], str) and given[0].startswith("$flagd.timestamp"):
            raise self._fault(place, "the time is not available in rules: the same request must always decide alike")


def _shown(value: object) -> str:
    """A value for a message: never the repr of something that may be large or refer to itself."""
    if isinstance(value, str):
        return repr(value[:60])
    return repr(value)[:60] if isinstance(value, bool | float | None) else f"a value of type {type(value).__name__}"


def _quiet_sem_ver(data: Any, *arguments: Any) -> bool | None:
    """flagd's ``sem_ver``, without its log entry and traceback for each version a client misspells."""
    if arguments[1] not in _VERSION_COMPARISONS:
        return None
    for version in (arguments[0], arguments[2]):
        if not isinstance(version, str | int | float) or not _is_version(str(version)):
            return None
    result: bool | None = FLAGD_OPERATORS["sem_ver"](data, *arguments)
    return result


@lru_cache(maxsize=1024)
def _is_version(text: str) -> bool:
    if len(text) > _MAX_VERSION_CHARACTERS:
        return False
    try:
        normalize_version(text)
    except ValueError:
        return False
    return True


def fits(context: Mapping[str, Any]) -> bool:
    """Whether the context is small enough to be worth asking: a bounded walk, no recursion."""
    values = characters = 0
    pending: list[Iterator[Any]] = [iter(context.values())]
    while pending:
        for value in pending.pop():
            values += 1
            kind = type(value)
            if kind is str:
                characters += len(value)
            elif kind is dict:
                pending.append(iter(value.values()))
            elif kind is list:
                pending.append(iter(value))
            if values > MAX_CONTEXT_VALUES or characters > MAX_CONTEXT_CHARACTERS:
                return False
    return True


class _PlainCondition:
    """A condition without loops: work is bounded by the sizes of rule and context."""

    __slots__ = ("_logic", "_name", "_operators")

    def __init__(self, name: str, logic: dict[str, Any], operators: dict[str, Operator]) -> None:
        self._name = name
        self._logic = logic
        self._operators = operators

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lstrip('_')} {self._name}>"

    def __call__(self, context: Mapping[str, Any]) -> bool:
        scope = context if type(context) is dict else dict(context)
        if not fits(scope):
            return False
        try:
            return bool(to_bool(jsonLogic(self._logic, scope, self._operators)))
        except _EVALUATION_ERRORS:
            return False


class _BudgetSpent(RuntimeError):
    """The evaluation asked for more than ``MAX_STEPS`` steps."""


class _MeteredCondition(_PlainCondition):
    """A condition with loops. ``_left`` is written by the evaluation under way only: a condition is
    asked on one thread, and two threads would at worst share a budget."""

    __slots__ = ("_left",)

    def __init__(self, name: str, logic: dict[str, Any], operators: dict[str, Operator]) -> None:
        metered = {symbol: self._metered(operator) for symbol, operator in operators.items() if symbol != _LITERAL}
        super().__init__(name, logic, {**metered, _LITERAL: operators[_LITERAL], _TICK: self._tick})
        self._left = MAX_STEPS

    def __call__(self, context: Mapping[str, Any]) -> bool:
        self._left = MAX_STEPS
        return super().__call__(context)

    def _tick(self, _data: Any, value: Any, steps: int) -> Any:
        """One turn of a loop: costs as many steps as its body has nodes."""
        self._pay(steps)
        return value

    def _metered(self, operator: Operator) -> Operator:
        def paid(data: Any, *arguments: Any) -> Any:
            self._pay(1)
            for argument in arguments:
                self._pay_for(argument)
            return operator(data, *arguments)

        return paid

    def _pay(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise _BudgetSpent(f"rule {self._name!r} asked for more than {MAX_STEPS} steps")

    def _pay_for(self, value: Any) -> None:
        """The full size of an operand, shared parts counted as often as an operator would meet them."""
        pending = [value]
        while pending:
            part = pending.pop()
            kind = type(part)
            if kind is str:
                self._pay(1 + (len(part) >> 5))
            elif kind is list:
                self._pay(1 + len(part))
                pending.extend(part)
            elif kind is dict:
                self._pay(1 + len(part))
                pending.extend(part.values())
            elif kind is int and part.bit_length() > _MAX_INTEGER_BITS:
                raise _BudgetSpent(f"rule {self._name!r} made a number of {part.bit_length()} bits")
