"""What changed from one version to another: code, data, parameters, environment, features, metrics, and what is served.

Pure: from two manifests as JSON. A kind of which either side knows nothing is told as unknown, never as equal. Metrics
of the same evaluation set are compared as they are; whether two figures are apart is left to their intervals, and said
only where both have one and they do not touch (which is stricter than a test of the difference).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.registry.lineage.kinds import read_kinds
from gateway.registry.lineage.places import DataInput, Kinds

__all__ = ["Change", "Comparison", "Section", "compare"]

SECTIONS = ("code", "data", "parameters", "environment", "features", "metrics", "files", "serving")
_SERVING = ("format", "entry", "signature", "runtime", "effects", "golden", "profile", "environment")

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """``before`` or ``after`` None: it is new, or gone. ``note`` says what the two mean for each other."""

    what: str
    before: Any
    after: Any
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        body = {"what": self.what, "before": self.before, "after": self.after}
        return body | ({"note": self.note} if self.note else {})


@dataclass(frozen=True, slots=True)
class Section:
    """One kind. ``state``: same, changed, or unknown (on one side or both)."""

    name: str
    state: str
    changes: tuple[Change, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"state": self.state, "changes": [change.to_json() for change in self.changes]}


@dataclass(frozen=True, slots=True)
class Comparison:
    sections: tuple[Section, ...]

    @property
    def changed(self) -> tuple[str, ...]:
        return tuple(section.name for section in self.sections if section.state == "changed")

    def to_json(self) -> dict[str, Any]:
        return {section.name: section.to_json() for section in self.sections}


def compare(before: Json, after: Json) -> Comparison:
    """Two manifests as JSON."""
    one, two = _kinds(before), _kinds(after)
    found = {
        "code": tuple(_code(one, two)),
        "data": tuple(_data(one.data, two.data)),
        "parameters": tuple(_parameters(one, two)),
        "environment": tuple(_environment(one, two)),
        "features": tuple(_features(one, two)),
        "metrics": tuple(_metrics(before["evaluation"], after["evaluation"])),
        "files": tuple(_files(before["files"], after["files"])),
        "serving": tuple(_flat_changes(_serving(before), _serving(after))),
    }
    for name in SECTIONS[:5]:
        if not found[name] and one.digests.get(name) != two.digests.get(name) and name in one.digests:
            places = ({name: manifest["lineage"].get(name)} for manifest in (before, after))
            found[name] = tuple(_flat_changes(next(places), next(places)))  # what no field is known for
    states = {name: _state(name, one, two, changes) for name, changes in found.items()}
    return Comparison(tuple(Section(name, states[name], found[name]) for name in SECTIONS))


def _kinds(manifest: Json) -> Kinds:
    return read_kinds(manifest["lineage"], manifest["evaluation"])


def _state(name: str, one: Kinds, two: Kinds, changes: Sequence[Change]) -> str:
    unknown = name not in ("files", "serving") and not (name in one.digests and name in two.digests)
    return "unknown" if unknown else "changed" if changes else "same"


def _code(one: Kinds, two: Kinds) -> Iterator[Change]:
    for name in ("repository", "commit", "tree", "clean"):
        yield from _different(name, getattr(one.code, name), getattr(two.code, name))
    yield from _different("patch", one.code.patch.get("digest"), two.code.patch.get("digest"))
    yield from _flat_changes(one.code.files, two.code.files)
    yield from _flat_changes(
        {f"untracked {row.name}": row.digest for row in one.code.untracked},
        {f"untracked {row.name}": row.digest for row in two.code.untracked},
    )
    entries = [point and " ".join(point.command) for point in (one.code.entry_point, two.code.entry_point)]
    yield from _different("entry point", entries[0], entries[1])


def _data(before: Sequence[DataInput], after: Sequence[DataInput]) -> Iterator[Change]:
    """By name; digests of different algorithms cannot be compared, which is said."""
    one, two = {row.name: row for row in before}, {row.name: row for row in after}
    for name in dict.fromkeys([*one, *two]):
        left, right = one.get(name), two.get(name)
        if left is None or right is None:
            yield Change(name, left and left.digest, right and right.digest, _rows(left or right))
        elif left.digest != right.digest:
            algorithms = {str(row.digest).partition(":")[0] for row in (left, right)}
            apart = (
                "digests of different algorithms: whether the bytes differ is not known" if len(algorithms) > 1 else ""
            )
            yield Change(name, left.digest, right.digest, apart or _rows_changed(left, right))
            if left.schema != right.schema:
                yield Change(f"{name} schema", left.schema, right.schema)


def _rows(row: DataInput | None) -> str:
    return "" if row is None or row.rows is None else f"{row.rows} rows"


def _rows_changed(left: DataInput, right: DataInput) -> str:
    if left.rows is None or right.rows is None:
        return ""
    return f"{left.rows} rows" if left.rows == right.rows else f"{left.rows} → {right.rows} rows"


def _parameters(one: Kinds, two: Kinds) -> Iterator[Change]:
    yield from _flat_changes(one.parameters.values, two.parameters.values)
    seeds = ({"seed": kinds.parameters.seeds} if kinds.parameters.seeds else {} for kinds in (one, two))
    yield from _flat_changes(next(seeds), next(seeds))


def _environment(one: Kinds, two: Kinds) -> Iterator[Change]:
    for name in ("python", "os", "machine"):
        yield from _different(name, getattr(one.environment, name), getattr(two.environment, name))
    yield from _flat_changes({"cpu": one.environment.cpu}, {"cpu": two.environment.cpu})
    yield from _flat_changes({"cuda": one.environment.cuda or {}}, {"cuda": two.environment.cuda or {}})
    yield from _flat_changes(one.environment.packages, two.environment.packages)
    if not (one.environment.packages and two.environment.packages):
        yield from _different("lock", one.environment.lock, two.environment.lock)


def _features(one: Kinds, two: Kinds) -> Iterator[Change]:
    names = [[str(step.get("name")) for step in kinds.features.steps] for kinds in (one, two)]
    if names[0] != names[1]:
        yield Change("steps", " → ".join(names[0]) or None, " → ".join(names[1]) or None)
    left, right = ({str(step.get("name")): step for step in kinds.features.steps} for kinds in (one, two))
    for name in [name for name in left if name in right]:
        parameters = [step.get("parameters") or {} for step in (left[name], right[name])]
        changes = list(_flat_changes({name: parameters[0]}, {name: parameters[1]}))
        yield from changes
        if not changes and left[name].get("digest") != right[name].get("digest"):
            note = "same parameters, fitted to something else"
            yield Change(f"{name} fitted", left[name].get("digest"), right[name].get("digest"), note)


def _metrics(before: Sequence[Json], after: Sequence[Json]) -> Iterator[Change]:
    one, two = ({_figure(row): row for row in rows} for rows in (before, after))
    for name in dict.fromkeys([*one, *two]):
        left, right = one.get(name), two.get(name)
        if left is None or right is None:
            yield Change(name, left and _told(left), right and _told(right))
        elif any(left.get(key) != right.get(key) for key in ("value", "n", "interval", "dataset")):
            yield Change(name, _told(left), _told(right), _meaning(left, right))


def _figure(row: Json) -> str:
    return str(row["metric"]) + (f" [{row['slice']}]" if row.get("slice") else "")


def _told(row: Json) -> dict[str, Any]:
    return {key: row[key] for key in ("value", "n", "interval", "dataset") if row.get(key) is not None}


def _meaning(left: Json, right: Json) -> str:
    words = [f"{right['value'] - left['value']:+.4g}"]
    if left.get("interval") and right.get("interval"):
        apart = left["interval"][1] < right["interval"][0] or right["interval"][1] < left["interval"][0]
        words.append("intervals apart" if apart else "intervals overlap")
    if left.get("dataset") != right.get("dataset") and left.get("dataset") and right.get("dataset"):
        words.append("on different evaluation sets")
    return ", ".join(words)


def _files(before: Sequence[Json], after: Sequence[Json]) -> Iterator[Change]:
    one, two = ({row["name"]: f"sha256:{row['sha256']}" for row in rows} for rows in (before, after))
    yield from _flat_changes(one, two)


def _serving(manifest: Json) -> dict[str, Any]:
    return {name: manifest.get(name) for name in _SERVING}


def _different(what: str, before: Any, after: Any) -> Iterator[Change]:
    if before != after:
        yield Change(what, before, after)


def _flat_changes(before: Json, after: Json) -> Iterator[Change]:
    one, two = dict(_flat(before)), dict(_flat(after))
    for name in sorted({*one, *two}):
        if one.get(name) != two.get(name):
            yield Change(name, one.get(name), two.get(name))


def _flat(body: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """``{"a": {"b": 1}}`` as ``a.b``; lists are one value."""
    if not isinstance(body, Mapping) or (place and not body):
        yield place, list(body) if isinstance(body, tuple) else body
        return
    for name, value in body.items():
        yield from _flat(value, f"{place}.{name}" if place else str(name))
