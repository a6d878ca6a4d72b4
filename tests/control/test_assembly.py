"""From a manifest and the settings to what serving runs."""

from __future__ import annotations

import asyncio
import fcntl
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.control.assembly import Assembly
from gateway.errors import InvalidRegistration, LoadError
from gateway.messages import VersionRef
from gateway.registry.blobs import BlobStore
from gateway.registry.environments import EnvironmentRefused, Environments
from gateway.registry.manifest import Manifest
from gateway.registry.registration import Permissions, RegistrationOptions, prepare
from gateway.serving.engine import VersionSpec
from gateway.settings import EnvironmentSettings, RuntimeSettings
from runtimes.base import LoadSpec
from tests.registry.environments.wheels import wheel

REF = VersionRef("digits", 1)


def assembled(folder: Path, settings: dict[str, Any], **options: Any) -> VersionSpec:
    source = folder / "digits.echo.json"
    source.write_text(json.dumps({}))
    blobs = BlobStore(folder / "home")
    manifest = prepare("digits", source, RegistrationOptions(prove=False, **options), blobs)
    return Assembly(blobs, RuntimeSettings(**settings)).spec(REF, manifest.digest)


def with_environment(folder: Path) -> tuple[Environments, BlobStore, Manifest]:
    """A version with a lock file, and its environment built."""
    wheel(folder / "wheels", "numpy", "99.1")
    environments = Environments(folder / "environments", EnvironmentSettings(wheels=(folder / "wheels",), offline=True))
    source, lock, signature = folder / "digits.echo.json", folder / "lock.txt", folder / "signature.json"
    source.write_text(json.dumps({}))
    lock.write_text("numpy==99.1\n")
    tensor = {"name": "x", "datatype": "FP32", "shape": ["batch", 4]}
    signature.write_text(json.dumps({"inputs": [tensor], "outputs": [tensor]}))
    options = RegistrationOptions(prove=False, environment=lock, signature=signature)
    blobs, allowed = BlobStore(folder / "home"), Permissions(environments=environments)
    return environments, blobs, prepare("digits", source, options, blobs, permissions=allowed)


def test_where_and_how_often_a_version_runs_is_the_settings_to_say(tmp_path: Path) -> None:
    """For all models, or for one by name; the manifest, and so the version, does not change with it."""
    both = {"devices": ["cuda:0", "cuda:1"], "instances": 2}
    plain = assembled(tmp_path, {})
    assert (plain.instances, plain.devices) == (1, ())
    everywhere = assembled(tmp_path, both)
    assert (everywhere.instances, everywhere.devices) == (2, ("cuda:0", "cuda:1"))
    own = assembled(tmp_path, both | {"models": {"digits": {"devices": ["cpu"], "instances": 3}}})
    assert (own.instances, own.devices) == (3, ("cpu",))
    other = assembled(tmp_path, {"models": {"iris": {"instances": 3}}})
    assert (other.instances, other.digest) == (1, plain.digest)


def test_what_a_model_computes_in_is_its_versions_own(tmp_path: Path) -> None:
    """Another precision gives other answers, so it is another version."""
    plain, half = assembled(tmp_path, {}), assembled(tmp_path, {}, precision="bf16", compile=True)
    assert (half.load.precision, half.load.compiled) == ("bf16", True)
    assert half.digest != plain.digest
    assert assembled(tmp_path, {}, precision="fp32").digest == plain.digest


def test_graphs_are_captured_for_the_batch_sizes_of_the_warm_up(tmp_path: Path) -> None:
    """Up to the most rows that a batch may have here."""
    spec = assembled(tmp_path, {"max_rows": 12, "device_memory_bytes": 1 << 30}, cuda_graphs=True)
    assert spec.load.graph_rows == (1, 2, 4, 8, 12)
    assert spec.load.memory_limit_bytes == 1 << 30
    assert assembled(tmp_path, {"max_rows": 12}).load.graph_rows == ()


