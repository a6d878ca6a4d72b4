"""Admin calls on models: catalogue, versions, registration, aliases, archive."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from starlette.responses import Response

from gateway.control.jobs import Job, JobProgress, Jobs
from gateway.control.model_control import ModelControl
from gateway.web.admin_call import AdminCall, field, json_response, only
from gateway.web.admin_catalogue import not_modified
from gateway.web.admin_gates import override_in
from gateway.web.admin_registration import Asked, flag, read_registration
from gateway.web.admin_upload import Uploads, is_multipart

__all__ = ["ModelEndpoints"]


class ModelEndpoints:
    """``sources``: folders of this machine that ``file:`` may name. ``uploads`` takes artifacts that are sent. ``jobs``
    has imports that nobody waits at the line for."""

    def __init__(self, models: ModelControl, jobs: Jobs, *, sources: Sequence[Path], uploads: Uploads) -> None:
        self._models = models
        self._jobs = jobs
        self._sources = sources
        self._uploads = uploads
        self._keeping: set[asyncio.Task[None]] = set()

    async def get(self, call: AdminCall) -> Response:
        """304 to who has it as it stands."""
        view = await self._models.get(call.part("model"))
        if call.has(str(view["revision"])):
            return not_modified(str(view["revision"]))
        return json_response(view, revision=view["revision"])

    async def version(self, call: AdminCall) -> Response:
        return json_response(await self._models.version(call.part("model"), call.part("version")))

    async def register(self, call: AdminCall) -> Response:
        """201 for a new version, 200 for one that was registered already; 202 with a job for ``"background": true``."""
        if is_multipart(call.exchange):
            return await self._sent(call)
        body = dict(await call.body())
        if field(body, "background", bool, "true or false", required=False):
            return json_response((await self._begin(call.part("model"), body, call.actor)).to_json(), 202)
        body.pop("background", None)
        async with self._uploads.folder() as folder:
            return await self._registered(call, read_registration(body, folder, upload=None, sources=self._sources))

    async def _registered(self, call: AdminCall, asked: Asked) -> Response:
        found = await self._models.register(call.part("model"), asked.source, asked.options, actor=call.actor)
        return json_response(found, 201 if found["created"] else 200, revision=found["revision"])

    async def _sent(self, call: AdminCall) -> Response:
        """With ``background`` the files that came are kept until the job has ended."""
        async with AsyncExitStack() as stack:
            folder = await stack.enter_async_context(self._uploads.folder())
            upload = await self._uploads.receive(call.exchange, folder)
            background = flag("background", upload.fields.pop("background", False))
            asked = read_registration(upload.fields, folder, upload=upload, sources=self._sources)
            if not background:
                return await self._registered(call, asked)
            work = partial(self._import, call.part("model"), asked, call.actor)
            job = self._jobs.start("import", call.actor, work, title=f"{call.part('model')} from an upload"[:200])
            keeping = asyncio.ensure_future(self._kept(stack.pop_all(), job))
        self._keeping.add(keeping)
        keeping.add_done_callback(self._keeping.discard)
        return json_response(job.to_json(), 202)

    async def _kept(self, folder: AsyncExitStack, job: Job) -> None:
        async with folder:
            await self._jobs.ended(job.id)

    async def _import(self, model: str, asked: Asked, actor: str, progress: JobProgress) -> Mapping[str, Any]:
        return await self._models.register(
            model,
            asked.source,
            asked.options,
            actor=actor,
            progress=lambda done, total: progress.tell(done, total, "bytes"),
        )

    async def _begin(self, model: str, body: Mapping[str, Any], actor: str) -> Job:
        """What is wrong with the words is said now, and what is wrong with the source by the job."""
        said = {name: value for name, value in body.items() if name != "background"}
        async with self._uploads.folder() as folder:
            read_registration(said, folder, upload=None, sources=self._sources)

        async def work(progress: JobProgress) -> Mapping[str, Any]:
            async with self._uploads.folder() as folder:
                asked = read_registration(said, folder, upload=None, sources=self._sources)
                return await self._import(model, asked, actor, progress)

        return self._jobs.start("import", actor, work, title=f"{model} from {said['source']}"[:200])

    async def set_alias(self, call: AdminCall) -> Response:
        body = await call.body()
        only(body, "version", "override")
        version, override = field(body, "version", int, "a version's number"), override_in(call, body)
        view = await self._models.set_alias(
            *(call.part("model"), call.part("alias"), version),
            actor=call.actor,
            expected=call.expected(),
            override=override,
        )
        return json_response(view, revision=view["revision"])

    async def drop_alias(self, call: AdminCall) -> Response:
        view = await self._models.drop_alias(
            call.part("model"), call.part("alias"), actor=call.actor, expected=call.expected()
        )
        return json_response(view, revision=view["revision"])

    async def archive(self, call: AdminCall) -> Response:
        view = await self._models.archive(
            call.part("model"), call.number("version"), actor=call.actor, expected=call.expected()
        )
        return json_response(view, revision=view["revision"])
