"""The kinds of gates, each a frozen record that reads and writes its own JSON, strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from gateway.errors import InvalidRegistration
from gateway.registry.gates.datasets import DataFile, DataSet
from gateway.registry.gates.gate import (
    Gate,
    Reader,
    read_batch_sizes,
    read_file,
    read_flag,
    read_keys,
    read_names,
    read_number,
    read_one_of,
    read_settings,
    read_text,
    read_whole,
)
from gateway.registry.gates.metrics import METRICS

__all__ = [
    "KINDS",
    "AuthorGate",
    "ChampionGate",
    "EnvironmentGate",
    "FairnessGate",
    "GoldenGate",
    "LatencyGate",
    "MemoryGate",
    "MetricGate",
    "PythonGate",
    "SignatureGate",
]


@dataclass(frozen=True, slots=True)
class GoldenGate(Gate):
    """Requests that must get their answers: the version's own (``--golden``), the champion's, or those of ``file``.
    A number may differ by ``tolerance`` and by ``relative`` times what is expected."""

    kind: ClassVar[str] = "golden"
    readers: ClassVar[Mapping[str, Reader]] = {
        "tolerance": read_number(),
        "relative": read_number(0, 1),
        "of": read_one_of("version", "champion"),
        "file": read_file,
    }

    tolerance: float = 1e-6
    relative: float = 0.0
    of: str = "version"
    file: DataFile | None = None

    def blobs(self) -> tuple[DataFile, ...]:
        return () if self.file is None else (self.file,)


@dataclass(frozen=True, slots=True)
class _OnData(Gate):
    data: str

    def check(self, data: Mapping[str, DataSet]) -> None:
        if self.data not in data:
            known = ", ".join(data) or "none"
            raise InvalidRegistration(f"gate {self.name!r}: no data {self.data!r} is declared; declared: {known}")


@dataclass(frozen=True, slots=True)
class MetricGate(_OnData):
    """A figure against limits. ``sure``: the end of its interval must keep the limit, not only the figure itself."""

    kind: ClassVar[str] = "metric"
    readers: ClassVar[Mapping[str, Reader]] = {
        "data": read_text,
        "metric": read_one_of(*METRICS),
        "at_least": read_number(-1e12),
        "at_most": read_number(-1e12),
        "sure": read_flag,
        "confidence": read_number(0.5, 0.9999),
    }

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    sure: bool = False
    confidence: float = 0.95

    @classmethod
    def naming(cls, body: Mapping[str, Any]) -> str:
        return f"{body.get('metric')} on {body.get('data')}"

    def check(self, data: Mapping[str, DataSet]) -> None:
        _OnData.check(self, data)
        if self.at_least is None and self.at_most is None:
            raise InvalidRegistration(f"gate {self.name!r}: it has no limit; give at_least, at_most or both")


@dataclass(frozen=True, slots=True)
class ChampionGate(_OnData):
    """The version beside the one that it would take the place of, on the same rows. ``must`` be ``not-worse``: the
    interval of the difference keeps within ``margin``; or ``better``: it lies on the good side of zero."""

    kind: ClassVar[str] = "champion"
    readers: ClassVar[Mapping[str, Reader]] = {
        "data": read_text,
        "metric": read_one_of(*METRICS),
        "margin": read_number(),
        "must": read_one_of("not-worse", "better"),
        "confidence": read_number(0.5, 0.9999),
    }

    metric: str
    margin: float = 0.01
    must: str = "not-worse"
    confidence: float = 0.95

    @classmethod
    def naming(cls, body: Mapping[str, Any]) -> str:
        return f"{body.get('metric')} beside the champion on {body.get('data')}"


@dataclass(frozen=True, slots=True)
class FairnessGate(_OnData):
    """Gaps between groups: of the share that gets ``positive`` (``demographic_parity``), of the share of those that
    should (``equal_opportunity``), and of that and the share of those that should not (``equalized_odds``); each with a
    limit from 0 to 1. ``group``: one column, or several together. Groups of fewer than ``min_rows`` rows are shown, and
    not judged. ``sure``: the end of the interval must keep the limit."""

    kind: ClassVar[str] = "fairness"
    readers: ClassVar[Mapping[str, Reader]] = {
        "data": read_text,
        "group": read_names,
        "demographic_parity": read_number(0, 1),
        "equal_opportunity": read_number(0, 1),
        "equalized_odds": read_number(0, 1),
        "min_rows": read_whole(1, 10**9),
        "sure": read_flag,
        "confidence": read_number(0.5, 0.9999),
    }

    group: tuple[str, ...]
    demographic_parity: float | None = None
    equal_opportunity: float | None = None
    equalized_odds: float | None = None
    min_rows: int = 30
    sure: bool = False
    confidence: float = 0.95

    @classmethod
    def naming(cls, body: Mapping[str, Any]) -> str:
        group = body.get("group")
        names = " and ".join(map(str, group)) if isinstance(group, list | tuple) else str(group)
        return f"fairness by {names} on {body.get('data')}"

    def check(self, data: Mapping[str, DataSet]) -> None:
        _OnData.check(self, data)
        if not self.limits:
            raise InvalidRegistration(
                f"gate {self.name!r}: it has no limit; give demographic_parity, equal_opportunity or equalized_odds"
            )
        unknown = [name for name in self.group if name not in data[self.data].groups]
        if unknown:
            known = ", ".join(data[self.data].groups) or "none"
            raise InvalidRegistration(
                f"gate {self.name!r}: data {self.data!r} has no group column {unknown[0]!r}; its groups: {known}"
            )

    @property
    def limits(self) -> dict[str, float]:
        found = {name: getattr(self, name) for name in ("demographic_parity", "equal_opportunity", "equalized_odds")}
        return {name: limit for name, limit in found.items() if limit is not None}


@dataclass(frozen=True, slots=True)
class LatencyGate(Gate):
    """How long a batch takes in the version's own process. ``at_most_ms`` is for the ``quantile`` of the times in the
    quietest of ``rounds``, ``at_most_ratio`` for the median beside the champion's, round by round. ``time``: ``wall``,
    or ``processor``, which does not count what the process waited for its turn on a busy machine. ``data``: whose rows
    make the batches; without, the version's example."""

    kind: ClassVar[str] = "latency"
    readers: ClassVar[Mapping[str, Reader]] = {
        "rows": read_batch_sizes,
        "at_most_ms": read_number(1e-6),
        "at_most_ratio": read_number(1e-6),
        "quantile": read_number(0.0, 1.0),
        "rounds": read_whole(1, 50),
        "calls": read_whole(1, 1000),
        "warm_up": read_whole(0, 1000),
        "time": read_one_of("wall", "processor"),
        "data": read_text,
    }

    rows: tuple[int, ...] = (1,)
    at_most_ms: float | None = None
    at_most_ratio: float | None = None
    quantile: float = 0.95
    rounds: int = 5
    calls: int = 20
    warm_up: int = 5
    time: str = "wall"
    data: str | None = None

    def check(self, data: Mapping[str, DataSet]) -> None:
        if self.at_most_ms is None and self.at_most_ratio is None:
            raise InvalidRegistration(f"gate {self.name!r}: it has no limit; give at_most_ms, at_most_ratio or both")
        _check_rows(self.name, self.data, data)


