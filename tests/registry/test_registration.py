"""Registration: a source becomes a manifest that has been proven, or nothing at all."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from gateway.errors import InvalidRegistration, RegistryError
from gateway.messages import Signature, TensorSpec
from gateway.registry.blobs import BlobStore
from gateway.registry.collect import collect, plan
from gateway.registry.examples import from_canonical
from gateway.registry.loading import load_spec, read_manifest, version_pieces
from gateway.registry.registration import Permissions, RegistrationOptions, prepare
from gateway.registry.verify import verify
from loadtests.live_gateway import wait_until

ROOT = Path(__file__).parents[2]
X = {"name": "x", "datatype": "FP32", "shape": ["batch", 4]}
Y = {"name": "y", "datatype": "FP32", "shape": ["batch", 4]}

PYTHON_MODEL = """
SIGNATURE = {"inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 4]}],
             "outputs": [{"name": "y", "datatype": "FP32", "shape": ["batch"]}]}

class Model:
    def predict(self, inputs):
        print("model code may print what it likes")
        if (inputs["x"] == inputs["x"].flat[0]).all():
            raise ValueError("all values are equal")
        return {"y": inputs["x"].sum(axis=1)}
"""


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "home")


def _file(place: Path, body: Any) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(body, bytes):
        place.write_bytes(body)
    else:
        place.write_text(body if isinstance(body, str) else json.dumps(body), encoding="utf-8")
    return place


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    return _file(tmp_path / "script.echo.json", {"delay_ms": 0})


@pytest.fixture
def signature(tmp_path: Path) -> Path:
    return _file(tmp_path / "signature.json", {"inputs": [X], "outputs": [Y]})


def test_everything_that_was_given_is_in_the_manifest(
    tmp_path: Path, blobs: BlobStore, echo: Path, signature: Path
) -> None:
    """And every blob it names is in the store, sound; progress reaches the end."""
    told: list[tuple[int, int]] = []
    options = RegistrationOptions(
        signature=signature,
        example=_file(tmp_path / "example.json", {"inputs": [[1, 2, 3, 4], [5, 6, 7, 8]]}),
        golden=_file(
            tmp_path / "golden.json", {"cases": [{"inputs": [[1, 2, 3, 4]], "outputs": {"y": [[1, 2, 3, 4]]}}]}
        ),
        reference=_file(tmp_path / "train.csv", "a,b,c,d\n1,2,3,4\n2,3,4,5\n"),
        evaluation=_file(tmp_path / "evaluation.json", {"accuracy": 0.97}),
        lineage=_file(tmp_path / "lineage.yaml", "code: {commit: abc}\nparent: digits/1\n"),
        device="cpu",
        threads=2,
        interpreter=sys.executable,
        max_rows=8,
        queue_rows=100,
        hang_floor_ms=900,
        retry=False,
        options={"delay_per_row_ms": 0},
    )
    manifest = prepare("digits", echo, options, blobs, lambda done, total: told.append((done, total)))
    size = echo.stat().st_size
    assert told[-1] == (size, size)
    assert verify(manifest.digest, blobs).ok
    assert read_manifest(manifest.digest, blobs) == manifest
    assert [name for name, _, _ in manifest.blobs()] == [
        "script.echo.json",
        "(example)",
        "(golden)",
        "(reference)",
        "(profile)",
    ]
    assert manifest.lineage.parent == "digits/1"
    assert manifest.evaluation[0].metric == "accuracy"
    pieces = version_pieces(manifest, blobs, allow_pickle=())
    assert (pieces.max_rows, pieces.queue_rows, pieces.hang_floor_ms, pieces.retry) == (8, 100, 900, False)
    assert (pieces.load.device, pieces.load.threads, pieces.interpreter) == ("cpu", 2, sys.executable)
    assert pieces.load.options == {"delay_per_row_ms": 0}
    assert pieces.example is not None
    assert pieces.example["x"].tolist() == [[1, 2, 3, 4]], "one row of the example is kept"


def test_the_same_bytes_again_give_the_same_version(tmp_path: Path, blobs: BlobStore, echo: Path) -> None:
    """Wherever the file lies; other bytes or other options give another."""
    first = prepare("digits", echo, RegistrationOptions(), blobs)
    held = blobs.digests()
    copy = _file(tmp_path / "elsewhere" / echo.name, echo.read_bytes())
    assert prepare("digits", copy, RegistrationOptions(), blobs).digest == first.digest
    assert blobs.digests() == held
    other = prepare("digits", echo, RegistrationOptions(threads=2), blobs)
    changed = prepare("digits", _file(copy, {"delay_ms": 1}), RegistrationOptions(), blobs)
    assert len({first.digest, other.digest, changed.digest}) == 3


def test_settings_decide_what_the_manifest_leaves_open(blobs: BlobStore, echo: Path) -> None:
    """Device and threads of the settings never enter the digest."""
    manifest = prepare("digits", echo, RegistrationOptions(), blobs, permissions=Permissions(default_threads=3))
    assert (manifest.runtime.device, manifest.runtime.threads) == (None, None)
    spec = load_spec(manifest, blobs, allow_pickle=(), default_device="cpu", default_threads=5)
    assert (spec.device, spec.threads, spec.allow_pickle) == ("cpu", 5, False)
    assert all(Path(file.path).is_absolute() for file in spec.files)


def test_a_python_version_declares_its_own_signature_and_may_print(tmp_path: Path, blobs: BlobStore) -> None:
    """Its example is typed by it; what its code prints does not disturb."""
    model = _file(tmp_path / "model.py", PYTHON_MODEL)
    example = _file(tmp_path / "example.json", {"inputs": [[1, 2, 3, 4]]})
    manifest = prepare("sums", model, RegistrationOptions(example=example), blobs)
    assert manifest.signature == Signature(
        (TensorSpec("x", "FP32", ("batch", 4)),), (TensorSpec("y", "FP32", ("batch",)),)
    )
    assert manifest.example is not None
    assert from_canonical(blobs.read(manifest.example.digest))["x"].dtype == np.float32


def test_a_version_that_cannot_take_made_up_input_asks_for_an_example(tmp_path: Path, blobs: BlobStore) -> None:
    """The model's own words are in the message, and the way out."""
    model = _file(tmp_path / "model.py", PYTHON_MODEL)
    with pytest.raises(InvalidRegistration, match=r"all values are equal.*made up.*--example FILE"):
        prepare("sums", model, RegistrationOptions(), blobs)
    assert prepare("sums", model, RegistrationOptions(prove=False), blobs).example is None


