"""Admin calls on tokens, the audit log, and what is resident here."""

from __future__ import annotations

from starlette.responses import Response

from gateway.control.plane import ControlPlane
from gateway.web.admin_call import AdminCall, field, json_response, only

__all__ = ["KeepingEndpoints"]


class KeepingEndpoints:
    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    async def versions(self, call: AdminCall) -> Response:
        return json_response({"versions": await self._plane.versions()})

    async def replicas(self, call: AdminCall) -> Response:
        return json_response(await self._plane.shared.replicas())

    async def adopt(self, call: AdminCall) -> Response:
        body = await call.body(optional=True)
        only(body, "reason")
        reason = field(body, "reason", str, "text", required=False) or ""
        return json_response({"revision": await self._plane.shared.adopt(actor=call.actor, reason=reason[:1000])})

    async def restore_from_replica(self, call: AdminCall) -> Response:
        body = await call.body(optional=True)
        only(body, "reason", "force")
        reason = field(body, "reason", str, "text", required=False) or ""
        force = field(body, "force", bool, "true or false", required=False) or False
        revision = await self._plane.shared.restore(actor=call.actor, reason=reason[:1000], force=force)
        return json_response({"revision": revision})

    async def audit(self, call: AdminCall) -> Response:
        """The newest records, oldest of them first; with ``?after=``, those that follow that one. ``next`` is the
        ``after`` of the page that follows; null: this was the last one."""
        limit = max(1, call.query_number("limit", 100, most=1000))
        newest = (await self._plane.store.snapshot()).revision - limit  # one record a revision
        after = call.query_number("after", max(0, newest), most=2**53)
        records = await self._plane.audit(after=after, limit=limit)
        following = records[-1]["sequence"] if len(records) == limit else None
        return json_response({"records": records, "next": following})

    async def verify(self, call: AdminCall) -> Response:
        return json_response(await self._plane.verify_audit())

    async def checkpoint(self, call: AdminCall) -> Response:
        return json_response(await self._plane.audit_checkpoint())

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
        body = await call.body(optional=True)
        only(body, "grace_s")
        made = await self._plane.tokens.rotate(call.part("name"), actor=call.actor, grace_s=body.get("grace_s"))
        return _secret(made, 200)

    async def revoke_token(self, call: AdminCall) -> Response:
        await self._plane.tokens.revoke(call.part("name"), actor=call.actor)
        return json_response({"name": call.part("name"), "revoked": True})

    async def secrets(self, call: AdminCall) -> Response:
        """Where each is and when it was read; never a secret."""
        return json_response({"secrets": [one.to_json() for one in self._plane.secrets.statistics()]})

    async def refresh_secrets(self, call: AdminCall) -> Response:
        """Reads all again, commands too."""
        rotated = await self._plane.secrets.look()
        found = [one.to_json() for one in self._plane.secrets.statistics()]
        return json_response({"rotated": list(rotated), "secrets": found})


def _secret(body: object, status: int) -> Response:
    response = json_response(body, status)
    response.headers["cache-control"] = "no-store"
    return response
