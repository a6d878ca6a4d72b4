"""From training to a rollout: a model logged to a real MLflow server, an alias that a route follows, moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from loadtests.live_gateway import LiveGateway, wait_until
from loadtests.mlflow_server import MlflowServer

PLAN = {"steps": [{"weight": 50, "min_requests": 10, "min_s": 0.5}], "shadow": None, "bake": None}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

FOLLOW = {"source": "mlflow:models:/species@champion", "every_s": 1.0, "then": "start", "plan": PLAN}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """One of its own, since it is ended and started again under the gateway."""
    with MlflowServer(tmp_path_factory.mktemp("mlflow")) as running:
        yield running


@pytest.fixture(scope="module")
def trained(server: MlflowServer) -> Mapping[str, Any]:
    """Two versions of one model, and what each answers; the alias is at the first."""
    found: Mapping[str, Any] = server.train("species", "sparse")
    server.set_alias("species", "champion", 1)
    return found


@pytest.fixture(scope="module")
def gateway(server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    settings = {
        "registry": {"mlflow": {"tracking_uri": server.url}, "resolve_timeout_s": 100.0},
        "runtimes": {"preload": ["sklearn"]},
    }
    with LiveGateway(tmp_path_factory.mktemp("gateway") / "home", settings=settings) as running:
        yield running


def state_of(gateway: LiveGateway) -> Mapping[str, Any]:
    found: Mapping[str, Any] = gateway.admin("GET", "/routes/species/follow")["status"] or {}
    return found


def until(gateway: LiveGateway, *states: str) -> Mapping[str, Any]:
    def reached() -> Mapping[str, Any] | None:
        state = state_of(gateway)
        return state if state.get("state") in states else None

    try:
        found: Mapping[str, Any] = wait_until(reached, within_s=180.0, what=f"the state {' or '.join(states)}")
    except AssertionError as error:
        raise AssertionError(f"{error}; it is {state_of(gateway)}\n{gateway.log()}") from None
    return found


def answers(gateway: LiveGateway, trained: Mapping[str, Any], kind: str, **headers: str) -> bool:
    asked = {"inputs": trained[kind]["inputs"]}
    found = gateway.client.post("/predict/species", json=asked, headers=headers).json()
    return bool(found.get("outputs") == trained[kind]["outputs"])


def test_a_model_is_served_from_training_to_rollout(
    server: MlflowServer, trained: Mapping[str, Any], gateway: LiveGateway
) -> None:
    """Trained, logged, named by an alias, imported by it, served; the alias is followed, MLflow goes away and comes
    back, the alias moves, and the rollout of the version that it points at starts by itself; moved back, it ends."""
    asked = {"source": "mlflow:models:/species@champion"}
    made = gateway.admin("POST", "/models/species/versions", asked, expect=201, timeout=240.0)
    assert (made["version"], made["imported"]["alias"]) == (1, "champion")
    spec = {"model": "species", "split": [{"version": 1, "weight": 100}], "pin": "allowed", "follow": FOLLOW}
    gateway.put_route("species", spec, wait=False)
    wait_until(lambda: gateway.resident().get("species/1", {}).get("state") == "active", within_s=180.0)
    wait_until(lambda: answers(gateway, trained, "species"), within_s=180.0, what="an answer")
    assert until(gateway, "current")["identity"]["version"] == "1"

    server.stop()
    state = until(gateway, "unreachable")
    assert state["before"] == "current"
    assert answers(gateway, trained, "species")
    assert gateway.route("species")["status"]["rollout"] is None

    server.start()
    server.set_alias("species", "champion", 2)
    state = until(gateway, "started")
    assert (state["version"], state["identity"]["version"]) == (2, "2")
    rollout = gateway.admin("GET", "/routes/species/rollout")
    assert (rollout["rollout"]["candidate"], rollout["rollout"]["by"]) == (2, "follow")
    lineage = gateway.admin("GET", "/models/species/versions/2")["manifest"]["lineage"]
    assert lineage["source"]["version"] == "2"
    wait_until(lambda: gateway.resident().get("species/2", {}).get("state") == "active", within_s=180.0)
    wait_until(lambda: answers(gateway, trained, "sparse", **{"x-model-version": "2"}), within_s=60.0)

    server.set_alias("species", "champion", 1)
    assert until(gateway, "current")["version"] == 1
    ended = gateway.admin("GET", "/routes/species/rollout")
    assert (ended["running"], ended["rollout"]["phase"], ended["rollout"]["ended_by"]) == (False, "aborted", "follow")
    assert [arm["version"] for arm in gateway.route("species")["status"]["split"] if arm["weight"]] == [1]


def test_a_gateway_that_is_killed_goes_on_following(
    server: MlflowServer, trained: Mapping[str, Any], gateway: LiveGateway, tmp_path: Path
) -> None:
    """kill -9 as soon as the move is seen, in the middle of the import: it is imported once it is back, and once."""
    until(gateway, "current")
    spec = gateway.route("species")["spec"]
    gateway.put_route("species", {**spec, "follow": {**FOLLOW, "then": "offer"}}, wait=False)
    seen = len(gateway.admin("GET", "/models/species")["versions"])
    server.set_alias("species", "champion", 2)
    wait_until(lambda: state_of(gateway).get("identity", {}).get("version") == "2", within_s=180.0, what="the move")
    gateway.kill()
    gateway.start()
    assert until(gateway, "offered", "ended")["version"] == 2
    assert len(gateway.admin("GET", "/models/species")["versions"]) == seen
    wait_until(lambda: answers(gateway, trained, "species"), within_s=180.0)
