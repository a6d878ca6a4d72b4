"""The gateway's end of a line to the recorder: bursts go out, nobody waits for them, and what is lost is counted.

What has not been acknowledged is bounded in bytes, whether it still waits here or lies in the socket. Past the bound
bursts are dropped, and the recorder is told how many records that were as soon as there is room again. Records for
which somebody would rather refuse the request than have none are refused earlier, while there is still room for those
of the requests under way: see ``full``.
"""

from __future__ import annotations

import array
import asyncio
import socket
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from gateway.recording.frames import Down, Frames, Up, close_all, frame, pack, receive, unpack
from gateway.recording.parts import GAP

__all__ = ["LIMIT_BYTES", "Road", "RoadStatistics", "ignore"]

LIMIT_BYTES = 32 * 1024 * 1024
_FULL_SHARE = 0.5
_SEND_BYTES = 1024 * 1024

Heard = Callable[[int, bytes], None]


@dataclass(frozen=True, slots=True)
class RoadStatistics:
    """Records handed over and acknowledged, and dropped or lost by cause; bytes not acknowledged."""

    recorded: int
    lost: dict[str, int]
    held_bytes: int
    connected: bool


class _Frame(NamedTuple):
    """``body`` is kept of what must not be lost with a recorder that dies."""

    size: int
    records: int
    body: bytes | None = None


def ignore(_kind: int, _body: bytes) -> None:
    """Nobody listens yet."""


_Waiting = tuple[memoryview, _Frame | None, tuple[int, ...]]