def test_a_python_version_without_a_signature_learns_it_from_its_example(tmp_path: Path, blobs: BlobStore) -> None:
    """Outputs are found by running it, the batch axis by doubling the rows."""
    model = _file(tmp_path / "model.py", PYTHON_MODEL[PYTHON_MODEL.index("class") :])
    example = _file(tmp_path / "example.json", {"inputs": {"x": [[1.5, 2, 3, 4]]}})
    manifest = prepare("sums", model, RegistrationOptions(example=example), blobs)
    assert manifest.signature.outputs == (TensorSpec("y", "FP32", ("batch",)),)
    with pytest.raises(InvalidRegistration, match="declares no SIGNATURE; add one, or give a signature or an example"):
        prepare("sums", model, RegistrationOptions(), blobs)


def test_a_golden_files_first_case_proves_the_version(tmp_path: Path, blobs: BlobStore) -> None:
    """Where no example was given."""
    model = _file(tmp_path / "model.py", PYTHON_MODEL)
    golden = _file(tmp_path / "golden.json", {"cases": [{"inputs": [[1, 2, 3, 4]], "outputs": {"y": [10]}}]})
    manifest = prepare("sums", model, RegistrationOptions(golden=golden), blobs)
    assert manifest.example is not None
    assert manifest.golden is not None
    assert blobs.read(manifest.golden.digest) == golden.read_bytes()


