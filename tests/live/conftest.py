"""A gateway of its own for each test that asks, and the versions most tests need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.live_gateway import LiveGateway


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[LiveGateway]:
    """Started, empty, quick to restart (only the echo runtime is preloaded); ended with the test."""
    with LiveGateway(tmp_path / "home") as running:
        yield running
