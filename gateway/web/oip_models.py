"""Open Inference Protocol v2: what a client asks about the server and its models. ``{name}`` is a route."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway import __version__
from gateway.codec.json_outputs import dump_json
from gateway.errors import VersionUnavailable
from gateway.messages import Signature, TensorSpec
from gateway.routing.decide import unknown_route
from gateway.routing.table import Route as ServedRoute
from gateway.serving.handle import Handle
from gateway.web.auth import authorise_route
from gateway.web.health import is_ready
from gateway.web.request_facts import read_version
from gateway.web.services import Services
from gateway.web.standing import handle_for, versions_named

__all__ = ["EXTENSIONS", "model_routes"]

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)

_CONFIG_TYPES = {"BYTES": "TYPE_STRING"}


class ModelEndpoints:
    """Reads what is in force; changes nothing."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def server(self, request: Request) -> Response:
        return _json({"name": "turnout", "version": __version__, "extensions": list(EXTENSIONS)})

    async def live(self, request: Request) -> Response:
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        ready = is_ready(self._services)
        return _json({"ready": ready}, 200 if ready else 503)

    async def metadata(self, request: Request) -> Response:
        route, handle = await self._model(request)
        signature = handle.signature
        return _json(
            {
                "name": route.name,
                "versions": self._resident(route),
                "platform": handle.spec.load.format,
                "inputs": [_describe(spec) for spec in signature.inputs],
                "outputs": [_describe(spec) for spec in signature.outputs],
            }
        )

    async def model_ready(self, request: Request) -> Response:
        try:
            route, handle = await self._model(request)
        except VersionUnavailable as error:
            return _json({"ready": False, "error": str(error)}, 503)
        return _json({"name": route.name, "ready": handle.ready}, 200 if handle.ready else 503)

    async def config(self, request: Request) -> Response:
        route, handle = await self._model(request)
        signature = handle.signature
        max_batch_size = handle.spec.batch.max_rows if signature.batched else 0
        return _json(
            {
                "name": route.name,
                "platform": handle.spec.load.format,
                "backend": handle.spec.load.format,
                "version_policy": {"specific": {"versions": [int(number) for number in self._resident(route)]}},
                "max_batch_size": max_batch_size,
                "input": _configure(signature, signature.inputs),
                "output": _configure(signature, signature.outputs),
            }
        )

    async def statistics(self, request: Request) -> Response:
        route = await self._route(request)
        text = request.path_params.get("version")
        if text is None:
            numbers = [int(number) for number in self._resident(route)]
        else:
            numbers = [handle_for(self._services.dataplane.current, route, read_version(text, "version")).ref.number]
        return _json({"model_stats": self._report(route, numbers)})

    async def all_statistics(self, request: Request) -> Response:
        routes = self._services.dataplane.current.table.routes.values()
        reports = [
            report
            for route in routes
            for report in self._report(route, [int(number) for number in self._resident(route)])
        ]
        return _json({"model_stats": reports})

    def _report(self, route: ServedRoute, numbers: Sequence[int]) -> list[dict[str, Any]]:
        statistics = self._services.statistics
        return [statistics.report(route.name, route.ref(number)) for number in numbers]

    def _resident(self, route: ServedRoute) -> list[str]:
        """Versions of the route that are warm here; the protocol writes them as strings."""
        handles = self._services.dataplane.current.handles
        return [
            str(number)
            for number in versions_named(route)
            if (handle := handles.get(route.ref(number))) is not None and handle.state == "active"
        ]

    async def _route(self, request: Request) -> ServedRoute:
        routes = self._services.dataplane.current.table.routes
        name = request.path_params["name"]
        route = routes.get(name)
        if route is None:
            raise unknown_route(name, routes)
        headers = {name: value for name, value in request.headers.items() if name == "authorization"}
        if route.protected:
            await authorise_route(headers, self._services.verify, route)
        return route

    async def _model(self, request: Request) -> tuple[ServedRoute, Handle]:
        route = await self._route(request)
        text = request.path_params.get("version")
        pin = None if text is None else read_version(text, "version")
        return route, handle_for(self._services.dataplane.current, route, pin)


def model_routes(services: Services) -> Sequence[BaseRoute]:
    model = ModelEndpoints(services)
    routes: list[BaseRoute] = [
        Route("/v2", model.server),
        Route("/v2/health/live", model.live),
        Route("/v2/health/ready", model.ready),
        Route("/v2/models/stats", model.all_statistics),
    ]
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        routes += [
            Route(path, model.metadata),
            Route(f"{path}/ready", model.model_ready),
            Route(f"{path}/config", model.config),
            Route(f"{path}/stats", model.statistics),
        ]
    return routes


def _describe(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": _sizes(spec.shape)}


def _configure(signature: Signature, specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    """As Triton's model configuration has it: without the batch axis, types by their long names."""
    return [
        {
            "name": spec.name,
            "data_type": _CONFIG_TYPES.get(spec.datatype, f"TYPE_{spec.datatype}"),
            "dims": _sizes(spec.shape[1:] if signature.batched else spec.shape),
        }
        for spec in specs
    ]


def _sizes(shape: tuple[int | str, ...]) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in shape]


def _json(body: Any, status: int = 200) -> Response:
    return Response(dump_json(body), status, media_type="application/json")
