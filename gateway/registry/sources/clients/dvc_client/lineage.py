"""What stages of DVC say of a version: the data, code and parameters it was made of, and the metrics measured on it.

``dvc.yaml`` says how a file is made, ``dvc.lock`` with which bytes and values it was made last; both are the commit's.
Stages are followed upstream to the files that nobody made. Nothing here is run.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator
from typing import Any

from dvc.dependency import ParamsDependency, RepoDependency
from dvc.output import Output
from dvc.stage import Stage

from .tree import Tree

_CODE = (".py", ".ipynb", ".r", ".jl", ".sh", ".sql", ".scala", ".java", ".cpp", ".rs")
_SEEDS = ("seed", "random_state")
_SHELL = set("|&;<>$`(){}*?\n")
_MAX_ROWS = 1000
_MAX_METRICS = 200


def lineage_of(tree: Tree) -> dict[str, Any]:
    """``lineage`` and ``evaluation``, in the words of a manifest."""
    made = [stage for stage in _stages_at(tree) if stage.cmd]
    steps = _upstream(tree, made)
    lineage = {
        "code": _code(tree, made, steps),
        "data": _data(tree, steps),
        "parameters": _parameters(tree, steps),
        "run": {"system": "dvc", "id": _address(tree, made[0]), "stages": _commands(tree, steps)} if made else None,
        "parent": next((_imported(stage) for stage in _stages_at(tree) if stage.is_repo_import), None),
    }
    return {"lineage": {place: value for place, value in lineage.items() if value}, "evaluation": _metrics(tree, made)}


def _stages_at(tree: Tree) -> list[Stage]:
    """Those whose outputs are at the path, above it or below it."""
    found: list[Stage] = []
    for out in tree.outs():
        if out.stage not in found:
            found.append(out.stage)
    return found


def _upstream(tree: Tree, made: list[Stage]) -> list[Stage]:
    """``made`` and all stages that made what they read, nearest first."""
    found = list(made)
    for stage in found:  # grows while it is walked
        for dependency in _read(stage):
            maker = _maker(tree, dependency)
            if maker is not None and maker.cmd and maker not in found:
                found.append(maker)
    return found


def _read(stage: Stage) -> Iterator[Any]:
    return (found for found in stage.deps if not isinstance(found, ParamsDependency))


def _maker(tree: Tree, dependency: Any) -> Stage | None:
    out = _out_at(tree, dependency.fs_path)
    return None if out is None else out.stage


def _out_at(tree: Tree, path: str) -> Output | None:
    """The output that is the path, holds it, or lies in it."""
    near = [out for out in tree.index_outs() if out.fs_path == path or path.startswith(out.fs_path + "/")]
    return next(iter(near or [out for out in tree.index_outs() if out.fs_path.startswith(path + "/")]), None)


def _data(tree: Tree, steps: list[Stage]) -> list[dict[str, Any]]:
    made_from: dict[str, dict[str, Any]] = {}
    for stage in steps:
        for dependency in _read(stage):
            row = _row(tree, dependency)
            if not _is_code(row["name"]):
                made_from.setdefault(row["name"], row)
    return [made_from[name] for name in sorted(made_from)][:_MAX_ROWS]


def _row(tree: Tree, dependency: Any) -> dict[str, Any]:
    """One input. ``digest`` as ``dvc.lock`` has it: what the stage read, whatever lies there by now."""
    name = tree.named(dependency.fs_path) if dependency.protocol == "local" else str(dependency)
    row: dict[str, Any] = {"name": name}
    if dependency.hash_info and dependency.hash_info.value:
        row["digest"] = f"{dependency.hash_info.name}:{dependency.hash_info.value}"
    if dependency.meta is not None and dependency.meta.size is not None:
        row["size_bytes"] = dependency.meta.size
    return row | {"path": name, "dvc": _pointer(tree, dependency, name)}


def _pointer(tree: Tree, dependency: Any, name: str) -> dict[str, Any]:
    """Where DVC has it from: a ``.dvc`` file, another repository at a locked commit, or a stage."""
    out = _out_at(tree, dependency.fs_path)
    pointer: dict[str, Any] = {"path": name}
    if out is None:
        return pointer
    if out.stage.is_repo_import:
        return pointer | _imported(out.stage)
    return pointer | {"stage" if out.stage.cmd else "file": _address(tree, out.stage)}


def _imported(stage: Stage) -> dict[str, Any]:
    """``rev_lock``: the exact commit of the other repository."""
    dependency = stage.deps[0]
    if not isinstance(dependency, RepoDependency):
        return {}
    known = dependency.def_repo
    address = re.sub(r"//[^/@]*@", "//", known.get("url") or "")  # a password may stand there
    body = {"system": "dvc", "repository": address, "path": dependency.def_path, "rev": known.get("rev")}
    return {name: value for name, value in (body | {"rev_lock": known.get("rev_lock")}).items() if value}


def _is_code(name: str) -> bool:
    return name.lower().endswith(_CODE)


def _code(tree: Tree, made: list[Stage], steps: list[Stage]) -> dict[str, Any]:
    checkout = tree.checkout
    code: dict[str, Any] = {
        "repository": checkout.address,
        "commit": checkout.commit,
        "tree": checkout.tree(),
        "clean": True,
    }
    read = [_row(tree, dependency) for stage in steps for dependency in _read(stage)]
    files = {row["name"]: row["digest"] for row in read if _is_code(row["name"]) and "digest" in row}
    if files:
        code["files"] = files
    if made:
        folder = tree.named(tree.repo.fs.abspath(made[0].wdir))
        code["entry_point"] = {"command": _words(made[0].cmd), "folder": folder or "."}
    return code


def _words(command: str | list[str]) -> list[str]:
    line = command if isinstance(command, str) else " && ".join(command)
    if _SHELL & set(line):
        return ["sh", "-c", line]
    try:
        return shlex.split(line)
    except ValueError:  # a quotation that never ends: the shell's to say
        return ["sh", "-c", line]


def _commands(tree: Tree, steps: list[Stage]) -> list[dict[str, Any]]:
    """What was run, first things first."""
    return [{"name": _address(tree, stage), "command": stage.cmd} for stage in reversed(steps)][:_MAX_ROWS]


def _address(tree: Tree, stage: Stage) -> str:
    """``dvc.yaml:train``, or the ``.dvc`` file."""
    where = tree.named(stage.path)
    name = getattr(stage, "name", None)
    return f"{where}:{name}" if name else where


def _parameters(tree: Tree, steps: list[Stage]) -> dict[str, Any]:
    """As ``dvc.lock`` has them. A key of another file than ``params.yaml`` is named with its file."""
    values: dict[str, Any] = {}
    for stage in steps:
        for dependency in stage.deps:
            if isinstance(dependency, ParamsDependency) and isinstance(dependency.hash_info.value, dict):
                file = tree.named(dependency.fs_path)
                start = "" if posixpath.basename(file) == ParamsDependency.DEFAULT_PARAMS_FILE else f"{file}:"
                for key, value in dependency.hash_info.value.items():
                    values.setdefault(start + key, value)
    seeds = {key: value for key, value in values.items() if key.rpartition(":")[2].split(".")[-1].lower() in _SEEDS}
    rest = {key: value for key, value in values.items() if key not in seeds}
    return {"values": rest, "seeds": seeds} if values else {}


def _metrics(tree: Tree, made: list[Stage]) -> list[dict[str, Any]]:
    """Of the stage that made it, and of those that read it: ``evaluate`` after ``train``."""
    own = {out.fs_path for stage in made for out in stage.outs}
    readers = [stage for stage in tree.index_stages() if stage.cmd and _reads(stage, own) and stage not in made]
    rows: list[dict[str, Any]] = []
    for stage in [*made, *readers]:
        files = [out.fs_path for out in stage.outs if out.metric]
        dataset = _dataset(tree, stage, own) if stage in readers else None
        for metric, value in _figures(tree, files):
            rows.append({"metric": metric, "value": value} | ({"dataset": dataset} if dataset else {}))
    return rows[:_MAX_METRICS]


def _reads(stage: Stage, own: set[str]) -> bool:
    return any(dependency.fs_path in own for dependency in _read(stage))


def _dataset(tree: Tree, stage: Stage, own: set[str]) -> str | None:
    """What an evaluation was over: the only data it read beside the version."""
    rows = [_row(tree, found) for found in _read(stage) if found.fs_path not in own]
    digests = [row["digest"] for row in rows if "digest" in row and not _is_code(row["name"])]
    return digests[0] if len(digests) == 1 else None


def _figures(tree: Tree, files: list[str]) -> Iterator[tuple[str, float]]:
    if not files:
        return
    shown = tree.repo.metrics.show(targets=files, on_error="ignore")
    for by_file in shown.values():
        for body in by_file.get("data", {}).values():
            yield from _leaves(body.get("data"), "")


def _leaves(body: Any, above: str) -> Iterator[tuple[str, float]]:
    if isinstance(body, dict):
        for name, value in body.items():
            yield from _leaves(value, f"{above}.{name}" if above else str(name))
    elif isinstance(body, int | float) and not isinstance(body, bool) and above:
        yield above, float(body)
