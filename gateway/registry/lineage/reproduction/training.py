"""The training itself, once more: its command in the folder that was made, and its files beside the version's.

The command came with the version, so whoever registered it decides what runs: it runs as whoever asks, who is shown it
first. It gets a home of its own, so that a training that registers what it makes does not do so where it came from.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway.errors import RegistryError
from gateway.registry.lineage.files import digest_of_file
from gateway.registry.lineage.places import RunRecord
from gateway.registry.lineage.recorded import HIDDEN, read_file
from gateway.registry.lineage.reproduction.asked import inside
from gateway.registry.lineage.reproduction.difference import explain_difference
from gateway.registry.lineage.reproduction.folder import Reproduction

__all__ = ["FileAgain", "TrainedAgain", "command_of", "train_again"]

LOG = "training.log"

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FileAgain:
    """A file of the version. ``state``: same, differs, or missing; ``differences`` say what exactly."""

    name: str
    state: str
    before: str
    after: str | None
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainedAgain:
    command: tuple[str, ...]
    status: int
    files: tuple[FileAgain, ...]
    metrics: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether every file of the version came out again, byte for byte."""
        return self.status == 0 and all(file.state == "same" for file in self.files)

    def to_json(self) -> dict[str, Any]:
        return {
            "command": list(self.command),
            "status": self.status,
            "same": self.same,
            "files": [asdict(file) for file in self.files],
            "metrics": list(self.metrics),
        }


def command_of(made: Reproduction, interpreter: str) -> tuple[str, ...]:
    """What would run. RegistryError where that is not known."""
    point = made.kinds.code.entry_point
    if point is None:
        raise RegistryError("the lineage names no entry point, so nothing can be run; README.md says what there is")
    if made.code is None:
        raise RegistryError("the code is not here, so nothing can be run; checks.json says why")
    hidden = [word for word in point.command if HIDDEN in word]
    if hidden:
        raise RegistryError(
            f"the command held a secret that was not kept ({', '.join(hidden)}): run it by hand, as README.md says"
        )
    first = interpreter if point.command[0] == "python" else point.command[0]
    return (first, *point.command[1:])


def train_again(
    made: Reproduction,
    version: Json,
    interpreter: str,
    *,
    environment: Mapping[str, str],
    stored: Callable[[str], Path | None],
    timeout_s: float | None = None,
) -> TrainedAgain:
    """Blocks until the training ends. ``stored`` gives a version's file by digest where its bytes are at hand, to say
    what differs. RegistryError when it cannot begin."""
    command = command_of(made, interpreter)
    point, root = made.kinds.code.entry_point, made.code
    if point is None or root is None:
        raise RegistryError("nothing can be run")
    start = root / point.folder
    if not inside(root, start) or not start.is_dir():
        raise RegistryError(f"the folder {point.folder!r} that the training was started in is not in {root}")
    status = _run(command, start, made.folder / LOG, environment, timeout_s)
    files = _files(version["manifest"], made.kinds.run, root, start, stored) if status == 0 else ()
    return TrainedAgain(command, status, files, _metrics(version["manifest"]["evaluation"], start))


def _run(
    command: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str], timeout_s: float | None
) -> int:
    with log.open("wb") as out:
        try:
            child = subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise RegistryError(f"{command[0]} cannot be run: {error.strerror}") from error
        try:
            return child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise RegistryError(f"the training took more than {timeout_s:.0f} s; its words are in {log}") from None
        finally:
            if child.poll() is None:  # too long, or interrupted: with all that it has started
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def _files(
    manifest: Json, run: RunRecord, root: Path, start: Path, stored: Callable[[str], Path | None]
) -> tuple[FileAgain, ...]:
    found = []
    for row in manifest["files"]:
        digest = f"sha256:{row['sha256']}"
        place = _made(row["name"], digest, run, root, start)
        if place is None:
            found.append(FileAgain(row["name"], "missing", digest, None))
            continue
        after = digest_of_file(place)
        before = stored(digest) if after != digest else None
        differences = explain_difference(before, place) if before is not None else ()
        found.append(FileAgain(row["name"], "same" if after == digest else "differs", digest, after, differences))
    return tuple(found)


def _made(name: str, digest: str, run: RunRecord, root: Path, start: Path) -> Path | None:
    """Where the training wrote the file then: the output with its digest; else one of its name."""
    names = [row.name for row in run.outputs if row.digest == digest]
    names += [row.name for row in run.outputs if row.name == name or row.name.endswith(f"/{name}")]
    for place in [*(root / each for each in names), start / name]:
        if inside(root, place) and place.is_file():
            return place
    return None


def _metrics(evaluation: Sequence[Json], start: Path) -> tuple[str, ...]:
    """Of a lineage file that the training has written again."""
    found = []
    for file in sorted(start.glob("*.lineage.json")):
        try:
            again = {(row["metric"], row.get("slice")): row["value"] for row in read_file(file).get("evaluation") or ()}
        except (RegistryError, KeyError, TypeError):
            continue
        for row in evaluation:
            value = again.get((row["metric"], row.get("slice")))
            if value is not None:
                same = "the same" if value == row["value"] else f"→ {value}"
                found.append(f"{row['metric']} {row['value']}: {same}")
    return tuple(found)
