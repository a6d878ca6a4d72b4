"""Tokens: 256 bits, kept as a hash, verified in memory; the first one is left in the home, for its owner only."""

from __future__ import annotations

import asyncio
import logging
import stat
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import Clock, ManualClock
from gateway.control.memory_store import MemoryStore
from gateway.control.replica import ReplicaAbsent
from gateway.control.token_control import TokenControl
from gateway.control.token_file import ADMIN_TOKEN_FILE
from gateway.control.tokens import Principal, Role, TokenRing, digest_of, mint
from gateway.errors import Conflict, Forbidden, InvalidInput, NotFound, SettingsError
from tests.control.scene import scene, until


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock=clock)


@pytest.fixture
def tokens(store: MemoryStore, clock: ManualClock) -> TokenControl:
    return alone(store, clock)


def alone(store: MemoryStore, clock: Clock) -> TokenControl:
    """Tokens as the command line has them, with no gateway in the process."""
    return TokenControl(store, ReplicaAbsent(store, clock), clock=clock)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


async def ring(store: MemoryStore, clock: ManualClock) -> TokenRing:
    made = TokenRing(clock)
    made.install((await store.snapshot()).documents.values())
    return made


def test_a_token_has_256_random_bits() -> None:
    """No two are alike, and only the hash is derived from it."""
    made = {mint() for _ in range(100)}
    assert len(made) == 100
    assert all(len(secret.removeprefix("turnout_")) >= 43 and digest_of(secret) == sha for secret, sha in made)


async def test_the_secret_is_in_the_answer_and_nowhere_else(
    store: MemoryStore, tokens: TokenControl, clock: ManualClock
) -> None:
    """Neither in the store, nor in the audit, nor in a list; its hash is not listed either."""
    made = await tokens.create("ci", "operator", actor="admin")
    secret = made["token"]
    assert secret not in repr(await store.snapshot())
    assert secret not in repr(await store.audit())
    listed = await tokens.list()
    assert [row["name"] for row in listed] == ["ci"]
    assert secret not in repr(listed)
    assert digest_of(secret) not in repr(listed)
    assert (await ring(store, clock)).verify(secret) == Principal("ci", Role.OPERATOR)


async def test_a_token_ends_when_it_is_revoked_rotated_or_expired(
    store: MemoryStore, tokens: TokenControl, clock: ManualClock
) -> None:
    """And an unknown one never was."""
    await tokens.create("root", "admin", actor="x")
    short = (await tokens.create("short", "viewer", actor="x", expires_in_s=60))["token"]
    old = (await tokens.create("ci", "viewer", actor="x", routes=["digits"]))["token"]
    found = await ring(store, clock)
    assert found.verify(short) is not None
    clock.advance(61)
    assert found.verify(short) is None
    fresh = (await tokens.rotate("ci", actor="x"))["token"]
    found = await ring(store, clock)
    assert found.verify(old) is None
    assert found.verify(fresh) == Principal("ci", Role.VIEWER, frozenset({"digits"}))
    await tokens.revoke("ci", actor="x")
    found = await ring(store, clock)
    assert found.verify(fresh) is None
    assert found.verify("") is None
    assert found.verify("\udc00") is None
    with pytest.raises(NotFound):
        await tokens.revoke("ci", actor="x")


