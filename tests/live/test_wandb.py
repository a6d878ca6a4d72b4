"""From a run in Weights & Biases to a served answer: the real SDK imports it, against a stand-in of its server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.live_gateway import LiveGateway
from tests.registry.sources.wandb_stand_in import API_KEY, Artifact, Run, WandbStandIn

SERVING = b"""
import json
import numpy as np

SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 2]}],
    "outputs": [{"name": "fraud", "datatype": "INT64", "shape": ["batch"]}],
}


class Model:
    def __init__(self, files):
        self.centroids = np.array(json.loads(files.read("centroids.json")))

    def predict(self, inputs):
        gaps = ((inputs["x"][:, None, :] - self.centroids[None]) ** 2).sum(axis=2)
        return {"fraud": gaps.argmin(axis=1).astype(np.int64)}
"""


def _trained(shrink: float) -> dict[str, bytes]:
    """A nearest centroid, and what serves it."""
    centroids = [[30.0 * shrink, 14.0], [90.0 * shrink, 3.0]]
    return {"model.py": SERVING, "centroids.json": json.dumps(centroids).encode()}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbStandIn]:
    with WandbStandIn() as running:
        data = running.add(Artifact("payments", 3, {"train.csv": b"amount,hour,fraud\n"}, type="dataset"))
        run = Run("r4n", config={"shrink": 0.9, "seed": 7}, summary={"accuracy": 0.95}, commit="6d8a5c1f", used=[data])
        running.add(Artifact("fraud", 0, _trained(0.9), run=run, aliases={"prod"}))
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        monkeypatch.setenv("WANDB_API_KEY", API_KEY)
        yield running


def test_a_run_s_artifact_is_served_with_its_configuration_in_the_lineage(server: WandbStandIn, tmp_path: Path) -> None:
    """The alias is resolved once; the same artifact again is the same version, and what moved later changes nothing."""
    with LiveGateway(tmp_path / "home") as gateway:
        body = {"source": "wandb:acme/fraud/fraud:prod"}
        registered = gateway.admin("POST", "/models/fraud/versions", body)
        assert registered["version"] == 1
        assert {name: registered["imported"][name] for name in ("system", "name", "version", "alias")} == {
            "system": "wandb",
            "name": "acme/fraud/fraud",
            "version": "v0",
            "alias": "prod",
        }
        gateway.put_route("fraud", {"model": "fraud", "split": [{"version": 1, "weight": 100}]})
        assert gateway.predict("fraud", [[88.0, 3.0], [29.0, 14.0]]).json()["outputs"] == {"fraud": [1, 0]}

        manifest = gateway.admin("GET", "/models/fraud/versions/1")["manifest"]
        lineage = manifest["lineage"]
        assert lineage["parameters"] == {"values": {"shrink": 0.9}, "seeds": {"seed": 7}}
        assert lineage["code"]["commit"] == "6d8a5c1f"
        assert lineage["data"][0]["digest"] == f"md5:{server.artifacts[0].digest}"
        assert lineage["source"]["digest"] == server.artifacts[1].digest
        assert [(row["metric"], row["value"]) for row in manifest["evaluation"]] == [("accuracy", 0.95)]

        assert gateway.admin("POST", "/models/fraud/versions", {"source": "wandb:acme/fraud/fraud:v0"})["version"] == 1
        server.move("prod", server.add(Artifact("fraud", 1, _trained(0.8))))
        server.outage = 503
        assert gateway.predict("fraud", [[88.0, 3.0]]).json()["version"] == 1, "no foreign name is asked for to serve"
        away = gateway.admin("POST", "/models/fraud/versions", body, expect=502)
        assert "503" in away["detail"]
        server.outage = None
        assert gateway.admin("POST", "/models/fraud/versions", body)["version"] == 2
