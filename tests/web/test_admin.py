"""The admin plane over HTTP: roles, revisions, errors, uploads; on scripted versions behind the real application."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from gateway.clock import SystemClock
from gateway.control.memory_store import MemoryStore
from gateway.control.tokens import digest_of
from gateway.errors import LoadError
from gateway.web.admin import AdminPlane
from gateway.web.admin_repository import ControlRepository
from gateway.web.admin_upload import Uploads
from gateway.web.application import Application, build_application
from gateway.web.openapi import describe_api
from gateway.web.services import Repository, Services
from gateway.web.statistics import ModelStatistics
from tests.control.scene import MODEL, Scene, scene

SPEC = {"model": MODEL, "split": [{"version": 1, "weight": 90}, {"version": 2, "weight": 10}]}
SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": ["batch", 4]}],
}


class Admin:
    """A client with a token of each role, and the plane behind it."""

    def __init__(self, stage: Scene, admin: AdminPlane, client: httpx.AsyncClient, sources: Path) -> None:
        self.stage = stage
        self.admin = admin
        self.client = client
        self.sources = sources
        self.tokens: dict[str, str] = {}

    async def call(
        self, method: str, path: str, body: Any = None, *, role: str | None = "admin", **request: Any
    ) -> httpx.Response:
        headers = dict(request.pop("headers", {}))
        if role is not None:
            headers["authorization"] = f"Bearer {self.tokens[role]}"
        if body is not None:
            request["json"] = body
        response = await self.client.request(method, f"/admin{path}", headers=headers, **request)
        if response.is_success:
            assert str(response.status_code) in self._described(method, response.url.path), "the description lacks it"
        return response

    def _described(self, method: str, path: str) -> Mapping[str, Any]:
        for template, operations in self.admin.paths().items():
            if method.lower() in operations and re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path):
                return dict(operations[method.lower()]["responses"])
        raise AssertionError(f"{method} {path} is not described")


@asynccontextmanager
async def admin_plane(tmp_path: Path, store: MemoryStore | None = None) -> AsyncIterator[Admin]:
    sources = tmp_path / "sources"
    sources.mkdir(parents=True)
    async with scene(tmp_path / "home", clock=SystemClock(), store=store) as stage:
        repository: Repository = ControlRepository(stage.plane.residents)
        services = Services(
            dataplane=stage.dataplane,
            observer=stage.observer,
            clock=stage.clock,
            verify=stage.plane.ring.verify,
            repository=repository,
            statistics=ModelStatistics(),
        )
        uploads = Uploads(tmp_path / "uploads", max_bytes=100_000)
        admin = AdminPlane(stage.plane, services, uploads=uploads, sources=[sources])
        application: Application = build_application(services, admin_routes=admin.routes(), admin_paths=admin.paths)
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            made = Admin(stage, admin, client, sources)
            for role in ("admin", "operator", "viewer", "predict"):
                made.tokens[role] = (await stage.plane.tokens.create(role, role, actor="test"))["token"]
            bound = await stage.plane.tokens.create("bound", "operator", actor="test", routes=["mine"])
            made.tokens["bound"] = bound["token"]
            yield made


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    async with admin_plane(tmp_path) as made:
        yield made


def problem(response: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """The problem details of a refusal, checked for shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["type"].endswith(kind)
    assert body["status"] == status
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["detail"]
    return body


async def test_a_route_lives_through_all_its_verbs(admin: Admin) -> None:
    """Put, get, weights, rollback, lift, history, restore, delete: each answers with the new view and its ETag."""
    made = await admin.call("PUT", "/routes/digits?wait=applied", SPEC, role="operator")
    assert (made.status_code, made.headers["location"]) == (201, "/admin/routes/digits")
    view = made.json()
    assert view["status"]["applied"] is True
    assert made.headers["etag"] == f'"{view["revision"]}"'
    assert (await admin.call("GET", "/routes/digits", role="viewer")).json() == view
    assert (await admin.call("GET", "/routes", role="viewer")).json() == {"routes": [view]}
    moved = (await admin.call("POST", "/routes/digits/weights?wait=applied", {"weights": {"2": 100}})).json()
    assert moved["status"]["split"] == [{"version": 2, "weight": 100}]
    assert (await admin.stage.predict()).answered_by == admin.stage.plane.reconciler.desired.routes["digits"].ref(2)
    back = (await admin.call("POST", "/routes/digits/rollback", {"reason": "bad"}, role="operator")).json()
    assert (back["durable"], back["status"]["known_good"]) == (True, 1)
    assert back["status"]["quarantined"]["2"]["reason"] == "bad"
    refused = await admin.call("POST", "/routes/digits/weights", {"weights": {"2": 5, "1": 95}})
    assert "quarantine" in problem(refused, 409, "quarantined")["detail"]
    problem(await admin.call("POST", "/routes/digits/rollback", {"to": 2}), 409, "quarantined")
    lifted = await admin.call("POST", "/routes/digits/lift", {"version": 2})
    assert lifted.json()["status"]["quarantined"] == {}
    history = (await admin.call("GET", "/routes/digits/history")).json()["history"]
    assert [row["revision"] for row in history] == sorted((row["revision"] for row in history), reverse=True)
    restored = await admin.call("POST", "/routes/digits/restore", {"revision": view["revision"]})
    assert restored.json()["spec"] == view["spec"]
    deleted = await admin.call("DELETE", "/routes/digits")
    assert deleted.json()["deleted"] is True
    problem(await admin.call("GET", "/routes/digits"), 404, "unknown-route")
    again = await admin.call("POST", "/routes/digits/restore", {"revision": view["revision"]})
    assert again.json()["spec"] == view["spec"]
    actors = {record.entry.actor for record in await admin.stage.store.audit()}
    assert {"admin", "operator"} <= actors


