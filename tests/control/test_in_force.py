"""What is in force on a replica, from start to close."""

from __future__ import annotations

from pathlib import Path

from gateway.clock import ManualClock
from gateway.control.in_force import InForce
from gateway.control.memory_store import MemoryStore
from gateway.control.store import Snapshot
from gateway.dataplane import Dataplane
from gateway.events.observer import RecordingObserver
from gateway.messages import VersionRef
from gateway.registry.blobs import BlobStore
from gateway.serving.engine import VersionSpec
from gateway.serving.fleet import Fleet
from gateway.serving.scripted_engine import ScriptedEngines
from gateway.settings import Settings
from runtimes.base import LoadSpec


async def test_the_state_is_told_of_before_anything_is_served_by_it(tmp_path: Path) -> None:
    """Tokens and what else is read out of a state come with it, also where it names no version at all."""
    clock, observer = ManualClock(), RecordingObserver()
    told: list[int] = []
    applied: list[int] = []

    def took(snapshot: Snapshot) -> None:
        told.append(snapshot.revision)

    def assemble(ref: VersionRef, digest: str) -> VersionSpec:
        return VersionSpec(ref, digest, LoadSpec("echo", "", ()))

    in_force = InForce(
        Settings(home=tmp_path),
        store=MemoryStore(),
        blobs=BlobStore(tmp_path / "blobs"),
        fleet=Fleet(ScriptedEngines(clock), clock=clock, observer=observer),
        dataplane=Dataplane(observer=observer, clock=clock),
        assemble=assemble,
        clock=clock,
        observer=observer,
        took=took,
        applied=lambda: applied.append(len(told)),
    )
    await in_force.start()
    assert told == [0]
    assert set(applied) <= {1}, "nothing is served before the state was told of"
    assert repr(in_force) == f"<InForce {in_force.reconciler!r}>"
    await in_force.close()
