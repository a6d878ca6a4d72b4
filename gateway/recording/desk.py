"""The recorder's one loop: reads what the gateway and its web workers send, hands it to the parts, acknowledges it.

It ends when the gateway says so, or is gone: with everything that was sent, and its parts closed.
"""

from __future__ import annotations

import logging
import selectors
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.clock import Clock
from gateway.errors import TurnoutError
from gateway.recording.arrived import unpack_burst
from gateway.recording.frames import Down, Frames, Up, close_all, frame, pack, receive, unpack
from gateway.recording.parts import Part

__all__ = ["REST_S", "TICK_S", "Build", "Desk"]

log = logging.getLogger("turnout.recording")

TICK_S = 0.25

REST_S = 60.0

Build = Callable[[Mapping[str, Any], Sequence[int]], Sequence[Part]]
"""Parts by their options, with descriptors that are theirs."""


class _Line:
    """One sender's."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.frames = Frames()
        self.fds: list[int] = []
        self.unsent = bytearray()
        self.watched = selectors.EVENT_READ

    def send(self, kind: Up, body: bytes) -> None:
        self.unsent += frame(kind, body)
        self.flush()

    def flush(self) -> None:
        try:
            while self.unsent:
                del self.unsent[: self.connection.send(self.unsent)]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.unsent.clear()  # its end is read next


class Desk:
    def __init__(
        self,
        main: socket.socket,
        build: Build,
        clock: Clock,
        *,
        shown: Sequence[str] = (),
        rest: Callable[[], object] = lambda: None,
    ) -> None:
        """``shown``: questions whose answers the gateway gets with each tick, unasked. ``rest`` is called each
        ``REST_S``, between two bursts."""
        self._build = build
        self._shown = tuple(shown)
        self._rest = rest
        self._clock = clock
        self._parts: Sequence[Part] = ()
        self._selector = selectors.DefaultSelector()
        self._main = _Line(main)
        self._lines: list[_Line] = []
        self._taken = self._faults = 0
        self._full = False
        self._over = False
        self._add(self._main)

    def __repr__(self) -> str:
        return f"<Desk [{len(self._lines)} lines | {self._taken} taken | {self._faults} faults]>"

    def run(self) -> None:
        """Returns when all has been taken and kept."""
        began = self._clock.monotonic()
        due, rests = began + TICK_S, began + REST_S
        while not self._over:
            self._turn(max(0.0, due - self._clock.monotonic()))
            now = self._clock.monotonic()
            if now >= due:
                due = now + TICK_S
                self._tick()
            if now >= rests:
                rests = now + REST_S
                self._rest()
        self._finish()

    def _turn(self, wait_s: float) -> None:
        for key, events in self._selector.select(wait_s):
            line: _Line = key.data
            if events & selectors.EVENT_WRITE:
                line.flush()
                self._watch(line)
            if events & selectors.EVENT_READ:
                self._read(line)

    def _add(self, line: _Line) -> None:
        self._lines.append(line)
        self._selector.register(line.connection, selectors.EVENT_READ, line)

    def _remove(self, line: _Line) -> None:
        self._lines.remove(line)
        self._selector.unregister(line.connection)
        line.connection.close()
        close_all(line.fds)
        self._over = self._over or line is self._main

    def _watch(self, line: _Line) -> None:
        if line in self._lines:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if line.unsent else 0)
            if wanted != line.watched:
                line.watched = wanted
                self._selector.modify(line.connection, wanted, line)

    def _read(self, line: _Line) -> bool:
        """Whether there was something."""
        try:
            data = receive(line.connection, line.fds)
            if data is None:
                return False
            if not data:
                self._remove(line)
                return False
            done = sum(self._take(line, kind, body) for kind, body in line.frames.feed(data))
        except ConnectionResetError:  # it has ended, and did not read all that it was told
            self._remove(line)
            return False
        except (OSError, ValueError) as fault:
            log.error("a line to the recorder broke: %s", fault)
            self._remove(line)
            return False
        if done:
            line.send(Up.DONE, pack((done,)))
            self._watch(line)
        self._show_standing()
        return True

    def _take(self, line: _Line, kind: int, body: bytes) -> int:
        """How many frames are to be acknowledged: this one, or none."""
        match kind:
            case Down.BURST:
                records = unpack_burst(body)
                self._taken += len(records)
                self._each(lambda part: part.take(records))
                return 1
            case Down.TOLD | Down.STATE:
                event, said = unpack(body)
                self._each(lambda part: part.told(event, said))
                return 1 if kind == Down.TOLD else 0
            case Down.ASK:
                self._answer(line, *unpack(body))
            case Down.LINE:
                self._add(_Line(socket.socket(fileno=line.fds.pop(0))))
            case Down.BEGIN:
                options, count = unpack(body)  # descriptors of what follows may have come along
                fds, line.fds[:] = line.fds[:count], line.fds[count:]
                self._parts = self._build(options, fds)
            case Down.END:
                self._over = True
        return 0

    def _each(self, work: Callable[[Part], object]) -> None:
        """A part's fault is its own."""
        for part in self._parts:
            try:
                work(part)
            except Exception:  # one part's fault must not cost the others their records
                self._faults += 1
                log.exception("%s of the recorder failed", type(part).__name__)

    def _answer(self, line: _Line, number: int, kind: str, body: Mapping[str, Any]) -> None:
        answer, failure = self._ask(kind, body)
        try:
            packed = pack((number, answer, failure))
        except ValueError as fault:
            packed = pack((number, None, ("TurnoutError", f"the answer to {kind!r} cannot be sent: {fault}")))
        line.send(Up.ANSWER, packed)
        self._watch(line)

    def _ask(self, kind: str, body: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, tuple[str, str] | None]:
        """An answer, or why there is none."""
        for part in self._parts:
            try:
                return part.ask(kind, body), None
            except KeyError:
                continue
            except TurnoutError as refusal:
                return None, (type(refusal).__name__, str(refusal))
            except Exception as fault:  # a question must not end the recorder
                log.exception("%s of the recorder failed at %r", type(part).__name__, kind)
                return None, ("TurnoutError", f"{type(fault).__name__}: {fault}")
        return None, ("NotFound", f"nothing here answers {kind!r}")

    def _tick(self) -> None:
        self._each(lambda part: part.tick())
        self._show_standing(again=True)

    def _show_standing(self, *, again: bool = False) -> None:
        full = any(part.full for part in self._parts)
        if full is self._full and not again:
            return
        self._full = full
        body = pack({"full": full, "taken": self._taken, "faults": self._faults, "shown": self._answers()})
        for line in list(self._lines):
            if not line.unsent:  # who does not read hears it later
                line.send(Up.STANDING, body)

    def _answers(self) -> dict[str, Mapping[str, Any]]:
        found = {kind: self._ask(kind, {})[0] for kind in self._shown}
        return {kind: answer for kind, answer in found.items() if answer is not None}

    def _finish(self) -> None:
        """What was sent and not read yet is taken, too."""
        for line in list(self._lines):
            while line in self._lines and self._read(line):
                pass
        self._each(lambda part: part.close())
        for line in list(self._lines):
            self._remove(line)
        self._selector.close()
