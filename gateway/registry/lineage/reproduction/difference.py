"""What exactly differs between two files: by archive member, array element, JSON place or line, else by byte.

Archives (skops, pt2, npz, jar) are compared member by member, and each member likewise, so that the answer is "one
coefficient in its last digits" or "a path in settings.json", and not "the digests differ". Bytes are never run: what is
read are zip archives, numpy arrays without objects, JSON and text.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gateway.errors import RegistryError
from gateway.registry import canonical

__all__ = ["explain_difference"]

MOST = 12
MAX_BYTES = 256 * 1024 * 1024
"""Of a file, or an archive's members, that are looked into; above, sizes alone are told."""
_MAX_MEMBERS = 10_000
_MAX_DEPTH = 3
_TEXT = 60


def explain_difference(before: Path, after: Path) -> tuple[str, ...]:
    """A sentence each; none for equal bytes. At most MOST, and then how many more."""
    sizes = before.stat().st_size, after.stat().st_size
    if max(sizes) > MAX_BYTES:
        return (f"{sizes[0]} bytes before, {sizes[1]} after: too large to look into",)
    found = list(_between(before.read_bytes(), after.read_bytes(), "", 0))
    return (*found[:MOST], f"and {len(found) - MOST} more") if len(found) > MOST else tuple(found)


def _between(before: bytes, after: bytes, place: str, depth: int) -> Iterator[str]:
    if before == after:
        return
    where = f"{place}: " if place else ""
    if depth < _MAX_DEPTH and _is_archive(before) and _is_archive(after):
        yield from _archives(before, after, place, depth)
        return
    arrays = _array(before), _array(after)
    if arrays[0] is not None and arrays[1] is not None:
        yield where + _arrays(arrays[0], arrays[1])
        return
    bodies = _json(before), _json(after)
    if bodies[0] is not None and bodies[1] is not None:
        yield from _places(*bodies, place)
        return
    yield where + (_lines(before, after) or _bytes(before, after))


def _is_archive(data: bytes) -> bool:
    return data[:4] == b"PK\x03\x04"


def _archives(before: bytes, after: bytes, place: str, depth: int) -> Iterator[str]:
    try:
        one, two = _members(before), _members(after)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
        yield f"{place or 'archive'}: {_bytes(before, after)} (it cannot be read as an archive: {error})"
        return
    found = False
    for name in sorted({*one, *two}):
        inner = f"{place}/{name}" if place else name
        left, right = one.get(name), two.get(name)
        if left is None or right is None:
            found = True
            yield f"{inner}: {'new' if left is None else 'gone'}"
        elif left != right:
            found = True
            yield from _between(left, right, inner, depth + 1)
    if not found:
        yield f"{place or 'archive'}: the same members, packed otherwise (order, times or compression)"


def _members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
        if len(infos) > _MAX_MEMBERS or sum(info.file_size for info in infos) > MAX_BYTES:
            raise zipfile.BadZipFile("too large to look into")
        return {info.filename: archive.read(info) for info in infos}


def _array(data: bytes) -> Any:
    if data[:6] != b"\x93NUMPY":
        return None
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError):
        return None


def _arrays(before: Any, after: Any) -> str:
    if before.dtype != after.dtype or before.shape != after.shape:
        return f"{before.dtype} {list(before.shape)} before, {after.dtype} {list(after.shape)} after"
    apart = int((before != after).sum())
    told = f"{apart} of {before.size} elements differ"
    if before.dtype.kind not in "fiub" or not apart:
        return told
    gap = np.abs(before.astype(np.float64) - after.astype(np.float64))
    scale = float(np.nanmax(np.abs(before.astype(np.float64)))) or 1.0
    return f"{told}, by {float(np.nanmax(gap)):.3g} at most ({float(np.nanmax(gap)) / scale:.1e} of the largest)"


def _json(data: bytes) -> Any:
    if data[:1] not in (b"{", b"["):
        return None
    try:
        return canonical.loads_any(data, what="file")
    except RegistryError:
        return None


def _places(before: Any, after: Any, place: str) -> Iterator[str]:
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            yield from _places(
                before.get(key), after.get(key), f"{place}#{key}" if "#" not in place else f"{place}.{key}"
            )
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (left, right) in enumerate(zip(before, after, strict=True)):
            yield from _places(left, right, f"{place}[{number}]")
    else:
        yield f"{place}: {_shown(before)} before, {_shown(after)} after"


def _lines(before: bytes, after: bytes) -> str | None:
    try:
        one, two = before.decode("utf-8").splitlines(), after.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        return None
    if "\0" in one[0] if one else False:
        return None
    for number, (left, right) in enumerate(zip(one, two, strict=False), 1):
        if left != right:
            return f"line {number}: {_shown(left)} before, {_shown(right)} after"
    return f"{len(one)} lines before, {len(two)} after, or the ends of lines differ"


def _bytes(before: bytes, after: bytes) -> str:
    short = min(len(before), len(after))
    one, two = np.frombuffer(before[:short], np.uint8), np.frombuffer(after[:short], np.uint8)
    apart = np.flatnonzero(one != two)
    sizes = f"{len(before)} bytes before, {len(after)} after; " if len(before) != len(after) else ""
    if not len(apart):
        return f"{sizes}the shorter is the beginning of the longer"
    return f"{sizes}{len(apart)} of {short} bytes differ, the first at byte {int(apart[0])}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"
