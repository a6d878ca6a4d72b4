"""What registration asks of a version: its signature."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

from runtimes import boot
from runtimes.base import LoadFailed, LoadSpec, ModelFailed
from runtimes.inspect import inspect, read_example
from tests.runtimes.versions import exported_torch, iris, load_spec, signature

SOURCE = b"""
import numpy as np
print("a model that prints")
class Model:
    def predict(self, inputs):
        return {"sum": inputs["x"].sum(1), "words": np.array(["w"] * len(inputs["x"]))}
"""


def asked(spec: LoadSpec, tmp_path: Path, **more: Any):
    done = subprocess.run(
        boot.command("inspect"),
        input=json.dumps({"spec": spec.to_json(), **more}),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    return done.returncode, json.loads(done.stdout), done.stderr


def test_it_answers_one_line_of_json_from_any_folder(tmp_path: Path):
    """Prints of the model do not disturb; digests of what was read are told."""
    spec = load_spec(tmp_path, "python", "model.py", {"model.py": SOURCE})
    np.savez(tmp_path / "example.npz", x=np.ones((2, 3), np.float32))
    status, body, err = asked(spec, tmp_path, example=str(tmp_path / "example.npz"))
    assert status == 0
    assert body["signature"] == {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 3]}],
        "outputs": [
            {"name": "sum", "datatype": "FP32", "shape": ["batch"]},
            {"name": "words", "datatype": "BYTES", "shape": ["batch"]},
        ],
        "batched": True,
    }
    assert body["loaded"] == {"model.py": spec.files[0].sha256}
    assert "a model that prints" in err


def test_errors_are_json_with_their_kind(tmp_path: Path):
    """And exit status 1."""
    spec = load_spec(tmp_path, "python", "model.py", {"model.py": SOURCE})
    status, body, _ = asked(spec, tmp_path)
    assert status == 1
    assert body["error"]["kind"] == "load-failed"
    assert "give a signature or an example" in body["error"]["message"]
    (tmp_path / spec.files[0].sha256).write_bytes(b"changed")
    assert asked(spec, tmp_path)[1]["error"]["kind"] == "integrity"
    assert asked(LoadSpec("echo", "", ()), tmp_path, example="/no/such.json")[1]["error"]["kind"] == "load-failed"


def test_formats_that_tell_their_signature_need_no_example(tmp_path: Path):
    """torch programs, scikit-learn estimators, echo."""
    torch = inspect(load_spec(tmp_path, "torch", "m.pt2", {"m.pt2": exported_torch()}), None)
    assert [spec.name for spec in torch.signature.outputs] == ["logits", "label"]
    assert inspect(LoadSpec("echo", "", ()), None).signature.inputs[0].name == "x"


def test_an_example_gives_inputs_their_names_and_types(tmp_path: Path):
    """scikit-learn: FP32 by the example, methods by default."""
    x, y = iris()
    model = skops.io.dumps(LogisticRegression(max_iter=500).fit(x, y))
    found = inspect(load_spec(tmp_path, "sklearn", "m.skops", {"m.skops": model}), {"rows": x[:3].astype(np.float32)})
    assert found.signature == signature(
        {"rows": ("FP32", ("batch", 4))}, {"label": ("INT64", ("batch",)), "probabilities": ("FP64", ("batch", 3))}
    )


TOTAL = b"class Model:\n    def predict(self, inputs):\n        return {'total': inputs['x'].sum(keepdims=True)[0]}\n"


def test_axes_that_do_not_follow_the_rows_are_no_batch(tmp_path: Path):
    """One answer for any number of rows: requests must run alone, unless the caller insists, who is then told."""
    spec = load_spec(tmp_path, "python", "model.py", {"model.py": TOTAL})
    example = {"x": np.ones((2, 3), np.float32)}
    found = inspect(spec, example)
    assert not found.signature.batched
    assert found.signature.inputs[0].shape == (2, 3)
    with pytest.raises(ModelFailed, match=r"for 2 rows it answered total \[1\]"):
        inspect(spec, example, batched=True)


def test_a_model_that_raises_on_its_example_cannot_be_registered(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The message is the model's."""
    spec = load_spec(
        tmp_path,
        "python",
        "model.py",
        {"model.py": b"class Model:\n    def predict(self, inputs):\n        raise KeyError('z')\n"},
    )
    with pytest.raises(ModelFailed, match="the example made the model raise KeyError: 'z'"):
        inspect(spec, {"x": np.ones((1, 2))})
    with pytest.raises(LoadFailed, match="SIGNATURE"):
        inspect(spec, None)


def test_examples_are_read_as_people_write_them(tmp_path: Path):
    """By name, bare, as the protocol's list, with numpy."""
    given = signature({"x": ("FP32", ("batch", 2))}, {"y": ("FP32", ("batch",))})
    path = tmp_path / "example.json"
    for body in ({"inputs": {"x": [[1, 2]]}}, {"x": [[1, 2]]}, [[1, 2]], {"inputs": [[1, 2]]}):
        path.write_text(json.dumps(body))
        read = read_example(path, given)
        assert (read["x"].dtype, read["x"].tolist()) == (np.float32, [[1, 2]])
    path.write_text(json.dumps({"inputs": [{"name": "s", "datatype": "BYTES", "shape": [1, 1], "data": ["é"]}]}))
    assert read_example(path, None)["s"].tolist() == [["é".encode()]]
    path.write_text(json.dumps({"a": [1, 2], "b": [0.5], "c": ["x"]}))
    assert [array.dtype for array in read_example(path, None).values()] == [np.int64, np.float32, object]
    np.save(tmp_path / "example.npy", np.zeros((1, 2)))
    assert list(read_example(tmp_path / "example.npy", given)) == ["x"]
    path.write_text("{")
    with pytest.raises(LoadFailed, match=r"expected .npz, .npy, or JSON"):
        read_example(path, None)
