"""Puts finished requests on the road to the recorder, whatever their tensors are. Each process that answers has one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from gateway.events.observer import Observer
from gateway.events.records import RequestRecord
from gateway.recording.bursts import LargeTensors, pack_burst
from gateway.recording.large import Policy, Portion, no_policy, portions, sorted_out
from gateway.recording.road import Road

__all__ = ["Sender"]

log = logging.getLogger("turnout.recording")

_MOST_PENDING_BYTES = 256 * 1024 * 1024
"""What is held for its digests, or one request that has more. Past it requests are recorded without digests."""

_ANY_SIZE = 2**40


class Sender(Observer):
    """``policy`` says what a route wants of large tensors. Not ``every``: only requests whose content is kept."""

    def __init__(self, road: Road, policy: Policy = no_policy, *, every: bool = True) -> None:
        self.road = road
        self._every = every
        self._policy = policy
        self._hashing: ThreadPoolExecutor | None = None
        self._pending: set[asyncio.Future[None]] = set()
        self._pending_bytes = 0

    def __repr__(self) -> str:
        return f"<Sender [{len(self._pending)} hashing | {self._pending_bytes} bytes]>"

    def requests_finished(self, records: Sequence[RequestRecord]) -> None:
        if not self._every:
            records = [record for record in records if record.content is not None]
            if not records:
                return
        try:
            self.road.offer(pack_burst(records, digests_alone=self._digests_alone), len(records))
        except (LargeTensors, ValueError):
            self._take_apart(records)

    def _take_apart(self, records: Sequence[RequestRecord]) -> None:
        found = sorted_out(records, self._policy)
        self._send(found.small)
        for record in found.payloads:
            self._send([record])
        for portion in portions(found.large):
            if self._pending and self._pending_bytes + portion.size > _MOST_PENDING_BYTES:
                self._send([one.without_digests() for one in portion.left])
            else:
                self._pending_bytes += portion.size
                self._hash(portion)

    def _hash(self, portion: Portion) -> None:
        """A thread makes the digests, with the interpreter's lock released while it reads the tensors."""
        if self._hashing is None:
            self._hashing = ThreadPoolExecutor(1, thread_name_prefix="turnout-digests")
        done = asyncio.get_running_loop().run_in_executor(self._hashing, portion.work)
        self._pending.add(done)
        done.add_done_callback(lambda future: self._hashed(portion, future))

    def _hashed(self, portion: Portion, done: asyncio.Future[None]) -> None:
        self._pending.discard(done)
        if done.exception() is not None:
            portion.pass_over()
            self._hash(portion)
            return
        self._pending_bytes -= portion.size
        self._send(portion.made)

    def _send(self, records: Sequence[RequestRecord]) -> None:
        """Of any size. One that holds what cannot cross goes without its content, or is lost, and not the others."""
        if not records:
            return
        try:
            body = pack_burst(records, large_bytes=_ANY_SIZE, digests_alone=self._digests_alone)
            self.road.offer(body, len(records))
        except ValueError:
            for record in records:
                self._send_one(record)

    def _digests_alone(self, route: str) -> bool:
        return self._policy(route).digests_alone

    def _send_one(self, record: RequestRecord) -> None:
        for form in (record, record._replace(content=None)):
            try:
                self.road.offer(pack_burst([form], large_bytes=_ANY_SIZE), 1)
            except ValueError as error:
                log.error("a record cannot be recorded as it is (%s): %.500r", error, form)
            else:
                return
        self.road.lose(1, "form")

    async def settle(self) -> None:
        """Returns when all digests have been made, and their records are on the road."""
        while self._pending:
            await asyncio.wait(self._pending)
            await asyncio.sleep(0)
        if self._hashing is not None:
            self._hashing.shutdown(wait=False)
            self._hashing = None