def test_a_version_with_a_lock_file_is_started_with_its_environment(tmp_path: Path) -> None:
    """Built where it is missing, at the load as at registration and at each start of a child; without a place for
    environments, it is refused."""
    environments, blobs, manifest = with_environment(tmp_path)
    assert manifest.environment is not None
    assert blobs.read(manifest.environment.digest) == (tmp_path / "lock.txt").read_bytes()
    built = environments.interpreter(manifest.environment.digest)
    shutil.rmtree(tmp_path / "environments")
    spec = Assembly(blobs, RuntimeSettings(), environments).spec(REF, manifest.digest)
    assert (spec.interpreter, Path(spec.interpreter or "").exists()) == (str(built), True)
    with pytest.raises(EnvironmentRefused, match="none are built here"):
        Assembly(blobs, RuntimeSettings()).spec(REF, manifest.digest)
    next((tmp_path / "environments").rglob("numpy/__init__.py")).unlink()
    assert environments.interpreter(manifest.environment.digest) is None
    load = asyncio.run(spec.current_load())  # as a child that crashed in it is started again
    assert load.files == spec.load.files
    assert environments.interpreter(manifest.environment.digest) == built
    shutil.rmtree(tmp_path / "wheels")
    next((tmp_path / "environments").rglob("numpy/__init__.py")).unlink()
    with pytest.raises(LoadError, match=r"cannot be loaded again now: .*cannot be built"):
        asyncio.run(spec.current_load())


def test_a_build_that_a_start_waits_for_takes_one_thread_and_none_that_all_share(tmp_path: Path) -> None:
    """However often the start gives up and is tried again; who asks meanwhile gets what it comes to."""
    environments, blobs, manifest = with_environment(tmp_path)
    folder, before = tmp_path / "environments", threading.enumerate()
    spec = Assembly(blobs, RuntimeSettings(), environments).spec(REF, manifest.digest)
    next(folder.rglob("numpy/__init__.py")).unlink()  # to be built again
    (held,) = folder.glob(".lock-*")

    async def tried_again() -> LoadSpec:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        with held.open("r+b") as builder:  # another process builds it
            fcntl.flock(builder, fcntl.LOCK_EX)
            for _ in range(20):
                start = asyncio.ensure_future(spec.current_load())
                await asyncio.sleep(0)
                start.cancel()
            waiting = [asyncio.ensure_future(spec.current_load()) for _ in range(20)]
            assert await asyncio.to_thread(lambda: "answered") == "answered"
            names = [thread.name for thread in threading.enumerate() if thread not in before]
            assert sum(name.startswith("turnout-files") for name in names) == 1
        assert len({load.files for load in await asyncio.gather(*waiting)}) == 1
        return await waiting[0]

    assert asyncio.run(tried_again()).files == spec.load.files
    assert manifest.environment is not None
    assert environments.interpreter(manifest.environment.digest) is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"interpreter": "/usr/bin/python3"}, "interpreter"),
        ({"placement": "inline"}, "placement inline"),
        ({"environment": Path("/nowhere/lock.txt")}, "cannot be read"),
    ],
)
def test_an_environment_goes_with_a_process_of_its_own(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    """And not with what says otherwise where the version runs."""
    source, lock = tmp_path / "digits.echo.json", tmp_path / "lock.txt"
    source.write_text(json.dumps({}))
    lock.write_text("numpy==99.1\n")
    allowed = Permissions(environments=Environments(tmp_path / "environments"), allow_inline=("digits",))
    asked = RegistrationOptions(**{"prove": False, "environment": lock, **options})
    with pytest.raises(InvalidRegistration, match=words):
        prepare("digits", source, asked, BlobStore(tmp_path / "home"), permissions=allowed)
    plain = RegistrationOptions(prove=False, environment=lock)
    with pytest.raises(InvalidRegistration, match="no environments are built here"):
        prepare("digits", source, plain, BlobStore(tmp_path / "home"))


def test_a_version_counts_its_rows_where_drift_is_watched_alone(tmp_path: Path) -> None:
    """Nobody reads the counts elsewhere, and a row's cost microseconds."""
    reference = tmp_path / "reference.npy"
    np.save(reference, np.random.default_rng(1).normal(size=(500, 4)).astype(np.float32))
    signature = tmp_path / "signature.json"
    tensor = {"name": "x", "datatype": "FP32", "shape": ["batch", 4]}
    signature.write_text(json.dumps({"inputs": [tensor], "outputs": [tensor]}))
    source = tmp_path / "digits.echo.json"
    source.write_text("{}")
    blobs = BlobStore(tmp_path / "home")
    options = RegistrationOptions(prove=False, signature=signature, reference=reference)
    digest = prepare("digits", source, options, blobs).digest
    assert Assembly(blobs, RuntimeSettings()).spec(REF, digest).profile is not None
    assert Assembly(blobs, RuntimeSettings(), counted=False).spec(REF, digest).profile is None
    assert Assembly(blobs, RuntimeSettings(), busy_share=0.5).spec(REF, digest).busy_share == 0.5