def _pickled() -> bytes:
    estimator = LinearRegression().fit(np.eye(3), np.arange(3.0))
    out = io.BytesIO()
    pickle.dump(estimator, out)
    return out.getvalue()


def test_a_pickle_is_refused_until_the_settings_name_the_model(tmp_path: Path, blobs: BlobStore) -> None:
    """The risk is spelled out, nothing is stored, and the permission is for one model."""
    model = _file(tmp_path / "model.pkl", _pickled())
    with pytest.raises(InvalidRegistration, match=r"runs whatever code its author put in.*skops.*allow_pickle"):
        prepare("prices", model, RegistrationOptions(), blobs)
    with pytest.raises(InvalidRegistration, match="allow_pickle"):
        prepare("prices", model, RegistrationOptions(), blobs, permissions=Permissions(allow_pickle=("other",)))
    assert blobs.digests() == ()
    manifest = prepare("prices", model, RegistrationOptions(), blobs, permissions=Permissions(allow_pickle=("prices",)))
    assert load_spec(manifest, blobs, allow_pickle=("prices",)).allow_pickle
    assert not load_spec(manifest, blobs, allow_pickle=()).allow_pickle, "the settings of today decide at each load"


def test_a_pickle_under_another_name_is_still_a_pickle(tmp_path: Path, blobs: BlobStore) -> None:
    """Only ``.skops`` is read as skops; a suffix or a named format opens no way round."""
    model = _file(tmp_path / "model.bin", _pickled())
    with pytest.raises(InvalidRegistration, match="is a pickle"):
        prepare("prices", model, RegistrationOptions(format="sklearn"), blobs)


def test_inline_placement_is_for_models_that_the_settings_name(blobs: BlobStore, echo: Path) -> None:
    """It runs inside the gateway."""
    options = RegistrationOptions(placement="inline")
    with pytest.raises(InvalidRegistration, match=r"runtimes\.allow_inline"):
        prepare("digits", echo, options, blobs)
    manifest = prepare("digits", echo, options, blobs, permissions=Permissions(allow_inline=("digits",)))
    assert manifest.runtime.placement == "inline"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ({"fail_load": "no such weights"}, "does not work here: no such weights"),
        ({"fail": "always"}, "the echo fails"),
        ({"crash": "start"}, "ended while it was tried, with signal 9"),
        ({"crash": "always"}, "ended while it was tried, with signal 9"),
        ({"unknown": 1}, "echo has no option unknown"),
    ],
)
def test_a_version_that_does_not_work_is_not_taken(
    tmp_path: Path, blobs: BlobStore, script: dict[str, Any], told: str
) -> None:
    """Loading and one answer are tried in a process of their own; no manifest is stored."""
    source = _file(tmp_path / "script.echo.json", script)
    with pytest.raises(InvalidRegistration, match=told):
        prepare("digits", source, RegistrationOptions(), blobs)
    assert [digest for digest in blobs.digests() if b'"schema"' in blobs.read(digest)] == []


def test_a_version_that_refuses_made_up_input_answers_all_the_same(tmp_path: Path, blobs: BlobStore) -> None:
    """To refuse values that nobody sent is an answer; to refuse its own example is not."""
    source = _file(tmp_path / "script.echo.json", {"invalid": "always"})
    assert prepare("digits", source, RegistrationOptions(), blobs).format == "echo"
    example = _file(tmp_path / "example.json", {"inputs": [[1, 2, 3, 4]]})
    with pytest.raises(InvalidRegistration, match="the echo refuses this input"):
        prepare("digits", source, RegistrationOptions(example=example), blobs)


