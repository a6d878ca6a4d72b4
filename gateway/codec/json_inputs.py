"""The ``/predict`` envelope: read once, then fitted to the signature of whichever version is to answer.

{"inputs": [[…], …]}                    one-input model: rows
{"inputs": {"name": [[…], …], …}}       several inputs, by name
optional: "id", "key", "context" (object for rules), "parameters" (object: timeout in µs, priority)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from gateway.codec.faults import Faults, describe, shorten
from gateway.codec.limits import CodecLimits, Document, count_strings, read_document
from gateway.codec.parameters import read_priority, read_timeout, refuse_unsupported, wrong
from gateway.codec.rows import WORTH_BYTES, few_floats, fit_numbers, read_inputs
from gateway.codec.shapes import check_count, count_rows, rows_of, show_shape
from gateway.codec.values import Wanted, find_faults, read_values
from gateway.errors import BadRequest, FieldProblem
from gateway.messages import NOTHING, Array, Arrays, Signature, TensorSpec

__all__ = [
    "MAX_NAME_CHARS",
    "PredictEnvelope",
    "read_context",
    "read_key",
    "read_lists",
    "read_name",
    "read_predict",
    "refuse_duplicates",
]

_new = tuple.__new__

MAX_NAME_CHARS = 1024
"""The longest id or key."""

_ROWS = 2  # axes
_R, _L = b"rl"  # as numbers: looking for bytes in bytes costs four times as much (an exception inside)
_SOLE = b'{"inputs"'
_FIELDS = frozenset({"inputs", "id", "key", "context", "parameters"})


class PredictEnvelope(NamedTuple):
    """``plain``: the inputs are numbers and nothing else, so numpy may read them as they are.
    ``text``: the body of an envelope whose inputs are an array already (see ``gateway.codec.rows``)."""

    inputs: Any
    id: str | None
    key: str | None
    context: Mapping[str, Any]
    timeout_s: float | None
    priority: str | None
    plain: bool
    limits: CodecLimits
    text: bytes | None = None

    def fit(self, signature: Signature) -> tuple[Arrays, int]:
        """Arrays in the signature's order and types, and how many rows they are.

        Raises InvalidInput naming each field that does not fit, TooLarge past the limits.
        Changes nothing: it may run again for another version.
        """
        fitted = self._fit_rows(signature)
        if fitted is not None:
            return fitted
        if self.text is not None:
            return read_lists(self.text, self.limits).fit(signature)
        faults = Faults()
        named, where = self._named(signature, faults)
        if faults:
            raise faults.error()
        arrays: dict[str, Array] = {}
        for spec in signature.inputs:
            array = read_values(named[spec.name], spec.datatype, len(spec.shape), plain=self.plain)
            if array is None:
                self._blame(named[spec.name], spec, where[spec.name], faults)
            else:
                arrays[spec.name] = array
        if faults:
            raise faults.error()
        check_count({name: array.shape for name, array in arrays.items()}, self.limits)
        rows = count_rows(signature, arrays, faults, where)
        if faults:
            raise faults.error()
        return arrays, rows

    def _fit_rows(self, signature: Signature) -> tuple[Arrays, int] | None:
        """One input of numbers, as most have. None when they do not fit: the longer way tells better where and why."""
        if len(signature.inputs) != 1 or not self.plain or type(self.inputs) is dict:
            return None
        spec = signature.inputs[0]
        array = None
        if self.text is None:
            if spec.datatype == "FP32" and len(spec.shape) == _ROWS:
                array = few_floats(self.inputs, len(spec.shape))
            if array is None:
                array = read_values(self.inputs, spec.datatype, len(spec.shape), plain=True)
        else:
            array = fit_numbers(self.inputs, spec.datatype, len(spec.shape))
        if array is None or array.size > self.limits.max_elements:
            return None
        rows = rows_of(array.shape, spec.shape, batched=signature.batched)
        return None if rows is None else ({spec.name: array}, rows)

    def _named(self, signature: Signature, faults: Faults) -> tuple[Mapping[str, Any], dict[str, str]]:
        """Values by input name, and each one's place in the body."""
        if not isinstance(self.inputs, dict):
            if len(signature.inputs) == 1:
                name = signature.inputs[0].name
                return {name: self.inputs}, {name: "inputs"}
            names = ", ".join(repr(spec.name) for spec in signature.inputs)
            faults.add("inputs", f"an object with {names}", describe(self.inputs))
            return {}, {}
        wanted = {spec.name for spec in signature.inputs}
        if self.inputs.keys() != wanted:
            for spec in signature.inputs:
                if spec.name not in self.inputs:
                    faults.add(f"inputs.{spec.name}", f"{spec.datatype} {show_shape(spec.shape)}", "nothing")
            for name in self.inputs:
                if name not in wanted:
                    known = ", ".join(repr(spec.name) for spec in signature.inputs)
                    faults.add(f"inputs.{shorten(name)}", f"only {known}", "an input that the model does not have")
        return self.inputs, {name: f"inputs.{name}" for name in wanted}

    def _blame(self, value: Any, spec: TensorSpec, where: str, faults: Faults) -> None:
        if _is_single_row(value, spec):
            wanted = f"a list of rows, shape {show_shape(spec.shape)}"
            faults.add(where, wanted, "a single row; put it into a list: [[…]]")
            return
        before = len(faults.problems)
        find_faults(value, Wanted(where, spec.datatype, spec.shape), faults, self.limits)
        if len(faults.problems) == before:
            faults.add(where, f"{spec.datatype} {show_shape(spec.shape)}", describe(value))