async def test_a_put_tells_a_route_that_is_new_from_one_that_was_there(admin: Admin) -> None:
    """201 with its place, then 200, changed or not (RFC 9110, 9.3.4); 201 again once it was deleted."""
    for spec, status, place in (
        (SPEC, 201, "/admin/routes/digits"),
        (SPEC, 200, None),
        ({**SPEC, "fallback": 1}, 200, None),
    ):
        made = await admin.call("PUT", "/routes/digits", spec)
        assert (made.status_code, made.headers.get("location")) == (status, place)
        assert made.headers["etag"] == f'"{made.json()["revision"]}"'
    await admin.call("DELETE", "/routes/digits")
    assert (await admin.call("PUT", "/routes/digits", SPEC)).status_code == 201
    assert set(admin.admin.paths()["/admin/routes/{route}"]["put"]["responses"]) >= {"200", "201"}


async def test_a_deleted_route_comes_back_with_its_last_quarantine(admin: Admin) -> None:
    """What was rolled back after the revision that is restored does not return by deleting the route first."""
    made = (await admin.call("PUT", "/routes/digits?wait=applied", SPEC)).json()
    back = (await admin.call("POST", "/routes/digits/rollback", {"reason": "bad"})).json()
    await admin.call("DELETE", "/routes/digits")
    refused = await admin.call("POST", "/routes/digits/restore", {"revision": made["revision"]})
    assert "version 2 is in quarantine" in problem(refused, 409, "quarantined")["detail"]
    again = (await admin.call("POST", "/routes/digits/restore", {"revision": back["revision"]})).json()
    assert list(again["status"]["quarantined"]) == ["2"]
    assert again["status"]["epoch"] >= back["status"]["epoch"]


async def test_if_match_decides_between_two_operators(admin: Admin) -> None:
    """The second who saw the same revision gets 412 and changes nothing; ``0`` and ``*`` mean a route that is new."""
    made = await admin.call("PUT", "/routes/digits", SPEC, headers={"if-match": '"0"'})
    etag = made.headers["etag"]
    problem(await admin.call("PUT", "/routes/digits", SPEC, headers={"if-none-match": "*"}), 412, "stale-revision")
    results = await asyncio.gather(
        *(
            admin.call("POST", "/routes/digits/weights", {"weights": {"1": number}}, headers={"if-match": etag})
            for number in range(1, 9)
        )
    )
    assert sorted(response.status_code for response in results) == [200] + [412] * 7
    for method, path, body in (
        ("PUT", "/routes/digits", SPEC),
        ("DELETE", "/routes/digits", None),
        ("POST", "/routes/digits/rollback", {}),
        ("POST", "/routes/digits/lift", {"version": 2}),
        ("POST", "/routes/digits/restore", {"revision": made.json()["revision"]}),
        ("PUT", "/models/digits/aliases/champion", {"version": 1}),
        ("POST", "/models/digits/versions/6/archive", None),
    ):
        response = await admin.call(method, path, body, headers={"if-match": '"9999"'})
        problem(response, 412, "stale-revision")
    problem(await admin.call("PUT", "/routes/digits", SPEC, headers={"if-match": "soon"}), 400, "bad-request")


async def test_if_match_of_any_revision_asks_for_a_document_that_is_there(admin: Admin) -> None:
    """``If-Match: *`` is false where there is nothing (RFC 9110, 13.1.1): it never makes a route that a typo names."""
    anything = {"if-match": "*"}
    found = problem(await admin.call("PUT", "/routes/digits", SPEC, headers=anything), 412, "stale-revision")
    assert "does not exist" in found["detail"]
    problem(await admin.call("GET", "/routes/digits"), 404, "unknown-route")
    await admin.call("PUT", "/routes/digits?wait=applied", SPEC)
    for method, path, body in (
        ("PUT", "/routes/digits", {**SPEC, "fallback": 1}),
        ("POST", "/routes/digits/weights", {"weights": {"1": 60, "2": 40}}),
        ("POST", "/routes/digits/rollback", {}),
        ("DELETE", "/routes/digits", None),
    ):
        response = await admin.call(method, path, body, headers=anything)
        assert response.status_code == 200, response.text


async def test_a_method_that_is_not_served_is_told_of_all_that_are(admin: Admin) -> None:
    """405 with every method of the path in ``Allow``, wherever several calls share one."""
    for path, described in admin.admin.paths().items():
        response = await admin.call("PATCH", path.removeprefix("/admin"), {})
        allowed = {*map(str.upper, described)} | ({"HEAD"} if "get" in described else set())
        assert response.status_code == 405
        assert response.headers["allow"] == ", ".join(sorted(allowed))


async def test_a_page_of_no_records_is_a_page_of_one(admin: Admin) -> None:
    """``limit=0`` of the audit log is no fault of the gateway, and a route's history with it no unknown route."""
    await admin.call("PUT", "/routes/digits", SPEC)
    for path, name in (("/audit", "records"), ("/routes/digits/history", "history")):
        page = await admin.call("GET", f"{path}?limit=0", role="viewer")
        assert (page.status_code, len(page.json()[name])) == (200, 1)


