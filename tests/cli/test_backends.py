"""One contract, two implementations: the verbs over HTTP and the verbs on a home's files give the same."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from gateway.checkpoints import VerifyingKey
from gateway.cli.backend import Backend, Registration
from gateway.cli.http_backend import open_http
from gateway.cli.local_backend import open_local
from gateway.control.explain_question import Question
from gateway.errors import (
    Conflict,
    InvalidInput,
    InvalidRegistration,
    NotFound,
    Quarantined,
    StaleRevision,
    TurnoutError,
    UnknownModel,
    UnknownRoute,
    UnknownVersion,
)
from loadtests.live_gateway import LiveGateway
from tests.cli.conftest import echo_source

ROUTE_KEYS = {"route", "revision", "spec", "status"}
STATUS_KEYS = {"split", "known_good", "quarantined", "epoch", "revision", "durable"}
MODEL_KEYS = {"model", "name", "revision", "versions", "aliases", "notes"}
VERSION_KEYS = {"model", "version", "number", "digest", "created_at", "tags", "notes", "archived", "gates", "aliases"}
_names = itertools.count()


def no_steps(label: str, total: int, /):
    return lambda _: None


@pytest.fixture(params=["http", "local"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    if request.param == "local":
        async with open_local(tmp_path / "home") as local:
            yield local
        return
    live: LiveGateway = request.getfixturevalue("live")
    async with open_http(live.url, live.token) as remote:
        yield remote


@pytest.fixture
def model() -> str:
    """A model's name that no other test uses: the gateway is shared."""
    return f"model-{next(_names)}"


async def registered(backend: Backend, model: str, folder: Path, versions: int = 1, **options: Any) -> None:
    for number in range(1, versions + 1):
        source = echo_source(folder, f"{model}-{number}", outputs={"y": float(number)})
        found = await backend.register(Registration(model, str(source), **options), no_steps)
        assert found["version"] == number


async def routed(backend: Backend, model: str, folder: Path) -> str:
    """A route over three versions, all of them loaded where something loads them."""
    await registered(backend, model, folder, versions=3)
    split = [{"version": number, "weight": weight} for number, weight in ((1, 80), (2, 20), (3, 0))]
    await backend.put_route(model, {"model": model, "split": split, "known_good": 1}, expected=0)
    await settled(backend, model)
    return model


async def settled(backend: Backend, route: str) -> None:
    give_up = time.monotonic() + 100
    while (await backend.route(route))["status"].get("pending"):
        assert time.monotonic() < give_up, await backend.route(route)


async def test_registering_the_same_again_gives_the_same_version(backend: Backend, model: str, tmp_path: Path) -> None:
    """Number and digest; ``created`` tells the first time."""
    source = echo_source(tmp_path, delay_ms=1)
    first = await backend.register(Registration(model, str(source)), no_steps)
    again = await backend.register(Registration(model, str(source)), no_steps)
    assert {"model", "version", "digest", "created", "revision"} == first.keys() == again.keys()
    assert (first["version"], first["created"], again["version"], again["created"]) == (1, True, 1, False)
    assert first["digest"] == again["digest"]


async def test_everything_given_at_registration_is_in_the_version(backend: Backend, model: str, tmp_path: Path) -> None:
    """Options, tags and attachments travel the same way through both."""
    evaluation, lineage, example = (tmp_path / f"{name}.json" for name in ("evaluation", "lineage", "example"))
    evaluation.write_text('{"accuracy": 0.75}')
    lineage.write_text('{"author": "somebody", "code": {"commit": "abc"}}')
    example.write_text('{"inputs": {"x": [[1, 2, 3, 4]]}}')
    registration = Registration(
        model,
        str(echo_source(tmp_path)),
        evaluation=evaluation,
        lineage=lineage,
        example=example,
        tags={"team": "vision", "note": 'a "quoted" é'},
        device="cpu",
        threads=2,
        max_rows=8,
        retry=False,
    )
    await backend.register(registration, no_steps)
    version = await backend.version(model, "1")
    manifest = version["manifest"]
    assert version.keys() == VERSION_KEYS | {"manifest", "profiled"}
    assert version["tags"] == {"team": "vision", "note": 'a "quoted" é'}
    assert (manifest["runtime"]["device"], manifest["runtime"]["threads"], manifest["runtime"]["max_rows"]) == (
        "cpu",
        2,
        8,
    )
    assert manifest["effects"]["retry"] is False
    assert manifest["evaluation"][0]["value"] == 0.75
    assert manifest["lineage"]["author"] == "somebody"
    assert manifest["example"] is not None


