"""Drift on a real gateway: registered with reference data, asked over HTTP, its data broken on the way, told of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sklearn.datasets import load_wine

from loadtests.live_gateway import LiveGateway, wait_until
from tests.live.scenario import audit

FEATURES = 13
SOUND, BROKEN = 120, 60
"""The broken rows of one request are one batch, so that they are a third of what an alarm is raised by even where they
are told of alone: the cause that is named is that of the rows which raised it."""

SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP64", "shape": ["batch", FEATURES]}],
    "outputs": [{"name": "y", "datatype": "FP64", "shape": ["batch", 2]}],
}


@pytest.fixture
def gateway(tmp_path: Path) -> Any:
    settings = {"telemetry": {"drift": {"look_s": 0.3, "busy_share": 1.0}}, "runtimes": {"max_rows": BROKEN}}
    with LiveGateway(tmp_path / "home", settings=settings) as running:
        yield running


def ask(client: httpx.Client, rows: np.ndarray) -> None:
    answer = client.post("/predict/wine", json={"inputs": rows.tolist()})
    assert answer.status_code == 200, answer.text


def test_a_broken_column_is_found_blamed_shown_and_audited(gateway: LiveGateway, tmp_path: Path) -> None:
    """One unit changes on the way here: the report names column, blame and remedy, so do command and metrics, and the
    audit log has it once; sound data before it raise nothing, and no version is rolled back for it."""
    data = load_wine().data
    reference = tmp_path / "reference.npy"
    np.save(reference, data)
    version = register(gateway, tmp_path, reference)
    gateway.put_route("wine", {"model": "wine", "split": [{"version": version, "weight": 1}]})
    rng = np.random.default_rng(1)
    for _ in range(SOUND // 20):
        ask(gateway.client, data[rng.integers(0, len(data), 20)])
    sound = wait_until(lambda: seen(gateway, SOUND), what=f"{SOUND} rows counted")
    assert sound["state"] == "quiet", json.dumps(sound)[:2000]
    rows = data[rng.integers(0, len(data), BROKEN)].copy()
    rows[:, 0] *= 1000.0
    for _ in range(4):
        ask(gateway.client, rows)
    broken = wait_until(lambda: alarmed(gateway), what="an alarm")
    first = broken["features"][0]
    assert (first["feature"], first["state"], first["blame"]) == ("x[0]", "alarm", "data-pipeline")
    assert "times as large" in first["cause"]
    assert "feeds this column" in first["advice"]
    shown = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "drift", "wine"],
        env={**os.environ, "TURNOUT_URL": gateway.url, "TURNOUT_TOKEN": gateway.token},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 1, shown.stderr
    assert "ALARM" in shown.stdout
    assert "data-pipeline" in shown.stdout
    raised = f'gateway_drift_alarm{{feature="x[0]",model="wine",version="{version}"}} 1.0'
    wait_until(lambda: raised in gateway.metrics(), what="the alarm as a metric")
    assert 'gateway_drift_false_alarms_per_90_days{kind="promised"' in gateway.metrics()
    wait_until(lambda: audit(gateway, "alarm-raised"), what="the alarm in the audit log")
    assert len(audit(gateway, "alarm-raised")) == 1
    assert audit(gateway, "rollback") == []


def register(gateway: LiveGateway, folder: Path, reference: Path) -> int:
    script = folder / "wine.echo.json"
    script.write_text(json.dumps({"outputs": {"y": 1.0}}), encoding="utf-8")
    return gateway.register("wine", script, reference=f"file:{reference}", signature=SIGNATURE)


def seen(gateway: LiveGateway, rows: int) -> Any:
    (version,) = gateway.admin("GET", "/drift/wine")["versions"]
    return version if version["rows"]["counted"] >= rows else None


def alarmed(gateway: LiveGateway) -> Any:
    (version,) = gateway.admin("GET", "/drift/wine")["versions"]
    return version if version["state"] == "alarm" and len(version["features"]) else None