async def test_a_body_that_says_one_thing_twice_changes_nothing(admin: Admin) -> None:
    """Of equal keys a parser keeps the last: half of what was asked for would be lost without a word."""
    await admin.call("PUT", "/routes/digits", SPEC)
    headers = {"content-type": "application/json"}
    for method, path, content in (
        ("POST", "/routes/digits/weights", b'{"weights": {"1": 95, "1": 5, "2": 5}}'),
        ("PUT", "/routes/digits", b'{"model": "digits", "split": [{"version": 1, "weight": 1, "weight": 2}]}'),
    ):
        found = problem(await admin.call(method, path, content=content, headers=headers), 400, "bad-request")
        assert "a key twice" in found["detail"]
    assert (await admin.call("GET", "/routes/digits")).json()["spec"]["split"] == SPEC["split"]


CALLS: Mapping[str, list[tuple[str, str]]] = {
    "viewer": [
        ("GET", "/routes"),
        ("GET", "/routes/digits"),
        ("GET", "/routes/digits/history"),
        ("GET", "/routes/digits/explain"),
        ("GET", "/routes/digits/rollout"),
        ("GET", "/routes/digits/follow"),
        ("GET", "/routes/digits/rollouts"),
        ("GET", "/routes/digits/rollouts/last"),
        ("GET", "/models"),
        ("GET", "/catalogue"),
        ("GET", "/models/digits"),
        ("GET", "/models/digits/versions/1"),
        ("GET", "/versions"),
        ("GET", "/replicas"),
        ("GET", "/audit"),
        ("GET", "/audit/verify"),
        ("GET", "/audit/checkpoint"),
        ("GET", "/truth/digits"),
        ("GET", "/drift/digits"),
        ("GET", "/decisions"),
        ("GET", "/decisions/some-request"),
        ("GET", "/models/digits/versions/1/profiles"),
        ("GET", "/notifications"),
        ("GET", "/alarms"),
        ("GET", "/targets"),
        ("GET", "/models/digits/targets"),
        ("GET", "/models/digits/gates"),
        ("GET", "/models/digits/versions/1/gates"),
        ("GET", "/jobs"),
        ("GET", "/jobs/some-job"),
    ],
    "operator": [
        ("PUT", "/routes/digits"),
        ("POST", "/routes/digits/weights"),
        ("POST", "/routes/digits/rollback"),
        ("POST", "/routes/digits/lift"),
        ("POST", "/routes/digits/restore"),
        ("POST", "/routes/digits/rollout"),
        ("DELETE", "/routes/digits/rollout"),
        ("POST", "/routes/digits/rollout/promote"),
        ("POST", "/routes/digits/rollout/pause"),
        ("POST", "/routes/digits/rollout/resume"),
        ("POST", "/routes/digits/follow/again"),
        ("POST", "/models/digits/versions"),
        ("PUT", "/models/digits/aliases/a"),
        ("DELETE", "/models/digits/aliases/a"),
        ("POST", "/models/digits/versions/6/archive"),
        ("POST", "/models/digits/versions/1/profiles"),
        ("PUT", "/models/digits/versions/1/profiles"),
        ("PUT", "/models/digits/targets/staging"),
        ("DELETE", "/models/digits/targets/staging"),
        ("POST", "/models/digits/versions/1/gates"),
        ("POST", "/notifications/test"),
        ("DELETE", "/jobs/some-job"),
        ("POST", "/batch"),
    ],
    "admin": [
        ("POST", "/store/adopt"),
        ("POST", "/store/restore-from-replica"),
        ("DELETE", "/routes/digits"),
        ("PUT", "/models/digits/gates"),
        ("DELETE", "/models/digits/gates"),
        ("GET", "/tokens"),
        ("POST", "/tokens"),
        ("POST", "/tokens/viewer/rotate"),
        ("DELETE", "/tokens/viewer"),
        ("GET", "/secrets"),
        ("POST", "/secrets/refresh"),
    ],
}


async def test_every_call_asks_for_its_role(admin: Admin) -> None:
    """401 without a token or with a wrong one, 403 with too little; and the table here is the whole plane."""
    order = ["predict", "viewer", "operator", "admin"]
    served = {(method.upper(), path) for path, methods in admin.admin.paths().items() for method in methods}
    assert len(served) == sum(map(len, CALLS.values()))
    before = (await admin.stage.store.snapshot()).revision
    for needed, calls in CALLS.items():
        for method, path in calls:
            problem(await admin.call(method, path, role=None), 401, "unauthenticated")
            wrong = await admin.client.request(method, f"/admin{path}", headers={"authorization": "Bearer turnout_x"})
            assert problem(wrong, 401, "unauthenticated")
            assert wrong.headers["www-authenticate"].startswith("Bearer")
            for role in order[: order.index(needed)]:
                body = problem(await admin.call(method, path, role=role), 403, "forbidden")
                assert needed in body["detail"]
    assert (await admin.stage.store.snapshot()).revision == before


