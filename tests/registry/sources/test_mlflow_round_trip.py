"""The whole way with MLflow: trained, logged, followed by a route, rolled out as the alias moves, and told back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loadtests.live_gateway import LiveGateway, wait_until
from loadtests.mlflow_server import MlflowServer

pytestmark = pytest.mark.timeout(600)  # a server, a training and a gateway, wherever the machine is busy

PLAN = {"steps": [50]}
WITHIN_S = 180.0


def _follow(gateway: LiveGateway, route: str) -> dict[str, Any]:
    found: dict[str, Any] = gateway.route(route)["status"].get("follow") or {}
    return found


def test_a_model_goes_from_training_over_mlflow_to_an_answer_and_back(
    mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    """Train on iris, log, set an alias; a route follows it and answers as the model does; the alias moves, and the
    rollout of the new version starts by itself; it is rolled back, and MLflow is told: alias and tags."""
    name = "round"
    first = mlflow_server.train("round_trip")["round_trip"]
    mlflow_server.set_alias(name, "champion", 1)
    settings = {
        "registry": {
            "mlflow": {
                "tracking_uri": mlflow_server.url,
                "write_back": True,
                "routes": {"iris": "champion"},
                "aliases": {"best": "best-of-turnout"},
            }
        }
    }
    source = f"mlflow:models:/{name}@champion"
    with LiveGateway(tmp_path / "home", settings=settings) as gateway:
        made = gateway.admin("POST", "/models/iris/versions", {"source": source}, expect=201, timeout=300.0)
        follow = {"source": source, "every_s": 1, "then": "start", "plan": PLAN}
        split = [{"version": made["version"], "weight": 100}]
        gateway.put_route("iris", {"model": "iris", "split": split, "follow": follow})
        wait_until(
            lambda: gateway.resident().get(f"iris/{made['version']}", {}).get("state") == "active",
            within_s=WITHIN_S,
            what="the version in service",
        )
        answer = gateway.client.post("/predict/iris", json={"inputs": first["inputs"]}, timeout=60.0)
        assert answer.json()["outputs"] == first["outputs"]

        mlflow_server.train("round_trip")
        mlflow_server.set_alias(name, "champion", 2)
        candidate = wait_until(
            lambda: (gateway.route("iris")["status"]["rollout"] or {}).get("candidate"),
            within_s=WITHIN_S,
            what="the rollout of what the alias points at now",
        )
        found = gateway.admin("GET", f"/models/iris/versions/{candidate}")
        assert (found["imported"]["version"], found["imported"]["alias"]) == ("2", "champion")

        gateway.rollback("iris", reason="the second is worse")
        gateway.admin("PUT", "/models/iris/aliases/best", {"version": made["version"]})
        wait_until(
            lambda: mlflow_server.aliases(name) == {"champion": "1", "best-of-turnout": "1"},
            within_s=WITHIN_S,
            what="the aliases in MLflow",
        )
        tag = "turnout.route.iris"
        wait_until(lambda: "rolled back" in mlflow_server.tags(name, 2).get(tag, ""), within_s=WITHIN_S, what="the tag")
        assert "the second is worse" in mlflow_server.tags(name, 2)[tag]
        assert mlflow_server.tags(name, 1)[tag] == "known good"
        actions = {record["action"] for record in gateway.admin("GET", "/audit?limit=1000")["records"]}
        assert {"register", "rollback", "mlflow-told"} <= actions
