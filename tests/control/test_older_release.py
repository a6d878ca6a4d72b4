"""What the release before reads: documents have no key that it does not know, as long as nothing new is used."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.control.route_spec import RouteSpec
from gateway.control.tokens import Role, TokenDocument
from gateway.registry.catalogue import ModelDocument
from gateway.registry.standing import Standing, TargetState

DIGEST = "sha256:" + "1" * 64
ENTRY = {"number", "digest", "created_at", "tags", "notes", "archived", "gates"}
MODEL = {"schema", "name", "versions", "aliases", "notes", "next_number"}
ROUTE = {"model", "split"}
TOKEN = {"schema", "sha256", "name", "role", "routes", "created_at", "rotated_at", "expires_at"}
"""The keys that 0.1 had at first."""


def model() -> ModelDocument:
    return ModelDocument("digits").add_version(DIGEST, created_at=0.0)[0].set_alias("champion", 1)


def test_a_model_that_uses_nothing_new_is_written_as_before() -> None:
    """Registered, named, tagged: no key more."""
    body = model().with_tags(1, {"team": "a"})
    assert body.to_json().keys() == MODEL
    assert body.to_json()["versions"][0].keys() == ENTRY


@pytest.mark.parametrize("key", ["gates", "targets"])
def test_what_is_new_of_a_model_is_a_key_of_its_own(key: str) -> None:
    """Which a release that does not know it refuses by name, rather than lose it with its next write."""
    changed = {
        "gates": model().with_gates({"gates": []}),
        "targets": model().with_target("production", TargetState().promoted(Standing(1, 0.0, "olga"))),
    }[key]
    assert changed.to_json().keys() == MODEL | {key}
    assert ModelDocument.from_json(changed.to_json()) == changed


@pytest.mark.parametrize(("key", "value"), [("target", "production"), ("follow", "mlflow:models:/digits@champion")])
def test_what_is_new_of_a_route_is_left_out_where_it_is_not_used(key: str, value: Any) -> None:
    """A plain route is what it was."""
    plain = {"model": "digits", "split": [{"version": 1, "weight": 1}]}
    assert RouteSpec.parse(plain).to_json().keys() == ROUTE
    assert RouteSpec.parse({**plain, key: value}).to_json().keys() == ROUTE | {key}


def test_a_token_without_a_grace_is_written_as_before() -> None:
    """One with a grace has one key more, which nobody refuses."""
    token = TokenDocument("ci", "0" * 64, Role.VIEWER, None, 0.0, 0.0)
    assert token.rotated("1" * 64, 1.0).to_json().keys() == TOKEN
    assert token.rotated("1" * 64, 1.0, grace_s=60).to_json().keys() == TOKEN | {"outgoing"}
