"""A version that fails outright is taken off its route by itself, within a second, once."""

from __future__ import annotations

import time
from typing import Any

import pytest

from loadtests.closed_loop import Answer
from loadtests.live_gateway import LiveGateway, wait_until
from tests.live.scenario import (
    after,
    alive,
    audit,
    controlled,
    failed,
    load,
    misbehave,
    mislabelled,
    register,
    runtime_pids,
)

ROUTE = "echo"
DEATHS = 3
"""Of a version, at most, before the guard has seen enough."""


def canary(weight: int) -> dict[str, Any]:
    return {
        "model": ROUTE,
        "split": [{"version": 1, "weight": 100 - weight}, {"version": 2, "weight": weight}],
        "known_good": 1,
        "fallback": 1,
    }


@pytest.mark.parametrize("weight", [5, 100])
@pytest.mark.parametrize("trouble", ["fail", "hang", "crash"])
def test_a_version_that_goes_wrong_is_off_its_route_within_a_second(
    gateway: LiveGateway, trouble: str, weight: int
) -> None:
    """It starts to raise, hang or crash on every request, at 5% and at 100%: rolled back once, nobody gets an error."""
    register(gateway, ROUTE, 1)
    control = controlled(gateway, ROUTE, 2)
    gateway.put_route(ROUTE, canary(weight))
    with load(gateway, ROUTE) as running:
        after(running, 1000)
        assert 2 in {answer.version for answer in running.answers}
        pace = running.count() / (time.monotonic() - running.answers[0].started)
        pid = runtime_pids(gateway)[f"{ROUTE}/2"]
        misbehave(control, **{trouble: "always"})
        wait_until(lambda: audit(gateway, "rollback"), what="the guard's rollback")
        done = time.monotonic()
        after(running, 300)
    assert failed(running.answers) == []
    assert mislabelled(running.answers) == []
    assert {answer.version for answer in running.answers if answer.started > done} == {1}
    most = pace * allowance_s(trouble) + DEATHS * running.clients * 100 / weight
    assert len(spell(running.answers)) < most, f"{pace:.0f} answers a second before"
    records = audit(gateway, "rollback")
    assert len(records) == 1
    assert records[0]["actor"] == "guard"
    assert records[0]["reason"]
    status = gateway.route(ROUTE)["status"]
    assert status["known_good"] == 1
    assert list(status["quarantined"]) == ["2"]
    assert f'gateway_rollbacks_total{{route="{ROUTE}",trigger="guard' in gateway.metrics()
    wait_until(lambda: not alive([pid]), what="the end of the bad version's process")


def spell(answers: list[Answer]) -> list[Answer]:
    """What was asked from the first request that met the trouble to the last: those the fallback answered.

    Counted rather than timed: a machine that stands still, or starts a process slowly, does not answer either. While a
    version hangs or starts again, answers come until each client waits for it.
    """
    met = [answer.started for answer in answers if answer.reason == "fallback"]
    return [answer for answer in answers if min(met) <= answer.started <= max(met)]


def allowance_s(trouble: str) -> float:
    """A hang shows only when a batch is overdue: the hang floor (0.6 s), twice at most. And the machine is shared."""
    return {"fail": 3.0, "crash": 4.0, "hang": 4.2}[trouble]


def test_the_guard_does_not_loop_when_the_known_good_fails_too(gateway: LiveGateway) -> None:
    """Both versions raise: one rollback, then a single note that there is nowhere to go; the route stays."""
    good = controlled(gateway, ROUTE, 1)
    bad = controlled(gateway, ROUTE, 2)
    gateway.put_route(ROUTE, canary(50))
    with load(gateway, ROUTE, clients=8) as running:
        after(running, 100)
        misbehave(bad, fail="always")
        wait_until(lambda: audit(gateway, "rollback"), what="the guard's rollback")
        misbehave(good, fail="always")
        wait_until(lambda: audit(gateway, "guard-no-target"), what="the guard's note")
        after(running, 300)
    assert len(audit(gateway, "rollback")) == 1
    assert len(audit(gateway, "guard-no-target")) == 1
    status = gateway.route(ROUTE)["status"]
    assert status["split"] == [{"version": 1, "weight": 100}]
    misbehave(good)
    wait_until(lambda: gateway.predict(ROUTE, [[0.0] * 4]).status_code == 200, what="an answer once it is well again")


def test_bad_input_and_one_poison_request_do_not_move_the_guard(gateway: LiveGateway) -> None:
    """A hundred 422s and a request that kills its process are the callers' doing: the canary stays."""
    register(gateway, ROUTE, 1)
    control = controlled(gateway, ROUTE, 2)
    gateway.put_route(ROUTE, canary(50))
    misbehave(control, crash={"equals": 666.0})
    with load(gateway, ROUTE, clients=8) as running:
        after(running, 100)
        for index in range(100):
            assert gateway.predict(ROUTE, [["no"]], key=f"b{index}").status_code == 422
        poisoned = gateway.predict(ROUTE, [[666.0] * 4], headers={"x-model-version": "2"})
        assert poisoned.status_code in (200, 403, 500)
        key = next(answer for answer in running.answers if answer.version == 2)
        assert key.status == 200
        after(running, 200)
    assert audit(gateway, "rollback") == []
    assert failed(running.answers) == []
