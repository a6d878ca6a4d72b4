"""``/healthz``: alive. ``/readyz``: every route has a warm version that can answer; the body says what is degraded."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.codec.json_outputs import dump_json
from gateway.web.services import Services
from gateway.web.standing import standings

__all__ = ["health_routes", "is_ready"]


def health_routes(services: Services) -> Sequence[BaseRoute]:
    async def alive(request: Request) -> Response:  # noqa: ARG001 (the framework's shape)
        return Response(b'{"status":"alive"}', media_type="application/json")

    async def ready(request: Request) -> Response:  # noqa: ARG001
        current = services.dataplane.current
        draining = services.dataplane.draining
        routes = list(standings(current, services.whereabouts))
        fine = not draining and all(route.ready for route in routes)
        body = {
            "ready": fine,
            "draining": draining,
            "revision": current.table.revision,
            "routes": {route.name: route.to_json() for route in routes},
            "degraded": [*(text for route in routes for text in route.degraded), *services.degraded()],
        }
        headers = {} if fine else {"retry-after": "1"}
        return Response(dump_json(body), 200 if fine else 503, headers, media_type="application/json")

    return [Route("/healthz", alive), Route("/readyz", ready)]


def is_ready(services: Services) -> bool:
    """What ``/readyz`` and the protocol's ``/v2/health/ready`` agree on."""
    ready = all(route.ready for route in standings(services.dataplane.current, services.whereabouts))
    return ready and not services.dataplane.draining
