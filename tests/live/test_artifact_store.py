"""A gateway whose versions lie sealed at a URL: it serves from there, and goes on when its cache is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
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


def test_only_what_an_author_signed_is_loaded(tmp_path: Path) -> None:
    """Where the settings ask for it: a route to an unsigned version stays as it is and says why; signed beside the
    running gateway, the version answers; and so it does after a restart, when all is loaded again."""
    key, public = tmp_path / "alice", tmp_path / "alice.pub"
    make = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)]
    show = ["openssl", "ec", "-in", str(key), "-pubout", "-out", str(public)]
    for command in (make, show):
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    signing = {"keys": {"alice": str(public)}, "require": ["load"]}
    registry = {"source_directories": [str(tmp_path)], "signing": signing}
    with LiveGateway(tmp_path / "home", settings={"registry": registry}) as gateway:
        register(gateway, ROUTE, 2)
        sign(gateway, f"{ROUTE}/1", key, public)
        gateway.put_route(ROUTE, {"model": ROUTE, "split": [{"version": 1, "weight": 100}]})
        assert gateway.predict(ROUTE, [ROW]).json()["outputs"]["y"] == [[1.0] * 4]
        gateway.put_route(ROUTE, {"model": ROUTE, "split": [{"version": 2, "weight": 100}]}, wait=False)
        wait_until(lambda: "must be signed by one of alice" in json.dumps(gateway.route(ROUTE)), what="the reason")
        assert gateway.predict(ROUTE, [ROW]).json()["outputs"]["y"] == [[1.0] * 4]
        sign(gateway, f"{ROUTE}/2", key, public)
        two = [[2.0] * 4]
        wait_until(lambda: gateway.predict(ROUTE, [ROW]).json()["outputs"]["y"] == two, what="the next try to load it")
        gateway.stop()
        gateway.start()
        wait_until(lambda: gateway.predict(ROUTE, [ROW]).status_code == 200, what="an answer")


def sign(gateway: LiveGateway, version: str, key: Path, public: Path) -> None:
    """On the home, beside the gateway."""
    keys = {"TURNOUT_REGISTRY__SIGNING__KEYS": json.dumps({"alice": str(public)})}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TURNOUT_")}
    command = [sys.executable, "-m", "gateway.cli", "sign", version, "--key", str(key)]
    done = subprocess.run(
        command,
        env={**environment, **keys, "TURNOUT_HOME": str(gateway.home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "signed by alice" in done.stdout, done.stderr
