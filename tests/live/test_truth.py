"""Labels of a live gateway: they join answers, count as evidence of a rollout, and are told in reports and metrics."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtests.live_gateway import LiveGateway, wait_until
from loadtests.redis_server import find_redis
from loadtests.replica_set import ReplicaSet
from tests.live.scenario import heard
from tests.live.test_rollout import CLASSIFIER, GOOD, LIMITS, PERMUTED, RETRAINED, ROUTE, SETTINGS, step, text

TRUTH = {"task": "classification", "output": "label", "slices": ["context:country"]}
PLAN: dict[str, Any] = {
    "candidate": 2,
    "shadow": None,
    "steps": [step(30)],
    "needs": ["error", "label"],
    "max_harm": {"error": 0.3, "slow": 0.9, "label": 0.3},
    "bake": {"holdback": 40, "min_s": 0.5, "min_requests": 20},
}
_numbers = count()


@pytest.fixture
def single(tmp_path: Path) -> Iterator[LiveGateway]:
    with LiveGateway(tmp_path / "home", settings=SETTINGS) as running:
        yield running


@pytest.fixture
def several(tmp_path: Path) -> Iterator[LiveGateway]:
    """With two web workers: they answer, the node takes the labels."""
    with LiveGateway(tmp_path / "home", settings=SETTINGS, options=("--workers", "2")) as running:
        yield running


def serve(gateway: LiveGateway, candidate: str, **truth: Any) -> None:
    for number, body in enumerate((GOOD, candidate), start=1):
        source = gateway.home.parent / f"version-{number}.py"
        source.write_text(CLASSIFIER.replace("BODY", body), encoding="utf-8")
        assert gateway.register(ROUTE, source) == number
    split = [{"version": 1, "weight": 100}]
    spec = {"model": ROUTE, "split": split, "known_good": 1, "fallback": 1, "limits": LIMITS}
    gateway.put_route(ROUTE, {**spec, "truth": {**TRUTH, **truth}})
    wait_until(lambda: heard(gateway), what="the route in every worker")


def answered(gateway: LiveGateway, requests: int) -> list[dict[str, Any]]:
    """Decisions and their true labels: the largest of four numbers names the class, and one in ten is told wrongly."""
    found = []
    for number in (next(_numbers) for _ in range(requests)):
        row = [float(number % 7), float(number % 11) + 0.1, float(number % 13) + 0.2, float(number % 5) + 0.3]
        extra = {"key": f"user-{number}", "context": {"country": ("at", "de")[number % 2]}}
        answer = gateway.predict(ROUTE, [row], **extra)
        assert answer.status_code == 200
        label = (row.index(max(row)) + (number % 10 == 0)) % 4
        found.append({"decision": answer.json()["decision"], "label": label})
    return found


def send(gateway: LiveGateway, labels: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Again where the recorder, which starts beside the gateway, did not answer: labels that come twice count once."""
    lines = "".join(f"{json.dumps(label)}\n" for label in labels).encode()
    answer = wait_until(lambda: reached(post(gateway, lines, media="application/x-ndjson")), what="the recorder")
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def reached(answer: httpx.Response) -> httpx.Response | None:
    """None where the recorder could not be asked; the next one may be."""
    return None if answer.status_code == 503 else answer


def told(gateway: LiveGateway, query: str = "") -> dict[str, Any]:
    """The report of the labels, once the recorder answers."""
    headers = {"authorization": f"Bearer {gateway.token}"}
    path = f"/admin/truth/{ROUTE}{query}"
    answer = wait_until(lambda: reached(gateway.client.get(path, headers=headers)), what="the recorder")
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def known(gateway: LiveGateway, answers: int) -> bool:
    """So many answers of version 1 have reached what labels are joined to."""
    versions = told(gateway)["versions"]
    return "1" in versions and versions["1"]["arrival"]["rows"] >= answers