async def test_a_lock_file_goes_along_and_what_it_refuses_is_said(backend: Backend, model: str, tmp_path: Path) -> None:
    """Its build may outlast a request: over HTTP it is a job, and the answer the same."""
    lock = tmp_path / "lock.txt"
    lock.write_text(f"numpy=={version('numpy')}\n")
    registration = Registration(model, str(echo_source(tmp_path)), environment=lock)
    first = await backend.register(registration, no_steps)
    assert (first["version"], first["created"]) == (1, True)
    assert (await backend.version(model, "1"))["manifest"]["environment"] is not None
    lock.write_text("numpy >= 1\n")
    with pytest.raises(TurnoutError, match="numpy >= 1"):
        await backend.register(registration, no_steps)


async def test_a_folder_is_registered_with_all_its_files(backend: Backend, model: str, tmp_path: Path) -> None:
    """Names within the folder are the names within the version."""
    folder = tmp_path / "source"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "words.txt").write_text("x" * 100_000)
    (folder / "empty.bin").touch()
    echo_source(folder)
    await backend.register(Registration(model, str(folder), entry="model.echo.json"), no_steps)
    files = {file["name"]: file["size_bytes"] for file in (await backend.version(model, "1"))["manifest"]["files"]}
    assert files == {"data/words.txt": 100_000, "empty.bin": 0, "model.echo.json": 2}


async def test_the_catalogue_lists_models_and_versions(backend: Backend, model: str, tmp_path: Path) -> None:
    """The same keys from both, and only these."""
    await registered(backend, model, tmp_path, versions=2)
    found = {row["name"]: row for row in await backend.models()}[model]
    assert found == await backend.model(model)
    assert found.keys() == MODEL_KEYS
    assert [(row["version"], row["number"]) for row in found["versions"]] == [(1, 1), (2, 2)]
    assert all(row.keys() < VERSION_KEYS for row in found["versions"])


async def test_versions_are_searched_and_models_paged_alike(backend: Backend, model: str, tmp_path: Path) -> None:
    """By the catalogue and by what manifests say; a wrong term is named."""
    await registered(backend, model, tmp_path, versions=2, tags={"team": model})
    await backend.set_alias(model, "champion", 2)
    terms = {"tag": [f"team={model}"], "format": ["echo"]}

    found = await backend.search(terms, limit=10, after=None)
    first = await backend.search(terms, limit=1, after=None)
    page = await backend.listed_models(limit=1000, after=None)

    assert [(row["model"], row["version"], row["aliases"]) for row in found["versions"]] == [
        (model, 1, []),
        (model, 2, ["champion"]),
    ]
    assert (first["next"], found["next"], found["unreadable"]) == (f"{model}/1", None, 0)
    (row,) = [row for row in page["models"] if row["name"] == model]
    assert (row["count"], row["newest"]["number"], row["aliases"]) == (2, 2, {"champion": 2})
    with pytest.raises(InvalidInput, match="metric: expected"):
        await backend.search({"metric": ["accuracy"]}, limit=10, after=None)


async def test_an_alias_names_a_version_until_it_is_dropped(backend: Backend, model: str, tmp_path: Path) -> None:
    """``@alias`` and a digest's prefix resolve; an aliased version cannot be archived."""
    await registered(backend, model, tmp_path, versions=2)
    assert (await backend.set_alias(model, "champion", 2))["aliases"] == {"champion": 2}
    version = await backend.version(model, "@champion")
    assert (version["version"], version["aliases"]) == (2, ["champion"])
    assert (await backend.version(model, "@" + version["digest"][:20]))["version"] == 2
    with pytest.raises(Conflict, match="champion"):
        await backend.archive(model, 2)
    await backend.drop_alias(model, "champion")
    with pytest.raises(UnknownVersion):
        await backend.version(model, "@champion")
    assert (await backend.archive(model, 2))["versions"][1]["archived"] is True


