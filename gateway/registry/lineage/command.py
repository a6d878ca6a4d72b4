"""A training that knows nothing of the recorder, run as a command and recorded from outside.

Every Python that the command starts is watched (``watching`` as its ``sitecustomize``), so that the files it reads and
writes and the modules it loads are known, and the first of them is asked what is installed. A folder is looked at
before and after, which also finds what native code has written. Python that is told to ignore its environment (``-E``,
``-I``), and programs that are no Python, are not seen into: their data is named.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.errors import RegistryError
from gateway.registry.lineage import recorded, watching
from gateway.registry.lineage.interpreters import capture_of
from gateway.registry.lineage.recorder import Run
from gateway.registry.lineage.watching import Opened

__all__ = ["CommandRun", "Finished", "run_recorded"]

MAX_FILES = 50_000
"""Of the folder that is looked at before and after; what is more is not looked at."""

_APART = frozenset({"__pycache__", "node_modules", "site-packages"})


@dataclass(frozen=True, slots=True)
class Finished:
    """``lineage`` None: the command failed, and nothing was written. ``notes`` say what could not be seen."""

    status: int
    lineage: Mapping[str, Any] | None
    notes: tuple[str, ...] = ()


class CommandRun(Run):
    """A run whose training is in other processes: ``interpreter`` is the first Python among them, once it is known."""

    interpreter: str | None = None

    def environment(self) -> dict[str, Any]:
        return {} if self.interpreter is None else dict(capture_of(self.interpreter))

    def loaded(self) -> list[Path]:
        return []


def run_recorded(
    run: CommandRun,
    command: Sequence[str],
    folder: Path,
    environment: Callable[[Path], Mapping[str, str]],
    told: Callable[[], None] = lambda: None,
) -> Finished:
    """Runs it to its end, with this process's streams, and writes the run's file if it succeeds.

    ``environment`` gives the child's, with a folder first on Python's path. ``told`` is called when the command has
    ended well, and tells the run what its files say. What the training records by itself, into
    the same file, wins over what is seen from here. RegistryError when the command cannot be started.
    """
    run.begin(command)
    before = dict(_files(folder))
    stood = _stamp(run.file)
    with tempfile.TemporaryDirectory(prefix="turnout-record-") as place:
        shutil.copyfile(Path(watching.__file__), Path(place) / "sitecustomize.py")
        status = _run(command, folder, environment(Path(place)))
        opened = watching.read_log(Path(place))
    if status:
        return Finished(status, None)
    pythons = [path for kind, path, *_ in opened if kind == "python"]
    run.interpreter = pythons[0] if pythons else None
    run.saw(row for row in opened if row[0] != "python")
    run.saw(_changed(before, dict(_files(folder)), run.file))
    told()
    seen = run.to_json()
    own = recorded.read_file(run.file) if _stamp(run.file) not in (None, stood) else {}
    body = recorded.merged(own, seen)
    recorded.write_file(run.file, body)
    return Finished(0, body, () if pythons else (_NOT_SEEN,))


_NOT_SEEN = (
    "no Python was seen among what the command started (another program, or python -E or -I): neither its packages nor "
    "the files that it read are known. Name data with --data NAME=PATH"
)


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> int:
    """As a shell tells it: 128 and the signal's number for a command that a signal ended."""
    try:
        child = subprocess.Popen(command, cwd=folder, env=dict(environment))
    except OSError as error:
        raise RegistryError(f"{command[0]} cannot be run: {error.strerror}") from error
    while True:
        try:
            status = child.wait()
        except KeyboardInterrupt:  # the terminal has told the child as well, and it may have something to save
            child.send_signal(signal.SIGINT)
            continue
        return status if status >= 0 else 128 - status


def _files(folder: Path) -> Iterator[tuple[Path, tuple[int, int]]]:
    left = MAX_FILES
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in sorted(folders) if not name.startswith(".") and name not in _APART]
        if (Path(place) / "pyvenv.cfg").exists():
            folders.clear()
            continue
        for name in names:
            stamp = _stamp(Path(place) / name)
            left -= 1
            if left < 0:
                return
            if stamp is not None and not name.startswith("."):
                yield Path(place) / name, stamp


def _changed(
    before: Mapping[Path, tuple[int, int]], after: Mapping[Path, tuple[int, int]], file: Path
) -> Iterator[Opened]:
    for path, stamp in after.items():
        if before.get(path) != stamp and path != file:
            yield ("write", str(path), *stamp)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
