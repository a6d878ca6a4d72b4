"""Tensors in shared memory."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.channel import ALIGNMENT, Header, Plan, read_header, read_json
from runtimes.memory import MAX_BYTES, Memory
from runtimes.packets import ChannelFault
from runtimes.signature import DATATYPES


@pytest.fixture
def memory():
    made = Memory.create("test", 1 << 20, writable_by_child=False)
    yield made
    made.close()


def through(memory: Memory, *parts: Any, rows: Any = None):
    plan = Plan(parts, list(parts[0]), rows=rows)
    header = read_header(memory, plan.write(memory))
    return header, header.copies(memory)


def sample(datatype: str):
    dtype = DATATYPES[datatype]
    if datatype == "BYTES":
        values = np.empty((2, 2), dtype=object)
        values[:] = [[b"", "grüß dich".encode()], [b"\x00\xff", b"x" * 1000]]
        return values
    if datatype == "BOOL":
        return np.array([[True, False], [False, True]])
    if dtype.kind == "f":
        return np.array([[np.nan, np.inf], [-0.0, np.finfo(dtype).max]], dtype)
    return np.array([[np.iinfo(dtype).min, np.iinfo(dtype).max], [0, 1]], dtype)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_crosses_bit_by_bit(memory: Memory, datatype: str):
    """Extremes, NaN, empty and binary strings come out as they went in."""
    value = sample(datatype)
    header, out = through(memory, {"x": value}, rows=2)
    assert header.rows == 2
    assert out["x"].dtype == value.dtype
    if datatype == "BYTES":
        assert out["x"].tolist() == value.tolist()
    else:
        assert out["x"].tobytes() == value.tobytes()


@pytest.mark.parametrize("datatype", DATATYPES)
def test_zero_rows_and_scalars_cross(memory: Memory, datatype: str):
    """An empty batch keeps its shape; so does a tensor without axes."""
    value = sample(datatype)
    _, out = through(memory, {"none": value[:0], "one": value[0, 0:1].reshape(())})
    assert out["none"].shape == (0, 2)
    assert out["one"].shape == ()


def test_parts_are_joined_along_the_first_axis_where_they_land(memory: Memory):
    """Slices, other strides and other byte orders included."""
    first = np.arange(24, dtype=np.float32).reshape(4, 6)[:, ::2]
    second = np.arange(6, dtype=np.float32).reshape(3, 2).T
    words = np.array([["a", "é"]] * 4), np.array([[b"b", b"c"]] * 2)
    _, out = through(memory, {"x": first, "s": words[0]}, {"x": second, "s": words[1]}, rows=6)
    assert (out["x"] == np.concatenate([first, second])).all()
    assert out["s"].tolist() == [[b"a", "é".encode()]] * 4 + [[b"b", b"c"]] * 2
    swapped = np.array([1, 2, 3], ">i4")
    assert through(memory, {"x": swapped})[1]["x"].tolist() == [1, 2, 3]


def test_parts_that_do_not_fit_together_are_refused(memory: Memory):
    """Shapes, types and what no datatype describes: a ValueError that names the tensor."""
    with pytest.raises(ValueError, match="'x'"):
        Plan([{"x": np.zeros((1, 2))}, {"x": np.zeros((1, 3))}], ["x"], rows=2)
    with pytest.raises(ValueError, match="'x'"):
        Plan([{"x": np.zeros((1, 2))}, {"x": np.zeros((1, 2), np.float32)}], ["x"], rows=2)
    with pytest.raises(ValueError, match="complex"):
        Plan([{"x": np.zeros(1, complex)}], ["x"], rows=1)
    with pytest.raises(ValueError, match="bytes or str"):
        Plan([{"x": np.array([object()])}], ["x"], rows=1)
    with pytest.raises(ValueError, match="memory has"):
        Plan([{"x": np.zeros(1 << 20)}], ["x"], rows=1).write(memory)


def test_tensors_are_aligned(memory: Memory):
    """Vendors may load them with wide instructions, wherever the header ends."""
    header, _ = through(memory, {f"t{i}": np.zeros(3, np.int8) for i in range(5)})
    assert all((header.start + placed.offset) % ALIGNMENT == 0 for placed in header.tensors)


def test_a_view_that_model_code_keeps_does_not_hinder_closing(memory: Memory):
    """The mapping goes when the view does."""
    plan = Plan([{"x": np.ones(4)}], ["x"], rows=4)
    header = read_header(memory, plan.write(memory))
    view = header.views(memory)["x"]
    memory.close()
    assert view.tolist() == [1, 1, 1, 1]


def test_views_of_an_attached_input_cannot_be_written():
    """So that a model's slip is an error in Python and no fault in the process."""
    ours = Memory.create("test", 4096, writable_by_child=False)
    size = Plan([{"x": np.ones(4)}], ["x"], rows=4).write(ours)
    theirs = Memory.attach(os.dup(ours.fd), writable=False)
    view = read_header(theirs, size).views(theirs)["x"]
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 2
    del view
    theirs.close()
    ours.close()


