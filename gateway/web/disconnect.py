"""Drops work whose client has left: a watch on the connection beside the work."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import Receive

from gateway.web.exchange import ClientLeft

__all__ = ["DisconnectWatch"]


class DisconnectWatch:
    """A context around the work. When the client leaves, the work is cancelled and the context raises ClientLeft.

    The watch begins ``after_s`` late: a timer that is cancelled costs a tenth of a task, and
    work that is done before needs no watching. A client that left earlier is noticed then.
    """

    __slots__ = ("_after_s", "_left", "_owner", "_receive", "_timer", "_watch")

    def __init__(self, receive: Receive, *, after_s: float) -> None:
        self._receive = receive
        self._after_s = after_s
        self._left = False
        self._owner: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watch: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<DisconnectWatch [{'left' if self._left else 'watching' if self._watch else 'waiting'}]>"

    def __enter__(self) -> None:
        self._owner = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(self._after_s, self._begin)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
        owner, self._owner = self._owner, None
        self._timer = self._watch = None  # a task that was cancelled knows its frame, and that knows us: a ring
        ours = self._left and isinstance(error, asyncio.CancelledError)
        if ours and owner is not None and owner.uncancel() == 0:
            raise ClientLeft from None  # with another cancellation pending, that one goes on

    def _begin(self) -> None:
        self._watch = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            continue
        self._left = True
        if self._owner is not None:
            self._owner.cancel()
