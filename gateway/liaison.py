"""What one part of a gateway is told by another that may not know it, in its own words: for the composition root."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.clock import Clock
from gateway.control.alarms import Alarm
from gateway.control.batch_records import BatchRecords
from gateway.control.collector import Collector
from gateway.dataplane import Records
from gateway.events.records import RequestRecord
from gateway.messages import VersionRef
from gateway.recording.recorder import KEEPS, Recorder
from gateway.serving.fleet import Fleet
from gateway.telemetry.drift.looking import DriftAlarm
from gateway.telemetry.feedback.desk import JoinedLabel
from gateway.web.identity import DecisionIds

__all__ = ["alarm_of", "answers_kept", "batch_records", "label_told", "loaded_of", "profiles_of"]


def answers_kept(recorder: Recorder | None) -> Records | None:
    """What the data plane keeps answers for: a recorder that only writes lines needs nothing of them."""
    return recorder.road if recorder is not None and not KEEPS.isdisjoint(recorder.options) else None


class _BatchesTaken:
    """The recorder, for records that come past the observers."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    @property
    def full(self) -> bool:
        return self._recorder.road.full

    def take(self, records: Sequence[RequestRecord]) -> None:
        self._recorder.requests_finished(records)


def batch_records(recorder: Recorder | None, clock: Clock) -> BatchRecords | None:
    """Where the answers of batch scoring are told; None where no decisions are recorded."""
    if recorder is None or "decisions" not in recorder.options:
        return None
    return BatchRecords(_BatchesTaken(recorder), DecisionIds(clock), clock)


def label_told(collector: Collector, label: JoinedLabel) -> None:
    """What a label says of a version is evidence of the route's rollout."""
    place = label.route, label.bucket, label.version
    if label.wrong is not None:
        collector.label(*place, wrong=label.wrong, split=label.split, epoch=label.epoch, age_s=label.age_s)
    if label.score is not None:
        of, score = label.score
        collector.score(*place, score, of=of, split=label.split, epoch=label.epoch, age_s=label.age_s)


def loaded_of(fleet: Fleet, ref: VersionRef) -> Mapping[str, Any] | None:
    """The bytes that really answer, for the decision log; None for a version that is not here."""
    handle = fleet.handles.get(ref)
    info = None if handle is None else handle.info
    if handle is None or info is None:
        return None
    return {"digest": handle.spec.digest, "loaded": dict(info.loaded), "device": info.device}


def profiles_of(fleet: Fleet) -> Mapping[VersionRef, str]:
    """By the versions that are here and have one."""
    specs = [handle.spec for handle in fleet.handles.values()]
    return {spec.ref: spec.profile.digest for spec in specs if spec.profile is not None}


def alarm_of(alarm: DriftAlarm) -> Alarm:
    """As it stands in the audit log, and is notified of."""
    also_on = {"also_on": ", ".join(alarm.others)} if alarm.others else {}
    return Alarm(
        name=alarm.name,
        kind="data-pipeline" if alarm.broken_data else "drift",
        subject=f"route/{alarm.route}",
        raised=alarm.raised,
        reason=alarm.reason,
        advice=alarm.advice,
        numbers={"blame": alarm.blame, "version": str(alarm.version), **also_on, **alarm.numbers},
    )
