"""Admin calls on who is told: the targets, a test of them, and the alarms that stand."""

from __future__ import annotations

from starlette.responses import Response

from gateway.control.plane import ControlPlane
from gateway.web.admin_call import AdminCall, field, json_response, only

__all__ = ["NotificationEndpoints"]


class NotificationEndpoints:
    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    async def list(self, call: AdminCall) -> Response:
        """What became of notifications is this replica's: of a target, one replica leads at a time."""
        return json_response({"targets": self._plane.notifications.view()})

    async def test(self, call: AdminCall) -> Response:
        """202: it goes to every target, whatever events that wants, through the audit log."""
        body = await call.body(optional=True)
        only(body, "reason")
        reason = field(body, "reason", str, "text", required=False) or ""
        revision = await self._plane.notifications.test(call.actor, reason[:1000])
        return json_response({"revision": revision}, status=202)

    async def alarms(self, call: AdminCall) -> Response:
        return json_response({"alarms": await self._plane.alarms.standing()})
