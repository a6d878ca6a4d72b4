"""torch programs, exported here."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runtimes.base import InvalidInput, LoadFailed, ModelFailed, OutOfMemory
from runtimes.execution import execute, load
from runtimes.signature import DATATYPES, TensorSpec
from tests.runtimes.versions import exported_torch, load_spec, signature

BATCH = torch.export.Dim("batch")


def exported(module: Any, args: Any = (), kwargs: Any = None, shapes: Any = None):
    target = io.BytesIO()
    program = torch.export.export(module.eval(), args, kwargs, dynamic_shapes=shapes)
    torch.export.save(program, target)
    return target.getvalue()


def loaded(tmp_path: Path, content: Any, entry: Any = "m.pt2", **fields: Any):
    return load(load_spec(tmp_path, "torch", entry, {entry: content}, **fields)).runtime


def test_an_exported_program_tells_its_signature_and_answers(tmp_path: Path):
    """Names of arguments and of the returned dict; the batch axis from the export's symbol."""
    runtime = loaded(tmp_path, exported_torch())
    assert [spec.to_json() for spec in (*runtime.signature.inputs, *runtime.signature.outputs)] == [
        {"name": "x", "datatype": "FP32", "shape": ["batch", 4]},
        {"name": "logits", "datatype": "FP32", "shape": ["batch", 3]},
        {"name": "label", "datatype": "INT64", "shape": ["batch"]},
    ]
    torch.manual_seed(7)
    linear = torch.nn.Linear(4, 3)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    x.setflags(write=False)
    outputs = execute(runtime, {"x": x}, 5)
    assert np.allclose(outputs["logits"], linear(torch.tensor(x)).detach().numpy(), atol=1e-6)
    assert execute(runtime, {"x": x[:1]}, 1)["label"].shape == (1,)
    assert execute(runtime, {"x": x[:0]}, 0)["label"].shape == (0,)
    with pytest.raises(InvalidInput, match="exported for other shapes: Guard failed"):
        execute(runtime, {"x": np.zeros((2, 5), np.float32)}, 2)
    runtime.close()
    with pytest.raises(ModelFailed, match="closed"):
        execute(runtime, {"x": x}, 5)


def test_an_exported_program_saved_as_pt_is_one_all_the_same(tmp_path: Path):
    """Its content tells, not its name: the signature comes out of it as well."""
    runtime = loaded(tmp_path, exported_torch(), "m.pt")
    assert [spec.name for spec in runtime.signature.outputs] == ["logits", "label"]
    assert execute(runtime, {"x": np.zeros((2, 4), np.float32)}, 2)["label"].shape == (2,)


class Touch:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._place,)


def _with_pickled_weights(name: str, data: bytes, evil: Touch) -> bytes:
    if name.endswith("weights_config.json"):
        return data.replace(b'"use_pickle": false', b'"use_pickle": true')
    return _saved(evil) if "/data/weights/weight_" in name else data


def _with_pickled_inputs(name: str, data: bytes, evil: Touch) -> bytes:
    return _saved(evil) if "/sample_inputs/" in name else data


def _with_an_opaque_constant(name: str, data: bytes, evil: Touch) -> bytes:
    if name.endswith("constants_config.json"):
        meta = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
        return json.dumps({"config": {"x": meta}}).encode()
    return data


def _saved(value: object) -> bytes:
    target = io.BytesIO()
    torch.save(value, target)
    return target.getvalue()


@pytest.mark.parametrize("change", [_with_pickled_weights, _with_pickled_inputs, _with_an_opaque_constant])
def test_an_exported_program_runs_no_pickle_unless_the_model_is_allowed_to(tmp_path: Path, change: Any):
    """PyTorch would unpickle each of them; where the operator allows it, it does."""
    evil, target = Touch(tmp_path / "touched"), io.BytesIO()
    first, second = tmp_path / "refused", tmp_path / "allowed"
    first.mkdir()
    second.mkdir()
    with zipfile.ZipFile(io.BytesIO(exported_torch())) as whole, zipfile.ZipFile(target, "w") as changed:
        for name in whole.namelist():
            changed.writestr(name, change(name, whole.read(name), evil))
        root = whole.namelist()[0].partition("/")[0]
        if change is _with_an_opaque_constant:
            changed.writestr(f"{root}/data/constants/opaque_obj_0", pickle.dumps(evil))
    with pytest.raises(LoadFailed, match="allow_pickle"):
        loaded(first, target.getvalue())
    assert not (tmp_path / "touched").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    with contextlib.suppress(LoadFailed):
        loaded(second, target.getvalue(), allow_pickle=True)
    assert (tmp_path / "touched").exists()


