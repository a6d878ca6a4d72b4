"""Feature steps in order, and a digest of what was fitted: equal states give equal digests, in any process.

Pickles will not do for a digest: equal objects may pickle to different bytes (which strings are shared, in which order
a set is walked). So the object is taken apart by the pickle protocol (``__reduce_ex__``) and its parts are hashed:
class, state, arrays by type, shape and bytes, numbers by their shortest text, mappings and sets in the order of their
parts' digests. Code is hashed by its name alone. numpy and scikit-learn are recognised by what they offer, and are
not imported.
"""

from __future__ import annotations

import copyreg
import hashlib
import types
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gateway.errors import RegistryError
from gateway.registry import canonical
from gateway.registry.lineage.files import digest_of_file

__all__ = ["describe", "fitted_digest"]

MAX_DEPTH = 200
_PROTOCOL = 4
_MAX_TEXT = 500
_ADDRESSES = frozenset({"_stop_words_id"})
"""State that is an address in memory: scikit-learn's vectorizers keep one, to see whether their words were changed."""
_CODE = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType)


def describe(fitted: Any) -> dict[str, Any]:
    """``{"steps": [{"name", "kind", "parameters", "digest"}], "digest"}`` of a fitted transformer, a pipeline of them,
    or a list of ``(name, transformer)``, or ``(name, Path)`` of a file that holds one. RegistryError for what cannot be
    taken apart."""
    rows = [{"name": name, **_step(step)} for name, step in _steps(fitted)]
    text = canonical.dumps([[row["name"], row["digest"]] for row in rows])
    return {"steps": rows, "digest": canonical.digest_of(text)}


def fitted_digest(value: Any) -> str:
    """RegistryError when the value holds what no pickle could hold."""
    try:
        return canonical.DIGEST_PREFIX + _Walk().digest(value, 0).hex()
    except (TypeError, AttributeError, RecursionError) as error:
        raise RegistryError(
            f"a fitted {_kind(value)} cannot be taken apart for its digest: {error}. Save it to a file and name that "
            "instead: run.features([(name, Path(file))])"
        ) from error


def _step(step: Any) -> dict[str, Any]:
    if isinstance(step, Path):
        return {"kind": "file", "parameters": {}, "digest": digest_of_file(step)}
    return {"kind": _kind(step), "parameters": _parameters(step), "digest": fitted_digest(step)}


def _steps(fitted: Any) -> list[tuple[str, Any]]:
    """Nested pipelines become one list: ``scale``, ``features.pca``."""
    if isinstance(fitted, Sequence) and not isinstance(fitted, str):
        rows = list(fitted)
    else:
        rows = list(getattr(fitted, "steps", None) or getattr(fitted, "transformers_", None) or [])
        if not rows:
            return [(_kind(fitted).rpartition(".")[2], fitted)]
    found: list[tuple[str, Any]] = []
    for row in rows:
        name, step = row[0], row[1]
        inner = _steps(step) if getattr(step, "steps", None) or getattr(step, "transformers_", None) else []
        found += [(f"{name}.{below}", part) for below, part in inner] or [(str(name), step)]
    return found


def _kind(step: Any) -> str:
    if isinstance(step, str):
        return step
    return f"{type(step).__module__}.{type(step).__qualname__}"


def _parameters(step: Any) -> dict[str, Any]:
    """As scikit-learn tells them; what is no JSON is told by its text."""
    ask = getattr(step, "get_params", None)
    if not callable(ask) or isinstance(step, type):
        return {}
    return {str(name): _plain(value) for name, value in sorted(ask(deep=False).items())}


def _plain(value: Any) -> Any:
    try:
        return canonical.thaw(canonical.freeze(value))
    except RegistryError:
        return repr(value)[:_MAX_TEXT]


class _Walk:
    """One object's parts. Whether two equal parts are one and the same changes nothing; a part that holds itself is
    told by how far up it stands, so that rings end."""

    def __init__(self) -> None:
        self._done: dict[int, bytes] = {}
        self._open: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no number of an object is given twice

    def digest(self, value: Any, depth: int) -> bytes:
        if depth > MAX_DEPTH:
            raise RecursionError(f"nested deeper than {MAX_DEPTH}")
        simple = _simple(value)
        if simple is not None:
            return _hash(*simple)
        if isinstance(value, _CODE):
            return _hash("code", f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}")
        number = id(value)
        if number in self._open:
            return _hash("ring", str(depth - self._open[number]))
        if number not in self._done:
            self._kept.append(value)
            self._open[number] = depth
            self._done[number] = self._parts(value, partial(self.digest, depth=depth + 1))
            del self._open[number]
        return self._done[number]

    def _parts(self, value: Any, part: Any) -> bytes:
        kind = _kind(value)
        if isinstance(value, list | tuple):
            return _hash(kind, *(part(item) for item in value))
        if type(value) in (set, frozenset):
            return _hash(kind, *sorted(part(item) for item in value))
        if isinstance(value, Mapping) and type(value) in (dict, types.MappingProxyType):
            kept = [(key, item) for key, item in value.items() if key not in _ADDRESSES]
            return _hash("dict", *sorted(part(key) + part(item) for key, item in kept))
        array = _array(value)
        if array is not None:
            return _hash("array", str(array.dtype), repr(array.shape), self._bytes(array, part))
        if isinstance(value, partial):
            return _hash(kind, part(value.func), part(value.args), part(value.keywords))
        return self._reduced(value, kind, part)

    @staticmethod
    def _bytes(array: Any, part: Any) -> bytes:
        if array.dtype.hasobject:
            return bytes(part(array.tolist()))
        return hashlib.sha256(array.tobytes(order="C")).digest()

    @staticmethod
    def _reduced(value: Any, kind: str, part: Any) -> bytes:
        reducer = copyreg.dispatch_table.get(type(value))
        reduced = value.__reduce_ex__(_PROTOCOL) if reducer is None else reducer(value)
        if isinstance(reduced, str):
            return _hash(kind, reduced)
        call, arguments, *rest = reduced
        parts = [part(call), part(tuple(arguments))]
        state, items, pairs = (*rest, None, None, None)[:3]
        parts.append(part(state))
        parts += [] if items is None else [part(list(items))]
        parts += [] if pairs is None else [part([list(pair) for pair in pairs])]
        return _hash(kind, *parts)


def _simple(value: Any) -> tuple[str, ...] | tuple[str, bytes] | None:
    if value is None or isinstance(value, bool) or type(value) in (int, float, complex, str):
        return (type(value).__name__, repr(value))
    if isinstance(value, bytes | bytearray):
        return ("bytes", bytes(value))
    return None


def _array(value: Any) -> Any:
    """numpy's arrays and scalars as they are, torch's tensors through numpy; None for anything else."""
    if all(hasattr(value, name) for name in ("dtype", "shape", "tobytes")):
        return value
    if type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach"):
        return value.detach().cpu().contiguous().numpy()
    return None


def _hash(kind: str, *parts: str | bytes) -> bytes:
    digest = hashlib.sha256()
    for part in (kind, *parts):
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()