async def test_the_last_admin_token_cannot_be_revoked(tokens: TokenControl) -> None:
    """One that is bound to a route, or expires before, does not count."""
    await tokens.create("root", "admin", actor="x")
    await tokens.create("bound", "admin", actor="x", routes=["digits"])
    with pytest.raises(Conflict, match="last one"):
        await tokens.revoke("root", actor="x")
    await tokens.create("second", "admin", actor="x")
    await tokens.revoke("root", actor="x")


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (("", "viewer", None, None), "name"),
        ((3, "viewer", None, None), "name"),
        (("a b", "viewer", None, None), "name"),
        (("a", "root", None, None), "role"),
        (("a", None, None, None), "role"),
        (("a", "viewer", "digits", None), "routes"),
        (("a", "viewer", [3], None), "routes"),
        (("a", "viewer", [], None), "routes"),
        (("a", "viewer", None, 0), "expires_in_s"),
        (("a", "viewer", None, True), "expires_in_s"),
        (("a", "viewer", None, float("nan")), "expires_in_s"),
    ],
)
async def test_what_does_not_fit_is_refused_by_field(tokens: TokenControl, asked: tuple[Any, ...], field: str) -> None:
    """Nothing is made of it."""
    name, role, routes, expires = asked
    with pytest.raises(InvalidInput) as caught:
        await tokens.create(name, role, actor="x", routes=routes, expires_in_s=expires)
    assert caught.value.problems[0].field == field
    assert await tokens.list() == []


async def test_a_name_is_taken_once(tokens: TokenControl) -> None:
    """Twenty at once: one is made."""
    results = await asyncio.gather(
        *(tokens.create("ci", "viewer", actor="x") for _ in range(20)), return_exceptions=True
    )
    assert sum(isinstance(result, dict) for result in results) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 19


def test_each_role_may_do_what_those_before_it_may() -> None:
    """And a token bound to routes nothing beyond them."""
    for index, role in enumerate(Role):
        for other, needed in enumerate(Role):
            assert Principal("p", role).may(needed) is (index >= other)
    bound = Principal("p", Role.OPERATOR, frozenset({"digits"}))
    bound.require(Role.OPERATOR, "digits")
    for call in (
        lambda: bound.require(Role.OPERATOR, "other"),
        lambda: bound.require(Role.ADMIN, "digits"),
        lambda: bound.require_everywhere(Role.VIEWER),
    ):
        with pytest.raises(Forbidden):
            call()


