"""A registration as it goes over HTTP: the source's files as a multipart upload, or the name of a source over there.

A path on this machine is uploaded. ``file:/path`` (and any other ``scheme:``) is a source that the
gateway reads itself, from its own machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from gateway.cli.backend import Registration
from gateway.cli.failures import CommandFailed
from gateway.cli.output import Meter, Steps
from gateway.registry.sources import is_archive, open_source

__all__ = ["RegistrationRequest", "registration_request"]

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:")
_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class RegistrationRequest:
    """The body of the call: either ``body`` as JSON, or ``fields`` and ``files`` as a form."""

    body: Mapping[str, Any] | None = None
    fields: Mapping[str, str] | None = None
    files: tuple[tuple[str, tuple[str, LazyFile, str]], ...] = ()


def registration_request(registration: Registration, steps: Steps) -> RegistrationRequest:
    """Raises InvalidRegistration or CommandFailed for what cannot be read here."""
    if _SCHEME.match(registration.source):
        return RegistrationRequest(
            body={"source": registration.source, **_options(registration), **_inline(registration)}
        )
    if is_archive(registration.source):  # unpacked over there, in a process of its own
        packed = Path(registration.source)
        return _form(registration, [("file", packed.name, packed)], _options(registration), steps)
    source = open_source(registration.source, entry=registration.entry, format_name=registration.format)
    sent = [("file", file.name, file.path) for file in source.files]
    options = {"entry": source.entry, **_options(registration)} if len(source.files) > 1 else _options(registration)
    return _form(registration, sent, options, steps)


def _form(
    registration: Registration, sent: list[tuple[str, str, Path]], options: Mapping[str, Any], steps: Steps
) -> RegistrationRequest:
    sent += [(name, path.name, path) for name, path in _attachments(registration)]
    meter = steps(f"sending {registration.model}", sum(_size(path) for _, _, path in sent))
    files = tuple((part, (name, LazyFile(path, meter), _TYPE)) for part, name, path in sent)
    return RegistrationRequest(fields={name: _text(value) for name, value in options.items()}, files=files)


def _options(registration: Registration) -> dict[str, Any]:
    options = {
        "entry": registration.entry,
        "format": registration.format,
        "tags": dict(registration.tags) or None,
        "placement": registration.placement,
        "device": registration.device,
        "threads": registration.threads,
        "max_rows": registration.max_rows,
        "precision": registration.precision,
        "compile": registration.compile or None,
        "cuda_graphs": registration.cuda_graphs or None,
        "retry": None if registration.retry else False,
        "own_environment": None if registration.own_environment else False,
    }
    return {name: value for name, value in options.items() if value is not None}


def _attachments(registration: Registration) -> Iterator[tuple[str, Path]]:
    for name in ("signature", "example", "golden", "reference", "evaluation", "lineage", "environment"):
        path = getattr(registration, name)
        if path is not None:
            yield name, path


def _inline(registration: Registration) -> dict[str, Any]:
    """Attachments of this machine in the body beside a source of the other; those must be JSON."""
    found = {}
    for name, path in _attachments(registration):
        try:
            data = path.read_bytes()
            found[name] = data.decode("utf-8", "replace") if name == "environment" else orjson.loads(data)
        except OSError as error:
            raise CommandFailed(f"{name} {path} cannot be read: {error.strerror}") from None
        except orjson.JSONDecodeError:
            raise CommandFailed(
                f"{name} {path} is not JSON, and cannot go beside a source that the gateway reads itself; "
                f"leave {registration.source.partition(':')[0]}: out to upload the source with it"
            ) from None
    return found


def _text(value: object) -> str:
    """A form's fields are text: JSON for what is none."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise CommandFailed(f"{path} cannot be read: {error.strerror}") from None


class LazyFile:
    """A file that is open only while it is sent, and counts what goes out: a folder may hold thousands."""

    def __init__(self, path: Path, meter: Meter) -> None:
        self._path = path
        self._meter = meter
        self._size = _size(path)
        self._file: IO[bytes] | None = None

    def read(self, size: int = -1) -> bytes:
        if self._file is None:
            self._file = self._path.open("rb")
        data = self._file.read(size)
        self._meter(len(data))
        if not data:
            self.close()
        return data

    def tell(self) -> int:
        return 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """What the client asks for the length with; reading always begins at the start."""
        self.close()
        return self._size if whence == os.SEEK_END else offset

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
