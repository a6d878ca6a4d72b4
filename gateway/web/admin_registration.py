"""What a registration asks: a JSON body that names a source, or an upload with its options as form fields.

Both take the same options. In JSON, ``signature``, ``example``, ``golden``, ``evaluation``, ``lineage``
and (as text) ``environment`` may stand in the body itself, or name a file (``file:…``) beside the source.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from gateway.errors import FieldProblem, InvalidInput, InvalidRegistration
from gateway.registry import canonical
from gateway.registry.disk import explained
from gateway.registry.registration import RegistrationOptions
from gateway.registry.sources import foreign_place
from gateway.registry.sources.access import CLIENTS
from gateway.web.admin_upload import ATTACHMENTS, Upload

__all__ = ["Asked", "flag", "read_registration"]

_TEXTS = frozenset({"entry", "format", "device", "placement", "interpreter", "precision"})
_NUMBERS = frozenset({"threads", "max_rows", "queue_rows", "hang_floor_ms"})
_FLAGS: Mapping[str, str] = {
    "retry": "retry",
    "batched": "batched",
    "verify": "prove",
    "compile": "compile",
    "cuda_graphs": "cuda_graphs",
    "own_environment": "own_environment",
}
"""Field to option. ``verify`` False registers without trying the version first."""
_OBJECTS = frozenset({"tags", "options"})
_MOST = 2**31 - 1
_MAX_PLACE = 2000


@dataclass(frozen=True, slots=True)
class Asked:
    source: Path | str
    options: RegistrationOptions


def read_registration(
    body: Mapping[str, Any], folder: Path, *, upload: Upload | None, sources: Sequence[Path]
) -> Asked:
    """``folder`` takes attachments that stand in the body. Raises InvalidInput or InvalidRegistration."""
    options: dict[str, Any] = {}
    for name, value in body.items():
        if value is None or (name == "source" and upload is None):
            continue
        if name in ATTACHMENTS and upload is None:
            options[name] = _attachment(name, value, folder, sources)
        else:
            options[_FLAGS.get(name, name)] = _option(name, value)
    if upload is None:
        return Asked(_place(body.get("source"), sources), RegistrationOptions(**options))
    options.update(upload.attachments)
    if not upload.names:
        problem = FieldProblem("file", "at least one part with the artifact", "none")
        raise InvalidInput("the upload has no artifact: send it as a part named file", problem)
    single = len(upload.names) == 1 and "/" not in upload.names[0]
    source = upload.artifact / upload.names[0] if single else upload.artifact
    return Asked(source, RegistrationOptions(**options))


def _option(name: str, value: Any) -> Any:
    """A form sends text where JSON sends values; both must end in the option's type."""
    if name in _TEXTS:
        if isinstance(value, str) and 0 < len(value) <= 1000:
            return value
        raise _wrong(name, "text", value)
    if name in _NUMBERS:
        number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
        if type(number) is int and 1 <= number <= _MOST:
            return number
        raise _wrong(name, "a whole number from 1 on", value)
    if name in _FLAGS:
        return flag(name, value)
    if name in _OBJECTS:
        return _object(name, value)
    known = ", ".join(sorted({"source", *_TEXTS, *_NUMBERS, *_FLAGS, *_OBJECTS, *ATTACHMENTS}))
    raise InvalidInput(f"unknown field {name[:60]!r}; registration takes {known}", FieldProblem(name[:60], known, "it"))


def flag(name: str, value: Any) -> bool:
    """Also as a form's text."""
    found = {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
    if type(found) is bool:
        return found
    raise _wrong(name, "true or false", value)


def _object(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise _wrong(name, "a JSON object", value) from None
    texts = name != "tags" or (isinstance(value, dict) and all(isinstance(text, str) for text in value.values()))
    if not isinstance(value, dict) or not texts:
        raise _wrong(name, "an object of texts" if name == "tags" else "an object", value)
    return value


def _attachment(name: str, value: Any, folder: Path, sources: Sequence[Path]) -> Path:
    if isinstance(value, str) and value.startswith("file:"):
        return _source(value, sources)
    if name == "environment" and isinstance(value, str):
        return _written(folder / "lock.txt", name, value.encode("utf-8", "replace"))
    if not isinstance(value, dict | list) or name in ("reference", "environment"):
        raise _wrong(name, "a file: on the gateway's machine, or (but for reference) the JSON itself", value)
    return _written(folder / f"{name}.json", name, _dumped(name, value))


def _written(path: Path, name: str, data: bytes) -> Path:
    with explained(f"keep the {name}"):
        path.write_bytes(data)
    return path


def _dumped(name: str, value: Any) -> bytes:
    try:
        return json.dumps(value).encode()
    except RecursionError:
        raise _wrong(name, f"at most {canonical.MAX_DEPTH} levels", "more") from None


def _place(value: Any, sources: Sequence[Path]) -> Path | str:
    """A source of another system as it is named, or what ``file:`` names here."""
    if isinstance(value, str) and len(value) <= _MAX_PLACE and foreign_place(value) is not None:
        return value
    return _source(value, sources)


def _source(value: Any, sources: Sequence[Path]) -> Path:
    """A path on this machine, with its links followed, inside a folder that the settings allow."""
    if not isinstance(value, str) or not value:
        raise _wrong("source", "file:/path of the artifact on the gateway's machine (or send an upload)", value)
    scheme, colon, rest = value.partition(":")
    if not colon or scheme != "file":
        raise InvalidRegistration(
            f"source {value[:200]!r}: over the network a source is file:/path on the gateway's machine, or what "
            f"another system has ({', '.join(f'{scheme}:' for scheme in CLIENTS)}). Or send the files as "
            "multipart/form-data"
        )
    path = Path("/" + rest.lstrip("/") if rest.startswith("//") else rest)
    try:
        real = path.resolve(strict=True)
        allowed = any(real.is_relative_to(folder.resolve()) for folder in sources)
    except (OSError, RuntimeError, ValueError):
        real, allowed = path, False
    if not allowed:
        raise InvalidRegistration(
            f"source {value[:200]!r} is not there, or not in a folder that registry.source_directories allows; "
            "add its folder to the settings, or send the files as multipart/form-data"
        )
    return real


def _wrong(name: str, expected: str, value: Any) -> InvalidInput:
    got = "nothing" if value is None else repr(value)[:60]
    return InvalidInput(f"{name}: expected {expected}, got {got}", FieldProblem(name, expected, got))
