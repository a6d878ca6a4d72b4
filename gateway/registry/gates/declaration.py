"""What a model asks of its versions: evaluation data by digest, and gates, each of one kind.

As people write it (``gates.yaml``), a file is named by its path; as it is kept, by its digest::

    data:
      holdout: {file: holdout.parquet, label: fraud, groups: [region]}
    gates:
      - {kind: golden, tolerance: 1.0e-5}
      - {kind: metric, data: holdout, metric: accuracy, at_least: 0.95}
      - {kind: champion, data: holdout, metric: accuracy, margin: 0.01}
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.errors import InvalidRegistration
from gateway.registry import canonical
from gateway.registry.fields import Fields
from gateway.registry.gates.datasets import DataFile, DataSet
from gateway.registry.gates.gate import Gate
from gateway.registry.gates.kinds import KINDS
from gateway.registry.gates.purposes import matches
from gateway.registry.names import check_alias
from gateway.registry.offered import refusing

__all__ = ["Declaration"]

MAX_GATES = 64
DEFAULT_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True)
class Declaration:
    """``champion``: the alias of the version that others are compared with. ``fresh_h``: a result older than that is
    not gone by; None: it stands as long as nothing that it was found with has changed. ``revalidate_h``: versions in
    service are looked at again so often; None: never."""

    gates: tuple[Gate, ...]
    data: Mapping[str, DataSet] = field(default_factory=dict)
    champion: str = "champion"
    fresh_h: float | None = None
    revalidate_h: float | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S

    def __post_init__(self) -> None:
        check_alias(self.champion)
        names = [gate.name for gate in self.gates]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise InvalidRegistration(f"gates: two are named {min(twice)!r}; give each a name of its own")
        for gate in self.gates:
            gate.check(self.data)

    @property
    def digest(self) -> str:
        return canonical.digest_of(canonical.dumps(self.to_json()))

    def blobs(self) -> tuple[DataFile, ...]:
        """All stored files that it needs."""
        files = [data.file for data in self.data.values()]
        return (*files, *(file for gate in self.gates for file in gate.blobs()))

    def asked_by(self, purposes: Collection[str]) -> Declaration:
        """With the gates that are for one of these changes; perhaps none."""
        asked = (gate for gate in self.gates if any(matches(gate.purposes, one) for one in purposes))
        return replace(self, gates=tuple(asked))

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {"champion": self.champion, "timeout_s": self.timeout_s}
        body |= {name: value for name in ("fresh_h", "revalidate_h") if (value := getattr(self, name)) is not None}
        body["data"] = {name: data.to_json() for name, data in self.data.items()}
        body["gates"] = [gate.to_json() for gate in self.gates]
        return body

    @classmethod
    def from_json(cls, body: Any) -> Declaration:
        """Strict. InvalidRegistration names the key that is wrong."""
        with refusing(), Fields(body, "gates") as take:
            with Fields(take.optional_mapping("data") or {}, "data") as sets:
                names = list(take.optional_mapping("data") or {})
                data = {name: DataSet.from_json(sets.anything(name), f"data.{name}") for name in names}
            rows = take.rows("gates")
            if not 1 <= len(rows) <= MAX_GATES:
                raise InvalidRegistration(f"gates: {len(rows)} are declared; expected 1 to {MAX_GATES}")
            return cls(
                gates=tuple(_gate(row, place) for row, place in rows),
                data=data,
                champion=take.optional_text("champion") or "champion",
                fresh_h=_hours(take, "fresh_h"),
                revalidate_h=_hours(take, "revalidate_h"),
                timeout_s=_hours(take, "timeout_s") or DEFAULT_TIMEOUT_S,
            )


def _gate(body: Any, place: str) -> Gate:
    kind = body.get("kind") if isinstance(body, Mapping) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise InvalidRegistration(f"{place}.kind is {kind!r:.60}; expected one of {', '.join(KINDS)}")
    return KINDS[kind].from_json(body, place)


def _hours(take: Fields, key: str) -> float | None:
    value = None if take.anything(key) is None else take.number(key)
    if value is not None and not 0 < value <= 1e6:
        raise InvalidRegistration(f"{take.place}.{key} is {value}; expected more than 0 and at most 1000000")
    return value