async def test_what_is_not_there_is_said_by_its_own_error(backend: Backend, model: str, tmp_path: Path) -> None:
    """Unknown model, version, route, token: each by name."""
    with pytest.raises(UnknownModel, match=model):
        await backend.model(model)
    with pytest.raises(UnknownRoute, match=model):
        await backend.route(model)
    with pytest.raises(UnknownRoute, match=model):
        await backend.rollback(model, to=None, reason="")
    await registered(backend, model, tmp_path)
    with pytest.raises(UnknownVersion, match="7"):
        await backend.version(model, "7")
    with pytest.raises(NotFound, match=model):
        await backend.revoke_token(model)


async def test_a_source_that_does_not_fit_is_refused(backend: Backend, model: str, tmp_path: Path) -> None:
    """In words of the registry, whether it was found here or over there."""
    (tmp_path / "model.txt").write_text("x")
    with pytest.raises(InvalidRegistration, match=r"model\.txt"):
        await backend.register(Registration(model, str(tmp_path / "model.txt")), no_steps)
    with pytest.raises(InvalidRegistration, match=r"gone\.onnx"):
        await backend.register(Registration(model, str(tmp_path / "gone.onnx")), no_steps)
    broken = echo_source(tmp_path, "broken", fail_load="no such luck")
    with pytest.raises(InvalidRegistration, match="no such luck"):
        await backend.register(Registration(model, str(broken)), no_steps)
    with pytest.raises(UnknownModel):
        await backend.model(model)


async def test_a_route_is_made_read_and_listed(backend: Backend, model: str, tmp_path: Path) -> None:
    """The same view from every verb."""
    route = await routed(backend, model, tmp_path)
    view = await backend.route(route)
    assert view.keys() == ROUTE_KEYS
    assert view["status"].keys() >= STATUS_KEYS
    assert view["spec"]["model"] == model
    assert [row["revision"] for row in await backend.routes() if row["route"] == route] == [view["revision"]]


async def test_a_stale_revision_is_refused(backend: Backend, model: str, tmp_path: Path) -> None:
    """Of a put, of weights, and of a delete."""
    route = await routed(backend, model, tmp_path)
    view = await backend.route(route)
    with pytest.raises(StaleRevision):
        await backend.put_route(route, view["spec"], expected=0)
    with pytest.raises(StaleRevision):
        await backend.weights(route, {1: 1}, expected=view["revision"] + 1)
    with pytest.raises(StaleRevision):
        await backend.delete_route(route, expected=view["revision"] + 1)
    assert (await backend.weights(route, {1: 1}, expected=view["revision"]))["revision"] > view["revision"]


async def test_a_spec_that_does_not_fit_names_its_fields(backend: Backend, model: str, tmp_path: Path) -> None:
    """Each with what was expected and what came."""
    await registered(backend, model, tmp_path)
    split = [{"version": 1, "weight": "5"}]
    with pytest.raises(InvalidInput) as failure:
        await backend.put_route(model, {"model": model, "split": split, "colour": 1}, expected=0)
    fields = {problem.field: problem.got for problem in failure.value.problems}
    assert fields == {"split[0].weight": "'5'", "colour": "1"}
    with pytest.raises(InvalidInput, match="version 9"):
        await backend.put_route(model, {"model": model, "split": [{"version": 9, "weight": 1}]}, expected=0)


async def test_a_rollback_quarantines_and_a_lift_ends_it(backend: Backend, model: str, tmp_path: Path) -> None:
    """Weights for a quarantined version are refused until then."""
    route = await routed(backend, model, tmp_path)
    view = await backend.rollback(route, to=None, reason="a test")
    assert view["durable"] is True
    assert {arm["version"]: arm["weight"] for arm in view["status"]["split"] if arm["weight"]} == {1: 100}
    assert set(view["status"]["quarantined"]) == {"2", "3"}
    assert view["status"]["quarantined"]["2"]["reason"] == "a test"
    with pytest.raises(Quarantined):
        await backend.weights(route, {2: 1}, expected=None)
    assert set((await backend.lift(route, 2))["status"]["quarantined"]) == {"3"}
    await backend.weights(route, {1: 1, 2: 1}, expected=None)
    with pytest.raises(Conflict):
        await backend.lift(route, 2)


