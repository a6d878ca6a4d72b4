"""Rollouts end to end: whole gateways, real processes, real traffic; what happened is read from the report."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtests.closed_loop import Load
from loadtests.live_gateway import LiveGateway, wait_until
from tests.live.scenario import after, audit, failed, heard, load
from tests.telemetry.decisions.follower import receiving

ROUTE = "shapes"

LIMITS = {"slow_ms": 60_000}
"""Nothing here is about slow answers: on a busy machine those of either version may be slow, which is no evidence."""

CLASSIFIER = """
import numpy as np

SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 4]}],
    "outputs": [
        {"name": "scores", "datatype": "FP32", "shape": ["batch", 4]},
        {"name": "label", "datatype": "INT64", "shape": ["batch"]},
    ],
}


class Model:
    def predict(self, inputs):
        x = inputs["x"]
        BODY
"""
"""Four numbers, of which the largest names the class."""

GOOD = "return {'scores': x / 10, 'label': x.argmax(axis=1)}"
RETRAINED = "return {'scores': x / 11 + 0.01, 'label': x.argmax(axis=1)}"
PERMUTED = "return {'scores': x / 10, 'label': (x.argmax(axis=1) + 1) % 4}"
FAILING = (
    """if (x[:, 3] == 3).any():
            raise ValueError("a three at the end is too much")
        """
    + GOOD
)

QUICK: dict[str, Any] = {
    "shadow": {"share": 0.5, "min_pairs": 20, "min_s": 0.2},
    "max_harm": {"error": 0.1, "slow": 0.5},
    "max_disagreement": 0.2,
    "bake": {"holdback": 20, "min_s": 0.5, "min_requests": 20},
}


def step(weight: float) -> dict[str, Any]:
    return {"weight": weight, "min_requests": 20, "min_s": 0.5}


SETTINGS = {"runtimes": {"preload": ["python"], "hang_floor_ms": 10_000}}
"""Nothing hangs here: a version that had no turn for a while is not taken for one that does."""


@pytest.fixture(params=[1, 2], ids=["one process", "two web workers"])
def shaped(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LiveGateway]:
    options = ("--workers", str(request.param)) if request.param > 1 else ()
    with LiveGateway(tmp_path / "home", settings=SETTINGS, options=options) as running:
        yield running


@pytest.fixture
def single(tmp_path: Path) -> Iterator[LiveGateway]:
    with LiveGateway(tmp_path / "home", settings=SETTINGS) as running:
        yield running


def serve(gateway: LiveGateway, candidate: str) -> None:
    """Version 1 is known to be good, version 2 is what is rolled out."""
    for number, body in enumerate((GOOD, candidate), start=1):
        source = gateway.home.parent / f"version-{number}.py"
        source.write_text(CLASSIFIER.replace("BODY", body), encoding="utf-8")
        assert gateway.register(ROUTE, source) == number
    split = [{"version": 1, "weight": 100}]
    gateway.put_route(ROUTE, {"model": ROUTE, "split": split, "known_good": 1, "fallback": 1, "limits": LIMITS})
    wait_until(lambda: heard(gateway), what="the route in every worker")


def asked(gateway: LiveGateway) -> Load:
    """A load that leaves the machine room: copies are made of capacity to spare."""
    return load(gateway, ROUTE, clients=8, make=shape, pause_s=0.01)


def shape(client: int, sequence: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Each request has a key of its own; every fifth ends in a three, and not those of all clients at once."""
    number = client * 100_003 + sequence
    row = [float(number % 7), float(number % 11), float(number % 13), float(number % 5)]
    return {"inputs": [row], "key": f"user-{number}"}, {}


def begin(gateway: LiveGateway, **plan: Any) -> str:
    view = gateway.admin("POST", f"/routes/{ROUTE}/rollout", {"candidate": 2, **QUICK, **plan}, expect=201)
    return str(view["rollout"]["id"])


