"""The verbs against a running gateway: its admin API, over HTTP."""

from __future__ import annotations

import importlib
import ipaddress
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import httpx

from gateway.cli.admin_client import AdminClient
from gateway.cli.backend import Backend, Json, Registration, TargetMove
from gateway.cli.failures import CommandFailed
from gateway.cli.gate_progress import metered, staged
from gateway.cli.output import Steps
from gateway.cli.progress import stepwise
from gateway.registry.gates.named_files import local_files, renamed

if TYPE_CHECKING:  # the control plane is over there
    from gateway.control.batch_control import Batch
    from gateway.control.explain_question import Question

__all__ = ["HttpBackend", "is_loopback", "open_admin", "open_http"]

TIMEOUT = httpx.Timeout(30.0, connect=5.0)
UPLOAD_TIMEOUT = httpx.Timeout(600.0, connect=5.0)
"""A registration answers when the version's bytes are durable, which may take minutes for large ones."""
GATES_TIMEOUT = httpx.Timeout(3600.0, connect=5.0)
"""A promotion answers when its version has passed the gates of its model, which may evaluate it on much data."""

_UPLOAD = "gateway.cli.upload"
"""A registration alone needs it; it takes a quarter of a second to import."""


@asynccontextmanager
async def open_http(url: str, token: str | None) -> AsyncIterator[Backend]:
    """Nothing is sent until the first verb. CommandFailed when ``url`` is none."""
    async with open_admin(url, token) as admin:
        yield HttpBackend(admin)


@asynccontextmanager
async def open_admin(url: str, token: str | None) -> AsyncIterator[AdminClient]:
    """Nothing is sent until the first call. CommandFailed when ``url`` is none."""
    address = url.rstrip("/")
    if not address.startswith(("http://", "https://")):
        raise CommandFailed(f"TURNOUT_URL is {url!r}; expected an address like http://127.0.0.1:8000")
    if token and not (token.isascii() and token.isprintable()):  # the client's own error would show it
        raise CommandFailed("TURNOUT_TOKEN has a line break within, or another character that no header can hold")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        client = httpx.AsyncClient(
            base_url=address,
            headers=headers,
            timeout=TIMEOUT,
            # A proxy of the environment is for the world outside, never for this machine. The authorities that it
            # names (SSL_CERT_FILE) are for both.
            trust_env=not is_loopback(url),
            verify=httpx.create_ssl_context() if address.startswith("https:") else True,
        )
    except OSError as error:
        raise CommandFailed(f"SSL_CERT_FILE or SSL_CERT_DIR cannot be used: {error}") from None
    except (httpx.InvalidURL, UnicodeEncodeError) as error:
        raise CommandFailed(f"TURNOUT_URL cannot be used: {error}") from None
    async with client:
        yield AdminClient(client, address, token_given=token is not None)


