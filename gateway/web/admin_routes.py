"""Admin calls on routes: read, put, delete, weights, rollback, lift, history, restore."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from gateway.control.changes import EXISTING
from gateway.control.route_control import RouteControl
from gateway.errors import StaleRevision
from gateway.web.admin_call import AdminCall, field, json_response, only

__all__ = ["RouteEndpoints"]


class RouteEndpoints:
    def __init__(self, routes: RouteControl) -> None:
        self._routes = routes

    async def list(self, call: AdminCall) -> Response:
        covered = call.principal.routes
        views = await self._routes.list()
        return json_response({"routes": [v for v in views if covered is None or v["route"] in covered]})

    async def get(self, call: AdminCall) -> Response:
        view = await self._routes.get(call.part("route"))
        return json_response(view, revision=view["revision"])

    async def put(self, call: AdminCall) -> Response:
        """201 for a route that is new (RFC 9110, 9.3.4), 200 for one that was there."""
        spec, wait_s, name = await call.body(), call.wait_s(), call.part("route")
        view, is_new = await self._routes.make(name, spec, actor=call.actor, expected=call.expected())
        answer = await self._answer(call, view, wait_s)
        if is_new:
            answer.status_code = 201
            answer.headers["location"] = f"/admin/routes/{name}"
        return answer

    async def delete(self, call: AdminCall) -> Response:
        name = call.part("route")
        revision = await self._routes.delete(name, actor=call.actor, expected=call.expected())
        return json_response({"route": name, "revision": revision, "deleted": True})

    async def weights(self, call: AdminCall) -> Response:
        body, wait_s = await call.body(), call.wait_s()
        only(body, "weights")
        weights = field(body, "weights", dict, 'an object of version to weight, as {"3": 95, "4": 5}')
        view = await self._routes.set_weights(call.part("route"), weights, actor=call.actor, expected=call.expected())
        return await self._answer(call, view, wait_s)

    async def rollback(self, call: AdminCall) -> Response:
        """Needs no If-Match; one that is given counts all the same."""
        body = await call.body(optional=True)
        only(body, "to", "reason", "local")
        to = field(body, "to", int, "a version's number", required=False)
        reason = field(body, "reason", str, "text", required=False) or ""
        local = field(body, "local", bool, "true or false", required=False) or False
        name, expected = call.part("route"), call.expected()
        if expected not in (None, EXISTING) and (standing := (await self._routes.get(name))["revision"]) != expected:
            raise StaleRevision(f"route {name!r} stands at revision {standing}, the call expects {expected}")
        view = await self._routes.rollback(name, to=to, reason=reason[:1000], actor=call.actor, local=local)
        return json_response(view, revision=view["revision"])

    async def lift(self, call: AdminCall) -> Response:
        body, wait_s = await call.body(), call.wait_s()
        only(body, "version")
        version = field(body, "version", int, "a version's number")
        view = await self._routes.lift(call.part("route"), version, actor=call.actor, expected=call.expected())
        return await self._answer(call, view, wait_s)

    async def history(self, call: AdminCall) -> Response:
        name = call.part("route")
        limit = max(1, call.query_number("limit", 100, most=1000))
        return json_response({"route": name, "history": await self._routes.history(name, limit=limit)})

    async def restore(self, call: AdminCall) -> Response:
        body, wait_s = await call.body(), call.wait_s()
        only(body, "revision")
        revision = field(body, "revision", int, "a revision that history lists")
        view = await self._routes.restore(call.part("route"), revision, actor=call.actor, expected=call.expected())
        return await self._answer(call, view, wait_s)

    async def _answer(self, call: AdminCall, view: Mapping[str, Any], wait_s: float | None) -> Response:
        """The view, after waiting until every replica serves it, if that was asked for; ``status.applied`` tells."""
        if wait_s is not None:
            name = call.part("route")
            everywhere = await self._routes.wait_applied(name, view["revision"], timeout_s=wait_s)
            view = await self._routes.get(name)
            status = view["status"]
            view = {**view, "status": {**status, "applied": everywhere and status.get("applied", False)}}
        return json_response(view, revision=view["revision"])
