"""The verbs straight on the store and the artifacts of a home. A gateway that runs there takes changes up by itself."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.cli.backend import Backend, Json, Registration, TargetMove
from gateway.cli.failures import CommandFailed
from gateway.cli.gate_progress import staged
from gateway.cli.output import Steps
from gateway.cli.progress import stepwise
from gateway.control.batch_control import Batch
from gateway.control.catalogue_control import Page
from gateway.control.explain_question import Question
from gateway.control.gatekeeping import Override
from gateway.control.local_control import LocalControl, open_control
from gateway.control.target_control import Move
from gateway.registry.gates.named_files import local_files
from gateway.registry.gates.storing import with_stored_files
from gateway.registry.registration import RegistrationOptions
from gateway.registry.search import read_query
from gateway.settings import load_settings
from gateway.telemetry.decisions.found import Question as DecisionsAsked
from gateway.telemetry.decisions.reader import opened
from gateway.telemetry.decisions.segments import FOLDER as DECISIONS_FOLDER
from gateway.telemetry.feedback.opening import truth_at
from gateway.telemetry.feedback.tables import LABELS_FILE

__all__ = ["LocalBackend", "open_local"]

ASK_A_REPLICA = (
    "what a replica knows of its store is the replica's own: start it (it serves its last state), set TURNOUT_URL to "
    "it, and ask again"
)

JOBS_ARE_A_GATEWAYS = (
    "jobs belong to a running gateway: set TURNOUT_URL, and TURNOUT_TOKEN, to ask it; on a home a command does its "
    "work itself, and ends with it"
)

ASK_WHO_READS = (
    "which secrets are in force is known by the gateway that reads them: set TURNOUT_URL, and TURNOUT_TOKEN, to ask "
    "it; turnout config check --read tells whether they can be read here"
)

ASK_A_GATEWAY = (
    "profiles of live rows are made where the rows run: start the gateway, set TURNOUT_URL to it, and ask again; "
    "turnout show tells the profile that a version was registered with"
)


@asynccontextmanager
async def open_local(home: Path, config: Path | None = None) -> AsyncIterator[Backend]:
    """Opens the home, which is made if it is missing, with the settings of ``config`` and the environment. Raises
    SettingsError or StoreUnavailable."""
    settings = load_settings(config, overrides={"home": home})
    async with open_control(settings) as control:
        yield LocalBackend(control, home)


class LocalBackend:
    """See ``Backend``. Whoever can write to the home may do anything with it, so there are no roles here."""

    def __init__(self, control: LocalControl, home: Path) -> None:
        self._control = control
        self._home = home
        self._actor = f"local:{_user()}"

    @property
    def place(self) -> str:
        return str(self._home)

    async def routes(self) -> Sequence[Json]:
        return await self._control.routes.list()

    async def route(self, name: str) -> Json:
        return await self._control.routes.get(name)

    async def put_route(self, name: str, spec: Json, *, expected: int | None) -> Json:
        return await self._control.routes.put(name, spec, actor=self._actor, expected=expected)

    async def delete_route(self, name: str, *, expected: int | None) -> None:
        await self._control.routes.delete(name, actor=self._actor, expected=expected)

    async def weights(self, name: str, weights: Mapping[int, int], *, expected: int | None) -> Json:
        asked = {str(version): weight for version, weight in weights.items()}
        return await self._control.routes.set_weights(name, asked, actor=self._actor, expected=expected)

    async def rollback(self, name: str, *, to: int | None, reason: str, local: bool = False) -> Json:
        return await self._control.routes.rollback(name, to=to, reason=reason, actor=self._actor, local=local)

    async def lift(self, name: str, version: int) -> Json:
        return await self._control.routes.lift(name, version, actor=self._actor)

    async def explain(self, name: str, question: Question) -> Json:
        return await self._control.routes.explain(name, question)

    async def history(self, name: str) -> Sequence[Json]:
        return await self._control.routes.history(name)

    async def restore(self, name: str, revision: int) -> Json:
        return await self._control.routes.restore(name, revision, actor=self._actor)

    async def start_rollout(self, name: str, plan: Json, *, expected: int | None, override: str | None = None) -> Json:
        leave = None if override is None else Override(override)
        return await self._control.rollouts.start(name, plan, actor=self._actor, expected=expected, override=leave)

    async def rollout(self, name: str) -> Json:
        return await self._control.rollouts.get(name)

    async def promote_rollout(self, name: str, *, full: bool, expected: int | None) -> Json:
        return await self._control.rollouts.promote(name, full=full, actor=self._actor, expected=expected)

    async def pause_rollout(self, name: str, *, reason: str, expected: int | None) -> Json:
        return await self._control.rollouts.pause(name, reason=reason, actor=self._actor, expected=expected)

    async def resume_rollout(self, name: str, *, expected: int | None) -> Json:
        return await self._control.rollouts.resume(name, actor=self._actor, expected=expected)

    async def abort_rollout(self, name: str, *, reason: str, expected: int | None) -> Json:
        return await self._control.rollouts.abort(name, reason=reason, actor=self._actor, expected=expected)

    async def followed(self, name: str) -> Json:
        return await self._control.follow.get(name)

    async def follow_again(self, name: str) -> Json:
        return await self._control.follow.again(name, actor=self._actor)

    async def rollout_reports(self, name: str) -> Sequence[Json]:
        return await self._control.rollouts.reports(name)

    async def rollout_report(self, name: str, rollout: str) -> Json:
        return await self._control.rollouts.report(name, rollout)

    async def models(self) -> Sequence[Json]:
        return await self._control.models.list()

    async def listed_models(self, *, limit: int | None, after: str | None) -> Json:
        found = await self._control.catalogue.models(Page(after, limit), brief=True)
        return {"models": found.rows, "next": found.following}

    async def search(self, terms: Mapping[str, Sequence[str]], *, limit: int, after: str | None) -> Json:
        found = await self._control.catalogue.search(read_query(terms), Page(after, limit))
        return {"versions": found.rows, "next": found.following, "unreadable": found.unreadable}

    async def model(self, name: str) -> Json:
        return await self._control.models.get(name)

    async def version(self, model: str, selector: str) -> Json:
        return await self._control.models.version(model, selector)

    async def register(self, registration: Registration, steps: Steps) -> Json:
        options = RegistrationOptions(
            entry=registration.entry,
            format=registration.format,
            signature=registration.signature,
            example=registration.example,
            golden=registration.golden,
            reference=registration.reference,
            evaluation=registration.evaluation,
            lineage=registration.lineage,
            environment=registration.environment,
            own_environment=registration.own_environment,
            tags=registration.tags,
            device=registration.device,
            threads=registration.threads,
            placement=registration.placement,
            max_rows=registration.max_rows,
            precision=registration.precision,
            compile=registration.compile,
            cuda_graphs=registration.cuda_graphs,
            retry=registration.retry,
        )
        progress = stepwise(steps, f"storing {registration.model}")
        return await self._control.models.register(
            registration.model,
            registration.source,
            options,
            actor=self._actor,
            progress=progress,
            told=lambda line: steps(f"environment: {line}"[:100], 0)(0),
        )

    async def profiles(self, model: str, selector: str) -> Json:
        raise CommandFailed(ASK_A_GATEWAY)

    async def capture_profile(self, model: str, selector: str, *, route: str, rows: int, use: bool) -> Json:
        raise CommandFailed(ASK_A_GATEWAY)

    async def use_profile(self, model: str, selector: str, digest: str | None) -> Json:
        raise CommandFailed(ASK_A_GATEWAY)

    async def set_alias(self, model: str, alias: str, version: int, *, override: str | None = None) -> Json:
        leave = None if override is None else Override(override)
        return await self._control.models.set_alias(model, alias, version, actor=self._actor, override=leave)

    async def drop_alias(self, model: str, alias: str) -> None:
        await self._control.models.drop_alias(model, alias, actor=self._actor)

    async def archive(self, model: str, version: int) -> Json:
        return await self._control.models.archive(model, version, actor=self._actor)

    async def targets(self) -> Sequence[Json]:
        return await self._control.targets.list()

    async def targets_of(self, model: str) -> Json:
        return await self._control.targets.get(model)

    async def promote_to(self, move: TargetMove) -> Json:
        override = None if move.override is None else Override(move.override)
        return await self._control.targets.promote(self._moving(move), override=override)

    async def demote_from(self, move: TargetMove, *, roll_back: bool) -> Json:
        return await self._control.targets.demote(self._moving(move), roll_back=roll_back)

    def _moving(self, move: TargetMove) -> Move:
        return Move(move.model, move.version, move.target, self._actor, move.reason)

    async def predict(self, batch: Batch, steps: Steps) -> Json:
        progress = stepwise(steps, f"{batch.version} on {batch.source.name}")
        return await self._control.batches.score(batch, lambda done, total: progress(done, total or 0))

    async def jobs(self, kind: str | None) -> Sequence[Json]:
        raise CommandFailed(JOBS_ARE_A_GATEWAYS)

    async def job(self, job_id: str) -> Json:
        raise CommandFailed(JOBS_ARE_A_GATEWAYS)

    async def cancel_job(self, job_id: str) -> Json:
        raise CommandFailed(JOBS_ARE_A_GATEWAYS)

    async def gates(self, model: str) -> Json:
        return await self._control.gates.declared(model)

    async def put_gates(self, model: str, body: Any, folder: Path, steps: Steps) -> Json:
        gates, files = self._control.gates, local_files(body, folder)
        with gates.storing() as blobs:
            stored = await asyncio.to_thread(
                with_stored_files, body, files, blobs, lambda name: stepwise(steps, f"storing {name}")
            )
            return await gates.declare(model, stored, actor=self._actor)

    async def drop_gates(self, model: str) -> Json:
        return await self._control.gates.declare(model, None, actor=self._actor)

    async def run_gates(self, model: str, selector: str, against: str | None, steps: Steps) -> Json:
        self._control.gates.runs.progress = staged(steps)
        return await self._control.gates.run(model, selector, against=against, actor=self._actor)

    async def gate_results(self, model: str, selector: str) -> Json:
        return await self._control.gates.results(model, selector)

    async def tokens(self) -> Sequence[Json]:
        return await self._control.tokens.list()

    async def create_token(self, name: str, role: str, *, routes: Sequence[str], expires_in_s: float | None) -> Json:
        return await self._control.tokens.create(
            name, role, actor=self._actor, routes=list(routes) or None, expires_in_s=expires_in_s
        )

    async def rotate_token(self, name: str, *, grace_s: float = 0.0) -> Json:
        return await self._control.tokens.rotate(name, actor=self._actor, grace_s=grace_s)

    async def revoke_token(self, name: str) -> None:
        await self._control.tokens.revoke(name, actor=self._actor)

    async def audit(self, *, after: int, limit: int) -> Sequence[Json]:
        return await self._control.audit(after=after, limit=limit)

    async def verify_audit(self) -> Json:
        return await self._control.verify_audit()

    async def audit_checkpoint(self) -> Json:
        return await self._control.audit_checkpoint()

    async def decision(self, name: str) -> Json:
        return await asyncio.to_thread(opened(self._home / DECISIONS_FOLDER).one, name)

    async def decisions(self, *, since: float | None, limit: int) -> Sequence[Json]:
        question = DecisionsAsked(since=None if since is None else int(since * 1e6), limit=limit)
        page = await asyncio.to_thread(opened(self._home / DECISIONS_FOLDER).page, question)
        found: Sequence[Json] = page["decisions"]
        return found

    async def truth(self, name: str, days: int) -> Json:
        return truth_at(self._home / LABELS_FILE, name, days)

    async def drift(self, name: str) -> Json:
        raise CommandFailed("drift is judged by a running gateway: set TURNOUT_URL, and TURNOUT_TOKEN, to ask it")

    async def secrets(self) -> Sequence[Json]:
        raise CommandFailed(ASK_WHO_READS)

    async def refresh_secrets(self) -> Json:
        raise CommandFailed(ASK_WHO_READS)

    async def replicas(self) -> Json:
        return await self._control.replicas()

    async def adopt_store(self, *, reason: str) -> Json:
        raise CommandFailed(ASK_A_REPLICA)

    async def restore_store(self, *, reason: str, force: bool) -> Json:
        raise CommandFailed(ASK_A_REPLICA)


def _user() -> str:
    """The account that runs the command, by name if it has one."""
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
