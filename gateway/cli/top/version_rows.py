"""A version's row: state, process, memory, queue, batches, and how it does."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from gateway.cli.top.picture import VersionRow
from gateway.cli.top.rates import Increase, Look
from gateway.cli.top.told import (
    DRIFT,
    FALLBACKS,
    MANY_ERRORS,
    MEMORY,
    REQUESTS,
    RESTARTS,
    ROWS,
    WAITING,
    Facts,
    gauge,
    is_error,
    per_second,
    share,
    standing_routes,
    version_of,
)

__all__ = ["version_rows", "version_urgency"]

Json = Mapping[str, Any]
Key = tuple[str, int]

_WHOLE = "all"
"""The feature that stands for all of them in the metrics of drift."""
_ABSENT = "absent"


def version_rows(look: Look, increase: Increase, facts: Facts, models: Collection[str] | None) -> Iterator[VersionRow]:
    standing = _on_routes(look)
    known = {**standing, **{key: {} for key in gauge(look, WAITING, version_of)}, **facts.versions}
    asked = increase.sums(REQUESTS, version_of)
    failed = increase.sums(REQUESTS, lambda labels: version_of(labels) if is_error(labels) else None)
    mended = _mended(look, increase)
    batches, rows = increase.sums(f"{ROWS}_count", version_of), increase.sums(f"{ROWS}_sum", version_of)
    memory, waiting = gauge(look, MEMORY, version_of), gauge(look, WAITING, version_of)
    restarts, drift, devices = gauge(look, RESTARTS, version_of), _drift(look), _devices(look)
    for key in known:
        if models is not None and key[0] not in models:
            continue
        told = {**facts.versions.get(key, {}), **standing.get(key, {})}
        held, count = memory.get(key), batches.get(key, 0.0)
        yield VersionRow(
            model=key[0],
            version=key[1],
            state=str(told.get("state", "-")),
            reason=str(told.get("reason") or ""),
            pid=told.get("pid"),
            device=str(told.get("device") or devices.get(key) or "-"),
            memory_bytes=None if held is None else int(held),
            queue_rows=int(waiting.get(key, 0)),
            batch_rows=rows.get(key, 0.0) / count if count else None,
            requests_s=per_second(asked.get(key, 0.0) / (increase.span_s or 1.0), increase),
            errors=share(max(failed.get(key, 0.0), mended.get(key, 0.0)), asked.get(key, 0.0)),
            drift=drift.get(key),
            restarts=int(restarts.get(key, 0)),
        )


def _mended(look: Look, increase: Increase) -> dict[Key, float]:
    """Failures that fallbacks were asked to make good: clients have seen none of those that they made good."""
    models = {name: str(route["model"]) for name, route in standing_routes(look).items()}
    return increase.sums(FALLBACKS, lambda labels: version_of({**labels, "model": models.get(labels["route"], "")}))


def _on_routes(look: Look) -> dict[Key, Json]:
    """State and reason of the versions that routes name, told at every look and without a token; without those that
    are not here and need not be."""
    return {
        (str(route["model"]), int(row["version"])): {"state": row["state"], "reason": row["reason"]}
        for route in standing_routes(look).values()
        for row in route["versions"]
        if row["state"] != _ABSENT or (row["weight"] and not row["quarantined"])
    }


def _drift(look: Look) -> dict[Key, int]:
    """Features with an alarm; one where only the whole has moved."""
    found: dict[Key, int] = {}
    whole: dict[Key, int] = {}
    for labels, value in look.samples.get(DRIFT, {}).items():
        told = dict(labels)
        key = version_of(told)
        if key is not None:
            into = whole if told.get("feature") == _WHOLE else found
            into[key] = into.get(key, 0) + int(value)
    return {key: max(found.get(key, 0), whole.get(key, 0)) for key in {*found, *whole}}


def _devices(look: Look) -> dict[Key, str]:
    """Another than the processor, where it holds memory of both."""
    found: dict[Key, str] = {}
    for labels in look.samples.get(MEMORY, {}):
        told = dict(labels)
        key = version_of(told)
        if key is not None and found.get(key, "cpu") == "cpu":
            found[key] = told.get("device", "")
    return found


def version_urgency(row: VersionRow) -> tuple[int, str, int]:
    rank = 0 if row.state == "failed" else 1 if (row.errors or 0.0) >= MANY_ERRORS or row.drift else 2
    return rank, row.model, row.version
