"""``GET /admin/drift/{route}``: how far what a route's versions see and answer is from their references."""

from __future__ import annotations

from starlette.responses import Response

from gateway.errors import Conflict
from gateway.web.admin_call import AdminCall, json_response
from gateway.web.services import Services

__all__ = ["DriftEndpoint"]


class DriftEndpoint:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def report(self, call: AdminCall) -> Response:
        if self._services.drift is None:
            raise Conflict("drift is not watched here: telemetry.drift.enabled is false in this gateway's settings")
        return json_response(await self._services.drift.report(call.part("route")))
