"""What goes out as JSON is valid JSON."""

from __future__ import annotations

import tracemalloc

import numpy as np
import orjson
import pytest

from gateway.codec.json_outputs import dump_json, write_predict
from gateway.messages import DATATYPES


@pytest.mark.parametrize("datatype", sorted(set(DATATYPES) - {"BYTES"}))
def test_every_numeric_datatype_is_written_as_numbers(datatype: str) -> None:
    """Nested by row; booleans as booleans; scalars as scalars; strided memory as it reads."""
    base = np.ones((2, 4), DATATYPES[datatype])

    body = orjson.loads(write_predict(b'{"version":3,"outputs":', {"a": base[:, ::2], "b": base[0, 0], "c": base[:0]}))

    one = True if datatype == "BOOL" else 1
    assert body == {"version": 3, "outputs": {"a": [[one, one], [one, one]], "b": one, "c": []}}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nan_and_infinity_become_null(dtype: type[np.floating]) -> None:
    """JSON has no word for them; binary tensors have."""
    array = np.array([np.nan, np.inf, -np.inf, 1.0], dtype)

    body = orjson.loads(write_predict(b'{"outputs":', {"y": array, "scalar": np.array(np.nan, dtype)}))

    assert body["outputs"] == {"y": [None, None, None, 1.0], "scalar": None}


def test_bytes_become_text_or_base64() -> None:
    """As the envelope takes them, too."""
    array = np.empty((2, 1), object)
    array[:, 0] = ["ü".encode(), b"\xff\xfe"]

    body = orjson.loads(write_predict(b'{"outputs":', {"y": array, "u": np.array(["a", "b"])}))

    assert body["outputs"] == {"y": [["ü"], [{"b64": "//4="}]], "u": ["a", "b"]}


def test_lone_surrogates_do_not_end_an_error_message() -> None:
    """A path or a header may hold what UTF-8 cannot."""
    assert orjson.loads(dump_json({"detail": "no route '\udc80'", "list": ["\ud800"]}))["detail"].startswith("no route")


def test_a_large_answer_is_copied_once() -> None:
    """Beside its text, for which orjson takes twice the room: one more copy costs the loop a third of the whole."""
    outputs = {"y": np.random.default_rng(1).random((500, 500))}
    tracemalloc.start()
    try:
        body = write_predict(b'{"decision":"7","outputs":', outputs)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3.2 * len(body)
    assert np.array_equal(orjson.loads(body)["outputs"]["y"], outputs["y"])
