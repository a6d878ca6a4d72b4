"""Admin calls on names that routes follow: how far a route is, and once more what was refused."""

from __future__ import annotations

from starlette.responses import Response

from gateway.control.follow_control import FollowControl
from gateway.web.admin_call import AdminCall, json_response

__all__ = ["FollowEndpoints"]


class FollowEndpoints:
    def __init__(self, follow: FollowControl) -> None:
        self._follow = follow

    async def get(self, call: AdminCall) -> Response:
        view = await self._follow.get(call.part("route"))
        return json_response(view, revision=view["revision"])

    async def again(self, call: AdminCall) -> Response:
        view = await self._follow.again(call.part("route"), actor=call.actor, expected=call.expected())
        return json_response(view, revision=view["revision"])
