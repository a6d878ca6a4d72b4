"""Changing everything while 32 clients wait for answers: nobody may notice."""

from __future__ import annotations

import itertools
import json
import random
import time
from pathlib import Path

import pytest

from loadtests.live_gateway import LiveGateway, wait_until
from tests.live.scenario import (
    PATIENT,
    ROW,
    after,
    alive,
    audit,
    controlled,
    failed,
    keyed,
    load,
    misbehave,
    mislabelled,
    register,
    runtime_pids,
    self_naming,
)

ROUTE = "echo"


@pytest.mark.timeout(900)
def test_weights_versions_and_rollbacks_change_under_load_without_a_failed_or_mislabelled_answer(
    gateway: LiveGateway,
) -> None:
    """200 weight changes, 20 new versions, 20 rollbacks under 32 clients: every answer is 200 and true to its label."""
    register(gateway, ROUTE, 3)
    split = [{"version": version, "weight": weight} for version, weight in ((1, 50), (2, 30), (3, 20))]
    gateway.put_route(ROUTE, {"model": ROUTE, "split": split, "fallback": 1, "known_good": 1})
    pick = random.Random(7)
    with load(gateway, ROUTE) as running:
        after(running, 200)
        for _ in range(200):
            heavy = pick.randint(0, 100)
            gateway.weights(ROUTE, {1: 100 - heavy, 2: heavy // 2, 3: heavy - heavy // 2}, wait=False)
        for number in range(4, 24):
            self_naming(gateway, ROUTE, number)
            spec = {"model": ROUTE, "split": [{"version": 1, "weight": 80}, {"version": number, "weight": 20}]}
            gateway.put_route(ROUTE, {**spec, "fallback": 1, "known_good": 1})
            since = running.count()
            wait_until(
                lambda new=number, since=since: any(answer.version == new for answer in running.answers[since:]),
                what=f"an answer of version {number}",
            )
            gateway.rollback(ROUTE)
            after(running, 20)
            gateway.lift(ROUTE, number)
    assert failed(running.answers) == []
    assert mislabelled(running.answers) == []
    assert {answer.version for answer in running.answers} >= set(range(1, 24))
    assert len(audit(gateway, "rollback")) == 20


def test_a_weight_of_zero_is_zero_on_the_next_request(gateway: LiveGateway) -> None:
    """Once a weight of 0 is applied, not one request that starts later is answered by that version."""
    register(gateway, ROUTE, 2)
    gateway.put_route(ROUTE, {"model": ROUTE, "split": [{"version": 1, "weight": 50}, {"version": 2, "weight": 50}]})
    for number in range(20):
        gateway.weights(ROUTE, {1: 100, 2: 0} if number % 2 == 0 else {1: 0, 2: 100})
        expected = 1 if number % 2 == 0 else 2
        answers = [gateway.predict(ROUTE, [ROW], key=f"{number}-{index}").json() for index in range(20)]
        assert {answer["version"] for answer in answers} == {expected}


@pytest.mark.parametrize("trouble", ["none", "hang", "crash"])
def test_after_a_rollback_is_acknowledged_nothing_reaches_the_bad_version(gateway: LiveGateway, trouble: str) -> None:
    """By split, rule or pin, also when it hangs or crash-loops: no request that starts later is sent to it."""
    register(gateway, ROUTE, 1)
    control = controlled(gateway, ROUTE, 2)
    spec = {
        "model": ROUTE,
        "split": [{"version": 1, "weight": 50}, {"version": 2, "weight": 50}],
        "rules": [{"name": "staff", "if": {"==": [{"var": "group"}, "staff"]}, "use": 2}],
        "pin": "allowed",
        "known_good": 1,
        "fallback": 1,
    }
    gateway.put_route(ROUTE, spec)
    numbers = itertools.count()

    def mixed(client: int, sequence: int) -> tuple[dict[str, object], dict[str, str]]:
        body, headers = keyed(client, sequence)
        kind = next(numbers) % 3
        if kind == 1:
            body["context"] = {"group": "staff"}
        return body, ({"x-model-version": "2"} if kind == 2 else headers)

    with load(gateway, ROUTE, make=mixed) as running:
        after(running, 200)
        assert {answer.reason for answer in running.answers} >= {"split", "rule:staff", "pin"}
        bad = runtime_pids(gateway)[f"{ROUTE}/2"]
        if trouble != "none":
            misbehave(control, **{trouble: "always"})
            wait_until(lambda: any(row.reason == "fallback" for row in list(running.answers)), what="a fallback")
        acknowledged = gateway.rollback(ROUTE)
        since = time.monotonic()
        after(running, 300)
    assert acknowledged["durable"] is True
    later = [answer for answer in running.answers if answer.started > since]
    assert later
    pinned = [answer for answer in later if answer.status != 200]
    assert {answer.status for answer in pinned} == {409}
    assert {answer.version for answer in later if answer.status == 200} == {1}
    assert {answer.status for answer in running.answers} <= {200, 409}
    assert mislabelled(running.answers) == []
    assert gateway.route(ROUTE)["status"]["known_good"] == 1
    wait_until(lambda: not alive([bad]), what="the end of the bad version's process")
    refused = gateway.admin("POST", f"/routes/{ROUTE}/weights", {"weights": {"2": 5, "1": 95}}, expect=409)
    assert "quarantine" in refused["detail"].lower()


def test_sigterm_answers_every_admitted_request_and_exits_with_zero(tmp_path: Path) -> None:
    """Under 32 clients, then exit status 0: the requests that the gateway's log says it took are, one for one, those
    whose answers arrived. A connection that breaks on the client's side must belong to none of them."""
    lines = tmp_path / "requests.jsonl"

    def named(client: int, sequence: int) -> tuple[dict[str, object], dict[str, str]]:
        name = f"c{client}-{sequence}"
        return {"inputs": [ROW], "key": name, "id": name}, {"x-request-id": name}

    with LiveGateway(tmp_path / "home", settings={"telemetry": {"request_log": str(lines)}, **PATIENT}) as gateway:
        register(gateway, ROUTE, 2)
        gateway.put_route(
            ROUTE, {"model": ROUTE, "split": [{"version": 1, "weight": 50}, {"version": 2, "weight": 50}]}
        )
        with load(gateway, ROUTE, make=named) as running:
            after(running, 300)
            pids = [process.pid for process in gateway.descendants()]
            assert gateway.terminate() == 0
    logged = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    taken = [entry for entry in logged if entry["event"] == "request"]
    assert {entry["code"] for entry in taken} <= {200, 503}
    answered = {answer.body["id"] for answer in running.answers if answer.status == 200}
    assert {entry["request_id"] for entry in taken if entry["code"] == 200} == answered
    refused = sum(answer.status == 503 for answer in running.answers)
    assert sum(entry["code"] == 503 for entry in taken) == refused
    assert {answer.status for answer in running.answers} <= {0, 200, 503}
    assert mislabelled(running.answers) == []
    wait_until(lambda: not alive(pids), what="the end of every process")
