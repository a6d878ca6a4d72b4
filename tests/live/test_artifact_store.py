"""A gateway whose versions lie sealed at a URL: it serves from there, and goes on when its cache is lost."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from loadtests.live_gateway import LiveGateway, wait_until
from tests.live.scenario import ROW, register, runtime_pids

ROUTE = "echo"


def test_versions_sealed_at_a_url_are_served_and_come_back_after_a_crash(tmp_path: Path) -> None:
    """Registered, loaded and answered; with the cache gone, a child that is killed starts again from the store; nothing
    plain is on the disk."""
    key, objects = tmp_path / "key", tmp_path / "objects"
    key.write_text("ab" * 32)
    registry = {"url": objects.as_uri(), "encryption": {"key": {"file": str(key)}}}
    registry["source_directories"] = [str(tmp_path)]
    with LiveGateway(tmp_path / "home", settings={"registry": registry}) as gateway:
        register(gateway, ROUTE, 1)
        gateway.put_route(ROUTE, {"model": ROUTE, "split": [{"version": 1, "weight": 100}]})
        assert gateway.predict(ROUTE, [ROW]).status_code == 200
        at_rest = [path for folder in (objects, gateway.home) for path in folder.rglob("sha256/*/*")]
        assert at_rest
        assert all(path.read_bytes().startswith(b"turnout-sealed") for path in at_rest)
        shutil.rmtree(gateway.home / "cache" / "blobs" / "sha256")
        (gateway.home / "cache" / "blobs" / "sha256").mkdir()
        victim = runtime_pids(gateway)[f"{ROUTE}/1"]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: runtime_pids(gateway).get(f"{ROUTE}/1", victim) != victim, what="a new child")
        wait_until(lambda: gateway.predict(ROUTE, [ROW]).status_code == 200, what="an answer")
