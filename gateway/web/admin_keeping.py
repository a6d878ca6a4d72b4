"""Admin calls on tokens, the audit log, and what is resident here."""

from __future__ import annotations

import os
import platform

from starlette.responses import Response

from gateway import __version__
from gateway.control.plane import ControlPlane
from gateway.web.admin_call import AdminCall, json_response, only

__all__ = ["KeepingEndpoints"]


class KeepingEndpoints:
    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    async def versions(self, call: AdminCall) -> Response:
        return json_response({"versions": await self._plane.versions()})

    async def replicas(self, call: AdminCall) -> Response:
        """This one; others come with a store that several machines share."""
        now = self._plane.reconciler.statistics()
        replica = {
            "replica": f"{platform.node()}:{os.getpid()}",
            "turnout": __version__,
            "revision": now.revision,
            "store_up": now.store_up,
            "routes": now.routes,
            "loading": now.loading,
            "failed": now.failed,
            "not_durable": now.overrides,
            "workers": self._plane.workers(),
        }
        return json_response({"replicas": [replica]})

    async def audit(self, call: AdminCall) -> Response:
        """The newest records, oldest of them first; with ``?after=``, those that follow that one."""
        limit = call.query_number("limit", 100, most=1000)
        newest = (await self._plane.store.snapshot()).revision - limit  # one record a revision
        after = call.query_number("after", max(0, newest), most=2**53)
        return json_response({"records": await self._plane.audit(after=after, limit=limit)})

    async def verify(self, call: AdminCall) -> Response:
        return json_response(await self._plane.verify_audit())

    async def tokens(self, call: AdminCall) -> Response:
        return json_response({"tokens": await self._plane.tokens.list()})

    async def create_token(self, call: AdminCall) -> Response:
        """201 with the secret, which is shown here and never again."""
        body = await call.body()
        only(body, "name", "role", "routes", "expires_in_s")
        made = await self._plane.tokens.create(
            body.get("name"),
            body.get("role"),
            actor=call.actor,
            routes=body.get("routes"),
            expires_in_s=body.get("expires_in_s"),
        )
        return _secret(made, 201)

    async def rotate_token(self, call: AdminCall) -> Response:
        return _secret(await self._plane.tokens.rotate(call.part("name"), actor=call.actor), 200)

    async def revoke_token(self, call: AdminCall) -> Response:
        await self._plane.tokens.revoke(call.part("name"), actor=call.actor)
        return json_response({"name": call.part("name"), "revoked": True})


def _secret(body: object, status: int) -> Response:
    response = json_response(body, status)
    response.headers["cache-control"] = "no-store"
    return response
