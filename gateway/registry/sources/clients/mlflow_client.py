"""The client of MLflow: a registered model's version, a run's model or a logged model, resolved once and downloaded.

    models:/fraud@champion    an alias, resolved once; where it has moved when the download ends, that is said
    models:/fraud/7           a version; models:/fraud/latest is the newest at this moment
    models:/m-0123…           a logged model of MLflow 3
    runs:/RUN/path            what a run logged under a path

MLflow keeps no digest of a model's files, so the folder is listed before and after: what changes meanwhile is refused.
See ``mlflow_layout`` for what is made of a flavor, and ``mlflow_facts`` for what is known of the run.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import mlflow
import mlflow_facts
import mlflow_layout
from mlflow.environment_variables import (
    MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR,
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
    MLFLOW_TRACKING_URI,
)
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository
from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository

Told = Callable[[int, int], None]

_VERSION = re.compile(r"(?P<name>[^/@]+)/(?P<version>[1-9][0-9]*|latest)")
_ALIAS = re.compile(r"(?P<name>[^/@]+)@(?P<alias>[^/@]+)")
_LOGGED = re.compile(r"m-[0-9a-f]{32}")
_RUN = re.compile(r"(?P<run>[0-9a-f]{32})/(?P<path>.+)")
_GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "ENDPOINT_NOT_FOUND", "NOT_FOUND")
_DEPTH = 32


@dataclass(frozen=True)
class Found:
    """What a name stands for. ``source``: where its files are, from which they are downloaded whatever moves."""

    name: str
    version: str
    source: str
    url: str
    alias: str | None = None
    run: str | None = None
    logged_model: str | None = None
    registered: Any = None


def fetch(request: dict[str, Any], told: Told) -> dict[str, Any]:
    client = _client(request)
    with _in_words():
        found = _found(client, request["place"])
        _check_source(found, request.get("directories"))
        work = Path(request["folder"]) / "download"
        listed = _listing(found.source, request["limits"])
        _download(found.source, work, sum(listed.values()), told)
        _check_unchanged(found, listed, _listing(found.source, request["limits"]), work)
        facts = mlflow_facts.of(client, found.run, found.logged_model, found.registered)
        remarks = [*facts.pop("remarks"), *_moved(client, found)]
    layout = mlflow_layout.lay_out(work, Path(request["folder"]), request.get("format"), request.get("entry"))
    shutil.rmtree(work)
    lineage = {**layout.pop("lineage"), **facts.pop("lineage")}
    remarks += layout.pop("remarks")
    return {**_identified(found), **facts, **layout, "lineage": lineage, "remarks": remarks}


def resolve(request: dict[str, Any]) -> dict[str, Any]:
    MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(1)
    client = _client(request)
    with _in_words():
        return _identified(_found(client, request["place"]))


def tell(request: dict[str, Any]) -> dict[str, Any]:
    """Sets aliases and tags of registered models: ``writes`` are ``{"name", "aliases": {alias: version},
    "dropped": {alias: version}, "tags": {version: {key: value}}}``. What is so already is not written; an alias is
    dropped only where it still points at the version that is named. Answers how many writes it took, and in MLflow's
    words what it does not take: of a model that was deleted there nothing can be told, and of the others all is."""
    teller = _Teller(_client(request))
    with _in_words():
        for write in request["writes"]:
            if write.get("server") in (None, _server(mlflow.get_registry_uri())):  # else another MLflow's
                teller.tell(write)
    return {"written": teller.written, "refused": teller.refused}


class _Teller:
    def __init__(self, client: Any) -> None:
        self._client = client
        self.written = 0
        self.refused: list[str] = []

    def tell(self, write: Mapping[str, Any]) -> None:
        client, name = self._client, write["name"]
        model = self._asked(name, lambda: client.get_registered_model(name))
        if model is None:
            return
        present = {alias: str(version) for alias, version in dict(model.aliases).items()}
        for alias, version in write.get("aliases", {}).items():
            if present.get(alias) != str(version):
                self._done(name, partial(client.set_registered_model_alias, name, alias, str(version)))
        for alias, version in write.get("dropped", {}).items():
            if present.get(alias) == str(version):
                self._done(name, partial(client.delete_registered_model_alias, name, alias))
        for version, tags in write.get("tags", {}).items():
            known = self._asked(f"{name} {version}", partial(client.get_model_version, name, str(version)))
            for key, value in {} if known is None else tags.items():
                if known.tags.get(key) != value:
                    self._done(name, partial(client.set_model_version_tag, name, str(version), key, value))

    def _done(self, what: str, write: Callable[[], object]) -> None:
        before = len(self.refused)
        self._asked(what, write)
        self.written += len(self.refused) == before

    def _asked(self, what: str, ask: Callable[[], Any]) -> Any:
        """None where MLflow refuses it; what is no refusal of this one write ends all of them."""
        try:
            return ask()
        except MlflowException as error:
            if error.error_code not in _GONE or _is_away(error):
                raise
            self.refused.append(f"{what}: {error.message}"[:500])
            return None


def _client(request: Mapping[str, Any]) -> Any:
    settings = request.get("settings", {})
    # Its own time-outs come to some fifteen minutes for a server that is not there.
    for variable, value in (
        (MLFLOW_HTTP_REQUEST_MAX_RETRIES, 3),
        (MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR, 1),
        (MLFLOW_HTTP_REQUEST_TIMEOUT, 30),
    ):
        if not variable.is_set():
            variable.set(value)
    if settings.get("tracking_uri"):
        mlflow.set_tracking_uri(settings["tracking_uri"])
    elif not MLFLOW_TRACKING_URI.is_set():  # MLflow would make an empty database in this folder, and look there
        raise ValueError(
            "no MLflow is named: set registry.mlflow.tracking_uri in the settings "
            "(TURNOUT_REGISTRY__MLFLOW__TRACKING_URI), or MLFLOW_TRACKING_URI"
        )
    if settings.get("registry_uri"):
        mlflow.set_registry_uri(settings["registry_uri"])
    return mlflow.MlflowClient()


def _found(client: Any, place: str) -> Found:
    scheme, _, rest = place.partition(":/")
    rest = unquote(rest.strip("/"))
    if scheme == "models" and _LOGGED.fullmatch(rest):
        return _logged(client, rest)
    if scheme == "models":
        return _registered(client, rest)
    run = _RUN.fullmatch(rest) if scheme == "runs" else None
    if run is None:
        raise ValueError(f"{place!r} is no name of MLflow's; {_EXPECTED}")
    return _of_run(client, run["run"], run["path"])


_EXPECTED = "expected models:/NAME@ALIAS, models:/NAME/VERSION, models:/m-… or runs:/RUN/PATH"


def _registered(client: Any, rest: str) -> Found:
    alias, number = _ALIAS.fullmatch(rest), _VERSION.fullmatch(rest)
    name = alias or number
    if name is None:
        raise ValueError(
            f"models:/{rest} names no version; {_EXPECTED} (stages are deprecated in MLflow: give the version an alias)"
        )
    if alias is not None:
        registered, asked = client.get_model_version_by_alias(name["name"], alias["alias"]), alias["alias"]
    elif name["version"] == "latest":
        registered, asked = _latest(client, name["name"]), "latest"
    else:
        registered, asked = client.get_model_version(name["name"], name["version"]), None
    if registered.status != "READY":
        raise ValueError(
            f"version {registered.version} of {registered.name} is {registered.status}, not READY; "
            "wait until MLflow has it whole"
        )
    version = str(registered.version)
    source = client.get_model_version_download_uri(registered.name, version)
    model = re.fullmatch(r"models:/(m-[0-9a-f]{32})", registered.source or "")
    return Found(
        registered.name,
        version,
        source,
        f"{_server(mlflow.get_registry_uri())}/#/models/{registered.name}/versions/{version}",
        alias=asked,
        run=registered.run_id or None,
        logged_model=getattr(registered, "model_id", None) or (model[1] if model else None),
        registered=registered,
    )


def _latest(client: Any, name: str) -> Any:
    versions = list(client.search_model_versions(f"name='{name}'", max_results=1, order_by=["version_number DESC"]))
    if not versions:
        raise LookupError(f"MLflow has no model {name!r} with a version")
    return versions[0]


def _logged(client: Any, model_id: str) -> Found:
    logged = client.get_logged_model(model_id)
    if str(logged.status).rpartition(".")[2] not in ("READY", "LoggedModelStatus.READY"):
        raise ValueError(f"logged model {model_id} is {logged.status}, not READY; wait until MLflow has it whole")
    url = f"{_server(mlflow.get_tracking_uri())}/#/experiments/{logged.experiment_id}/models/{model_id}"
    return Found(
        logged.name or model_id,
        model_id,
        logged.artifact_location,
        url,
        run=logged.source_run_id,
        logged_model=model_id,
    )


def _of_run(client: Any, run_id: str, path: str) -> Found:
    run = client.get_run(run_id)
    url = f"{_server(mlflow.get_tracking_uri())}/#/experiments/{run.info.experiment_id}/runs/{run_id}"
    outputs = getattr(getattr(run, "outputs", None), "model_outputs", None) or []
    for output in outputs:  # MLflow 3 keeps models beside the run's own artifacts, and under the same name
        logged = client.get_logged_model(output.model_id)
        if logged.name == path:
            return Found(
                f"runs:/{run_id}/{path}",
                logged.model_id,
                logged.artifact_location,
                url,
                run=run_id,
                logged_model=logged.model_id,
            )
    source = f"{run.info.artifact_uri.rstrip('/')}/{path}"
    return Found(f"runs:/{run_id}/{path}", run_id, source, url, run=run_id)


def _identified(found: Found) -> dict[str, Any]:
    identity = {
        "name": found.name,
        "version": found.version,
        "digest": None,
        "algorithm": None,
        "url": found.url,
    }
    return {"identity": identity, "alias": found.alias}


def _server(uri: str) -> str:
    """The address without the password that may stand in it."""
    parts = urlsplit(uri)
    if not parts.hostname:
        return uri.rstrip("/")
    host = parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))


def _check_source(found: Found, directories: list[str] | None) -> None:
    """An artifact of this machine is read only where the settings allow: an MLflow server may name any path, also by
    way of a run or another model, which have places of their own."""
    if directories is None:
        return
    repository = get_artifact_repository(found.source)
    while isinstance(repository, RunsArtifactRepository | ModelsArtifactRepository):
        repository = repository.repo
    if not isinstance(repository, LocalArtifactRepository):
        return
    real = Path(repository.artifact_dir).resolve()
    if not any(real.is_relative_to(Path(folder).resolve()) for folder in directories):
        raise PermissionError(
            f"MLflow keeps the files of {found.name} {found.version} in {real}, a folder of this machine that "
            "registry.source_directories does not allow; add it, or have the server hand artifacts out "
            "(--serve-artifacts)"
        )


def _listing(source: str, limits: Mapping[str, int]) -> dict[str, int]:
    """Name to size of each file; names that would leave the folder, and more than is taken, are refused."""
    repository, found = get_artifact_repository(source), dict[str, int]()
    waiting: list[tuple[str | None, int]] = [(None, 0)]
    while waiting:
        folder, depth = waiting.pop()
        for item in repository.list_artifacts(folder):
            _check_name(item.path)
            if item.is_dir:
                if depth >= _DEPTH:
                    raise ValueError(f"its folders are nested more than {_DEPTH} deep")
                waiting.append((item.path, depth + 1))
            else:
                found[item.path] = int(item.file_size or 0)
        if len(found) > limits["files"] or sum(found.values()) > limits["bytes"]:
            raise ValueError(
                f"it has over {limits['files']} files or {limits['bytes']} bytes, more than are taken for one version"
            )
    if not found:
        raise LookupError("MLflow has no files of it; were its artifacts removed?")
    return found


def _check_name(name: str) -> None:
    parts = name.split("/")
    if name.startswith("/") or "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"MLflow names a file {name!r}, which would lie outside the model's folder")


def _download(source: str, work: Path, total: int, told: Told) -> None:
    work.mkdir()
    with _watched(work, total, told):
        mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=str(work / "model"))


@contextmanager
def _watched(folder: Path, total: int, told: Told) -> Iterator[None]:
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            told(min(_size(folder), total), total)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        told(total, total)


def _size(folder: Path) -> int:
    size = 0
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            size += path.lstat().st_size if path.exists() else 0
    return size


def _check_unchanged(found: Found, before: Mapping[str, int], after: Mapping[str, int], work: Path) -> None:
    root = work / "model"
    came: dict[str, int] = {}
    for path in root.rglob("*"):
        if path.is_symlink():
            raise ValueError(f"{path.relative_to(root)} is a link; a model's folder holds files alone")
        if path.is_file():
            came[path.relative_to(root).as_posix()] = path.stat().st_size
    # A listing's names may begin with the folder's own, as those of a run's artifacts do.
    if before != after or sorted(came.values()) != sorted(before.values()):
        raise ValueError(
            f"the files of {found.name} {found.version} changed in MLflow while they were downloaded; import it again "
            "when whoever writes there is done"
        )


def _moved(client: Any, found: Found) -> list[str]:
    if found.alias is None:
        return []
    try:
        now = str(_registered(client, f"{found.name}@{found.alias}").version) if found.alias != "latest" else None
    except (MlflowException, ValueError):
        now = "no version"
    if now in (None, found.version):
        return []
    began = f"alias {found.alias} pointed at version {found.version} of {found.name} when the import began"
    return [f"{began}, and at {now} when it ended; version {found.version} was imported"]


@contextmanager
def _in_words() -> Iterator[None]:
    """MLflow's errors by meaning: what is not there, and what does not answer."""
    try:
        yield
    except MlflowException as error:
        if error.error_code in _GONE:
            raise LookupError(f"MLflow has none of it: {error.message}") from error
        if _is_away(error):
            raise ConnectionError(
                f"MLflow at {_server(mlflow.get_tracking_uri())} does not answer: {error.message}"
            ) from error
        raise ValueError(f"MLflow says: {error.message}") from error


def _is_away(error: MlflowException) -> bool:
    return "API request to" in error.message or error.get_http_status_code() in (429, 502, 503, 504)
