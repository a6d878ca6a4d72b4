"""The client of object stores: ``s3:``, ``gs:`` and ``az:`` through fsspec.

    s3://bucket/models/fraud              one object, or all below a prefix
    s3://bucket/fraud.onnx#sha256=HEX     what comes must have that digest
    s3://bucket/fraud.tar.gz              unpacked, within limits

Credentials are where the vendors look for them. A store's own marks (an ETag) tell whether it changed meanwhile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import unpacking
from url_client import Address, Told, address_of, copied, finish, identity


def fetch(request: dict[str, Any], told: Told) -> dict[str, Any]:
    address, folder = address_of(request["place"]), Path(request["folder"])
    mark, digests = _from_store(address, folder / "files", request, told)
    only = next(iter(digests.values())) if len(digests) == 1 else None
    finish(address, folder, only, request["limits"])
    return {"identity": identity(address, mark, only or mark, "sha256" if only else "etag")}


def resolve(request: dict[str, Any]) -> dict[str, Any]:
    address = address_of(request["place"])
    mark = _version(_objects(*_opened(address), request["limits"]))
    return {"identity": identity(address, mark, mark, "etag")}


def _opened(address: Address) -> tuple[Any, str]:
    filesystem, path = fsspec.core.url_to_fs(address.url, skip_instance_cache=True)
    return filesystem, str(path)


def _from_store(
    address: Address, files: Path, request: Mapping[str, Any], told: Told
) -> tuple[str | None, dict[str, str]]:
    """The store's mark of all of it, and each file's SHA-256."""
    limits = request["limits"]
    with _in_words():
        filesystem, path = _opened(address)
        before = _objects(filesystem, path, limits)
        total, done = sum(item["size"] for item in before.values()), 0
        digests: dict[str, str] = {}
        for name, item in before.items():
            begun = _Begun(told, done, total)
            with filesystem.open(item["name"], "rb") as source:
                target = files / (name or address.name)
                digests[name or address.name] = copied(source, target, item["size"], limits, begun)
            done += item["size"]
        if _version(_objects(filesystem, path, limits)) != _version(before):
            raise ValueError("it changed while it was downloaded; import it again when whoever writes there is done")
    return _version(before), digests


class _Begun:
    """Progress of one file among several."""

    def __init__(self, told: Told, before: int, total: int) -> None:
        self._told = told
        self._before = before
        self._total = total

    def __call__(self, done: int, _: int) -> None:
        self._told(self._before + done, self._total)


def _objects(filesystem: Any, path: str, limits: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Name below the path (empty for the one object that it is) to what the store says of it."""
    with _in_words():
        found = filesystem.find(path, detail=True)
    if not found:
        raise LookupError("there is nothing")
    top = path.rstrip("/")
    objects = {}
    for name, item in sorted(found.items()):
        below = name[len(top) :].lstrip("/") if name.startswith(top) else name
        if below.endswith("/") or (item.get("size") == 0 and item.get("type") == "directory"):
            continue
        objects[unpacking.checked(below) if below else ""] = {**item, "size": int(item["size"] or 0), "name": name}
    if len(objects) > limits["files"] or sum(item["size"] for item in objects.values()) > limits["bytes"]:
        raise ValueError(
            f"it has over {limits['files']} files or {limits['bytes']} bytes, more than are taken for one version"
        )
    return objects


def _version(objects: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The store's own name of the object as it is now; of several, a digest over theirs."""
    marks = {name: _mark(item) for name, item in objects.items()}
    if any(mark is None for mark in marks.values()):
        return None
    if len(marks) == 1:
        return next(iter(marks.values()))
    lines = "".join(f"{mark}  {name}\n" for name, mark in sorted(marks.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _mark(item: Mapping[str, Any]) -> str | None:
    found = next((item[key] for key in ("ETag", "etag", "md5Hash", "content_md5") if item.get(key)), None)
    return None if found is None else str(found).strip('"')


@contextmanager
def _in_words() -> Iterator[None]:
    """Errors of stores by meaning. Their clients have trees of their own, so that names tell more than classes."""
    try:
        yield
    except (ValueError, LookupError, ImportError, ConnectionError):
        raise
    except Exception as error:
        name, text = type(error).__name__, f"{type(error).__name__}: {error}"
        if isinstance(error, FileNotFoundError) or name in ("NoSuchBucket", "NoSuchKey"):
            raise LookupError(f"there is nothing: {error}") from error
        if isinstance(error, PermissionError) or "Credentials" in name or "Auth" in name:
            raise PermissionError(f"the store does not give it: {text}") from error
        if isinstance(error, OSError) or "Connection" in name or "Timeout" in name:
            raise ConnectionError(f"the store does not answer: {text}") from error
        raise
