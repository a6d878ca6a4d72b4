"""Admin calls on gates: what a model asks of its versions, what they showed, and a run that is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from gateway.control.gate_control import GateControl
from gateway.control.gatekeeping import Override
from gateway.control.tokens import Role
from gateway.errors import BadRequest
from gateway.registry.gates.storing import with_stored_files
from gateway.web.admin_call import AdminCall, field, json_response, only
from gateway.web.admin_upload import Uploads, is_multipart

__all__ = ["GateEndpoints", "override_in"]


class GateEndpoints:
    """``uploads`` takes the files that a declaration names."""

    def __init__(self, gates: GateControl, uploads: Uploads) -> None:
        self._gates = gates
        self._uploads = uploads

    async def declared(self, call: AdminCall) -> Response:
        view = await self._gates.declared(call.part("model"))
        return json_response(view, revision=view["revision"])

    async def declare(self, call: AdminCall) -> Response:
        """JSON whose files are stored already, or a form: the field ``gates`` and a part ``file`` for each it names."""
        model = call.part("model")
        if not is_multipart(call.exchange):
            view = await self._gates.declare(model, await call.body(), actor=call.actor, expected=call.expected())
            return json_response(view, revision=view["revision"])
        async with self._uploads.folder() as folder:
            upload = await self._uploads.receive(call.exchange, folder)
            body = _object(upload.fields.get("gates"))
            files = {name: upload.artifact / name for name in upload.names}
            with self._gates.storing() as blobs:
                stored = await asyncio.to_thread(with_stored_files, body, files, blobs)
                view = await self._gates.declare(model, stored, actor=call.actor, expected=call.expected())
        return json_response(view, revision=view["revision"])

    async def withdraw(self, call: AdminCall) -> Response:
        view = await self._gates.declare(call.part("model"), None, actor=call.actor, expected=call.expected())
        return json_response(view, revision=view["revision"])

    async def results(self, call: AdminCall) -> Response:
        return json_response(await self._gates.results(call.part("model"), call.part("version")))

    async def run(self, call: AdminCall) -> Response:
        """202 with the job; its result has the report."""
        body = await call.body(optional=True)
        only(body, "against")
        against = field(body, "against", str, "a version: 3, @champion", required=False)
        job = await self._gates.start(call.part("model"), call.part("version"), against=against, actor=call.actor)
        return json_response(job, 202)


def override_in(call: AdminCall, body: Mapping[str, Any]) -> Override | None:
    """``override``: the reason of an administrator whom gates shall not hold back. Raises Forbidden, InvalidInput."""
    why = field(body, "override", str, "text: why gates that refuse do not count", required=False)
    if why is None:
        return None
    call.principal.require_everywhere(Role.ADMIN)
    return Override(why)


def _object(text: str | None) -> dict[str, Any]:
    try:
        value = orjson.loads(text or "")
    except orjson.JSONDecodeError as fault:
        raise BadRequest(f"the field gates is not valid JSON: {fault}") from None
    if type(value) is not dict:
        raise BadRequest(f"the field gates is a JSON {type(value).__name__}; expected an object")
    return value
