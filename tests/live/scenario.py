"""What the live tests share: versions that name themselves, answers to check, processes to count."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from loadtests.closed_loop import Answer, Load
from loadtests.live_gateway import LiveGateway, wait_until

ROW = [1.0, 2.0, 3.0, 4.0]
SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": ["batch", 4]}],
}
"""Of the echo model; a version registered with it and ``verify`` False is not tried first."""
PATIENT = {"limits": {"timeout_ms": 90_000}}
"""For tests whose requests wait for a process to start again: that is latency however slow the machine is."""


def register(gateway: LiveGateway, model: str, count: int) -> list[int]:
    """``count`` versions of an echo model, each answering with its own number in every element of ``y``."""
    return [self_naming(gateway, model, number + 1) for number in range(count)]


def self_naming(gateway: LiveGateway, model: str, number: int, **script: Any) -> int:
    """One version that answers with ``number``, which must be the number that it gets."""
    got = gateway.register_echo(model, f"{model}-{number}", {"outputs": {"y": number}, "delay_ms": 1, **script})
    assert got == number
    return got


def controlled(gateway: LiveGateway, model: str, number: int) -> Path:
    """A version that can be made to go wrong by writing to the file returned."""
    control = gateway.home.parent / f"{model}-{number}.control"
    self_naming(gateway, model, number, control=str(control))
    return control


def misbehave(control: Path, **script: Any) -> None:
    """Written aside and renamed, so that the version never reads half a file."""
    aside = control.with_suffix(".new")
    aside.write_text(json.dumps(script), encoding="utf-8")
    aside.rename(control)


def keyed(client: int, sequence: int) -> tuple[dict[str, Any], dict[str, str]]:
    """A request with a key of its own, so that the split spreads evenly."""
    return {"inputs": [ROW], "key": f"k-{client}-{sequence}"}, {}


def load(gateway: LiveGateway, route: str, *, clients: int = 32, make: Any = keyed, pause_s: float = 0.0) -> Load:
    return Load(gateway.port, f"/predict/{route}", make, clients=clients, pause_s=pause_s)


def after(load: Load, more: int, *, within_s: float = 90.0) -> None:
    """Returns once ``more`` further answers have come."""
    goal = load.count() + more
    wait_until(lambda: load.count() >= goal, within_s=within_s, what=f"{more} more answers")


def failed(answers: Iterable[Answer]) -> list[Answer]:
    return [answer for answer in answers if answer.status != 200]


def mislabelled(answers: Iterable[Answer]) -> list[Answer]:
    """Answers whose label does not name the version that computed them."""
    return [answer for answer in answers if answer.status == 200 and answer.output("y") != [[answer.version] * 4]]


def asked(gateway: LiveGateway, path: str) -> Any:
    """What the admin plane answers, once the process that it asks has started: until then it says 503."""

    def answered() -> Any:
        response = gateway.client.get(f"/admin{path}", headers={"authorization": f"Bearer {gateway.token}"})
        assert response.status_code in (200, 503), f"{path}: {response.status_code} {response.text}"
        return response.json() if response.status_code == 200 else None

    return wait_until(answered, what=path)


def recorded(gateway: LiveGateway, name: str) -> Any:
    """The record of a decision or of a request; None until it is in the log, or while the log's reader starts."""
    headers = {"authorization": f"Bearer {gateway.token}"}
    answer = gateway.client.get(f"/admin/decisions/{name}", headers=headers)
    assert answer.status_code in (200, 404, 503), answer.text
    return answer.json() if answer.status_code == 200 else None


def active(gateway: LiveGateway) -> set[str]:
    """Versions that have come up here."""
    return {name for name, row in gateway.resident().items() if row["state"] == "active"}


def runtime_pids(gateway: LiveGateway) -> dict[str, int]:
    return {name: row["pid"] for name, row in gateway.resident().items() if row["pid"]}


def alive(pids: Iterable[int]) -> list[int]:
    return [pid for pid in pids if _is_alive(pid)]


def _is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def audit(gateway: LiveGateway, action: str) -> list[dict[str, Any]]:
    records = gateway.admin("GET", "/audit?limit=1000")["records"]
    return [record for record in records if record["action"] == action]


def heard(gateway: LiveGateway) -> bool:
    """Every web worker has in force what the node has. Answers to changes wait for that, but not for a worker that had
    no turn to read of it (250 ms): on a machine that is full, one that merely waits for the processor."""
    [here] = [row for row in gateway.admin("GET", "/replicas")["replicas"] if row.get("here")]
    return all(worker["current"] for worker in here["workers"])
