"""Sets of tensors on their way to the recorder, and the one digest of each, however it was sent.

The canonical form of a set of tensors: for each, in the order of their names, one line of JSON ``[name, datatype,
shape]`` (ASCII, no spaces, a newline), and then its bytes in C order, little-endian; of strings (BYTES) each with its
length before it, in four bytes. A digest is SHA-256 over all of it, in hexadecimal. So equal tensors have one digest,
whether they came as JSON or in binary form.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from gateway.messages import Array, Arrays, datatype_of

__all__ = ["PackedTensors", "bytes_of", "digest_of", "heading", "pack_tensors", "unpack_tensors"]

PackedTensors = Sequence[tuple[str, str, tuple[int, ...], Any]]
"""Names, numpy types (``O``: a list of ``bytes``), shapes, and something that ``marshal`` writes as bytes."""

_STRINGS = "O"
_SMALL_BYTES = 4096


def digest_of(arrays: Arrays, without: Collection[str] = ()) -> str:
    """Of all tensors but those named in ``without``. ValueError for an array that no datatype of the protocol fits."""
    digest, small = hashlib.sha256(), b""
    for name in sorted(arrays):
        if name in without:
            continue
        array = arrays[name]
        small += heading(name, datatype_of(array), array.shape)
        if array.dtype.kind in "OSU":
            octets = map(_octets, array.ravel().tolist())
            small += b"".join(len(one).to_bytes(4, "little") + one for one in octets)
        elif array.nbytes <= _SMALL_BYTES:  # copied: a call of the digest costs more
            small += array.tobytes()
        else:
            digest.update(small)
            digest.update((array if array.flags.c_contiguous else np.ascontiguousarray(array)).data)
            small = b""
    digest.update(small)
    return digest.hexdigest()


@lru_cache(maxsize=1024)
def heading(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    """What stands before a tensor's bytes in the canonical form."""
    return json.dumps([name, datatype, shape], separators=(",", ":")).encode("ascii") + b"\n"


def _octets(text: Any) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogateescape")


def bytes_of(arrays: Arrays) -> int:
    """About what they hold; a string counts with what it says."""
    return sum(
        array.nbytes + sum(map(len, array.ravel().tolist())) if array.dtype.hasobject else array.nbytes
        for array in arrays.values()
    )


def pack_tensors(arrays: Arrays) -> PackedTensors:
    """For ``marshal``, which writes a contiguous array as its bytes, without a copy before."""
    packed: list[tuple[str, str, tuple[int, ...], Any]] = []
    for name, array in arrays.items():
        kind = array.dtype
        if kind.hasobject or kind.kind in "SU":
            packed.append((name, _STRINGS, array.shape, [_octets(text) for text in array.ravel().tolist()]))
        else:
            packed.append((name, kind.char, array.shape, array if array.flags.c_contiguous else array.tobytes()))
    return packed


def unpack_tensors(packed: PackedTensors) -> Mapping[str, Array]:
    """Views of the bytes that came, which cannot be written to."""
    return {name: _unpacked(kind, shape, body) for name, kind, shape, body in packed}


def _unpacked(kind: str, shape: tuple[int, ...], body: Any) -> Array:
    if kind == _STRINGS:
        texts = np.empty(len(body), dtype=object)
        texts[:] = body
        return texts.reshape(shape)
    return np.frombuffer(body, dtype=kind).reshape(shape)
