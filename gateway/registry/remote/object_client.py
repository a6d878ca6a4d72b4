"""Reads and writes one object store, as ``gateway.registry.remote.objects`` asks: a process with only fsspec in it.

``python -E object_client.py``: the first line on standard input says where (``url``, ``options``, ``parallel``,
``idle_s``), each further one is a call (``id``, ``do``, and what it takes). Each answer is a line on
standard output: ``{"id", "done"}`` while it goes on, then ``{"id", "result"}`` or ``{"id", "error", "message"}``.
It ends when nothing was asked for ``idle_s``, and at once when its input ends, as it does when its parent dies. (A
signal at the parent's death would come when the *thread* ends that started this, which may be a short-lived one.)

An object is whole or not there: S3, Google's and Azure's stores show an upload once it is complete; elsewhere it is
written under ``tmp/`` and moved.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import select
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec

WHOLE_AT_ONCE = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl"})
BLOCK = 8 * 1024 * 1024
SAID_EVERY_S = 0.2


class Refused(Exception):
    """What the call came to; ``kind`` tells the caller what to do."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Client:
    """The verbs. Names are relative to the url."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        options = {"use_listings_cache": False, "skip_instance_cache": True, **options}
        self.fs, root = fsspec.core.url_to_fs(url, **options)
        self.root = root.rstrip("/")
        protocol = self.fs.protocol
        self.protocols = {protocol} if isinstance(protocol, str) else set(protocol)
        self.whole = bool(self.protocols & WHOLE_AT_ONCE)
        self.local = bool(self.protocols & {"file", "local"})

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def do(self, call: dict[str, Any], told: Callable[[int], None]) -> Any:
        verbs: dict[str, Callable[[], Any]] = {
            "list": lambda: list(self.rows(call["under"])),
            "stat": lambda: self.stat(call["name"]),
            "read": lambda: self.read(call["name"], call["most"]),
            "write": lambda: self.write(call["name"], call["text"].encode()),
            "put": lambda: self.put(call["name"], Path(call["source"]), call["sha256"], told),
            "get": lambda: self.get(call["name"], Path(call["target"]), told),
            "delete": lambda: self.delete(call["name"]),
        }
        return verbs[call["do"]]()

    def rows(self, under: str) -> Iterator[list[Any]]:
        """Name, size and time of change of every object below ``under``."""
        try:
            found = self.fs.find(self.path(under), detail=True)
        except FileNotFoundError:
            return
        for path, row in found.items():
            yield [path.removeprefix(self.root).lstrip("/"), int(row["size"] or 0), _changed(row)]

    def stat(self, name: str) -> list[Any] | None:
        try:
            row = self.fs.info(self.path(name))
        except FileNotFoundError:
            return None
        return None if row["type"] != "file" else [int(row["size"] or 0), _changed(row)]

    def read(self, name: str, most: int) -> str | None:
        try:
            data = self.fs.cat_file(self.path(name), start=0, end=most + 1)
        except FileNotFoundError:
            return None
        if len(data) > most:
            raise Refused("unreadable", f"{name} has over {most} bytes")
        try:
            return str(data.decode())
        except UnicodeDecodeError as error:
            raise Refused("unreadable", f"{name} is no text: {error.reason} at byte {error.start}") from None

    def write(self, name: str, data: bytes) -> None:
        self._store(name, lambda path: self.fs.pipe_file(path, data))

    def put(self, name: str, source: Path, expected: str | None, told: Callable[[int], None]) -> dict[str, Any]:
        """Uploads and reads back; what came back must be what was read here."""
        size = source.stat().st_size
        if size <= BLOCK:
            data = source.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            _check(source, digest, expected)
            self._store(name, lambda path: self.fs.pipe_file(path, data))
        else:
            with source.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            _check(source, digest, expected)
            told(0)
            self._store(name, lambda path: self.fs.put_file(str(source), path, callback=_Callback(told)))
        back = self.digest(name, size)
        if back != digest:
            self.fs.rm_file(self.path(name))
            raise Refused(
                "altered", f"{name} came back as sha256:{back}, sent was sha256:{digest}; it was removed there"
            )
        return {"sha256": digest, "size_bytes": size}

    def get(self, name: str, target: Path, told: Callable[[int], None]) -> dict[str, Any]:
        """Goes on where ``target`` ends."""
        size = self.fs.info(self.path(name))["size"]
        with target.open("r+b") as file:
            done = file.seek(0, os.SEEK_END)
            if done > size:
                done = 0
                file.seek(0)
                file.truncate()
            while done < size:
                data = self.fs.cat_file(self.path(name), start=done, end=min(size, done + BLOCK))
                if not data:
                    raise Refused("failed", f"{name} ends after {done} of {size} bytes")
                file.write(data)
                done += len(data)
                told(done)
        return {"size_bytes": size}

    def delete(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self.fs.rm_file(self.path(name))

    def digest(self, name: str, size: int) -> str:
        digest = hashlib.sha256()
        for start in range(0, max(size, 1), BLOCK):
            digest.update(self.fs.cat_file(self.path(name), start=start, end=min(size, start + BLOCK)) if size else b"")
        found = self.fs.info(self.path(name))["size"] if size > BLOCK or not size else size
        return digest.hexdigest() if found == size else f"of {found} bytes"

    def _store(self, name: str, send: Callable[[str], object]) -> None:
        path = self.path(name)
        if self.whole:
            send(path)
            return
        partial = self.path(f"tmp/{uuid.uuid4().hex}")
        for folder in (partial, path):
            self.fs.makedirs(folder.rpartition("/")[0], exist_ok=True)
        try:
            send(partial)
            if self.local:
                _durable(partial)
                Path(partial).replace(path)
                _durable(path.rpartition("/")[0])
            else:
                self.fs.mv(partial, path)
        except BaseException:
            if self.fs.exists(partial):
                self.fs.rm_file(partial)
            raise


class _Callback(fsspec.callbacks.Callback):  # type: ignore[misc]
    """What an upload tells of its bytes."""

    def __init__(self, told: Callable[[int], None]) -> None:
        super().__init__()
        self._told = told

    def call(self, *_: Any, **__: Any) -> None:
        self._told(self.value)


def _check(source: Path, digest: str, expected: str | None) -> None:
    if expected not in (None, digest):
        raise Refused("damaged", f"{source} has digest sha256:{digest}, expected sha256:{expected}")


def _durable(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _changed(row: dict[str, Any]) -> float:
    for key in ("LastModified", "mtime", "updated", "last_modified", "created"):
        value = row.get(key)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            return datetime.fromisoformat(value).timestamp()
    return time.time()


_KINDS = {
    "FileNotFoundError": "missing",
    "PermissionError": "denied",
    "NoCredentialsError": "denied",
    "PartialCredentialsError": "denied",
    "EndpointConnectionError": "unreachable",
    "ConnectionError": "unreachable",
    "ConnectTimeoutError": "unreachable",
    "TimeoutError": "unreachable",
    "HTTPClientError": "unreachable",
}
"""Clients are told by name: which of them is installed is not known here."""


def _kind(error: BaseException) -> str:
    if isinstance(error, Refused):
        return error.kind
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "full"
    known = (_KINDS.get(kind.__name__) for kind in type(error).__mro__)
    return next((kind for kind in known if kind is not None), "failed")


class Answers:
    """Lines to the parent, one at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.under_way = 0  # written under the lock

    def begin(self) -> None:
        with self._lock:
            self.under_way += 1

    def say(self, line: dict[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        with self._lock:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            self.under_way -= line["id"] != 0 and "done" not in line

    def run(self, client: Client, call: dict[str, Any]) -> None:
        last = 0.0

        def told(done: int) -> None:
            nonlocal last
            if time.monotonic() - last >= SAID_EVERY_S:
                last = time.monotonic()
                self.say({"id": call["id"], "done": done})

        try:
            self.say({"id": call["id"], "result": client.do(call, told)})
        except Exception as error:  # noqa: BLE001 - whatever a store's client raises is the caller's answer
            text = str(error) or type(error).__name__
            self.say({"id": call["id"], "error": _kind(error), "message": f"{text:.1000}"})


def calls(idle_s: float, busy: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Until the input ends, or nothing came for ``idle_s`` while nothing was under way."""
    rest = b""
    while True:
        ready, _, _ = select.select([0], [], [], idle_s)
        if not ready:
            if busy():
                continue
            return
        data = os.read(0, 1 << 16)
        if not data:
            os._exit(0)  # whoever asked is gone: what is under way is for nobody
        *lines, rest = (rest + data).split(b"\n")
        yield from (json.loads(line) for line in lines)


def main() -> int:
    first = json.loads(_line())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's goes to the parent, which ends this process
    answers = Answers()
    try:
        client = Client(first["url"], first["options"])
    except Exception as error:  # noqa: BLE001 - an unknown scheme, a missing package, an option that the client does not know
        answers.say({"id": 0, "error": "unusable", "message": f"{str(error) or repr(error):.1000}"})
        return 1
    answers.say({"id": 0, "result": None})
    with ThreadPoolExecutor(first["parallel"]) as pool:
        for call in calls(first["idle_s"], lambda: answers.under_way > 0):
            answers.begin()
            pool.submit(answers.run, client, call)
    return 0


def _line() -> bytes:
    """Unbuffered: what follows is read by ``calls``."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            break
        line += byte
    return line


if __name__ == "__main__":
    sys.exit(main())