def test_a_version_that_hangs_is_given_up_and_its_processes_end(tmp_path: Path, blobs: BlobStore) -> None:
    """The message names the limit, and nothing is left running, not even what the model started."""
    model = """
import os, subprocess, sys, time
class Model:
    def __init__(self):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open(%r, "w").write(f"{os.getpid()} {child.pid}")
        time.sleep(600)
    def predict(self, inputs): ...
"""
    pids = tmp_path / "pids"
    source = _file(tmp_path / "model.py", model % str(pids))
    told = RegistrationOptions(signature=_file(tmp_path / "s.json", {"inputs": [X], "outputs": [Y]}))
    for limit in (3.0, 60.0):  # the longer one for a machine so slow that the model had not begun
        with pytest.raises(InvalidRegistration, match=f"did not load and answer within {limit:g} s"):
            prepare("digits", source, replace(told, timeout_s=limit), blobs)
        if pids.exists():
            break
    for pid in pids.read_text().split():
        # Killed, which a busy machine takes a moment to carry out; init, not we, waits for it.
        wait_until(lambda pid=pid: _is_gone(Path(f"/proc/{pid}/stat")), what=f"the end of process {pid}")


def _is_gone(state: Path) -> bool:
    try:
        return state.read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (RegistrationOptions(threads=0), "runtime.threads is 0; expected at least 1"),
        (RegistrationOptions(device="gpu"), "runtime.device 'gpu' is unknown; expected auto, cpu, cuda or cuda:N"),
        (RegistrationOptions(placement="moon"), "runtime.placement is 'moon'; expected one of process, inline"),
        (RegistrationOptions(options={"x": float("nan")}), "x: nan is not a JSON number"),
        (RegistrationOptions(example=Path("/nowhere.json")), "/nowhere.json cannot be read"),
        (RegistrationOptions(interpreter="/nowhere/python"), "interpreter /nowhere/python cannot be started"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    blobs: BlobStore, echo: Path, options: RegistrationOptions, told: str
) -> None:
    """Each by its name, value and expectation."""
    with pytest.raises(InvalidRegistration, match=told):
        prepare("digits", echo, options, blobs)


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b", "a@b", "ä", "-x", "x" * 129])
def test_a_model_name_that_could_confuse_is_refused(blobs: BlobStore, echo: Path, name: str) -> None:
    """Names become parts of paths, URLs and labels."""
    with pytest.raises(InvalidRegistration, match="model name"):
        prepare(name, echo, RegistrationOptions(), blobs)


def test_a_signature_that_the_model_contradicts_is_refused(tmp_path: Path, blobs: BlobStore) -> None:
    """The trial runs against what the manifest will say."""
    model = _file(tmp_path / "model.py", PYTHON_MODEL)
    wrong = _file(tmp_path / "signature.json", {"inputs": [X], "outputs": [Y | {"name": "score"}]})
    example = _file(tmp_path / "example.json", {"inputs": [[1, 2, 3, 4]]})
    with pytest.raises(InvalidRegistration, match="the signature also promises score"):
        prepare("sums", model, RegistrationOptions(signature=wrong, example=example), blobs)


def test_an_example_that_does_not_fit_the_signature_is_refused(tmp_path: Path, blobs: BlobStore, echo: Path) -> None:
    """By tensor and shape."""
    example = _file(tmp_path / "example.json", {"inputs": [[1, 2, 3]]})
    with pytest.raises(InvalidRegistration, match=r"'x' has shape \[1, 3\]"):
        prepare("digits", echo, RegistrationOptions(example=example), blobs)


def test_a_collector_waits_for_a_registration_and_takes_what_a_failed_one_left(
    tmp_path: Path, blobs: BlobStore
) -> None:
    """Blobs of a refused version are nobody's, and go after the grace time."""
    source = _file(tmp_path / "script.echo.json", {"fail_load": "broken"})
    with pytest.raises(InvalidRegistration):
        prepare("digits", source, RegistrationOptions(), blobs)
    left = blobs.digests()
    assert len(left) == 1
    stored_at = next(blobs.entries()).stored_at
    assert plan([], blobs, now=stored_at + 60).free == ()
    found = plan([], blobs, now=stored_at + 3601)
    assert collect(found, blobs) == source.stat().st_size
    assert blobs.digests() == ()