def test_a_trained_convolutional_network_is_served_as_trained(tmp_path: Path):
    """A small CNN on digits: same labels here as in training."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    y = torch.tensor(labels)
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 10), torch.nn.Softmax(-1)
    )
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.nll_loss(net(x).log(), y).backward()
        optimizer.step()
    content = exported(net, (x[:2],), shapes=({0: BATCH},))
    given = signature({"x": ("FP32", ("batch", 1, 8, 8))}, {"probabilities": ("FP32", ("batch", 10))})
    runtime = loaded(tmp_path, content, signature=given)
    answer = execute(runtime, {"x": x.numpy()}, len(x))["probabilities"]
    assert (answer.argmax(-1) == labels).mean() > 0.9
    assert np.allclose(answer, net(x).detach().numpy(), atol=1e-5)


class Pair(torch.nn.Module):
    def forward(self, a: Any, b: Any) -> Any:
        return a + b, a - b


class Keyword(torch.nn.Module):
    def forward(self, a: Any, *, scale: Any) -> Any:
        return a * scale


class InPlace(torch.nn.Module):
    def forward(self, a: Any) -> Any:
        return a.add_(1)


def ones(*shape: Any):
    return np.ones(shape, np.float32)


def test_tuples_are_named_in_order(tmp_path: Path):
    """By the signature, or output_0, output_1; the signature may rename the arguments as well."""
    content = exported(Pair(), (torch.ones(2, 3), torch.ones(2, 3)), shapes={"a": {0: BATCH}, "b": {0: BATCH}})
    runtime = loaded(tmp_path, content)
    assert [spec.name for spec in runtime.signature.outputs] == ["output_0", "output_1"]
    given = signature(
        {"left": ("FP32", ("batch", 3)), "right": ("FP32", ("batch", 3))},
        {"sum": ("FP32", ("batch", 3)), "difference": ("FP32", ("batch", 3))},
    )
    outputs = execute(loaded(tmp_path, content, signature=given), {"left": ones(1, 3), "right": ones(1, 3) * 2}, 1)
    assert outputs["sum"].tolist() == [[3, 3, 3]]
    assert outputs["difference"].tolist() == [[-1, -1, -1]]
    swapped = signature({"b": ("FP32", ("batch", 3)), "a": ("FP32", ("batch", 3))}, {"s": ("FP32", ("batch", 3))})
    with pytest.raises(ModelFailed, match="returned 2 outputs, the signature names s"):
        execute(loaded(tmp_path, content, signature=swapped), {"a": ones(1, 3), "b": ones(1, 3)}, 1)
    wrong = signature({"z": ("FP32", ("batch", 3))}, {"s": ("FP32", ("batch", 3))})
    with pytest.raises(LoadFailed, match="inputs z are not those of the program: a, b"):
        loaded(tmp_path, content, signature=wrong)


def test_arguments_go_by_name_and_may_be_keywords(tmp_path: Path):
    """Whatever order the signature lists them in."""
    content = exported(
        Keyword(), (torch.ones(2, 3),), {"scale": torch.ones(2, 3)}, shapes={"a": {0: BATCH}, "scale": {0: BATCH}}
    )
    runtime = loaded(tmp_path, content)
    assert [spec.name for spec in runtime.signature.inputs] == ["a", "scale"]
    assert runtime.run({"scale": ones(1, 3) * 4, "a": ones(1, 3) * 2})["output"].tolist() == [[8, 8, 8]]


def test_a_program_that_works_in_place_changes_nobodys_input(tmp_path: Path):
    """Its input is a copy; the batch's memory cannot be written anyway."""
    x = ones(2, 3)
    x.setflags(write=False)
    content = exported(InPlace(), (torch.ones(2, 3),), shapes={"a": {0: BATCH}})
    given = signature({"a": ("FP32", ("batch", 3))}, {"y": ("FP32", ("batch", 3))})
    assert (execute(loaded(tmp_path, content, signature=given), {"a": x}, 2)["y"] == 2).all()
    assert (x == 1).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool])
