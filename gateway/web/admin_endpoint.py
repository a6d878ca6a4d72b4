"""One call of the admin plane as its table has it: who may, what it takes, how it is served and described."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.control.tokens import Role
from gateway.web.admin_call import AdminCall

__all__ = ["Endpoint", "Serve", "by_method"]

Handler = Callable[[AdminCall], Awaitable[Response]]
Serve = Callable[[Request], Awaitable[Response]]

_DONE = {"200": "Done", "201": "Made", "202": "Begun"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``role`` or above may call. ``takes``: media types of a body. ``bound``: open to tokens bound to some routes.
    ``query``: parameters, and what each says. ``answers``: statuses of a call that was done."""

    method: str
    path: str
    role: Role
    handler: Handler
    summary: str
    takes: tuple[str, ...] = ()
    bound: bool = False
    query: Mapping[str, str] = field(default_factory=dict)
    answers: tuple[str, ...] = ("200",)

    def described(self) -> dict[str, Any]:
        """The operation, as OpenAPI has it."""
        names = [part[1:-1] for part in self.path.split("/") if part.startswith("{")]
        problem = {"content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
        codes = ("400", "401", "403", "404", "409", "412", "413", "415", "422", "503")
        described: dict[str, Any] = {
            "summary": f"{self.summary} ({self.role})",
            "parameters": [
                *({"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names),
                *(
                    {"name": name, "in": "query", "required": False, "description": says, "schema": {"type": "string"}}
                    for name, says in self.query.items()
                ),
            ],
            "responses": {code: {"description": _DONE[code]} for code in self.answers}
            | {code: {"description": "See the problem's detail", **problem} for code in codes},
            "security": [{"token": []}],
        }
        if self.takes:
            content = {kind: {"schema": {"type": "object"}} for kind in self.takes}
            described["requestBody"] = {"content": content}
        return described


def by_method(calls: Mapping[str, Serve]) -> Serve:
    """The calls of one path, by their methods, as one; HEAD is GET, whose body the server leaves out."""

    async def serve(request: Request) -> Response:
        return await calls["GET" if request.method == "HEAD" else request.method](request)

    return serve