async def test_a_token_bound_to_a_route_reaches_that_route_only(admin: Admin) -> None:
    """Its own route, and in the list nothing else; neither models nor the audit."""
    assert (await admin.call("PUT", "/routes/digits", SPEC)).status_code == 201
    assert (await admin.call("PUT", "/routes/mine", SPEC, role="bound")).status_code == 201
    assert [row["route"] for row in (await admin.call("GET", "/routes", role="bound")).json()["routes"]] == ["mine"]
    for method, path in (("PUT", "/routes/digits"), ("GET", "/routes/digits"), ("GET", "/audit"), ("GET", "/models")):
        problem(await admin.call(method, path, role="bound"), 403, "forbidden")


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (("PUT", "/routes/digits", {"model": MODEL}), (422, "invalid-input", "split")),
        (("PUT", "/routes/digits", {**SPEC, "colour": 1}), (422, "invalid-input", "colour")),
        (("PUT", "/routes/digits", {**SPEC, "model": "nope"}), (422, "invalid-input", "model")),
        (("PUT", "/routes/-x", SPEC), (422, "invalid-input", "route")),
        (("PUT", "/routes/digits?wait=soon", SPEC), (400, "bad-request", "wait")),
        (("PUT", "/routes/digits?wait=applied&timeout_s=x", SPEC), (400, "bad-request", "timeout_s")),
        (("POST", "/routes/digits/weights", {}), (422, "invalid-input", "weights")),
        (("POST", "/routes/digits/weights", {"weights": {}}), (422, "invalid-input", "weights")),
        (("POST", "/routes/digits/weights", {"weights": {"1": "5"}}), (422, "invalid-input", "weights.1")),
        (("POST", "/routes/digits/weights", {"weights": {"1": -5}}), (422, "invalid-input", "weights.1")),
        (("POST", "/routes/digits/weights", {"weights": {"01": 5}}), (422, "invalid-input", "weights.01")),
        (("POST", "/routes/digits/weights", {"weights": {"²": 5}}), (422, "invalid-input", "weights.²")),
        (
            ("POST", "/routes/digits/weights", {"weights": {"1" * 5000: 5}}),
            (422, "invalid-input", "weights." + "1" * 40),
        ),
        (("POST", "/routes/digits/weights", {"weights": {"99": 5}}), (422, "invalid-input", "weights.99")),
        (("POST", "/routes/digits/weights", {"weights": {"1": 0}}), (422, "invalid-input", "split")),
        (("POST", "/routes/digits/weights", {"weight": {"1": 5}}), (422, "invalid-input", "weight")),
        (("POST", "/routes/digits/rollback", {"to": "1"}), (422, "invalid-input", "to")),
        (("POST", "/routes/digits/rollback", {"to": True}), (422, "invalid-input", "to")),
        (("POST", "/routes/digits/rollback", {"reason": 3}), (422, "invalid-input", "reason")),
        (("POST", "/routes/digits/rollback", {"to": 5}), (409, "conflict", None)),
        (("POST", "/routes/nope/rollback", {}), (404, "unknown-route", None)),
        (("POST", "/routes/digits/lift", {"version": 1}), (409, "conflict", None)),
        (("POST", "/routes/digits/restore", {"revision": 999}), (404, "not-found", None)),
        (("GET", "/routes/nope/history", None), (404, "unknown-route", None)),
        (("GET", "/models/nope", None), (404, "unknown-model", None)),
        (("GET", "/models/digits/versions/99", None), (404, "unknown-version", None)),
        (("GET", "/models/digits/versions/@nope", None), (404, "unknown-version", None)),
        (("PUT", "/models/digits/aliases/a", {"version": 99}), (404, "unknown-version", None)),
        (("POST", "/models/digits/versions/x/archive", None), (400, "bad-request", "version in the path")),
        (("POST", "/models/digits/versions/1/archive", None), (409, "conflict", None)),
        (("GET", "/audit?after=x", None), (400, "bad-request", "after")),
        (("POST", "/tokens", {"name": "a", "role": "king"}), (422, "invalid-input", "role")),
        (("POST", "/tokens", {"name": "viewer", "role": "viewer"}), (409, "conflict", None)),
        (("DELETE", "/tokens/nope", None), (404, "not-found", None)),
        (("DELETE", "/tokens/admin", None), (409, "conflict", None)),
        (("POST", "/models/digits/versions", {}), (422, "invalid-input", "source")),
        (("POST", "/models/digits/versions", {"source": "mlflow:x"}), (422, "invalid-registration", None)),
        (("POST", "/models/digits/versions", {"source": "file:/etc/passwd"}), (422, "invalid-registration", None)),
        (("POST", "/models/digits/versions", {"source": "file:x", "threads": 0}), (422, "invalid-input", "threads")),
        (("POST", "/models/digits/versions", {"source": "file:x", "verify": "no"}), (422, "invalid-input", "verify")),
        (("POST", "/models/digits/versions", {"source": "file:x", "colour": 1}), (422, "invalid-input", "colour")),
    ],
)
async def test_what_cannot_be_is_refused_with_its_field_and_changes_nothing(
    admin: Admin, call: tuple[str, str, Any], expected: tuple[int, str, str | None]
) -> None:
    """Problem details as the contract has them; never a 500; the state stays."""
    (method, path, body), (status, kind, field) = call, expected
    await admin.call("PUT", "/routes/digits?wait=applied", SPEC)
    before = (await admin.stage.store.snapshot()).revision
    found = problem(await admin.call(method, path, body), status, kind)
    assert (found["errors"][0]["field"] if field else found.get("errors")) == field
    assert (await admin.stage.store.snapshot()).revision == before


