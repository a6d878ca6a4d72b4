"""Admin calls on targets: what stands where, promotion, demotion; tokens bound to routes reach the targets of those."""

from __future__ import annotations

from starlette.responses import Response

from gateway.control.target_control import Move, TargetControl
from gateway.control.tokens import Principal, Role
from gateway.errors import Forbidden
from gateway.web.admin_call import AdminCall, field, json_response, only
from gateway.web.admin_gates import override_in

__all__ = ["TargetEndpoints"]


class TargetEndpoints:
    def __init__(self, targets: TargetControl) -> None:
        self._targets = targets

    async def list(self, call: AdminCall) -> Response:
        return json_response({"targets": await self._targets.list()})

    async def get(self, call: AdminCall) -> Response:
        view = await self._targets.get(call.part("model"))
        return json_response(view, revision=view["revision"])

    async def promote(self, call: AdminCall) -> Response:
        """Answers when the gates have been passed and the version stands there."""
        body = await call.body()
        only(body, "version", "reason", "override")
        override = override_in(call, body)
        move = _move(call, field(body, "version", int, "a version's number"), body.get("reason"))
        view = await self._targets.promote(move, override=override, expected=call.expected())
        return json_response(view, revision=view["revision"])

    async def demote(self, call: AdminCall) -> Response:
        body = await call.body()
        only(body, "version", "reason", "roll_back")
        roll_back = field(body, "roll_back", bool, "true or false", required=False) or False
        move = _move(call, field(body, "version", int, "a version's number"), body.get("reason"))
        view = await self._targets.demote(move, roll_back=roll_back, expected=call.expected())
        return json_response(view, revision=view["revision"])


def _move(call: AdminCall, number: int, reason: object) -> Move:
    why = field({"reason": reason}, "reason", str, "text", required=False) or ""
    principal = call.principal

    def permit(target: str, role: str, routes: frozenset[str]) -> None:
        _check_covers(principal, target, Role(role), routes)

    return Move(call.part("model"), number, call.part("target"), call.actor, why, permit)


def _check_covers(principal: Principal, target: str, needed: Role, routes: frozenset[str]) -> None:
    """Raises Forbidden: the target wants a higher role, or has a route that the token does not cover. One that is
    bound to routes reaches the targets that these serve, and no others."""
    if not principal.role.covers(needed):
        raise Forbidden(f"token {principal.name!r} has role {principal.role}; target {target} needs {needed} or above")
    if principal.routes is None:
        return
    if not routes:
        raise Forbidden(
            f"token {principal.name!r} is bound to routes, and no route of this model serves {target}; this needs a "
            "token for all routes"
        )
    for route in sorted(routes):
        if route not in principal.routes:
            covered = ", ".join(sorted(principal.routes))
            raise Forbidden(
                f"route {route!r} serves target {target}, and token {principal.name!r} does not cover it; it covers "
                f"{covered}"
            )
