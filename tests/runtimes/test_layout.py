"""Layouts: how batches lie in the memory that gateway and child share."""

from __future__ import annotations

import gc
import json
import os
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.channel import ALIGNMENT, pack_strings, read_json
from runtimes.layout import (
    LAYOUTS,
    RESERVED_BYTES,
    Layout,
    Placed,
    string_sizes,
)
from runtimes.memory import MAX_BYTES, Memory
from runtimes.packets import ChannelFault
from runtimes.signature import DATATYPES, TensorSpec, datatype_of


@pytest.fixture
def memory():
    made = Memory.create("test", 1 << 20, writable_by_child=False)
    yield made
    made.close()


def through(memory: Memory, *parts: Any, batched: bool = True, capacity: int = 16):
    """Parts in, one batch out, as gateway and child do it."""
    first = parts[0]
    rows = sum(len(next(iter(part.values()))) for part in parts) if batched else 1
    specs = [
        TensorSpec(name, datatype_of(array), tuple(f"a{n}" for n in range(array.ndim))) for name, array in first.items()
    ]
    shapes = tuple(array.shape[1:] if batched else array.shape for array in first.values())
    layout = Layout(specs, shapes, batched=batched, capacity=capacity)
    packed = [
        b"".join(pack_strings(spec.name, part[spec.name]) for part in parts)
        for spec in specs
        if spec.datatype == "BYTES"
    ]
    placed = Placed(layout, memory)
    placed.join(parts, rows, packed)
    sizes = [*map(len, packed)]
    for read in (placed.views(rows, sizes), placed.leased(rows, sizes)[0]):
        assert [*read] == [*first]
        for name, array in placed.copies(rows, sizes).items():
            assert array.dtype == read[name].dtype
            assert array.tobytes() == read[name].tobytes() or array.tolist() == read[name].tolist()
    return placed.copies(rows, sizes)


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
    out = through(memory, {"x": value})
    assert out["x"].dtype == value.dtype
    assert out["x"].flags.writeable
    if datatype == "BYTES":
        assert out["x"].tolist() == value.tolist()
    else:
        assert out["x"].tobytes() == value.tobytes()


@pytest.mark.parametrize("datatype", DATATYPES)
def test_zero_rows_and_scalars_cross(memory: Memory, datatype: str):
    """An empty batch keeps its shape; so does a tensor without axes."""
    value = sample(datatype)
    assert through(memory, {"none": value[:0]})["none"].shape == (0, 2)
    assert through(memory, {"one": value[0, 0:1].reshape(())}, batched=False)["one"].shape == ()
    assert through(memory, {"thin": value[:, :0]})["thin"].shape == (2, 0)


def test_parts_are_joined_along_the_first_axis_where_they_land(memory: Memory):
    """Slices, other strides and other byte orders included; names in their order, strings between numbers."""
    first = np.arange(24, dtype=np.float32).reshape(4, 6)[:, ::2]
    second = np.arange(6, dtype=np.float32).reshape(3, 2).T
    words = np.array([["a", "é"]] * 4), np.array([[b"b", b"c"]] * 2)
    numbers = np.arange(4), np.arange(2).astype(">i8")
    parts = [{"x": first, "s": words[0], "n": numbers[0]}, {"x": second, "s": words[1], "n": numbers[1]}]
    out = through(memory, *parts)
    assert (out["x"] == np.concatenate([first, second])).all()
    assert out["s"].tolist() == [[b"a", "é".encode()]] * 4 + [[b"b", b"c"]] * 2
    assert out["n"].tolist() == [0, 1, 2, 3, 0, 1]


def test_parts_that_do_not_fit_together_are_refused(memory: Memory):
    """Other shapes, other types, other rows than the first input's, strings that are none."""
    spec = [TensorSpec("x", "FP64", ("batch", 2)), TensorSpec("z", "FP64", ("batch",))]
    placed = Placed(Layout(spec, ((2,), ()), batched=True, capacity=8), memory)
    good = {"x": np.zeros((1, 2)), "z": np.zeros(1)}
    for bad in (
        {"x": np.zeros((1, 3)), "z": np.zeros(1)},
        {"x": np.zeros((1, 2), np.float32), "z": np.zeros(1)},
        {"x": np.zeros((1, 2)), "z": np.zeros(2)},
        {"x": np.zeros((1, 2)), "z": np.zeros((1, 1))},
    ):
        with pytest.raises((ValueError, TypeError)):
            placed.join([good, bad], 2)
        with pytest.raises((ValueError, TypeError)):
            placed.join([bad], 1)
    with pytest.raises(ValueError, match="bytes or str"):
        pack_strings("s", np.array([object()]))


