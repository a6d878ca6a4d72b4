"""The recorder beside a real gateway under traffic: whatever becomes of it, clients get their answers."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from gateway.telemetry.decisions.verify import verify
from loadtests.live_gateway import LiveGateway, wait_until
from tests.live.scenario import ROW, after, alive, failed, load, register

ROUTE = "echo"
SPLIT = {"model": ROUTE, "split": [{"version": 1, "weight": 100}]}


def running(gateway: LiveGateway, but: int | None = None) -> int:
    return int(wait_until(lambda: gateway.recorder(but), what="a recorder").pid)


def logged(home: Path) -> int:
    path = home / "requests.jsonl"
    return path.read_text(encoding="utf-8").count('"event":"request"') if path.exists() else 0


def at_work(gateway: LiveGateway, before: int = 0) -> None:
    """The recorder, which starts beside the gateway, has written more lines than these."""
    wait_until(lambda: logged(gateway.home) > before, what="lines of the recorder")


def dropped(home: Path) -> int:
    lines = map(json.loads, (home / "requests.jsonl").read_text(encoding="utf-8").splitlines())
    return sum(line["count"] for line in lines if line["event"] == "log-lines-dropped")


@pytest.mark.parametrize("workers", [1, 2])
def test_killing_the_recorder_under_traffic_costs_no_answer_and_is_counted(tmp_path: Path, workers: int) -> None:
    """Also that of web workers, whose lines lead to the next one. Every answer has its line, or is counted as lost, and
    the decision log holds together and says where something is missing. What a killed recorder had written and not yet
    acknowledged is counted as lost, too: nobody can know."""
    settings = {"telemetry": {"request_log": "requests.jsonl"}, "server": {"workers": workers}}
    with LiveGateway(tmp_path / "home", settings=settings) as gateway:
        register(gateway, ROUTE, 1)
        gateway.put_route(ROUTE, SPLIT)
        with load(gateway, ROUTE, clients=8) as traffic:
            after(traffic, 100)
            at_work(gateway)
            for _ in range(2):
                before = running(gateway)
                os.kill(before, signal.SIGKILL)
                wait_until(lambda before=before: not alive([before]), what="the recorder's end")
                lines = logged(gateway.home)
                running(gateway, but=before)
                after(traffic, 200)
                at_work(gateway, lines)
        assert failed(traffic.answers) == []
        assert "gateway_recorder_restarts_total 2.0" in gateway.metrics()
        answers = len(traffic.answers)
        assert gateway.terminate() == 0
        home = gateway.home
    assert logged(home) <= answers <= logged(home) + dropped(home)
    assert logged(home) > 300
    report = verify(home / "decisions")
    assert report.faults == []
    assert report.records + dropped(home) >= answers


def test_a_recorder_that_is_stopped_stops_only_routes_that_want_no_answer_unrecorded(tmp_path: Path) -> None:
    """Those answer 503, and say why; the others go on. When it goes on, so do they."""
    settings = {"telemetry": {"request_log": "requests.jsonl", "recorder_bytes": 128 * 1024}}
    with LiveGateway(tmp_path / "home", settings=settings) as gateway:
        register(gateway, ROUTE, 1)
        gateway.put_route(ROUTE, SPLIT)
        gateway.put_route("strict", {**SPLIT, "decisions": {"on_full": "refuse"}})
        assert gateway.predict("strict", [ROW]).status_code == 200
        stopped = running(gateway)
        os.kill(stopped, signal.SIGSTOP)
        try:
            with load(gateway, ROUTE, clients=8) as traffic:
                refused = wait_until(lambda: _refusal(gateway), what="a refusal")
                assert refused["type"] == "urn:turnout:problem:decision-log-full"
                after(traffic, 2000)
                assert _refusal(gateway)
            assert failed(traffic.answers) == []
        finally:
            os.kill(stopped, signal.SIGCONT)
        wait_until(lambda: gateway.predict("strict", [ROW]).status_code == 200, what="an answer")
        assert 'gateway_rejected_total{reason="decision-log-full",route="strict"}' in gateway.metrics()
        assert running(gateway) == stopped
        assert gateway.terminate() == 0
        assert dropped(gateway.home) > 0
        assert verify(gateway.home / "decisions").gaps


def _refusal(gateway: LiveGateway) -> dict[str, str] | None:
    answer = gateway.predict("strict", [ROW])
    return dict(answer.json()) if answer.status_code == 503 else None


def test_killing_the_gateway_ends_the_recorder_with_a_log_that_holds_together(tmp_path: Path) -> None:
    """kill -9 in the middle of traffic: it takes in what was sent, and is gone; the next gateway goes on with the same
    chain."""
    settings = {"telemetry": {"request_log": "requests.jsonl"}}
    with LiveGateway(tmp_path / "home", settings=settings) as gateway:
        register(gateway, ROUTE, 1)
        gateway.put_route(ROUTE, SPLIT)
        pid = running(gateway)
        with load(gateway, ROUTE, clients=8) as traffic:
            after(traffic, 300)
            at_work(gateway)
            gateway.kill()
        wait_until(lambda: not alive([pid]), what="the recorder's end")
        first = verify(gateway.home / "decisions")
        assert first.faults == []
        assert first.records > 0
        lines = logged(gateway.home)
        gateway.start()
        wait_until(lambda: gateway.predict(ROUTE, [ROW]).status_code == 200, what="an answer")
        at_work(gateway, lines)
        assert gateway.terminate() == 0
        second = verify(gateway.home / "decisions")
        assert second.faults == []
        assert second.records > first.records


def test_a_step_of_the_clock_is_told_and_keeps_what_is_old_until_somebody_believes_it(tmp_path: Path) -> None:
    """A start a year after the end: /readyz says so and answers 200; with the wait set to
    nothing it is believed."""
    home, began_ms = tmp_path / "home", int(time.time() * 1000)
    kept = home / "decisions" / "time"
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps({"at_ms": began_ms - 365 * 86_400_000}))
    with LiveGateway(home) as gateway:
        said = wait_until(lambda: clock_told(gateway), what="the clock's trouble")
        assert "365 days after the time that is proved" in said
        assert gateway.client.get("/readyz").status_code == 200
        assert gateway.terminate() == 0
    with LiveGateway(home, settings={"telemetry": {"clock_stands_h": 0}}) as gateway:
        wait_until(lambda: json.loads(kept.read_bytes())["at_ms"] >= began_ms, what="a clock that is believed")
        wait_until(lambda: clock_told(gateway) == "", what="a clock that nobody doubts")


def clock_told(gateway: LiveGateway) -> str:
    degraded = gateway.client.get("/readyz").json()["degraded"]
    return " ".join(text for text in degraded if "the clock says" in text)
