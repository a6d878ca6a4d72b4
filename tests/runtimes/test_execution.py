"""Outputs held against the signature, and foreign errors translated at the border."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes.base import InvalidInput, LoadFailed, ModelFailed, OutOfMemory
from runtimes.bfloat16 import narrow, widen
from runtimes.catalog import guess_format
from runtimes.example import synthetic_inputs
from runtimes.execution import conform, execute, load
from tests.runtimes.versions import load_spec, signature

ONE = signature({"x": ("FP32", ("batch", 2))}, {"y": ("FP32", ("batch",)), "s": ("BYTES", ("batch",))})


def good(rows: Any = 3):
    return {"s": np.array(["a"] * rows), "y": np.arange(rows, dtype=np.float64), "extra": np.zeros(1)}


def test_outputs_come_in_the_order_types_and_rows_of_the_signature():
    """What the model gives beyond it is left out."""
    outputs = conform(good(), ONE, 3)
    assert list(outputs) == ["y", "s"]
    assert outputs["y"].dtype == np.float32


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"y": np.zeros(2)}, r"shape \[2\] for a batch of 3 rows"),
        ({"y": np.float32(1)}, r"shape \[\] for a batch of 3 rows"),
        ({"y": np.zeros((3, 1))}, r"shape \[3, 1\], the signature says \['batch'\]"),
        ({"y": np.array(["a"] * 3)}, "has type BYTES, the signature says FP32"),
        ({"y": np.zeros(3, complex)}, "has type complex128"),
        ({"s": np.zeros(3)}, "has type FP64, the signature says BYTES"),
    ],
)
def test_an_answer_that_could_reach_the_wrong_caller_is_the_models_failure(change: Any, told: str):
    """Rows that do not match the batch, shapes and kinds that do not match the signature."""
    with pytest.raises(ModelFailed, match=told):
        conform(good() | change, ONE, 3)


def test_missing_outputs_and_no_mapping_are_the_models_failure():
    """With what it did return."""
    with pytest.raises(ModelFailed, match="returned y; the signature also promises s"):
        conform({"y": np.zeros(3)}, ONE, 3)
    with pytest.raises(ModelFailed, match="returned a list"):
        conform([1], ONE, 3)  # type: ignore[arg-type]


class Raising:
    signature = ONE
    device = "cpu"

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def run(self, inputs: Any):
        raise self.error

    def close(self):
        pass


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (ZeroDivisionError("by zero"), ModelFailed),
        (SystemExit(3), ModelFailed),
        (RecursionError("deep"), ModelFailed),
        (MemoryError(), OutOfMemory),
        (InvalidInput("no"), InvalidInput),
    ],
)
def test_whatever_model_code_raises_has_a_kind(error: Any, becomes: Any, capsys: pytest.CaptureFixture[str]):
    """Also exit(), which must not end the child."""
    with pytest.raises(becomes):
        execute(Raising(error), {}, 1)


def test_a_load_that_raises_is_a_load_failure_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """File and line of the version's own code."""
    spec = load_spec(tmp_path, "python", "model.py", {"model.py": b"x = 1\nraise KeyError('weights')\n"})
    with pytest.raises(LoadFailed, match=r"raised KeyError: 'weights' \(model.py:2\)"):
        load(spec)
    assert "KeyError" in capsys.readouterr().err


def test_unknown_formats_are_told_with_the_known_ones(tmp_path: Path):
    """Before anything is imported."""
    with pytest.raises(LoadFailed, match="'tf' is unknown; expected one of onnx, torch"):
        load(load_spec(tmp_path, "tf", "m", {"m": b""}))


def test_formats_are_guessed_by_file_name():
    """As the command line's help says."""
    names = ["a.onnx", "b.PT2", "c.pt", "d.skops", "e.pkl", "f.py", "g.echo", "h.txt"]
    assert [guess_format(name) for name in names] == [
        "onnx", "torch", "torch", "sklearn", "sklearn", "python", "echo", None,
    ]  # fmt: skip


def test_synthetic_inputs_fit_the_signature():
    """Rows where the batch is, ones for other dynamic axes, empty strings."""
    given = signature({"x": ("BF16", ("batch", "n", 3)), "s": ("BYTES", ("batch",))}, {"y": ("FP32", ("batch",))})
    made = synthetic_inputs(given, 5)
    assert made["x"].shape == (5, 1, 3)
    assert made["x"].dtype == np.float32
    assert made["s"].tolist() == [b""] * 5
    alone = signature({"x": ("INT64", ("n",))}, {"y": ("INT64", ())}, batched=False)
    assert synthetic_inputs(alone, 5)["x"].shape == (1,)


def test_bfloat16_rounds_to_nearest_even_and_widens_exactly():
    """As hardware does; NaN and infinities survive."""
    values = np.array([1.0, 1.00390625, 1.01171875, -2.5, np.inf, -np.inf, np.nan, 3.3895314e38, 0.0], np.float32)
    back = widen(narrow(values))
    assert back[:3].tolist() == [1.0, 1.0, 1.015625]
    assert back[3:6].tolist() == [-2.5, np.inf, -np.inf]
    assert np.isnan(back[6])
    assert (widen(narrow(back[:6])) == back[:6]).all()
    assert narrow(np.array([np.uint32(0x7F800001)], np.uint32).view(np.float32))[0] & 0x7F
