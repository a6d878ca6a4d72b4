"""The gateway's end of an object store: calls to a client process, which is started when needed and ends by itself.

The client is a process, not a thread, and not this one: s3fs and what it needs take 40 MB and a second to import, keep
an event loop in a thread of their own, and a connection that hangs there can only be ended with its process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.errors import IntegrityError, NotFound, RegistryError, StorageFull, TurnoutError

__all__ = ["ObjectPlace", "ObjectRow", "ObjectStore"]

_CLIENT = Path(__file__).with_name("object_client.py")
_IDLE_S = 60.0
_TAIL_BYTES = 1500

Told = Callable[[int], None]
"""Called with the bytes done so far of one call."""


@dataclass(frozen=True, slots=True)
class ObjectPlace:
    """Where an object store is and how it is reached. ``options`` go to fsspec's file system, and so does what
    ``secrets`` says whenever a client is started; neither is shown. ``silence_s``: a call that tells nothing for so
    long is given up, and the client with it."""

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    parallel: int = 8
    silence_s: float = 120.0
    interpreter: str | None = None
    secrets: Callable[[], Mapping[str, str]] = field(default=dict, repr=False)


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """``changed_at`` in seconds since the epoch."""

    name: str
    size_bytes: int
    changed_at: float


@dataclass(slots=True)
class _Call:
    """One question under way; the reader fills it in, then sets ``ended``."""

    told: Told | None
    heard_at: float
    ended: threading.Event = field(default_factory=threading.Event)
    answer: dict[str, Any] | None = None


class ObjectStore:
    """Safe from several threads. Every call blocks, and may raise RegistryError (StorageFull, NotFound,
    IntegrityError among them) that says what to do."""

    def __init__(self, place: ObjectPlace) -> None:
        self.place = place
        self._lock = threading.Lock()
        self._client: _Client | None = None  # replaced under the lock, when it has ended
        self._closed = False

    def __repr__(self) -> str:
        return f"<ObjectStore {self.place.url}>"

    def list(self, under: str) -> list[ObjectRow]:
        return [ObjectRow(*row) for row in self._ask("list", under=under)]

    def stat(self, name: str) -> ObjectRow | None:
        found = self._ask("stat", name=name)
        return None if found is None else ObjectRow(name, *found)

    def read(self, name: str, *, most: int = 4 * 1024 * 1024) -> bytes | None:
        """A small text; None where there is none. IntegrityError when it is larger, or no text."""
        found = self._ask("read", name=name, most=most)
        return None if found is None else str(found).encode()

    def write(self, name: str, text: str) -> None:
        self._ask("write", name=name, text=text)

    def put(self, name: str, source: Path, told: Told | None = None, *, sha256: str | None = None) -> None:
        """Uploads a file and reads it back. IntegrityError, and nothing stands there, when it came back otherwise, or
        when the file is not the one that ``sha256`` names."""
        self._ask("put", told, name=name, source=str(source), sha256=sha256)

    def get(self, name: str, target: Path, told: Told | None = None) -> None:
        """Appends to ``target`` what it lacks; what it has already is not looked at."""
        self._ask("get", told, name=name, target=str(target))

    def delete(self, name: str) -> None:
        self._ask("delete", name=name)

    def close(self) -> None:
        """Ends the client, and fails what it is at; a call that comes later is refused."""
        with self._lock:
            client, self._client, self._closed = self._client, None, True
        if client is not None:
            client.close()

    def _ask(self, verb: str, told: Told | None = None, **what: Any) -> Any:
        answer = self._current().ask(verb, told, what)
        if answer is None:  # it ended by itself between two calls; every call may be made again
            answer = self._current().ask(verb, told, what)
        if answer is None:
            raise RegistryError(f"the client of {self.place.url} ended{self._said()}; see docs/operations.md, Stores")
        if "error" in answer:
            raise _fault(self.place.url, f"{verb} {what.get('name') or what.get('under')}", answer)
        return answer["result"]

    def _current(self) -> _Client:
        """One that was started with the secrets of now. A call that another still has under way is made again."""
        secrets = dict(self.place.secrets())
        with self._lock:
            before = self._client
            if before is not None and before.alive and before.secrets == secrets:
                return before
            self._client = _Client(self.place, secrets)
        if before is not None and before.alive:
            before.close()
        return self._client

    def _said(self) -> str:
        client = self._client
        return "" if client is None else client.said()


_ANSWERS: Mapping[str, tuple[type[TurnoutError], str]] = {
    "missing": (NotFound, "It is not in that store"),
    "damaged": (IntegrityError, "Nothing was sent: run turnout verify --all, and heal what it names"),
    "unreadable": (IntegrityError, "It was not written by turnout: remove it, or push its version again"),
    "altered": (IntegrityError, "Try again; if it stays, the store or the way to it alters bytes"),
    "full": (StorageFull, "Free some space (turnout gc), then try again"),
    "denied": (RegistryError, "Check the credentials (registry.secrets) and what they may do there"),
    "unreachable": (RegistryError, "The store cannot be reached; check the address and the network"),
    "unusable": (
        RegistryError,
        (
            "Check the url, and that the client of its scheme is installed (pip install turnout[s3] for s3:, gcsfs for "
            "gs:, adlfs for az:)"
        ),
    ),
}


def _fault(url: str, what: str, answer: Mapping[str, Any]) -> TurnoutError:
    """In words that say what to do."""
    kind, advice = _ANSWERS.get(answer["error"], (RegistryError, "Try again"))
    return kind(f"{url}: cannot {what}: {answer['message'].rstrip('.')}. {advice}")


class _Client:
    """One client process. A thread reads its answers for as long as it lives, at most ``idle_s`` past the last call."""

    def __init__(self, place: ObjectPlace, secrets: Mapping[str, str]) -> None:
        self.secrets = secrets
        self._place = place
        self._lock = threading.Lock()
        self._calls: dict[int, _Call] = {}
        self._next = 1
        self._tail = b""
        command = [place.interpreter or sys.executable, "-E", str(_CLIENT)]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
            )
        except OSError as error:
            raise RegistryError(f"the client of {place.url} cannot be started: {error.strerror or error}") from error
        opened = self._calls[0] = _Call(None, time.monotonic())
        self.alive = True
        self._threads = [
            threading.Thread(target=target, name="turnout-objects", daemon=True)
            for target in (self._read, self._listen)
        ]
        for thread in self._threads:
            thread.start()
        options = {**place.options, **secrets}
        first = {"url": place.url, "options": options, "parallel": place.parallel, "idle_s": _IDLE_S}
        self._send(first)
        answer = self._wait(opened, f"open {place.url}")
        if answer is None or "error" in answer:
            self.close()
            raise _fault(place.url, "open it", answer or {"error": "unusable", "message": self.said() or "it ended"})

    def ask(self, verb: str, told: Told | None, what: Mapping[str, Any]) -> dict[str, Any] | None:
        """None when the process ended before it answered."""
        call = _Call(told, time.monotonic())
        with self._lock:
            if not self.alive:
                return None
            number, self._next = self._next, self._next + 1
            self._calls[number] = call
        self._send({"id": number, "do": verb, **what})
        return self._wait(call, f"{verb} {what.get('name', '')}")

    def close(self) -> None:
        """Returns when the process and both threads have ended."""
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join()

    def said(self) -> str:
        words = self._tail.decode("utf-8", "replace").strip()
        return f"; it said: {words}" if words else ""

    def _send(self, line: Mapping[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        with self._lock:
            pipe = self._process.stdin
            try:
                if pipe is not None:
                    pipe.write(data)
                    pipe.flush()
            except (OSError, ValueError):  # it has ended: the reader tells all who wait
                pass

    def _wait(self, call: _Call, what: str) -> dict[str, Any] | None:
        silence_s = self._place.silence_s
        while not call.ended.wait(max(0.05, call.heard_at + silence_s - time.monotonic())):
            if time.monotonic() - call.heard_at >= silence_s:
                self.close()
                raise RegistryError(
                    f"{self._place.url}: {what.strip()}: no answer and no progress for {silence_s:g} s; its client was "
                    "ended. Check the network and the store, then try again"
                )
        return call.answer

    def _read(self) -> None:
        pipe, into = self._process.stdout, self._process.stdin
        if pipe is None or into is None:
            return
        with pipe:
            for line in pipe:
                self._take(json.loads(line))
        with self._lock:
            self.alive = False
            with suppress(OSError):
                into.close()
        self._process.wait()
        for call in self._calls.values():
            call.ended.set()

    def _take(self, answer: dict[str, Any]) -> None:
        call = self._calls.get(answer["id"])
        if call is None:
            return
        call.heard_at = time.monotonic()
        if "done" not in answer:
            call.answer = answer
            del self._calls[answer["id"]]
            call.ended.set()
        elif call.told is not None:
            call.told(answer["done"])

    def _listen(self) -> None:
        """What it says in its own words, the end of it."""
        pipe = self._process.stderr
        if pipe is not None:
            with pipe:
                while data := os.read(pipe.fileno(), 4096):
                    self._tail = (self._tail + data)[-_TAIL_BYTES:]
