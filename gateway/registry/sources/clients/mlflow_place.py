"""What a name of MLflow's stands for, resolved once; ``mlflow_client`` lists the names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import mlflow
from mlflow.exceptions import MlflowException
from mlflow_words import server

_VERSION = re.compile(r"(?P<name>[^/@]+)/(?P<version>[1-9][0-9]*|latest)")
_ALIAS = re.compile(r"(?P<name>[^/@]+)@(?P<alias>[^/@]+)")
_LOGGED = re.compile(r"m-[0-9a-f]{32}")
_RUN = re.compile(r"(?P<run>[0-9a-f]{32})/(?P<path>.+)")

_EXPECTED = "expected models:/NAME@ALIAS, models:/NAME/VERSION, models:/m-… or runs:/RUN/PATH"


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


def found(client: Any, place: str) -> Found:
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
        f"{server(mlflow.get_registry_uri())}/#/models/{registered.name}/versions/{version}",
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
    url = f"{server(mlflow.get_tracking_uri())}/#/experiments/{logged.experiment_id}/models/{model_id}"
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
    url = f"{server(mlflow.get_tracking_uri())}/#/experiments/{run.info.experiment_id}/runs/{run_id}"
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


def moved(client: Any, found: Found) -> list[str]:
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
