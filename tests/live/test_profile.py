"""A profile of live rows on a real gateway: captured in the child, kept beside the version, chosen, counted with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtests.live_gateway import LiveGateway, wait_until
from tests.live.scenario import heard

SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 3]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": ["batch", 3]}],
}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[LiveGateway]:
    with LiveGateway(tmp_path / "home") as running:
        yield running


def turnout(gateway: LiveGateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", *arguments],
        env={**os.environ, "TURNOUT_URL": gateway.url, "TURNOUT_TOKEN": gateway.token},
        capture_output=True,
        text=True,
        check=False,
    )


def profiles(gateway: LiveGateway, version: int) -> Any:
    return gateway.admin("GET", f"/models/rows/versions/{version}/profiles")


def test_live_rows_become_a_profile_that_the_version_is_counted_with(gateway: LiveGateway, tmp_path: Path) -> None:
    """A version without reference data gets one from its traffic; only sums leave the child; it is audited, kept by gc,
    and in use at once and after a restart of the gateway's view; the version itself stays what it is."""
    script = tmp_path / "script.echo.json"
    script.write_text("{}", encoding="utf-8")
    version = gateway.register("rows", script, signature=SIGNATURE)
    gateway.put_route("rows", {"model": "rows", "split": [{"version": version, "weight": 1}]})
    before = gateway.admin("GET", f"/models/rows/versions/{version}")["digest"]
    assert profiles(gateway, version)["counted"] is None
    path = f"/models/rows/versions/{version}/profiles"
    begun = gateway.admin("POST", path, {"route": "rows", "rows": 200, "use": True})
    assert begun["capture"]["state"] == "running"
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(40, 3))

    def captured() -> Any:
        assert gateway.client.post("/predict/rows", json={"inputs": rows.tolist()}).status_code == 200
        return counted(gateway, version)

    found = wait_until(captured, what="a captured profile in use")
    assert found["capture"]["state"] == "done"
    (held,) = found["captured"]
    assert (held["digest"], held["route"], held["rows"]) == (found["counted"], "rows", 200)
    assert {feature["name"] for feature in found["profile"]["features"]} >= {"x[0]", "y[2]", "y.argmax"}
    assert gateway.admin("GET", f"/models/rows/versions/{version}")["digest"] == before
    blob = next((tmp_path / "home").rglob(held["digest"].removeprefix("sha256:")[2:] + "*"), None)
    assert blob is None or str(float(np.float32(rows[0, 0]))) not in blob.read_text()
    actions = [record["action"] for record in gateway.admin("GET", "/audit")["records"]]
    assert actions.count("profile-capture") == 1
    shown = turnout(gateway, "profile", f"rows/{version}")
    assert "x[0]" in shown.stdout, shown.stderr
    assert held["digest"] in shown.stdout
    assert "200 rows" in turnout(gateway, "show", f"rows/{version}").stdout
    back = turnout(gateway, "profile", f"rows/{version}", "--use", "manifest", "--json")
    assert json.loads(back.stdout)["used"] is None


def counted(gateway: LiveGateway, version: int) -> Any:
    found = profiles(gateway, version)
    return found if found["counted"] is not None else None


def test_a_capture_that_cannot_be_is_refused_with_the_reason(gateway: LiveGateway, tmp_path: Path) -> None:
    """A route that is not there or sends nothing to the version, too few rows, a profile that was never captured."""
    script = tmp_path / "script.echo.json"
    script.write_text("{}", encoding="utf-8")
    version = gateway.register("rows", script, signature=SIGNATURE)
    gateway.put_route("rows", {"model": "rows", "split": [{"version": version, "weight": 1}]})
    path = f"/admin/models/rows/versions/{version}/profiles"
    headers = {"authorization": f"Bearer {gateway.token}"}
    asked = [
        (404, {"route": "nowhere", "rows": 200}),
        (422, {"route": "rows", "rows": 5}),
    ]
    for status, body in asked:
        answer = gateway.client.post(path, json=body, headers=headers)
        assert answer.status_code == status, answer.text
    answer = gateway.client.put(path, json={"digest": "sha256:" + "0" * 64}, headers=headers)
    assert (answer.status_code, "no captured profile" in answer.text) == (404, True)


@pytest.mark.parametrize("placement", ["process", "inline"])
def test_rows_of_several_web_workers_are_counted_once_each_at_the_node(tmp_path: Path, placement: str) -> None:
    """Two workers, new connections: every row is counted, whether in the child that they share or in each of them, and
    no self-inference is; a chosen profile is followed by a gateway that starts anew."""
    settings = {
        "runtimes": {"allow_inline": ["rows"], "preload": ["echo"]},
        "telemetry": {"request_log": "off", "drift": {"look_s": 0.3}},
    }
    with LiveGateway(tmp_path / "home", settings=settings, options=("--workers", "2")) as gateway:
        rows = np.random.default_rng(1).normal(size=(300, 3)).astype(np.float32)
        np.save(tmp_path / "reference.npy", rows)
        script = tmp_path / "script.echo.json"
        script.write_text("{}", encoding="utf-8")
        reference = f"file:{tmp_path / 'reference.npy'}"
        version = gateway.register("rows", script, reference=reference, signature=SIGNATURE, placement=placement)
        gateway.put_route("rows", {"model": "rows", "split": [{"version": version, "weight": 1}]})
        wait_until(lambda: heard(gateway), what="the route in every worker")
        for _ in range(30):
            body = {"inputs": rows[:10].tolist()}
            answer = gateway.client.post("/predict/rows", json=body, headers={"connection": "close"})
            assert answer.status_code == 200, answer.text
        wait_until(lambda: rows_counted(gateway) == 300, what="300 rows counted")
        registered = profiles(gateway, version)["counted"]
        if placement == "process":
            path = f"/models/rows/versions/{version}/profiles"
            gateway.admin("POST", path, {"route": "rows", "rows": 100, "use": True})

            def asked_and_changed() -> str | None:
                gateway.client.post("/predict/rows", json={"inputs": rows[:10].tolist()})
                return changed(gateway, version, registered)

            captured = wait_until(asked_and_changed, what="the captured profile in use")
            assert gateway.terminate() == 0
            gateway.start()
            wait_until(lambda: gateway.client.get("/readyz").status_code == 200, what="readyz")
            again = wait_until(lambda: changed(gateway, version, registered), what="the chosen profile after a start")
            assert again == captured


def changed(gateway: LiveGateway, version: int, before: str) -> str | None:
    counted_with = profiles(gateway, version)["counted"]
    return counted_with if counted_with not in (before, None) else None


def rows_counted(gateway: LiveGateway) -> int:
    found = [line for line in gateway.metrics().splitlines() if line.startswith("gateway_drift_rows_counted_total{")]
    return int(sum(float(line.rpartition(" ")[2]) for line in found))
