"""The verbs that commands use, in two implementations: a running gateway over HTTP, or the store of a home.

Values are plain JSON, in the shapes of the admin API; both implementations give the same
(``tests/cli/test_backends.py`` runs one contract on both). Every verb raises TurnoutError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gateway.cli.output import Steps

if TYPE_CHECKING:  # they bring the whole control plane, which a command to a gateway does without
    from gateway.control.batch_control import Batch
    from gateway.control.explain_question import Question

__all__ = [
    "Backend",
    "JobVerbs",
    "ModelVerbs",
    "Registration",
    "RolloutVerbs",
    "RouteVerbs",
    "TargetMove",
    "TargetVerbs",
    "TokenVerbs",
]

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Registration:
    """What ``turnout register`` was asked: a source, what belongs to it, and how the version shall run."""

    model: str
    source: str
    entry: str | None = None
    format: str | None = None
    signature: Path | None = None
    example: Path | None = None
    reference: Path | None = None
    golden: Path | None = None
    evaluation: Path | None = None
    lineage: Path | None = None
    environment: Path | None = None
    own_environment: bool = True
    tags: Mapping[str, str] = field(default_factory=dict)
    placement: str | None = None
    device: str | None = None
    threads: int | None = None
    max_rows: int | None = None
    precision: str | None = None
    compile: bool = False
    cuda_graphs: bool = False
    retry: bool = True


class RouteVerbs(Protocol):
    """Routes: ``{"route": name, "revision": n, "spec": {...}, "status": {...}}``."""

    async def routes(self) -> Sequence[Json]: ...

    async def route(self, name: str) -> Json: ...

    async def put_route(self, name: str, spec: Json, *, expected: int | None) -> Json: ...

    async def delete_route(self, name: str, *, expected: int | None) -> None: ...

    async def weights(self, name: str, weights: Mapping[int, int], *, expected: int | None) -> Json: ...

    async def rollback(self, name: str, *, to: int | None, reason: str, local: bool = False) -> Json: ...

    async def lift(self, name: str, version: int) -> Json: ...

    async def explain(self, name: str, question: Question) -> Json:
        """As ``GET /admin/routes/{route}/explain`` answers."""
        ...

    async def history(self, name: str) -> Sequence[Json]: ...

    async def restore(self, name: str, revision: int) -> Json: ...


class RolloutVerbs(Protocol):
    """Rollouts: ``{"route", "revision", "running", "split", "rollout": {...}, "live": {...}}``."""

    async def start_rollout(
        self, name: str, plan: Json, *, expected: int | None, override: str | None = None
    ) -> Json: ...

    async def rollout(self, name: str) -> Json: ...

    async def promote_rollout(self, name: str, *, full: bool, expected: int | None) -> Json: ...

    async def pause_rollout(self, name: str, *, reason: str, expected: int | None) -> Json: ...

    async def resume_rollout(self, name: str, *, expected: int | None) -> Json: ...

    async def abort_rollout(self, name: str, *, reason: str, expected: int | None) -> Json: ...

    async def rollout_reports(self, name: str) -> Sequence[Json]: ...

    async def rollout_report(self, name: str, rollout: str) -> Json: ...


class FollowVerbs(Protocol):
    """``{"route", "revision", "model", "follow": {...}, "status": {...} or None}``."""

    async def followed(self, name: str) -> Json: ...

    async def follow_again(self, name: str) -> Json: ...


class ModelVerbs(Protocol):
    """Models and their versions. ``selector`` is a number, ``@alias`` or ``@sha256:...``."""

    async def models(self) -> Sequence[Json]: ...

    async def listed_models(self, *, limit: int | None, after: str | None) -> Json:
        """``{"models": [{"name", "count", "newest", "aliases", ...}], "next": name}``: a page, in few words."""
        ...

    async def search(self, terms: Mapping[str, Sequence[str]], *, limit: int, after: str | None) -> Json:
        """As ``GET /admin/catalogue`` answers."""
        ...

    async def model(self, name: str) -> Json: ...

    async def version(self, model: str, selector: str) -> Json: ...

    async def register(self, registration: Registration, steps: Steps) -> Json: ...

    async def profiles(self, model: str, selector: str) -> Json:
        """``{"model", "version", "used", "counted", "captured": [...], "capture": {...}, "profile": {...}}``."""
        ...

    async def capture_profile(self, model: str, selector: str, *, route: str, rows: int, use: bool) -> Json:
        """Begins; ``profiles`` tells how far it is."""
        ...

    async def use_profile(self, model: str, selector: str, digest: str | None) -> Json: ...

    async def set_alias(self, model: str, alias: str, version: int, *, override: str | None = None) -> Json:
        """``override``: why gates that refuse do not count."""
        ...

    async def drop_alias(self, model: str, alias: str) -> None: ...

    async def archive(self, model: str, version: int) -> Json: ...


@dataclass(frozen=True, slots=True)
class TargetMove:
    """A version that is to stand in a target, or not to. ``override``: why gates that refuse do not count."""

    model: str
    version: int
    target: str
    reason: str = ""
    override: str | None = None


class TargetVerbs(Protocol):
    """Targets, as ``/admin/targets`` and ``/admin/models/{model}/targets`` have them."""

    async def targets(self) -> Sequence[Json]: ...

    async def targets_of(self, model: str) -> Json: ...

    async def promote_to(self, move: TargetMove) -> Json:
        """``{"model", "target", "version", "before", "changed", "standing", "rollouts": [...]}``."""
        ...

    async def demote_from(self, move: TargetMove, *, roll_back: bool) -> Json:
        """``{"model", "target", "version", "standing", "rolled_back": [...]}``."""
        ...


class JobVerbs(Protocol):
    """Batches, and the jobs of a gateway."""

    async def predict(self, batch: Batch, steps: Steps) -> Json:
        """The receipt, when all rows are answered. A gateway does it as a job, on files of its own machine."""
        ...

    async def jobs(self, kind: str | None) -> Sequence[Json]: ...

    async def job(self, job_id: str) -> Json: ...

    async def cancel_job(self, job_id: str) -> Json: ...


class GateVerbs(Protocol):
    """What a model asks of its versions: ``{"model", "revision", "gates", "digest"}``; and what they showed."""

    async def gates(self, model: str) -> Json: ...

    async def put_gates(self, model: str, body: Any, folder: Path, steps: Steps) -> Json:
        """Files that ``body`` names are in ``folder``, or below it; they are stored with it."""
        ...

    async def drop_gates(self, model: str) -> Json: ...

    async def run_gates(self, model: str, selector: str, against: str | None, steps: Steps) -> Json:
        """``{"model", "version", "passed", "failed", "why", "record", "report"}``."""
        ...

    async def gate_results(self, model: str, selector: str) -> Json:
        """``{"model", "version", "results": [...], "report", "problem", "asked", "passes"}``."""
        ...


class TokenVerbs(Protocol):
    """Tokens: the secret is in the answer of ``create_token`` and ``rotate_token``, and nowhere else."""

    async def tokens(self) -> Sequence[Json]: ...

    async def create_token(
        self, name: str, role: str, *, routes: Sequence[str], expires_in_s: float | None
    ) -> Json: ...

    async def rotate_token(self, name: str, *, grace_s: float = 0.0) -> Json: ...

    async def revoke_token(self, name: str) -> None: ...


class Backend(
    RouteVerbs, RolloutVerbs, FollowVerbs, ModelVerbs, TargetVerbs, GateVerbs, TokenVerbs, JobVerbs, Protocol
):
    """All of it, and the audit log. ``place`` says where, for people."""

    @property
    def place(self) -> str: ...

    async def audit(self, *, after: int, limit: int) -> Sequence[Json]: ...

    async def verify_audit(self) -> Json: ...

    async def audit_checkpoint(self) -> Json:
        """``{"checkpoint": note, "size", "head", "at", "key"}``."""
        ...

    async def decision(self, name: str) -> Json:
        """As ``GET /admin/decisions/{id}`` answers. Raises NotFound."""
        ...

    async def decisions(self, *, since: float | None, limit: int) -> Sequence[Json]:
        """As ``GET /admin/decisions`` answers, newest first, of however many pages. ``since``: seconds, the epoch's."""
        ...

    async def truth(self, name: str, days: int) -> Json:
        """As ``GET /admin/truth/{route}`` answers."""
        ...

    async def drift(self, name: str) -> Json:
        """As ``GET /admin/drift/{route}`` answers."""
        ...

    async def secrets(self) -> Sequence[Json]:
        """``{"place", "kind", "source", "read_at", "changed_at", "rotations", "trouble"}`` each."""
        ...

    async def refresh_secrets(self) -> Json:
        """``{"rotated": [place], "secrets": [...]}``."""
        ...

    async def replicas(self) -> Json:
        """``{"replicas": [...], "leaders": {...}, "store": {...}}``."""
        ...

    async def adopt_store(self, *, reason: str) -> Json:
        """``{"revision": n}``."""
        ...

    async def restore_store(self, *, reason: str, force: bool) -> Json:
        """``{"revision": n}``."""
        ...
