"""What W&B knows of how an artifact came to be: the run that logged it, with its configuration and what it used."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import wandb
from wandb.errors import CommError

from .contents import algorithm_of, page_of

_MAX_METRICS = 200
_MAX_INPUTS = 1000
_SEEDS = ("seed", "random_state")


def lineage_of(artifact: wandb.Artifact) -> dict[str, Any]:
    """``lineage`` and ``evaluation`` in the words of a manifest, and ``remarks`` on what is not to be had any more."""
    own = {"notes": artifact.description} if artifact.description else {}
    try:
        run = artifact.logged_by()
    except (ValueError, CommError) as error:
        if _away(error):
            raise
        return {"lineage": own, "evaluation": [], "remarks": [f"the run that logged it cannot be read: {error}"]}
    if run is None:
        return {"lineage": own, "evaluation": [], "remarks": ["no run is known to have logged it: it has no lineage"]}
    data, remarks = _data(run)
    metadata = run.metadata or {}
    lineage = {
        "code": _code(run, metadata),
        "data": data,
        "parameters": _parameters(_plain(dict(run.config))),
        "environment": _environment(metadata),
        "run": _run(run, artifact),
        "author": getattr(run.user, "username", None) if run.user else None,
        **own,
    }
    kept = {place: value for place, value in lineage.items() if value}
    return {"lineage": kept, "evaluation": _metrics(run), "remarks": remarks}


def _away(error: Exception) -> bool:
    """The server's failure, and not its answer that the run is not there: the import is better tried again."""
    cause = getattr(error, "exc", None)
    return isinstance(error, CommError) and not isinstance(cause, ValueError)


def _code(run: Any, metadata: dict[str, Any]) -> dict[str, Any]:
    git = metadata.get("git") or {}
    remote = re.sub(r"//[^/@]*@", "//", git.get("remote") or "")  # a password may stand there
    code: dict[str, Any] = {"repository": remote, "commit": run.commit or git.get("commit")}
    program = metadata.get("codePath") or metadata.get("program")
    if program:
        command = ["python", str(program), *(str(word) for word in metadata.get("args") or [])]
        code["entry_point"] = {"command": command, "folder": "."}
    return {name: value for name, value in code.items() if value}


def _data(run: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """The artifacts that the run declared with ``use_artifact``, and what is to be said of them."""
    rows: list[dict[str, Any]] = []
    for used in run.used_artifacts():
        if len(rows) == _MAX_INPUTS:
            return rows, [f"the run used more than {_MAX_INPUTS} artifacts; the first of them are kept"]
        name = used.source_qualified_name
        row = {"name": name.rpartition(":")[0], "digest": f"{algorithm_of(used)}:{used.digest}"}
        pointer = {"name": name, "type": used.type}
        rows.append(row | {"size_bytes": used.size, "url": page_of(used), "wandb": pointer})
    return sorted(rows, key=lambda row: str(row["name"])), []


def _parameters(config: dict[str, Any]) -> dict[str, Any]:
    if not config:
        return {}
    seeds = {name: value for name, value in config.items() if name.lower().split(".")[-1] in _SEEDS}
    return {"values": {name: value for name, value in config.items() if name not in seeds}, "seeds": seeds}


def _plain(value: Any) -> Any:
    """As JSON has it: a figure that is no number becomes its name."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _environment(metadata: dict[str, Any]) -> dict[str, Any]:
    found = {"python": metadata.get("python"), "os": metadata.get("os")}
    if metadata.get("cudaVersion"):
        found["cuda"] = {"version": metadata["cudaVersion"], "device": metadata.get("gpu")}
    return {name: value for name, value in found.items() if value}


def _run(run: Any, artifact: wandb.Artifact) -> dict[str, Any]:
    path = f"{run.entity}/{run.project}/{run.id}"
    found = {"system": "wandb", "id": path, "name": run.name, "url": run.url, "started_at": run.created_at}
    return {name: value for name, value in found.items() if value} | {"logged": artifact.source_qualified_name}


def _metrics(run: Any) -> list[dict[str, Any]]:
    """The run's summary: the last value of each thing it logged."""
    found = [{"metric": name, "value": value} for name, value in _figures(dict(run.summary), "")]
    return sorted(found, key=lambda row: str(row["metric"]))[:_MAX_METRICS]


def _figures(body: dict[str, Any], above: str) -> Iterator[tuple[str, float]]:
    """Numbers, below their names; what W&B counts for itself begins with an underscore."""
    for name, value in body.items():
        if str(name).startswith("_"):
            continue
        place = f"{above}.{name}" if above else str(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield place, float(value)
        elif hasattr(value, "items"):
            yield from _figures(dict(value), place)
