"""The client of MLflow: a registered model's version, a run's model or a logged model, resolved once and downloaded.

    models:/fraud@champion    an alias, resolved once; where it has moved when the download ends, that is said
    models:/fraud/7           a version; models:/fraud/latest is the newest at this moment
    models:/m-0123…           a logged model of MLflow 3
    runs:/RUN/path            what a run logged under a path

MLflow keeps no digest of a model's files, so the folder is listed before and after: what changes meanwhile is refused.
See ``mlflow_place`` for what a name stands for, ``mlflow_files`` for the download, ``mlflow_layout`` for what is made
of a flavor, ``mlflow_facts`` for what is known of the run, and ``mlflow_telling`` for what is written there.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import mlflow_facts
import mlflow_files
import mlflow_layout
import mlflow_place
from mlflow.environment_variables import (
    MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR,
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
    MLFLOW_TRACKING_URI,
)
from mlflow_telling import Teller
from mlflow_words import in_words, server


def fetch(request: dict[str, Any], told: mlflow_files.Told) -> dict[str, Any]:
    client = _client(request)
    with in_words():
        found = mlflow_place.found(client, request["place"])
        mlflow_files.check_source(found, request.get("directories"))
        work = Path(request["folder"]) / "download"
        listed = mlflow_files.listing(found.source, request["limits"])
        mlflow_files.download(found.source, work, sum(listed.values()), told)
        mlflow_files.check_unchanged(found, listed, mlflow_files.listing(found.source, request["limits"]), work)
        facts = mlflow_facts.of(client, found.run, found.logged_model, found.registered)
        remarks = [*facts.pop("remarks"), *mlflow_place.moved(client, found)]
    layout = mlflow_layout.lay_out(work, Path(request["folder"]), request.get("format"), request.get("entry"))
    shutil.rmtree(work)
    lineage = {**layout.pop("lineage"), **facts.pop("lineage")}
    remarks += layout.pop("remarks")
    return {**_identified(found), **facts, **layout, "lineage": lineage, "remarks": remarks}


def resolve(request: dict[str, Any]) -> dict[str, Any]:
    MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(1)
    client = _client(request)
    with in_words():
        return _identified(mlflow_place.found(client, request["place"]))


def tell(request: dict[str, Any]) -> dict[str, Any]:
    """Sets aliases and tags of registered models: ``writes`` are ``{"name", "aliases": {alias: version},
    "dropped": {alias: version}, "tags": {version: {key: value}}}``. What is so already is not written; an alias is
    dropped only where it still points at the version that is named. Answers how many writes it took, and in MLflow's
    words what it does not take: of a model that was deleted there nothing can be told, and of the others all is."""
    teller = Teller(_client(request))
    with in_words():
        for write in request["writes"]:
            if write.get("server") in (None, server(mlflow.get_registry_uri())):  # else another MLflow's
                teller.tell(write)
    return {"written": teller.written, "refused": teller.refused}


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


def _identified(found: mlflow_place.Found) -> dict[str, Any]:
    identity = {
        "name": found.name,
        "version": found.version,
        "digest": None,
        "algorithm": None,
        "url": found.url,
    }
    return {"identity": identity, "alias": found.alias}
