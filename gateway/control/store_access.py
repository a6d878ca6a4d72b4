"""Opening the store that the settings name, for a gateway or for a command."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

from gateway.clock import Clock, SystemClock
from gateway.control.coordination import Alone, Coordination
from gateway.control.coordination_redis import RedisCoordination
from gateway.control.durability import DURABLE_HERE, durability_of
from gateway.control.last_state import LastState
from gateway.control.redis_line import RedisAddress, RedisLine
from gateway.control.redis_store import RedisStore
from gateway.control.sqlite_store import SqliteStore
from gateway.control.store import Snapshot
from gateway.errors import SettingsError, StoreUnavailable
from gateway.live_secrets import LiveSecrets
from gateway.settings import SecretSource, Settings, StoreSettings

__all__ = [
    "AnyStore",
    "Opened",
    "coordination_for",
    "last_state_path",
    "open_for_serving",
    "open_store",
    "store_path",
    "store_view",
]

log = logging.getLogger("turnout.control")

AnyStore: TypeAlias = SqliteStore | RedisStore


@dataclass(frozen=True, slots=True)
class Opened:
    """``last``: what a replica serves from until the store answers; None: the store has to answer at once."""

    store: AnyStore
    last: Snapshot | None = None


def store_path(home: Path) -> Path:
    return home / "store.sqlite3"


def last_state_path(home: Path) -> Path:
    return home / "last-state"


def coordination_for(settings: Settings, store: AnyStore, clock: Clock) -> Coordination:
    if isinstance(store, RedisStore):
        return RedisCoordination(store.line, lease_s=settings.store.lease_s)
    return Alone(settings.home, clock)


async def open_store(settings: Settings, secrets: LiveSecrets | None = None) -> AnyStore:
    """For a command: the store, made if it is not there. What this home's gateway knows of a Redis counts, and is left
    to the gateway to write. ``secrets`` has its password, where it has one. Raises StoreUnavailable."""
    if settings.store.url is None:
        return await _sqlite(settings).open()
    store = _redis(settings, settings.store.url, secrets)
    known = LastState(last_state_path(settings.home)).read()
    if known is not None:
        store.believe(known)
    return await _opened(store, make=not _was_served(settings.home))


async def open_for_serving(settings: Settings, secrets: LiveSecrets | None = None) -> Opened:
    """For a gateway. A Redis that is away, or not believed, is no reason not to start once there is a last state.

    Raises StoreUnavailable.
    """
    if settings.store.url is None:
        return Opened(await _sqlite(settings).open())
    store = _redis(settings, settings.store.url, secrets, LastState(last_state_path(settings.home)))
    known = store.remember()
    if known is None:
        return Opened(await _opened(store, make=not _was_served(settings.home)))
    try:
        await store.open()
    except StoreUnavailable as error:
        log.error(
            "starting from the last state, revision %d, since the store cannot be used: %s", known.revision, error
        )
    return Opened(store, known.snapshot())


async def store_view(store: AnyStore) -> dict[str, Any]:
    """What kind of store it is, where, its revision, and whether what it acknowledges is durable."""
    revision = (await store.snapshot()).revision
    if isinstance(store, RedisStore):
        durability = await durability_of(store.line)
        return {"kind": "redis", "address": store.line.address, "revision": revision, **durability.to_json()}
    return {"kind": "local", "address": "", "revision": revision, **DURABLE_HERE.to_json()}


def _was_served(home: Path) -> bool:
    """There is a last state, though it cannot be read: an empty store is then no new one, and not to be believed."""
    return last_state_path(home).exists()


async def _opened(store: RedisStore, *, make: bool = True) -> RedisStore:
    try:
        return await store.open(make=make)
    except BaseException:
        await store.close()
        raise


def _sqlite(settings: Settings) -> SqliteStore:
    """Raises SettingsError for the home of a replica: an empty store in it would say that there are no versions."""
    if last_state_path(settings.home).exists():
        raise SettingsError(
            f"{settings.home} is the home of a replica whose store is a Redis: set store.url (TURNOUT_STORE__URL), or "
            f"name the gateway with TURNOUT_URL. To leave that Redis for good, remove {last_state_path(settings.home)}"
        )
    return SqliteStore(
        store_path(settings.home),
        busy_timeout_ms=settings.store.busy_timeout_ms,
        poll_s=settings.store.poll_ms / 1000,
    )


def _redis(settings: Settings, url: str, secrets: LiveSecrets | None, last: LastState | None = None) -> RedisStore:
    store = settings.store
    line = RedisLine(
        _address(store, url),
        prefix=store.prefix,
        deadline_s=store.deadline_ms / 1000,
        connect_s=store.connect_ms / 1000,
        password=_password(store, secrets or LiveSecrets(SystemClock())),
    )
    return RedisStore(line, last=last, poll_s=store.poll_ms / 1000)


def _address(store: StoreSettings, url: str) -> RedisAddress:
    parts = urlsplit(url)
    return RedisAddress(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 6379,
        database=int(parts.path.strip("/") or 0),
        username=unquote(parts.username) if parts.username else None,
        password=None if store.password is None else store.password.get_secret_value(),
        tls=parts.scheme == "rediss",
        tls_ca=store.tls_ca,
    )


def _password(store: StoreSettings, secrets: LiveSecrets) -> Callable[[], str] | None:
    """Where it may be rotated: in a file, or printed by a command. Raises SettingsError."""
    source, place = store.secret, "store.secret"
    if source is None and store.password_file is not None:
        source, place = SecretSource(file=store.password_file), "store.password_file"
    if source is None:
        return None
    kept = secrets.secret(source, place)
    return lambda: kept.text.strip()  # noqa: PLW0108 - the text of then
