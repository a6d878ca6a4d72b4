"""A gateway of its own for each test that asks, and the versions most tests need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.live_gateway import LiveGateway
from tests.live.scenario import PATIENT

_TEST_S = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Several processes a test, each of which a busy machine may keep waiting for a minute."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_TEST_S))


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[LiveGateway]:
    """Started, empty, quick to restart (only the echo runtime is preloaded); ended with the test."""
    with LiveGateway(tmp_path / "home", settings=PATIENT) as running:
        yield running
