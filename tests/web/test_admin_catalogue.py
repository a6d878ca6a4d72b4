"""The catalogue over HTTP: pages, searches, tags of what has not changed, and clients that know none of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.control.scene import MODEL
from tests.web.test_admin import Admin, admin_plane, problem


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    async with admin_plane(tmp_path) as running:
        yield running


async def test_a_client_that_asks_as_before_gets_what_it_got(admin: Admin) -> None:
    """Every model with every version, and no field more."""
    answer = await admin.call("GET", "/models")

    assert answer.json().keys() == {"models"}
    (model,) = answer.json()["models"]
    assert model.keys() == {"model", "name", "revision", "versions", "aliases", "notes"}
    assert model == (await admin.call("GET", f"/models/{MODEL}")).json()


async def test_an_answer_that_has_not_changed_is_not_sent_again(admin: Admin) -> None:
    """304 and nothing else, until a model changes; of lists, searches and single models."""
    for path in ("/models", "/models?limit=1&brief=true", "/catalogue?name=d", f"/models/{MODEL}"):
        first = await admin.call("GET", path)
        tag = first.headers["etag"]
        again = await admin.call("GET", path, headers={"if-none-match": f'"other", W/{tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        moved = (await admin.call("PUT", f"/models/{MODEL}/aliases/a", {"version": 1})).json()["revision"]
        assert moved
        anew = await admin.call("GET", path, headers={"if-none-match": tag})
        assert anew.status_code == 200
        assert anew.headers["etag"] != tag
        assert (await admin.call("DELETE", f"/models/{MODEL}/aliases/a")).status_code == 200


async def test_a_search_is_asked_by_its_query_and_wrong_terms_are_named(admin: Admin) -> None:
    """Versions in order, with what is needed to go on."""
    found = (await admin.call("GET", "/catalogue?limit=2&archived=any")).json()

    assert [row["version"] for row in found["versions"]] == [1, 2]
    assert found["next"] == f"{MODEL}/2"
    rest = (await admin.call("GET", f"/catalogue?after={found['next']}&limit=1")).json()
    assert [row["version"] for row in rest["versions"]] == [3]
    problem(await admin.call("GET", "/catalogue?metric=accuracy"), 422, "invalid-input")
    problem(await admin.call("GET", "/catalogue?colour=blue"), 422, "invalid-input")
    problem(await admin.call("GET", "/catalogue?after=x"), 400, "bad-request")
    problem(await admin.call("GET", "/models?colour=blue"), 400, "bad-request")
    problem(await admin.call("GET", "/models?brief=1"), 400, "bad-request")
    problem(await admin.call("GET", "/models?limit=-1"), 400, "bad-request")
