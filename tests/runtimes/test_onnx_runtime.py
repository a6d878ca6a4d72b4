"""ONNX models, trained and converted here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from runtimes.base import IntegrityFailed, InvalidInput, LoadFailed
from runtimes.execution import execute, load
from tests.runtimes.versions import iris, load_spec, signature


@pytest.fixture(scope="module")
def trained():
    from skl2onnx import to_onnx

    x, y = iris()
    model = MLPClassifier((8,), max_iter=80, random_state=0)
    with pytest.warns(ConvergenceWarning, match="iterations"):
        model.fit(x, y)
    converted = to_onnx(model, x[:1].astype(np.float32), options={"zipmap": False})
    return x.astype(np.float32), model, converted.SerializeToString()


def graph(inputs: Any, outputs: Any, nodes: Any, initializers: Any = ()):
    def infos(tensors: Any) -> list[Any]:
        return [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in tensors.items()]

    made = helper.make_graph(nodes, "g", infos(inputs), infos(outputs), list(initializers))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_a_trained_model_tells_its_signature_and_answers_as_it_was_trained(tmp_path: Path, trained: Any):
    """Names, types, named batch axis; the same labels and probabilities as scikit-learn's own."""
    x, model, content = trained
    loaded = load(load_spec(tmp_path, "onnx", "m.onnx", {"m.onnx": content}))
    runtime = loaded.runtime
    assert runtime.signature.batched
    assert runtime.device == "cpu"
    assert [spec.to_json() for spec in runtime.signature.inputs] == [
        {"name": "X", "datatype": "FP32", "shape": ["batch", 4]}
    ]
    assert [(spec.datatype, spec.shape) for spec in runtime.signature.outputs] == [
        ("INT64", ("batch",)),
        ("FP32", ("batch", 3)),
    ]
    outputs = execute(runtime, {"X": x}, len(x))
    assert (outputs["label"] == model.predict(x)).mean() > 0.99
    assert np.allclose(outputs["probabilities"], model.predict_proba(x), atol=1e-4)
    assert execute(runtime, {"X": x[:0]}, 0)["probabilities"].shape == (0, 3)
    runtime.close()


def test_a_given_signature_names_the_same_tensors(tmp_path: Path, trained: Any):
    """It may choose outputs and axis names; a wrong name, type or missing input is a load failure."""
    _, _, content = trained
    given = signature({"X": ("FP32", ("rows", 4))}, {"probabilities": ("FP32", ("rows", 3))})
    runtime = load(load_spec(tmp_path, "onnx", "m.onnx", {"m.onnx": content}, signature=given)).runtime
    assert list(execute(runtime, {"X": np.zeros((2, 4), np.float32)}, 2)) == ["probabilities"]
    wrong = signature({"X": ("FP64", ("rows", 4))}, {"label": ("INT64", ("rows",))})
    with pytest.raises(LoadFailed, match=r"input 'X' \(FP64\) is not the model's; it has X \(FP32\)"):
        load(load_spec(tmp_path, "onnx", "m.onnx", {"m.onnx": content}, signature=wrong))


def test_weights_in_files_of_their_own_are_verified_too(tmp_path: Path):
    """External data comes from the hashed bytes, never from disk; a flipped byte is caught."""
    weights = np.arange(12, dtype=np.float32).reshape(4, 3)
    tensor = numpy_helper.from_array(weights, "w")
    onnx.external_data_helper.set_external_data(tensor, "weights.bin", offset=0, length=48)
    raw = bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    model = graph(
        {"x": (TensorProto.FLOAT, ["n", 4])},
        {"y": (TensorProto.FLOAT, ["n", 3])},
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [tensor],
    )
    files = {"m.onnx": model.SerializeToString(), "weights.bin": raw}
    spec = load_spec(tmp_path, "onnx", "m.onnx", files)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    assert np.allclose(execute(load(spec).runtime, {"x": x}, 5)["y"], x @ weights, atol=1e-5)
    (tmp_path / spec.files[1].sha256).write_bytes(raw[:-1] + b"\x00")
    with pytest.raises(IntegrityFailed, match=r"weights.bin"):
        load(spec)


def test_strings_cross_as_utf8(tmp_path: Path):
    """BYTES in, BYTES out; what is no UTF-8 is the caller's fault."""
    model = graph(
        {"s": (TensorProto.STRING, ["n", 1])},
        {"t": (TensorProto.STRING, ["n", 1])},
        [helper.make_node("Identity", ["s"], ["t"])],
    )
    runtime = load(load_spec(tmp_path, "onnx", "m.onnx", {"m.onnx": model.SerializeToString()})).runtime
    value = np.array([["žluť".encode()], [b""]], object)
    assert execute(runtime, {"s": value}, 2)["t"].tolist() == value.tolist()
    with pytest.raises(InvalidInput, match="UTF-8"):
        execute(runtime, {"s": np.array([[b"\xff"]], object)}, 1)