async def test_a_decision_is_explained_alike(backend: Backend, model: str, tmp_path: Path) -> None:
    """With a key, a context, headers, other weights, and as of a revision."""
    route = await routed(backend, model, tmp_path)
    first = (await backend.route(route))["revision"]
    question = Question("ada", {"group": "ü"}, {"x-user-id": "bob"}, weights={"1": 20, "2": 80})
    view = await backend.explain(route, question)
    assert (view["reason"], view["epoch"], view["weights"]) == ("split", 1, {"1": 80, "2": 20})
    assert [(move["from"], move["to"]) for move in view["change"]["moves"]] == [(1, 2)]
    await backend.weights(route, {1: 20, 2: 80}, expected=None)
    assert (await backend.explain(route, Question("ada")))["version"] == view["change"]["version"]
    assert (await backend.explain(route, Question("ada", revision=first)))["epoch"] == 1
    with pytest.raises(UnknownRoute):
        await backend.explain("nowhere", question)


async def test_history_lists_every_document_and_restore_brings_one_back(
    backend: Backend, model: str, tmp_path: Path
) -> None:
    """Newest first; a restore is a new revision."""
    route = await routed(backend, model, tmp_path)
    first = (await backend.route(route))["revision"]
    second = (await backend.weights(route, {3: 1}, expected=None))["revision"]
    assert [entry["revision"] for entry in await backend.history(route)] == [second, first]
    restored = await backend.restore(route, first)
    assert restored["revision"] > second
    assert {arm["version"]: arm["weight"] for arm in restored["spec"]["split"]} == {1: 80, 2: 20, 3: 0}
    await backend.delete_route(route, expected=restored["revision"])
    with pytest.raises(UnknownRoute):
        await backend.route(route)


async def test_tokens_are_made_listed_rotated_and_revoked(backend: Backend, model: str) -> None:
    """The secret comes once; the list has none."""
    await backend.create_token(f"{model}-admin", "admin", routes=(), expires_in_s=None)
    made = await backend.create_token(model, "operator", routes=("digits",), expires_in_s=3600)
    assert (made["role"], made["routes"]) == ("operator", ["digits"])
    listed = {token["name"]: token for token in await backend.tokens()}[model]
    assert "token" not in listed
    assert listed["expires_at"] > listed["created_at"]
    assert (await backend.rotate_token(model))["token"] != made["token"]
    with pytest.raises(Conflict, match="already"):
        await backend.create_token(model, "viewer", routes=(), expires_in_s=None)
    with pytest.raises(InvalidInput, match="role"):
        await backend.create_token(f"{model}-x", "king", routes=(), expires_in_s=None)
    await backend.revoke_token(model)
    assert model not in {token["name"] for token in await backend.tokens()}


async def test_every_change_is_in_the_audit_log_which_proves_itself(
    backend: Backend, model: str, tmp_path: Path
) -> None:
    """Actor, action, subject and reason; pages by ``after``."""
    route = await routed(backend, model, tmp_path)
    await backend.rollback(route, to=None, reason="because")
    records = [record for record in await backend.audit(after=0, limit=1000) if record["subject"] == f"route/{route}"]
    assert [record["action"] for record in records] == ["route-create", "rollback"]
    assert records[-1]["reason"] == "because"
    assert records[-1]["actor"]
    assert [record["sequence"] for record in await backend.audit(after=records[-1]["sequence"] - 1, limit=1)] == [
        records[-1]["sequence"]
    ]
    assert (await backend.verify_audit())["ok"] is True
    signed = await backend.audit_checkpoint()
    opened = VerifyingKey.parse(signed["key"]).open(signed["checkpoint"])
    assert (opened.size, opened.head) == (signed["size"], signed["head"])
    assert opened.size >= records[-1]["sequence"]
