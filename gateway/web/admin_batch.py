"""The admin call that has a file of rows answered, as a job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.responses import Response

from gateway.batch.plan import BatchOptions
from gateway.control.batch_control import Batch, BatchControl
from gateway.errors import FieldProblem, InvalidInput
from gateway.web.admin_call import AdminCall, field, json_response, only

__all__ = ["BatchEndpoint"]

_FIELDS = ("version", "input", "output", "key", "ids", "columns", "batch_rows", "missing", "overwrite")


class BatchEndpoint:
    def __init__(self, batches: BatchControl) -> None:
        self._batches = batches

    async def start(self, call: AdminCall) -> Response:
        """202 with the job; ``GET /admin/jobs/{id}`` tells how far it is, and in the end gives the receipt."""
        body = await call.body()
        only(body, *_FIELDS)
        batch = Batch(
            field(body, "version", str, "a version: digits/3, digits@champion or digits@sha256:…"),
            _path(body, "input"),
            _path(body, "output"),
            BatchOptions(
                key=field(body, "key", str, "the name of a column", required=False),
                ids=_names(body, "ids"),
                columns=_names(body, "columns"),
                batch_rows=field(body, "batch_rows", int, "a number of rows", required=False),
                missing=field(body, "missing", str, "refuse or nan", required=False) or "refuse",
                overwrite=bool(field(body, "overwrite", bool, "true or false", required=False)),
            ),
        )
        return json_response((await self._batches.start(batch, actor=call.actor)).to_json(), 202)


def _path(body: Mapping[str, Any], name: str) -> Path:
    text = field(body, name, str, "file:/path on the gateway's machine")
    rest = text.removeprefix("file:")
    path = Path("/" + rest.lstrip("/") if rest.startswith("//") else rest)
    if not path.is_absolute() or "\0" in text:
        problem = FieldProblem(name, "file:/path on the gateway's machine", repr(text)[:60])
        raise InvalidInput(f"{name}: expected file:/path on the gateway's machine, got {text[:200]!r}", problem)
    return path


def _names(body: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = body.get(name) or ()
    if isinstance(value, str) or not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise InvalidInput(
            f"{name}: expected a list of columns, got {value!r:.60}",
            FieldProblem(name, "a list of columns", repr(value)[:60]),
        )
    return tuple(value)
