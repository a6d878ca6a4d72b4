"""Open Inference Protocol v2: requests in JSON and binary, responses both ways."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import orjson
import pytest

from gateway.codec import bfloat
from gateway.codec.limits import CodecLimits
from gateway.codec.oip_binary import read_header_length
from gateway.codec.oip_json import InferEnvelope
from gateway.codec.oip_outputs import write_infer
from gateway.codec.oip_request import read_infer
from gateway.errors import BadRequest, InvalidInput, TooLarge, TurnoutError
from gateway.messages import DATATYPES, Signature, TensorSpec

LIMITS = CodecLimits(max_depth=8, max_elements=1000)
FP32 = Signature((TensorSpec("x", "FP32", ("batch", 2)),), (TensorSpec("y", "FP32", ("batch", 2)),))


def of_type(datatype: str) -> Signature:
    return Signature((TensorSpec("x", datatype, ("batch", 2)),), (TensorSpec("y", datatype, ("batch", 2)),))


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2], **changes}


def read(head: Any, tail: bytes | None = None) -> InferEnvelope:
    text = orjson.dumps(head)
    return read_infer(text + (tail or b""), None if tail is None else len(text), LIMITS)


def binary(raw: bytes, **changes: Any) -> InferEnvelope:
    entry = tensor(**{"parameters": {"binary_data_size": len(raw)}, **changes})
    del entry["data"]
    return read({"inputs": [entry]}, raw)


def answer(head: dict[str, Any], outputs: dict[str, np.ndarray[Any, Any]], signature: Signature) -> Any:
    envelope = read({"inputs": [tensor()], **head})
    body, length = write_infer(envelope, "digits", "3", outputs, signature)
    return orjson.loads(body) if length is None else (orjson.loads(body[:length]), body[length:])


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]]])
def test_json_data_may_be_flat_or_nested(data: Any) -> None:
    """Row-major either way."""
    arrays, rows = read({"inputs": [tensor(shape=[2, 2], data=data)]}).fit(FP32)

    assert rows == 2
    assert arrays["x"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("datatype", sorted(set(DATATYPES) - {"BYTES", "BF16"}))
def test_a_binary_tensor_is_a_view_of_the_body(datatype: str) -> None:
    """No byte of it is copied, wherever it lies."""
    array = np.array([[1, 0], [1, 1]], DATATYPES[datatype])

    envelope = binary(array.tobytes(), datatype=datatype, shape=[2, 2])
    read_back = envelope.fit(of_type(datatype))[0]["x"]

    assert read_back.dtype == array.dtype
    assert read_back.tolist() == array.tolist()
    assert not read_back.flags.owndata
    assert not read_back.flags.writeable


def test_bf16_is_widened_exactly_and_narrowed_again() -> None:
    """The same bits come back."""
    bits = np.array([[0x3F80, 0x7F80], [0xFF80, 0x0001]], np.uint16)

    array = binary(bits.tobytes(), datatype="BF16", shape=[2, 2]).fit(of_type("BF16"))[0]["x"]

    assert array.dtype == np.float32
    assert array[0].tolist() == [1.0, float("inf")]
    assert bfloat.narrow(array).tolist() == bits.tolist()
    assert np.isnan(bfloat.widen(bfloat.narrow(np.array([np.nan], np.float32)))).all()


def test_binary_strings_are_read_by_their_lengths() -> None:
    """Any byte, and none at all."""
    items = [b"", b"\x00\xff", "ü".encode(), b"x" * 300]
    raw = b"".join(struct.pack("<I", len(item)) + item for item in items)

    array = binary(raw, datatype="BYTES", shape=[2, 2]).fit(of_type("BYTES"))[0]["x"]

    assert array.ravel().tolist() == items


def test_json_and_binary_inputs_may_be_mixed() -> None:
    """Each input its own way."""
    signature = Signature((TensorSpec("a", "INT32", ("n",)), TensorSpec("b", "FP64", ("n",))), FP32.outputs)
    raw = np.array([1.5, 2.5]).tobytes()
    head = {
        "inputs": [
            {"name": "b", "datatype": "FP64", "shape": [2], "parameters": {"binary_data_size": len(raw)}},
            {"name": "a", "datatype": "INT32", "shape": [2], "data": [1, 2]},
        ]
    }

    arrays, rows = read(head, raw).fit(signature)

    assert rows == 2
    assert (arrays["a"].tolist(), arrays["b"].tolist()) == ([1, 2], [1.5, 2.5])


def test_request_parameters_are_read() -> None:
    """Key, context (as an object or in a string), timeout in microseconds, priority."""
    for context in ({"group": "staff"}, '{"group": "staff"}'):
        parameters = {"key": "u1", "context": context, "timeout": 2500, "priority": 2, "mine": 1}
        envelope = read({"id": "7", "inputs": [tensor()], "parameters": parameters})
        assert (envelope.id, envelope.key, envelope.context) == ("7", "u1", {"group": "staff"})
        assert (envelope.timeout_s, envelope.priority) == (0.0025, "normal")


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"inputs": []},
        {"inputs": {}},
        {"inputs": [5]},
        {"inputs": [tensor(name="")]},
        {"inputs": [tensor(name=5)]},
        {"inputs": [tensor(datatype="FLOAT")]},
        {"inputs": [tensor(datatype=["FP32"])]},
        {"inputs": [tensor(shape=None)]},
        {"inputs": [tensor(shape=[-1, 2])]},
        {"inputs": [tensor(shape=[True, 2])]},
        {"inputs": [tensor(shape=[1.0, 2])]},
        {"inputs": [tensor(shape=[1] * 33)]},
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2]}]},
        {"inputs": [tensor(parameters={"binary_data_size": 8})]},
        {"inputs": [tensor(parameters=[])]},
        {"inputs": [tensor(parameters={"shared_memory_region": "r"})]},
        {"inputs": [tensor(), tensor()]},
        {"inputs": [tensor()], "outputs": [{"name": "y"}, {"name": "y"}]},
        {"inputs": [tensor()], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]},
        {"inputs": [tensor()], "outputs": [{"name": "y", "parameters": {"classification": -1}}]},
        {"inputs": [tensor()], "parameters": {"sequence_id": 5}},
        {"inputs": [tensor()], "parameters": {"timeout": "soon"}},
        {"inputs": [tensor()], "parameters": {"context": "[1"}},
        {"inputs": [tensor()], "parameters": {"binary_data_output": "yes"}},
        {"inputs": [tensor()], "id": 5},
    ],
)
def test_what_is_no_infer_request_is_a_bad_request(head: Any) -> None:
    """400, naming the field."""
    with pytest.raises(BadRequest):
        read(head)


def test_a_key_that_comes_twice_is_refused() -> None:
    """Also within a tensor, and beside strings that hold quotes."""
    for text in (
        b'{"inputs":[],"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}',
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2],"data":[3,4]}]}',
        b'{"inputs":[{"name":"x","datatype":"BYTES","shape":[1,2],"data":["\\"","a"],"name":"x"}]}',
    ):
        with pytest.raises(BadRequest, match="twice"):
            read_infer(text, None, LIMITS)


@pytest.mark.parametrize("text", ["-1", "x", "1.5", "0x10", "", " 5", "٣", "9" * 30])
def test_a_header_length_that_is_no_whole_number_is_a_bad_request(text: str) -> None:
    """Also digits that are not ASCII."""
    with pytest.raises(BadRequest):
        read_header_length(text)


def test_sizes_of_binary_data_must_add_up() -> None:
    """Neither less nor more than the body has, and a header no longer than the body."""
    entry = {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
    for size, tail in ((8, bytes(7)), (8, bytes(9)), (2**60, bytes(8))):
        head = {"inputs": [{**entry, "parameters": {"binary_data_size": size}}]}
        with pytest.raises(BadRequest):
            read(head, tail)
    with pytest.raises(BadRequest):
        read_infer(b'{"inputs": []}', 5000, LIMITS)


@pytest.mark.parametrize(
    ("raw", "changes", "field"),
    [
        (bytes(7), {}, "inputs.x"),
        (bytes(16), {}, "inputs.x"),
        (b"\x02\x00", {"datatype": "BOOL"}, "inputs.x[0]"),
        (b"\x01\x00\x00", {"datatype": "BYTES"}, "inputs.x"),
        (struct.pack("<II", 0, 9), {"datatype": "BYTES"}, "inputs.x[1]"),
        (struct.pack("<III", 0, 0, 0), {"datatype": "BYTES"}, "inputs.x"),
        (struct.pack("<II", 2**32 - 1, 0), {"datatype": "BYTES"}, "inputs.x[0]"),
    ],
)
def test_binary_data_that_does_not_fill_its_tensor_is_invalid(raw: bytes, changes: Any, field: str) -> None:
    """422, with the bytes that were expected."""
    with pytest.raises(InvalidInput) as caught:
        binary(raw, **changes).fit(of_type(changes.get("datatype", "FP32")))

    assert caught.value.problems[0].field == field


@pytest.mark.parametrize(
    "changes",
    [
        {"datatype": "FP64"},
        {"shape": [1, 3], "data": [1, 2, 3]},
        {"shape": [2], "data": [1, 2]},
        {"data": [1]},
        {"data": [1, 2, 3]},
        {"data": [[1], [2]]},
        {"data": [1, "2"]},
        {"data": [1, None]},
        {"data": {}},
        {"data": "12"},
        {"name": "z"},
        {"shape": [0, 2], "data": []},
    ],
)
def test_a_tensor_that_does_not_fit_is_invalid(changes: Any) -> None:
    """422, never cast, cut or reshaped."""
    with pytest.raises(InvalidInput):
        read({"inputs": [tensor(**changes)]}).fit(FP32)


@pytest.mark.parametrize("shape", [[2**62, 4], [10**6, 10**6], [0, 2**62], [1001, 1]])
def test_a_shape_of_too_many_values_is_too_large(shape: list[int]) -> None:
    """The product is counted without overflow, and before anything is allocated."""
    with pytest.raises(TooLarge):
        read({"inputs": [tensor(shape=shape)]})


def test_an_unknown_output_is_invalid() -> None:
    """Known before the model runs."""
    with pytest.raises(InvalidInput, match=r"outputs\.z"):
        read({"inputs": [tensor()], "outputs": [{"name": "z"}]}).fit(FP32)


def test_the_body_alone_can_be_the_tensor() -> None:
    """A header length of zero: the length tells the rows."""
    raw = np.arange(6, dtype=np.float32).tobytes()

    arrays, rows = read_infer(raw, 0, LIMITS).fit(FP32)

    assert rows == 3
    assert arrays["x"].tolist() == [[0, 1], [2, 3], [4, 5]]
    for wrong in (raw[:-1], b""):
        with pytest.raises(InvalidInput):
            read_infer(wrong, 0, LIMITS).fit(FP32)


def test_outputs_are_flat_in_json_and_null_where_json_has_no_number() -> None:
    """NaN and infinities never make invalid JSON."""
    values = np.array([[1.5, np.nan], [np.inf, -np.inf]], np.float32)

    body = answer({"id": "a"}, {"y": values}, FP32)

    assert body == {
        "model_name": "digits",
        "model_version": "3",
        "id": "a",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [1.5, None, None, None]}],
    }


def test_binary_outputs_follow_the_json_as_asked() -> None:
    """All by the request's parameter, each by its own, which wins."""
    two = Signature(FP32.inputs, (TensorSpec("a", "INT16", ("n",)), TensorSpec("b", "BYTES", ("n",))))
    strings = np.empty(2, object)
    strings[:] = [b"x", b"\xff"]
    outputs = {"a": np.array([1, 2], np.int16), "b": strings}

    head, tail = answer({"parameters": {"binary_data_output": True}}, outputs, two)
    assert [entry["parameters"]["binary_data_size"] for entry in head["outputs"]] == [4, 10]
    assert tail == b"\x01\x00\x02\x00" + b"\x01\x00\x00\x00x\x01\x00\x00\x00\xff"

    asked = [{"name": "b", "parameters": {"binary_data": True}}, {"name": "a"}]
    head, tail = answer({"outputs": asked}, outputs, two)
    assert [entry["name"] for entry in head["outputs"]] == ["b", "a"]
    assert head["outputs"][1]["data"] == [1, 2]
    assert len(tail) == 10


