"""Texts that wait for a decoder, in a fair order; and as many decoders as it takes, none while there is nothing to do.

Small ones first, but none for ever: a text is served by when it would be done if decoding took ten
times as long as it does, counted from when it came. So one of 16 MB lets those of 300 KB pass that
come within its first half second, and nobody after that.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import orjson

from gateway.clock import Clock
from gateway.codec.limits import CodecLimits
from gateway.decoding.decoder import Decoder, DecoderEnded
from gateway.decoding.memories import Memories, Text
from gateway.decoding.wire import FACTS, error_of
from gateway.errors import DeadlineExceeded, QueueFull, ServiceDraining, TooLarge, TurnoutError
from gateway.messages import DATATYPES, Array, Arrays, Signature
from runtimes.channel import Header, read_header
from runtimes.memory import MAX_BYTES, Memory

__all__ = ["Decoders", "PoolStatistics", "Reading"]

log = logging.getLogger("turnout.decoding")

_MAX_WAITING = 64
_CROWDED = 7 / 8
_PATIENCE = 10.0
_BYTES_A_SECOND = 250e6
_LEAST_LIMIT_S = 10.0
_SLOWEST_BYTES_A_SECOND = 2e6
_TRIES = 2
_TEXTS_AT_ONCE = 4
_SPARE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Reading:
    """What a decoder made of a text. ``arrays`` are views of shared memory; None with ``unfit``, which tells why they
    do not fit the signature, or when none was given."""

    facts: dict[str, Any]
    arrays: Arrays | None
    rows: int
    unfit: Callable[[], TurnoutError] | None


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    waiting: int
    decoders: int
    held_bytes: int
    lent: int


@dataclass(slots=True)
class _Job:
    text: Text
    message: dict[str, Any]
    done: asyncio.Future[Reading]


class Decoders:
    """Decodes texts in other processes, ``most`` at a time. Used from the event loop only.

    A decoder is started when a text waits and ended after ``idle_s`` without one. ``body_bytes`` is the
    largest text, before and after inflation.
    """

    def __init__(
        self, *, limits: CodecLimits, body_bytes: int, clock: Clock, most: int = 1, idle_s: float = 30.0
    ) -> None:
        self._limits = limits
        self._body_bytes = body_bytes
        self._clock = clock
        self._most = most
        self._idle_s = idle_s
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, _Job]] = []
        self._idle: list[Decoder] = []
        self._alive: set[Decoder] = set()
        self._reaping: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._closed = False
        room = min(MAX_BYTES, body_bytes)
        self._texts = Memories("text", room, written_by_child=False, most_bytes=_TEXTS_AT_ONCE * room)
        # Two octets of text make one number of eight at most; the facts are no longer than the text.
        self._outputs = Memories("arrays", min(MAX_BYTES, 5 * room + _SPARE_BYTES), written_by_child=True)

    def __repr__(self) -> str:
        at_work = len(self._tasks)
        return f"<Decoders [{len(self._alive)} alive | {at_work} at work | {len(self._waiting)} waiting]>"

    @property
    def pids(self) -> list[int]:
        return [decoder.pid for decoder in self._alive]

    def statistics(self) -> PoolStatistics:
        waiting = sum(not job.done.done() for _, _, job in self._waiting)
        lent = self._texts.lent + self._outputs.lent
        return PoolStatistics(waiting, len(self._alive), self._texts.held_bytes, lent)

    @property
    def crowded(self) -> bool:
        """Nearly all places, or bytes, are taken."""
        return self._texts.lent >= _CROWDED * _MAX_WAITING or self._texts.filled >= _CROWDED

    def text(self) -> Text:
        """Room for a body that is about to come. QueueFull when too many wait already, or there is no memory."""
        if self._closed:
            raise ServiceDraining("the gateway is shutting down and takes no new work; ask another replica")
        if self._texts.lent >= _MAX_WAITING:
            raise QueueFull(
                f"{self._texts.lent} large bodies are under way, the limit is {_MAX_WAITING}; send it again later",
                retry_after_s=max(0.1, self._texts.held_bytes / _BYTES_A_SECOND),
            )
        try:
            return self._texts.text()
        except OSError as error:
            raise QueueFull(f"no shared memory for a large body: {error.strerror}; send it again later") from None

    async def read(
        self,
        text: Text,
        protocol: str,
        *,
        encoding: str = "",
        signature: Signature | None,
        deadline: float | None = None,
    ) -> Reading:
        """The facts of a whole text, and its arrays as ``signature`` types them.

        Raises what the reader raises: BadRequest, TooLarge; and DeadlineExceeded. Cancelled, it gives up its place.
        """
        message = {
            "size": text.size_bytes,
            "protocol": protocol,
            "encoding": encoding,
            "signature": None if signature is None else signature.to_json(),
        }
        job = _Job(text, message, asyncio.get_running_loop().create_future())
        due = self._clock.monotonic() + _PATIENCE * text.size_bytes / _BYTES_A_SECOND
        heapq.heappush(self._waiting, (due, next(self._numbers), job))
        self._pump()
        try:
            async with asyncio.timeout(None if deadline is None else deadline - self._clock.monotonic()):
                return await job.done
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed while the body waited to be decoded") from None
        finally:
            if not job.done.done() or job.done.cancelled():
                self._forget(job)
            del job  # its error knows this frame: a ring, and the text in it would wait for the collector

    async def close(self) -> None:
        """Ends the processes; what waits is refused."""
        self._closed = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        for _, _, job in self._waiting:
            _fail(job, ServiceDraining("the gateway is shutting down and takes no new work; ask another replica"))
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()
        for decoder in list(self._alive):
            decoder.end()
        await asyncio.gather(*self._tasks, *self._reaping, return_exceptions=True)
        self._texts.drop_free()
        self._outputs.drop_free()

    def _forget(self, job: _Job) -> None:
        """Its place in the queue, and its memory, are free at once; one under way is dropped when it is done."""
        self._waiting = [entry for entry in self._waiting if entry[2] is not job]
        heapq.heapify(self._waiting)

    def _pump(self) -> None:
        """Gives what waits to who is free."""
        while self._waiting and len(self._tasks) < self._most and not self._closed:
            _, _, job = heapq.heappop(self._waiting)
            if job.done.done():
                continue
            if self._idle_timer is not None:
                self._idle_timer.cancel()
                self._idle_timer = None
            task = asyncio.get_running_loop().create_task(self._serve(job))
            self._tasks.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._pump()
        if not self._tasks and not self._closed:
            self._idle_timer = asyncio.get_running_loop().call_later(self._idle_s, self._rest)

    def _rest(self) -> None:
        """Nothing has come for a while: the memory goes back to the system."""
        for decoder in self._idle[:]:
            decoder.end()
        self._texts.drop_free()
        self._outputs.drop_free()

    async def _serve(self, job: _Job) -> None:
        try:
            reading = await self._decode(job)
        except TurnoutError as error:
            _fail(job, error)
        except Exception as error:
            log.exception("a large body could not be decoded")
            _fail(job, error)  # whoever waits must hear of it
        else:
            if not job.done.done():
                job.done.set_result(reading)

    async def _decode(self, job: _Job) -> Reading:
        """On a decoder that is free, or a new one; once more on another if that one ends."""
        limit_s = _LEAST_LIMIT_S + job.text.size_bytes / _SLOWEST_BYTES_A_SECOND
        for _ in range(_TRIES):
            memory, octets = self._outputs.array()
            decoder = self._idle.pop() if self._idle else self._start()
            try:
                answer = await decoder.ask(job.message, job.text.memory, memory, limit_s=limit_s)
            except DecoderEnded:
                log.warning("a decoder ended with a body of %d bytes in its hands", job.text.size_bytes)
                continue
            self._idle.append(decoder)
            if (refused := answer.get("refused")) is not None:
                raise error_of(refused)
            return _reading(answer, read_header(memory, answer["header"]), memory, octets)
        raise TooLarge(
            f"the body of {job.text.size_bytes} bytes could not be decoded: the process that reads it ended"
            f" {_TRIES} times over it, for lack of memory or time; send fewer rows, or binary tensors"
        )

    def _start(self) -> Decoder:
        try:
            decoder = Decoder(limits=self._limits, body_bytes=self._body_bytes, ended=self._left)
        except OSError as error:
            raise QueueFull(f"no process for a large body: {error.strerror}; send it again later") from None
        self._alive.add(decoder)
        return decoder

    def _left(self, decoder: Decoder) -> None:
        self._alive.discard(decoder)
        if decoder in self._idle:
            self._idle.remove(decoder)
        task = asyncio.get_running_loop().create_task(decoder.gone())
        self._reaping.add(task)
        task.add_done_callback(self._reaping.discard)


def _fail(job: _Job, error: Exception) -> None:
    """Without the frames that it came through, which hold the memories."""
    if not job.done.done():
        job.done.set_exception(error.with_traceback(None))


def _reading(answer: dict[str, Any], header: Header, memory: Memory, octets: Array) -> Reading:
    """Views of the memory, which goes back when the last of them is gone. Strings are copied out of it."""
    views: dict[str, Array] = {}
    for placed in header.tensors:
        begin = header.start + placed.offset
        part = octets[begin : begin + placed.size_bytes]
        if placed.datatype == "BYTES":
            views[placed.name] = replace(header, tensors=(placed,)).views(memory)[placed.name]
        else:
            views[placed.name] = part.view(DATATYPES[placed.datatype]).reshape(placed.shape)
    facts = orjson.loads(views.pop(FACTS).tobytes())
    # Made when it is raised: one that is kept would keep the frames that it came through, and the text in them.
    unfit = None if answer["unfit"] is None else partial(error_of, answer["unfit"])
    return Reading(facts, views or None, answer["rows"] or 1, unfit)