def test_tensors_are_aligned():
    """Vendors may load them with wide instructions, wherever the reserved bytes end."""
    specs = [TensorSpec(f"t{i}", "INT8", ("batch", 3)) for i in range(5)]
    layout = Layout(specs, ((3,),) * 5, batched=True, capacity=7, start=RESERVED_BYTES)
    assert all(offset % ALIGNMENT == 0 for offset in layout.offsets)
    assert min(layout.offsets) >= RESERVED_BYTES
    assert len(set(layout.offsets)) == 5


X4 = Layout([TensorSpec("x", "FP64", (4,))], ((4,),), batched=False, capacity=1)


def test_a_view_that_model_code_keeps_does_not_hinder_closing(memory: Memory):
    """The mapping goes when the view does."""
    placed = Placed(X4, memory)
    placed.join([{"x": np.ones(4)}], 1)
    view = placed.views(1)["x"]
    del placed
    memory.close()
    assert view.tolist() == [1, 1, 1, 1]


def test_views_of_an_attached_input_cannot_be_written():
    """So that a model's slip is an error in Python and no fault in the process."""
    ours = Memory.create("test", 4096, writable_by_child=False)
    Placed(X4, ours).join([{"x": np.ones(4)}], 1)
    theirs = Memory.attach(os.dup(ours.fd), writable=False)
    view = Placed(X4, theirs).views(1)["x"]
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 2
    del view
    theirs.close()
    ours.close()


def test_a_lease_ends_with_the_last_array_on_it(memory: Memory):
    """Slices of slices, other types and plain buffers count; copies do not."""
    specs = [TensorSpec("x", "FP32", ("batch", 4)), TensorSpec("b", "BOOL", ("batch",))]
    placed = Placed(Layout(specs, ((4,), ()), batched=True, capacity=8), memory)
    placed.join([{"x": np.ones((8, 4), np.float32), "b": np.ones(8, bool)}], 8)
    outputs, base = placed.leased(8)
    lease = weakref.ref(base)
    assert outputs["x"].tolist() == [[1] * 4] * 8
    truths = outputs["b"]
    held: list[Any] = [memoryview(outputs["x"][2:4])]
    later = [outputs["x"][2:][::2].view(np.uint32).T]
    del outputs, base
    gc.collect()
    assert lease() is not None
    held.clear()
    assert lease() is not None
    later.clear()
    assert lease() is None
    assert truths.all()


