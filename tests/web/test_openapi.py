"""The API document is true to what is served."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
from starlette.routing import Route

from tests.web.stage import Stage

RAW = {
    "/predict": {"POST"},
    "/predict/{route}": {"POST"},
    "/v2/models/{name}/infer": {"POST"},
    "/v2/models/{name}/versions/{version}/infer": {"POST"},
}
"""Served without Starlette."""


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            if name == "$ref":
                yield item
            else:
                yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


async def test_every_path_and_method_served_is_described_and_the_other_way_round(
    client: httpx.AsyncClient, stage: Stage
) -> None:
    """Extensions that answer "not served" are left out, and /metrics is mounted by the composition root."""
    document = (await client.get("/openapi.json")).json()
    described = {
        path: {method.upper() for method in operations}
        for path, operations in document["paths"].items()
        if path != "/metrics"
    }

    served = dict(RAW)
    for route in stage.application._rest.routes:
        assert isinstance(route, Route)
        if route.endpoint.__name__ != "not_served":
            served[route.path.replace(":path", "")] = (route.methods or set()) - {"HEAD"}

    assert described == served


async def test_every_reference_leads_somewhere(client: httpx.AsyncClient) -> None:
    """And every path parameter is declared."""
    document = (await client.get("/openapi.json")).json()

    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]
    for path, operations in document["paths"].items():
        named = {part[1:-1] for part in path.split("/") if part.startswith("{")}
        for operation in operations.values():
            declared = {entry["name"] for entry in operation.get("parameters", []) if entry["in"] == "path"}
            assert declared == named
            assert operation["responses"]
