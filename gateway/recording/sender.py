"""Puts finished requests on the road to the recorder, whatever their tensors are. Each process that answers has one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from gateway.events.observer import Observer
from gateway.events.records import RequestRecord
from gateway.recording.bursts import LargeTensors, pack_burst
from gateway.recording.large import Policy, Set, no_policy, sorted_out
from gateway.recording.road import Road

__all__ = ["Sender"]

log = logging.getLogger("turnout.recording")

_MOST_PENDING_BYTES = 256 * 1024 * 1024
_ANY_SIZE = 2**40


class Sender(Observer):
    """``policy`` says what a route wants of large tensors. Not ``every``: only requests whose content is kept."""

    def __init__(self, road: Road, policy: Policy = no_policy, *, every: bool = True) -> None:
        self.road = road
        self._every = every
        self._policy = policy
        self._hashing: ThreadPoolExecutor | None = None
        self._pending: set[asyncio.Future[RequestRecord]] = set()
        self._pending_bytes = 0

    def requests_finished(self, records: Sequence[RequestRecord]) -> None:
        if not self._every:
            records = [record for record in records if record.content is not None]
            if not records:
                return
        try:
            self.road.offer(pack_burst(records), len(records))
        except LargeTensors:
            self._take_large(records)
        except ValueError:
            self._take_singly(records)

    def _take_singly(self, records: Sequence[RequestRecord]) -> None:
        """One of them holds what cannot cross: that one is lost, and not the others."""
        for record in records:
            try:
                self.road.offer(pack_burst([record._replace(content=None)]), 1)
            except ValueError:
                log.exception("a record cannot be recorded: %.500r", record)
                self.road.lose(1, "form")

    def _take_large(self, records: Sequence[RequestRecord]) -> None:
        sorted_set = sorted_out(records, self._policy)
        for burst in (sorted_set.small, *([record] for record in sorted_set.payloads)):
            if burst:
                self.road.offer(pack_burst(burst, large_bytes=_ANY_SIZE), len(burst))
        for waiting in sorted_set.large:
            self._hash(waiting)

    def _hash(self, waiting: Set) -> None:
        """A thread makes the digests, with the interpreter's lock released while it reads the tensors."""
        if self._pending_bytes + waiting.size > _MOST_PENDING_BYTES:
            self._hashed(waiting.without_digests())
            return
        if self._hashing is None:
            self._hashing = ThreadPoolExecutor(1, thread_name_prefix="turnout-digests")
        self._pending_bytes += waiting.size
        loop = asyncio.get_running_loop()
        done = loop.run_in_executor(self._hashing, waiting.with_digests)
        self._pending.add(done)
        done.add_done_callback(lambda future: self._hashed_in_thread(waiting, future))

    def _hashed_in_thread(self, waiting: Set, done: asyncio.Future[RequestRecord]) -> None:
        self._pending.discard(done)
        self._pending_bytes -= waiting.size
        if done.cancelled() or done.exception() is not None:
            self._hashed(waiting.without_digests())
        else:
            self._hashed(done.result())

    def _hashed(self, record: RequestRecord) -> None:
        self.road.offer(pack_burst([record]), 1)

    async def settle(self) -> None:
        """Returns when all digests have been made, and their records are on the road."""
        while self._pending:
            await asyncio.wait(self._pending)
            await asyncio.sleep(0)
        if self._hashing is not None:
            self._hashing.shutdown(wait=False)
            self._hashing = None