LIES = {
    "no json": b"{",
    "deep": b"[" * 60_000,
    "an object": b"{}",
    "a number": b"7",
    "too few": [],
    "too many": [[4], [4]],
    "wrong fixed axis": [[5]],
    "wrong rank": [[4, 1]],
    "negative": [[-4]],
    "fractional": [[4.0]],
    "truth value": [[True]],
    "text": [["4"]],
    "no list": [4],
    "number bomb": b"[[" + b"9" * 3900 + b"]]",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_layout_that_lies_is_refused(lie: str):
    """Whatever a taken-over child says, the gateway answers with ChannelFault."""
    content = LIES[lie]
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    with pytest.raises(ChannelFault):
        Layout.parse(raw, [TensorSpec("y", "FP32", ("batch", 4))], batched=True, capacity=8, number=0)


@pytest.mark.parametrize(
    ("shape", "capacity"),
    [([1 << 40], 1), ([1 << 31, 1 << 31], 1), ([0, 1 << 32, 1 << 32], 1), ([4, 4], 1 << 31), ([MAX_BYTES, 4], 1)],
)
def test_a_layout_that_no_memory_can_hold_is_refused(shape: list[int], capacity: int):
    """Products that overflow, hide behind a zero, or are merely too large."""
    spec = [TensorSpec("y", "FP32", ("batch", *(f"a{n}" for n in range(len(shape)))))]
    with pytest.raises(ChannelFault):
        Layout.parse(json.dumps([shape]).encode(), spec, batched=True, capacity=capacity, number=0)


def test_a_layout_for_a_larger_memory_is_refused(memory: Memory):
    """And a number that nobody could have given."""
    spec = [TensorSpec("y", "FP32", ("batch", 4))]
    raw = b"[[4]]"
    with pytest.raises(ChannelFault, match="memory has"):
        Placed(Layout.parse(raw, spec, batched=True, capacity=1 << 20, number=0), memory)
    with pytest.raises(ChannelFault, match="there are"):
        Layout.parse(raw, spec, batched=True, capacity=1, number=LAYOUTS)


@pytest.mark.parametrize("size", [0, 4097, 1 << 31])
def test_a_body_larger_than_its_memory_is_refused(size: int):
    """The answer to a load."""
    memory = Memory.create("test", 4096, writable_by_child=True)
    with pytest.raises(ChannelFault):
        read_json(memory, size)
    memory.buffer[:2] = b"[]"
    with pytest.raises(ChannelFault):
        read_json(memory, 2)
    memory.close()


def strings(raw: bytes, shape: tuple[int, ...], *sizes: int):
    memory = Memory.create("test", 4096, writable_by_child=True)
    memory.buffer[: len(raw)] = raw
    spec = [TensorSpec("y", "BYTES", tuple(f"a{n}" for n in range(len(shape))))]
    layout = Layout(spec, (shape,), batched=False, capacity=1)
    try:
        return Placed(layout, memory).copies(1, sizes or [len(raw)])["y"]
    finally:
        memory.close()


def test_string_lengths_that_lie_are_refused():
    """Reaching past the tensor or the memory, leaving bytes over, more strings than bytes, sizes for nothing."""
    assert strings(b"\x01\x00\x00\x00a", (1,)).tolist() == [b"a"]
    for raw, shape, sizes in [
        (b"\xff\xff\xff\xffa", (1,), ()),
        (b"\x00\x00\x00\x00a", (1,), ()),
        (b"\x01\x00\x00\x00a\x00\x00\x00", (2,), ()),
        (b"\x00" * 8, (1 << 30,), ()),
        (b"", (1,), (4097,)),
        (b"", (1,), (1 << 63,)),
        (b"", (1,), (0, 0)),
    ]:
        with pytest.raises(ChannelFault):
            strings(raw, shape, *sizes)
    with pytest.raises(ChannelFault, match="no list of sizes"):
        string_sizes(b"\x00" * 9)


def test_truth_values_are_true_or_false_whatever_the_byte(memory: Memory):
    """A byte of 7 in a BOOL tensor would be an undefined bool in the gateway."""
    placed = Placed(Layout([TensorSpec("x", "BOOL", (3,))], ((3,),), batched=False, capacity=1), memory)
    memory.buffer[:3] = b"\x00\x07\x80"
    for read in (placed.copies(1), placed.leased(1)[0]):
        assert read["x"].view(np.uint8).tolist() == [0, 1, 1]


def test_a_batch_beyond_the_limit_is_refused_before_memory_is_made():
    """4 GiB a slot."""
    with pytest.raises(ValueError, match="larger than"):
        Memory.create("test", MAX_BYTES + 1, writable_by_child=True)


SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(), lambda inner: st.lists(inner, max_size=4)
)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(SHAPES, st.lists(st.lists(st.integers(0, 70), max_size=3), max_size=3)),
    st.sampled_from([*DATATYPES]),
    st.integers(0, 2**32),
    st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5000), max_size=2),
)
def test_generated_layouts_never_do_worse_than_a_fault(body: Any, datatype: str, capacity: int, sizes: list[int]):
    """Either arrays that lie within the memory, or ChannelFault."""
    memory = Memory.create("test", 4096, writable_by_child=True)
    try:
        spec = [TensorSpec("y", datatype, ("batch", "a", "b"))]
        layout = Layout.parse(json.dumps(body).encode(), spec, batched=True, capacity=capacity, number=1)
        placed = Placed(layout, memory)
        rows = min(capacity, 5)
        assert placed.copies(rows, sizes)["y"].shape == (rows, *layout.shapes[0])
    except ChannelFault:
        pass
    finally:
        memory.close()
