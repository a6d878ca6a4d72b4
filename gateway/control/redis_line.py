"""The line to one Redis: every call has a deadline and is made once, and every error is told in our own words.

redis-py would try a call ten times, five seconds each, unless told otherwise; here it does not. Whoever asks again
knows better whether and when. A connection that Redis has closed meanwhile is noticed when it is taken from the pool.

redis-py is imported by the first line that is made: it takes 7 MB, and a gateway with a store of its own needs none.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from gateway.errors import StoreUnavailable

__all__ = ["Listening", "RedisAddress", "RedisLine", "Script"]

log = logging.getLogger("turnout.control")

CONNECTIONS = 16
_MEANING: Sequence[tuple[str, str]] = (
    ("AuthenticationError", "check store.secret (or store.password_file, TURNOUT_STORE__PASSWORD), and the user"),
    ("NoPermissionError", "give its user the rights that docs/operations.md names"),
    ("ReadOnlyError", "it is a read-only copy: name the primary in store.url"),
    ("BusyLoadingError", "it is reading its data from disk, and answers when it has"),
    ("OutOfMemoryError", "it has reached its maxmemory: raise it; eviction must be off (noeviction)"),
    ("MovedError", "it is a cluster whose slot is elsewhere: name the node that holds the prefix's slot"),
    ("TimeoutError", "it did not answer in time: is it stopped, overloaded, or cut off?"),
    ("ConnectionError", "is it running, and is store.url its address?"),
    ("OSError", "is it running, and is store.url its address?"),
)
"""By the name of a kind of error, redis-py's or Python's own; the first that fits says what to do next."""
_UNSURE = ". Whether the change was made, or will yet be, is not known: look before you make it again"


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where it is and how it is asked. ``repr`` and errors show ``str``, which has no password in it."""

    host: str = "127.0.0.1"
    port: int = 6379
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    tls_ca: Path | None = None

    def __str__(self) -> str:
        return f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}/{self.database}"


@dataclass(frozen=True, slots=True)
class Script:
    """Lua that Redis runs whole: nothing else happens between its lines."""

    text: str

    @property
    def sha1(self) -> str:
        return hashlib.sha1(self.text.encode("utf-8"), usedforsecurity=False).hexdigest()


class _Faults:
    """redis-py's kinds of error. ``denied`` are ConnectionErrors that another try would meet again."""

    def __init__(self, vendor: Any) -> None:
        self.connection: type[Exception] = vendor.ConnectionError
        self.no_script: type[Exception] = vendor.NoScriptError
        self.response: type[Exception] = vendor.ResponseError
        self.denied: tuple[type[Exception], ...] = (vendor.AuthenticationError, vendor.BusyLoadingError)
        self.any: tuple[type[Exception], ...] = (vendor.RedisError, OSError, TimeoutError)


@cache
def _faults() -> _Faults:
    return _Faults(importlib.import_module("redis.exceptions"))


class _Credentials:
    """What redis-py asks for user and password (its ``CredentialProvider``, by shape)."""

    def __init__(self, username: str | None, password: Callable[[], str]) -> None:
        self._username = username
        self._password = password

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self._password()
        return (password,) if self._username is None else (self._username, password)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()


def _credentials(address: RedisAddress, password: Callable[[], str] | None) -> dict[str, Any]:
    if password is None:
        return {"username": address.username, "password": address.password}
    return {"credential_provider": _Credentials(address.username, password)}


