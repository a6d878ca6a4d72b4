"""Admin calls that read the catalogue: models page by page, versions by what is asked of them; or that none changed."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from gateway.control.catalogue_control import CatalogueControl, Page
from gateway.errors import BadRequest
from gateway.registry.search import read_query
from gateway.web.admin_call import AdminCall, json_response

__all__ = ["MODELS_QUERY", "SEARCH_QUERY", "CatalogueEndpoints", "not_modified"]

MOST = 10_000
SEARCHED = 100

MODELS_QUERY = {
    "limit": "At most so many models (all, if left out); next names the after of the page that follows",
    "after": "Models behind this name",
    "brief": "true: the number of versions and the newest, in place of all",
}
SEARCH_QUERY = {
    "name": "Part of the model's name, or a pattern with *",
    "tag": "KEY=VALUE, or KEY; may stand several times, and all must hold",
    "alias": "Versions that this alias points at",
    "metric": "Like accuracy>=0.95, or accuracy[slice]>=0.95; may stand several times",
    "data": "Trained on data of this digest (sha256:…, may be cut short); may stand several times",
    "commit": "Trained by code of this commit, which may be cut short",
    "format": "onnx, torch, sklearn, python",
    "author": "Part of the author",
    "source": "Imported from this system, or system:name",
    "archived": "yes, no or any",
    "registered_after": "Seconds since the epoch, or a date",
    "registered_before": "Seconds since the epoch, or a date",
    "limit": f"At most so many versions ({SEARCHED}, if left out)",
    "after": "Versions behind this one (fraud/12), as next names it",
}


class CatalogueEndpoints:
    def __init__(self, catalogue: CatalogueControl) -> None:
        self._catalogue = catalogue

    async def models(self, call: AdminCall) -> Response:
        """Without a query: every model with every version, as ever."""
        query = call.request.query_params
        unknown = sorted(set(query) - set(MODELS_QUERY))
        if unknown:
            raise BadRequest(f"unknown {unknown[0][:60]!r} in the query; it takes {', '.join(MODELS_QUERY)}")
        limit = call.query_number("limit", 0, most=MOST) or None
        brief = query.get("brief", "false")
        if brief not in ("true", "false"):
            raise BadRequest(f"brief={brief[:40]!r}: expected true or false")
        page = Page(query.get("after"), limit)
        etag = await self._catalogue.etag("models", page, brief)
        if call.has(etag):
            return not_modified(etag)
        found = await self._catalogue.models(page, brief=brief == "true")
        body: dict[str, Any] = {"models": found.rows}
        body |= {"next": found.following} if query else {}
        body |= {"unreadable": found.unreadable} if found.unreadable else {}
        return _tagged(json_response(body), etag)

    async def search(self, call: AdminCall) -> Response:
        terms: dict[str, list[str]] = {}
        for name, text in call.request.query_params.multi_items():
            if name not in ("limit", "after"):
                terms.setdefault(name, []).append(text)
        query = read_query(terms)
        page = Page(call.request.query_params.get("after"), call.query_number("limit", SEARCHED, most=MOST))
        etag = await self._catalogue.etag("search", query, page)
        if call.has(etag):
            return not_modified(etag)
        found = await self._catalogue.search(query, page)
        body = {"versions": found.rows, "next": found.following, "unreadable": found.unreadable}
        return _tagged(json_response(body), etag)


def not_modified(etag: str) -> Response:
    return Response(status_code=304, headers={"etag": f'"{etag}"'})


def _tagged(response: Response, etag: str) -> Response:
    response.headers["etag"] = f'"{etag}"'
    return response
