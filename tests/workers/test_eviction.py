"""A memory budget with two web workers: who goes, and that it really goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.live_gateway import LiveGateway, wait_until
from tests.live.test_eviction import heavy, standing

SETTINGS = {
    "server": {"workers": 2},
    "runtimes": {"preload": ["python"], "memory_bytes": 620_000_000, "lazy": True},
}


@pytest.mark.slow
def test_the_idle_version_leaves_every_worker_and_its_next_request_wakes_it(tmp_path: Path) -> None:
    """Room for three of four: the one that is asked all the time stays, the workers give the other back, so that its
    process ends; then its route's fallback answers, until it is there again."""
    with LiveGateway(tmp_path / "home", settings=SETTINGS) as gateway:
        good, busy, idle, new = (heavy(gateway, tmp_path, number, 150) for number in (1, 2, 3, 4))

        def put(route: str, version: int, *, wait: bool = True) -> None:
            split = [{"version": version, "weight": 100}]
            document = {"model": "heavy", "split": split, "known_good": good, "fallback": good}
            gateway.put_route(route, document, wait=wait)

        def state(version: int) -> str | None:
            answer = gateway.predict("busy", [[1.0, 2.0]])
            assert answer.json()["version"] == busy, gateway.log()
            return standing(gateway).get(version)

        put("good", good)
        put("busy", busy)
        put("idle", idle)
        assert state(busy) == "active"
        put("new", new, wait=False)
        wait_until(lambda: state(idle) == "resting", what="the idle one's rest")
        assert gateway.predict("idle", [[1.0, 2.0]]).json()["reason"] == "fallback"
        wait_until(lambda: gateway.predict("idle", [[1.0, 2.0]]).json()["version"] == idle, what="its coming back")
        assert state(busy) == "active"
