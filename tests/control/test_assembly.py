"""From a manifest and the settings to what serving runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gateway.control.assembly import Assembly
from gateway.messages import VersionRef
from gateway.registry.blobs import BlobStore
from gateway.registry.registration import RegistrationOptions, prepare
from gateway.serving.engine import VersionSpec
from gateway.settings import RuntimeSettings

REF = VersionRef("digits", 1)


def assembled(folder: Path, settings: dict[str, Any], **options: Any) -> VersionSpec:
    source = folder / "digits.echo.json"
    source.write_text(json.dumps({}))
    blobs = BlobStore(folder / "home")
    manifest = prepare("digits", source, RegistrationOptions(prove=False, **options), blobs)
    return Assembly(blobs, RuntimeSettings(**settings)).spec(REF, manifest.digest)


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
