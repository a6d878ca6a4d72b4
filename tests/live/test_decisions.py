"""The decision log of a live gateway: every answer is found, in one process and in several, and the chain stands."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from blake3 import blake3

from gateway.telemetry.decisions.segments import FOLDER
from gateway.telemetry.decisions.sql import query
from gateway.telemetry.decisions.verify import verify
from loadtests.live_gateway import LiveGateway, wait_until
from tests.live.scenario import ROW, asked, recorded, register

ROUTE = "echo"
SPLIT = [{"version": 1, "weight": 50}, {"version": 2, "weight": 50}]
QUICK = {"decisions": {"sync_s": 0.1, "checkpoint_s": 0.2}}


def predicted(gateway: LiveGateway, count: int, start: int = 0) -> list[httpx.Response]:
    """Over connections of their own, so that every web process answers."""
    return [
        httpx.post(
            f"{gateway.url}/predict/{ROUTE}",
            json={"inputs": [ROW], "key": f"user-{number}"},
            headers={"x-request-id": f"request-{number}"},
            timeout=90,
        )
        for number in range(start, start + count)
    ]


def turnout(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TURNOUT_")}
    command = [sys.executable, "-m", "gateway.cli", "decisions", *arguments]
    environment["TURNOUT_HOME"] = str(home)
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200, check=False)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_answer_is_in_the_log_with_its_version_bytes_and_reason(tmp_path: Path, workers: int) -> None:
    """By decision, by request, in a list, and by SQL on the home after the gateway has gone."""
    settings = {"telemetry": QUICK, "server": {"workers": workers}}
    with LiveGateway(tmp_path / "home", settings=settings) as gateway:
        register(gateway, ROUTE, 2)
        gateway.put_route(ROUTE, {"model": ROUTE, "split": SPLIT, "decisions": {"content": "payload"}})
        answers = predicted(gateway, 24)
        assert {answer.status_code for answer in answers} == {200}
        for number, answer in enumerate(answers):
            told = answer.json()
            record = wait_until(lambda told=told: recorded(gateway, told["decision"]), what="the record")
            assert record["request"] == f"request-{number}"
            assert record["answered"] == told["version"]
            assert record["why"]["weights"] == {"1": 50, "2": 50}
            assert record["why"]["interval"][2] == told["version"]
            assert record["bytes"]["digest"].startswith("sha256:")
            assert record["payload"]["inputs"]["x"]["shape"] == [1, 4]
        assert asked(gateway, "/decisions/request-7")["decision"] == answers[7].json()["decision"]
        page = asked(gateway, f"/decisions?route={ROUTE}&code=200&limit=5")
        newest = [answer.json()["decision"] for answer in reversed(answers)]
        assert sorted(one["decision"] for one in page["decisions"]) == sorted(newest[:5])
        rest = asked(gateway, f"/decisions?limit=1000&cursor={page['cursor']}")
        assert len(rest["decisions"]) == 19
        assert recorded(gateway, "nobody") is None
        gateway.admin("GET", "/decisions?when=now", expect=400)
        gateway.admin("GET", "/decisions?from=yesterday", expect=400)
        wait_until(lambda: "gateway_decision_log_records_total 24.0" in gateway.metrics(), what="the count")
        assert "gateway_decision_log_dropped_total 0.0" in gateway.metrics()
        assert "user-7" not in (gateway.home / FOLDER / "00000001.log").read_bytes().decode("utf-8", "replace")
    home = tmp_path / "home"
    proof = turnout(home, "verify")
    assert (proof.returncode, proof.stdout.split()[:3]) == (0, ["All", "24", "records"]), proof.stdout + proof.stderr
    rows = query(home / FOLDER, "SELECT count(*), count(DISTINCT digest) FROM decisions").rows
    assert rows == [(24, 2)]
    assert f"echo/{answers[3].json()['version']}" in turnout(home, "request-3").stdout
    assert turnout(home, "--where", "answered = 1", "--since", "1h", "--json").returncode == 0


def test_large_tensors_have_one_digest_however_they_came(tmp_path: Path) -> None:
    """In JSON (small, and so large that another process reads it) and in binary form, each time: that of the
    canonical form, as anybody computes it."""
    with LiveGateway(tmp_path / "home", settings={"telemetry": QUICK}) as gateway:
        register(gateway, ROUTE, 1)
        gateway.put_route(ROUTE, {"model": ROUTE, "split": [{"version": 1, "weight": 1}]})
        for rows in (256, 257, 4_000, 100_000):
            sent = (np.arange(rows * 4, dtype=np.float32) % 1000).reshape(rows, 4)
            got = np.ones((rows, 4), np.float32)
            tensor = {"name": "x", "datatype": "FP32", "shape": [rows, 4]}
            head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": sent.nbytes}}]}).encode()
            length = {"inference-header-content-length": str(len(head))}
            names = [f"{kind}-{rows}-{turn}" for turn in range(3) for kind in ("plain", "binary")]
            for name in names:
                named = {"x-request-id": name}
                if name.startswith("plain"):
                    answer = gateway.client.post(f"/predict/{ROUTE}", json={"inputs": sent.tolist()}, headers=named)
                else:
                    path, body = f"/v2/models/{ROUTE}/infer", head + sent.tobytes()
                    answer = gateway.client.post(path, content=body, headers={**named, **length})
                assert answer.status_code == 200, answer.text
            for name in names:
                record = wait_until(lambda name=name: recorded(gateway, name), what=name)
                assert (record["inputs"], record["outputs"]) == (canonical("x", sent), canonical("y", got)), name


def canonical(name: str, array: np.ndarray[Any, Any]) -> str:
    octets = array.tobytes()
    line = f'["{name}","FP32",[{len(array)},4]'.encode()
    if len(octets) > 4096:
        return hashlib.sha256(line + b',"blake3"]\n' + blake3(octets).digest()).hexdigest()
    return hashlib.sha256(line + b"]\n" + octets).hexdigest()


def test_a_recorder_that_is_killed_is_replaced_and_the_log_goes_on_with_a_gap(tmp_path: Path) -> None:
    """No answer waits for it or fails; what it had taken is there; the chain verifies."""
    with LiveGateway(tmp_path / "home", settings={"telemetry": QUICK}) as gateway:
        register(gateway, ROUTE, 1)
        gateway.put_route(ROUTE, {"model": ROUTE, "split": [{"version": 1, "weight": 1}]})
        before = predicted(gateway, 10)
        wait_until(lambda: recorded(gateway, "request-9"), what="the last of the first ten")
        wait_until(lambda: "gateway_decision_log_records_total 10.0" in gateway.metrics(), what="their receipt")
        recorder = wait_until(gateway.recorder, what="a recorder")
        recorder.send_signal(signal.SIGKILL)
        after = predicted(gateway, 10, 10)
        assert {answer.status_code for answer in (*before, *after)} == {200}
        wait_until(lambda: gateway.recorder(but=recorder.pid), what="the next recorder")
        predicted(gateway, 1, 30)
        record = wait_until(lambda: recorded(gateway, "request-30"), what="a record of the next recorder")
        assert record["why"]["weights"] == {"1": 1}
    report = verify(tmp_path / "home" / FOLDER)
    assert report.faults == []
    assert any(gap["cause"] == "unclean-end" for gap in report.gaps)
    lost = sum(gap["records"] or 0 for gap in report.gaps)
    assert report.records + lost == 21
