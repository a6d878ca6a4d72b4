"""Processes die: runtime children, children that cannot start, the gateway itself. What must hold then."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from loadtests.live_gateway import LiveGateway, wait_until
from tests.live.scenario import (
    ROW,
    SIGNATURE,
    active,
    after,
    alive,
    failed,
    load,
    mislabelled,
    register,
    runtime_pids,
    self_naming,
)

ROUTE = "echo"
UNTRIED = {"signature": SIGNATURE, "verify": False}
HALVES = {"model": ROUTE, "split": [{"version": 1, "weight": 50}, {"version": 2, "weight": 50}]}


@pytest.mark.parametrize("fallback", [None, 1])
def test_killing_any_runtime_child_under_load_loses_no_answer(gateway: LiveGateway, fallback: int | None) -> None:
    """kill -9, six times, of either version: every request is answered, correctly, with or without a fallback."""
    register(gateway, ROUTE, 2)
    gateway.put_route(ROUTE, {**HALVES, **({} if fallback is None else {"fallback": fallback})})
    with load(gateway, ROUTE) as running:
        after(running, 100)
        for number in range(6):
            victim = f"{ROUTE}/{number % 2 + 1}"
            pid = runtime_pids(gateway)[victim]
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda old=pid, name=victim: runtime_pids(gateway).get(name, old) != old, what="a new child")
            after(running, 100)
    assert failed(running.answers) == []
    assert mislabelled(running.answers) == []


def test_a_child_that_dies_at_each_start_leaves_the_route_to_its_fallback(gateway: LiveGateway) -> None:
    """The route answers through its fallback; readyz names the version and why; a metric shows the state."""
    register(gateway, ROUTE, 1)
    control = gateway.home.parent / "start.control"
    crashing = {"outputs": {"y": 2}, "control": str(control)}
    number = gateway.register_echo(ROUTE, "dies", {**crashing, "crash": "start"}, **UNTRIED)
    gateway.put_route(ROUTE, {**HALVES, "fallback": 1}, wait=False)
    wait_until(lambda: gateway.predict(ROUTE, [ROW]).status_code == 200, what="an answer")
    for index in range(40):
        answer = gateway.predict(ROUTE, [ROW], key=f"k{index}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["version"] == 1

    def degraded() -> str:
        return json.dumps(gateway.client.get("/readyz").json())

    wait_until(lambda: f"{ROUTE}/{number}" in degraded() or f'"version": {number}' in degraded(), what="readyz")
    wait_until(lambda: gateway.client.get("/readyz").status_code == 200, what="readyz, once it is known to fail")
    state = f'gateway_version_state{{model="{ROUTE}",state="failed",version="{number}"}} 1.0'
    wait_until(lambda: state in gateway.metrics(), what="the metric of the failed version")


def test_killing_the_gateway_leaves_nothing_and_a_restart_serves_as_before(gateway: LiveGateway) -> None:
    """kill -9 under load: no child, no socket file, no memory segment stays; started again, the same routes answer."""
    register(gateway, ROUTE, 2)
    gateway.put_route(ROUTE, {**HALVES, "rules": [{"name": "two", "if": {"==": [{"var": "a"}, 1]}, "use": 2}]})
    gateway.weights(ROUTE, {1: 30, 2: 70})
    before = gateway.route(ROUTE)
    chosen = {f"k{index}": gateway.predict(ROUTE, [ROW], key=f"k{index}").json()["version"] for index in range(50)}
    with load(gateway, ROUTE) as running:
        after(running, 100)
        pids = [process.pid for process in gateway.descendants()]
        assert len(pids) >= 3
        segments = [path for pid in (gateway.pid, *pids) for path in shared_files(pid)]
        gateway.kill()
    wait_until(lambda: not alive(pids), what="the end of every child")
    assert not [path for path in segments if path.exists()]
    assert not [path for path in gateway.home.rglob("*") if path.is_socket()]
    gateway.start()
    wait_until(lambda: gateway.client.get("/readyz").status_code == 200, what="readyz")
    wait_until(lambda: active(gateway) == {f"{ROUTE}/1", f"{ROUTE}/2"}, what="both versions")
    now = gateway.route(ROUTE)
    assert now["spec"] == before["spec"]
    assert now["status"]["split"] == before["status"]["split"]
    again = {key: gateway.predict(ROUTE, [ROW], key=key).json()["version"] for key in chosen}
    assert again == chosen
    assert gateway.predict(ROUTE, [ROW], context={"a": 1}).json()["reason"] == "rule:two"


def shared_files(pid: int) -> set[Path]:
    """Named memory that the process has mapped or open: what else lies there is other programs'."""
    process = Path(f"/proc/{pid}")
    mapped = [Path(words[5]) for line in (process / "maps").read_text().splitlines() if len(words := line.split()) == 6]
    opened = []
    for handle in (process / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            opened.append(handle.readlink())
    return {path for path in (*mapped, *opened) if path.is_relative_to("/dev/shm")}


def test_killing_the_fork_server_costs_latency_not_answers(gateway: LiveGateway) -> None:
    """All children go with their parent; everything is started again and every request answered."""
    register(gateway, ROUTE, 2)
    gateway.put_route(ROUTE, HALVES)
    with load(gateway, ROUTE, clients=8) as running:
        after(running, 50)
        parent = psutil.Process(runtime_pids(gateway)[f"{ROUTE}/1"]).parent()
        assert parent is not None
        assert parent.pid != gateway.pid
        parent.kill()
        after(running, 200)
    assert failed(running.answers) == []
    assert mislabelled(running.answers) == []


def test_a_row_that_kills_the_process_fails_alone(gateway: LiveGateway) -> None:
    """One poison request among 16 clients: it gets its 500, everybody else the right answer, the version lives on."""
    self_naming(gateway, ROUTE, 1, crash={"equals": 666.0}, delay_ms=5)
    gateway.put_route(ROUTE, {"model": ROUTE, "split": [{"version": 1, "weight": 100}]})

    def sometimes(client: int, sequence: int) -> tuple[dict[str, object], dict[str, str]]:
        poison = client == 0 and sequence == 5
        return {"inputs": [[666.0, 0.0, 0.0, 0.0] if poison else ROW]}, {}

    with load(gateway, ROUTE, clients=16, make=sometimes) as running:
        after(running, 600)
    bad = failed(running.answers)
    assert [answer.status for answer in bad] == [500]
    assert bad[0].client == 0
    assert bad[0].body["type"].endswith("version-crashed")
    assert mislabelled(running.answers) == []


def test_a_row_that_makes_the_model_raise_fails_alone(gateway: LiveGateway) -> None:
    """Model code raises: 500 for that request. It refuses: 422. Neighbours get what they would have got alone."""
    self_naming(gateway, ROUTE, 1, fail={"equals": 13.0}, invalid={"equals": 14.0}, delay_ms=5)
    gateway.put_route(ROUTE, {"model": ROUTE, "split": [{"version": 1, "weight": 100}]})
    values = {0: 13.0, 1: 14.0}

    def mixed(client: int, _: int) -> tuple[dict[str, object], dict[str, str]]:
        return {"inputs": [[values.get(client, 1.0), 0.0, 0.0, 0.0]]}, {}

    with load(gateway, ROUTE, clients=16, make=mixed) as running:
        after(running, 800)
    by_client: dict[int, set[int]] = {}
    for answer in running.answers:
        by_client.setdefault(answer.client, set()).add(answer.status)
    assert by_client[0] == {500}
    assert by_client[1] == {422}
    assert all(by_client[client] == {200} for client in range(2, 16))
    assert mislabelled(running.answers) == []