@pytest.mark.parametrize(
    ("kind", "datatype", "dtype"),
    [
        (TensorProto.BOOL, "BOOL", np.bool_),
        (TensorProto.UINT8, "UINT8", np.uint8),
        (TensorProto.INT16, "INT16", np.int16),
        (TensorProto.UINT64, "UINT64", np.uint64),
        (TensorProto.FLOAT16, "FP16", np.float16),
        (TensorProto.DOUBLE, "FP64", np.float64),
        (TensorProto.BFLOAT16, "BF16", np.float32),
    ],
)
def test_every_type_of_tensor_is_served(tmp_path: Path, kind: Any, datatype: str, dtype: Any):
    """BF16 comes and goes as float32, rounded to what bfloat16 holds."""
    model = graph({"x": (kind, ["n", 2])}, {"y": (kind, ["n", 2])}, [helper.make_node("Identity", ["x"], ["y"])])
    runtime = load(load_spec(tmp_path, "onnx", "m.onnx", {"m.onnx": model.SerializeToString()})).runtime
    assert runtime.signature.inputs[0].datatype == datatype
    value = np.array([[0, 1], [1, 0]]).astype(dtype)
    assert execute(runtime, {"x": value}, 2)["y"].tolist() == value.tolist()
    assert execute(runtime, {"x": value[:0]}, 0)["y"].shape == (0, 2)


def test_dynamic_axes_have_names_and_fixed_ones_are_not_a_batch(tmp_path: Path):
    """A fixed first axis means that requests run alone."""
    node = [helper.make_node("Identity", ["x"], ["y"])]
    dynamic = graph(
        {"x": (TensorProto.FLOAT, [None, "time", None])}, {"y": (TensorProto.FLOAT, [None, "time", None])}, node
    )
    runtime = load(load_spec(tmp_path, "onnx", "m.onnx", {"m.onnx": dynamic.SerializeToString()})).runtime
    assert runtime.signature.inputs[0].shape == ("batch", "time", "x_2")
    fixed = graph({"x": (TensorProto.FLOAT, [2, 3])}, {"y": (TensorProto.FLOAT, [2, 3])}, node)
    runtime = load(load_spec(tmp_path, "onnx", "m.onnx", {"m.onnx": fixed.SerializeToString()})).runtime
    assert not runtime.signature.batched
    with pytest.raises(InvalidInput, match="refuses this input"):
        runtime.run({"x": np.zeros((3, 3), np.float32)})


def test_outputs_that_are_no_tensors_can_be_left_out(tmp_path: Path):
    """The option ``outputs`` keeps the rest; without it the failure says what to do."""
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    x, y = iris()
    model = to_onnx(LogisticRegression(max_iter=500).fit(x, y), x[:1].astype(np.float32))
    files = {"m.onnx": model.SerializeToString()}
    with pytest.raises(LoadFailed, match=r"which is no tensor; .*zipmap=False"):
        load(load_spec(tmp_path, "onnx", "m.onnx", files))
    runtime = load(load_spec(tmp_path, "onnx", "m.onnx", files, options={"outputs": ["output_label"]})).runtime
    assert list(execute(runtime, {"X": x[:3].astype(np.float32)}, 3)) == ["output_label"]
    with pytest.raises(LoadFailed, match="names no output"):
        load(load_spec(tmp_path, "onnx", "m.onnx", files, options={"outputs": ["z"]}))


def test_what_is_no_model_and_devices_that_are_not_here_are_load_failures(tmp_path: Path, trained: Any):
    """With the reason."""
    with pytest.raises(LoadFailed, match=r"cannot load 'm.onnx'"):
        load(load_spec(tmp_path, "onnx", "m.onnx", {"m.onnx": b"no model"}))
    with pytest.raises(LoadFailed, match="device 'tpu' is unknown"):
        load(load_spec(tmp_path, "onnx", "m.onnx", {"m.onnx": trained[2]}, device="tpu"))
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(LoadFailed, match="needs onnxruntime-gpu"):
            load(load_spec(tmp_path, "onnx", "m.onnx", {"m.onnx": trained[2]}, device="cuda:0"))


@pytest.mark.gpu
@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="no onnxruntime-gpu with a CUDA device"
)
def test_a_gpu_answers_as_the_cpu_does(tmp_path: Path, trained: Any):
    """Within floating-point tolerance, and it says where it ran."""
    x, _, content = trained
    spec = load_spec(tmp_path, "onnx", "m.onnx", {"m.onnx": content}, device="cuda:0")
    runtime = load(spec).runtime
    assert runtime.device == "cuda:0"
    cpu = load(load_spec(tmp_path, "onnx", "m.onnx", {"m.onnx": content}, device="cpu")).runtime
    ours, theirs = (execute(one, {"X": x}, len(x))["probabilities"] for one in (runtime, cpu))
    assert np.allclose(ours, theirs, atol=1e-3)