def test_bytes_that_are_no_text_cannot_be_asked_for_as_json() -> None:
    """The client is told to ask for binary data."""
    strings = np.empty(1, object)
    strings[:] = [b"\xff"]

    with pytest.raises(InvalidInput, match="binary_data"):
        answer({}, {"y": strings}, of_type("BYTES"))


def test_classification_gives_the_best_classes_with_their_values() -> None:
    """Best first, NaN last, as strings."""
    values = np.array([[0.1, 0.7, 0.2], [np.nan, -1.0, 3.0]], np.float32)
    asked = {"outputs": [{"name": "y", "parameters": {"classification": 2}}]}

    body = answer(asked, {"y": values}, FP32)

    assert body["outputs"] == [
        {
            "name": "y",
            "datatype": "BYTES",
            "shape": [2, 2],
            "data": ["0.700000:1", "0.200000:2", "3.000000:2", "-1.000000:1"],
        }
    ]
    with pytest.raises(TurnoutError, match="classification"):
        answer(asked, {"y": np.array([1.0], np.float32)}, FP32)


@pytest.mark.parametrize("datatype", sorted(DATATYPES))
@pytest.mark.parametrize("asked_binary", [True, False])
def test_every_datatype_can_be_answered_both_ways(datatype: str, asked_binary: bool) -> None:
    """Also when an output is empty, or no contiguous piece of memory."""
    base = np.full((4, 4), b"a" if datatype == "BYTES" else 1, DATATYPES[datatype])
    for array in (base[:, ::2], base[:0, :2]):
        reply = answer({"parameters": {"binary_data_output": asked_binary}}, {"y": array}, of_type(datatype))
        entry = (reply[0] if asked_binary else reply)["outputs"][0]
        assert (entry["datatype"], entry["shape"]) == (datatype, list(array.shape))
        if not asked_binary:
            assert len(entry["data"]) == array.size
