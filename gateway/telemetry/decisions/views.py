"""A decision as people and programs are shown it: what was answered, by which bytes, why, and how to see it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from gateway.telemetry.decisions.fields import named
from gateway.telemetry.decisions.found import Hit
from gateway.telemetry.decisions.standing import Standing

__all__ = ["full_view", "short_view"]

KEY_SPACE = 2**32
_SHORT = ("decision", "request", "route", "model", "version", "answered", "code", "reason", "revision", "duration_us")
_RULE = ("if", "flag", "use")
"""What a rule's record may say of it: its condition in JSON Logic, or the flag that was asked; the version it picks."""


def short_view(hit: Hit) -> dict[str, Any]:
    record = named(hit.line or [])
    return {"at": _when(record["started"]), **{name: record[name] for name in _SHORT}, "failure": record["failure"]}


def full_view(hit: Hit, standing: Standing, segment: int, about: Sequence[str]) -> dict[str, Any]:
    """``about``: later control records of this decision, such as a shadow's outcome."""
    record = named(hit.line or [])
    model, number = record["model"], record["answered"] or record["version"]
    version = None if number is None else standing.version(model, number)
    view = {"at": _when(record["started"]), **{name: value for name, value in record.items() if name != "payload"}}
    if record["payload"] is not None:
        view["payload"] = orjson.loads(record["payload"])
    return {
        **view,
        "bytes": None if version is None else {key: version.get(key) for key in ("digest", "loaded")},
        "why": _why(record, standing, hit.sequence),
        "later": [orjson.loads(text) for text in about],
        "recorded": {"segment": segment, "sequence": hit.sequence, **standing.labels_at(hit.sequence)},
        "rebuild": _rebuild(record, model, number),
    }


def _why(record: Mapping[str, Any], standing: Standing, place: int) -> dict[str, Any]:
    """Pin, rule, split or fallback; of a split the weights in force, and the interval of keys that has the bucket."""
    why: dict[str, Any] = {name: record[name] for name in ("reason", "bucket", "revision", "epoch")}
    revision = record["revision"]
    entry = None if revision is None else standing.route_at(record["route"], revision, place)
    if entry is None:
        return why
    split: Mapping[str, Any] = entry
    reason = record["reason"] or ""
    if reason.startswith("rule:"):
        why["rule"] = reason[5:]
        rules = [rule for rule in entry.get("rules") or () if rule.get("name") == reason[5:]]
        split = rules[0] if rules and "weights" in rules[0] else entry
        why |= {name: rules[0][name] for name in _RULE if rules and name in rules[0]}
    why["weights"] = split.get("weights")
    why["known_good"] = entry.get("known_good")
    if record["bucket"] is not None and (interval := _interval(record["bucket"], split)) is not None:
        why["interval"] = interval
    if record["failure"] is not None:
        why["fallback"] = {"chosen": record["version"], "failed": record["failure"], "answered": record["answered"]}
    return why


def _interval(bucket: int, split: Mapping[str, Any]) -> list[int] | None:
    begin = 0
    for end, version in split.get("intervals") or ():
        if bucket < end:
            return [begin, end, version]
        begin = end
    return None


def _rebuild(record: Mapping[str, Any], model: str | None, number: int | None) -> dict[str, str]:
    if model is None or number is None:
        return {}
    return {
        "version": f"turnout show {model}/{number}",
        "lineage": f"turnout lineage {model}/{number}",
        "route": f"turnout explain {record['route']} --revision {record['revision']}",
    }


def _when(microseconds: int | None) -> str | None:
    if microseconds is None:
        return None
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="microseconds")
