"""Tells people of events: a courier for each target of the settings, none of which waits for another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.clock import Clock
from gateway.control.coordination import Coordination
from gateway.control.notification_courier import Courier, CourierStatistics
from gateway.control.notification_events import TEST
from gateway.control.notification_sender import LEAST_S
from gateway.control.store import AuditEntry, Store
from gateway.live_secrets import LiveSecrets
from gateway.settings import NotificationSettings

__all__ = ["Notifications"]


class Notifications:
    """All targets'. Without any it does nothing, and costs nothing."""

    def __init__(
        self,
        settings: NotificationSettings,
        *,
        store: Store,
        coordination: Coordination,
        clock: Clock,
        secrets: LiveSecrets | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._couriers = [
            Courier(target, settings, store=store, coordination=coordination, clock=clock, secrets=secrets)
            for target in settings.targets
        ]

    def __repr__(self) -> str:
        return f"<Notifications {self._couriers}>"

    def start(self) -> None:
        for courier in self._couriers:
            courier.start()

    async def close(self) -> None:
        for courier in self._couriers:
            await courier.close()

    def took(self, revision: int) -> None:
        """The store is at this revision, and so is its audit log."""
        for courier in self._couriers:
            courier.wake(revision)

    async def test(self, actor: str, reason: str) -> int:
        """An event that goes to every target by the way that all take: through the audit log. Its revision."""
        return await self._store.commit([], AuditEntry(actor, TEST, "notifications/all", reason))

    def view(self) -> Sequence[dict[str, Any]]:
        """Each target, and what became of its notifications here; addresses may be secrets, and are not shown."""
        return [
            {
                "name": courier.target.name,
                "format": courier.target.format,
                "events": list(courier.target.events),
                "routes": list(courier.target.routes),
                "outcomes": standing.endings,
                "attempts": standing.attempts,
                "under_way": standing.under_way,
                "oldest_at": standing.oldest_at,
                "trouble": standing.trouble,
            }
            for courier in self._couriers
            for standing in (courier.statistics(),)
        ]

    def statistics(self) -> Sequence[CourierStatistics]:
        return [courier.statistics() for courier in self._couriers]

    def degraded(self) -> Sequence[str]:
        """Targets that do not take what is sent."""
        now = self._clock.wall()
        return [
            f"notifications: {one.target} takes none: {one.trouble}"
            for one in self.statistics()
            if one.trouble and one.oldest_at is not None and now - one.oldest_at > LEAST_S
        ]
