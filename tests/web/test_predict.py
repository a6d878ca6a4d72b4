"""POST /predict: answers, headers, errors, and the one record of each request."""

from __future__ import annotations

import gzip
import uuid
import zlib
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from gateway.codec.json_inputs import PredictEnvelope
from gateway.codec.limits import CodecLimits
from gateway.messages import NOTHING, Decision, InferResponse, Signature, VersionRef
from gateway.web.predict import PredictDialect
from tests.web.stage import Stage

ROW = {"inputs": [[1, 2, 3, 4]]}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("name", [None, "mine", 'with "quotes", \\ and \n', "übermäßig"])
def test_an_answer_is_the_text_of_one_object(name: str | None) -> None:
    """Byte for byte, though what most answers say alike is not written anew."""
    dialect = PredictDialect(CodecLimits())
    asked = PredictEnvelope([[1.5]], name, None, NOTHING, None, None, plain=True, limits=CodecLimits())
    decision = Decision("é", VersionRef("models", 7), 'rule:"a"', None, 1)
    outputs = {"y": np.array([[1.5, 2.0]], np.float32)}

    answer = dialect.write(asked, InferResponse(decision, outputs, Signature((), ()), 1, 0.0, 0.0), "a-decision")

    said = {"decision": "a-decision", "model": "models", "version": 7, "route": "é", "reason": 'rule:"a"'}
    whole = {**({} if name is None else {"id": name}), **said, "outputs": {"y": [[1.5, 2.0]]}}
    assert answer.body == orjson.dumps(whole)


async def test_a_prediction_names_decision_version_route_and_reason(client: httpx.AsyncClient, stage: Stage) -> None:
    """The envelope of the contract, and nothing else."""
    answer = await client.post("/predict", json={**ROW, "id": "mine"})

    assert answer.status_code == 200
    body = answer.json()
    decision = body.pop("decision")
    assert uuid.UUID(decision).version == 7
    assert body == {
        "id": "mine",
        "model": "digits",
        "version": 1,
        "route": "digits",
        "reason": "split",
        "outputs": {"y": [[1.0, 2.0, 3.0, 4.0]]},
    }
    assert answer.headers["x-decision-id"] == decision
    assert (answer.headers["x-model"], answer.headers["x-model-version"]) == ("digits", "1")
    record = stage.last()
    assert (record.code, record.rows, record.client_id, record.protocol) == (200, 1, "mine", "predict")
    assert record.decision_id == decision
    assert str(record.answered_by) == "digits/1"


async def test_a_route_is_named_by_its_path(client: httpx.AsyncClient) -> None:
    """Unbatched and text models, too."""
    answer = await client.post("/predict/alone", json={"inputs": [1, 2, 3]})
    assert answer.json()["outputs"] == {"w": [1.0, 2.0, 3.0]}

    answer = await client.post("/predict/words", json={"inputs": [["a", {"b64": "//4="}]]})
    assert answer.json()["outputs"] == {"echo": [["a", {"b64": "//4="}]]}


async def test_the_clients_request_id_and_trace_come_back(client: httpx.AsyncClient, stage: Stage) -> None:
    """The trace goes on under a span of our own."""
    answer = await client.post("/predict", json=ROW, headers={"x-request-id": "abc-1", "traceparent": TRACE})

    assert answer.headers["x-request-id"] == "abc-1"
    version, trace_id, span_id, flags = answer.headers["traceparent"].split("-")
    assert (version, trace_id, flags) == ("00", TRACE.split("-")[1], "01")
    assert span_id != TRACE.split("-")[2]
    record = stage.last()
    assert (record.trace_id, record.span_id, record.parent_span_id) == (trace_id, span_id, TRACE.split("-")[2])


@pytest.mark.parametrize("sent", ["x" * 129, "line\tbreak", "ünïcode", "", "a b", '"quoted"'])
async def test_a_request_id_that_is_unfit_is_replaced(client: httpx.AsyncClient, sent: str) -> None:
    """It stands in headers and logs, so only plain, short ones are repeated."""
    answer = await client.post("/predict", json=ROW, headers={"x-request-id": sent.encode()})

    assert answer.status_code == 200
    assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-timeout-ms", "0"),
        ("x-priority", "LOW"),
        ("x-model-version", "1.0"),
        ("x-context", "[]"),
        ("x-key", "k" * 2000),
    ],
)
async def test_a_header_that_does_not_fit_is_named_among_the_errors(
    client: httpx.AsyncClient, name: str, value: str
) -> None:
    """As a field of the body is: its name, what was expected, what came."""
    answer = await client.post("/predict", json=ROW, headers={name: value})

    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert error["field"] == name
    assert answer.json()["detail"] == f"{name}: expected {error['expected']}, got {error['got']}"


