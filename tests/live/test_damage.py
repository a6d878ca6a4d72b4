"""Stored bytes change, the disk fills up: never a wrong version served, always a message that says what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.live_gateway import LiveGateway, wait_until
from tests.live.scenario import ROW, SIGNATURE, register, self_naming
from tests.small_disk import small_file_system

ROUTE = "echo"
SPLIT = [{"version": 1, "weight": 50}, {"version": 2, "weight": 50}]


def blob_of(gateway: LiveGateway, version: int) -> Path:
    manifest = gateway.admin("GET", f"/models/{ROUTE}/versions/{version}")["manifest"]
    digest = manifest["files"][0]["sha256"]
    return next(path for path in gateway.home.rglob(digest) if path.is_file())


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_a_version_whose_stored_bytes_changed_is_failed_and_never_served(gateway: LiveGateway, damage: str) -> None:
    """The child hashes what it reads: the version is failed, the reason says why, the route goes on with the other."""
    register(gateway, ROUTE, 2)
    path = blob_of(gateway, 2)
    stored = path.read_bytes()
    path.chmod(0o644)
    if damage == "flipped":
        path.write_bytes(bytes([stored[0] ^ 1]) + stored[1:])
    elif damage == "truncated":
        path.write_bytes(stored[:-3])
    else:
        path.unlink()
    gateway.put_route(ROUTE, {"model": ROUTE, "split": SPLIT, "fallback": 1}, wait=False)
    failed = wait_until(
        lambda: [row for row in gateway.resident().values() if row["state"] == "failed"], what="the failed version"
    )
    assert failed[0]["version"] == 2
    if damage != "missing":
        assert path.name in failed[0]["reason"]
    wait_until(lambda: gateway.client.get("/readyz").status_code == 200, what="readyz")
    for index in range(30):
        answer = gateway.predict(ROUTE, [ROW], key=f"k{index}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["version"] == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    with small_file_system(tmp_path / "disk", size="24m") as disk:
        yield disk


def fill(disk: Path) -> Path:
    """Takes every byte that is left."""
    junk = disk / "junk"
    with junk.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)
    return junk


def test_a_full_disk_refuses_a_registration_whole_and_says_what_to_do(small_disk: Path, tmp_path: Path) -> None:
    """Nothing half-registered stays, what was there is served on, and what fits can still be registered."""
    sources = tmp_path / "sources"
    sources.mkdir()
    big = sources / "big.py"
    big.write_text("# " + "x" * 30_000_000 + "\n", encoding="utf-8")
    with LiveGateway(small_disk / "home", settings={"registry": {"source_directories": [str(tmp_path)]}}) as gateway:
        register(gateway, ROUTE, 1)
        gateway.put_route(ROUTE, {"model": ROUTE, "split": [{"version": 1, "weight": 100}]})
        files = sorted(path for path in gateway.home.rglob("*") if path.is_file() and "blobs" in path.parts)
        headers = {"authorization": f"Bearer {gateway.token}"}
        body = {"source": f"file:{big}", "signature": SIGNATURE}
        refused = gateway.client.post(f"/admin/models/{ROUTE}/versions", json=body, headers=headers)
        assert refused.status_code == 507, refused.text
        assert "free some space" in refused.json()["detail"].lower()
        assert len(gateway.admin("GET", f"/models/{ROUTE}")["versions"]) == 1
        assert sorted(path for path in gateway.home.rglob("*") if path.is_file() and "blobs" in path.parts) == files
        assert gateway.predict(ROUTE, [ROW]).status_code == 200
        self_naming(gateway, ROUTE, 2)


def test_a_rollback_on_a_full_disk_applies_at_once_and_is_written_when_there_is_room(small_disk: Path) -> None:
    """The answer says durable false; traffic is back already; with room again it is durable, and outlives a restart."""
    with LiveGateway(small_disk / "home") as gateway:
        register(gateway, ROUTE, 2)
        gateway.put_route(ROUTE, {"model": ROUTE, "split": SPLIT, "known_good": 1, "fallback": 1})
        junk = fill(small_disk)
        answer = gateway.rollback(ROUTE)
        assert answer["durable"] is False
        versions = {gateway.predict(ROUTE, [ROW], key=f"k{index}").json()["version"] for index in range(50)}
        assert versions == {1}
        junk.unlink()
        wait_until(lambda: gateway.route(ROUTE)["status"].get("durable", True) is True, what="durability")
        wait_until(lambda: gateway.route(ROUTE)["status"]["quarantined"], what="the quarantine in the store")
        gateway.kill()
        gateway.start()
        wait_until(lambda: gateway.client.get("/readyz").status_code == 200, what="readyz")
        versions = {gateway.predict(ROUTE, [ROW], key=f"k{index}").json()["version"] for index in range(50)}
        assert versions == {1}
