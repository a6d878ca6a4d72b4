"""Numbers read straight from the text are those that Python's lists would give, or none."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.codec.json_inputs import PredictEnvelope, read_lists, read_predict
from gateway.codec.limits import CodecLimits
from gateway.codec.rows import WORTH_BYTES, fit_numbers, read_inputs, read_numbers
from gateway.codec.values import read_values
from gateway.errors import TurnoutError
from gateway.messages import DATATYPES, Signature, TensorSpec

LIMITS = CodecLimits(max_depth=8)
OUT = (TensorSpec("y", "FP32", ("batch",)),)
NUMERIC = tuple(name for name in DATATYPES if name not in ("BYTES", "BOOL"))


def signature(datatype: str, rank: int) -> Signature:
    return Signature((TensorSpec("x", datatype, tuple(f"axis{axis}" for axis in range(rank))),), OUT, batched=rank > 0)


def outcome(read: Any, body: bytes, wanted: Signature) -> tuple[Any, ...]:
    """What a body becomes: bytes, type and shape of its array, or the words of its refusal."""
    try:
        envelope: PredictEnvelope = read(body, LIMITS)
        facts = (envelope.id, envelope.key, envelope.context, envelope.timeout_s, envelope.priority)
        arrays, rows = envelope.fit(wanted)
    except TurnoutError as error:
        return type(error), str(error), getattr(error, "problems", ())
    return facts, rows, {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}


def worth(text: bytes) -> bytes:
    """Long enough for the short way."""
    return text + b" " * WORTH_BYTES


@pytest.mark.parametrize("shape", [(3,), (1, 4), (3, 1), (40, 5), (1, 1, 1), (2, 3, 4), (1, 3, 8, 8)])
def test_rectangles_of_any_rank_are_read_exactly(shape: tuple[int, ...]) -> None:
    """Every double comes out as it went in."""
    array = np.random.default_rng(1).standard_normal(shape)
    body = orjson.dumps({"inputs": array}, option=orjson.OPT_SERIALIZE_NUMPY)

    read = read_inputs(body)

    assert read is not None
    assert read.shape == shape
    assert read.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "text",
    [
        b"[]", b"[[]]", b"[[],[]]", b"[[1],[]]", b"[[1,2],[3]]", b"[[1],2]", b"[1,[2]]", b"[[1,2],[3,[4]]]",
        b"[[1,2],[3,[]]]", b"[[[1]],[2]]", b"[[[1]],[[[2]]]]", b"[1,true]", b"[1,null]", b'[1,"2"]', b'["12"]', b"[{}]",
        b"[1,{}]", b"[NaN]", b"[Infinity]", b"[-Infinity]", b"[1e400]", b"[18446744073709551616]", b"[01]", b"[1.]",
        b"[.5]", b"[+1]", b"[1,]", b"[,1]", b"[1 2]", b"[1]]", b"[[1]", b"[1]x", b"[1]\x00", b"[\xff]", b"", b" ", b"1",
        b"{}", b"nul", b"[" * 2000 + b"1" + b"]" * 2000, b"[" * 100_000,
    ],
)  # fmt: skip
def test_whatever_is_no_rectangle_of_numbers_is_not_read(text: bytes) -> None:
    """Ragged, nested, empty, not a number, not JSON, or past what a parser takes."""
    assert read_numbers(text) is None
    assert read_numbers(memoryview(text)) is None
    assert read_inputs(b'{"inputs":' + text + b"}") is None


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"inputs":[1]}',
        b'{"inputs":[1],"id":"a"}',
        b'{"id":"a","inputs":[1]}',
        b'{"inputs":[1],"inputs":[2]}',
        b'{"inputs":{"x":[1]}}',
        b'{"inputs\\u0000":[1]}',
        b'{"inputs"[1]}',
        b'{"inputs":[1]}{}',
        b'[{"inputs":[1]}]',
        b'{"inputs":[1]',
        b'{"input":[1]}',
    ],
)
def test_an_envelope_of_anything_but_inputs_goes_the_longer_way(body: bytes) -> None:
    """One key, once, and nothing beside it."""
    assert read_inputs(body) is None
    assert outcome(read_predict, worth(body), signature("FP32", 1)) == outcome(
        read_lists, worth(body), signature("FP32", 1)
    )


def test_many_short_rows_with_one_nested_deeper_are_not_believed() -> None:
    """Where all lengths and the sum of the values agree, only the brackets tell."""
    rows = [[1, 2]] * 100
    crooked = orjson.dumps([*rows, [[3, 4], 5], [6, 7]])

    assert read_numbers(orjson.dumps(rows)) is not None
    assert read_numbers(crooked) is None


def test_a_body_of_more_values_than_the_limit_is_refused_as_before() -> None:
    """The short way takes nothing that the longer one would not."""
    body = worth(orjson.dumps({"inputs": [[1, 2, 3]] * 100}))
    limits = CodecLimits(max_elements=299)

    for read in (read_predict, read_lists):
        with pytest.raises(TurnoutError, match="299"):
            read(body, limits).fit(signature("FP32", 2))


def test_an_envelope_read_from_its_text_can_be_fitted_to_any_signature() -> None:
    """A fallback may ask for integers, for two inputs, or for what the numbers are not."""
    body = worth(b'{"inputs":[[1,2],[3,4.5]]}')
    envelope = read_predict(body, LIMITS)

    assert envelope.fit(signature("FP32", 2))[0]["x"].tolist() == [[1, 2], [3, 4.5]]
    for wanted in (signature("INT8", 2), signature("BOOL", 2), signature("BYTES", 2), signature("FP32", 3)):
        assert outcome(lambda *_: envelope, body, wanted) == outcome(read_lists, body, wanted)
    assert envelope.fit(signature("FP64", 2))[1] == 2


number = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(orjson.dumps),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(orjson.dumps),
    st.integers(-(2**66), 2**66).map(lambda value: str(value).encode()),
    st.sampled_from(
        [b"-0", b"-0.0", b"0e0", b"1e5", b"1E-5", b"1e400", b"1e-400", b"9007199254740993", b"9007199254740993.0",
         b"9223372036854775808", b"18446744073709551615", b"18446744073709551616", b"65504", b"65520", b"3.5e38",
         b"2.2250738585072011e-308", b"0.1000000000000000055511151231257827021181583404541015625"]
    ),
)  # fmt: skip
odd = st.sampled_from([b"true", b"null", b'"a"', b'"[1]"', b"{}", b"[]", b"[1]", b'{"a":1}', b"NaN", b"-", b"", b"1 1"])


@st.composite
def nested(draw: st.DrawFn, leaves: st.SearchStrategy[bytes]) -> bytes:
    """A text of lists in lists, often of one shape."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    space = draw(st.sampled_from([b"", b"", b" ", b"\n\t"]))

    def write(level: int) -> bytes:
        if level == len(shape):
            return draw(leaves)
        return b"[" + space + (b"," + space).join(write(level + 1) for _ in range(shape[level])) + b"]"

    return write(0)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """The same, with a byte or a piece changed."""
    text = draw(nested(st.one_of(number, number, number, number, odd)))
    at = draw(st.integers(0, len(text)))
    cut = draw(st.integers(0, 2))
    return (
        text[:at]
        + draw(st.sampled_from([b"", b"]", b"[", b",", b"{", b"}", b'"', b"1", b"[]", b"\xef\xbb\xbf"]))
        + text[at + cut :]
    )


@settings(derandomize=True, max_examples=1500, deadline=None)
@given(st.one_of(nested(number), damaged()), st.sampled_from(sorted(DATATYPES)), st.integers(0, 4))
def test_both_ways_read_the_same_or_refuse_in_the_same_words(text: bytes, datatype: str, rank: int) -> None:
    """Bit for bit, over texts that are whole and texts that are not."""
    body = worth(b'{"inputs":' + text + b"}")
    wanted = signature(datatype, rank)

    assert outcome(read_predict, body, wanted) == outcome(read_lists, body, wanted)


@settings(derandomize=True, max_examples=600, deadline=None)
@given(nested(number), st.sampled_from(NUMERIC), st.integers(1, 3))
def test_what_the_text_gives_is_what_its_lists_give(text: bytes, datatype: str, rank: int) -> None:
    """Whenever there is an answer at all."""
    numbers = read_numbers(text)
    array = None if numbers is None else fit_numbers(numbers, datatype, rank)

    if array is not None:
        careful = read_values(orjson.loads(text), datatype, rank, plain=False)
        assert careful is not None
        assert (array.dtype, array.shape, array.tobytes()) == (careful.dtype, careful.shape, careful.tobytes())
