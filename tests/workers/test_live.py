"""``turnout serve --workers 2``, for real: one port, two web processes, one node; and each of them dies once."""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from gateway.workers.crew import HOLD_S
from loadtests.closed_loop import Answer
from loadtests.live_gateway import LiveGateway, wait_until
from tests.live.scenario import (
    ROW,
    after,
    alive,
    controlled,
    failed,
    heard,
    load,
    misbehave,
    mislabelled,
    register,
    runtime_pids,
    self_naming,
)

ROUTE = "echo"
HALVES = {"model": ROUTE, "split": [{"version": 1, "weight": 50}, {"version": 2, "weight": 50}]}
FIRST = {"model": ROUTE, "split": [{"version": 1, "weight": 100}]}
SETTINGS: dict[str, Any] = {"server": {"workers": 2}}
PATIENT = {**SETTINGS, "runtimes": {"preload": ["echo"], "hang_floor_ms": 10_000}}
"""A version that had no turn for a while is not taken for one that hangs."""


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[LiveGateway]:
    with LiveGateway(tmp_path / "home", settings=PATIENT) as running:
        yield running


@contextmanager
def a_change(gateway: LiveGateway) -> Iterator[None]:
    """In force in every worker with its answer; with an answer that did not wait for one, of which the log tells, once
    that one has it, too."""
    before = answered_early(gateway)
    yield
    if answered_early(gateway) > before:
        wait_until(lambda: heard(gateway), what="the change in every worker")


def answered_early(gateway: LiveGateway) -> int:
    return gateway.log_path.read_text(encoding="utf-8").count("not in force yet in web worker")


def put(gateway: LiveGateway, document: dict[str, Any]) -> None:
    with a_change(gateway):
        gateway.put_route(ROUTE, document)


def workers(gateway: LiveGateway) -> list[dict[str, Any]]:
    [replica] = gateway.admin("GET", "/replicas")["replicas"]
    found: list[dict[str, Any]] = replica["workers"]
    return found


def worker_pids(gateway: LiveGateway) -> list[int]:
    return [row["pid"] for row in workers(gateway)]


def serving_pids(gateway: LiveGateway) -> set[int]:
    return {row["pid"] for row in serving(gateway)}


def child_differs(gateway: LiveGateway, pid: int) -> bool:
    return runtime_pids(gateway).get(f"{ROUTE}/1", pid) != pid


def counted(gateway: LiveGateway, **labels: str) -> float:
    """The sum of ``gateway_requests_total`` over the series that have these labels."""
    total = 0.0
    for line in gateway.metrics().splitlines():
        if line.startswith("gateway_requests_total{") and all(f'{k}="{v}"' in line for k, v in labels.items()):
            total += float(line.rsplit(" ", 1)[1])
    return total


def broken(answers: list[Answer]) -> list[Answer]:
    return [answer for answer in answers if answer.status == 0]


def asked_one_by_one(gateway: LiveGateway, count: int, *, route: str = ROUTE) -> list[httpx.Response]:
    """Each over a connection of its own, so that the kernel spreads them over the workers."""
    body = {"inputs": [ROW]}
    return [httpx.post(f"{gateway.url}/predict/{route}", json=body, timeout=90) for _ in range(count)]


def test_two_workers_answer_on_one_port_and_the_node_answers_the_rest(gateway: LiveGateway) -> None:
    """Inference by both, from one child; health, metadata, metrics and the admin plane by the node, through either."""
    register(gateway, ROUTE, 1)
    put(gateway, FIRST)
    answers = asked_one_by_one(gateway, 60)
    assert {answer.status_code for answer in answers} == {200}
    wait_until(lambda: sum(row["requests"] for row in workers(gateway)) == 60, what="60 requests told")
    assert all(row["requests"] for row in workers(gateway))
    assert len(runtime_pids(gateway)) == 1
    wait_until(lambda: gateway.resident()[f"{ROUTE}/1"]["queue"]["answered"] >= 60, what="60 answers of its child")
    for path in ("/healthz", "/readyz", "/v2", "/v2/health/ready", f"/v2/models/{ROUTE}", "/openapi.json", "/metrics"):
        for _ in range(4):
            assert httpx.get(f"{gateway.url}{path}", timeout=90).status_code == 200, path
    named = httpx.get(f"{gateway.url}/nowhere", headers={"x-request-id": "asked-1"}, timeout=90)
    assert (named.status_code, named.headers["x-request-id"]) == (404, "asked-1")
    assert httpx.get(f"{gateway.url}/admin/routes", timeout=90).status_code == 401


