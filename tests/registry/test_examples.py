"""Example inputs: as people write them, and the one form that is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from gateway.errors import InvalidRegistration, RegistryError
from gateway.messages import Array, Signature, TensorSpec
from gateway.registry.examples import Example, from_canonical, to_canonical

Y = (TensorSpec("y", "FP32", ("batch",)),)
ROWS = Signature((TensorSpec("x", "FP32", ("batch", 2)),), Y)
WORDS = Signature((TensorSpec("word", "BYTES", ("batch",)), TensorSpec("n", "INT8", ("batch",))), Y)

arrays = npst.arrays(
    st.sampled_from([np.float32, np.float64, np.int8, np.int64, np.uint64, np.bool_, np.float16]),
    npst.array_shapes(min_dims=0, max_dims=3, max_side=4),
    elements={"allow_nan": False, "allow_infinity": False},
)


@settings(deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), arrays, min_size=1, max_size=3))
def test_what_is_kept_comes_back_with_its_types(inputs: dict[str, Array]) -> None:
    """Bytes and values, shape and type."""
    data = to_canonical(inputs)
    back = from_canonical(data)
    assert back.keys() == inputs.keys()
    for name, array in inputs.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        np.testing.assert_array_equal(back[name], array)
    assert to_canonical(back) == data


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [[1, 2.5]]},
        {"inputs": {"x": [[1, 2.5]]}},
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2.5]}]},
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [[1, 2.5]]}]},
        [[1, 2.5]],
    ],
)
def test_every_way_of_writing_it_gives_the_same_arrays(body: Any) -> None:
    """As for ``/predict``, as in the protocol, or the bare rows."""
    [(name, array)] = Example.of_body(body, "example").inputs(ROWS).items()
    assert (name, array.dtype, array.tolist()) == ("x", np.float32, [[1.0, 2.5]])


def test_numpy_files_are_examples_too(tmp_path: Path) -> None:
    """``.npy`` for the only input, ``.npz`` by name."""
    rows = np.array([[1, 2.5]], np.float32)
    np.save(tmp_path / "x.npy", rows)
    np.savez(tmp_path / "x.npz", x=rows)
    for name in ("x.npy", "x.npz"):
        np.testing.assert_array_equal(Example.of_file(tmp_path / name).inputs(ROWS)["x"], rows)
    (tmp_path / "bad.npz").write_bytes(b"PK")
    with pytest.raises(InvalidRegistration, match=r"bad.npz"):
        Example.of_file(tmp_path / "bad.npz").inputs(ROWS)


def test_without_a_signature_types_are_guessed_as_documented() -> None:
    """Integers INT64, fractions FP32, strings BYTES."""
    inputs = Example.of_body({"inputs": {"a": [1], "b": [1.5], "c": ["x"]}}, "example").inputs(None)
    assert {name: str(array.dtype) for name, array in inputs.items()} == {"a": "int64", "b": "float32", "c": "object"}


def test_strings_are_kept_as_utf_8() -> None:
    """BYTES travel as bytes, and are kept as text."""
    inputs = Example.of_body({"inputs": {"word": ["süß"], "n": [3]}}, "example").inputs(WORDS)
    assert inputs["word"].tolist() == ["süß".encode()]
    assert from_canonical(to_canonical(inputs))["word"].tolist() == ["süß".encode()]
    with pytest.raises(InvalidRegistration, match=r"'word': .* is not UTF-8"):
        to_canonical({"word": np.array([b"\xff"], object)})


@pytest.mark.parametrize(
    ("signature", "body", "told"),
    [
        (ROWS, {"inputs": [[1, 2, 3]]}, r"'x' has shape \[1, 3\]; the signature says \['batch', 2\]"),
        (ROWS, {"inputs": {"z": [[1, 2]]}}, r"inputs \['z'\] do not fit the signature's \['x'\]"),
        (ROWS, {"inputs": [[1], [2, 3]]}, "'x' is ragged"),
        (ROWS, {"inputs": [["a", "b"]]}, "'x' holds BYTES; expected FP32"),
        (ROWS, {"inputs": [[None, 1]]}, "expected numbers, booleans or strings"),
        (ROWS, {"inputs": []}, "expected .* with at least one tensor"),
        (ROWS, {}, "expected .* with at least one tensor"),
        (ROWS, 7, "expected .* with at least one tensor"),
        (WORDS, {"inputs": [["a"]]}, r"takes several inputs \(word, n\); name each"),
        (WORDS, {"inputs": {"word": ["a"], "n": [1.5]}}, "'n' holds FP64; expected INT8"),
        (WORDS, {"inputs": {"word": ["a"], "n": [300]}}, "'n' holds values that do not fit INT8"),
        (WORDS, {"inputs": {"word": [1], "n": [3]}}, "'word' holds INT64; expected BYTES"),
        (ROWS, {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1]}]}, "do not fill its shape"),
        (ROWS, {"inputs": [{"name": "x", "datatype": "FLOAT", "shape": [1], "data": [1]}]}, "datatype of 'x'"),
        (ROWS, {"inputs": [{"name": "x", "datatype": "FP32", "shape": ["n"], "data": [1]}]}, "has sizes, not names"),
    ],
)
def test_an_example_that_does_not_fit_is_refused_by_its_tensor(signature: Signature, body: Any, told: str) -> None:
    """What it is, and what was expected."""
    with pytest.raises(InvalidRegistration, match=f"^example: .*{told}"):
        Example.of_body(body, "example").inputs(signature)


def test_a_number_that_overflows_its_type_is_refused() -> None:
    """It would become infinite, which JSON cannot keep."""
    inputs = Example.of_body({"inputs": [[1e300, 1]]}, "example").inputs(ROWS)
    with pytest.raises(InvalidRegistration, match="inf is not a JSON number"):
        to_canonical(inputs)


def test_a_stored_example_that_was_edited_is_refused() -> None:
    """Only canonical bytes are read back."""
    with pytest.raises(RegistryError, match="not in canonical form"):
        from_canonical(json.dumps({"inputs": []}, indent=1).encode())
    with pytest.raises(RegistryError, match="the stored example: "):
        from_canonical(b'{"inputs":[]}')
