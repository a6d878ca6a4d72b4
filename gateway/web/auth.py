"""Who is calling: bearer tokens to principals, and what each call asks of them."""

from __future__ import annotations

import asyncio
import inspect

from gateway.control.tokens import Principal, Role
from gateway.errors import Unauthenticated
from gateway.messages import Texts
from gateway.routing.table import Route
from gateway.web.services import Verify

__all__ = ["authenticate", "authorise", "authorise_route"]

_MAX_TOKEN_CHARS = 512


async def authenticate(headers: Texts, verify: Verify) -> Principal:
    """The principal of ``Authorization: Bearer …``; Unauthenticated when there is none or it is wrong."""
    sent = headers.get("authorization")
    if sent is None:
        raise Unauthenticated("this call needs a token; send the header Authorization: Bearer <token>")
    scheme, _, token = sent.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN_CHARS:
        raise Unauthenticated("the Authorization header is not of the form: Bearer <token>")
    found = verify(token)
    principal = await asyncio.ensure_future(found) if inspect.isawaitable(found) else found
    if principal is None:
        raise Unauthenticated("the token is not known or has expired; create one with: turnout tokens create")
    return principal


async def authorise(headers: Texts, verify: Verify, role: Role) -> Principal:
    """Authenticated, and of ``role`` or above for everything; else Unauthenticated or Forbidden."""
    principal = await authenticate(headers, verify)
    principal.require_everywhere(role)
    return principal


async def authorise_route(headers: Texts, verify: Verify, route: Route) -> Principal:
    """Who calls a protected route: its token must cover it. Any other route is open, and need not be asked."""
    principal = await authenticate(headers, verify)
    principal.require(Role.PREDICT, route.name)
    return principal