def read_predict(body: bytes, limits: CodecLimits) -> PredictEnvelope:
    """Raises BadRequest for a body that is no envelope, TooLarge past the limits."""
    if body.startswith(_SOLE) and body.rfind(b'"') == len(_SOLE) - 1:
        # Two quotes in the whole text: inputs and nothing beside them, and no string in them, as in most requests.
        if len(body) < WORTH_BYTES:
            lists = _numbers_in(body)
            if lists is not None:
                return _new(PredictEnvelope, (lists, None, None, NOTHING, None, None, True, limits, None))
        else:
            numbers = read_inputs(body)
            if numbers is not None and numbers.size <= limits.max_elements:
                return PredictEnvelope(numbers, None, None, NOTHING, None, None, True, limits, body)
    return read_lists(body, limits)


def _numbers_in(body: bytes) -> list[Any] | None:
    """The lists of a small envelope; None when it is no JSON, or may hold ``true``, ``false`` or ``null``."""
    if _R in body or _L in body:
        return None
    try:
        inputs = orjson.loads(body)["inputs"]
    except orjson.JSONDecodeError:
        return None
    return inputs if type(inputs) is list else None


def read_lists(body: bytes, limits: CodecLimits) -> PredictEnvelope:
    """``read_predict`` for any body, through Python's lists."""
    document = read_document(body, limits)
    fields = document.value
    if "inputs" not in fields:
        raise BadRequest(
            'the body has no "inputs"; send {"inputs": [[…], …]} or {"inputs": {"name": [[…], …]}}',
            FieldProblem("inputs", "rows, or an object of rows by input name", "nothing"),
        )
    unknown = fields.keys() - _FIELDS
    if unknown:
        names = sorted(shorten(name) for name in unknown)[:8]
        raise BadRequest(
            f"unknown field {names[0]!r}; the envelope has {', '.join(sorted(_FIELDS))}",
            *(FieldProblem(name, f"one of {', '.join(sorted(_FIELDS))}", "an unknown field") for name in names),
        )
    inputs = fields["inputs"]
    if type(inputs) is not list and type(inputs) is not dict:
        raise wrong("inputs", "rows, or an object of rows by input name", inputs)
    parameters = read_context(fields.get("parameters"), "parameters", limits)
    refuse_unsupported(parameters)
    return PredictEnvelope(
        inputs=inputs,
        id=read_name(fields.get("id"), "id"),
        key=read_key(fields.get("key"), "key"),
        context=read_context(fields.get("context"), "context", limits),
        timeout_s=read_timeout(parameters),
        priority=read_priority(parameters),
        plain=_is_plain(document, inputs, limits),
        limits=limits,
    )


def read_name(value: Any, field: str) -> str | None:
    """An optional string of bounded length; BadRequest otherwise."""
    if value is None:
        return None
    if type(value) is not str:
        raise wrong(field, "a string", value)
    if len(value) > MAX_NAME_CHARS:
        raise BadRequest.of(field, f"at most {MAX_NAME_CHARS} characters", f"{len(value)}")
    return value


def read_key(value: Any, field: str) -> str | None:
    """A sticky key. A whole number is taken as its digits, since user ids often are numbers."""
    return read_name(str(value) if type(value) is int else value, field)


def read_context(value: Any, field: str, limits: CodecLimits) -> Mapping[str, Any]:
    """An optional object of bounded size and depth; BadRequest or TooLarge otherwise."""
    if value is None:
        return NOTHING
    if type(value) is not dict:
        raise wrong(field, "an object", value)
    if value:
        count_strings(value, limits, max_values=limits.max_context_values)
    return value


def refuse_duplicates(document: Document, found: int, names: list[str]) -> None:
    """``found`` strings in the parsed value against those in the text: fewer means that a key came twice.

    The parser keeps the last of equal keys; answering for it would hide half of what was sent.
    """
    if found == document.strings:
        return
    twice = [name for name in names if bytes(document.text).count(orjson.dumps(name)) > 1]
    suspects = ", ".join(repr(shorten(name)) for name in twice[:8]) or "one of its objects"
    raise BadRequest(f"the body holds a key twice (see {suspects}); every name may stand once in an object")


def _is_plain(document: Document, inputs: Any, limits: CodecLimits) -> bool:
    fields = document.value
    outside = 1  # the key "inputs" itself
    if len(fields) > 1:
        outside += count_strings({name: value for name, value in fields.items() if name != "inputs"}, limits)
    if type(inputs) is dict:
        outside += len(inputs)
    if outside == document.strings:
        return not document.words
    values = list(inputs.values()) if type(inputs) is dict else inputs
    names = [*fields, *inputs] if type(inputs) is dict else list(fields)
    refuse_duplicates(document, outside + count_strings(values, limits), names)
    return False


def _is_single_row(value: Any, spec: TensorSpec) -> bool:
    if len(spec.shape) != 2 or type(value) is not list or not value or type(value[0]) is list:
        return False
    width = spec.shape[1]
    return list not in set(map(type, value)) and (isinstance(width, str) or len(value) == width)
