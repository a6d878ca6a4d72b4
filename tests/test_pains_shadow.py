"""Shadow traffic without the pains that others have with it, on whole gateways under load."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtests.live_gateway import LiveGateway, wait_until
from tests.live.scenario import ROW, after, alive, controlled, failed, heard, load, misbehave, runtime_pids, self_naming


@pytest.fixture(params=[1, 2])
def gateway(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LiveGateway]:
    """With one web process, and with two: each copies what it answers, and the node counts for both."""
    with LiveGateway(tmp_path / "home", settings={"server": {"workers": request.param}}) as running:
        yield running


@pytest.fixture(params=[1, 2])
def patient_gateway(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LiveGateway]:
    """One that takes no version for hung, gives requests ten minutes, and three to end."""
    settings = {
        "server": {"workers": request.param, "drain_s": 200.0},
        "runtimes": {"preload": ["echo"], "hang_floor_ms": 600_000},
        "limits": {"timeout_ms": 600_000},
    }
    with LiveGateway(tmp_path / "home", settings=settings) as running:
        yield running


def shadowed(share: float, **others: Any) -> dict[str, Any]:
    return {
        "model": "echo",
        "split": [{"version": 1, "weight": 100}],
        "shadow": [{"version": 2, "share": share}],
        **others,
    }


DIED = r'gateway_version_restarts_total\{.*version="2".*\} [1-9]'


def copies(gateway: LiveGateway, *outcomes: str) -> int:
    """How many copies came to this; all of them without a name."""
    total = 0.0
    for line in gateway.metrics().splitlines():
        found = re.match(r'gateway_shadow_total\{.*outcome="(\w+)".*\} (\S+)', line)
        if found and (not outcomes or found[1] in outcomes):
            total += float(found[2])
    return int(total)


def sleeps(pid: int) -> bool:
    """A thread of the process is in a sleep, as a scripted delay is; what waits for work waits otherwise."""
    try:
        return any(task.read_text() == "hrtimer_nanosleep" for task in Path(f"/proc/{pid}/task").glob("*/wchan"))
    except OSError:  # a thread has ended since it was listed
        return False


def ask_until(gateway: LiveGateway, condition: Callable[[], object]) -> None:
    """Asks again and again; every request is answered by the version of the split."""

    def asked() -> object:
        response = gateway.predict("echo", [ROW])
        assert (response.status_code, response.json()["version"]) == (200, 1)
        return condition()

    wait_until(asked, what="what the requests are for")


def scatter(answered: int) -> float:
    """Six standard deviations of a share of 30%, and what is under way."""
    return 6 * (0.21 * answered) ** 0.5 + 40


def spared(gateway: LiveGateway, *outcomes: str, since: float | None = None, more: int = 5) -> None:
    """Until some further copies have come to one of these, counted from ``since``, or from now."""
    goal = (copies(gateway, *outcomes) if since is None else since) + more
    wait_until(lambda: copies(gateway, *outcomes) >= goal, what=f"{more} more {'/'.join(outcomes)}")


def test_pain_22_shadow_traffic_is_a_share_and_nobody_feels_it(gateway: LiveGateway) -> None:
    """Argo Rollouts 563, Flagger 487, Seldon 3772: all of the traffic or none, and it doubles the load.

    Here a share is copied. Whatever the shadow does - sleep, raise, die, answer otherwise - and when it is taken away
    under load, each client has the right answer from the version that the split names.
    """
    self_naming(gateway, "echo", 1)
    control = controlled(gateway, "echo", 2)
    gateway.put_route("echo", shadowed(0.3))
    wait_until(lambda: heard(gateway), what="the route in every worker")
    with load(gateway, "echo", clients=4, pause_s=0.005) as clients:
        after(clients, 500)
        spared(gateway, "differs")
        before = clients.count()
        wait_until(lambda: copies(gateway) > 0.3 * before - scatter(before), what="the share of these")
        taken, answered = copies(gateway), clients.count()
        assert taken < 0.3 * answered + scatter(answered)
        for conduct, outcome in [
            ({"outputs": {"y": 1}}, "agrees"),
            ({"fail": "always"}, "failed"),
            ({"crash": "always"}, "failed"),
            ({"delay_ms": 60_000}, "dropped"),
        ]:
            # One that dies at each start gets a single copy, which may have ended before it is counted.
            since = copies(gateway, outcome) if "crash" in conduct else None
            misbehave(control, **conduct)
            spared(gateway, outcome, since=since, more=5 if since is None else 1)
            if "crash" in conduct:  # and not of what still failed before
                wait_until(lambda: re.search(DIED, gateway.metrics()), what="the shadow's death")
            after(clients, 100)
        gateway.put_route("echo", {"model": "echo", "split": [{"version": 1, "weight": 100}]})
        after(clients, 100)
        misbehave(control)
    assert failed(clients.answers) == []
    assert {answer.version for answer in clients.answers} == {1}
    wait_until(lambda: "echo/2" not in gateway.resident(), what="the shadow's end")
    wait_until(lambda: "gateway_shadow_total{" not in gateway.metrics(), what="the end of its series")
    assert gateway.route("echo")["status"]["quarantined"] == {}, "what a shadow does is no outcome of the route"


def test_a_shadow_that_never_ends_does_not_hold_up_the_end_of_the_gateway(patient_gateway: LiveGateway) -> None:
    """Its copy is given up, as nobody waits for it; the exit status is 0."""
    gateway = patient_gateway
    self_naming(gateway, "echo", 1)
    control = controlled(gateway, "echo", 2)
    gateway.put_route("echo", shadowed(1.0))
    wait_until(lambda: heard(gateway), what="the route in every worker")
    ask_until(gateway, lambda: copies(gateway, "differs"))
    pid = runtime_pids(gateway)["echo/2"]
    misbehave(control, delay_ms=300_000)
    ask_until(gateway, lambda: sleeps(pid))
    assert gateway.terminate(within_s=90) == 0
    wait_until(lambda: not alive([pid]), what="the shadow's end")


def test_a_shadow_cannot_be_asked_and_a_version_in_quarantine_is_no_shadow(tmp_path: Path) -> None:
    """Its answers are compared, never returned; what was rolled back gets no copies either, until it is lifted."""
    with LiveGateway(tmp_path / "home") as gateway:
        for number in (1, 2):
            self_naming(gateway, "echo", number)
        gateway.put_route("echo", shadowed(1.0, pin="allowed"))
        assert gateway.predict("echo", [ROW], headers={"x-model-version": "1"}).status_code == 200
        assert gateway.predict("echo", [ROW], headers={"x-model-version": "2"}).status_code == 404
        wait_until(lambda: copies(gateway) == 1, what="the first copy")
        split = [{"version": 1, "weight": 50}, {"version": 2, "weight": 50}]
        wait_until(lambda: copies(gateway, "differs"), what="its outcome")
        gateway.put_route("echo", shadowed(1.0, split=split))
        gateway.rollback("echo", to=1)
        before, differing = copies(gateway), copies(gateway, "differs")
        for _ in range(5):
            assert gateway.predict("echo", [ROW]).status_code == 200
        assert copies(gateway) == before
        gateway.lift("echo", 2)
        wait_until(lambda: "echo/2" in gateway.resident(), what="the version's return")

        ask_until(gateway, lambda: copies(gateway, "differs") > differing)