@pytest.mark.parametrize(
    "case",
    [
        ("/predict", b"{", {}, 400, "bad-request"),
        ("/predict", b"", {}, 400, "bad-request"),
        ("/predict", b'{"inputs": [[1,2,3]]}', {}, 422, "invalid-input"),
        ("/predict/nowhere", b"{}", {}, 404, "unknown-route"),
        ("/predict/", b"{}", {}, 404, "not-found"),
        ("/predict/digits/more", b"{}", {}, 404, "not-found"),
        ("/predict", b'{"inputs": [[1,2,3,4]]}', {"content-type": "text/plain"}, 415, "unsupported-content"),
        ("/predict", b'{"inputs": [[1,2,3,4]]}', {"content-type": "application/json; charset=utf-16"}, 415, ""),
        ("/predict", b'{"inputs": [[1,2,3,4]]}', {"content-encoding": "br"}, 415, "unsupported-content"),
        ("/predict", b'{"inputs": [[1,2,3,4]]}', {"content-encoding": "gzip"}, 400, "bad-request"),
        ("/predict", b" " * 2_000_000, {}, 413, "too-large"),
        ("/predict", b"[" * 100_000, {}, 413, "too-large"),
        ("/predict", b'{"inputs": [[1,2,3,4]]}', {"x-timeout-ms": "soon"}, 400, "bad-request"),
        ("/predict", b'{"inputs": [[1,2,3,4]]}', {"x-timeout-ms": "-5"}, 400, "bad-request"),
        ("/predict", b'{"inputs": [[1,2,3,4]]}', {"x-priority": "urgent"}, 400, "bad-request"),
        ("/predict", b'{"inputs": [[1,2,3,4]]}', {"x-model-version": "latest"}, 400, "bad-request"),
        ("/predict", b'{"inputs": [[1,2,3,4]]}', {"x-context": "{"}, 400, "bad-request"),
        ("/predict", b'{"inputs": [[1,2,3,4]]}', {"x-model-version": "2"}, 403, "forbidden"),
        ("/predict/pinned", b'{"inputs": [[1,2,3,4]]}', {"x-model-version": "2"}, 409, "quarantined"),
        ("/predict/pinned", b'{"inputs": [[1,2,3,4]]}', {"x-model-version": "7"}, 404, "unknown-version"),
        ("/predict/fussy", b'{"inputs": [[13,2,3,4]]}', {}, 422, "invalid-input"),
        ("/predict/fussy", b'{"inputs": [[666,2,3,4]]}', {}, 500, "model-error"),
        ("/predict/locked", b'{"inputs": [[1,2,3,4]]}', {}, 401, "unauthenticated"),
        ("/predict/locked", b"", {"authorization": "Basic abc"}, 401, "unauthenticated"),
        ("/predict/locked", b"", {"authorization": "Bearer wrong"}, 401, "unauthenticated"),
        ("/predict/locked", b"", {"authorization": "Bearer other-token"}, 403, "forbidden"),
    ],
)
async def test_errors_are_problem_details_and_are_recorded_once(
    client: httpx.AsyncClient, stage: Stage, case: tuple[str, bytes, dict[str, str], int, str]
) -> None:
    """Status, type and request id of each; one record, with as many starts as ends for known routes."""
    path, content, headers, status, kind = case
    answer = await client.post(path, content=content, headers={"content-type": "application/json", **headers})

    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.status_code == body["status"] == status
    assert kind in body["type"]
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == answer.headers["x-request-id"]
    assert len(stage.observer.requests) == 1
    record = stage.last()
    assert record.code == answer.status_code
    assert record.error
    assert stage.started == ([record.route] if record.route else [])


async def test_work_that_misses_its_deadline_ends_there(client: httpx.AsyncClient, stage: Stage) -> None:
    """By header or by parameter, whichever comes first; the answer is a 504 and marked as slow."""
    stage.slow.hold()
    for headers, parameters in (({"x-timeout-ms": "500"}, {"timeout": 40_000_000}), ({}, {"timeout": 500_000})):
        answer = await client.post("/predict/slow", json={**ROW, "parameters": parameters}, headers=headers)
        assert answer.status_code == 504
        assert answer.json()["type"].endswith("deadline-exceeded")
        assert stage.last().slow


