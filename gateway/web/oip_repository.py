"""Open Inference Protocol v2, model repository extension: index, load, unload; and what is not served, said clearly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.codec.faults import describe
from gateway.codec.json_outputs import dump_json
from gateway.control.tokens import Role
from gateway.errors import BadRequest, NotFound
from gateway.serving.handle import VersionState
from gateway.web.auth import authorise
from gateway.web.body import receive_body
from gateway.web.exchange import EXCHANGE, Exchange
from gateway.web.request_facts import read_version
from gateway.web.services import Services
from gateway.web.standing import standings

__all__ = ["repository_routes"]

_STATES: Mapping[str, str] = {
    VersionState.ACTIVE: "READY",
    VersionState.LOADING: "LOADING",
    VersionState.WARMING: "LOADING",
    VersionState.DRAINING: "UNLOADING",
}
"""Everything else is UNAVAILABLE, as the extension has it."""

_OVERRIDES = ("config",)


class RepositoryEndpoints:
    """``load`` and ``unload`` take a model, ``digits/5``, ``digits@champion``, or a ``version`` parameter."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def index(self, request: Request) -> Response:
        wanted = await self._body(request)
        only_ready = wanted.get("ready", False)
        if type(only_ready) is not bool:
            raise BadRequest(f"ready: expected true or false, got {describe(only_ready)}")
        entries = {
            (route.name, version.version): (_STATES.get(version.state, "UNAVAILABLE"), version.reason)
            for route in standings(self._services.dataplane.current, self._services.whereabouts)
            for version in route.versions
        }
        for entry in await self._services.repository.index():
            state = (_STATES.get(entry.state, "UNAVAILABLE"), entry.reason)
            entries.setdefault((entry.name, entry.version), state)
        body = [
            {"name": name, "version": str(version), "state": state, "reason": reason}
            for (name, version), (state, reason) in sorted(entries.items())
            if state == "READY" or not only_ready
        ]
        return _json(body)

    async def load(self, request: Request) -> Response:
        reference, actor = await self._change(request)
        await self._services.repository.load(reference, actor=actor)
        return _json({})

    async def unload(self, request: Request) -> Response:
        reference, actor = await self._change(request)
        await self._services.repository.unload(reference, actor=actor)
        return _json({})

    async def _change(self, request: Request) -> tuple[str, str]:
        """What is to be loaded or unloaded, and who says so."""
        exchange: Exchange = request.scope[EXCHANGE]
        principal = await authorise(exchange.headers, self._services.verify, Role.OPERATOR)
        parameters = (await self._body(request)).get("parameters", {})
        if type(parameters) is not dict:
            raise BadRequest(f"parameters: expected an object, got {describe(parameters)}")
        for name in parameters:
            if name in _OVERRIDES or name.startswith("file:"):
                raise BadRequest(f"parameter {name[:60]!r}: a version is immutable; register a new one instead")
        reference = request.path_params["name"]
        version = parameters.get("version")
        if version is not None:
            reference = f"{reference}/{read_version(str(version), 'parameters.version')}"
        return reference, principal.actor

    async def _body(self, request: Request) -> Mapping[str, Any]:
        """The body's object; an empty body is an empty object."""
        exchange: Exchange = request.scope[EXCHANGE]
        body = await receive_body(exchange, self._services.limits)
        if not body.strip():
            return {}
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as fault:
            raise BadRequest(f"the body is not valid JSON: {fault}") from None
        if type(value) is not dict:
            raise BadRequest(f"the body is {describe(value)}, expected an object")
        return value


async def not_served(request: Request) -> Response:
    raise NotFound(f"{request.url.path[:200]}: this extension is not served here; GET /v2 lists those that are")


def repository_routes(services: Services) -> Sequence[BaseRoute]:
    repository = RepositoryEndpoints(services)
    absent = [
        "/v2/trace/setting",
        "/v2/models/{name}/trace/setting",
        "/v2/logging",
        "/v2/systemsharedmemory/{rest:path}",
        "/v2/cudasharedmemory/{rest:path}",
    ]
    return [
        Route("/v2/repository/index", repository.index, methods=["POST"]),
        Route("/v2/repository/models/{name:path}/load", repository.load, methods=["POST"]),
        Route("/v2/repository/models/{name:path}/unload", repository.unload, methods=["POST"]),
        *(Route(path, not_served, methods=["GET", "POST"]) for path in absent),
    ]


def _json(body: Any) -> Response:
    return Response(dump_json(body), media_type="application/json")