def ended(gateway: LiveGateway, running: Load, rollout: str, *, within_s: float = 150.0) -> dict[str, Any]:
    """Its report, once it is written."""

    def written() -> Any:
        rows = gateway.admin("GET", f"/routes/{ROUTE}/rollouts")["rollouts"]
        return rows and rows[0]["id"] == rollout

    try:
        wait_until(written, within_s=within_s, what="the report")
    except AssertionError as late:
        view = gateway.admin("GET", f"/routes/{ROUTE}/rollout")
        raise AssertionError(f"{late}; {running.count()} answers; {view}\n{gateway.log()}") from None
    report: dict[str, Any] = gateway.admin("GET", f"/routes/{ROUTE}/rollouts/{rollout}")
    return report


def text(gateway: LiveGateway, rollout: str) -> str:
    headers = {"authorization": f"Bearer {gateway.token}", "accept": "text/plain"}
    return gateway.client.get(f"/admin/routes/{ROUTE}/rollouts/{rollout}", headers=headers).text


def moment(report: dict[str, Any], percent: float) -> float:
    return next(float(mark["at"]) for mark in report["weights"] if mark["percent"] == percent)


def test_a_candidate_that_fails_a_fifth_of_its_requests_is_rolled_back_by_itself(shaped: LiveGateway) -> None:
    """At a 5% weight: nobody calls it off, no client sees an error, few requests met the fault, the report says why."""
    serve(shaped, FAILING)
    with asked(shaped) as running:
        after(running, 100)
        rollout = begin(shaped, shadow=None, steps=[step(5), step(50)])
        report = ended(shaped, running, rollout)
        wait_until(lambda: heard(shaped), what="the rollback in every worker")
        ended_at = time.monotonic()
        after(running, 300)
    took = report["ended_at"] - moment(report, 5)
    harmed = [answer for answer in running.answers if answer.reason == "fallback"]
    print(f"\nrolled back after {took:.1f} s at 5%; {len(harmed)} requests of {running.count()} met the fault")
    print(text(shaped, rollout))
    assert (report["verdict"], report["trigger"], report["candidate"]) == ("rolled-back", "error", 2)
    error = report["evidence"]["streams"]["error"]
    assert error["verdict"] == "harmful"
    assert error["log_harm"] >= error["harm_threshold"]
    assert 0 < report["requests_harmed"] <= len(harmed)
    assert error["candidate"]["bad"] / error["candidate"]["units"] > 0.05
    assert error["baseline"]["bad"] == 0
    assert "rolled-back (error)" in text(shaped, rollout)
    assert failed(running.answers) == []
    assert {answer.version for answer in running.answers if answer.started > ended_at} == {1}
    [record] = audit(shaped, "rollback")
    assert record["detail"]["trigger"] == "rollout:error"
    assert record["detail"]["evidence"]["streams"]["error"]["candidate"] == error["candidate"]
    status = shaped.route(ROUTE)["status"]
    assert (status["known_good"], list(status["quarantined"]), status["rollout"]) == (1, ["2"], None)
    counted = f'gateway_rollbacks_total{{route="{ROUTE}",trigger="rollout:error"}} 1.0'
    wait_until(lambda: counted in shaped.metrics(), what=counted)
    refused = shaped.admin("POST", f"/routes/{ROUTE}/rollout", {"candidate": 2}, expect=409)
    assert "quarantine" in refused["detail"]