class RedisLine:
    """``prefix`` stands in braces before every key: a cluster then keeps them all in one slot.

    ``deadline_s`` is for one call, waiting for a free connection included; ``connect_s`` for reaching Redis.
    ``password``, where given, is asked at each connection, so that a rotated one counts from then on; Redis itself
    leaves the connections that it has.
    """

    def __init__(
        self,
        address: RedisAddress,
        *,
        prefix: str,
        deadline_s: float = 2.0,
        connect_s: float = 1.0,
        password: Callable[[], str] | None = None,
    ) -> None:
        self._address = address
        self._prefix = prefix
        self._deadline_s = deadline_s
        redis: Any = importlib.import_module("redis.asyncio")
        tls: dict[str, Any] = {}
        if address.tls:
            tls = {"connection_class": redis.SSLConnection, "ssl_ca_certs": address.tls_ca and str(address.tls_ca)}
        self._pool = redis.BlockingConnectionPool(
            max_connections=CONNECTIONS,
            timeout=deadline_s,
            host=address.host,
            port=address.port,
            db=address.database,
            **_credentials(address, password),
            socket_timeout=deadline_s,
            socket_connect_timeout=connect_s,
            socket_keepalive=True,
            retry=_once(),
            protocol=2,
            **tls,
        )
        self._client = redis.Redis.from_pool(self._pool)
        self._closed = False

    def __repr__(self) -> str:
        return f"<RedisLine {self._address} {self._prefix}>"

    @property
    def address(self) -> str:
        return str(self._address)

    @property
    def prefix(self) -> str:
        return self._prefix

    def key(self, *parts: str) -> str:
        return ":".join((f"{{{self._prefix}}}", *parts))

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[str | bytes | int] = (), *, once: bool = False
    ) -> Any:
        """What the script returns. StoreUnavailable: it may or may not have run. ``once``: never run a second time,
        as all others are when the connection turns out to have been closed since it was used last."""
        given = (*keys, *arguments)

        async def ask() -> Any:
            with _closed_line():
                try:
                    return await self._client.evalsha(script.sha1, len(keys), *given)
                except _faults().no_script:
                    return await self._client.eval(script.text, len(keys), *given)

        return await self._asked(ask, once=once)

    async def command(self, *words: str | bytes | int) -> Any:
        async def ask() -> Any:
            with _closed_line():
                return await self._client.execute_command(*words)

        return await self._asked(ask, once=False)

    async def _asked(self, ask: Callable[[], Awaitable[Any]], *, once: bool) -> Any:
        with self._explained(once=once):
            async with asyncio.timeout(self._deadline_s):
                try:
                    return await ask()
                except _faults().denied:
                    raise
                except _faults().connection:
                    if once:
                        raise
                    await self._pool.disconnect(inuse_connections=False)  # those that rest are as old as this one was
                    return await ask()

    async def setting(self, name: str) -> str | None:
        """A setting of the server; None where it may not be asked, as with managed ones."""
        try:
            found = await self.command("CONFIG", "GET", name)
        except StoreUnavailable as error:
            if isinstance(error.__cause__, _faults().response):
                return None
            raise
        if isinstance(found, dict):
            return _text(found.get(name) or found.get(name.encode()))
        return _text(found[1]) if len(found) > 1 else None

    @asynccontextmanager
    async def listening(self, channel: str) -> AsyncIterator[Listening]:
        """A connection of its own, subscribed to the channel."""
        subscription = self._client.pubsub(ignore_subscribe_messages=True)
        try:
            with self._explained(), _closed_line():
                async with asyncio.timeout(self._deadline_s):
                    await subscription.subscribe(channel)
            yield Listening(self, subscription)
        finally:
            with suppress(*_faults().any), _closed_line():
                async with asyncio.timeout(self._deadline_s):
                    await subscription.aclose()

    @contextmanager
    def _explained(self, *, once: bool = False) -> Iterator[None]:
        if self._closed:
            raise StoreUnavailable(f"the line to the store {self._address} is closed")
        try:
            yield
        except _faults().any as error:
            unsure = once and not isinstance(error, _faults().response)
            raise StoreUnavailable(self._explain(error) + (_UNSURE if unsure else "")) from error

    explained = _explained

    def _explain(self, error: Exception) -> str:
        kinds = {kind.__name__ for kind in type(error).__mro__}
        meaning = next((words for kind, words in _MEANING if kind in kinds), "see the server's own log")
        said = str(error) or type(error).__name__
        if said.startswith("MISCONF"):
            meaning = "it cannot write to its disk: free some space there; see the server's own log"
        return f"the store {self._address} cannot be used ({said:.300}): {meaning}"

    async def close(self) -> None:
        self._closed = True
        with suppress(*_faults().any), _closed_line():
            async with asyncio.timeout(self._deadline_s):
                await self._client.aclose(close_connection_pool=True)


class Listening:
    """Messages of one channel. One may be lost while the line is down: who listens looks for himself now and then."""

    def __init__(self, line: RedisLine, subscription: Any) -> None:
        self._line = line
        self._subscription = subscription

    async def heard(self, within_s: float) -> bool:
        """Whether a message came. Raises StoreUnavailable when the line broke."""
        with self._line.explained(), _closed_line():
            return await self._subscription.get_message(timeout=within_s) is not None


def _once() -> Any:
    """redis-py's way to say that a call is made once."""
    retry, backoff = importlib.import_module("redis.asyncio.retry"), importlib.import_module("redis.backoff")
    return retry.Retry(backoff.NoBackoff(), 0)


@contextmanager
def _closed_line() -> Iterator[None]:
    """uvloop says RuntimeError when something is written to a connection that the other side has reset."""
    try:
        yield
    except RuntimeError as error:
        raise _faults().connection(str(error)) from error


def _text(value: bytes | str | None) -> str | None:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
