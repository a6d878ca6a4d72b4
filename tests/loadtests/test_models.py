"""The models of the benchmarks are what they are called, and the gateway takes what is asked of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import orjson
import pytest

from loadtests.models import IMAGE, MLP, TINY, Model, make_big, make_model


@pytest.mark.parametrize(("model", "answer"), [(TINY, (3,)), (MLP, (10,)), (IMAGE, (3,))], ids=str)
def test_a_model_takes_any_number_of_its_rows(tmp_path: Path, model: Model, answer: tuple[int, ...]) -> None:
    """Both floors and the gateway batch freely."""
    session = onnxruntime.InferenceSession(make_model(model, tmp_path))
    for count in (1, 5):
        (output,) = session.run(None, {"x": model.rows(count)})
        assert output.shape == (count, *answer)


def test_image_averages_over_each_channel(tmp_path: Path) -> None:
    """Little to compute for much to receive."""
    session = onnxruntime.InferenceSession(make_model(IMAGE, tmp_path))
    rows = IMAGE.rows(2)
    np.testing.assert_allclose(session.run(None, {"x": rows})[0], rows.mean((2, 3)), rtol=1e-3)


def test_big_reads_one_row_of_its_table(tmp_path: Path) -> None:
    """A version that is heavy to load and cheap to ask."""
    path = make_big(tmp_path / "big.onnx", size_bytes=1_000_000)
    assert path.stat().st_size == pytest.approx(1_000_000, rel=0.01)
    session = onnxruntime.InferenceSession(path)
    (output,) = session.run(None, {"x": np.array([[3, 0, 0, 0], [3, 1, 1, 1], [4, 0, 0, 0]], np.float32)})
    assert output.shape == (3, 64)
    np.testing.assert_array_equal(output[0], output[1])


def test_both_envelopes_carry_the_same_numbers() -> None:
    """JSON and binary are compared on the same work."""
    written = np.array(orjson.loads(TINY.json().body)["inputs"], np.float32)
    binary = TINY.binary()
    at = int(binary.headers["inference-header-content-length"])
    np.testing.assert_array_equal(np.frombuffer(binary.body, np.float32, offset=at).reshape(1, 4), written)
