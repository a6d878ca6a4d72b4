"""What comes beside a version's artifact: signature, example, golden cases, lineage, evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.errors import InvalidRegistration
from gateway.messages import Signature
from gateway.registry.examples import Example
from gateway.registry.offered import read_offered_json, refusing
from gateway.registry.parts import EvaluationRecord, Lineage

__all__ = ["Attachments", "read_evaluation", "read_golden", "read_lineage", "read_recorded", "read_signature"]


@dataclass(frozen=True, slots=True)
class Attachments:
    """All of it, read; ``example`` is one request's inputs, typed once the signature is known."""

    signature: Signature | None
    example: Example | None
    lineage: Lineage
    evaluation: tuple[EvaluationRecord, ...]


def read_signature(path: Path) -> Signature:
    """``{"inputs": [{"name", "datatype", "shape"}], "outputs": […], "batched": true}``."""
    body = read_offered_json(path, "signature")
    with refusing(f"signature {path}"):
        if not isinstance(body, Mapping):
            raise InvalidRegistration(f"signature {path}: expected an object with inputs and outputs")
        signature = Signature.from_json(body)
    if signature.batched:
        fixed = [spec.name for spec in (*signature.inputs, *signature.outputs) if not _counts_rows(spec.shape)]
        if fixed:
            raise InvalidRegistration(
                f"signature {path}: it says that versions are batched, but the first axis of {', '.join(fixed)} "
                'is no named axis; name it ("batch"), or set "batched": false'
            )
    return signature


def _counts_rows(shape: tuple[int | str, ...]) -> bool:
    return bool(shape) and isinstance(shape[0], str)


def read_lineage(path: Path) -> Lineage:
    """An object with any of code, data, parameters, environment, features, run, parent, author, notes; JSON or YAML."""
    return read_recorded(path)[0]


def read_recorded(path: Path) -> tuple[Lineage, tuple[EvaluationRecord, ...]]:
    """A lineage file, and the metrics that the recorder writes into it under ``evaluation``."""
    body = read_offered_json(path, "lineage")
    with refusing(f"lineage {path}"):
        if not isinstance(body, Mapping):
            return Lineage.from_json(body, "lineage"), ()
        places = {name: value for name, value in body.items() if name != "evaluation"}
        return Lineage.from_json(places, "lineage"), _evaluation(body.get("evaluation") or [])


def read_evaluation(path: Path) -> tuple[EvaluationRecord, ...]:
    """A list of ``{"metric", "value", "n", "slice", "interval", "dataset"}``, or ``{"accuracy": 0.97}`` for short."""
    body = read_offered_json(path, "evaluation")
    with refusing(f"evaluation {path}"):
        return _evaluation(body)


def _evaluation(body: Any) -> tuple[EvaluationRecord, ...]:
    if isinstance(body, Mapping) and "metric" not in body:
        body = [{"metric": name, "value": value} for name, value in body.items()]
    rows = body if isinstance(body, list) else [body]
    return tuple(EvaluationRecord.from_json(row, f"evaluation[{index}]") for index, row in enumerate(rows))


def read_golden(path: Path) -> Example:
    """``{"cases": [{"inputs": …, "outputs": …}, …]}``; the first case's inputs are an example as good as any."""
    body: Any = read_offered_json(path, "golden file")
    cases = body.get("cases") if isinstance(body, Mapping) else None
    if not isinstance(cases, list) or not cases:
        raise InvalidRegistration(f'golden file {path}: expected {{"cases": [{{"inputs": …, "outputs": …}}]}}')
    for index, case in enumerate(cases):
        if not isinstance(case, Mapping) or not {"inputs", "outputs"} <= case.keys():
            raise InvalidRegistration(f"golden file {path}: case {index} lacks inputs or outputs")
    return Example.of_body({"inputs": cases[0]["inputs"]}, f"golden file {path}, case 0")
