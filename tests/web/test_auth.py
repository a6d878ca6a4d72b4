"""Bearer tokens, checked by whatever verifier is given."""

from __future__ import annotations

import pytest

from gateway.control.tokens import Principal, Role
from gateway.errors import Forbidden, Unauthenticated
from gateway.web.auth import authenticate, authorise

OPERATOR = Principal("olga", Role.OPERATOR)


def knows_one(token: str) -> Principal | None:
    return OPERATOR if token == "one" else None


async def waits_for_one(token: str) -> Principal | None:
    return knows_one(token)


@pytest.mark.parametrize("verify", [knows_one, waits_for_one])
async def test_a_verifier_may_answer_at_once_or_later(verify: object) -> None:
    """And None means that the token is wrong."""
    assert await authenticate({"authorization": "Bearer one"}, verify) is OPERATOR  # type: ignore[arg-type]
    with pytest.raises(Unauthenticated):
        await authenticate({"authorization": "Bearer two"}, verify)  # type: ignore[arg-type]


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "one", "Basic one", "Bearer " + "x" * 600])
async def test_a_header_of_another_form_is_refused(header: str) -> None:
    """Before any verifier sees it."""
    with pytest.raises(Unauthenticated):
        await authenticate({"authorization": header}, knows_one)
    with pytest.raises(Unauthenticated):
        await authenticate({}, knows_one)


async def test_roles_are_ordered() -> None:
    """An operator may view, and may not administer."""
    headers = {"authorization": "Bearer one"}
    assert await authorise(headers, knows_one, Role.VIEWER) is OPERATOR
    with pytest.raises(Forbidden):
        await authorise(headers, knows_one, Role.ADMIN)
