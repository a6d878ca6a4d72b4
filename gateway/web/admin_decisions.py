"""``GET /admin/decisions``: which version answered what, when, and why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from starlette.responses import Response

from gateway.errors import BadRequest, NotFound
from gateway.web.admin_call import AdminCall, json_response

__all__ = ["DECISIONS_QUERY", "DecisionEndpoints", "Decisions"]

DECISIONS_QUERY: Mapping[str, str] = {
    "route": "Of this route",
    "version": "Chosen, or answered: a version's number",
    "code": "With this HTTP status",
    "from": "Begun at or after this time: ISO 8601, or seconds since the epoch",
    "to": "Begun before this time",
    "limit": "At most so many (100; up to 1000)",
    "cursor": "Where the page before ended",
}
_MOST = 1000
_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
_CURSOR = re.compile(r"[0-9a-f-]{1,64}~?")


class Decisions(Protocol):
    """The decision log, as it is read. ``find`` raises NotFound; both StoreUnavailable."""

    async def find(self, name: str) -> Mapping[str, Any]: ...

    async def page(self, question: Mapping[str, Any]) -> Mapping[str, Any]: ...


class DecisionEndpoints:
    """``decisions`` None: this gateway keeps no log."""

    def __init__(self, decisions: Decisions | None) -> None:
        self._decisions = decisions

    async def get(self, call: AdminCall) -> Response:
        return json_response(await self._kept().find(call.part("name")))

    async def list(self, call: AdminCall) -> Response:
        return json_response(await self._kept().page(_question(call)))

    def _kept(self) -> Decisions:
        if self._decisions is None:
            raise NotFound("this gateway keeps no decision log; telemetry.decisions.enabled turns it on")
        return self._decisions


def _question(call: AdminCall) -> dict[str, Any]:
    """Raises BadRequest naming what does not fit."""
    query = call.request.query_params
    strange = sorted(query.keys() - DECISIONS_QUERY.keys())
    if strange:
        raise BadRequest.of(strange[0][:60], f"one of {', '.join(DECISIONS_QUERY)}", "an unknown parameter")
    cursor = query.get("cursor")
    if cursor is not None and not _CURSOR.fullmatch(cursor):
        raise BadRequest.of("cursor", "what the page before gave as cursor", repr(cursor[:80]))
    asked = {
        "route": query.get("route"),
        "version": call.query_number("version", 0, most=2**53) or None,
        "code": call.query_number("code", 0, most=999) or None,
        "since": _moment("from", query.get("from")),
        "until": _moment("to", query.get("to")),
        "below": cursor,
        "limit": max(1, call.query_number("limit", 100, most=_MOST)),
    }
    return {name: value for name, value in asked.items() if value is not None}


def _moment(name: str, text: str | None) -> int | None:
    """Microseconds since the epoch; a time without a zone is UTC."""
    if text is None:
        return None
    if _SECONDS.fullmatch(text):
        return int(float(text) * 1e6)
    try:
        when = datetime.fromisoformat(text)
        return int((when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp() * 1e6)
    except (ValueError, OverflowError):
        raise BadRequest.of(name, "a time like 2026-11-22T03:00:00Z, or seconds", repr(text[:60])) from None
