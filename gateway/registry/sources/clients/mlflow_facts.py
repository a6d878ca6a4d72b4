"""What MLflow knows of a version besides its files: run, parameters, metrics, Git commit, datasets, tags."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from mlflow.exceptions import MlflowException

_TAG_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")
_MAX_TAG = 512
_MAX_TEXT = 4000


def of(client: Any, run_id: str | None, model_id: str | None, registered: Any) -> dict[str, Any]:
    """``lineage``, ``evaluation``, ``tags`` and ``remarks``. A run or a logged model that was deleted is a remark."""
    remarks: list[str] = []
    run = _asked(lambda: client.get_run(run_id), f"run {run_id}", remarks) if run_id else None
    logged = (
        _asked(lambda: client.get_logged_model(model_id), f"logged model {model_id}", remarks) if model_id else None
    )
    # The run's last: people set them, where MLflow notes the model's own by where the script happens to lie.
    tags = {**(dict(logged.tags) if logged else {}), **(run.data.tags if run else {})}
    params = {**(run.data.params if run else {}), **(dict(logged.params or {}) if logged else {})}
    lineage = {
        "code": _code(tags),
        "data": list(_datasets(run)) or None,
        "parameters": _parameters(params),
        "run": _run(run, logged),
        "author": tags.get("mlflow.user") or getattr(registered, "user_id", None) or None,
        "notes": (getattr(registered, "description", None) or "")[:_MAX_TEXT] or None,
    }
    return {
        "lineage": {place: value for place, value in lineage.items() if value is not None},
        "evaluation": list(_evaluation(run, logged, remarks)),
        "tags": dict(_tags(getattr(registered, "tags", None) or {}, remarks)),
        "remarks": remarks,
    }


def _asked(ask: Any, what: str, remarks: list[str]) -> Any:
    try:
        return ask()
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "ENDPOINT_NOT_FOUND"):
            raise
        remarks.append(f"MLflow no longer has the {what} behind this version: parts of its lineage are lost")
        return None


def _code(tags: Mapping[str, str]) -> dict[str, Any] | None:
    """The commit, as MLflow noted it when the run began, or (MLflow 3) with the logged model."""
    code: dict[str, Any] = {}
    names = {
        "repository": ("mlflow.git.repo_url", "mlflow.source.git.repoURL"),
        "commit": ("mlflow.git.commit", "mlflow.source.git.commit"),
        "branch": ("mlflow.git.branch", "mlflow.source.git.branch"),
    }
    for place, known in names.items():
        value = next((tags[name] for name in known if tags.get(name)), None)
        if value is not None:
            code[place] = value
    if "mlflow.git.dirty" in tags:
        code["clean"] = tags["mlflow.git.dirty"].lower() != "true"
    if tags.get("mlflow.git.diff"):
        text = tags["mlflow.git.diff"].encode()
        code["patch"] = {"digest": f"sha256:{hashlib.sha256(text).hexdigest()}", "size_bytes": len(text)}
    script = tags.get("mlflow.source.name")
    if script and tags.get("mlflow.source.type") == "LOCAL":
        code["entry_point"] = {"command": ["python", script] if script.endswith(".py") else [script]}
    return code or None


def _datasets(run: Any) -> Iterator[dict[str, Any]]:
    for entry in getattr(getattr(run, "inputs", None), "dataset_inputs", None) or ():
        dataset, tags = entry.dataset, {tag.key: tag.value for tag in entry.tags}
        row: dict[str, Any] = {"name": dataset.name, "digest": dataset.digest, "algorithm": "mlflow"}
        rows = _object(dataset.profile).get("num_rows")
        if isinstance(rows, int):
            row["rows"] = rows
        if dataset.schema:
            row["schema"] = {"digest": f"sha256:{hashlib.sha256(dataset.schema.encode()).hexdigest()}"}
        place = _object(dataset.source)
        address = next((place[name] for name in ("url", "uri", "path") if isinstance(place.get(name), str)), None)
        if address:
            row["url"] = _without_secrets(address)
        if "mlflow.data.context" in tags:
            row["context"] = tags["mlflow.data.context"]
        yield row


def _without_secrets(address: str) -> str:
    """Addresses of data may be signed, or have a password in them; a manifest is for many eyes."""
    return re.sub(r"//[^/@]*@", "//", address).partition("?")[0]


def _object(text: str | None) -> Mapping[str, Any]:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _parameters(params: Mapping[str, str]) -> dict[str, Any] | None:
    if not params:
        return None
    seeds = {
        name: value for name, value in params.items() if name in ("seed", "random_state") or name.endswith("_seed")
    }
    return {"values": dict(params), **({"seeds": seeds} if seeds else {})}


def _run(run: Any, logged: Any) -> dict[str, Any] | None:
    if run is None:
        return None
    info = run.info
    found: dict[str, Any] = {
        "id": info.run_id,
        "system": "mlflow",
        "name": info.run_name,
        "experiment": info.experiment_id,
        "parent": run.data.tags.get("mlflow.parentRunId"),
        "model": None if logged is None else logged.model_id,
    }
    if info.start_time:
        found["started_at"] = datetime.fromtimestamp(info.start_time / 1000, UTC).isoformat()
        if info.end_time:
            found["duration_s"] = (info.end_time - info.start_time) / 1000
    return {name: value for name, value in found.items() if value is not None}


def _evaluation(run: Any, logged: Any, remarks: list[str]) -> Iterator[dict[str, Any]]:
    """The logged model's own metrics, with the dataset of each; of others those of its run, which says less of them.
    What was no number is 0 with the model and still none with the run (MLflow 3.17)."""
    of_run = _metrics(run)
    no_number = {name: value for name, value in of_run.items() if not math.isfinite(value)}
    own = [
        (metric.key, no_number.get(metric.key, metric.value), metric.dataset_name, metric.dataset_digest)
        for metric in getattr(logged, "metrics", None) or ()
    ]
    named = {name for name, *_ in own}
    rows = own + [(name, value, None, None) for name, value in of_run.items() if name not in named]
    for name, value, dataset, digest in sorted(rows, key=lambda row: (row[0], row[2] or "")):
        if not isinstance(value, int | float) or not math.isfinite(value):
            remarks.append(f"metric {name} is {value} in MLflow, which is no figure; it was left out")
            continue
        record: dict[str, Any] = {"metric": name, "value": value, "slice": dataset}
        yield {**record, "dataset": f"mlflow:{digest}"} if digest else record


def _metrics(run: Any) -> Mapping[str, float]:
    found: Mapping[str, float] = run.data.metrics if run else {}
    return found


def _tags(tags: Mapping[str, str], remarks: list[str]) -> Iterator[tuple[str, str]]:
    for key, value in tags.items():
        if key.startswith(("mlflow.", "turnout.")):
            continue
        if _TAG_KEY.fullmatch(key) and len(value) <= _MAX_TAG:
            yield key, value
        else:
            remarks.append(f"tag {key[:80]!r} of MLflow was left out: its name or its length is not taken here")
