"""Opening the store that the settings name; and what a home keeps for the time when it cannot be opened."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from gateway.control.kept_rollbacks import KeptRollbacks
from gateway.control.overrides import Override
from gateway.control.redis_store import RedisStore
from gateway.control.store import Actor, AuditEntry, Change, DocumentKey
from gateway.control.store_access import last_state_path, open_for_serving, open_store, store_view
from gateway.errors import SettingsError, StoreRefused, StoreUnavailable
from gateway.settings import Settings, StoreSettings
from loadtests.redis_server import RedisServer

ENTRY = AuditEntry("olga", "route-update", "route/digits")
ROUTE = DocumentKey("route", "digits")


def settings_of(home: Path, server: RedisServer, **changes: object) -> Settings:
    values = {"url": server.url, "prefix": f"test-{uuid4().hex}", "deadline_ms": 60_000, **changes}
    return Settings(home=home, store=StoreSettings.model_validate(values))


async def test_a_replica_starts_from_its_last_state_while_redis_is_away(tmp_path: Path) -> None:
    """A fresh home has nothing to start from, and says so; nobody else's commands make an empty store of the home."""
    with RedisServer(tmp_path / "redis") as server:
        settings = settings_of(tmp_path / "home", server)
        opened = await open_for_serving(settings)
        assert opened.last is None
        assert isinstance(opened.store, RedisStore)
        await opened.store.commit([Change(ROUTE, {"n": 1}, 0)], ENTRY)
        await opened.store.snapshot()
        await opened.store.close()
        server.stop()
        again = await open_for_serving(settings)
        assert again.last is not None
        assert again.last.documents[ROUTE].body == {"n": 1}
        with pytest.raises(StoreUnavailable, match="is it running"):
            await again.store.snapshot()
        await again.store.close()
        with pytest.raises(StoreUnavailable, match="is it running"):
            await open_for_serving(settings.model_copy(update={"home": tmp_path / "fresh"}))
        with pytest.raises(SettingsError, match=r"replica whose store is a Redis.*TURNOUT_STORE__URL"):
            await open_store(Settings(home=tmp_path / "home"))
        assert not (tmp_path / "home" / "store.sqlite3").exists()


async def test_a_home_whose_last_state_is_damaged_makes_no_new_store(redis_server: RedisServer, tmp_path: Path) -> None:
    """It served from that store once: an empty Redis is not taken for a first start. A Redis with its data is."""
    settings = settings_of(tmp_path, redis_server)
    store = (await open_for_serving(settings)).store
    assert isinstance(store, RedisStore)
    await store.commit([Change(ROUTE, {"n": 1}, 0)], ENTRY)
    await store.snapshot()
    last_state_path(tmp_path).write_bytes(b"half of")
    again = (await open_for_serving(settings)).store
    assert (await again.snapshot()).revision == 1
    await again.close()
    last_state_path(tmp_path).write_bytes(b"half of")
    await store.line.command("DEL", store.line.key("state"))
    with pytest.raises(StoreUnavailable, match="is empty, and the last state in the home, which is damaged"):
        await open_for_serving(settings)
    assert not await store.line.command("EXISTS", store.line.key("state"))
    await store.close()


async def test_a_command_believes_the_store_no_more_than_the_homes_gateway(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """What the gateway has seen counts for commands on its home; they leave the file to it."""
    settings = settings_of(tmp_path, redis_server)
    serving = (await open_for_serving(settings)).store
    await serving.commit([Change(ROUTE, {"n": 1}, 0)], ENTRY)
    await serving.snapshot()
    kept = last_state_path(tmp_path).read_bytes()
    command = await open_store(settings)
    assert (await store_view(command))["durable"] == "always"
    await command.commit([Change(ROUTE, {"n": 2}, 1)], ENTRY)
    assert last_state_path(tmp_path).read_bytes() == kept
    await command.close()
    assert isinstance(serving, RedisStore)
    await serving.line.command("DEL", serving.line.key("state"))
    with pytest.raises(StoreRefused, match="empty"):
        await open_store(settings)
    await serving.close()


async def test_the_password_comes_from_a_file_and_is_shown_nowhere(tmp_path: Path) -> None:
    """Nor when it is wrong; a file that is missing is named."""
    (tmp_path / "password").write_text("open sesame\n", encoding="utf-8")
    with RedisServer(tmp_path / "redis", options=("--requirepass", "open sesame")) as server:
        settings = settings_of(tmp_path / "home", server, password_file=tmp_path / "password")
        store = await open_store(settings)
        assert (await store.snapshot()).revision == 0
        assert "sesame" not in repr(store) + repr(settings)
        await store.close()
        wrong = settings_of(tmp_path / "home", server, password="closed")
        assert "closed" not in repr(wrong)
        with pytest.raises(StoreUnavailable, match="password_file") as told:
            await open_store(wrong)
        assert "closed" not in str(told.value)
        with pytest.raises(SettingsError, match=r"store\.password_file: .*nowhere cannot be read"):
            await open_store(settings_of(tmp_path / "home", server, password_file=tmp_path / "nowhere"))


async def test_rollbacks_that_are_not_stored_are_kept_until_they_are(tmp_path: Path) -> None:
    """Whole, in the order they were made; a line that was damaged spoils no other."""
    kept = KeptRollbacks(tmp_path)
    entry = AuditEntry(Actor("olga", "ab12"), "rollback", "route/digits", "incident", {"to": 1, "quarantined": [2]})
    first = ("digits", Override(1, "incident", "olga", 5.0, against=(2,)))
    second = ("iris", Override(3, "so", "guard:burst", 6.0))
    await kept.write({first: entry, second: entry})
    found = KeptRollbacks(tmp_path).read()
    assert found == {first: entry, second: entry}
    assert [each.token for each in found.values()] == ["ab12", "ab12"]
    path = tmp_path / "rollbacks-not-stored"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0][:-5], lines[1]]))
    again = KeptRollbacks(tmp_path)
    assert again.read() == {second: entry}
    await again.write({})
    assert not path.exists()
    (tmp_path / "in the way").write_text("", encoding="ascii")
    blocked = KeptRollbacks(tmp_path / "in the way")
    await blocked.write({first: entry})
    assert blocked.read() == {}
