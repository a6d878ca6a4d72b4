"""A response cache in a real gateway: it answers, and never with another version's answer."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx

from loadtests.live_gateway import LiveGateway, wait_until
from tests.live.scenario import after, failed, load, mislabelled, register, self_naming

ROUTE = "echo"


def metric(gateway: LiveGateway, name: str, **labels: str) -> float:
    """One sample of the exposition; 0 where there is none."""
    wanted = {f'{label}="{value}"' for label, value in labels.items()}
    for line in gateway.metrics().splitlines():
        found = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line)
        if found and found[1] == name and wanted <= set(found[2].split(",")):
            return float(found[3])
    return 0.0


def outcomes(gateway: LiveGateway) -> dict[str, float]:
    names = ("hit", "miss", "joined", "bypass")
    return {name: metric(gateway, "gateway_cache_requests_total", route=ROUTE, outcome=name) for name in names}


def few(client: int, sequence: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Eight different questions, each of many askers."""
    return {"inputs": [[float((client + sequence) % 8), 2.0, 3.0, 4.0]], "key": f"k-{client}"}, {}


def spec(first: int, second: int) -> dict[str, Any]:
    split = [{"version": 1, "weight": first}, {"version": 2, "weight": second}]
    return {"model": ROUTE, "split": split, "known_good": 1, "cache": {"max_bytes": 1_000_000}}


def test_every_answer_is_its_versions_own_while_weights_move_and_a_version_is_rolled_back(
    gateway: LiveGateway,
) -> None:
    """Most requests are answered from the cache, none by a version that did not compute it, none by one that left."""
    register(gateway, ROUTE, 2)
    gateway.put_route(ROUTE, spec(50, 50))
    with load(gateway, ROUTE, clients=16, make=few) as running:
        after(running, 400)
        gateway.weights(ROUTE, {1: 10, 2: 90})
        after(running, 200)
        held = gateway.route(ROUTE)["status"]["cache"]
        gateway.rollback(ROUTE, to=1)
        after(running, 200)
        left = gateway.route(ROUTE)["status"]["cache"]
    assert failed(running.answers) == []
    assert mislabelled(running.answers) == []
    assert {answer.version for answer in running.answers[-100:]} == {1}
    assert held["entries"] == 16
    assert left["entries"] == 8
    assert 0 < left["bytes"] < held["bytes"]
    assert metric(gateway, "gateway_cache_entries", route=ROUTE) == 8
    assert metric(gateway, "gateway_cache_bytes", route=ROUTE) == left["bytes"]
    wait_until(lambda: sum(outcomes(gateway).values()) == len(running.answers), what="all requests counted")
    asked = outcomes(gateway)
    assert (asked["hit"] + asked["joined"]) / sum(asked.values()) > 0.9


def test_a_burst_of_equal_requests_is_one_row_and_no_answer_outlives_the_cache(gateway: LiveGateway) -> None:
    """Sixty-four at once, a question that takes its time: asked once. Without the cache: asked anew, every time."""
    self_naming(gateway, ROUTE, 1, delay_ms=300)
    document = {"model": ROUTE, "split": [{"version": 1, "weight": 1}]}
    gateway.put_route(ROUTE, {**document, "cache": {}})
    before = metric(gateway, "gateway_batch_rows_sum", model=ROUTE, version="1")

    def ask(_: int) -> httpx.Response:
        return httpx.post(f"{gateway.url}/predict/{ROUTE}", json={"inputs": [[1.0, 2.0, 3.0, 4.0]]}, timeout=90)

    with ThreadPoolExecutor(64) as crowd:
        answers = list(crowd.map(ask, range(64)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["decision"] for answer in answers}) == 64
    wait_until(lambda: sum(outcomes(gateway).values()) == 64, what="all requests counted")
    assert metric(gateway, "gateway_batch_rows_sum", model=ROUTE, version="1") == before + 1
    asked = outcomes(gateway)
    assert (asked["miss"], asked["bypass"]) == (1, 0)
    assert asked["hit"] + asked["joined"] == 63

    gateway.put_route(ROUTE, document)
    ask(0)
    rows = partial(metric, gateway, "gateway_batch_rows_sum", model=ROUTE, version="1")
    wait_until(lambda: rows() == before + 2, what="another row")
    wait_until(lambda: "gateway_cache_requests_total{" not in gateway.metrics(), what="the end of the cache's series")
    assert "cache" not in gateway.route(ROUTE)["status"]
