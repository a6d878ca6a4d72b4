"""Where a version's files come from: ``open_source`` turns what an operator names into files ready to be stored."""

from __future__ import annotations

from pathlib import Path

from gateway.errors import InvalidRegistration
from gateway.registry.sources.file import Source, SourceFile, SourceLimits, from_path

__all__ = ["Source", "SourceFile", "SourceLimits", "open_source"]

_LATER = ("mlflow", "wandb", "dvc", "s3", "gs", "http", "https")


def open_source(
    place: str | Path, *, entry: str | None = None, format_name: str | None = None, limits: SourceLimits | None = None
) -> Source:
    """Files, entry and format of a path, or of ``file:`` and a path. InvalidRegistration says what is wrong with it."""
    scheme, colon, rest = str(place).partition(":")
    if colon and scheme == "file":
        place = "/" + rest.lstrip("/") if rest.startswith("//") else rest
    elif colon and scheme in _LATER:
        raise InvalidRegistration(
            f"source {str(place)!r}: {scheme}: is not available in this version; "
            "download the artifact and register the file or folder"
        )
    return from_path(Path(place), entry=entry, format_name=format_name, limits=limits or SourceLimits())