class HttpBackend:
    """See ``Backend``. One call a verb; a failed call is never tried again on its own."""

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin
        self._call, self._send, self._list = admin.call, admin.send, admin.list

    @property
    def place(self) -> str:
        return self._admin.address

    async def routes(self) -> Sequence[Json]:
        return await self._list("/routes", "routes")

    async def route(self, name: str) -> Json:
        return await self._call("GET", f"/routes/{_part(name)}")

    async def put_route(self, name: str, spec: Json, *, expected: int | None) -> Json:
        return await self._call("PUT", f"/routes/{_part(name)}", spec, expected=expected)

    async def delete_route(self, name: str, *, expected: int | None) -> None:
        await self._call("DELETE", f"/routes/{_part(name)}", expected=expected)

    async def weights(self, name: str, weights: Mapping[int, int], *, expected: int | None) -> Json:
        body = {"weights": {str(version): weight for version, weight in weights.items()}}
        return await self._call("POST", f"/routes/{_part(name)}/weights", body, expected=expected)

    async def rollback(self, name: str, *, to: int | None, reason: str, local: bool = False) -> Json:
        body: dict[str, Any] = {"reason": reason} | ({} if to is None else {"to": to})
        body |= {"local": True} if local else {}
        return await self._call("POST", f"/routes/{_part(name)}/rollback", body)

    async def lift(self, name: str, version: int) -> Json:
        return await self._call("POST", f"/routes/{_part(name)}/lift", {"version": version})

    async def explain(self, name: str, question: Question) -> Json:
        return await self._send("GET", f"/routes/{_part(name)}/explain", params=_explain_query(question))

    async def history(self, name: str) -> Sequence[Json]:
        return await self._list(f"/routes/{_part(name)}/history", "history")

    async def restore(self, name: str, revision: int) -> Json:
        return await self._call("POST", f"/routes/{_part(name)}/restore", {"revision": revision})

    async def start_rollout(self, name: str, plan: Json, *, expected: int | None, override: str | None = None) -> Json:
        body = {**plan} if override is None else {**plan, "override": override}
        headers = {} if expected is None else {"if-match": f'"{expected}"'}
        path = f"/routes/{_part(name)}/rollout"
        return await self._send("POST", path, json=body, headers=headers, timeout=GATES_TIMEOUT)

    async def rollout(self, name: str) -> Json:
        return await self._call("GET", f"/routes/{_part(name)}/rollout")

    async def promote_rollout(self, name: str, *, full: bool, expected: int | None) -> Json:
        return await self._call("POST", f"/routes/{_part(name)}/rollout/promote", {"full": full}, expected=expected)

    async def pause_rollout(self, name: str, *, reason: str, expected: int | None) -> Json:
        return await self._call("POST", f"/routes/{_part(name)}/rollout/pause", {"reason": reason}, expected=expected)

    async def resume_rollout(self, name: str, *, expected: int | None) -> Json:
        return await self._call("POST", f"/routes/{_part(name)}/rollout/resume", expected=expected)

    async def abort_rollout(self, name: str, *, reason: str, expected: int | None) -> Json:
        return await self._call("DELETE", f"/routes/{_part(name)}/rollout", {"reason": reason}, expected=expected)

    async def followed(self, name: str) -> Json:
        return await self._call("GET", f"/routes/{_part(name)}/follow")

    async def follow_again(self, name: str) -> Json:
        return await self._call("POST", f"/routes/{_part(name)}/follow/again")

    async def rollout_reports(self, name: str) -> Sequence[Json]:
        return await self._list(f"/routes/{_part(name)}/rollouts", "rollouts")

    async def rollout_report(self, name: str, rollout: str) -> Json:
        return await self._call("GET", f"/routes/{_part(name)}/rollouts/{_part(rollout)}")

    async def models(self) -> Sequence[Json]:
        return await self._list("/models", "models")

    async def listed_models(self, *, limit: int | None, after: str | None) -> Json:
        query = {"brief": "true"} | ({} if limit is None else {"limit": str(limit)})
        return await self._send("GET", "/models", params=query | ({} if after is None else {"after": after}))

    async def search(self, terms: Mapping[str, Sequence[str]], *, limit: int, after: str | None) -> Json:
        query: dict[str, Any] = {name: list(texts) for name, texts in terms.items()} | {"limit": str(limit)}
        return await self._send("GET", "/catalogue", params=query | ({} if after is None else {"after": after}))

    async def model(self, name: str) -> Json:
        return await self._call("GET", f"/models/{_part(name)}")

    async def version(self, model: str, selector: str) -> Json:
        return await self._call("GET", f"/models/{_part(model)}/versions/{_part(selector)}")

    async def register(self, registration: Registration, steps: Steps) -> Json:
        path = f"/models/{_part(registration.model)}/versions"
        request = importlib.import_module(_UPLOAD).registration_request(registration, steps)
        if request.body is not None:
            job = await self._call("POST", path, {**request.body, "background": True})
            return await self._finished(job, stepwise(steps, f"importing {registration.model}"))
        apart = (
            {"background": "true"} if registration.environment is not None else {}
        )  # its build may take half an hour
        sent = {**(request.fields or {}), **apart}
        answer = await self._send("POST", path, data=sent, files=request.files, timeout=UPLOAD_TIMEOUT)
        return await self._finished(answer, stepwise(steps, f"building {registration.model}")) if apart else answer

    async def profiles(self, model: str, selector: str) -> Json:
        return await self._call("GET", f"/models/{_part(model)}/versions/{_part(selector)}/profiles")

    async def capture_profile(self, model: str, selector: str, *, route: str, rows: int, use: bool) -> Json:
        body = {"route": route, "rows": rows, "use": use}
        return await self._call("POST", f"/models/{_part(model)}/versions/{_part(selector)}/profiles", body)

    async def use_profile(self, model: str, selector: str, digest: str | None) -> Json:
        return await self._call(
            "PUT", f"/models/{_part(model)}/versions/{_part(selector)}/profiles", {"digest": digest}
        )

    async def set_alias(self, model: str, alias: str, version: int, *, override: str | None = None) -> Json:
        body = {"version": version} | ({} if override is None else {"override": override})
        path = f"/models/{_part(model)}/aliases/{_part(alias)}"
        return await self._send("PUT", path, json=body, timeout=GATES_TIMEOUT)

    async def drop_alias(self, model: str, alias: str) -> None:
        await self._call("DELETE", f"/models/{_part(model)}/aliases/{_part(alias)}")

    async def archive(self, model: str, version: int) -> Json:
        return await self._call("POST", f"/models/{_part(model)}/versions/{version}/archive")

    async def targets(self) -> Sequence[Json]:
        return await self._list("/targets", "targets")

    async def targets_of(self, model: str) -> Json:
        return await self._call("GET", f"/models/{_part(model)}/targets")

    async def promote_to(self, move: TargetMove) -> Json:
        body: dict[str, Any] = {"version": move.version, "reason": move.reason}
        body |= {} if move.override is None else {"override": move.override}
        path = f"/models/{_part(move.model)}/targets/{_part(move.target)}"
        return await self._send("PUT", path, json=body, timeout=GATES_TIMEOUT)

    async def demote_from(self, move: TargetMove, *, roll_back: bool) -> Json:
        body = {"version": move.version, "reason": move.reason, "roll_back": roll_back}
        return await self._call("DELETE", f"/models/{_part(move.model)}/targets/{_part(move.target)}", body)

    async def gates(self, model: str) -> Json:
        return await self._call("GET", f"/models/{_part(model)}/gates")

    async def put_gates(self, model: str, body: Any, folder: Path, steps: Steps) -> Json:
        path = f"/models/{_part(model)}/gates"
        found = local_files(body, folder)
        if not found:
            return await self._call("PUT", path, body)
        sent = {name: f"{index}/{file.name}" for index, (name, file) in enumerate(found.items())}
        with ExitStack() as stack:
            files = [
                ("file", (sent[name], stack.enter_context(metered(file, stepwise(steps, file.name)))))
                for name, file in found.items()
            ]
            fields = {"gates": json.dumps(renamed(body, sent))}
            return await self._send("PUT", path, data=fields, files=files, timeout=GATES_TIMEOUT)

    async def drop_gates(self, model: str) -> Json:
        return await self._call("DELETE", f"/models/{_part(model)}/gates")

    async def run_gates(self, model: str, selector: str, against: str | None, steps: Steps) -> Json:
        path = f"/models/{_part(model)}/versions/{_part(selector)}/gates"
        job = await self._call("POST", path, {} if against is None else {"against": against})
        told = staged(steps)
        while job["state"] in ("queued", "running"):
            job = await self._send("GET", f"/jobs/{_part(job['id'])}", params={"wait_s": "1"})
            progress = job["progress"]
            told(str(progress["unit"]) or "waiting", int(progress["done"]), progress["total"])
        if job["state"] != "done":
            raise CommandFailed(f"job {job['id']} is {job['state']}: {(job['problem'] or {}).get('detail', '')}")
        view: Json = job["result"]
        return view

    async def gate_results(self, model: str, selector: str) -> Json:
        return await self._call("GET", f"/models/{_part(model)}/versions/{_part(selector)}/gates")

    async def tokens(self) -> Sequence[Json]:
        return await self._list("/tokens", "tokens")

    async def create_token(self, name: str, role: str, *, routes: Sequence[str], expires_in_s: float | None) -> Json:
        body = {"name": name, "role": role, "routes": list(routes) or None, "expires_in_s": expires_in_s}
        return await self._call("POST", "/tokens", body)

    async def rotate_token(self, name: str, *, grace_s: float = 0.0) -> Json:
        return await self._call("POST", f"/tokens/{_part(name)}/rotate", {"grace_s": grace_s} if grace_s else None)

    async def revoke_token(self, name: str) -> None:
        await self._call("DELETE", f"/tokens/{_part(name)}")

    async def audit(self, *, after: int, limit: int) -> Sequence[Json]:
        return await self._list(f"/audit?after={after}&limit={limit}", "records")

    async def verify_audit(self) -> Json:
        return await self._call("GET", "/audit/verify")

    async def audit_checkpoint(self) -> Json:
        return await self._call("GET", "/audit/checkpoint")

    async def decision(self, name: str) -> Json:
        return await self._call("GET", f"/decisions/{_part(name)}")

    async def decisions(self, *, since: float | None, limit: int) -> Sequence[Json]:
        asked = f"/decisions?limit={limit}" if since is None else f"/decisions?limit={limit}&from={since:.6f}"
        found: list[Json] = []
        page = await self._call("GET", asked)
        while page["cursor"] is not None and len(found) + len(page["decisions"]) < limit:
            found += page["decisions"]
            page = await self._call("GET", f"{asked}&cursor={page['cursor']}")
        return [*found, *page["decisions"]][:limit]

    async def truth(self, name: str, days: int) -> Json:
        return await self._call("GET", f"/truth/{_part(name)}?days={days}")

    async def drift(self, name: str) -> Json:
        return await self._call("GET", f"/drift/{_part(name)}")

    async def secrets(self) -> Sequence[Json]:
        return await self._list("/secrets", "secrets")

    async def refresh_secrets(self) -> Json:
        return await self._send("POST", "/secrets/refresh", timeout=UPLOAD_TIMEOUT)

    async def replicas(self) -> Json:
        return await self._call("GET", "/replicas")

    async def adopt_store(self, *, reason: str) -> Json:
        return await self._call("POST", "/store/adopt", {"reason": reason})

    async def restore_store(self, *, reason: str, force: bool) -> Json:
        return await self._call("POST", "/store/restore-from-replica", {"reason": reason, "force": force})

    async def _finished(self, job: Json, told: Callable[[int, int], None]) -> Json:
        """Waits for the job, with its progress."""
        while job["state"] in ("queued", "running"):
            job = await self._send("GET", f"/jobs/{_part(job['id'])}", params={"wait_s": "1"})
            told(int(job["progress"]["done"]), int(job["progress"]["total"] or 0))
        if job["state"] != "done":
            detail = (job["problem"] or {}).get("detail", "ask again")
            raise CommandFailed(f"job {job['id']} is {job['state']}: {detail}")
        result: Json = job["result"]
        return result

    async def predict(self, batch: Batch, steps: Steps) -> Json:
        job = await self._call("POST", "/batch", _batch_body(batch))
        progress = stepwise(steps, str(job["title"]))
        while job["state"] in ("queued", "running"):
            job = await self._send("GET", f"/jobs/{_part(job['id'])}", params={"wait_s": "1"})
            progress(int(job["progress"]["done"]), int(job["progress"]["total"] or 0))
        if job["state"] != "done":
            detail = (job["problem"] or {}).get("detail", "the same command goes on from what is finished")
            raise CommandFailed(f"job {job['id']} is {job['state']}: {detail}")
        receipt: Json = job["result"]
        return receipt

    async def jobs(self, kind: str | None) -> Sequence[Json]:
        found = await self._send("GET", "/jobs", params={} if kind is None else {"kind": kind})
        jobs: Sequence[Json] = found["jobs"]
        return jobs

    async def job(self, job_id: str) -> Json:
        return await self._call("GET", f"/jobs/{_part(job_id)}")

    async def cancel_job(self, job_id: str) -> Json:
        return await self._call("DELETE", f"/jobs/{_part(job_id)}")


def is_loopback(url: str) -> bool:
    """Whether the address is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _explain_query(question: Question) -> dict[str, str | list[str]]:
    query: dict[str, str | list[str]] = {}
    if question.key is not None:
        query["key"] = question.key
    if question.context:
        query["context"] = json.dumps(dict(question.context))
    if question.headers:
        query["header"] = [f"{name}={value}" for name, value in question.headers.items()]
    if question.weights is not None:
        query["weights"] = ",".join(f"{version}={weight}" for version, weight in question.weights.items())
    if question.revision is not None:
        query["revision"] = str(question.revision)
    return query


def _batch_body(batch: Batch) -> Json:
    options = batch.options
    body: dict[str, Any] = {
        "version": batch.version,
        "input": f"file:{batch.source.absolute()}",
        "output": f"file:{batch.target.absolute()}",
        "missing": options.missing,
        "overwrite": options.overwrite,
    }
    body |= {"ids": list(options.ids)} if options.ids else {}
    body |= {"columns": list(options.columns)} if options.columns else {}
    body |= {} if options.key is None else {"key": options.key}
    return body | ({} if options.batch_rows is None else {"batch_rows": options.batch_rows})


def _part(name: str) -> str:
    return quote(name, safe="@:")
