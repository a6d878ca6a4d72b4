"""Three versions in real processes, and memory for two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loadtests.live_gateway import LiveGateway, wait_until

MODEL = """
import numpy as np

HELD = np.ones(SIZE, np.uint8)


class Model:
    def predict(self, inputs):
        return {"y": inputs["x"] * NUMBER}
"""


def heavy(gateway: LiveGateway, folder: Path, number: int, size_mb: int) -> int:
    source = folder / f"heavy{number}.py"
    source.write_text(MODEL.replace("SIZE", str(size_mb * 1_000_000)).replace("NUMBER", str(number)))
    return gateway.register("heavy", source, example={"inputs": {"x": [[1.0, 2.0]]}})


def standing(gateway: LiveGateway) -> dict[int, str]:
    return {row["version"]: row["state"] for row in gateway.resident().values()}


@pytest.mark.slow
def test_the_idle_version_goes_and_comes_back_and_the_known_good_never_goes(tmp_path: Path) -> None:
    """Its process ends when a third one needs the room; given weight again, it answers again."""
    # A version with nothing in it holds some 30 MB; these hold 150 more, and the budget is for two.
    with LiveGateway(
        tmp_path / "home", settings={"runtimes": {"preload": ["python"], "memory_bytes": 440_000_000}}
    ) as gateway:
        good, second, third = (heavy(gateway, tmp_path, number, 150) for number in (1, 2, 3))

        def put(weights: dict[int, int]) -> Any:
            split = [{"version": version, "weight": weight} for version, weight in weights.items()]
            return gateway.put_route("heavy", {"model": "heavy", "split": split, "known_good": good})

        put({good: 100, second: 0})
        wait_until(lambda: standing(gateway) == {good: "active", second: "active"}, what="two versions")
        put({good: 0, second: 0, third: 100})
        wait_until(
            lambda: standing(gateway) == {good: "active", second: "resting", third: "active"},
            what="the idle one's rest",
        )
        assert gateway.resident()[f"heavy/{second}"]["pid"] is None
        assert gateway.predict("heavy", [[1.0, 2.0]]).json()["outputs"]["y"] == [[3.0, 6.0]]
        put({good: 100, second: 0, third: 0})
        put({good: 0, second: 100, third: 0})
        wait_until(
            lambda: standing(gateway) == {good: "active", second: "active", third: "resting"}, what="its coming back"
        )
        assert gateway.predict("heavy", [[1.0, 2.0]]).json()["outputs"]["y"] == [[2.0, 4.0]]
        gateway.rollback("heavy")
        assert gateway.predict("heavy", [[1.0, 2.0]]).json()["outputs"]["y"] == [[1.0, 2.0]]
