"""What a request meets before its version does: the route's rate limit, and its response cache."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import httpx
import pytest

from gateway.messages import Arrays
from tests.serving.stage import until
from tests.web.stage import ServedStage, Stage

ROW = {"inputs": [[1, 2, 3, 4]]}


async def test_a_client_past_its_rate_gets_429_with_a_true_time_to_come_back(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    """Two at once, then one in a hundred seconds; told as a rejection, by its reason; bad input counts too."""
    began = time.monotonic()
    assert (await client.post("/predict/rated", json=ROW)).status_code == 200
    assert (await client.post("/predict/rated", json={"inputs": [["a"]]})).status_code == 422

    answer = await client.post("/predict/rated", json=ROW)

    assert answer.status_code == 429
    assert 100 - (time.monotonic() - began) <= int(answer.headers["retry-after"]) <= 100
    assert answer.json()["type"].endswith("rate-limited")
    assert "0.01 requests a second" in answer.json()["detail"]
    assert stage.observer.rejections == [("rated", "rate-limit")]
    assert (stage.last().code, stage.last().route, stage.last().decision) == (429, "rated", None)
    assert stage.started.count("rated") == 3


async def test_each_client_has_a_rate_of_its_own(client: httpx.AsyncClient) -> None:
    """By key, in the body or the header; without one by address. Under ``/v2``, too."""
    keyed = [{**ROW, "key": "ann"}] * 3
    assert [(await client.post("/predict/rated", json=one)).status_code for one in keyed] == [200, 200, 429]
    bob = {"x-key": "bob"}
    codes = [(await client.post("/predict/rated", json=ROW, headers=bob)).status_code for _ in range(3)]
    assert codes == [200, 200, 429]
    row = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
    codes = [(await client.post("/v2/models/rated/infer", json=row)).status_code for _ in range(3)]
    assert codes == [200, 200, 429]


async def test_on_a_protected_route_the_token_counts_whatever_key_it_sends(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    """New keys buy nothing there; and a refusal need not read the body first."""
    for token, expected in (("rated-token", [200, 200, 429, 429]), ("operator-token", [200, 200, 429, 429])):
        codes = []
        for number in range(4):
            body = b"{" if number == 3 else b'{"inputs": [[1, 2, 3, 4]], "key": "%d"}' % number
            headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
            codes.append((await client.post("/predict/rated-locked", content=body, headers=headers)).status_code)
        assert codes == expected
    assert (await client.post("/predict/rated-locked", json=ROW)).status_code == 401
    assert stage.observer.rejections == [("rated-locked", "rate-limit")] * 4


async def test_two_spellings_of_the_same_numbers_meet_the_same_answer(client: httpx.AsyncClient, stage: Stage) -> None:
    """The key is what the version would see; the answers differ in nothing but their own ids."""
    first = (await client.post("/predict/kept", json={**ROW, "id": "a"})).json()
    spelled = b'{ "inputs" : {"x": [[1.0, 2e0, 3.000, 40e-1]]} }'
    second = (await client.post("/predict/kept", content=spelled, headers={"content-type": "application/json"})).json()
    row = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [[1, 2, 3, 4]]}]}
    third = (await client.post("/v2/models/kept/infer", json=row)).json()

    assert first.pop("id") == "a"
    assert first.pop("decision") != second.pop("decision")
    assert first == second
    assert second["reason"] == "split"
    assert third["outputs"][0]["data"] == [1.0, 2.0, 3.0, 4.0]
    assert stage.observer.cache_outcomes == [("kept", "miss"), ("kept", "hit"), ("kept", "hit")]
    assert [record.code for record in stage.observer.requests[-3:]] == [200] * 3


async def test_a_request_that_wants_no_kept_answer_says_so(client: httpx.AsyncClient, stage: Stage) -> None:
    """Cache-Control, as everywhere else."""
    for _ in range(2):
        await client.post("/predict/kept", json=ROW, headers={"cache-control": "no-cache"})
    assert stage.observer.cache_outcomes == [("kept", "bypass")] * 2


async def test_a_kept_binary_answer_is_written_like_any_other(client: httpx.AsyncClient) -> None:
    """Read-only arrays go through every writer."""
    body = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}],
        "parameters": {"binary_data_output": True},
    }
    answers = [(await client.post("/v2/models/kept/infer", json=body)).content for _ in range(2)]
    assert answers[0][-16:] == answers[1][-16:] == b"\0\0\x80?\0\0\0@\0\0@@\0\0\x80@"


async def test_many_equal_requests_at_once_are_one_row_for_the_version(client: httpx.AsyncClient, stage: Stage) -> None:
    """As a burst of readers of the same page is."""
    before = len(stage.observer.batches)
    answers = await asyncio.gather(*(client.post("/predict/kept", json=ROW) for _ in range(64)))
    assert {answer.status_code for answer in answers} == {200}
    assert [record.rows for record in stage.observer.batches[before:]] == [1]
    outcomes = [outcome for _, outcome in stage.observer.cache_outcomes]
    assert outcomes.count("miss") == 1
    assert outcomes.count("hit") + outcomes.count("joined") == 63


@pytest.mark.parametrize("flood", [{"key": "flood"}, {}], ids=["by key", "by address"])
async def test_a_client_that_floods_waits_behind_itself(
    client: httpx.AsyncClient, stage: Stage, flood: Mapping[str, str]
) -> None:
    """Forty rows of one client are waiting when one of another comes: it goes into the next batch but one."""
    seen: list[float] = []

    def model(inputs: Arrays) -> Arrays:
        seen.extend(inputs["x"][:, 0].tolist())
        return {"y": inputs["x"]}

    def ask(value: float, **named: str) -> asyncio.Task[httpx.Response]:
        return asyncio.create_task(client.post("/predict/slow", json={"inputs": [[value] * 4], **named}))

    stage.slow.model = model
    gate = stage.slow.hold()
    asking = [ask(0.0, **flood) for _ in range(40)]
    await until(lambda: stage.dataplane.inflight == 40)
    asking.append(ask(1.0, key="calm"))
    await until(lambda: stage.dataplane.inflight == 41)
    gate.set()
    assert {answer.status_code for answer in await asyncio.gather(*asking)} == {200}
    assert seen.index(1.0) < 16


def test_on_the_wire_a_client_without_a_key_is_its_address(served: ServedStage) -> None:
    """Over as many connections as it likes."""
    codes = [httpx.post(f"{served.url}/predict/rated", json=ROW, timeout=60).status_code for _ in range(3)]
    assert codes == [200, 200, 429]
    keyed = httpx.post(f"{served.url}/predict/rated", json={**ROW, "key": "ann"}, timeout=60)
    assert (keyed.status_code, keyed.json()["outputs"]) == (200, {"y": [[1.0, 2.0, 3.0, 4.0]]})
