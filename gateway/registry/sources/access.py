"""How other systems are reached, and which of a place's names belong to which."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import quote

__all__ = ["CLIENTS", "ForeignPlace", "SourceAccess", "foreign_place", "is_archive"]

CLIENTS: Mapping[str, str] = {
    "mlflow": "mlflow",
    "dvc": "dvc",
    "wandb": "wandb",
    "http": "url",
    "https": "url",
    "s3": "store",
    "gs": "store",
    "az": "store",
    "abfs": "store",
}
"""Scheme to client (``clients/NAME_client.py``)."""

_WHOLE = ("url", "store")
"""Clients of addresses, in which the scheme belongs to the name."""

_ARCHIVE = re.compile(r".*\.(zip|tar|tgz|tar\.gz)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ForeignPlace:
    """``mlflow:models:/fraud@champion`` is ``models:/fraud@champion`` of ``mlflow``; a URL stays whole."""

    scheme: str
    client: str
    name: str

    @property
    def text(self) -> str:
        return self.name if self.client in _WHOLE else f"{self.scheme}:{self.name}"


@dataclass(frozen=True, slots=True)
class SourceAccess:
    """``interpreters``: by client, the one that has its vendor's packages; this one where none is named. ``settings``:
    by client, what it is told (addresses; never secrets, which it finds where its vendor looks for them). ``folder``:
    where fetched files lie until they are stored; the system's own folder for such files where None. ``directories``:
    folders of this machine that a system may point at; None: all. ``stopping``: once it is set, calls end at once."""

    interpreters: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    folder: Path | None = None
    directories: tuple[Path, ...] | None = None
    timeout_s: float = 3600.0
    resolve_timeout_s: float = 60.0
    stopping: Event = field(default_factory=Event, compare=False)


def foreign_place(place: str) -> ForeignPlace | None:
    """None for a path of this machine. An archive of this machine is unpacked by a client too, in its process."""
    scheme, colon, rest = place.partition(":")
    if colon and scheme in CLIENTS:
        client = CLIENTS[scheme]
        return ForeignPlace(scheme, client, place if client in _WHOLE else rest)
    path = rest if colon and scheme == "file" else place
    path = "/" + path.lstrip("/") if path.startswith("//") else path
    if is_archive(path) and Path(path).is_file():
        return ForeignPlace("file", "url", f"file://{quote(str(Path(path).absolute()))}")
    return None


def is_archive(name: str) -> bool:
    """By its suffix; ``clients/unpacking.py`` says what it must be."""
    return _ARCHIVE.fullmatch(name) is not None
