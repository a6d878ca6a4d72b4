"""The files of a model in MLflow: what may be read, listed before and after the download, unchanged meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository
from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository
from mlflow_place import Found

_DEPTH = 32

Told = Callable[[int, int], None]


def check_source(found: Found, directories: list[str] | None) -> None:
    """An artifact of this machine is read only where the settings allow: an MLflow server may name any path, also by
    way of a run or another model, which have places of their own."""
    if directories is None:
        return
    repository = get_artifact_repository(found.source)
    while isinstance(repository, RunsArtifactRepository | ModelsArtifactRepository):
        repository = repository.repo
    if not isinstance(repository, LocalArtifactRepository):
        return
    real = Path(repository.artifact_dir).resolve()
    if not any(real.is_relative_to(Path(folder).resolve()) for folder in directories):
        raise PermissionError(
            f"MLflow keeps the files of {found.name} {found.version} in {real}, a folder of this machine that "
            "registry.source_directories does not allow; add it, or have the server hand artifacts out "
            "(--serve-artifacts)"
        )


def listing(source: str, limits: Mapping[str, int]) -> dict[str, int]:
    """Name to size of each file; names that would leave the folder, and more than is taken, are refused."""
    repository, found = get_artifact_repository(source), dict[str, int]()
    waiting: list[tuple[str | None, int]] = [(None, 0)]
    while waiting:
        folder, depth = waiting.pop()
        for item in repository.list_artifacts(folder):
            _check_name(item.path)
            if item.is_dir:
                if depth >= _DEPTH:
                    raise ValueError(f"its folders are nested more than {_DEPTH} deep")
                waiting.append((item.path, depth + 1))
            else:
                found[item.path] = int(item.file_size or 0)
        if len(found) > limits["files"] or sum(found.values()) > limits["bytes"]:
            raise ValueError(
                f"it has over {limits['files']} files or {limits['bytes']} bytes, more than are taken for one version"
            )
    if not found:
        raise LookupError("MLflow has no files of it; were its artifacts removed?")
    return found


def _check_name(name: str) -> None:
    parts = name.split("/")
    if name.startswith("/") or "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"MLflow names a file {name!r}, which would lie outside the model's folder")


def download(source: str, work: Path, total: int, told: Told) -> None:
    work.mkdir()
    with _watched(work, total, told):
        mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=str(work / "model"))


@contextmanager
def _watched(folder: Path, total: int, told: Told) -> Iterator[None]:
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            told(min(_size(folder), total), total)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        told(total, total)


def _size(folder: Path) -> int:
    size = 0
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            size += path.lstat().st_size if path.exists() else 0
    return size


def check_unchanged(found: Found, before: Mapping[str, int], after: Mapping[str, int], work: Path) -> None:
    root = work / "model"
    came: dict[str, int] = {}
    for path in root.rglob("*"):
        if path.is_symlink():
            raise ValueError(f"{path.relative_to(root)} is a link; a model's folder holds files alone")
        if path.is_file():
            came[path.relative_to(root).as_posix()] = path.stat().st_size
    # A listing's names may begin with the folder's own, as those of a run's artifacts do.
    if before != after or sorted(came.values()) != sorted(before.values()):
        raise ValueError(
            f"the files of {found.name} {found.version} changed in MLflow while they were downloaded; import it again "
            "when whoever writes there is done"
        )
