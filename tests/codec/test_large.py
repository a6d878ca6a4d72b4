"""A large body is read as a small one would be: the same facts, the same bits, the same words of refusal."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.codec.cut import cut_numbers
from gateway.codec.json_inputs import read_lists
from gateway.codec.large import LargeText
from gateway.codec.limits import CodecLimits
from gateway.codec.oip_request import read_infer
from gateway.decoding.process import facts_of
from gateway.errors import TurnoutError
from gateway.messages import DATATYPES, Signature, TensorSpec

LIMITS = CodecLimits(max_depth=8)
OUT = (TensorSpec("y", "FP32", ("batch",)),)
NUMBERS = orjson.dumps([[float(row), 0.5] for row in range(1000)])
ONE = Signature((TensorSpec("x", "FP32", ("batch", 2)),), OUT)
TWO = Signature((TensorSpec("a", "FP64", ("batch", 2)), TensorSpec("b", "INT64", ("batch", 2))), OUT)
TEXTS = Signature((TensorSpec("a", "FP32", ("batch", 2)), TensorSpec("t", "BYTES", ("batch", 1))), OUT)


def outcome(body: bytes, protocol: str, wanted: Signature, *, large: bool, limits: CodecLimits = LIMITS) -> Any:
    try:
        if large:
            reader = LargeText(memoryview(body), protocol, limits)
            facts = facts_of(reader.envelope)
            arrays, rows = reader.fit(wanted)
        else:
            envelope = read_lists(body, limits) if protocol == "predict" else read_infer(body, None, limits)
            facts = facts_of(envelope)
            arrays, rows = envelope.fit(wanted)
    except TurnoutError as error:
        return type(error), str(error), getattr(error, "problems", ())
    return facts, rows, {name: (array.dtype, array.shape, array.tolist()) for name, array in arrays.items()}


def assert_same(body: bytes, wanted: Signature, protocol: str = "predict", limits: CodecLimits = LIMITS) -> Any:
    short = outcome(body, protocol, wanted, large=True, limits=limits)
    assert short == outcome(body, protocol, wanted, large=False, limits=limits)
    return short


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs": ' + NUMBERS + b"}",
        b'\n{"inputs" : ' + NUMBERS + b' , "id": "a"} ',
        b'{"id": "a", "key": 7, "context": {"group": "staff"}, "parameters": {"timeout": 5}, "inputs":'
        + NUMBERS
        + b"}",
        b'{"inputs": {"x":' + NUMBERS + b'}, "id": "a\\"b\\\\", "key": "[1]"}',
        b'{"id": "\\\\", "inputs": ' + NUMBERS + b"}",
    ],
)
def test_a_plain_body_is_cut_and_read(body: bytes) -> None:
    """Whatever stands beside the numbers."""
    assert repr(LargeText(memoryview(body), "predict", LIMITS)).endswith("cut]>")
    facts, rows, _ = assert_same(body, ONE)
    assert rows == 1000
    assert facts["key"] in (None, "7", "[1]")


def test_two_tensors_and_strings_beside_them_are_each_read_as_they_should_be() -> None:
    """One cut out, one a list of integers, one of strings."""
    strings = orjson.dumps([["s"]] * 1000)

    assert len(assert_same(b'{"inputs":{"a":' + NUMBERS + b',"b":' + NUMBERS.replace(b"0.5", b"5") + b"}}", TWO)) == 3
    assert assert_same(b'{"inputs":{"a":' + NUMBERS + b',"t":' + strings + b"}}", TEXTS)[1] == 1000


def tensors(data: bytes, shape: bytes = b"[1000,2]", more: bytes = b"") -> bytes:
    return b'{"inputs":[{"name":"x","datatype":"FP32","shape":' + shape + b',"data":' + data + b"}]" + more + b"}"


def test_the_protocol_s_tensors_are_cut_nested_and_flat() -> None:
    """In either form, and with outputs asked for."""
    flat = NUMBERS.replace(b"[", b"").replace(b"]", b"")
    asked = b',"outputs":[{"name":"y","parameters":{"classification":2}}],"parameters":{"binary_data_output":true}'
    for body in (tensors(NUMBERS), tensors(b"[" + flat + b"]"), tensors(NUMBERS, more=asked)):
        assert repr(LargeText(memoryview(body), "v2", LIMITS)).endswith("cut]>")
        assert assert_same(body, ONE, "v2")[1] == 1000
    for body in (tensors(NUMBERS, b"[2,1000]"), tensors(NUMBERS, b"[999,2]"), tensors(b"[" + flat + b"]", b"[1999]")):
        assert len(assert_same(body, ONE, "v2")) == 3


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs": ' + NUMBERS + b', "inputs": ' + NUMBERS + b"}",
        b'{"inputs": ' + NUMBERS + b', "inputs": []}',
        b'{"id": "a", "id": "b", "inputs": ' + NUMBERS + b"}",
        b'{"inputs": [], "context": {"c": ' + NUMBERS + b"}}",
        b'{"inputs": [[604800000000000017, 1]], "context": {"c": ' + NUMBERS + b"}}",
        b'{"inputs": [604800000000000017], "context": {"c": ' + NUMBERS + b"}}",
        b'{"id": ": ' + NUMBERS + b'", "inputs": [604800000000000017]}',
        b'{"id": "\\": ' + NUMBERS + b', ", "inputs": [[1,2]]}',
        b'{"inputs": ' + NUMBERS + b', "unknown": ' + NUMBERS + b"}",
        b'{"inputs": ' + NUMBERS + b"} x",
        b'{"inputs": ' + NUMBERS + b"]}",
        b'{"inputs": [' + NUMBERS + b"}",
        b'{"inputs": ' + NUMBERS,
        b'{"inputs": ' + NUMBERS[:-1] + b",[1,2,3]]}",
        b'{"inputs": ' + NUMBERS[:-1] + b",[1,null]]}",
        b'{"inputs": ' + NUMBERS[:-1] + b",[1,{}]]}",
        b'{"inputs": ' + NUMBERS[:-1] + b",[1,[2]]]}",
        b'{"inputs": ' + NUMBERS[:-1] + b',[1,"2"]]}',
        b'{"inputs": ' + NUMBERS[:-1] + b",[1,1e39]]}",
        b'{"inputs": ' + NUMBERS[:-1] + b",[1,1e400]]}",
        b'{"inputs": ' + NUMBERS[:-1] + b",[1,18446744073709551616]]}",
        b'{"inputs": ' + NUMBERS[:-1] + b",[1,NaN]]}",
        b'\xef\xbb\xbf{"inputs": ' + NUMBERS + b"}",
        b'{"id": "\xff", "inputs": ' + NUMBERS + b"}",
        b'{"inputs": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"inputs": ' + b"[" * 100_000,
        b'{"inputs": "' + b"a" * 100_000 + b'"}',
        b'{"inputs": ' + b"[[1,2]," * 1000 + b"]}",
        b'{"inputs" ' + NUMBERS + b"}",
        b'{"inputs":: ' + NUMBERS + b"}",
        b'{"inputs": ' + NUMBERS + b'"id": "a"}',
        b'"' + b"\\" * 9000 + b'": ' + NUMBERS,
    ],
)
def test_a_body_that_is_not_plain_gets_the_words_of_the_longer_way(body: bytes) -> None:
    """Repeated keys, lists where no tensor is, damage of every kind, and stand-ins that a client guessed."""
    assert_same(body, ONE)
    assert_same(body, ONE, "v2")


def test_the_limit_on_values_holds_to_the_last_one() -> None:
    """Cut or whole, the same body is too large."""
    body = b'{"inputs": ' + NUMBERS + b"}"
    for limit in (1998, 1999, 2000, 2001):
        assert_same(body, ONE, limits=CodecLimits(max_elements=limit))


def test_a_stand_in_never_equals_a_number_of_the_rest() -> None:
    """Whatever number a client writes, another is taken."""
    body = b'{"context": {"n": [604800000000000017, 604800000000000018]}, "inputs": ' + NUMBERS + b"}"

    cut = cut_numbers(memoryview(body))

    assert cut is not None
    assert list(cut.lists) == [604800000000000019]
    assert cut.list_of([604800000000000019]) == NUMBERS
    assert cut.list_of([604800000000000019.0]) is None


piece = st.sampled_from(
    [b'"', b"\\", b"[", b"]", b"{", b"}", b",", b":", b" ", b"1", b"null", b'"id":"a"', b'"inputs":', NUMBERS, b"\x00",
     b"[604800000000000017]", b'"key":"k",', b'{"inputs":', NUMBERS + b"}", b'"a":']
)  # fmt: skip


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """An envelope around numbers, with pieces put in or a stretch taken out."""
    body = draw(st.sampled_from([
        b'{"inputs": ' + NUMBERS + b', "id": "a"}',
        b'{"id": "\\"", "inputs": {"x": ' + NUMBERS + b"}}",
        tensors(NUMBERS),
    ]))  # fmt: skip
    for _ in range(draw(st.integers(0, 3))):
        edge = draw(st.sampled_from([0, body.find(NUMBERS[:5]), body.find(NUMBERS[-5:]) + 5, len(body)]))
        at = min(len(body), max(0, edge + draw(st.integers(-12, 12))))
        body = body[:at] + draw(piece) + body[at + draw(st.integers(0, 2)) :]
    return body


@settings(derandomize=True, max_examples=800, deadline=None)
@given(documents(), st.sampled_from(["predict", "v2"]))
def test_both_ways_agree_over_damaged_documents(body: bytes, protocol: str) -> None:
    """The same answer or the same refusal, whatever was broken."""
    assert_same(body, ONE, protocol)


@pytest.mark.parametrize("datatype", sorted(DATATYPES))
def test_every_datatype_comes_out_of_a_large_body_as_out_of_a_small_one(datatype: str) -> None:
    """Integers past the exact floats included."""
    wanted = Signature((TensorSpec("x", datatype, ("batch", 2)),), OUT)
    for last in (b"1,2", b"1.5,2", b"9007199254740993,2", b"-9223372036854775808,18446744073709551615", b"true,false"):
        assert_same(
            b'{"inputs": ' + NUMBERS.replace(b"0.5", b"5").replace(b".0", b"")[:-1] + b",[" + last + b"]]}", wanted
        )


def test_a_text_may_be_fitted_again_to_another_signature() -> None:
    """A fallback asks for integers."""
    large = LargeText(memoryview(b'{"inputs": ' + NUMBERS.replace(b"0.5", b"5") + b"}"), "predict", LIMITS)

    assert large.fit(ONE)[0]["x"].dtype == np.float32
    assert large.fit(Signature((TensorSpec("z", "INT64", ("n", 2)),), OUT))[0]["z"].dtype == np.int64
    with pytest.raises(TurnoutError):
        large.fit(TWO)
    assert large.fit(ONE)[1] == 1000