@dataclass(frozen=True, slots=True)
class MemoryGate(Gate):
    """What the version's process holds at most while it answers batches of these sizes, loading included."""

    kind: ClassVar[str] = "memory"
    readers: ClassVar[Mapping[str, Reader]] = {
        "rows": read_batch_sizes,
        "at_most_mb": read_number(1e-6),
        "at_most_ratio": read_number(1e-6),
        "data": read_text,
    }

    rows: tuple[int, ...] = (1,)
    at_most_mb: float | None = None
    at_most_ratio: float | None = None
    data: str | None = None

    def check(self, data: Mapping[str, DataSet]) -> None:
        if self.at_most_mb is None and self.at_most_ratio is None:
            raise InvalidRegistration(f"gate {self.name!r}: it has no limit; give at_most_mb, at_most_ratio or both")
        _check_rows(self.name, self.data, data)


@dataclass(frozen=True, slots=True)
class SignatureGate(Gate):
    """The version may stand in for what answers on ``routes`` now (default: every route of its model)."""

    kind: ClassVar[str] = "signature"
    readers: ClassVar[Mapping[str, Reader]] = {"routes": read_names}

    routes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EnvironmentGate(Gate):
    """The version's environment can be built here and is as its lock file says. ``required``: it must name one."""

    kind: ClassVar[str] = "environment"
    readers: ClassVar[Mapping[str, Reader]] = {"required": read_flag}

    required: bool = False


@dataclass(frozen=True, slots=True)
class AuthorGate(Gate):
    """The manifest is signed by one of ``keys``: the public keys of authors (PEM), by the name of each."""

    kind: ClassVar[str] = "author"
    readers: ClassVar[Mapping[str, Reader]] = {"keys": read_keys}

    keys: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PythonGate(Gate):
    """``function`` of a Python file, in a process of its own with limits: ``check(version, champion, settings)`` gives
    True, False or ``{"passed": …, "reason": …, "numbers": {…}}``."""

    kind: ClassVar[str] = "python"
    readers: ClassVar[Mapping[str, Reader]] = {
        "file": read_file,
        "function": read_text,
        "settings": read_settings,
        "data": read_text,
        "timeout_s": read_number(0.1, 86_400),
        "memory_mb": read_number(64, 1e6),
    }

    file: DataFile
    function: str = "check"
    settings: Mapping[str, Any] | None = None
    data: str | None = None
    timeout_s: float = 120.0
    memory_mb: float = 1024.0

    def check(self, data: Mapping[str, DataSet]) -> None:
        _check_rows(self.name, self.data, data)

    def blobs(self) -> tuple[DataFile, ...]:
        return (self.file,)


KINDS: Mapping[str, type[Gate]] = {
    kind.kind: kind
    for kind in (
        GoldenGate,
        MetricGate,
        ChampionGate,
        FairnessGate,
        LatencyGate,
        MemoryGate,
        SignatureGate,
        EnvironmentGate,
        AuthorGate,
        PythonGate,
    )
}


def _check_rows(name: str, data: str | None, sets: Mapping[str, DataSet]) -> None:
    if data is not None and data not in sets:
        known = ", ".join(sets) or "none"
        raise InvalidRegistration(f"gate {name!r}: no data {data!r} is declared; declared: {known}")
