"""Builds one environment in a folder: the standard library's venv, then pip, in processes that end with this one.

pip runs in the new environment's Python without being put there, as its own ``--python`` option does it. Wheels alone
are installed unless the settings say otherwise, since building a source package runs its author's code.
"""

from __future__ import annotations

import importlib.machinery
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic

from gateway.errors import StorageFull
from gateway.registry.environments.contents import folder_bytes, python_of
from gateway.registry.environments.lock import Lock
from gateway.registry.environments.mismatch import EnvironmentRefused
from gateway.registry.environments.pythons import find_python
from gateway.registry.inspection import end_group
from gateway.settings_environments import EnvironmentSettings
from runtimes import boot

__all__ = ["LOCK", "Build", "Told"]

LOCK = "lock.txt"
"""In an environment: the lock file that it was built from."""

Told = Callable[[str], None]
"""Called with what is being done, in a line of words."""

_LOOK_S = 0.5
_TAIL_LINES = 40
_WORDS = 1500


class Build:
    """One build. ``room_bytes``: how large it may become. ``end`` may be called from another thread."""

    def __init__(self, lock: Lock, folder: Path, settings: EnvironmentSettings, *, room_bytes: int, told: Told) -> None:
        self._lock = lock
        self._folder = folder
        self._settings = settings
        self._room_bytes = room_bytes
        self._told = told
        self._limit = 0.0
        self._child: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()
        self._why: Exception | None = None

    def __repr__(self) -> str:
        return f"<Build {self._folder.name} [{len(self._lock.packages)} packages]>"

    def run(self) -> str:
        """Gives the environment's version of Python. EnvironmentRefused or StorageFull: what was written stays."""
        self._limit = monotonic() + self._settings.build_timeout_s
        python, version = find_python(self._lock.python, self._settings.pythons)
        bundled = _bundled_pip() if version.split(".")[:2] == [str(part) for part in sys.version_info[:2]] else None
        self._told(f"making an environment with Python {version}")
        without = [] if bundled is None else ["--without-pip"]
        self._do([str(python), "-I", "-m", "venv", "--symlinks", *without, str(self._folder)], "venv")
        (self._folder / LOCK).write_bytes(self._lock.text)
        asked = self._folder / "requirements.txt"
        asked.write_text("".join(f"{package.text}\n" for package in self._lock.packages), "utf-8")
        temporary = self._folder / "tmp"
        temporary.mkdir()
        pip = ["-m", "pip"] if bundled is None else [str(bundled)]
        self._do([str(python_of(self._folder)), "-E", "-s", *pip, *self._arguments(asked)], "pip", temporary)
        with suppress(OSError):
            temporary.rmdir()
        self._look()
        self._check()
        return version

    def end(self, why: Exception) -> None:
        """Ends it where it is; ``run`` raises ``why``."""
        self._why = self._why or why
        self._ended.set()
        child = self._child
        if child is not None and child.poll() is None:
            end_group(child)

    def _arguments(self, asked: Path) -> list[str]:
        settings = self._settings
        arguments = ["install", "--requirement", str(asked), "--no-input", "--disable-pip-version-check"]
        arguments += ["--progress-bar", "off", "--no-color", "--no-warn-script-location", "--no-user"]
        arguments += ["--require-hashes"] if self._lock.hashed else []
        arguments += [] if settings.source else ["--only-binary", ":all:"]
        arguments += ["--no-index"] if settings.offline else []
        for place, index in enumerate(() if settings.offline else settings.indexes):
            arguments += ["--extra-index-url" if place else "--index-url", index]
        for folder in settings.wheels:
            arguments += ["--find-links", str(folder.absolute())]
        return arguments

    def _do(self, command: Sequence[str], what: str, temporary: Path | None = None) -> None:
        """Runs one program to its end, telling what it says; bounded in time and disk."""
        started = boot.command("starting", [str(os.getpid()), str(temporary or ""), *command])
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._check()
        pipe, none = subprocess.PIPE, subprocess.DEVNULL
        with subprocess.Popen(started, stdin=none, stdout=pipe, stderr=subprocess.STDOUT, process_group=0) as child:
            self._child = child
            done = threading.Event()
            watch = threading.Thread(target=self._watch, args=(done,), name="turnout-build-watch")
            watch.start()
            try:
                for line in child.stdout or ():
                    tail.append(line.decode("utf-8", "replace").rstrip())
                    self._tell(tail[-1])
                child.wait()
            finally:
                done.set()
                watch.join()
                end_group(child)
        self._check()
        if child.returncode != 0:
            raise self._failed(what, child.returncode, list(tail))

    def _check(self) -> None:
        if self._why is not None:
            raise self._why

    def _watch(self, done: threading.Event) -> None:
        pause = _LOOK_S
        while not done.wait(pause):
            began = monotonic()
            self._look()
            pause = max(_LOOK_S, 10 * (monotonic() - began))  # a large one takes long to look through

    def _look(self) -> None:
        settings = self._settings
        if monotonic() > self._limit:
            self.end(
                EnvironmentRefused(
                    f"the environment was not built within {settings.build_timeout_s:g} s; see whether its packages "
                    "can be fetched here, or raise registry.environments.build_timeout_s"
                )
            )
        elif folder_bytes(self._folder) > self._room_bytes:
            self.end(
                StorageFull(
                    f"the environment would make all environments take more than {settings.max_bytes} bytes; free some "
                    "with turnout gc, or raise registry.environments.max_bytes"
                )
            )

    def _tell(self, line: str) -> None:
        words = line.split()
        if len(words) > 1 and words[0] == "Collecting":
            self._told(f"fetching {words[1]}")
        elif line.startswith("Installing collected packages"):
            self._told("installing " + line.partition(":")[2].strip())

    def _failed(self, what: str, status: int, tail: list[str]) -> Exception:
        told = [line for line in tail if "ERROR" in line] or tail[-5:]
        words = " ".join(line.strip() for line in told if "notice" not in line)[-_WORDS:]
        if any("No space left on device" in line or "Disk quota exceeded" in line for line in tail):
            return StorageFull(f"the environment cannot be built, the disk is full: {words}")
        return EnvironmentRefused(
            f"the environment cannot be built: {what} ended with status {status}: {words or 'it said nothing'}"
        )


def _bundled_pip() -> Path | None:
    """The file that runs this interpreter's pip in another one. Looked for on the path alone: setuptools' finder, asked
    for pip, takes its distutils away from this process for good, and then nothing here can import setuptools."""
    found = importlib.machinery.PathFinder.find_spec("pip")
    for folder in [] if found is None else found.submodule_search_locations or ():
        runner = Path(folder) / "__pip-runner__.py"
        if runner.is_file():
            return runner
    return None