def test_a_large_upload_streams_through_a_worker(gateway: LiveGateway, tmp_path: Path) -> None:
    """Registering by upload goes over the tunnel, with back-pressure; the version then serves."""
    source = tmp_path / "padded.echo.json"
    source.write_text('{"outputs": {"y": 1}, "allocate_bytes": 0' + " " * (20 << 20) + "}", encoding="utf-8")
    command = [sys.executable, "-m", "gateway.cli", "register", ROUTE, str(source), "--json"]
    environment = {**os.environ, "TURNOUT_URL": gateway.url, "TURNOUT_TOKEN": gateway.token}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr + gateway.log()
    put(gateway, FIRST)
    assert {answer.status_code for answer in asked_one_by_one(gateway, 8)} == {200}


def test_killing_a_worker_under_load_breaks_only_its_own_connections(gateway: LiveGateway) -> None:
    """kill -9: every client loses at most the one answer it waited for there, the others none; the worker is back. (Who
    waits for one that does not come soon is sent to the other: that is a second lost connection.)"""
    register(gateway, ROUTE, 1)
    put(gateway, FIRST)
    with load(gateway, ROUTE) as running:
        after(running, 200)
        children = runtime_pids(gateway)
        victim, bystander = worker_pids(gateway)
        killed_at = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: bool(now := serving_pids(gateway)) and len(now - {victim}) == 2, what="another worker")
        most = 1 if time.monotonic() - killed_at < HOLD_S else 2
        after(running, 300)
        assert bystander in worker_pids(gateway)
        assert runtime_pids(gateway) == children
    lost = broken(running.answers)
    assert {answer.status for answer in failed(running.answers)} <= {0}
    losses = Counter(answer.client for answer in lost)
    assert 0 < len(losses) < 32
    assert max(losses.values()) <= most
    assert mislabelled(running.answers) == []
    assert [row["restarts"] for row in workers(gateway)].count(1) == 1


def serving(gateway: LiveGateway) -> list[dict[str, Any]]:
    """Asked over a connection that may be that of a worker which has just been killed."""
    try:
        return [row for row in workers(gateway) if row["state"] == "serving"]
    except httpx.TransportError:
        return []


def test_a_change_that_is_answered_is_in_force_in_every_worker(gateway: LiveGateway) -> None:
    """Weights back and forth, and a rollback, under load: whatever starts after the reply obeys it, on both workers."""
    register(gateway, ROUTE, 2)
    put(gateway, {**HALVES, "known_good": 1})
    with load(gateway, ROUTE, clients=16) as running:
        for _ in range(10):
            for version in (1, 2):
                with a_change(gateway):
                    gateway.weights(ROUTE, {version: 100}, wait=False)
                assert {answer.json()["version"] for answer in asked_one_by_one(gateway, 6)} == {version}
        with a_change(gateway):
            gateway.rollback(ROUTE)
        assert {answer.json()["version"] for answer in asked_one_by_one(gateway, 20)} == {1}
        gateway.lift(ROUTE, 2)
        with a_change(gateway):
            gateway.weights(ROUTE, {2: 100})
        assert {answer.json()["version"] for answer in asked_one_by_one(gateway, 6)} == {2}
    assert failed(running.answers) == []
    assert mislabelled(running.answers) == []


def test_versions_come_and_go_under_load_without_an_error(gateway: LiveGateway) -> None:
    """A worker serves a version only once it has borrowed it; a child ends only when every worker has given it back.
    The first version stays: it is the known good."""
    register(gateway, ROUTE, 1)
    put(gateway, FIRST)
    with load(gateway, ROUTE) as running:
        for number in range(2, 7):
            self_naming(gateway, ROUTE, number)
            put(gateway, {"model": ROUTE, "split": [{"version": number, "weight": 100}]})
            after(running, 100)
        wait_until(lambda: set(gateway.resident()) == {f"{ROUTE}/1", f"{ROUTE}/6"}, what="the end of the others")
    assert failed(running.answers) == []
    assert mislabelled(running.answers) == []
    assert {answer.version for answer in running.answers} == {1, 2, 3, 4, 5, 6}


def test_metrics_sum_exactly_over_workers_a_dead_one_included(gateway: LiveGateway) -> None:
    """What was relayed before a kill stays counted, nothing stays in flight, and a retired version's labels go."""
    register(gateway, ROUTE, 2)
    put(gateway, HALVES)
    asked_one_by_one(gateway, 40)
    wait_until(lambda: counted(gateway, route=ROUTE) == 40, what="40 requests counted")
    victim = worker_pids(gateway)[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(serving_pids(gateway) - {victim}) == 2, what="another worker")
    asked_one_by_one(gateway, 40)
    wait_until(lambda: counted(gateway, route=ROUTE) == 80, what="80 requests counted")
    assert sum(row["requests"] for row in workers(gateway)) == 80
    text = gateway.metrics()
    assert f'gateway_inflight_requests{{route="{ROUTE}"}} 0.0' in text
    assert "gateway_telemetry_dropped_total 0.0" in text
    assert "gateway_worker_restarts_total 1.0" in text
    put(gateway, FIRST)
    wait_until(lambda: set(gateway.resident()) == {f"{ROUTE}/1"}, what="the end of version 2")
    wait_until(lambda: 'version="2"' not in gateway.metrics(), what="the end of its series")


