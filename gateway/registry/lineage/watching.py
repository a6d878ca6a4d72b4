"""Which files a program opens, seen by an audit hook. Imports the standard library only: a copy of this file named
``sitecustomize.py``, in a folder that comes first on a child's path, watches any interpreter.

An audit hook sees what goes through Python's own opening: ``open``, and with it numpy, pandas, pickle and joblib.
Libraries that open files in native code (polars, DuckDB, XGBoost from a path, torch.save) are not seen; their files are
told by ``run.data`` and ``run.output``. A hook cannot be taken away again, so it is put in once and then asks whether
anybody listens. An opening costs some 6 µs, any other audit event less than 1.

The first mode of each path is kept, with the file's time and size at that moment: a file that is read and changed
later can be told from one that is what was read.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

__all__ = ["WATCH", "Opened", "Watch", "read_log"]

_WRITING = ("w", "a", "x", "+")
_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_LOG = "opened"
_MOST = 100_000
"""Paths that are kept; a program that opens more has its data told as folders by ``run.data``."""

Opened = tuple[str, str, int, int]
"""``read`` or ``write``, the path, and the file's time (ns) and size when it was first opened; -1 where unknown. A
watched interpreter tells itself as ``python``."""


class Watch:
    """The hook and its listeners, who are told each path and kind once, in the thread that opened it."""

    def __init__(self) -> None:
        self._listeners: dict[Callable[[Opened], None], set[tuple[str, str]]] = {}
        self._own = threading.local()  # what a listener itself opens is not told
        self._hooked = False

    def start(self, tell: Callable[[Opened], None]) -> None:
        self._listeners = {**self._listeners, tell: set()}
        if not self._hooked:
            self._hooked = True
            sys.addaudithook(self._hook)

    def stop(self, tell: Callable[[Opened], None]) -> None:
        self._listeners = {other: seen for other, seen in self._listeners.items() if other != tell}

    @contextmanager
    def apart(self) -> Iterator[None]:
        """What this thread opens within is the recorder's own, and is not told."""
        before = getattr(self._own, "busy", False)
        self._own.busy = True
        try:
            yield
        finally:
            self._own.busy = before

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._listeners:
            return
        if event == "open":
            self._opened(*arguments[:3])
        elif event == "cpython.run_file":
            self._opened(arguments[0], "r", 0)

    def _opened(self, path: Any, mode: Any, flags: Any) -> None:
        if not isinstance(path, str | bytes) or getattr(self._own, "busy", False):
            return
        writing = any(letter in mode for letter in _WRITING) if isinstance(mode, str) else bool((flags or 0) & _FLAGS)
        kind = "write" if writing else "read"
        self._own.busy = True
        try:
            place = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - a Path of every opening would cost more
            for tell, seen in self._listeners.items():
                if (kind, place) not in seen and len(seen) < _MOST:
                    seen.add((kind, place))
                    tell((kind, place, *_status(place)))
        except (OSError, ValueError):
            pass  # the training must not feel that it is watched
        finally:
            self._own.busy = False


WATCH = Watch()
"""The one of this process, since a hook cannot be taken away again."""


def _status(place: str) -> tuple[int, int]:
    try:
        found = os.stat(place)  # noqa: PTH116 - the same
    except OSError:
        return -1, -1
    return found.st_mtime_ns, found.st_size


def _beside(folder: Path) -> Callable[[Opened], None]:
    """Appends to a file of this process, a line each at once: a child may end without a farewell."""

    def tell(opened: Opened) -> None:
        kind, place, *numbers = opened
        line = "\0".join((kind, place, *map(str, numbers))) + "\0\n"
        with (folder / f"{_LOG}.{os.getpid()}").open("ab", buffering=0) as file:
            file.write(os.fsencode(line))

    return tell


def read_log(folder: Path) -> list[Opened]:
    """What all interpreters wrote that were watched from this folder, oldest process first."""
    found: list[Opened] = []
    for file in sorted(folder.glob(f"{_LOG}.*"), key=lambda file: file.stat().st_mtime_ns):
        for line in file.read_bytes().split(b"\0\n"):
            parts = os.fsdecode(line).split("\0")
            if len(parts) == 4:
                found.append((parts[0], parts[1], int(parts[2]), int(parts[3])))
    return found


def _watch_this_interpreter(folder: Path) -> None:
    """Runs as ``sitecustomize``: begins to watch, and then lets the interpreter's own one run."""
    tell = _beside(folder)
    tell(("python", sys.executable, -1, -1))
    WATCH.start(tell)
    sys.path[:] = [place for place in sys.path if Path(place) != folder]
    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(module_from_spec(spec))


if __name__ == "sitecustomize":
    _watch_this_interpreter(Path(__file__).parent)
