"""The client of Weights & Biases: the files of one artifact, checked against its manifest, and that against its digest.

    entity/project/name:alias    an alias or a version (``v3``), resolved once; without one, ``latest``

The SDK keeps files in a cache by their digest and believes what lies there, so every import has a cache of its own that
starts empty; and it compares no digest itself, so all of them are computed here again. An entry that is a reference to
another place has bytes that W&B neither keeps nor hashes: such an artifact is refused, by name.

place      what a name says
contents   the manifest, its digest, and the files
lineage    the run that logged the artifact, and what that run had used
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import wandb
from wandb.errors import CommError, UsageError
from wandb.sdk.lib.service.service_connection import WandbApiFailedError

from .contents import Contents, algorithm_of, page_of
from .lineage import lineage_of
from .place import Place, parse

Told = Callable[[int, int], None]

_TIMEOUT_S = 30
_PATIENCE = {"RETRY_MAX": "2", "RETRY_WAIT_MIN_SECONDS": "0.2", "RETRY_WAIT_MAX_SECONDS": "2"}
"""The SDK's own is minutes for one question, since it serves trainings that run for days."""


_LOGIN = "set WANDB_API_KEY where Turnout runs, or log in there with `wandb login`"


def fetch(request: dict[str, Any], told: Told) -> dict[str, Any]:
    folder = Path(request["folder"])
    with _session(request, folder / "scratch") as api:
        place = parse(request["place"])
        artifact = _found(api, place)
        contents = Contents.of(artifact)
        contents.check(request["limits"])
        contents.download(folder / "files", told)
        known = lineage_of(artifact)
        known["remarks"] += _moved(api, place, artifact)
        return {**_identified(artifact, place), **known, "tags": _tags(artifact)}


def resolve(request: dict[str, Any]) -> dict[str, Any]:
    with _session(request, Path(request["folder"]) / "scratch") as api:
        place = parse(request["place"])
        return _identified(_found(api, place), place)


@contextmanager
def _session(request: dict[str, Any], scratch: Path) -> Iterator[wandb.Api]:
    """The public API, with folders of its own, and with what the vendor raises in the words of ``child.py``."""
    for name in ("DIR", "CACHE_DIR", "DATA_DIR", "ARTIFACT_DIR"):
        (scratch / name.lower()).mkdir(parents=True)
        os.environ[f"WANDB_{name}"] = str(scratch / name.lower())
    for name, value in _PATIENCE.items():
        os.environ[f"WANDB__GRAPHQL_{name}"] = value
    base_url = request.get("settings", {}).get("base_url")
    if base_url is not None:
        os.environ["WANDB_BASE_URL"] = base_url
    try:
        yield wandb.Api(timeout=_TIMEOUT_S)
    except UsageError as error:
        raise PermissionError(f"{error} ({_LOGIN})") from error
    except (CommError, WandbApiFailedError) as error:
        raise _translated(error) from error
    finally:
        wandb.teardown()


def _found(api: wandb.Api, place: Place) -> wandb.Artifact:
    """The SDK says of an artifact that is not there what it says of a server's mistake; the cause tells them apart."""
    try:
        return api.artifact(place.text)
    except (CommError, ValueError) as error:
        cause = error.exc if isinstance(error, CommError) else error
        if isinstance(cause, AssertionError):  # the SDK's own, of an artifact that has no identity yet
            raise LookupError(f"{place.text} was not logged to its end, or was deleted") from error
        if isinstance(cause, ValueError):
            raise LookupError(f"{error}; expected wandb:ENTITY/PROJECT/NAME:ALIAS of an artifact there") from error
        raise


def _identified(artifact: wandb.Artifact, place: Place) -> dict[str, Any]:
    """The artifact itself, whatever collection its name was found in: a registry's entry links to it."""
    identity = {
        "name": artifact.source_qualified_name.rpartition(":")[0],
        "version": artifact.source_version,
        "digest": artifact.digest,
        "algorithm": algorithm_of(artifact),
        "url": page_of(artifact),
    }
    return {"identity": identity, "alias": None if place.is_version else place.alias}


def _tags(artifact: wandb.Artifact) -> dict[str, str]:
    """The artifact's own, which have no values, and its type."""
    found = {"wandb.type": str(artifact.type)}
    if artifact.tags:
        found["wandb.tags"] = ", ".join(sorted(artifact.tags))
    return {name: value[:512] for name, value in found.items() if value}


def _moved(api: wandb.Api, place: Place, artifact: wandb.Artifact) -> list[str]:
    if place.is_version:
        return []
    now = _found(api, place)
    if now.id == artifact.id:
        return []
    return [
        f"{place.text} moved to {now.source_version} while {artifact.source_version} was downloaded, which was taken"
    ]


def _translated(error: Exception) -> Exception:
    """By the status that the server answered with; without one it did not answer, unless it refused the question."""
    cause = getattr(error, "exc", None) or error.__cause__ or error
    response = getattr(cause, "response", None)
    status = getattr(response, "http_status", 0) or getattr(response, "status_code", 0)
    if status in (401, 403):
        return PermissionError(f"{error}; {_LOGIN}, and check the project's rights")
    if status == 404:
        return LookupError(str(error))
    if (not status and "input:" not in str(error)) or status >= 500 or status in (408, 429):
        return ConnectionError(str(error))
    return ValueError(str(error))
