"""The same import against a real account, for those who have one: see ``docs/operations.md``.

WANDB_API_KEY=… TURNOUT_TEST_WANDB=entity/project/name:alias pytest tests/registry/sources/test_wandb_account.py
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.registry.sources import SourceAccess, opened, resolve_source

ARTIFACT = os.environ.get("TURNOUT_TEST_WANDB")


@pytest.mark.skipif(ARTIFACT is None, reason="TURNOUT_TEST_WANDB names no artifact of a real account")
def test_an_artifact_of_a_real_account_comes_as_one_of_the_stand_in_does(tmp_path: Path) -> None:
    """Files hashed against the manifest, the manifest against the digest, and the run's configuration beside them."""
    access = SourceAccess(folder=tmp_path / "fetching")
    place = f"wandb:{ARTIFACT}"
    found = resolve_source(place, access)
    with opened(place, access=access) as source:
        assert source.files
        assert source.provenance is not None
        assert source.provenance.identity == found.identity
        assert source.provenance.lineage.keys() >= {"parameters", "run"}