def test_who_asks_what_a_worker_saw_over_the_same_connection_is_told_all_of_it(gateway: LiveGateway) -> None:
    """Telemetry gathers before it is told; the worker tells the rest before it has the node answer."""
    register(gateway, ROUTE, 1)
    put(gateway, FIRST)
    token = {"authorization": f"Bearer {gateway.token}"}
    with httpx.Client(base_url=gateway.url, timeout=90) as client:
        for asked in range(4, 44, 4):
            for _ in range(4):
                assert client.post(f"/predict/{ROUTE}", json={"inputs": [ROW]}).status_code == 200
            [replica] = client.get("/admin/replicas", headers=token).json()["replicas"]
            assert sum(row["requests"] for row in replica["workers"]) == asked


def test_what_a_dead_worker_had_in_flight_is_taken_off(gateway: LiveGateway) -> None:
    """A worker that dies with requests under way leaves no ghost in ``gateway_inflight_requests``."""
    self_naming(gateway, ROUTE, 1, delay_ms=500)
    put(gateway, {**FIRST, "limits": {"timeout_ms": 60_000}})
    inflight = re.compile(rf'gateway_inflight_requests{{route="{ROUTE}"}} (\d+)')

    def count() -> int:
        found = inflight.search(gateway.metrics())
        return 0 if found is None else int(found[1])

    with load(gateway, ROUTE, clients=8) as running:
        wait_until(lambda: count() == 8, what="8 requests in flight")
        running._stop.set()
        victims = set(worker_pids(gateway))
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(serving_pids(gateway) - victims) == 2, what="new workers")
        assert count() == 0


def test_a_crash_of_a_child_under_two_workers_loses_no_answer(gateway: LiveGateway) -> None:
    """kill -9 of the shared child, four times: both workers keep their requests and run them on the next one."""
    register(gateway, ROUTE, 1)
    put(gateway, FIRST)
    with load(gateway, ROUTE) as running:
        after(running, 100)
        for _ in range(4):
            pid = runtime_pids(gateway)[f"{ROUTE}/1"]
            os.kill(pid, signal.SIGKILL)
            restarted = functools.partial(child_differs, gateway, pid)
            wait_until(restarted, what="a new child")
            after(running, 100)
    assert failed(running.answers) == []
    assert mislabelled(running.answers) == []
    assert gateway.admin("GET", f"/routes/{ROUTE}")["status"]["quarantined"] == {}


def test_a_home_and_an_address_are_served_by_one_gateway(gateway: LiveGateway, tmp_path: Path) -> None:
    """A second one, with one worker or several, is told who is there; SO_REUSEPORT lets nobody in."""
    for home, told in [(gateway.home, f"is served by process {gateway.pid}"), (tmp_path / "other", "is taken")]:
        for count in ("1", "2"):
            command = [sys.executable, "-m", "gateway.cli", "serve", "--port", str(gateway.port), "--workers", count]
            environment = {**os.environ, "TURNOUT_HOME": str(home)}
            second = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
            assert second.returncode != 0
            assert told in second.stderr
            assert "Traceback" not in second.stderr
    assert gateway.client.get("/healthz").status_code == 200


def test_sigterm_under_load_answers_what_was_admitted_and_exits_with_zero(tmp_path: Path) -> None:
    """To the whole group, as Ctrl-C does: answers are 200 or 503, as many as were counted, and nothing is left."""
    lines = tmp_path / "requests.jsonl"
    settings = {**PATIENT, "telemetry": {"request_log": str(lines)}}
    with LiveGateway(tmp_path / "home", settings=settings) as gateway:
        register(gateway, ROUTE, 1)
        put(gateway, FIRST)
        with load(gateway, ROUTE) as running:
            after(running, 300)
            wait_until(lambda: lines.exists() and '"code":200' in lines.read_text("utf-8"), what="a recorder at work")
            pids = [process.pid for process in gateway.descendants()]
            process = gateway.process
            assert process is not None
            os.killpg(process.pid, signal.SIGTERM)
            assert process.wait(90) == 0, gateway.log()
        assert "Traceback" not in gateway.log()
    assert {answer.status for answer in running.answers} <= {0, 200, 503}
    logged = lines.read_text(encoding="utf-8").count('"code":200')
    assert logged == sum(answer.status == 200 for answer in running.answers)
    wait_until(lambda: not alive(pids), what="the end of all that it started")


