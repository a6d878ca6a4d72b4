"""Admin calls on rollouts: begin, see, promote, pause, resume, abort; and the reports of those that have ended."""

from __future__ import annotations

from typing import Any

from starlette.responses import PlainTextResponse, Response

from gateway.control.rollout_control import RolloutControl
from gateway.control.rollout_report_text import report_text
from gateway.web.admin_call import AdminCall, field, json_response, only
from gateway.web.admin_gates import override_in

__all__ = ["RolloutEndpoints"]


class RolloutEndpoints:
    def __init__(self, rollouts: RolloutControl) -> None:
        self._rollouts = rollouts

    async def start(self, call: AdminCall) -> Response:
        body = dict(await call.body())
        override = override_in(call, body)
        body.pop("override", None)
        view = await self._rollouts.start(
            call.part("route"), body, actor=call.actor, expected=call.expected(), override=override
        )
        return _answer(view, 201)

    async def get(self, call: AdminCall) -> Response:
        return _answer(await self._rollouts.get(call.part("route")))

    async def abort(self, call: AdminCall) -> Response:
        body = await call.body(optional=True)
        only(body, "reason")
        reason = (field(body, "reason", str, "text", required=False) or "")[:1000]
        view = await self._rollouts.abort(call.part("route"), actor=call.actor, reason=reason, expected=call.expected())
        return _answer(view)

    async def promote(self, call: AdminCall) -> Response:
        """``full``: the bake at once, whatever steps are left."""
        body = await call.body(optional=True)
        only(body, "full")
        full = bool(field(body, "full", bool, "true or false", required=False))
        view = await self._rollouts.promote(call.part("route"), actor=call.actor, full=full, expected=call.expected())
        return _answer(view)

    async def pause(self, call: AdminCall) -> Response:
        body = await call.body(optional=True)
        only(body, "reason")
        reason = (field(body, "reason", str, "text", required=False) or "")[:1000]
        view = await self._rollouts.pause(call.part("route"), actor=call.actor, reason=reason, expected=call.expected())
        return _answer(view)

    async def resume(self, call: AdminCall) -> Response:
        return _answer(await self._rollouts.resume(call.part("route"), actor=call.actor, expected=call.expected()))

    async def reports(self, call: AdminCall) -> Response:
        route = call.part("route")
        return json_response({"route": route, "rollouts": await self._rollouts.reports(route)})

    async def report(self, call: AdminCall) -> Response:
        """As text for people with ``Accept: text/plain``."""
        report = await self._rollouts.report(call.part("route"), call.part("rollout"))
        if "text/plain" in call.exchange.headers.get("accept", ""):
            return PlainTextResponse(report_text(report))
        return json_response(report)


def _answer(view: dict[str, Any], status: int = 200) -> Response:
    return json_response(view, status, revision=view["revision"])
