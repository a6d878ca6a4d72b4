"""A rollout on three gateways and one Redis: whoever leads may die or sleep, and no step is lost or taken twice."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from loadtests.live_gateway import LiveGateway, wait_until
from loadtests.redis_server import find_redis
from loadtests.replica_set import Replica, ReplicaSet
from tests.live.scenario import after, audit, failed, load, register

ROUTE = "echo"

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_redis() is None, reason="no redis-server here: apt-get install redis-server"),
]

PLAN: dict[str, Any] = {
    "candidate": 2,
    "shadow": None,
    "max_harm": {"error": 0.1},
    "steps": [{"weight": weight, "min_requests": 30, "min_s": 2} for weight in (20, 50)],
    "bake": {"holdback": 20, "min_s": 2, "min_requests": 30},
}
LIMITS = {"timeout_ms": 90_000, "slow_ms": 90_000}
"""Nothing here is about slow answers, and those of a replica that is stopped are."""
STEPS = [0.0, 20.0, 50.0, 80.0, 100.0]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ReplicaSet]:
    with ReplicaSet(tmp_path, cabled=True) as running:
        first = running.replicas[0]
        register(first, ROUTE, 2)
        split = [{"version": 1, "weight": 100}]
        first.put_route(ROUTE, {"model": ROUTE, "split": split, "known_good": 1, "fallback": 1, "limits": LIMITS})
        yield running


@contextmanager
def loaded(replicas: list[Replica]) -> Iterator[None]:
    with ExitStack() as ends:
        loads = [ends.enter_context(load(replica, ROUTE, clients=4, pause_s=0.005)) for replica in replicas]
        for each in loads:
            after(each, 20)
        yield
    assert failed(answer for each in loads for answer in each.answers) == []


def phase(gateway: LiveGateway) -> str:
    return str(gateway.admin("GET", f"/routes/{ROUTE}/rollout")["rollout"]["phase"])


def leader(cluster: ReplicaSet, ask: Replica) -> Replica:
    """The replica that drives rollouts, by its own name."""
    rows = ask.admin("GET", "/replicas")["replicas"]
    led = next(row["replica"] for row in rows if "rollouts" in row["leads"])
    for replica in cluster.replicas:
        own = next(row["replica"] for row in replica.admin("GET", "/replicas")["replicas"] if row.get("here"))
        if own == led:
            return replica
    raise AssertionError(f"{led} is none of {cluster.replicas}")


def leads(replicas: list[Replica]) -> bool:
    """Whether one of these drives rollouts now."""
    rows = [row for replica in replicas for row in replica.admin("GET", "/replicas")["replicas"]]
    return any(row.get("here") and "rollouts" in row["leads"] for row in rows)


def finished(gateway: LiveGateway) -> dict[str, Any]:
    wait_until(lambda: gateway.admin("GET", f"/routes/{ROUTE}/rollouts")["rollouts"], within_s=150, what="the report")
    report: dict[str, Any] = gateway.admin("GET", f"/routes/{ROUTE}/rollouts/last")
    return report


def no_step_twice(gateway: LiveGateway) -> None:
    for action, count in (("rollout-step", 2), ("rollout-bake", 1), ("rollout-promoted", 1), ("rollout-report", 1)):
        assert len(audit(gateway, action)) == count, action


@pytest.mark.parametrize("fate", ["killed", "stopped", "cut off"])
def test_a_rollout_outlives_its_leader(cluster: ReplicaSet, fate: str) -> None:
    """In the midst of a step the leader is killed, or sleeps beyond its lease and wakes, or its line to Redis stalls
    and lets all bytes go on later: another takes over with the evidence so far, what the old one says late is not
    done, and every step is taken once."""
    first = cluster.replicas[0]
    first.admin("POST", f"/routes/{ROUTE}/rollout", PLAN, expect=201)
    wait_until(lambda: phase(first) == "stepping", what="the first step")
    leading = leader(cluster, first)
    others = [replica for replica in cluster.replicas if replica is not leading]
    cable = cluster.cables[cluster.replicas.index(leading)]
    with loaded(others):
        wait_until(
            lambda: others[0].admin("GET", f"/routes/{ROUTE}/rollout")["live"]["progress"].get("units"),
            what="evidence of all replicas",
        )
        if fate == "killed":
            leading.kill()
        elif fate == "cut off":
            cable.stall()
        else:
            leading.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
        try:
            wait_until(lambda: leads(others), what="another leader")
            wait_until(lambda: phase(others[0]) in ("baking", "promoted"), within_s=150, what="the next steps")
        finally:
            cable.mend()
            if fate == "stopped":
                leading.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
        report = finished(others[0])
    assert report["verdict"] == "promoted", report["reason"]
    assert [mark["percent"] for mark in report["weights"]] == STEPS
    no_step_twice(others[0])
    assert others[0].admin("GET", "/audit/verify")["ok"] is True
    assert others[1].route(ROUTE)["status"]["known_good"] == 2
