"""Admin calls on jobs: what runs and what ran on this replica, and cancelling."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.responses import Response

from gateway.control.jobs import Jobs
from gateway.web.admin_call import AdminCall, json_response

__all__ = ["JOBS_QUERY", "JOB_QUERY", "JobEndpoints"]

LONGEST_WAIT_S = 60

JOBS_QUERY = {"kind": "Only jobs of this kind: batch, gates, import, environment"}
JOB_QUERY = {"wait_s": f"Answer when the job has ended, after so many seconds (at most {LONGEST_WAIT_S}) at the latest"}


class JobEndpoints:
    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def list(self, call: AdminCall) -> Response:
        found = self._jobs.list(kind=call.request.query_params.get("kind"))
        return json_response({"jobs": [job.to_json() for job in found]})

    async def get(self, call: AdminCall) -> Response:
        name, wait_s = call.part("job"), call.query_number("wait_s", 0, most=LONGEST_WAIT_S)
        if wait_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._jobs.ended(name)
        return json_response(self._jobs.get(name).to_json())

    async def cancel(self, call: AdminCall) -> Response:
        """202: the job is ``cancelled`` once its work has ended."""
        return json_response(self._jobs.cancel(call.part("job")).to_json(), 202)
