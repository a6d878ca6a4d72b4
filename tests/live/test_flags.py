"""Flags on a live gateway, in one process and in several: a change of the file is a change of the answers."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from loadtests.live_gateway import LiveGateway, wait_until
from tests.live.scenario import ROW, register

ROUTE = "echo"


def write(path: Path, version: int) -> None:
    """Whole or not at all, as a deployment would."""
    flag = {"state": "ENABLED", "variants": {"v": version}, "defaultVariant": "v"}
    aside = path.with_suffix(".aside")
    aside.write_text(json.dumps({"flags": {"new-model": flag}}))
    aside.rename(path)


def versions(gateway: LiveGateway, count: int = 12) -> set[str]:
    """Each asked over a connection of its own, so that every web process is asked."""
    asked = [httpx.post(f"{gateway.url}/predict/{ROUTE}", json={"inputs": [ROW]}, timeout=90) for _ in range(count)]
    assert {answer.status_code for answer in asked} == {200}
    return {answer.headers["x-model-version"] for answer in asked}


def degraded(gateway: LiveGateway) -> list[str]:
    told: list[str] = httpx.get(f"{gateway.url}/readyz", timeout=90).json()["degraded"]
    return told


@pytest.mark.parametrize("workers", [1, 2])
def test_every_web_process_follows_the_flag_file_and_an_outage_ends_in_the_known_good(
    tmp_path: Path, workers: int
) -> None:
    """The file says 2, then 1; broken for longer than the route allows, it says nothing any more, and readyz does."""
    path = tmp_path / "flags.json"
    write(path, 2)
    flags = {"provider": "flagd-file", "path": str(path), "poll_ms": 50, "budget_ms": 1000.0}
    with LiveGateway(tmp_path / "home", settings={"flags": flags, "server": {"workers": workers}}) as gateway:
        register(gateway, ROUTE, 3)
        split = [{"version": 3, "weight": 1}, {"version": 1, "weight": 0}, {"version": 2, "weight": 0}]
        rules = [{"name": "beta", "flag": "new-model"}]
        gateway.put_route(ROUTE, {"model": ROUTE, "split": split, "rules": rules, "stale_after_s": 1.0})
        wait_until(lambda: versions(gateway) == {"2"}, what="the flag in every process")
        write(path, 1)
        wait_until(lambda: versions(gateway) == {"1"}, what="the changed flag in every process")
        wait_until(lambda: not degraded(gateway), what="a word that all is well")
        path.write_text("{")
        wait_until(lambda: versions(gateway) == {"3"}, what="the known good in every process")
        tellers = 1 if workers == 1 else workers + 1
        wait_until(
            lambda: len([text for text in degraded(gateway) if "holds no flags" in text]) == tellers,
            what="the word of every process",
        )
        wait_until(lambda: 'gateway_flag_misses_total{cause="stale"' in gateway.metrics(), what="the misses counted")
        wait_until(lambda: 'gateway_flag_ready{provider="flagd-file"} 0.0' in gateway.metrics(), what="the outage told")
        write(path, 2)
        wait_until(lambda: versions(gateway) == {"2"}, what="the flag again")
