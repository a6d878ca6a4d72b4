"""Admin calls on a version's profiles: what its traffic is counted with, and captures of live rows."""

from __future__ import annotations

from starlette.responses import Response

from gateway.control.profile_control import ProfileControl
from gateway.web.admin_call import AdminCall, field, json_response, only

__all__ = ["ProfileEndpoints"]

DEFAULT_ROWS = 10_000


class ProfileEndpoints:
    def __init__(self, profiles: ProfileControl) -> None:
        self._profiles = profiles

    async def get(self, call: AdminCall) -> Response:
        return json_response(await self._profiles.get(call.part("model"), call.part("version")))

    async def capture(self, call: AdminCall) -> Response:
        """``{"route": name, "rows": n, "use": false}``. 202: it goes on; ``GET`` tells how far it is."""
        body = await call.body()
        only(body, "route", "rows", "use")
        found = await self._profiles.capture(
            call.part("model"),
            call.part("version"),
            route=field(body, "route", str, "the name of a route"),
            rows=field(body, "rows", int, "a number of rows") if "rows" in body else DEFAULT_ROWS,
            use=field(body, "use", bool, "true or false") if "use" in body else False,
            actor=call.actor,
        )
        return json_response(found, 202)

    async def use(self, call: AdminCall) -> Response:
        """``{"digest": "sha256:…"}``, or null for the profile of the manifest."""
        body = await call.body()
        only(body, "digest")
        digest = None if body.get("digest") is None else field(body, "digest", str, "a profile's digest")
        found = await self._profiles.use(call.part("model"), call.part("version"), digest, actor=call.actor)
        return json_response(found)
