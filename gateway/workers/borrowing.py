"""A worker's side of lending: asks the node for a channel to a version's child, and says which one hangs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.errors import LoadError
from gateway.messages import VersionRef
from gateway.serving.borrowed_engine import BorrowedEngine
from gateway.serving.engine import Engine, EngineFactory, EngineInfo, VersionSpec
from gateway.serving.inline_engine import InlineEngine
from gateway.workers.forms import info_from_json, reference_to_json
from gateway.workers.link import Link

__all__ = ["Borrower"]


class Borrower:
    """``factory`` makes this worker's engines: borrowed ones, and those of versions that run inline here, too."""

    def __init__(self, link: Link, holds: Callable[[VersionRef], int]) -> None:
        """``holds``: how many requests a version has waiting or running here."""
        self._link = link
        self._holds = holds
        self._requests = 0
        self._asked: dict[int, asyncio.Future[tuple[socket.socket, EngineInfo]]] = {}
        self._children: dict[VersionRef, int | None] = {}  # the child that was lent last

    def __repr__(self) -> str:
        return f"<Borrower [{len(self._children)} lent | {len(self._asked)} asked for]>"

    @property
    def factory(self) -> EngineFactory:
        return self._make

    def lent(self, message: Mapping[str, Any], fds: Sequence[int]) -> None:
        """The node's answer. Nobody may be waiting any more: then the channel is closed again."""
        channel = socket.socket(fileno=fds[0])
        asked = self._asked.pop(message["id"], None)
        if asked is None or asked.done():
            channel.close()
        else:
            asked.set_result((channel, info_from_json(message["info"])))

    def refused(self, message: Mapping[str, Any]) -> None:
        asked = self._asked.pop(message["id"], None)
        if asked is not None and not asked.done():
            asked.set_exception(LoadError(message["why"]))

    def _make(self, spec: VersionSpec, on_exit: Callable[[str], None]) -> Engine:
        if spec.placement == "inline":
            return InlineEngine(spec)  # whether it may is for the node to say, and it has
        return BorrowedEngine(spec, lambda: self._connect(spec.ref), on_exit, lambda: self._report_hung(spec.ref))

    async def _connect(self, ref: VersionRef) -> tuple[socket.socket, EngineInfo]:
        """A new channel. LoadError when the node has none to give."""
        self._requests += 1
        number = self._requests
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        gone = self._children.get(ref)
        self._link.send({"op": "borrow", "id": number, "ref": reference_to_json(ref), "gone": gone})
        try:
            channel, info = await asked
        finally:
            self._asked.pop(number, None)
        self._children[ref] = info.pid
        return channel, info

    def _report_hung(self, ref: VersionRef) -> None:
        pid, held = self._children.get(ref) or 0, self._holds(ref)
        self._link.send({"op": "hung", "ref": reference_to_json(ref), "pid": pid, "held": held})