async def test_a_body_that_is_no_json_object_too_large_or_of_another_kind_is_refused(admin: Admin) -> None:
    """400, 413, 415."""
    headers = {"content-type": "application/json"}
    for content in (b"", b"{", b"[]", b"3", b'{"a": NaN}', b"\xff"):
        problem(await admin.call("PUT", "/routes/digits", content=content, headers=headers), 400, "bad-request")
    deep = b'{"model": "digits", "split": ' + b"[" * 900 + b"]" * 900 + b"}"
    problem(await admin.call("PUT", "/routes/digits", content=deep, headers=headers), 422, "invalid-input")
    large = b'{"model": "' + b"x" * 1_100_000 + b'"}'
    problem(await admin.call("PUT", "/routes/digits", content=large, headers=headers), 413, "too-large")
    yaml = await admin.call("PUT", "/routes/digits", content=b"model: x", headers={"content-type": "text/yaml"})
    problem(yaml, 415, "unsupported-content")


async def test_a_decision_is_explained_before_and_after_a_change_and_as_it_was(admin: Admin) -> None:
    """Which version a key gets and why; whom other weights would move; and the same for a past revision."""
    first = (await admin.call("PUT", f"/routes/{MODEL}?wait=applied", SPEC)).json()["revision"]
    path, asked = f"/routes/{MODEL}/explain", {"key": "ada"}
    now = (await admin.call("GET", path, params=asked, role="viewer")).json()
    assert (now["version"], now["reason"], now["epoch"], now["revision"]) == (1, "split", 1, first)
    assert now["interval"]["start"] <= now["place"] < now["interval"]["end"]
    assert now["applied"] is True
    view = (await admin.call("GET", path, params={**asked, "weights": "1=0,2=10,3=90"})).json()
    moves = [(move["from"], move["to"], round(move["share"], 6)) for move in view["change"]["moves"]]
    assert moves == [(1, 3, 0.9)]
    assert view["change"]["version"] == 3
    await admin.call("POST", f"/routes/{MODEL}/weights?wait=applied", {"weights": {"2": 10, "3": 90}})
    after = (await admin.call("GET", path, params=asked)).json()
    assert (after["version"], after["epoch"]) == (3, 2)
    then = (await admin.call("GET", path, params={**asked, "revision": str(after["revision"] - 1)})).json()
    assert (then["version"], then["epoch"], then["revision"]) == (1, 1, first)


async def test_an_explanation_takes_context_and_headers_as_a_request_does(admin: Admin) -> None:
    """Rules, the route's key, and a pin."""
    rules = [{"name": "staff", "if": {"==": [{"var": "group"}, "staff"]}, "use": 2}]
    await admin.call("PUT", f"/routes/{MODEL}", {**SPEC, "rules": rules, "key": "header:x-user-id", "pin": "allowed"})
    path = f"/routes/{MODEL}/explain"
    ruled = (await admin.call("GET", path, params={"context": '{"group": "staff"}'})).json()
    assert (ruled["version"], ruled["reason"]) == (2, "rule:staff")
    keyed = (await admin.call("GET", path, params={"header": "X-User-Id=ada"})).json()
    assert keyed["key"] == {"value": "ada", "from": "header:x-user-id"}
    pinned = await admin.call("GET", path, params=[("header", "x-user-id=ada"), ("header", "x-model-version=2")])
    assert pinned.json()["reason"] == "pin"


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({"kye": "ada"}, 400, "takes key, context, header, weights, revision"),
        ({"context": "{"}, 400, "not valid JSON"),
        ({"context": "[]"}, 400, "expected a JSON object"),
        ({"header": "x-user-id"}, 400, "expected name=value"),
        ({"header": "x-model-version=two"}, 400, "expected a whole number"),
        ({"weights": "1:80"}, 400, "expected name=value"),
        ({"weights": "1=80,1=20"}, 400, "twice"),
        ({"weights": "1=-1"}, 400, "expected a whole number"),
        ({"weights": "1=1", "revision": "1"}, 400, "leave one of them out"),
        ({"weights": "x=1"}, 422, "no version's number"),
        ({"weights": "99=1"}, 422, "no version 99"),
        ({"revision": "0"}, 404, "did not exist at revision 0"),
    ],
)
async def test_a_question_that_does_not_fit_is_refused_by_its_part(
    admin: Admin, query: dict[str, str], status: int, words: str
) -> None:
    """Nothing is guessed, nothing ignored."""
    await admin.call("PUT", f"/routes/{MODEL}", SPEC)
    response = await admin.call("GET", f"/routes/{MODEL}/explain", params=query)
    assert response.status_code == status
    assert words in response.json()["detail"]


async def test_a_route_that_is_gone_is_explained_as_it_was(admin: Admin) -> None:
    """404 now, and at the revision of its end; before that the answer of then."""
    revision = (await admin.call("PUT", f"/routes/{MODEL}", SPEC)).json()["revision"]
    gone = (await admin.call("DELETE", f"/routes/{MODEL}")).json()["revision"]
    path = f"/routes/{MODEL}/explain"
    assert (await admin.call("GET", path, params={"key": "ada"})).status_code == 404
    late = await admin.call("GET", path, params={"key": "ada", "revision": str(gone)})
    assert "deleted" in late.json()["detail"]
    then = await admin.call("GET", path, params={"key": "ada", "revision": str(revision)})
    assert then.json()["version"] == 1


