"""The admin plane: one table of its calls, from which both the routes and their OpenAPI description are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.control.plane import ControlPlane
from gateway.control.tokens import Role
from gateway.web.admin_batch import BatchEndpoint
from gateway.web.admin_call import AdminCall
from gateway.web.admin_catalogue import MODELS_QUERY, SEARCH_QUERY, CatalogueEndpoints
from gateway.web.admin_decisions import DECISIONS_QUERY, DecisionEndpoints, Decisions
from gateway.web.admin_drift import DriftEndpoint
from gateway.web.admin_explain import EXPLAIN_QUERY, ExplainEndpoint
from gateway.web.admin_follow import FollowEndpoints
from gateway.web.admin_gates import GateEndpoints
from gateway.web.admin_jobs import JOB_QUERY, JOBS_QUERY, JobEndpoints
from gateway.web.admin_keeping import KeepingEndpoints
from gateway.web.admin_models import ModelEndpoints
from gateway.web.admin_notifications import NotificationEndpoints
from gateway.web.admin_profiles import ProfileEndpoints
from gateway.web.admin_rollouts import RolloutEndpoints
from gateway.web.admin_routes import RouteEndpoints
from gateway.web.admin_targets import TargetEndpoints
from gateway.web.admin_upload import Uploads
from gateway.web.feedback import TruthEndpoint
from gateway.web.services import Services

__all__ = ["AdminPlane"]

Handler = Callable[[AdminCall], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """``role`` or above may call. ``takes``: media types of a body. ``bound``: open to tokens bound to some routes.
    ``query``: parameters, and what each says."""

    method: str
    path: str
    role: Role
    handler: Handler
    summary: str
    takes: tuple[str, ...] = ()
    bound: bool = False
    query: Mapping[str, str] = field(default_factory=dict)


class AdminPlane:
    """``routes`` for the application, ``paths`` for ``/openapi.json``. ``sources``: folders ``file:`` may name."""

    def __init__(
        self,
        plane: ControlPlane,
        services: Services,
        *,
        uploads: Uploads,
        sources: Sequence[Path] = (),
        decisions: Decisions | None = None,
    ) -> None:
        self._services = services
        self._endpoints = (
            *_route_calls(RouteEndpoints(plane.routes)),
            _explain_call(ExplainEndpoint(plane.routes)),
            *_rollout_calls(RolloutEndpoints(plane.rollouts)),
            *_follow_calls(FollowEndpoints(plane.follow)),
            *_model_calls(ModelEndpoints(plane.models, plane.jobs, sources=sources, uploads=uploads)),
            *_catalogue_calls(CatalogueEndpoints(plane.catalogue)),
            *_profile_calls(ProfileEndpoints(plane.profiles)),
            *_target_calls(TargetEndpoints(plane.targets)),
            *_gate_calls(GateEndpoints(plane.gates, uploads)),
            _truth_call(TruthEndpoint(services)),
            _drift_call(DriftEndpoint(services)),
            *_keeping_calls(KeepingEndpoints(plane)),
            *_notification_calls(NotificationEndpoints(plane)),
            *_decision_calls(DecisionEndpoints(decisions)),
            *_job_calls(JobEndpoints(plane.jobs), BatchEndpoint(plane.batches)),
        )

    def routes(self) -> Sequence[BaseRoute]:
        return [
            Route(f"/admin{endpoint.path}", self._served(endpoint), methods=[endpoint.method])
            for endpoint in self._endpoints
        ]

    def paths(self) -> dict[str, Any]:
        """The OpenAPI ``paths`` of the admin plane."""
        paths: dict[str, Any] = {}
        for endpoint in self._endpoints:
            paths.setdefault(f"/admin{endpoint.path}", {})[endpoint.method.lower()] = _described(endpoint)
        return paths

    def _served(self, endpoint: _Endpoint) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            call = await AdminCall.authorised(request, self._services, endpoint.role, bound=endpoint.bound)
            return await endpoint.handler(call)

        return serve


def _route_calls(routes: RouteEndpoints) -> Sequence[_Endpoint]:
    view, operate, admin, json = Role.VIEWER, Role.OPERATOR, Role.ADMIN, ("application/json",)
    one = "/routes/{route}"
    return (
        _Endpoint("GET", "/routes", view, routes.list, "Every route that the token covers", bound=True),
        _Endpoint("GET", one, view, routes.get, "A route: spec and status"),
        _Endpoint("PUT", one, operate, routes.put, "Make the route so", json),
        _Endpoint("DELETE", one, admin, routes.delete, "Delete the route; its history stays"),
        _Endpoint("POST", f"{one}/weights", operate, routes.weights, "The whole split; others get 0", json),
        _Endpoint("POST", f"{one}/rollback", operate, routes.rollback, "Back to the known good, at once", json),
        _Endpoint("POST", f"{one}/lift", operate, routes.lift, "End a quarantine", json),
        _Endpoint("GET", f"{one}/history", view, routes.history, "Every past document, newest first"),
        _Endpoint("POST", f"{one}/restore", operate, routes.restore, "Go back to a past document", json),
    )


def _rollout_calls(rollouts: RolloutEndpoints) -> Sequence[_Endpoint]:
    view, operate, json = Role.VIEWER, Role.OPERATOR, ("application/json",)
    one, many = "/routes/{route}/rollout", "/routes/{route}/rollouts"
    return (
        _Endpoint("POST", one, operate, rollouts.start, "Begin to move weight to a candidate, step by step", json),
        _Endpoint("GET", one, view, rollouts.get, "The rollout that runs, or the last one"),
        _Endpoint("DELETE", one, operate, rollouts.abort, "Abort it: the weights before it return", json),
        _Endpoint("POST", f"{one}/promote", operate, rollouts.promote, "The next step now", json),
        _Endpoint("POST", f"{one}/pause", operate, rollouts.pause, "Stay at this step; harm still ends it", json),
        _Endpoint("POST", f"{one}/resume", operate, rollouts.resume, "Go on after a pause"),
        _Endpoint("GET", many, view, rollouts.reports, "Ended rollouts, newest first"),
        _Endpoint("GET", f"{many}/{{rollout}}", view, rollouts.report, "A report; last names the newest"),
    )


def _follow_calls(follow: FollowEndpoints) -> Sequence[_Endpoint]:
    one, json = "/routes/{route}/follow", ("application/json",)
    return (
        _Endpoint("GET", one, Role.VIEWER, follow.get, "How far the route is with the name that it follows"),
        _Endpoint("POST", f"{one}/again", Role.OPERATOR, follow.again, "Import once more what was refused", json),
    )


def _explain_call(explaining: ExplainEndpoint) -> _Endpoint:
    summary = "Which version a key gets, why, and what other weights would change"
    return _Endpoint("GET", "/routes/{route}/explain", Role.VIEWER, explaining.explain, summary, query=EXPLAIN_QUERY)


def _truth_call(truth: TruthEndpoint) -> _Endpoint:
    summary = "How right the route's versions are, by the labels that have come, and by estimate before"
    query = {"days": "Of the answers of the last so many days; 0: all that are kept"}
    return _Endpoint("GET", "/truth/{route}", Role.VIEWER, truth.report, summary, query=query)


def _drift_call(drift: DriftEndpoint) -> _Endpoint:
    summary = "How far what the route's versions see and answer is from their references, and whose fault it is"
    return _Endpoint("GET", "/drift/{route}", Role.VIEWER, drift.report, summary)


def _model_calls(models: ModelEndpoints) -> Sequence[_Endpoint]:
    view, operate, json = Role.VIEWER, Role.OPERATOR, ("application/json",)
    one = "/models/{model}"
    return (
        _Endpoint("GET", one, view, models.get, "A model: versions and aliases"),
        _Endpoint(
            *("POST", f"{one}/versions", operate, models.register, "Register a version"),
            ("application/json", "multipart/form-data"),
        ),
        _Endpoint("GET", f"{one}/versions/{{version}}", view, models.version, "A version, with its manifest"),
        _Endpoint("PUT", f"{one}/aliases/{{alias}}", operate, models.set_alias, "Point an alias at a version", json),
        _Endpoint("DELETE", f"{one}/aliases/{{alias}}", operate, models.drop_alias, "Drop an alias"),
        _Endpoint("POST", f"{one}/versions/{{version}}/archive", operate, models.archive, "Archive a version"),
    )


def _catalogue_calls(catalogue: CatalogueEndpoints) -> Sequence[_Endpoint]:
    found = "Versions by name, tags, metrics, lineage, format, time"
    return (
        _Endpoint("GET", "/models", Role.VIEWER, catalogue.models, "Every model", query=MODELS_QUERY),
        _Endpoint("GET", "/catalogue", Role.VIEWER, catalogue.search, found, query=SEARCH_QUERY),
    )


def _profile_calls(profiles: ProfileEndpoints) -> Sequence[_Endpoint]:
    view, operate, json = Role.VIEWER, Role.OPERATOR, ("application/json",)
    many = "/models/{model}/versions/{version}/profiles"
    return (
        _Endpoint("GET", many, view, profiles.get, "What the version's traffic is counted with, and what was captured"),
        _Endpoint("POST", many, operate, profiles.capture, "Make a profile of live rows", json),
        _Endpoint("PUT", many, operate, profiles.use, "Count with a captured profile, or the manifest's again", json),
    )


def _gate_calls(gates: GateEndpoints) -> Sequence[_Endpoint]:
    view, operate, admin, json = Role.VIEWER, Role.OPERATOR, Role.ADMIN, ("application/json",)
    one, many = "/models/{model}/gates", "/models/{model}/versions/{version}/gates"
    return (
        _Endpoint("GET", one, view, gates.declared, "What versions of the model must pass"),
        _Endpoint(
            *("PUT", one, admin, gates.declare, "Say what versions must pass, with the files for it"),
            ("application/json", "multipart/form-data"),
        ),
        _Endpoint("DELETE", one, admin, gates.withdraw, "Ask nothing of versions any more"),
        _Endpoint("GET", many, view, gates.results, "What the version showed at its gates, with the newest report"),
        _Endpoint("POST", many, operate, gates.run, "Run the gates of the version now, as a job", json),
    )


def _target_calls(targets: TargetEndpoints) -> Sequence[_Endpoint]:
    view, operate, json = Role.VIEWER, Role.OPERATOR, ("application/json",)
    of_model = "/models/{model}/targets"
    one = f"{of_model}/{{target}}"
    return (
        _Endpoint("GET", "/targets", view, targets.list, "Every target: its path, what it asks, what stands there"),
        _Endpoint("GET", of_model, view, targets.get, "What of a model stands, may stand and stood in each target"),
        _Endpoint("PUT", one, operate, targets.promote, "Promote a version along the path", json, bound=True),
        _Endpoint("DELETE", one, operate, targets.demote, "Demote a version", json, bound=True),
    )


def _keeping_calls(keeping: KeepingEndpoints) -> Sequence[_Endpoint]:
    view, admin, json = Role.VIEWER, Role.ADMIN, ("application/json",)
    return (
        _Endpoint("GET", "/versions", view, keeping.versions, "What is resident here"),
        _Endpoint("GET", "/replicas", view, keeping.replicas, "Every live replica, and the store"),
        _Endpoint("POST", "/store/adopt", admin, keeping.adopt, "Take the store as it is, on this replica", json),
        _Endpoint(
            *("POST", "/store/restore-from-replica", admin, keeping.restore_from_replica),
            "Put this replica's last state back into the store",
            json,
        ),
        _Endpoint("GET", "/audit", view, keeping.audit, "Who changed what"),
        _Endpoint("GET", "/audit/verify", view, keeping.verify, "Proof that no record was altered or removed"),
        _Endpoint("GET", "/audit/checkpoint", view, keeping.checkpoint, "How the log stands now, signed"),
        _Endpoint("GET", "/tokens", admin, keeping.tokens, "Every token, without its secret"),
        _Endpoint("POST", "/tokens", admin, keeping.create_token, "Create a token; its secret is shown once", json),
        _Endpoint("POST", "/tokens/{name}/rotate", admin, keeping.rotate_token, "A new secret for a token", json),
        _Endpoint("DELETE", "/tokens/{name}", admin, keeping.revoke_token, "Revoke a token"),
        _Endpoint("GET", "/secrets", admin, keeping.secrets, "Where each secret is read, and when; never a secret"),
        _Endpoint("POST", "/secrets/refresh", admin, keeping.refresh_secrets, "Read every secret again, now"),
    )


def _notification_calls(notifications: NotificationEndpoints) -> Sequence[_Endpoint]:
    view, operate, json = Role.VIEWER, Role.OPERATOR, ("application/json",)
    return (
        _Endpoint("GET", "/notifications", view, notifications.list, "Who is told of events, and what became of it"),
        _Endpoint("POST", "/notifications/test", operate, notifications.test, "Tell every target, as a test", json),
        _Endpoint("GET", "/alarms", view, notifications.alarms, "Alarms that were raised and are not over"),
    )


def _decision_calls(decisions: DecisionEndpoints) -> Sequence[_Endpoint]:
    one = "A decision by its id or its request's: which version answered, by which bytes, and why"
    return (
        _Endpoint("GET", "/decisions", Role.VIEWER, decisions.list, "Decisions, newest first", query=DECISIONS_QUERY),
        _Endpoint("GET", "/decisions/{name}", Role.VIEWER, decisions.get, one),
    )


def _job_calls(jobs: JobEndpoints, batches: BatchEndpoint) -> Sequence[_Endpoint]:
    one = "/jobs/{job}"
    return (
        _Endpoint("GET", "/jobs", Role.VIEWER, jobs.list, "Jobs of this replica, newest first", query=JOBS_QUERY),
        _Endpoint("GET", one, Role.VIEWER, jobs.get, "A job: how far it is, how it ended", query=JOB_QUERY),
        _Endpoint("DELETE", one, Role.OPERATOR, jobs.cancel, "Cancel a job"),
        _Endpoint(
            *("POST", "/batch", Role.OPERATOR, batches.start, "Have a file of rows answered, as a job"),
            ("application/json",),
        ),
    )


def _described(endpoint: _Endpoint) -> dict[str, Any]:
    names = [part[1:-1] for part in endpoint.path.split("/") if part.startswith("{")]
    problem = {"content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    codes = ("400", "401", "403", "404", "409", "412", "413", "415", "422", "503")
    described: dict[str, Any] = {
        "summary": f"{endpoint.summary} ({endpoint.role})",
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names),
            *(
                {"name": name, "in": "query", "required": False, "description": says, "schema": {"type": "string"}}
                for name, says in endpoint.query.items()
            ),
        ],
        "responses": {"200": {"description": "Done"}}
        | {code: {"description": "See the problem's detail", **problem} for code in codes},
        "security": [{"token": []}],
    }
    if endpoint.takes:
        content = {kind: {"schema": {"type": "object"}} for kind in endpoint.takes}
        described["requestBody"] = {"content": content}
    return described
