"""Signs a checkpoint of the audit chain from time to time, keeps it in the home, and posts it elsewhere.

Before it signs, it follows the chain from its last checkpoint on: one that was cut off or written anew is not
signed but told of. It signs what it has seen grow.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.checkpoints import Checkpoint, SigningKey, exposed_key, read_notes
from gateway.clock import Clock
from gateway.control.audit import GENESIS, Verification, verify
from gateway.control.ending import ended
from gateway.control.outgoing import Outgoing
from gateway.control.store import Store
from gateway.errors import Conflict, InvalidInput, NotFound, StoreUnavailable
from gateway.settings import AuditSettings

__all__ = ["CHECKPOINT_FILE", "CheckpointKeeper", "Signed"]

log = logging.getLogger("turnout.control")

CHECKPOINT_FILE = "audit-checkpoints"
_PAGE_RECORDS = 50
_LAST_S = 2.0
_POST_TIMEOUT_S = 10.0
_FIRST_RETRY_S, _LONGEST_RETRY_S = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint and its note."""

    checkpoint: Checkpoint
    note: str

    def to_json(self) -> dict[str, Any]:
        found = self.checkpoint
        return {"checkpoint": self.note, "size": found.size, "head": found.head, "at": found.at}


class CheckpointKeeper:
    """``open`` reads the home; ``start`` also begins to sign by itself, every ``checkpoint_records`` and
    ``checkpoint_s``; ``took`` tells it how far the chain is."""

    def __init__(
        self,
        store: Store,
        home: Path,
        settings: AuditSettings,
        *,
        clock: Clock,
    ) -> None:
        self._store = store
        self._home = home
        self._settings = settings
        self._clock = clock
        self._key: SigningKey | None = None
        self._last: Signed | None = None
        self._newest = 0
        self._fault: str | None = None
        self._unwritten: str | None = None
        self._unposted: str | None = None
        self._exposed: str | None = None
        self._ended: str | None = None
        self._one_at_a_time = asyncio.Lock()
        self._due = asyncio.Event()
        self._to_post = asyncio.Event()
        self._outgoing = Outgoing(_POST_TIMEOUT_S)
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        state = "broken" if self._fault else "whole"
        return f"<CheckpointKeeper {self._home} [{state} | {0 if self._last is None else self._last.checkpoint.size}]>"

    @property
    def key(self) -> SigningKey:
        if self._key is None:
            raise RuntimeError("the keeper of checkpoints was not opened")
        return self._key

    async def open(self) -> CheckpointKeeper:
        """Reads the key (made if there is none) and the last checkpoint. Raises SettingsError."""
        self._key = await asyncio.to_thread(SigningKey.of, self._home)
        self._exposed = await asyncio.to_thread(exposed_key, self._home)
        if self._exposed is not None:
            log.error("%s", self._exposed)
        self._last = await asyncio.to_thread(self._newest_kept)
        return self

    async def start(self) -> None:
        await self.open()
        self._tasks = [asyncio.ensure_future(self._sign_on())]
        if self._settings.post_url is not None:
            self._tasks.append(asyncio.ensure_future(self._post_on(self._settings.post_url)))
        for task in self._tasks:
            task.add_done_callback(self._stopped)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._ended = f"checkpoints of the audit log are looked after no more: {task.exception()!r:.300}"
            log.critical("%s", self._ended, exc_info=task.exception())

    async def close(self) -> None:
        """With a last checkpoint, if there is anything to sign and the store answers."""
        running, self._tasks = self._tasks, []
        for task in running:
            task.cancel()
        if running:
            for task in running:
                await ended(task)
            with suppress(TimeoutError, Conflict, NotFound, StoreUnavailable):
                async with asyncio.timeout(_LAST_S):
                    await self.now()
        await self._outgoing.close()

    def took(self, revision: int) -> None:
        self._newest = revision
        if revision - self._signed_size() >= self._settings.checkpoint_records:
            self._due.set()

    def degraded(self) -> Sequence[str]:
        said = (self._fault, self._unwritten, self._unposted, self._exposed, self._ended)
        return [one for one in said if one is not None]

    async def now(self) -> Signed:
        """The newest checkpoint, signed now unless nothing has changed since.

        Raises Conflict when the chain is not the one that was signed before, NotFound when it has no record,
        StoreUnavailable.
        """
        if self._key is None:
            raise NotFound("no checkpoints are kept here: the gateway was started without a home")
        async with self._one_at_a_time:
            state = await self._followed()
            if state.fault is not None:
                self._break(state.fault)
                raise Conflict(f"the audit chain is not signed: {state.fault}")
            self._fault = None
            if not state.records:
                raise NotFound("the audit chain has no record yet, so there is nothing to sign")
            if self._last is None or state.records > self._last.checkpoint.size:
                checkpoint = Checkpoint(state.records, state.head, int(self._clock.wall()))
                self._last = Signed(checkpoint, self.key.sign(checkpoint))
                await self._keep(self._last)
            return self._last

    async def _followed(self) -> Verification:
        """The chain's end, followed from the last checkpoint, whose record must still stand."""
        state = await self._begin()
        while state.fault is None:
            page = await self._store.audit(after=state.records, limit=_PAGE_RECORDS)
            state = await asyncio.to_thread(verify, page, state)
            if len(page) < _PAGE_RECORDS:
                break
        return state

    async def _begin(self) -> Verification:
        origin = (await self._store.snapshot()).origin or (0, GENESIS)
        if self._last is None:
            return Verification(*origin)
        signed = self._last.checkpoint
        if origin == (signed.size, signed.head):
            return Verification(*origin)
        standing = await self._store.audit(after=signed.size - 1, limit=1)
        found = standing[0].digest if standing and standing[0].sequence == signed.size else None
        fault = None
        if found is None:
            fault = f"audit record {signed.size}, which was signed, is gone: the chain was cut off"
        elif found != signed.head:
            fault = f"audit record {signed.size} is not the one that was signed: the chain was written anew"
        return Verification(signed.size, signed.head, fault)

    def _break(self, fault: str) -> None:
        said = f"the audit log is broken: {fault}"
        if said != self._fault:
            log.critical("%s; no checkpoint is signed until %s is moved away", said, self._home / CHECKPOINT_FILE)
        self._fault = said

    # Keeping

    def _newest_kept(self) -> Signed | None:
        """The last note of the file, if this home has signed it; others are of no use here."""
        try:
            text = (self._home / CHECKPOINT_FILE).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            log.error("%s cannot be read (%s); signing begins anew", self._home / CHECKPOINT_FILE, error)
            return None
        notes, rest = read_notes(text)
        if rest:
            log.warning("%s holds lines of no checkpoint; one was cut short", self._home / CHECKPOINT_FILE)
        for note in reversed(notes):
            try:
                return Signed(self.key.public.open(note), note)
            except InvalidInput as error:
                log.error("%s: %s", self._home / CHECKPOINT_FILE, error)
        return None

    async def _keep(self, signed: Signed) -> None:
        """On the disk when this returns, or said so: a full disk does not take away what was signed."""
        self._to_post.set()
        try:
            await asyncio.to_thread(_append, self._home / CHECKPOINT_FILE, signed.note)
        except OSError as error:
            self._unwritten = f"checkpoints of the audit log cannot be written: {error.strerror}"
            log.error("%s", self._unwritten)
        else:
            self._unwritten = None

    # By itself

    async def _sign_on(self) -> None:
        while True:
            timer = self._clock.call_at(self._clock.monotonic() + self._settings.checkpoint_s, self._due.set)
            try:
                await self._due.wait()
            finally:
                timer.cancel()
            self._due.clear()
            with suppress(StoreUnavailable, NotFound, Conflict):  # each is told where it happens
                await self.now()

    async def _post_on(self, url: str) -> None:
        """The newest only: it says all that those before it did."""
        while True:
            await self._to_post.wait()
            self._to_post.clear()
            wait = _FIRST_RETRY_S
            while self._last is not None and not await self._post(url, self._last.note):
                await self._clock.sleep(wait)
                wait = min(_LONGEST_RETRY_S, wait * 2)

    async def _post(self, url: str, note: str) -> bool:
        status, said = await self._outgoing.post(url, note.encode(), {"content-type": "text/plain; charset=utf-8"})
        fault = None if 200 <= status < 300 else f"status {said}" if status else said
        if fault is not None and self._unposted is None:
            log.error("a checkpoint of the audit log could not be posted (%s); it is tried again", fault)
        self._unposted = None if fault is None else f"checkpoints of the audit log cannot be posted: {fault}"[:300]
        return fault is None

    def _signed_size(self) -> int:
        return 0 if self._last is None else self._last.checkpoint.size


def _append(path: Path, note: str) -> None:
    """On a line of its own, also after one that was cut short when a disk was full or a process died."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        cut_short = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        written = memoryview(f"{chr(10) if cut_short else ''}{note}\n".encode())
        while written:
            written = written[os.write(descriptor, written) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