def test_killing_the_node_ends_everything_and_a_restart_serves_as_before(gateway: LiveGateway) -> None:
    """kill -9 of the node: workers and children go with it, no socket stays, and the port can be had again at once."""
    register(gateway, ROUTE, 1)
    put(gateway, FIRST)
    pids = [process.pid for process in gateway.descendants()]
    assert len(pids) >= 4
    gateway.kill()
    wait_until(lambda: not alive(pids), what="the end of workers and children")
    assert not [path for path in gateway.home.rglob("*") if path.is_socket()]
    gateway.start()
    wait_until(lambda: gateway.client.get("/readyz").status_code == 200, what="readyz")
    assert {answer.status_code for answer in asked_one_by_one(gateway, 8)} == {200}


def test_a_worker_that_is_stopped_holds_no_change_up_and_is_replaced(gateway: LiveGateway) -> None:
    """SIGSTOP: a change is answered all the same, the worker is shown as stale, then ended; its successor obeys."""
    register(gateway, ROUTE, 2)
    put(gateway, HALVES)
    victim = worker_pids(gateway)[0]
    admin = httpx.Client(base_url=gateway.url, headers={"authorization": f"Bearer {gateway.token}"})
    body = {"weights": {"2": 100}}
    psutil.Process(victim).suspend()
    with admin:
        done = wait_until(lambda: answered(admin, f"/admin/routes/{ROUTE}/weights", body), what="an answer")
    assert done.status_code == 200
    wait_until(lambda: not alive([victim]), what="the end of the stopped worker")

    def both() -> bool:
        try:
            return {answer.json().get("version") for answer in asked_one_by_one(gateway, 8)} == {2}
        except httpx.TransportError:  # the place's socket is given up where the next worker does not come soon
            return False

    wait_until(both, what="the change on both")


def answered(client: httpx.Client, path: str, body: dict[str, Any]) -> httpx.Response | None:
    """Half of all new connections wait for the stopped worker: then another one is tried."""
    try:
        return client.post(path, json=body, timeout=5)
    except httpx.TransportError:
        return None


def test_a_token_that_is_revoked_opens_nothing_on_any_worker(gateway: LiveGateway) -> None:
    """Tokens are told like routes: made and revoked, they are so everywhere when the call returns."""
    register(gateway, ROUTE, 1)
    put(gateway, {**FIRST, "access": "token"})
    for number in range(3):
        with a_change(gateway):
            made = gateway.admin("POST", "/tokens", {"name": f"t{number}", "role": "predict"})
        headers = {"authorization": f"Bearer {made['secret' if 'secret' in made else 'token']}"}
        url, body = f"{gateway.url}/predict/{ROUTE}", {"inputs": [ROW]}
        assert {httpx.post(url, json=body, headers=headers, timeout=90).status_code for _ in range(6)} == {200}
        with a_change(gateway):
            gateway.admin("DELETE", f"/tokens/t{number}")
        assert {httpx.post(url, json=body, headers=headers, timeout=90).status_code for _ in range(6)} == {401}


def test_a_row_that_kills_the_shared_child_fails_alone(gateway: LiveGateway) -> None:
    """One poison request on one worker: it gets its 500; nobody else on either worker sees anything but answers."""
    self_naming(gateway, ROUTE, 1, crash={"equals": 666.0}, delay_ms=5)
    put(gateway, {**FIRST, "limits": {"timeout_ms": 60_000}})

    def sometimes(client: int, sequence: int) -> tuple[dict[str, object], dict[str, str]]:
        poison = client == 0 and sequence == 5
        return {"inputs": [[666.0, 0.0, 0.0, 0.0] if poison else ROW]}, {}

    with load(gateway, ROUTE, clients=16, make=sometimes) as running:
        after(running, 600)
    assert [(answer.client, answer.status) for answer in failed(running.answers)] == [(0, 500)]
    assert mislabelled(running.answers) == []


def test_a_version_that_hangs_is_ended_once_for_both_workers_and_taken_off_its_route(tmp_path: Path) -> None:
    """The workers say that it hangs, the node ends the child, the guard goes back: answers come from the known good."""
    with LiveGateway(tmp_path / "home", settings=SETTINGS) as gateway:
        register(gateway, ROUTE, 1)
        control = controlled(gateway, ROUTE, 2)
        put(gateway, {**HALVES, "fallback": 1, "known_good": 1})
        with load(gateway, ROUTE) as running:
            after(running, 100)
            misbehave(control, hang="always")
            wait_until(lambda: gateway.route(ROUTE)["status"]["quarantined"], what="the guard's rollback")
            after(running, 100)
        assert failed(running.answers) == []
        assert {answer.version for answer in running.answers[-50:]} == {1}