class Road:
    """Used from the event loop. ``full`` is read for each request of a route that would rather refuse: the road is
    half full, or the recorder cannot keep what it gets."""

    def __init__(self, *, limit_bytes: int = LIMIT_BYTES, decisions: bool = False) -> None:
        """``decisions``: it leads to a decision log."""
        self.full = False
        self.decisions = decisions
        self.limit_bytes = limit_bytes
        self._socket: socket.socket | None = None
        self._heard: Heard = ignore
        self._ended: Callable[[], None] = lambda: None
        self._frames = Frames()
        # What waits to be sent, the descriptors that go with it, and whether it has begun to leave.
        self._unsent: deque[_Waiting] = deque()
        self._begun = False
        self._sent: deque[_Frame] = deque()
        self._held_bytes = 0
        self._writing = False
        self._kept_out = False
        self._recorded = 0
        self._lost: Counter[str] = Counter()
        # Of what is lost, that which the recorder has not been told of.
        self._untold: Counter[str] = Counter()
        self._clear = asyncio.Event()
        self._clear.set()

    def __repr__(self) -> str:
        state = "full" if self.full else "open" if self._socket is not None else "broken"
        return f"<Road [{state} | {self._held_bytes} bytes | {self._lost.total()} lost]>"

    def statistics(self) -> RoadStatistics:
        return RoadStatistics(self._recorded, dict(self._lost), self._held_bytes, self._socket is not None)

    # Out

    def offer(self, body: bytes, records: int) -> bool:
        """A burst; False when there is no room for it."""
        if self._held_bytes + len(body) > self.limit_bytes:
            self.lose(records, "full")
            self.full = True
            return False
        if self._untold:
            self._tell_gaps()
        self._put(frame(Down.BURST, body), _Frame(len(body), records))
        return True

    def tell(self, event: str, body: object, *, soon: bool = True) -> bool:
        """A control event. It outlives a recorder that dies, and has room where bursts have none, but not for ever:
        False. Not ``soon``: it leaves with what comes next. ValueError for what is not plain."""
        message = frame(Down.TOLD, pack((event, body)))
        if self._held_bytes + len(message) > 2 * self.limit_bytes:
            self._lost["events"] += 1
            return False
        self._put(message, _Frame(len(message), 0, message), soon=soon)
        return True

    def send(self, kind: Down, body: bytes = b"", fds: Sequence[int] = ()) -> None:
        """What is not acknowledged. The descriptors are the road's from now on, and closed once they are sent."""
        if self._socket is None:
            close_all(fds)
            return
        self._put(frame(kind, body), None, tuple(fds))

    def finish(self) -> None:
        """Nothing more comes: the recorder takes in what was sent, and ends."""
        if self._untold:
            self._tell_gaps()
        self.send(Down.END)

    def lose(self, records: int, cause: str) -> None:
        """Counts records that will not arrive; the recorder hears of it."""
        self._lost[cause] += records
        self._untold[cause] += records

    def _tell_gaps(self) -> None:
        untold, self._untold = self._untold, Counter()
        for cause, count in untold.items():
            if count:
                self.tell(GAP, {"count": count, "cause": cause})

    def _put(self, message: bytes, held: _Frame | None, fds: tuple[int, ...] = (), *, soon: bool = True) -> None:
        self._unsent.append((memoryview(message), held, fds))
        if held is not None:
            self._held_bytes += held.size
            self._weigh()
        self._clear.clear()
        if soon and self._socket is not None and not self._writing:
            self._flush()

    def _weigh(self) -> None:
        self.full = self._kept_out or self._held_bytes > self.limit_bytes * _FULL_SHARE

    def _flush(self) -> None:
        connection = self._socket
        if connection is None:
            return
        try:
            while self._unsent:
                self._send_first(connection)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._break()
            return
        self._watch_writable(connection, bool(self._unsent))

    def _send_first(self, connection: socket.socket) -> None:
        left, held, fds = self._unsent[0]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = connection.sendmsg([left], rights)
        close_all(fds)
        self._begun = sent < len(left)
        if self._begun:
            self._unsent[0] = (left[sent:], held, ())
            return
        self._unsent.popleft()
        if held is not None:
            self._sent.append(held)

    def _watch_writable(self, connection: socket.socket, wanted: bool) -> None:
        if wanted is not self._writing:
            self._writing = wanted
            loop = asyncio.get_running_loop()
            if wanted:
                loop.add_writer(connection, self._flush)
            else:
                loop.remove_writer(connection)

    # The line

    def connect(self, connection: socket.socket, heard: Heard, ended: Callable[[], None]) -> None:
        """From now on over this line, which is the road's. ``ended`` is told when the other end is gone."""
        self.hang_up()
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
        self._socket, self._heard, self._ended = connection, heard, ended
        self._frames = Frames()
        asyncio.get_running_loop().add_reader(connection, self._readable, connection)

    def begin(self, first: Sequence[tuple[Down, bytes, Sequence[int]]] = ()) -> None:
        """Sends ``first``, none of which is acknowledged, and then what waits."""
        for kind, body, fds in reversed(first):
            self._unsent.appendleft((memoryview(frame(kind, body)), None, tuple(fds)))
        if self._untold:
            self._tell_gaps()
        self._flush()

    def hang_up(self) -> None:
        """What was sent and not acknowledged is lost, but for what must not be, which waits again."""
        connection, self._socket = self._socket, None
        if connection is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(connection)
        if self._writing:
            loop.remove_writer(connection)
            self._writing = False
        connection.close()
        self._give_up_what_was_sent()
        self._kept_out = False
        self._weigh()

    def _break(self) -> None:
        """The other end is gone."""
        self.hang_up()
        self._ended()

    def _give_up_what_was_sent(self) -> None:
        under_way = list(self._sent)
        self._sent.clear()
        if self._begun:
            _, held, _ = self._unsent.popleft()
            under_way += [] if held is None else [held]
            self._begun = False
        waiting = [entry for entry in self._unsent if entry[1] is not None]
        for _, held, fds in self._unsent:
            if held is None:
                close_all(fds)
        again: list[_Waiting] = []
        for sent in under_way:
            if sent.body is not None:
                again.append((memoryview(sent.body), sent, ()))
            else:
                self._held_bytes -= sent.size
                self.lose(sent.records, "recorder")
        self._unsent = deque([*again, *waiting])

    # In

    def _readable(self, connection: socket.socket) -> None:
        try:
            data = receive(connection, [])
            if data is None:
                return
            if data:
                for kind, body in self._frames.feed(data):
                    self._hear(kind, body)
                return
        except (OSError, ValueError):
            pass
        if self._socket is connection:
            self._break()

    def _hear(self, kind: int, body: bytes) -> None:
        if kind == Up.DONE:
            (count,) = unpack(body)
            for _ in range(count):
                self._acknowledge()
            self._weigh()
        elif kind == Up.STANDING:
            self._kept_out = bool(unpack(body)["full"])
            self._weigh()
            self._heard(kind, body)
        else:
            self._heard(kind, body)
        if not self._sent and not self._unsent:
            self._clear.set()

    def _acknowledge(self) -> None:
        with suppress(IndexError):
            done = self._sent.popleft()
            self._held_bytes -= done.size
            self._recorded += done.records

    async def clear(self) -> None:
        """Returns when all has been acknowledged."""
        await self._clear.wait()
