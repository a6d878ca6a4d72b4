"""Contents: one digest for equal tensors, and tensors that arrive as they were sent."""

from __future__ import annotations

import hashlib
import marshal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from gateway.messages import DATATYPES, Array
from gateway.recording.contents import bytes_of, digest_of, pack_tensors, unpack_tensors

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