async def test_bad_input_names_each_field(client: httpx.AsyncClient) -> None:
    """What was expected there and what came."""
    answer = await client.post("/predict", json={"inputs": {"x": [[1, 2, 3, 4], [1, 2, "c", 4]]}})

    assert answer.json()["errors"] == [
        {"field": "inputs.x[1][2]", "expected": "a number that FP32 can hold", "got": "the string 'c'"}
    ]
    assert answer.headers["x-model-version"] == "1"


async def test_a_problem_says_when_to_come_back_and_how_to_authenticate(client: httpx.AsyncClient) -> None:
    """Retry-After in whole seconds; WWW-Authenticate."""
    answer = await client.post("/predict/locked", json=ROW)
    assert answer.headers["www-authenticate"].startswith("Bearer")

    answer = await client.post("/v2/models/digits/versions/9/infer", json={"inputs": []})
    assert answer.status_code == 400
    row = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    answer = await client.post("/v2/models/digits/versions/9/infer", json={"inputs": [row]})
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_token_that_covers_the_route_opens_it(client: httpx.AsyncClient) -> None:
    """By role and by route; an operator's token covers all."""
    for token in ("locked-token", "operator-token"):
        answer = await client.post("/predict/locked", json=ROW, headers={"authorization": f"bearer {token}"})
        assert answer.status_code == 200


async def test_a_fallback_is_said_and_counted_for_the_chosen(client: httpx.AsyncClient, stage: Stage) -> None:
    """The client sees which version really answered."""
    answer = await client.post("/predict/falls", json=ROW)

    assert answer.status_code == 200
    assert (answer.json()["version"], answer.json()["reason"]) == (1, "fallback")
    record = stage.last()
    assert record.decision is not None
    assert (record.decision.version.number, record.chosen_failure) == (9, "VersionUnavailable")
    assert str(record.answered_by) == "digits/1"


async def test_a_pin_is_followed_where_the_route_allows_it(client: httpx.AsyncClient) -> None:
    """By header."""
    answer = await client.post("/predict/pinned", json=ROW, headers={"x-model-version": "1"})

    assert (answer.status_code, answer.json()["reason"]) == (200, "pin")


@pytest.mark.parametrize("version", ["1", "2"])
async def test_nan_and_infinities_leave_valid_json(client: httpx.AsyncClient, version: str) -> None:
    """Whatever the model says."""
    answer = await client.post("/predict/strange", json=ROW, headers={"x-model-version": version})

    assert answer.json()["outputs"] == {"y": [[None] * 4]}


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_compressed_bodies_are_read(client: httpx.AsyncClient, encoding: str, pack: Any) -> None:
    """And bombs are refused."""
    packed = pack(b'{"inputs": [[1,2,3,4]]}')
    answer = await client.post("/predict", content=packed, headers={"content-encoding": encoding})
    assert answer.json()["outputs"] == {"y": [[1.0, 2.0, 3.0, 4.0]]}

    bomb = pack(b" " * 50_000_000)
    answer = await client.post("/predict", content=bomb, headers={"content-encoding": encoding})
    assert (answer.status_code, "inflates past" in answer.json()["detail"]) == (413, True)


async def test_other_methods_are_refused_with_what_is_served(client: httpx.AsyncClient) -> None:
    """405 with Allow, also for what Starlette serves."""
    for path, allowed in (("/predict", "POST"), ("/predict/digits", "POST"), ("/readyz", "GET")):
        answer = await client.delete(path)
        assert answer.status_code == 405
        assert allowed in answer.headers["allow"]
        assert answer.json()["type"].endswith("method-not-allowed")
        assert answer.headers["x-request-id"] == answer.json()["request_id"]


async def test_while_draining_new_work_is_refused_and_readiness_is_gone(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    """503 with Retry-After; the process is still alive."""
    stage.dataplane.drain()

    answer = await client.post("/predict", json=ROW)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["type"].endswith("draining")
    assert stage.observer.rejections == [("digits", "draining")]
    assert (await client.get("/healthz")).status_code == 200
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.headers["retry-after"], ready.json()["draining"]) == (503, "1", True)
    assert (await client.get("/v2/health/ready")).status_code == 503


async def test_readiness_lists_routes_versions_and_what_is_degraded(client: httpx.AsyncClient) -> None:
    """A version that is missing does not make a route unready while another answers."""
    answer = await client.get("/readyz")

    body = answer.json()
    assert answer.status_code == 200
    assert body["routes"]["falls"]["ready"]
    assert body["routes"]["falls"]["versions"][1] == {
        "version": 9,
        "state": "absent",
        "ready": False,
        "reason": "not loaded here",
        "weight": 1,
        "quarantined": False,
    }
    assert "falls: version 9 is absent (not loaded here)" in body["degraded"]
