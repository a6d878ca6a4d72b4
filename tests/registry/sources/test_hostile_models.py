"""Models that mean harm, from whichever source: weights that lie elsewhere, and manifests without a bottom."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from gateway.errors import InvalidRegistration, RegistryError
from gateway.registry.blobs import BlobStore
from gateway.registry.manifest import Manifest
from gateway.registry.registration import RegistrationOptions, prepare

WORDS = {
    "../secret.bin": "escapes model directory",
    "/etc/passwd": "Absolute path not allowed",
    "sub/../../secret.bin": "escapes model directory",
    "gone.bin": "not-among-the-files-of-this-version/gone.bin",
    "link.bin": "outside the source",
}
SECRET = b"\x00\x00\x80?" * 4


def _graph(folder: Path, location: str) -> Path:
    """``y = x + w`` with ``w`` in a file that the graph names."""
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": "0", "length": "16"}.items():
        weights.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder


def test_weights_beside_the_graph_are_taken(tmp_path: Path) -> None:
    """What the hostile ones below are like, done well."""
    folder = _graph(tmp_path / "model", "weights.bin")
    (folder / "weights.bin").write_bytes(SECRET)
    manifest = prepare("sum", folder, RegistrationOptions(), BlobStore(tmp_path / "home"))
    assert [file.name for file in manifest.files] == ["model.onnx", "weights.bin"]


@pytest.mark.parametrize("location", WORDS)
def test_weights_outside_the_version_are_never_read(
    tmp_path: Path, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither above the folder, nor by an absolute path, nor through a link, nor in the folder that the gateway runs
    in: only the version's own files are handed to the runtime, and what is not among them is refused."""
    folder = _graph(tmp_path / "model", location)
    (tmp_path / "secret.bin").write_bytes(SECRET)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "gone.bin").write_bytes(SECRET)
    monkeypatch.chdir(tmp_path / "run")
    if location == "link.bin":
        (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(InvalidRegistration, match=WORDS[location]):
        prepare("sum", folder, RegistrationOptions(), BlobStore(tmp_path / "home"))
    assert onnx.load(str(folder / "model.onnx"), load_external_data=False).graph.initializer[0].name == "w"


def test_a_manifest_without_a_bottom_is_refused_in_words() -> None:
    """Of brackets, of objects, closed or not: the reader's stack is not the limit."""
    for text in (b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000):
        with pytest.raises(RegistryError, match=r"nested too deeply|not valid JSON|an object"):
            Manifest.from_bytes(text)
