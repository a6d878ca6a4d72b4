"""Tells the recorder what is in force, so that each record can be resolved to weights and loaded bytes, and what
happened to it: new tables, loaded versions, rollbacks and the outcomes of shadows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.clock import Clock
from gateway.events.observer import Observer
from gateway.events.records import RollbackRecord, ShadowRecord
from gateway.messages import VersionRef
from gateway.recording.recorder import Recorder
from gateway.routing.table import RoutingTable
from gateway.telemetry.decisions.told import table_body

__all__ = ["Loaded", "Telling"]

Loaded = Callable[[VersionRef], Mapping[str, Any] | None]
"""A version's manifest digest (``digest``) and the digests of its loaded files (``loaded``), None if it is not here."""

_ACTIVE = "active"


class Telling(Observer):
    """``table`` is the one in force."""

    def __init__(self, recorder: Recorder, *, clock: Clock, table: Callable[[], RoutingTable], loaded: Loaded) -> None:
        self._recorder = recorder
        self._clock = clock
        self._table = table
        self._loaded = loaded

    def table_applied(self, revision: int) -> None:
        table = self._table()
        body = table_body(table)
        for name, route in table.routes.items():
            if route.truth is not None:
                body["routes"][name]["truth"] = route.truth.to_json()
        self._recorder.tell("table", body, lasting="table")

    def version_state(self, version: VersionRef, state: str, reason: str) -> None:
        found = self._loaded(version) if state == _ACTIVE else None
        if found is not None:
            body = {"model": version.model, "number": version.number, **found}
            self._recorder.tell("version", body, lasting=f"version {version}")

    def version_retired(self, version: VersionRef) -> None:
        self._recorder.forget(f"version {version}")

    def rolled_back(self, record: RollbackRecord) -> None:
        body = {
            "route": record.route,
            "trigger": record.trigger,
            "target": record.target,
            "quarantined": list(record.quarantined),
            "reason": record.reason,
            "durable": record.durable,
            "wall": self._clock.wall(),
        }
        self._recorder.tell("rollback", body)

    def shadow_compared(self, record: ShadowRecord) -> None:
        body = {
            **record._asdict(),
            "answered": str(record.answered),
            "shadow": str(record.shadow),
            "wall": self._clock.wall(),
        }
        self._recorder.tell("shadow", body, soon=False)