LIES = {
    "no json": b"{",
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "no tensors": {"rows": 1, "tensors": []},
    "rows as text": {"rows": "1", "tensors": [["y", "FP32", [1], 0, 4]]},
    "negative rows": {"rows": -1, "tensors": [["y", "FP32", [1], 0, 4]]},
    "rows as a truth value": {"rows": True, "tensors": [["y", "FP32", [1], 0, 4]]},
    "too few parts": {"rows": 1, "tensors": [["y", "FP32", [1], 0]]},
    "unknown datatype": {"rows": 1, "tensors": [["y", "object", [1], 0, 4]]},
    "unhashable datatype": {"rows": 1, "tensors": [["y", [], [1], 0, 4]]},
    "unhashable name": {"rows": 1, "tensors": [[{}, "FP32", [1], 0, 4]]},
    "past the end": {"rows": 1, "tensors": [["y", "FP32", [1], 4096, 4]]},
    "negative offset": {"rows": 1, "tensors": [["y", "FP32", [1], -64, 4]]},
    "unaligned": {"rows": 1, "tensors": [["y", "FP32", [1], 4, 4]]},
    "huge shape": {"rows": 1, "tensors": [["y", "FP32", [1 << 40], 0, 4]]},
    "overflowing shape": {"rows": 1, "tensors": [["y", "FP32", [1 << 31, 1 << 31, 4], 0, 0]]},
    "zero behind huge": {"rows": 0, "tensors": [["y", "FP32", [0, 1 << 32, 1 << 32, 1 << 32], 0, 0]]},
    "negative axis": {"rows": 1, "tensors": [["y", "FP32", [-1], 0, 4]]},
    "fractional axis": {"rows": 1, "tensors": [["y", "FP32", [1.0], 0, 4]]},
    "too many axes": {"rows": 1, "tensors": [["y", "FP32", [1] * 65, 0, 4]]},
    "size beyond": {"rows": 1, "tensors": [["y", "FP32", [1], 0, 1 << 33]]},
    "size does not fit": {"rows": 1, "tensors": [["y", "FP32", [2], 0, 4]]},
    "strings that cannot fit": {"rows": 1, "tensors": [["y", "BYTES", [1000], 0, 8]]},
    "same name twice": {"rows": 1, "tensors": [["y", "FP32", [1], 0, 4], ["y", "FP32", [1], 0, 4]]},
    "number bomb": b'{"rows":' + b"9" * 3900 + b"}",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused(lie: str):
    """Whatever a taken-over child writes, the gateway answers with ChannelFault and reads nothing outside."""
    memory = Memory.create("test", 4096, writable_by_child=True)
    content = LIES[lie]
    raw = content[:4000] if isinstance(content, bytes) else json.dumps(content).encode()
    memory.buffer[: len(raw)] = raw
    with pytest.raises(ChannelFault):
        read_header(memory, len(raw))
    memory.close()


@pytest.mark.parametrize("size", [0, 4097, 1 << 31])
def test_a_header_larger_than_its_memory_is_refused(size: int):
    """Also for the answer to a load."""
    memory = Memory.create("test", 4096, writable_by_child=True)
    for read in (read_header, read_json):
        with pytest.raises(ChannelFault):
            read(memory, size)
    memory.close()


def strings(raw: Any, shape: Any, size: int | None = None):
    memory = Memory.create("test", 4096, writable_by_child=True)
    tensor = ["y", "BYTES", shape, 0, len(raw) if size is None else size]
    header = json.dumps({"rows": None, "tensors": [tensor]}).encode()
    memory.buffer[: len(header)] = header
    parsed = read_header(memory, len(header))
    memory.buffer[parsed.start : parsed.start + len(raw)] = raw
    return parsed.copies(memory)["y"]


def test_string_lengths_that_lie_are_refused():
    """Reaching past the tensor, or leaving bytes over."""
    assert strings(b"\x01\x00\x00\x00a", [1]).tolist() == [b"a"]
    for raw, shape in [
        (b"\xff\xff\xff\xffa", [1]),
        (b"\x00\x00\x00\x00a", [1]),
        (b"\x01\x00\x00\x00a\x00\x00\x00", [2]),
    ]:
        with pytest.raises(ChannelFault):
            strings(raw, shape)


def test_truth_values_are_true_or_false_whatever_the_byte(memory: Memory):
    """A byte of 7 in a BOOL tensor would be an undefined bool in the gateway."""
    plan = Plan([{"x": np.zeros(3, bool)}], ["x"], rows=3)
    header = read_header(memory, plan.write(memory))
    memory.buffer[header.start : header.start + 3] = b"\x00\x07\x80"
    assert header.copies(memory)["x"].view(np.uint8).tolist() == [0, 1, 1]


def test_a_batch_beyond_the_limit_is_refused_before_memory_is_made():
    """4 GiB a slot."""
    with pytest.raises(ValueError, match="larger than"):
        Memory.create("test", MAX_BYTES + 1, writable_by_child=True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([*DATATYPES]),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["rows", "tensors"]), inner, max_size=2)
    ),
    max_leaves=12,
)
PLACED = st.tuples(
    st.text(max_size=3),
    st.sampled_from([*DATATYPES]),
    st.lists(st.integers(0, 70), max_size=3),
    st.integers(0, 80).map(lambda n: n * 64),
    st.integers(0, 5000),
).map(list)


@settings(max_examples=300, deadline=None)
@given(st.one_of(JSON, st.fixed_dictionaries({"rows": st.integers(0, 3), "tensors": st.lists(PLACED, max_size=2)})))
def test_generated_headers_never_do_worse_than_a_fault(body: Any):
    """Either arrays that lie within the memory, or ChannelFault."""
    raw = json.dumps(body).encode()[:3000]
    memory = Memory.create("test", 4096, writable_by_child=True)
    memory.buffer[: len(raw)] = raw
    try:
        header = read_header(memory, len(raw))
        assert isinstance(header, Header)
        for placed, array in zip(header.tensors, header.copies(memory).values(), strict=True):
            assert array.shape == placed.shape
    except ChannelFault:
        pass
    finally:
        memory.close()
