"""Contents: one digest for equal tensors, and tensors that arrive as they were sent."""

from __future__ import annotations

import hashlib
import json
import marshal

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from gateway.codec.json_inputs import read_predict
from gateway.codec.limits import CodecLimits
from gateway.codec.oip_request import read_infer
from gateway.events.records import Content
from gateway.messages import DATATYPES, Array, Arrays, Signature, TensorSpec
from gateway.recording.arrived import Arrived, unpack_burst
from gateway.recording.bursts import pack_burst
from gateway.recording.contents import MOST_PLAIN_BYTES, bytes_of, digest_of, pack_tensors, unpack_tensors
from gateway.recording.large import no_policy, sorted_out
from tests.telemetry.records import request

PLAIN = [dtype for name, dtype in DATATYPES.items() if name != "BYTES"]


def texts(*values: bytes) -> Array:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@pytest.mark.parametrize("dtype", PLAIN, ids=str)
@given(data=st.data())
def test_tensors_arrive_as_they_were_sent(dtype: np.dtype[np.generic], data: st.DataObject) -> None:
    """Of every type and shape, also empty ones and views that are not contiguous; and with the digest they had."""
    array = data.draw(arrays_of.arrays(dtype, arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))
    sent = {"features": array, "turned": array.T, "other": array[..., ::2] if array.ndim else array}
    came = unpack_tensors(marshal.loads(marshal.dumps(pack_tensors(sent), 2)))  # noqa: S302 - written here
    assert digest_of(came) == digest_of(sent)
    for name, tensor in sent.items():
        np.testing.assert_array_equal(came[name], tensor)
        assert came[name].dtype == tensor.dtype
        assert not came[name].flags.writeable


@given(st.lists(st.binary(max_size=8), max_size=5))
def test_strings_arrive_as_they_were_sent(values: list[bytes]) -> None:
    """As byte strings, each with its own length."""
    sent = {"names": texts(*values)}
    came = unpack_tensors(marshal.loads(marshal.dumps(pack_tensors(sent), 2)))  # noqa: S302 - written here
    assert came["names"].tolist() == values
    assert digest_of(came) == digest_of(sent)
    assert bytes_of(sent) == sum(map(len, values)) + 8 * len(values)


def test_a_digest_is_of_the_canonical_form() -> None:
    """As anybody could compute it from the description."""
    sent = {"b": np.array([[1, 2]], dtype=np.int16), "a": texts(b"x", b"long")}
    form = b'["a","BYTES",[2]]\n' + b"\1\0\0\0x" + b"\4\0\0\0long" + b'["b","INT16",[1,2]]\n' + b"\1\0\2\0"
    assert digest_of(sent) == hashlib.sha256(form).hexdigest()
    assert digest_of(dict(reversed(sent.items()))) == digest_of(sent)


def spelled(arrays: Arrays) -> str:
    """The digest as the description has it, computed with nothing of ours."""
    form = b""
    for name, array in sorted(arrays.items()):
        line = [
            name,
            "BYTES" if array.dtype.hasobject else {"f": "FP", "i": "INT"}[array.dtype.kind],
            list(array.shape),
        ]
        if array.dtype.hasobject:
            octets = b"".join(len(one).to_bytes(4, "little") + one for one in array.flatten().tolist())
        else:
            line[1] += str(8 * array.itemsize)
            octets = array.astype(array.dtype.newbyteorder("<")).tobytes(order="C")
        if len(octets) > 4096:
            line, octets = [*line, "blake3"], blake3(octets).digest()
        form += json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n" + octets
    return hashlib.sha256(form).hexdigest()


def test_more_than_4096_bytes_stand_in_the_canonical_form_as_their_digest() -> None:
    """Each tensor by itself, strings with their lengths; 4,096 stand there as they are."""
    image = np.arange(3 * 50 * 50, dtype=np.float32).reshape(3, 50, 50)
    few, many = np.arange(512, dtype=np.int64), np.arange(513, dtype=np.int64)
    short, long = texts(b"x" * 4000, b"y" * 88), texts(b"x" * 4000, b"y" * 89)
    sent = {"image": image.T, "few": few, "many": many, "short": short, "long": long, "empty": few[:0]}
    assert digest_of(sent) == spelled(sent)
    assert {name: len(digest_of({name: one})) for name, one in sent.items()} == dict.fromkeys(sent, 64)
    plain = hashlib.sha256(b'["few","INT64",[512]]\n' + few.tobytes()).hexdigest()
    assert digest_of({"few": few}) == plain
    condensed = hashlib.sha256(b'["many","INT64",[513],"blake3"]\n' + blake3(many.tobytes()).digest()).hexdigest()
    assert digest_of({"many": many}) == condensed
    assert (
        digest_of({"short": short}) == spelled({"short": short}) != digest_of({"short": texts(b"x" * 4000, b"y" * 87)})
    )
    stated = hashlib.sha256(b'["a","UINT8",[32],"blake3"]\n').hexdigest()
    assert digest_of({"a": np.zeros(32, np.uint8)}) != stated


