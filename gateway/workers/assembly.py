"""The node's side of several web workers, put together: what the composition root builds when there are any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.control.plane import ControlPlane
from gateway.dataplane import Dataplane
from gateway.events.observer import Observer
from gateway.messages import VersionRef
from gateway.recording.recorder import Recorder
from gateway.server import SharedAddress
from gateway.serving.fleet import Fleet
from gateway.settings import Settings
from gateway.workers.begin import Beginning
from gateway.workers.colleague import Desk
from gateway.workers.crew import Crew
from gateway.workers.deaths import Deaths
from gateway.workers.face import Settled
from gateway.workers.lender import Lender
from gateway.workers.publisher import Publisher, Sources
from gateway.workers.replay import Replays
from gateway.workers.tunnel import Application

__all__ = ["NodeParts", "assemble_crew", "fleet_observer"]


@dataclass(frozen=True, slots=True)
class NodeParts:
    """What the node has of its own, and workers are given a share of."""

    settings: Settings
    clock: Clock
    observer: Observer
    fleet: Fleet
    dataplane: Dataplane
    control: ControlPlane
    recorder: Recorder | None = None


def fleet_observer(observer: Observer, clock: Clock, fleet: Callable[[], Fleet]) -> Deaths:
    """The observer of a fleet whose children serve workers."""

    def forgive(ref: VersionRef) -> None:
        handle = fleet().handles.get(ref)
        if handle is not None:
            handle.forgive()

    return Deaths(observer, clock, forgive)


def assemble_crew(parts: NodeParts, deaths: Deaths, address: SharedAddress, application: Application) -> Crew:
    """Not started. ``application`` answers all that is no inference."""
    control, dataplane, clock, recorder = parts.control, parts.dataplane, parts.clock, parts.recorder
    publisher = Publisher(
        Sources(
            current=lambda: dataplane.current,
            in_force=lambda: control.reconciler.in_force,
            tokens=lambda: control.ring.tokens,
        )
    )
    replays = Replays(parts.observer, deaths.heard, deaths.worked)
    lender = Lender(parts.fleet, clock)

    async def in_force() -> bool:
        return await crew.in_force()

    def desk(changed: Callable[[], None]) -> Desk:
        settled = Settled(application, in_force)
        return Desk(lender, settled, lambda: publisher.lent, changed, clock)

    crew = Crew(
        [address.listen() for _ in range(parts.settings.server.workers)],
        rebind=address.listen,
        settings=Beginning.of(parts.settings, recorded=() if recorder is None else recorder.options),
        publisher=publisher,
        replays=replays,
        desk=desk,
        clock=clock,
        line=_no_line if recorder is None else recorder.line,
    )
    if recorder is not None:
        recorder.on_restart(crew.renew_lines)
    control.share(
        follow=crew.publish,
        waiting=lambda ref: replays.waiting_rows(ref) + lender.held_up(ref),
        queue=replays.queue,
        view=crew.view,
    )
    return crew


def _no_line() -> None:
    return None
