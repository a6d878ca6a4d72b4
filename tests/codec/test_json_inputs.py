"""The /predict envelope, and how it is fitted to a signature."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from gateway.codec.json_inputs import read_predict
from gateway.codec.limits import CodecLimits
from gateway.errors import BadRequest, InvalidInput, TooLarge
from gateway.messages import Signature, TensorSpec

LIMITS = CodecLimits(max_depth=8, max_elements=1000, max_context_values=50)
OUT = (TensorSpec("y", "FP32", ("batch",)),)
ONE = Signature((TensorSpec("x", "FP32", ("batch", 3)),), OUT)
TWO = Signature((TensorSpec("ids", "INT64", ("batch", "length")), TensorSpec("mask", "BOOL", ("batch", "length"))), OUT)
TEXT = Signature((TensorSpec("t", "BYTES", ("batch", 1)),), OUT)
ALONE = Signature((TensorSpec("x", "FP32", (3,)),), OUT, batched=False)


def refusal(body: bytes, signature: Signature) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        read_predict(body, LIMITS).fit(signature)
    return caught.value


def fields(error: InvalidInput) -> list[str]:
    return [problem.field for problem in error.problems]


def test_a_one_input_model_takes_bare_rows_and_rows_by_name() -> None:
    """Both mean the same."""
    for body in (b'{"inputs": [[1,2,3],[4,5,6]]}', b'{"inputs": {"x": [[1,2,3],[4,5,6]]}}'):
        arrays, rows = read_predict(body, LIMITS).fit(ONE)
        assert rows == 2
        assert arrays["x"].dtype == np.float32
        assert arrays["x"].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_the_envelope_carries_id_key_context_and_parameters() -> None:
    """Everything that is optional, read and typed."""
    body = {
        "inputs": [[1, 2, 3]],
        "id": "a",
        "key": 42,
        "context": {"group": "staff"},
        "parameters": {"timeout": 1500, "priority": 1},
    }

    envelope = read_predict(orjson.dumps(body), LIMITS)

    assert (envelope.id, envelope.key, envelope.context) == ("a", "42", {"group": "staff"})
    assert (envelope.timeout_s, envelope.priority) == (0.0015, "high")
    assert envelope.plain


def test_an_envelope_can_be_fitted_twice() -> None:
    """A fallback may have another signature than the version that was chosen."""
    envelope = read_predict(b'{"inputs": [[1,2,3]]}', LIMITS)
    other = Signature((TensorSpec("features", "INT64", ("batch", 3)),), OUT)

    assert envelope.fit(ONE)[0]["x"].dtype == np.float32
    assert envelope.fit(other)[0]["features"].dtype == np.int64
    assert envelope.fit(ONE)[0]["x"].tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[[1,2,3]]",
        b"{}",
        b'{"inputs": null}',
        b'{"inputs": 5}',
        b'{"inputs": "x"}',
        b'{"inputs": [[1,2,3]], "contxt": {}}',
        b'{"inputs": [[1,2,3]], "context": []}',
        b'{"inputs": [[1,2,3]], "id": 5}',
        b'{"inputs": [[1,2,3]], "key": true}',
        b'{"inputs": [[1,2,3]], "parameters": {"timeout": -1}}',
        b'{"inputs": [[1,2,3]], "parameters": {"priority": "urgent"}}',
        b'{"inputs": [[1,2,NaN]]}',
        b'{"inputs": [[1,2,Infinity]]}',
        b'{"inputs": [[1,2,1e999]]}',
        b'{"inputs": ["\\ud800"]}',
        b'{"inputs": [[1,2,3]]} tail',
        b'{"inputs": [[1,2,3]], "id": "' + b"x" * 2000 + b'"}',
    ],
)
def test_what_is_no_envelope_is_a_bad_request(body: bytes) -> None:
    """400: nothing about the model is wrong here."""
    with pytest.raises(BadRequest):
        read_predict(body, LIMITS)


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs": [[1,2,3]], "inputs": [[4,5,6]]}',
        b'{"inputs": {"x": [[1,2,3]], "x": [[4,5,6]]}}',
        b'{"inputs": [[1,2,3]], "context": {"a": 1, "a": 2}}',
        b'{"inputs": {"t": [["a \\" b \\\\"]], "t": [["c"]]}}',
    ],
)
def test_a_key_that_comes_twice_is_refused(body: bytes) -> None:
    """A parser that keeps the last one would hide half of what was sent."""
    with pytest.raises(BadRequest, match="twice"):
        read_predict(body, LIMITS)


def test_quotes_and_backslashes_in_strings_are_no_keys() -> None:
    """The count of quotes knows escapes."""
    text = 'say "hi" \\ and \\" and {"inputs": 1}, true'
    body = orjson.dumps({"inputs": {"t": [[text]]}, "context": {"say": text}, "id": text})

    arrays, rows = read_predict(body, LIMITS).fit(TEXT)

    assert rows == 1
    assert arrays["t"].tolist() == [[text.encode()]]


def test_missing_and_unknown_inputs_are_each_named() -> None:
    """With what the model would have liked."""
    error = refusal(b'{"inputs": {"ids": [[1]], "maks": [[true]]}}', TWO)

    assert fields(error) == ["inputs.mask", "inputs.maks"]
    assert error.problems[0].expected == "BOOL [batch, length]"


def test_bare_rows_for_a_model_of_two_inputs_name_the_inputs() -> None:
    """The client learns what to write."""
    assert refusal(b'{"inputs": [[1,2,3]]}', TWO).problems[0].expected == "an object with 'ids', 'mask'"


def test_a_single_row_is_refused_with_a_hint() -> None:
    """The commonest mistake of all."""
    error = refusal(b'{"inputs": [1,2,3]}', ONE)

    assert "put it into a list" in str(error)


def test_values_that_do_not_fit_are_named_by_their_place() -> None:
    """Name, row and column."""
    error = refusal(b'{"inputs": {"x": [[1,2,3],[4,"five",null]]}}', ONE)

    assert fields(error) == ["inputs.x[1][1]", "inputs.x[1][2]"]
    assert [problem.got for problem in error.problems] == ["the string 'five'", "null"]


def test_booleans_are_found_among_numbers() -> None:
    """Although numpy would read them as ones and zeros."""
    assert fields(refusal(b'{"inputs": [[1,2,true]]}', ONE)) == ["inputs[0][2]"]


def test_equal_axes_must_be_equal_across_tensors() -> None:
    """``length`` is one length."""
    error = refusal(b'{"inputs": {"ids": [[1,2,3]], "mask": [[true,false]]}}', TWO)

    assert fields(error) == ["inputs.mask"]
    assert error.problems[0].expected == "axis 1 (length) of size 3, as in inputs.ids"


def test_rows_must_agree_and_be_at_least_one() -> None:
    """A batch of nothing is no work."""
    apart = Signature((TensorSpec("a", "FP32", ("n",)), TensorSpec("b", "FP32", ("m",))), OUT)

    assert "2 rows" in refusal(b'{"inputs": {"a": [1,2], "b": [1]}}', apart).problems[0].expected
    assert refusal(b'{"inputs": []}', Signature((TensorSpec("a", "FP32", ("n",)),), OUT)).problems[0].got == "no rows"


def test_a_model_that_is_not_batched_takes_its_tensor_as_it_is() -> None:
    """One request, one run, one row."""
    arrays, rows = read_predict(b'{"inputs": [1,2,3]}', LIMITS).fit(ALONE)

    assert rows == 1
    assert arrays["x"].shape == (3,)


def test_a_body_deeper_than_the_limit_is_too_large_at_any_depth() -> None:
    """Refused by the parser, by the walk over the context, or by the search for the fault; never by a crash."""
    for depth in (9, 60, 1000, 1030, 100_000):
        body = b'{"inputs": ' + b"[" * depth + b"1" + b"]" * depth + b"}"
        with pytest.raises(TooLarge):
            read_predict(body, LIMITS).fit(ONE)
        context = b'{"inputs": [[1,2,3]], "context": ' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
        with pytest.raises(TooLarge):
            read_predict(context, LIMITS)


def test_too_many_values_are_refused_before_they_are_parsed() -> None:
    """By their commas."""
    with pytest.raises(TooLarge, match="1001 or more values"):
        read_predict(b'{"inputs": [' + b"1," * 1000 + b"1]}", LIMITS)


def test_a_context_of_too_many_values_is_too_large() -> None:
    """Rules walk it."""
    body = orjson.dumps({"inputs": [[1, 2, 3]], "context": {"list": list(range(60))}})

    with pytest.raises(TooLarge, match="more than 50 values"):
        read_predict(body, LIMITS)