def test_a_good_candidate_climbs_bakes_and_is_the_known_good(single: LiveGateway) -> None:
    """Trained anew: other numbers, the same labels. Through shadow, steps and bake, and no request noticed."""
    serve(single, RETRAINED)
    with asked(single) as running:
        after(running, 100)
        rollout = begin(single, steps=[step(20), step(50)])
        refused = single.admin("POST", f"/routes/{ROUTE}/weights", {"weights": {"1": 1, "2": 1}}, expect=409)
        assert "--abort" in refused["detail"]
        report = ended(single, running, rollout)
        after(running, 300)
    print(text(single, rollout))
    assert report["verdict"] == "promoted", report
    assert [mark["percent"] for mark in report["weights"]] == [0.0, 20.0, 50.0, 80.0, 100.0]
    streams = report["evidence"]["streams"]
    assert {name for name, stream in streams.items() if stream["verdict"] == "healthy"} >= {"error", "disagreement"}
    assert failed(running.answers) == []
    status = single.route(ROUTE)["status"]
    assert (status["known_good"], status["quarantined"]) == (2, {})
    assert status["proved"][-1]["rollout"] == rollout
    assert running.answers[-1].version == 2


def test_a_candidate_whose_labels_are_permuted_is_rolled_back_though_every_answer_was_a_200(
    single: LiveGateway,
) -> None:
    """Shadow copies disagree with what was answered; no client ever got a wrong label."""
    serve(single, PERMUTED)
    with asked(single) as running:
        after(running, 100)
        rollout = begin(single, steps=[step(5)])
        report = ended(single, running, rollout)
        after(running, 100)
    print(text(single, rollout))
    assert (report["verdict"], report["trigger"]) == ("rolled-back", "disagreement")
    stream = report["evidence"]["streams"]["disagreement"]
    assert stream["candidate"]["bad"] == stream["candidate"]["units"] > 0
    assert {answer.status for answer in running.answers} == {200}
    assert {answer.version for answer in running.answers} == {1}
    assert report["requests_harmed"] == 0


def test_wrong_labels_are_found_also_when_the_first_step_is_already_traffic(single: LiveGateway) -> None:
    """Without a shadow-first step, at 5%: all status codes are 200, and it goes back by disagreement."""
    serve(single, PERMUTED)
    with asked(single) as running:
        after(running, 100)
        rollout = begin(single, shadow={"share": 0.2, "first": False}, steps=[step(5)])
        report = ended(single, running, rollout)
    wrong = [answer for answer in running.answers if answer.version == 2]
    print(f"\n{len(wrong)} requests of {running.count()} got a wrong label")
    assert (report["verdict"], report["trigger"]) == ("rolled-back", "disagreement")
    assert {answer.status for answer in running.answers} == {200}


def test_a_candidate_whose_process_dies_once_in_each_phase_costs_no_answer_and_no_rollout(single: LiveGateway) -> None:
    """A crash is made good by a restart: one among the copies, one at a step, one in the bake prove nothing. No phase
    is left before its crash, since a webhook confirms it then."""
    serve(single, RETRAINED)
    phases = ("shadowing", "stepping", "baking")
    crashed = {phase: threading.Event() for phase in phases}
    with receiving() as confirming:
        confirming.answer = lambda body: 200 if crashed[json.loads(body)["phase"]].wait(60) else 503
        with asked(single) as running:
            after(running, 100)
            rollout = begin(single, steps=[step(20)], webhooks={"confirm": [{"url": confirming.url}]})
            killed = []
            for phase in phases:
                killed.append(kill_candidate(single, phase, but=killed))
                crashed[phase].set()
            report = ended(single, running, rollout)
            after(running, 100)
    assert len(set(killed)) == 3, killed
    assert report["verdict"] == "promoted", report
    assert failed(running.answers) == []


def kill_candidate(gateway: LiveGateway, phase: str, *, but: list[int]) -> int:
    """Once the rollout stands there and the version has another process that answers; its id."""

    def standing() -> Any:
        rollout = gateway.route(ROUTE)["status"]["rollout"]
        if rollout is None or rollout["phase"] != phase:
            return None
        row = gateway.resident()[f"{ROUTE}/2"]
        return row["ready"] and row["pid"] not in but and row["pid"]

    pid = int(wait_until(standing, within_s=90, what=f"the candidate in phase {phase}"))
    os.kill(pid, signal.SIGKILL)
    return pid
