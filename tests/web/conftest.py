"""The stage in process, and the stage behind a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from tests.web.stage import ServedStage, Stage, build_stage, serve_stage


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with build_stage() as built:
        yield built


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(stage.application, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as opened:
        yield opened


@pytest.fixture(scope="module")
def served() -> Iterator[ServedStage]:
    with serve_stage() as running:
        yield running