def test_types_cross_and_bfloat16_travels_as_float32(tmp_path: Path, dtype: Any):
    """Without a signature, the program's own."""

    class Same(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x.clone()

    runtime = loaded(tmp_path, exported(Same(), (torch.ones(2, 3).to(dtype),), shapes={"x": {0: BATCH}}))
    spec = runtime.signature.inputs[0]
    array = np.array([[1, 0, 1]]).astype(np.float32 if dtype == torch.bfloat16 else spec_dtype(spec))
    outputs = execute(runtime, {"x": array}, 1)
    assert outputs["output"].dtype == array.dtype
    assert outputs["output"].tolist() == array.tolist()


def spec_dtype(spec: TensorSpec):
    return DATATYPES[spec.datatype]


def test_a_fixed_first_axis_is_no_batch(tmp_path: Path):
    """Such requests run alone."""
    runtime = loaded(tmp_path, exported(InPlace(), (torch.ones(2, 3),)))
    assert not runtime.signature.batched
    assert runtime.signature.inputs[0].shape == (2, 3)


def test_torchscript_needs_a_signature(tmp_path: Path):
    """And is then served alike; a pickled module is refused with a way out."""
    target = io.BytesIO()
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.save(torch.jit.trace(torch.nn.Linear(4, 3), torch.zeros(2, 4)), target)
    given = signature({"x": ("FP32", ("batch", 4))}, {"y": ("FP32", ("batch", 3))})
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        runtime = loaded(tmp_path, target.getvalue(), "m.pt", signature=given)
    assert execute(runtime, {"x": ones(5, 4)}, 5)["y"].shape == (5, 3)
    with pytest.raises(LoadFailed, match="does not tell its signature"):
        loaded(tmp_path, target.getvalue(), "m.pt")
    pickled = io.BytesIO()
    torch.save(torch.nn.Linear(4, 3).state_dict(), pickled)
    with (
        pytest.warns(DeprecationWarning, match="torch.jit"),
        pytest.raises(LoadFailed, match=r"export the model with torch.export.save"),
    ):
        loaded(tmp_path, pickled.getvalue(), "m.pt", signature=given)


def test_a_batch_beyond_memory_is_out_of_memory(tmp_path: Path):
    """So that it is halved, and the version goes on."""

    class Huge(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.zeros(x.shape[0], 1 << 45).sum(1)

    content = exported(Huge(), (torch.ones(2, 3),), shapes={"x": {0: BATCH}})
    runtime = loaded(tmp_path, content)
    with pytest.raises(OutOfMemory, match="does not fit cpu"):
        execute(runtime, {"x": ones(2, 3)}, 2)


def test_devices_and_types_that_cannot_be_are_load_failures(tmp_path: Path):
    """With what is here."""
    given = signature({"x": ("BYTES", ("batch", 4))}, {"y": ("FP32", ("batch", 3))})
    with pytest.raises(LoadFailed, match="'x' is BYTES"):
        loaded(tmp_path, b"", signature=given)
    with pytest.raises(LoadFailed, match="device 'tpu:0' is unknown"):
        loaded(tmp_path, b"", device="tpu:0")
    with pytest.raises(LoadFailed, match=r"device cuda:99 was asked for; torch .* finds \d+ CUDA devices"):
        loaded(tmp_path, b"", device="cuda:99")
    with pytest.raises(LoadFailed, match=r"cannot load 'm.pt2'"):
        loaded(tmp_path, b"no program")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device, or a torch without CUDA")
def test_a_gpu_answers_as_the_cpu_does_and_survives_its_memorys_end(tmp_path: Path):
    """OutOfMemory, its cache given back, and the next batch answered."""
    content = exported_torch()
    gpu = loaded(tmp_path, content, device="cuda:0")
    assert gpu.device == "cuda:0"
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    cpu = loaded(tmp_path, content, device="cpu")
    assert np.allclose(gpu.run({"x": x})["logits"], cpu.run({"x": x})["logits"], atol=1e-3)

    class Huge(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return (torch.zeros(x.shape[0], 1 << 34, device=x.device) + x[:, :1]).sum(1)

    huge = loaded(tmp_path, exported(Huge(), (torch.ones(2, 3),), shapes={"x": {0: BATCH}}), device="cuda:0")
    with pytest.raises(OutOfMemory):
        execute(huge, {"x": ones(64, 3)}, 64)
    assert gpu.run({"x": x})["label"].shape == (64,)
