"""How a gateway ends: on signals that come once, often, to the whole group, or while a version holds it up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from loadtests.live_gateway import LiveGateway, wait_until
from tests.live.scenario import ROW, alive, controlled, misbehave

ROUTE = "digits"
LONG_HANG = {"server": {"drain_s": 1.0}, "runtimes": {"preload": ["echo"], "hang_floor_ms": 600_000}}


def one(version: int) -> dict[str, object]:
    return {"model": ROUTE, "split": [{"version": version, "weight": 100}]}


class Client(threading.Thread):
    """One request, asked beside the test."""

    def __init__(self, gateway: LiveGateway) -> None:
        super().__init__(daemon=True)
        self._gateway = gateway
        self.response: httpx.Response | None = None
        self.start()

    def run(self) -> None:
        self.response = self._gateway.predict(ROUTE, [ROW])

    def answer(self) -> httpx.Response:
        self.join(90)
        assert self.response is not None
        return self.response


def under_way(gateway: LiveGateway) -> Client:
    """A request that the gateway has; asked anew where the answer came before anybody saw it there."""
    clients = [Client(gateway)]

    def seen() -> bool:
        if f'gateway_inflight_requests{{route="{ROUTE}"}} 1.0' in gateway.metrics():
            return True
        if not clients[-1].is_alive():
            clients.append(Client(gateway))
        return False

    wait_until(seen, what="the request")
    return clients[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_that_come_again_and_again_to_the_whole_group_change_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    """As an impatient Ctrl-C in a terminal does: what was admitted is answered, exit status 0, nothing left."""
    settings = {"runtimes": {"preload": ["echo"], "hang_floor_ms": 60_000}}
    with LiveGateway(tmp_path / "home", settings=settings) as gateway:
        control = controlled(gateway, ROUTE, 1)
        gateway.put_route(ROUTE, one(1))
        misbehave(control, delay_ms=1000)
        client = under_way(gateway)
        pids = [process.pid for process in gateway.descendants()]
        process = gateway.process
        assert process is not None

        def ended() -> bool:
            if process.poll() is None:
                os.killpg(process.pid, number)
            return process.returncode is not None

        wait_until(ended, within_s=90, what="the end")
        assert process.returncode == 0, gateway.log()
        assert client.answer().json()["outputs"] == {"y": [[1.0] * 4]}
        wait_until(lambda: not alive(pids), what="the end of all that it started")
        assert "Traceback" not in gateway.log()


def test_a_request_that_outlasts_the_drain_is_told_and_does_not_hold_the_end_up(tmp_path: Path) -> None:
    """A version that hangs and may: its client gets a problem, not a broken connection; the gateway ends in time."""
    with LiveGateway(tmp_path / "home", settings=LONG_HANG) as gateway:
        control = controlled(gateway, ROUTE, 1)
        gateway.put_route(ROUTE, one(1))
        misbehave(control, hang="always")
        client = under_way(gateway)
        assert gateway.terminate() == 0
        response = client.answer()
        assert response.status_code == 503
        assert response.json()["type"].endswith("version-unavailable")
        assert "Traceback" not in gateway.log()


def test_a_gateway_told_to_end_while_a_version_loads_ends_at_once(gateway: LiveGateway) -> None:
    """A load is given up, not waited for; its child goes with it."""
    path = gateway.home.parent / "slow.echo.json"
    path.write_text('{"load_delay_ms": 600000}', encoding="utf-8")
    tensors = {name: [{"name": name[0], "datatype": "FP32", "shape": ["batch", 4]}] for name in ("inputs", "outputs")}
    gateway.register(ROUTE, path, verify=False, signature=tensors)
    gateway.put_route(ROUTE, one(1), wait=False)
    pids = wait_until(lambda: [child.pid for child in gateway.descendants()][1:], what="the child")
    assert gateway.terminate(within_s=90) == 0
    wait_until(lambda: not alive(pids), what="the end of all that it started")


def test_the_gateway_may_open_as_many_descriptors_as_the_system_allows_it(tmp_path: Path) -> None:
    """A shell's soft limit is made for programs of the seventies: past it, connections would be dropped unheard."""
    limit = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (200, 2000)); "
    prefix = (sys.executable, "-c", limit + "os.execv(sys.argv[1], sys.argv[1:])")
    with LiveGateway(tmp_path / "home", prefix=prefix) as gateway:
        limits = Path(f"/proc/{gateway.pid}/limits").read_text("ascii").splitlines()
        [files] = [line.split() for line in limits if line.startswith("Max open files")]
        assert files[3:5] == ["2000", "2000"]


def test_a_home_and_an_address_are_served_by_one_gateway(gateway: LiveGateway, tmp_path: Path) -> None:
    """The second one says who is there, in one line, and ends; the first does not notice."""
    for home, told in [(gateway.home, f"is served by process {gateway.pid}"), (tmp_path / "other", "is taken")]:
        command = [sys.executable, "-m", "gateway.cli", "serve", "--port", str(gateway.port)]
        environment = {**os.environ, "TURNOUT_HOME": str(home)}
        second = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
        assert second.returncode != 0
        assert told in second.stderr
        assert "Traceback" not in second.stderr
    assert gateway.client.get("/healthz").status_code == 200
