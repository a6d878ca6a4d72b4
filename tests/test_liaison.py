"""What parts that may not know each other are told of one another."""

from __future__ import annotations

from dataclasses import replace

from gateway.clock import SystemClock
from gateway.control.alarms import Alarm
from gateway.events.observer import RecordingObserver
from gateway.liaison import alarm_of, answers_kept, batch_records, loaded_of, profiles_of
from gateway.messages import VersionRef
from gateway.serving.counts import CountingPlan
from gateway.serving.fleet import Fleet
from gateway.serving.scripted_engine import ScriptedEngines
from gateway.telemetry.drift.blame import DATA_PIPELINE, WORLD
from gateway.telemetry.drift.looking import DriftAlarm
from tests.serving.stage import DIGITS, spec

PROFILE = CountingPlan("sha256:own", "{}")


def test_an_alarm_of_drift_stands_in_the_audit_log_by_route_and_blame() -> None:
    """What is broken in the data is another kind, since other people see to it; other alarmed versions are named."""
    told = DriftAlarm("scores", VersionRef("digits", 2), WORLD, True, (), "pixel 3 moved", "look there", {"n": 9.0})
    numbers = {"blame": WORLD, "version": "digits/2", "n": 9.0}
    expected = Alarm(told.name, "drift", "route/scores", True, "pixel 3 moved", "look there", numbers)
    assert alarm_of(told) == expected
    broken = alarm_of(replace(told, blame=DATA_PIPELINE, others=("lone", "spare")))
    assert (broken.kind, broken.numbers["also_on"]) == ("data-pipeline", "lone, spare")


async def test_what_is_told_of_versions_is_told_of_those_that_are_here() -> None:
    """The digests of what really loaded, and whose profile counts what."""
    clock = SystemClock()
    fleet = Fleet(ScriptedEngines(clock), clock=clock, observer=RecordingObserver())
    version = spec(profile=PROFILE)
    assert (loaded_of(fleet, DIGITS), profiles_of(fleet)) == (None, {})
    await fleet.ensure(version)
    assert profiles_of(fleet) == {DIGITS: "sha256:own"}
    assert loaded_of(fleet, DIGITS) == {"digest": version.digest, "loaded": {"model": "0" * 64}, "device": "cpu"}
    await fleet.close(abandon=True)


def test_without_a_recorder_nothing_is_kept_for_it() -> None:
    """Neither answers nor the records of batches: who would read them is not there."""
    assert (answers_kept(None), batch_records(None, SystemClock())) == (None, None)