async def test_the_first_start_leaves_an_admin_token_for_its_owner_only(
    tmp_path: Path, store: MemoryStore, tokens: TokenControl, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Mode 0600, never in a log; a second start changes nothing."""
    caplog.set_level(logging.DEBUG)
    assert await tokens.bootstrap(tmp_path) is True
    path = tmp_path / ADMIN_TOKEN_FILE
    secret = path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (await ring(store, clock)).verify(secret) == Principal("admin", Role.ADMIN)
    assert secret not in caplog.text
    assert await tokens.bootstrap(tmp_path) is False
    assert path.read_text().strip() == secret
    assert names(tmp_path) == [ADMIN_TOKEN_FILE]


async def test_a_start_that_was_killed_between_file_and_store_is_made_good(
    tmp_path: Path, store: MemoryStore, tokens: TokenControl, clock: ManualClock
) -> None:
    """The file's token is the one that is stored."""
    secret = mint()[0]
    (tmp_path / ADMIN_TOKEN_FILE).write_text(secret + "\n")
    assert await tokens.bootstrap(tmp_path) is True
    assert (await ring(store, clock)).verify(secret) is not None


async def test_a_revoked_admin_token_does_not_come_back_with_the_next_start(
    tmp_path: Path, store: MemoryStore, tokens: TokenControl, clock: ManualClock
) -> None:
    """Whatever stands in the file."""
    await tokens.bootstrap(tmp_path)
    secret = (tmp_path / ADMIN_TOKEN_FILE).read_text().strip()
    await tokens.create("olga", "admin", actor="admin")
    await tokens.revoke("admin", actor="olga")
    assert await tokens.bootstrap(tmp_path) is False
    assert (await ring(store, clock)).verify(secret) is None


async def test_two_first_starts_at_once_agree_on_one_token(
    tmp_path: Path, store: MemoryStore, clock: ManualClock
) -> None:
    """One file, one document, both of the same secret."""
    await asyncio.gather(*(alone(store, clock).bootstrap(tmp_path) for _ in range(5)))
    secret = (tmp_path / ADMIN_TOKEN_FILE).read_text().strip()
    assert (await ring(store, clock)).verify(secret) is not None
    assert len(await store.history(next(iter((await store.snapshot()).documents)))) == 1


async def test_an_admin_token_file_that_holds_none_is_said(tmp_path: Path, tokens: TokenControl) -> None:
    """An empty file must not become an empty password."""
    (tmp_path / ADMIN_TOKEN_FILE).write_text("\n")
    with pytest.raises(SettingsError, match="remove the file"):
        await tokens.bootstrap(tmp_path)


async def test_a_token_made_elsewhere_is_known_here_without_asking_the_store_per_call(tmp_path: Path) -> None:
    """The ring is fed by snapshots; it goes on when the store is down."""
    store = MemoryStore()
    async with scene(tmp_path, store=store) as stage:
        made = await alone(store, stage.clock).create("ci", "viewer", actor="x")
        await until(lambda: stage.plane.ring.verify(made["token"]) is not None)
        store.fail("unplugged")
        await until(lambda: stage.stores.up[-1] is False)
        assert stage.plane.ring.verify(made["token"]) is not None


async def test_a_rotated_tokens_old_secret_is_good_for_the_grace_and_no_longer(
    store: MemoryStore, tokens: TokenControl, clock: ManualClock
) -> None:
    """Both stand for the same token meanwhile, each by its own id; a second rotation lengthens nothing, and one without
    a grace ends all that is left."""
    first = (await tokens.create("ci", "operator", actor="x", routes=["digits"]))["token"]
    made = await tokens.rotate("ci", actor="olga", grace_s=600)
    second = made["token"]
    assert made["old_until"] == clock.wall() + 600
    old, new = [(await ring(store, clock)).verify(secret) for secret in (first, second)]
    assert old == new == Principal("ci", Role.OPERATOR, frozenset({"digits"}))
    assert old is not None
    assert new is not None
    assert old.token_id != new.token_id
    assert digest_of(first) not in repr(await tokens.list())
    clock.advance(599)
    third = (await tokens.rotate("ci", actor="olga", grace_s=600))["token"]
    assert [(await ring(store, clock)).verify(s) is not None for s in (first, second, third)] == [True, True, True]
    clock.advance(1)
    assert [(await ring(store, clock)).verify(s) is not None for s in (first, second, third)] == [False, True, True]
    fourth = (await tokens.rotate("ci", actor="olga"))["token"]
    found = [(await ring(store, clock)).verify(s) is not None for s in (first, second, third, fourth)]
    assert found == [False, False, False, True]
    assert ["old_until" in row for row in await tokens.list()] == [False]


async def test_a_grace_does_not_outlive_the_token(store: MemoryStore, tokens: TokenControl, clock: ManualClock) -> None:
    """Nor a revocation; and a grace that is none is refused by its name."""
    await tokens.create("root", "admin", actor="x")
    first = (await tokens.create("ci", "viewer", actor="x", expires_in_s=60))["token"]
    await tokens.rotate("ci", actor="x", grace_s=600)
    clock.advance(60)
    assert (await ring(store, clock)).verify(first) is None
    second = (await tokens.create("cd", "viewer", actor="x"))["token"]
    await tokens.rotate("cd", actor="x", grace_s=600)
    await tokens.revoke("cd", actor="x")
    assert (await ring(store, clock)).verify(second) is None
    for grace in (-1, 31 * 86_400, "soon", True):
        with pytest.raises(InvalidInput, match="grace_s"):
            await tokens.rotate("ci", actor="x", grace_s=grace)


async def test_a_token_that_was_never_rotated_with_a_grace_is_stored_as_before(
    store: MemoryStore, tokens: TokenControl
) -> None:
    """The release before reads it; of one with a grace it ends the old secret at once."""
    await tokens.create("ci", "viewer", actor="x")
    await tokens.rotate("ci", actor="x")
    body = next(iter((await store.snapshot()).documents.values())).body
    assert body is not None
    assert "outgoing" not in body
    assert "old_until" not in body