sizes = st.sampled_from([1, 2, 30, MOST_PLAIN_BYTES // 8, MOST_PLAIN_BYTES // 8 + 1, 2500, 8192, 20_000])


@given(size=sizes, rows=st.sampled_from([1, 2, 3]), kind=st.sampled_from(["f4", "f8", "i8", "?", "u1", "f2"]))
def test_equal_tensors_have_one_digest_on_every_road(size: int, rows: int, kind: str) -> None:
    """As they lie in memory, whether they cross one by one, joined with others or as their digest."""
    values = (np.arange(rows * size) % 251).reshape(rows, size).astype(kind)
    wide = np.zeros((rows, 2 * size), kind)
    wide[:, ::2] = values
    locked = np.frombuffer(values.tobytes(), kind).reshape(rows, size)
    shifted = np.frombuffer(b"x" + values.tobytes(), np.uint8)[1:].view(kind).reshape(rows, size)
    alike = [values, np.asfortranarray(values), wide[:, ::2], locked, shifted, values[::-1][::-1]]
    wanted = digest_of({"x": values, "z": values[:1]})
    assert {digest_of({"z": one[:1], "x": one}) for one in alike} == {wanted}
    sent = [request(content=Content({"x": one, "z": one[:1]}, {"y": one})) for one in alike]
    alone = request(content=Content({"x": wide[:, ::2], "z": locked[:1]}, None))
    burst = unpack_burst(pack_burst(sent, large_bytes=2**40))
    assert isinstance(burst, Arrived)
    assert burst.digests() == ([wanted] * 6, [digest_of({"y": values})] * 6)
    assert [digest_of(one.content.inputs) for one in burst if one.content and one.content.inputs] == [wanted] * 6
    (came,) = unpack_burst(pack_burst([alone], large_bytes=2**40))
    assert came.content is not None
    assert came.content.inputs is not None
    assert digest_of(came.content.inputs) == wanted
    for one in sorted_out(sent, no_policy).large:
        assert one.with_digests().content[3] == wanted  # type: ignore[index]


@pytest.mark.parametrize("size", [1024, 1025, 30_000])
def test_json_and_binary_requests_with_equal_tensors_have_one_digest(size: int) -> None:
    """On both sides of the bound, and far beyond it."""
    signature = Signature((TensorSpec("x", "FP32", ("batch", size)),), ())
    values = (np.arange(size, dtype=np.float32) / 8).reshape(1, size)
    limits = CodecLimits()
    header = {"name": "x", "datatype": "FP32", "shape": [1, size], "parameters": {"binary_data_size": values.nbytes}}
    head = json.dumps({"inputs": [header]}).encode()
    plain = read_predict(json.dumps({"inputs": values.tolist()}).encode(), limits).fit(signature)[0]
    binary = read_infer(head + values.tobytes(), len(head), limits).fit(signature)[0]
    assert digest_of(plain) == digest_of(binary) == spelled({"x": values})


def test_what_differs_in_name_type_shape_or_value_differs_in_its_digest() -> None:
    """And neighbours cannot be shifted into one another."""
    one = np.array([1, 2], dtype=np.int32)
    cases = [
        {"a": one}, {"b": one}, {"a": one.astype(np.int64)}, {"a": one.reshape(1, 2)}, {"a": one + 1},
        {"a": texts(b"ab", b"c")}, {"a": texts(b"a", b"bc")}, {"a": one[:1], "b": one[1:]}, {},
    ]  # fmt: skip
    assert len({digest_of(case) for case in cases}) == len(cases)


def test_tensors_that_are_left_out_do_not_count() -> None:
    """A digest of few possible values would tell which one it was."""
    one = np.array([1.0])
    assert digest_of({"age": one, "name": one}, without={"age"}) == digest_of({"name": one})