def post(gateway: LiveGateway, body: bytes, *, token: str | None = None, media: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {token or gateway.token}", "content-type": media}
    return gateway.client.post("/feedback", content=body, headers=headers)


Labels = list[dict[str, Any]]


def labelled_until(
    gateway: LiveGateway,
    done: Callable[[], Any],
    *,
    labels: Callable[[LiveGateway, int], Labels] = answered,
    at_once: int = 40,
    within_s: float = 150.0,
) -> Any:
    """``at_once``: so many labels are known before the first of them can decide anything."""
    limit = time.monotonic() + within_s
    while not (found := done()):
        assert time.monotonic() < limit, gateway.admin("GET", f"/routes/{ROUTE}/rollout")
        send(gateway, labels(gateway, at_once))
    return found


def ended(gateway: LiveGateway, rollout: str) -> Callable[[], Any]:
    def report() -> Any:
        rows = gateway.admin("GET", f"/routes/{ROUTE}/rollouts")["rollouts"]
        return gateway.admin("GET", f"/routes/{ROUTE}/rollouts/{rollout}") if rows else None

    return report


def rolled_out(gateway: LiveGateway, *, at_once: int = 40) -> dict[str, Any]:
    view = gateway.admin("POST", f"/routes/{ROUTE}/rollout", PLAN, expect=201)
    rollout = str(view["rollout"]["id"])
    report: dict[str, Any] = labelled_until(gateway, ended(gateway, rollout), at_once=at_once)
    print(text(gateway, rollout))
    return report


def test_a_candidate_that_answers_all_and_is_wrong_is_rolled_back_by_its_labels(several: LiveGateway) -> None:
    """Every answer is a 200; nothing but the truth tells; and report and metrics say how wrong it was."""
    gateway = several
    serve(gateway, PERMUTED)
    send(gateway, answered(gateway, 40))
    report = rolled_out(gateway, at_once=200)
    assert (report["verdict"], report["trigger"]) == ("rolled-back", "label")
    label = report["evidence"]["streams"]["label"]
    assert label["verdict"] == "harmful"
    assert label["candidate"]["bad"] / label["candidate"]["units"] > 0.7
    assert label["baseline"]["bad"] / label["baseline"]["units"] < 0.3
    truth = told(gateway, "?days=0")
    one, two = (truth["versions"][number]["measures"]["accuracy"] for number in ("1", "2"))
    assert two["high"] < 0.5 < one["low"]
    assert truth["versions"]["1"]["slices"]["country"]["gap"]["accuracy"]["value"] < 0.4
    shown = f'gateway_truth_score{{metric="accuracy",model="{ROUTE}",version="1"}}'
    wait_until(lambda: shown in gateway.metrics(), what=shown)
    delays = f'gateway_truth_label_delay_seconds_count{{model="{ROUTE}",version="1"}}'
    wait_until(lambda: delays in gateway.metrics(), what=delays)


def test_a_candidate_whose_labels_are_as_good_is_promoted(single: LiveGateway) -> None:
    """Each step waits until its labels exclude the harm, and then goes on by itself."""
    serve(single, RETRAINED)
    report = rolled_out(single)
    assert report["verdict"] == "promoted"
    assert single.route(ROUTE)["status"]["known_good"] == 2
    assert report["evidence"]["streams"]["label"]["candidate"]["units"] > 20


def test_feedback_says_what_became_of_a_label(single: LiveGateway) -> None:
    """Alone and in bulk, by whom it may come, and what does not fit by its field and line."""
    gateway = single
    serve(gateway, GOOD)
    json_type, lines_type = "application/json", "application/x-ndjson"
    one, two, three = answered(gateway, 3)
    wait_until(lambda: known(gateway, 3), what="the three answers")
    first = post(gateway, json.dumps(one).encode(), media=json_type)
    assert (first.status_code, first.json()["outcome"]) == (200, "joined"), (first.text, gateway.log()[:3000])
    assert send(gateway, [one])["outcomes"] == {"duplicate": 1}
    other = post(gateway, json.dumps({**one, "label": 9}).encode(), media=json_type)
    assert (other.status_code, other.json()["type"]) == (409, "urn:turnout:problem:conflict")
    held = post(gateway, b'{"decision": "nobody knows it", "label": 1}', media=json_type)
    assert (held.status_code, held.json()["outcome"]) == (202, "held")
    for body, field in (
        ({"decision": two["decision"]}, "label"),
        ({"label": 1}, "decision"),
        ({**two, "label": {"a": 1}}, "label"),
        ({**two, "label": "x" * 201}, "label"),
        ({**two, "label": [1, {}]}, "label[1]"),
        ({**two, "colour": 1}, "colour"),
        ({**two, "label": [1, 2]}, "label"),
    ):
        wrong = post(gateway, json.dumps(body).encode(), media=json_type)
        assert wrong.status_code == 422, wrong.text
        assert wrong.json()["errors"][0]["field"] == field
    assert post(gateway, b"{", media=json_type).status_code == 400
    assert post(gateway, b"", media=lines_type).status_code == 400
    assert post(gateway, b"label=1", media="text/csv").status_code == 415
    assert post(gateway, b"x" * 600_000, media=lines_type).status_code == 413
    body = b"\n".join([json.dumps(two).encode(), b"", b"not json", b'{"decision": 1, "label": 2}', b"[1]"])
    bulk = post(gateway, body, media=lines_type).raise_for_status().json()
    assert bulk["lines"] == 4
    assert bulk["outcomes"] == {"joined": 1, "invalid": 3}
    assert [(error["line"], error["field"]) for error in bulk["errors"]] == [(3, "line"), (4, "decision"), (5, "line")]
    said = {}
    for role, routes in (("predict", None), ("feedback", ["letters"]), ("feedback", [ROUTE])):
        made = gateway.admin("POST", "/tokens", {"name": f"t{next(_numbers)}", "role": role, "routes": routes})
        token = made["token"]
        said[role, str(routes)] = post(gateway, json.dumps(three).encode(), token=token, media=json_type).status_code
    assert list(said.values()) == [403, 403, 200]
    assert gateway.client.post("/feedback", json=three).status_code == 401


def test_labels_outlive_the_recorder_and_the_gateway(single: LiveGateway) -> None:
    """Answers and labels that were kept are there after ``kill -9`` of the one, and a restart of the other; labels that
    are sent again count once."""
    gateway = single
    serve(gateway, GOOD)
    first, second = answered(gateway, 30), answered(gateway, 30)
    wait_until(lambda: known(gateway, 60), what="all answers")
    send(gateway, first)
    assert send(gateway, first)["outcomes"] == {"duplicate": 30}
    accuracy = told(gateway)["versions"]["1"]["measures"]["accuracy"]
    assert accuracy["units"] == 30
    pid = wait_until(gateway.recorder, what="a recorder").pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: gateway.recorder(but=pid), what="another recorder")

    def taken() -> Any:
        body = "".join(f"{json.dumps(label)}\n" for label in [*first, *second]).encode()
        return post(gateway, body, media="application/x-ndjson").status_code == 200

    wait_until(taken, what="labels taken again")
    assert send(gateway, [*first, *second])["outcomes"] == {"duplicate": 60}
    gateway.terminate()
    gateway.start()
    wait_until(lambda: gateway.client.get("/readyz").status_code == 200, what="ready")
    wait_until(lambda: send(gateway, [*first, *second])["outcomes"] == {"duplicate": 60}, what="the same labels")
    assert told(gateway)["versions"]["1"]["measures"]["accuracy"]["units"] == 60


@pytest.mark.skipif(find_redis() is None, reason="no redis-server here: apt-get install redis-server")
def test_a_label_that_reaches_another_replica_finds_its_answer(tmp_path: Path) -> None:
    """Two gateways on one Redis: answers of the one, labels for the other; they join where the answers are."""
    with ReplicaSet(tmp_path, count=2, settings=SETTINGS) as running:
        one, other = running.replicas
        serve(one, GOOD)
        wait_until(lambda: other.predict(ROUTE, [[1.0, 2.0, 3.0, 4.0]]).status_code == 200, what="the other serves")
        labels = answered(one, 20)
        assert set(send(other, labels)["outcomes"]) == {"held"}

        def joined() -> Any:
            versions = told(one)["versions"]
            return versions and versions["1"]["arrival"]["labelled"] == 20

        wait_until(joined, what="labels at the replica that gave the answers")
        wait_until(lambda: told(other)["standing"]["held"] == 0, what="nothing held at the other")
