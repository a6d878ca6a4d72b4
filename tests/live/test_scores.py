"""Rollouts of live gateways that numbers decide: errors of regression and grades, none of them right or wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from loadtests.live_gateway import LiveGateway, wait_until
from loadtests.redis_server import find_redis
from loadtests.replica_set import ReplicaSet
from tests.live.scenario import heard
from tests.live.test_rollout import LIMITS, SETTINGS, step, text
from tests.live.test_truth import Labels, ended, labelled_until, told

ROUTE = "shapes"

MODEL = """
import numpy as np

SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 1]}],
    "outputs": [{"name": "size", "datatype": "FP32", "shape": ["batch"]}],
}


class Model:
    def predict(self, inputs):
        return {"size": 2.0 * inputs["x"][:, 0] + OFF}
"""
"""Twice its input, and that is nearly what comes true."""

ERROR: dict[str, Any] = {"of": "error", "worst": 10.0, "best": 0.0}
GRADE: dict[str, Any] = {"of": "grade", "worst": 1.0, "best": 5.0}
PLAN: dict[str, Any] = {
    "candidate": 2,
    "shadow": None,
    "steps": [step(30)],
    "needs": ["error", "score"],
    "max_harm": {"error": 0.3, "slow": 0.9, "score": 1.0},
    "bake": {"holdback": 40, "min_s": 0.5, "min_requests": 20},
}
_numbers = count()


@pytest.fixture
def single(tmp_path: Path) -> Iterator[LiveGateway]:
    with LiveGateway(tmp_path / "home", settings=SETTINGS) as running:
        yield running


@pytest.fixture
def several(tmp_path: Path) -> Iterator[LiveGateway]:
    """With two web workers: they answer, the node takes the truth."""
    with LiveGateway(tmp_path / "home", settings=SETTINGS, options=("--workers", "2")) as running:
        yield running


def serve(gateway: LiveGateway, off: float, truth: Mapping[str, Any]) -> None:
    """Version 1 is off by nothing, version 2 by ``off``."""
    for number, value in enumerate((0.0, off), start=1):
        source = gateway.home.parent / f"version-{number}.py"
        source.write_text(MODEL.replace("OFF", str(value)), encoding="utf-8")
        assert gateway.register(ROUTE, source) == number
    split = [{"version": 1, "weight": 100}]
    spec = {"model": ROUTE, "split": split, "known_good": 1, "fallback": 1, "limits": LIMITS, "truth": truth}
    gateway.put_route(ROUTE, spec)
    wait_until(lambda: heard(gateway), what="the route in every worker")


def answered(gateway: LiveGateway, requests: int) -> Labels:
    """What came true: up to one off what version 1 says."""
    found = []
    for number in (next(_numbers) for _ in range(requests)):
        answer = gateway.predict(ROUTE, [[float(number % 50)]], key=f"user-{number}")
        assert answer.status_code == 200
        found.append({"decision": answer.json()["decision"], "label": 2.0 * (number % 50) + (number % 9 - 4) / 4})
    return found


def graded(gateway: LiveGateway, requests: int) -> Labels:
    """From one to five: those of version 2 a little above two, of version 1 a little above four."""
    found = []
    for number in (next(_numbers) for _ in range(requests)):
        answer = gateway.predict(ROUTE, [[1.0]], key=f"user-{number}")
        assert answer.status_code == 200
        worth = {1: 4.0, 2: 2.0}[answer.json()["version"]]
        found.append({"decision": answer.json()["decision"], "label": worth + number % 3 / 2})
    return found


def rolled_out(
    gateway: LiveGateway,
    score: Mapping[str, Any],
    labels: Callable[[LiveGateway, int], Labels],
    *,
    at_once: int = 40,
) -> dict[str, Any]:
    plan = {**PLAN, "score": score}
    rollout = str(gateway.admin("POST", f"/routes/{ROUTE}/rollout", plan, expect=201)["rollout"]["id"])
    report: dict[str, Any] = labelled_until(gateway, ended(gateway, rollout), labels=labels, at_once=at_once)
    said = text(gateway, rollout)
    assert "in the mean of" in said
    print(said)
    return report


def test_a_candidate_that_is_further_off_is_rolled_back_by_its_errors(several: LiveGateway) -> None:
    """Every answer is a 200 and none is right or wrong; the report says by how much it is off, in the label's unit."""
    serve(several, 4.0, {"task": "regression", "output": "size"})
    report = rolled_out(several, ERROR, answered, at_once=200)
    assert (report["verdict"], report["trigger"]) == ("rolled-back", "score")
    score = report["evidence"]["streams"]["score"]
    assert score["verdict"] == "harmful"
    assert score["candidate"]["mean"] == pytest.approx(4.0, abs=0.3)
    assert score["baseline"]["mean"] == pytest.approx(0.55, abs=0.2)
    assert score["low"] > 0.0
    assert "label" not in report["evidence"]["streams"]


def test_a_candidate_whose_errors_are_no_larger_is_promoted(single: LiveGateway) -> None:
    """Each step waits until its errors exclude the harm, and then goes on by itself."""
    serve(single, 0.1, {"task": "regression", "output": "size"})
    report = rolled_out(single, ERROR, answered)
    assert report["verdict"] == "promoted"
    assert report["evidence"]["streams"]["score"]["candidate"]["units"] > 20
    said = told(single)["versions"]["2"]["measures"]
    assert said["mae"]["value"] == pytest.approx(0.55, abs=0.2)


@pytest.mark.skipif(find_redis() is None, reason="no redis-server here: apt-get install redis-server")
def test_grades_that_reach_another_replica_pause_a_rollout_that_asks_for_it(tmp_path: Path) -> None:
    """Two gateways on one Redis: each answers, the other gets the grades; the counters add up, and harm pauses."""
    with ReplicaSet(tmp_path, count=2, settings=SETTINGS) as running:
        one, other = running.replicas
        serve(one, 0.0, {"task": "grade"})
        wait_until(lambda: other.predict(ROUTE, [[1.0]]).status_code == 200, what="the other serves")
        turns = count()

        def crossed(_: LiveGateway, requests: int) -> Labels:
            """Half of the answers come from the other one, and all labels go to the first."""
            return graded((one, other)[next(turns) % 2], requests)

        plan = {**PLAN, "score": GRADE, "on_harm": "pause"}
        one.admin("POST", f"/routes/{ROUTE}/rollout", plan, expect=201)

        def paused() -> Any:
            view = one.admin("GET", f"/routes/{ROUTE}/rollout")["rollout"]
            return view if view["phase"] == "paused" else None

        view = labelled_until(one, paused, labels=crossed)
        assert view["harm"] == "score"
        assert "score:" in view["reason"]
        for each in (one, other):
            wait_until(lambda each=each: grades(each).keys() == {"1", "2"}, what="grades of both versions")
            found = grades(each)
            assert found["1"] > 4.0
            assert found["2"] < 3.5


def grades(gateway: LiveGateway) -> dict[str, float]:
    """By version, as far as some have come."""
    held = {number: version["measures"] for number, version in told(gateway)["versions"].items()}
    return {number: measures["grade"]["value"] for number, measures in held.items() if "grade" in measures}