async def test_wait_ends_when_the_version_failed_and_the_status_says_why(admin: Admin) -> None:
    """Bounded, and no need to wait for the bound."""
    admin.stage.script(3).every_load = LoadError("the file is odd")
    await admin.call("PUT", "/routes/digits?wait=applied", SPEC)
    body = {"weights": {"1": 50, "3": 50}}
    view = (await admin.call("POST", "/routes/digits/weights?wait=applied", body)).json()
    assert view["status"]["applied"] is False
    assert "the file is odd" in view["status"]["failed"]["3"]
    assert view["status"]["split"] == [{"version": 1, "weight": 50}, {"version": 3, "weight": 50}]


async def test_while_the_store_is_down_reads_answer_writes_are_refused_and_a_rollback_applies(tmp_path: Path) -> None:
    """503 with Retry-After for a write; 200 with ``durable`` false for the rollback."""
    store = MemoryStore()
    async with admin_plane(tmp_path, store) as admin:
        await admin.call("PUT", "/routes/digits?wait=applied", SPEC)
        store.fail("unplugged")
        refused = await admin.call("POST", "/routes/digits/weights", {"weights": {"1": 1}})
        problem(refused, 503, "store-unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await admin.call("GET", "/routes/digits")).json()["spec"] == SPEC
        back = await admin.call("POST", "/routes/digits/rollback", {"reason": "bad"})
        assert (back.status_code, back.json()["durable"]) == (200, False)
        assert admin.stage.arms() == {1: 100}


async def test_what_is_resident_and_who_changed_what_can_be_read(admin: Admin) -> None:
    """Versions with state, pid and queue; this replica; the audit in pages, and its proof."""
    await admin.call("PUT", "/routes/digits?wait=applied", SPEC)
    rows = (await admin.call("GET", "/versions")).json()["versions"]
    assert [(row["model"], row["version"], row["state"], row["ready"]) for row in rows] == [
        ("digits", 1, "active", True),
        ("digits", 2, "active", True),
    ]
    assert all(row["pid"] and row["memory_bytes"] and row["queue"]["items"] == 0 for row in rows)
    [replica] = (await admin.call("GET", "/replicas")).json()["replicas"]
    revision = (await admin.stage.store.snapshot()).revision
    assert (replica["revision"], replica["store_up"]) == (revision, True)
    first = (await admin.call("GET", "/audit?after=0&limit=2")).json()["records"]
    second = (await admin.call("GET", f"/audit?after={first[-1]['sequence']}&limit=1000")).json()["records"]
    assert [row["sequence"] for row in first + second] == list(range(1, revision + 1))
    assert (await admin.call("GET", "/audit?after=0&limit=2")).json()["next"] == 2
    assert (await admin.call("GET", f"/audit?after={revision - 1}")).json()["next"] is None
    newest = (await admin.call("GET", "/audit?limit=2")).json()["records"]
    assert [row["sequence"] for row in newest] == [revision - 1, revision]
    assert (await admin.call("DELETE", "/tokens/predict")).status_code == 200
    [ended] = (await admin.call("GET", f"/audit?after={revision}")).json()["records"]
    assert (ended["actor"], ended["token"]) == ("admin", digest_of(admin.tokens["admin"])[:16])
    second, revision = [*second, ended], revision + 1
    proof = (await admin.call("GET", "/audit/verify")).json()
    assert proof == {"ok": True, "records": revision, "head": second[-1]["digest"], "fault": None}


async def test_tokens_are_made_shown_once_rotated_and_revoked(admin: Admin) -> None:
    """The secret works at once, is not cached by anybody on the way, and ends when it is revoked."""
    made = await admin.call("POST", "/tokens", {"name": "ci", "role": "viewer", "routes": ["digits"]})
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    secret = made.json()["token"]
    assert secret not in (await admin.call("GET", "/tokens")).text
    rotated = (await admin.call("POST", "/tokens/ci/rotate")).json()["token"]
    assert rotated != secret
    admin.tokens["ci"] = secret
    problem(await admin.call("GET", "/routes", role="ci"), 401, "unauthenticated")
    admin.tokens["ci"] = rotated
    assert (await admin.call("GET", "/routes", role="ci")).status_code == 200
    assert (await admin.call("DELETE", "/tokens/ci")).json() == {"name": "ci", "revoked": True}
    problem(await admin.call("GET", "/routes", role="ci"), 401, "unauthenticated")


def parts(**files: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return list(files.items())


ARTIFACT = ("m.echo.json", json.dumps({"outputs": {"y": 1}}).encode())
SIGNED = ("signature.json", json.dumps(SIGNATURE).encode())
FIELDS = {"verify": "false", "tags": '{"team": "a"}', "max_rows": "8", "retry": "false"}


def _numpy_files() -> tuple[bytes, bytes]:
    """A header that claims a petabyte, and a small archive that unfolds into 80 MB."""
    endless, unfolding = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(endless, {"descr": "<f4", "fortran_order": False, "shape": (10**15,)})
    np.savez_compressed(unfolding, x=np.zeros((5_000_000, 4), np.float32))
    return endless.getvalue(), unfolding.getvalue()


ENDLESS, UNFOLDING = zip(("e.npy", "e.npz"), _numpy_files(), strict=True)


async def test_a_version_is_registered_by_upload(admin: Admin) -> None:
    """201 and its number; again 200 and the same; options and attachments arrive; nothing is left on the disk."""
    path = "/models/echo/versions"
    made = await admin.call("POST", path, data=FIELDS, files=parts(file=ARTIFACT, signature=SIGNED))
    assert made.status_code == 201, made.text
    again = await admin.call("POST", path, data=FIELDS, files=parts(file=ARTIFACT, signature=SIGNED))
    assert again.status_code == 200
    assert (again.json()["version"], again.json()["digest"]) == (1, made.json()["digest"])
    view = (await admin.call("GET", "/models/echo/versions/1")).json()
    assert view["tags"] == {"team": "a"}
    assert (view["manifest"]["runtime"]["max_rows"], view["manifest"]["effects"]["retry"]) == (8, False)
    assert [file["name"] for file in view["manifest"]["files"]] == ["m.echo.json"]
    assert list((admin.sources.parent / "uploads").iterdir()) == []


async def test_a_folder_is_uploaded_file_by_file(admin: Admin) -> None:
    """The file names are the names within the version, folders included."""
    files = [("file", ARTIFACT), ("file", ("data/words.txt", b"words")), ("signature", SIGNED)]
    fields = {**FIELDS, "entry": "m.echo.json"}
    made = await admin.call("POST", "/models/echo/versions", data=fields, files=files)
    assert made.status_code == 201, made.text
    view = (await admin.call("GET", "/models/echo/versions/1")).json()
    assert [file["name"] for file in view["manifest"]["files"]] == ["data/words.txt", "m.echo.json"]


@pytest.mark.parametrize("part", ["file", "source", "artifact"])
async def test_the_artifact_may_be_called_what_the_command_line_calls_it(admin: Admin, part: str) -> None:
    """``curl -F source=@model.onnx -F eval=@eval.json``: the other calls' words do as well."""
    evaluation = ("e.json", b'{"accuracy": 0.9}')
    files = [(part, ARTIFACT), ("signature", SIGNED), ("eval", evaluation)]
    made = await admin.call("POST", "/models/echo/versions", data=FIELDS, files=files)
    assert made.status_code == 201, made.text
    view = (await admin.call("GET", "/models/echo/versions/1")).json()
    assert view["manifest"]["evaluation"][0]["metric"] == "accuracy"


@pytest.mark.parametrize(
    ("files", "fields", "status", "kind"),
    [
        ([("signature", SIGNED)], {}, 422, "invalid-input"),
        ([("file", ("../../evil.echo.json", b"{}"))], {}, 400, "bad-request"),
        ([("file", ("/etc/evil.echo.json", b"{}"))], {}, 400, "bad-request"),
        ([("file", ARTIFACT), ("file", ARTIFACT)], {}, 400, "bad-request"),
        ([("file", ("a", b"x")), ("file", ("a/b", b"x"))], {}, 400, "bad-request"),
        ([("file", ARTIFACT), ("colour", ("c", b"x"))], {}, 400, "bad-request"),
        ([("file", ARTIFACT)], {"colour": "red"}, 422, "invalid-input"),
        ([("file", ARTIFACT)], {"threads": "many"}, 422, "invalid-input"),
        ([("file", ARTIFACT)], {"tags": "{"}, 422, "invalid-input"),
        ([("file", ARTIFACT)], {"tags": '{"a": 1}'}, 422, "invalid-input"),
        ([("file", ARTIFACT)], {"source": "file:/etc/passwd"}, 422, "invalid-input"),
        ([("file", ("big.echo.json", b"x" * 200_000))], {}, 413, "too-large"),
        ([("file", ARTIFACT)], {"device": "x" * 70_000}, 413, "too-large"),
        ([("file", ("model.xyz", b"x"))], {}, 422, "invalid-registration"),
        ([("file", ("x" * 256 + ".echo.json", b"x"))], {}, 400, "bad-request"),
        ([("file", ARTIFACT), ("lineage", ("l.yaml", b"notes: " + b"[" * 3000))], {}, 422, "invalid-registration"),
        ([("file", ARTIFACT), ("lineage", ("l.yaml", b"a: &a [1]\nb: *a"))], {}, 422, "invalid-registration"),
        ([("file", ARTIFACT), ("signature", SIGNED), ("example", ENDLESS)], {}, 422, "invalid-registration"),
        ([("file", ARTIFACT), ("signature", SIGNED), ("example", UNFOLDING)], {}, 422, "invalid-registration"),
    ],
)
async def test_an_upload_that_does_not_fit_is_refused_and_leaves_nothing(
    admin: Admin, files: Any, fields: dict[str, str], status: int, kind: str
) -> None:
    """Names that leave the folder, doubles, unknown parts, too much of anything."""
    response = await admin.call("POST", "/models/echo/versions", data={"verify": "false", **fields}, files=files)
    problem(response, status, kind)
    assert list((admin.sources.parent / "uploads").iterdir()) == []
    assert not (admin.sources.parent / "evil.echo.json").exists()
    problem(await admin.call("GET", "/models/echo"), 404, "unknown-model")


async def test_a_form_that_was_cut_short_registers_nothing(admin: Admin) -> None:
    """Every byte of the body came, but not the last boundary: the artifact may lack its end."""
    whole = httpx.Request("POST", "http://x", data={"verify": "false"}, files=parts(signature=SIGNED, file=ARTIFACT))
    content, headers = whole.read(), {"content-type": whole.headers["content-type"]}
    cut = content[: content.index(ARTIFACT[1]) + 10]
    refused = await admin.call("POST", "/models/echo/versions", content=cut, headers=headers)
    assert "last boundary" in problem(refused, 400, "bad-request")["detail"]
    assert list((admin.sources.parent / "uploads").iterdir()) == []
    made = await admin.call("POST", "/models/echo/versions", content=content, headers=headers)
    assert (made.status_code, made.json()["version"]) == (201, 1)


async def test_a_form_that_is_none_is_refused(admin: Admin) -> None:
    """No boundary, and bytes that are no form."""
    for kind, content in (("multipart/form-data", b"x"), ("multipart/form-data; boundary=b", b"nothing of the kind")):
        headers = {"content-type": kind}
        response = await admin.call("POST", "/models/echo/versions", content=content, headers=headers)
        problem(response, 400, "bad-request")


async def test_a_registration_may_be_a_job(admin: Admin) -> None:
    """202 and how far it is; what is wrong with the words is said at once, with the source by the job."""
    (admin.sources / ARTIFACT[0]).write_bytes(ARTIFACT[1])
    body = {"verify": False, "signature": SIGNATURE, "background": True}
    wrong = await admin.call("POST", "/models/echo/versions", {**body, "source": "file:/nowhere"})
    problem(wrong, 422, "invalid-registration")
    begun = await admin.call("POST", "/models/echo/versions", {**body, "source": f"file:{admin.sources / ARTIFACT[0]}"})
    assert (begun.status_code, begun.json()["kind"]) == (202, "import")
    job = (await admin.call("GET", f"/jobs/{begun.json()['id']}?wait_s=60")).json()
    assert (job["state"], job["result"]["version"], job["result"]["created"]) == ("done", 1, True)
    begun = await admin.call("POST", "/models/echo/versions", {**body, "source": "https://nobody.invalid/m.onnx"})
    job = (await admin.call("GET", f"/jobs/{begun.json()['id']}?wait_s=60")).json()
    assert job["state"] == "failed"
    assert "needs its digest" in job["problem"]["detail"]


async def test_an_upload_may_be_a_job_and_its_files_last_as_long(admin: Admin) -> None:
    """202 once all of it came; its files go when the job has ended, however. Refused words leave neither."""
    uploads, fields = admin.sources.parent / "uploads", {"verify": "false", "background": "true"}
    path, files = "/models/echo/versions", [("file", ARTIFACT), ("signature", SIGNED)]
    problem(await admin.call("POST", path, data={**fields, "background": "so"}, files=files), 422, "invalid-input")
    problem(await admin.call("POST", path, data={**fields, "colour": "red"}, files=files), 422, "invalid-input")
    assert list(uploads.iterdir()) == []
    for attachments, state in (([], "done"), ([("lineage", ("l.yaml", b"["))], "failed")):
        begun = await admin.call("POST", path, data=fields, files=[*files, *attachments])
        assert (begun.status_code, begun.json()["kind"]) == (202, "import")
        job = (await admin.call("GET", f"/jobs/{begun.json()['id']}?wait_s=60")).json()
        assert job["state"] == state, job
        async with asyncio.timeout(60):
            while list(uploads.iterdir()):  # noqa: ASYNC110 - a thread removes them
                await asyncio.sleep(0.01)
    seen = (await admin.call("GET", "/models/echo")).json()
    assert [row["number"] for row in seen["versions"]] == [1]


async def test_a_version_is_registered_from_a_folder_that_the_settings_allow_and_from_no_other(admin: Admin) -> None:
    """``file:`` inside it; not beside it, not through a link, not by dots."""
    (admin.sources / ARTIFACT[0]).write_bytes(ARTIFACT[1])
    outside = admin.sources.parent / "outside.echo.json"
    outside.write_bytes(ARTIFACT[1])
    (admin.sources / "link.echo.json").symlink_to(outside)
    body = {"verify": False, "signature": SIGNATURE, "tags": {"a": "b"}}
    for place in (outside, admin.sources / "link.echo.json", admin.sources / ".." / "outside.echo.json"):
        refused = await admin.call("POST", "/models/echo/versions", {**body, "source": f"file:{place}"})
        problem(refused, 422, "invalid-registration")
    body["source"] = f"file:{admin.sources / ARTIFACT[0]}"
    made = await admin.call("POST", "/models/echo/versions", body, role="operator")
    assert (made.status_code, made.json()["version"], made.json()["created"]) == (201, 1, True)
    seen = (await admin.call("GET", "/models/echo")).json()
    assert (seen["versions"][0]["tags"], seen["aliases"]) == ({"a": "b"}, {})


def test_uploads_that_a_killed_process_left_are_swept(tmp_path: Path) -> None:
    """At the start, and only those."""
    (tmp_path / "upload-x").mkdir()
    (tmp_path / "upload-x" / "file").write_bytes(b"x")
    (tmp_path / "kept").mkdir()
    Uploads(tmp_path, max_bytes=1).sweep()
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept"]


async def test_the_description_has_every_call_and_every_call_is_described(admin: Admin) -> None:
    """One table makes both."""
    paths = describe_api(admin.admin.paths())["paths"]
    for route in admin.admin.routes():
        methods = {method.lower() for method in getattr(route, "methods", ())} - {"head"}
        assert methods <= set(paths[getattr(route, "path", "")])
    served = (await admin.client.get("/openapi.json")).json()["paths"]
    assert set(admin.admin.paths()) <= set(served)