REGISTER = """
import os, signal, sys
from pathlib import Path
from gateway.registry.blobs import BlobStore
from gateway.registry.registration import RegistrationOptions, prepare

left = int(sys.argv[4])

def step(name):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

blobs = BlobStore(Path(sys.argv[1]), step=step)
signature = Path(sys.argv[3])
options = RegistrationOptions(signature=signature, example=signature.parent / "example.json", prove=False)
print(prepare("digits", Path(sys.argv[2]), options, blobs).digest)
"""


def test_a_registration_killed_at_any_step_leaves_a_whole_manifest_or_none(
    tmp_path: Path, echo: Path, signature: Path
) -> None:
    """Three blobs of five steps each: whatever the catalogue could name afterwards is complete."""
    _file(tmp_path / "example.json", {"inputs": [[1, 2, 3, 4]]})
    wanted = prepare(
        "digits",
        echo,
        RegistrationOptions(signature=signature, example=tmp_path / "example.json", prove=False),
        BlobStore(tmp_path / "whole"),
    ).digest
    for steps in range(16):
        home = tmp_path / f"home-{steps}"
        command = [sys.executable, "-c", REGISTER, str(home), str(echo), str(signature), str(steps)]
        ended = subprocess.run(command, cwd=ROOT, check=False, timeout=60, capture_output=True, text=True)
        assert ended.returncode == (0 if steps == 15 else -signal.SIGKILL), ended.stderr
        blobs = BlobStore(home)
        assert list((home / "blobs" / "tmp").iterdir()) == []
        if wanted in blobs.digests():
            assert steps >= 13
            assert verify(wanted, blobs).ok
        again = RegistrationOptions(signature=signature, example=tmp_path / "example.json", prove=False)
        assert prepare("digits", echo, again, blobs).digest == wanted


def test_a_full_disk_during_registration_registers_nothing(tmp_path: Path, echo: Path) -> None:
    """Every blob before it is whole, the manifest is not there, and the message says what to do."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("no tmpfs can be mounted here")
    try:
        folder = tmp_path / "model"
        _file(folder / echo.name, echo.read_bytes())
        _file(folder / "weights.bin", os.urandom(3_000_000))
        blobs = BlobStore(disk)
        with pytest.raises(
            RegistryError, match=r"weights.bin.*No space left.*Nothing of it was stored; free some space"
        ):
            prepare("digits", folder, RegistrationOptions(prove=False), blobs)
        assert len(blobs.digests()) == 1
        assert all(blobs.verify(digest).state == "ok" for digest in blobs.digests())
        _file(folder / "weights.bin", b"small")
        assert verify(prepare("digits", folder, RegistrationOptions(), blobs).digest, blobs).ok
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_many_registrations_at_once_do_not_disturb_each_other(tmp_path: Path, blobs: BlobStore) -> None:
    """Four threads register two versions between them; both are whole."""
    sources = [_file(tmp_path / str(n) / "script.echo.json", {"delay_ms": n % 2}) for n in range(4)]
    digests: list[str] = []

    def register(source: Path) -> None:
        digests.append(prepare("digits", source, RegistrationOptions(), blobs).digest)

    threads = [threading.Thread(target=register, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 4
    assert len(set(digests)) == 2
    assert all(verify(digest, blobs).ok for digest in digests)


def test_a_manifest_altered_after_registration_is_never_read_as_another(blobs: BlobStore, echo: Path) -> None:
    """Editing by hand makes it unreadable, not different."""
    manifest = prepare("digits", echo, RegistrationOptions(), blobs)
    path = blobs.path(manifest.digest)
    path.chmod(0o644)
    path.write_bytes(replace(manifest, model="other").canonical())
    with pytest.raises(Exception, match="was altered: its bytes have digest"):
        read_manifest(manifest.digest, blobs)
