"""Where a version's files come from: ``opened`` turns what an operator names into files ready to be stored.

    PATH, file:PATH             this machine's: read where they are
    mlflow:… dvc:… wandb:…      another registry's: a client in a process of its own fetches them, once
    https:… s3:… gs:… az:…      likewise
    ….zip ….tar.gz              unpacked there, from wherever it comes

access        how other systems are reached
calling       one client, one request, in a process of its own (``clients/``, which never import the gateway)
fetching      the folder that fetched files lie in until they are stored
provenance    what the other system says of them
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.errors import InvalidRegistration
from gateway.registry.sources.access import ForeignPlace, SourceAccess, foreign_place, is_archive
from gateway.registry.sources.calling import call
from gateway.registry.sources.fetching import fetched, resolve
from gateway.registry.sources.file import Source, SourceFile, SourceLimits, from_path
from gateway.registry.sources.provenance import Provenance, Resolved

__all__ = [
    "ForeignPlace",
    "Provenance",
    "Resolved",
    "Source",
    "SourceAccess",
    "SourceFile",
    "SourceLimits",
    "foreign_place",
    "is_archive",
    "open_source",
    "opened",
    "resolve_source",
    "tell_mlflow",
]


@contextmanager
def opened(
    place: str | Path,
    *,
    entry: str | None = None,
    format_name: str | None = None,
    limits: SourceLimits | None = None,
    access: SourceAccess | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Source]:
    """Files, entry and format of any place, there until the block ends; of another system with their provenance.

    Blocks while files are fetched. InvalidRegistration says what is wrong with the place, SourceUnavailable that its
    system does not answer.
    """
    foreign = foreign_place(str(place))
    if foreign is None:
        yield open_source(place, entry=entry, format_name=format_name, limits=limits)
        return
    with fetched(
        foreign,
        access or SourceAccess(),
        limits or SourceLimits(),
        entry=entry,
        format_name=format_name,
        progress=progress,
    ) as source:
        yield source


def open_source(
    place: str | Path, *, entry: str | None = None, format_name: str | None = None, limits: SourceLimits | None = None
) -> Source:
    """A path of this machine, or ``file:`` and a path. InvalidRegistration says what is wrong with it."""
    scheme, colon, rest = str(place).partition(":")
    if colon and scheme == "file":
        place = "/" + rest.lstrip("/") if rest.startswith("//") else rest
    return from_path(Path(place), entry=entry, format_name=format_name, limits=limits or SourceLimits())


def resolve_source(place: str, access: SourceAccess | None = None) -> Resolved:
    """What a foreign name (``mlflow:models:/fraud@champion``) points at now: cheap, for whoever follows it. Blocks."""
    foreign = foreign_place(place)
    if foreign is None:
        raise InvalidRegistration(f"{place!r} names nothing of another system; expected mlflow:…, dvc:… or wandb:…")
    return resolve(foreign, access or SourceAccess())


def tell_mlflow(writes: Sequence[Mapping[str, Any]], access: SourceAccess) -> list[str]:
    """Sets aliases and tags in MLflow (``tell`` of its client says how one looks), and gives what it did not take, in
    its words. Blocks, and raises as ``call``."""
    place, asked = ForeignPlace("mlflow", "mlflow", "models:/"), {"writes": [dict(write) for write in writes]}
    answer = call("tell", place, access, more=asked)
    refused = answer.get("refused") if isinstance(answer, dict) else None
    return [str(text) for text in refused] if isinstance(refused, list) else []
