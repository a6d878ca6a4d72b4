"""The example versions: trained once, truthful about themselves, one signature for all, registered for real."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.examples.digits import is_complete
from gateway.examples.records import SIGNATURE
from gateway.messages import Signature
from gateway.registry.blobs import BlobStore
from gateway.registry.lineage.kinds import data_digests
from gateway.registry.lineage.reproduction.asked import Asked
from gateway.registry.lineage.reproduction.folder import reproduce
from gateway.registry.lineage.reproduction.training import train_again
from gateway.registry.loading import load_spec
from gateway.registry.manifest import Manifest
from gateway.registry.registration import RegistrationOptions, prepare
from runtimes import execution

pytestmark = pytest.mark.timeout(600)  # whichever test comes first waits for the training

ROOT = Path(__file__).parents[2]


def _run(folder: Path, *more: str, seed: str = "1") -> str:
    """``seed``: of Python's hashing, on which the order of sets depends."""
    command = [sys.executable, "-m", "gateway.examples.digits", str(folder), *more]
    environment = os.environ | {"PYTHONHASHSEED": seed}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True, timeout=500)
    return done.stdout


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("examples")
    said = _run(place)
    assert said.count("held-out rows") == 4
    return place


@pytest.fixture(scope="session")
def index(folder: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((folder / "models.json").read_bytes())
    return body


def _options(folder: Path, described: dict[str, Any]) -> RegistrationOptions:
    paths = {
        name: folder / described[name]
        for name in ("signature", "example", "lineage", "evaluation")
        if described[name] is not None
    }
    return RegistrationOptions(**paths)


@pytest.fixture(scope="session")
def registered(
    folder: Path, index: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[BlobStore, list[Manifest]]:
    blobs = BlobStore(tmp_path_factory.mktemp("home"))
    described = [*index["versions"], index["faulty"]]
    manifests = [prepare("digits", folder / each["source"], _options(folder, each), blobs) for each in described]
    return blobs, manifests


def test_every_version_is_better_than_chance_by_far_and_says_how_sure_it_is(
    folder: Path, index: dict[str, Any]
) -> None:
    """Accuracy on rows that were held out, with n and an interval that holds it."""
    for described in [*index["versions"], index["faulty"]]:
        [figure] = json.loads((folder / described["evaluation"]).read_bytes())
        assert (figure["metric"], figure["n"]) == ("accuracy", 450)
        assert figure["value"] > 0.93
        assert figure["interval"][0] < figure["value"] < figure["interval"][1]


def test_the_versions_are_the_three_that_were_promised(index: dict[str, Any]) -> None:
    """In the order in which they are registered, each with a note for people."""
    assert [each["source"] for each in index["versions"]] == [
        "linear/model.skops",
        "perceptron/model.onnx",
        "cnn/model.pt2",
    ]
    assert all(each["notes"] for each in index["versions"])


def test_all_register_with_one_signature(registered: tuple[BlobStore, list[Manifest]]) -> None:
    """Four formats answer the same route: names, types, order and all."""
    _, manifests = registered
    assert [manifest.format for manifest in manifests] == ["sklearn", "onnx", "torch", "python"]
    assert {manifest.signature for manifest in manifests} == {Signature.from_json(SIGNATURE)}
    assert all(manifest.evaluation[0].value > 0.93 for manifest in manifests)
    assert len({data_digests(manifest.lineage.to_json()) for manifest in manifests}) == 1


def test_what_is_served_scores_what_the_manifest_says(
    folder: Path, registered: tuple[BlobStore, list[Manifest]]
) -> None:
    """The stored bytes, loaded by the runtime, reach the very accuracy in the evaluation."""
    blobs, manifests = registered
    held_out = json.loads((folder / "held_out.json").read_bytes())
    pixels, labels = np.array(held_out["pixels"], np.float32), np.array(held_out["labels"])
    with np.load(folder / "held_out.npz") as tensors:
        np.testing.assert_array_equal(tensors["pixels"], pixels)
        np.testing.assert_array_equal(tensors["label"], labels)
    for manifest in manifests:
        loaded = execution.load(load_spec(manifest, blobs, allow_pickle=(), default_device="cpu"))
        outputs = execution.execute(loaded.runtime, {"pixels": pixels}, len(pixels))
        loaded.runtime.close()
        assert round(float((outputs["label"] == labels).mean()), 6) == manifest.evaluation[0].value
        assert outputs["probabilities"].dtype == np.float32
        np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1, atol=1e-4)


def test_registering_the_same_bytes_again_gives_the_same_digest(
    folder: Path, index: dict[str, Any], registered: tuple[BlobStore, list[Manifest]]
) -> None:
    """Also into a store that has everything."""
    blobs, manifests = registered
    first = index["versions"][1]
    assert prepare("digits", folder / first["source"], _options(folder, first), blobs).digest == manifests[1].digest


def test_the_faulty_version_works_until_its_table_is_gone(
    folder: Path, registered: tuple[BlobStore, list[Manifest]]
) -> None:
    """And works again when the table is back."""
    blobs, manifests = registered
    runtime = execution.load(load_spec(manifests[3], blobs, allow_pickle=())).runtime
    row = {"pixels": np.zeros((1, 64), np.float32)}
    table = folder / "table.json"
    kept = table.read_bytes()
    assert execution.execute(runtime, row, 1)["label"].shape == (1,)
    table.unlink()
    try:
        with pytest.raises(execution.ModelFailed, match="FileNotFoundError"):
            execution.execute(runtime, row, 1)
    finally:
        table.write_bytes(kept)
    assert execution.execute(runtime, row, 1)["label"].shape == (1,)


def test_a_second_run_trains_nothing_and_a_forced_one_makes_the_same_bytes(folder: Path) -> None:
    """``make serve`` on the next day gives the same versions."""
    assert is_complete(folder)
    assert _run(folder) == ""
    before = json.loads((folder / "models.json").read_bytes())
    assert "cnn" in _run(folder, "--again", seed="8")
    assert json.loads((folder / "models.json").read_bytes()) == before


def test_a_damaged_folder_is_not_complete(folder: Path) -> None:
    """A file that changed, or is gone, is trained again."""
    path = folder / "linear" / "model.skops"
    kept = path.read_bytes()
    path.write_bytes(kept + b"x")
    assert not is_complete(folder)
    path.unlink()
    assert not is_complete(folder)
    path.write_bytes(kept)
    assert is_complete(folder)
    assert not is_complete(folder / "nowhere")


def test_artifacts_do_not_name_the_place_where_they_were_made(folder: Path, index: dict[str, Any]) -> None:
    """No path of this machine travels with a model."""
    for each in index["versions"]:
        assert str(ROOT).encode() not in (folder / each["source"]).read_bytes()


def test_the_digests_in_the_lineage_are_those_of_the_code(folder: Path, index: dict[str, Any]) -> None:
    """Lineage is truth, not decoration."""
    body = json.loads((folder / index["versions"][2]["lineage"]).read_bytes())
    source = ROOT / "gateway" / "examples" / "training.py"
    digest = "sha256:" + hashlib.sha256(source.read_bytes()).hexdigest()
    assert body["code"]["files"]["gateway/examples/training.py"] == digest
    assert body["environment"]["packages"]["torch"]
    assert {output["name"] for output in body["run"]["outputs"]} == {"cnn/model.pt2"}


@pytest.mark.parametrize(("place", "name"), [(0, "linear"), (1, "perceptron"), (2, "cnn"), (3, "faulty")])
def test_each_is_trained_again_from_its_manifest_alone(
    registered: tuple[BlobStore, list[Manifest]], tmp_path: Path, place: int, name: str
) -> None:
    """The good ones come out byte for byte. The faulty one names where its table is, and that is all that differs."""
    blobs, manifests = registered
    manifest = manifests[place]
    version = {"model": "digits", "version": place + 1, "digest": manifest.digest, "manifest": manifest.to_json()}
    made = reproduce(version, Asked(tmp_path / "again", tmp_path, sys.executable))
    assert made.complete, made.checks
    assert made.kinds.code.entry_point is not None
    assert made.kinds.code.entry_point.command[-2:] == ("--only", name)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    trained = train_again(made, version, sys.executable, environment=environment, stored=blobs.path, timeout_s=300)
    if name != "faulty":
        assert trained.same, (trained, (made.folder / "training.log").read_text())
        return
    differing = {file.name: file.differences for file in trained.files if file.state != "same"}
    assert differing.keys() == {"settings.json"}
    [told] = differing["settings.json"]
    assert told.startswith("#table: ")
