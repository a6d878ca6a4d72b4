"""The admin plane: one table of its calls, from which both the routes and their OpenAPI description are made."""

from __future__ import annotations

from collections.abc import Sequence
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
from gateway.web.admin_endpoint import Endpoint, Serve, by_method
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

MADE, BEGUN = ("201",), ("202",)


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
        """One for each path: a call of another method is told of all that are served there."""
        served: dict[str, dict[str, Serve]] = {}
        for endpoint in self._endpoints:
            served.setdefault(endpoint.path, {})[endpoint.method] = self._served(endpoint)
        return [Route(f"/admin{path}", by_method(calls), methods=list(calls)) for path, calls in served.items()]

    def paths(self) -> dict[str, Any]:
        """The OpenAPI ``paths`` of the admin plane."""
        paths: dict[str, Any] = {}
        for endpoint in self._endpoints:
            paths.setdefault(f"/admin{endpoint.path}", {})[endpoint.method.lower()] = endpoint.described()
        return paths

    def _served(self, endpoint: Endpoint) -> Serve:
        async def serve(request: Request) -> Response:
            call = await AdminCall.authorised(request, self._services, endpoint.role, bound=endpoint.bound)
            return await endpoint.handler(call)

        return serve


def _route_calls(routes: RouteEndpoints) -> Sequence[Endpoint]:
    view, operate, admin, json = Role.VIEWER, Role.OPERATOR, Role.ADMIN, ("application/json",)
    one = "/routes/{route}"
    return (
        Endpoint("GET", "/routes", view, routes.list, "Every route that the token covers", bound=True),
        Endpoint("GET", one, view, routes.get, "A route: spec and status"),
        Endpoint("PUT", one, operate, routes.put, "Make the route so", json, answers=("200", *MADE)),
        Endpoint("DELETE", one, admin, routes.delete, "Delete the route; its history stays"),
        Endpoint("POST", f"{one}/weights", operate, routes.weights, "The whole split; others get 0", json),
        Endpoint("POST", f"{one}/rollback", operate, routes.rollback, "Back to the known good, at once", json),
        Endpoint("POST", f"{one}/lift", operate, routes.lift, "End a quarantine", json),
        Endpoint("GET", f"{one}/history", view, routes.history, "Every past document, newest first"),
        Endpoint("POST", f"{one}/restore", operate, routes.restore, "Go back to a past document", json),
    )


def _rollout_calls(rollouts: RolloutEndpoints) -> Sequence[Endpoint]:
    view, operate, json = Role.VIEWER, Role.OPERATOR, ("application/json",)
    one, many = "/routes/{route}/rollout", "/routes/{route}/rollouts"
    return (
        Endpoint(
            "POST",
            one,
            operate,
            rollouts.start,
            "Begin to move weight to a candidate, step by step",
            json,
            answers=MADE,
        ),
        Endpoint("GET", one, view, rollouts.get, "The rollout that runs, or the last one"),
        Endpoint("DELETE", one, operate, rollouts.abort, "Abort it: the weights before it return", json),
        Endpoint("POST", f"{one}/promote", operate, rollouts.promote, "The next step now", json),
        Endpoint("POST", f"{one}/pause", operate, rollouts.pause, "Stay at this step; harm still ends it", json),
        Endpoint("POST", f"{one}/resume", operate, rollouts.resume, "Go on after a pause"),
        Endpoint("GET", many, view, rollouts.reports, "Ended rollouts, newest first"),
        Endpoint("GET", f"{many}/{{rollout}}", view, rollouts.report, "A report; last names the newest"),
    )


def _follow_calls(follow: FollowEndpoints) -> Sequence[Endpoint]:
    one, json = "/routes/{route}/follow", ("application/json",)
    return (
        Endpoint("GET", one, Role.VIEWER, follow.get, "How far the route is with the name that it follows"),
        Endpoint("POST", f"{one}/again", Role.OPERATOR, follow.again, "Import once more what was refused", json),
    )


def _explain_call(explaining: ExplainEndpoint) -> Endpoint:
    summary = "Which version a key gets, why, and what other weights would change"
    return Endpoint("GET", "/routes/{route}/explain", Role.VIEWER, explaining.explain, summary, query=EXPLAIN_QUERY)


def _truth_call(truth: TruthEndpoint) -> Endpoint:
    summary = "How right the route's versions are, by the labels that have come, and by estimate before"
    query = {"days": "Of the answers of the last so many days; 0: all that are kept"}
    return Endpoint("GET", "/truth/{route}", Role.VIEWER, truth.report, summary, query=query)


def _drift_call(drift: DriftEndpoint) -> Endpoint:
    summary = "How far what the route's versions see and answer is from their references, and whose fault it is"
    return Endpoint("GET", "/drift/{route}", Role.VIEWER, drift.report, summary)


def _model_calls(models: ModelEndpoints) -> Sequence[Endpoint]:
    view, operate, json = Role.VIEWER, Role.OPERATOR, ("application/json",)
    one = "/models/{model}"
    return (
        Endpoint("GET", one, view, models.get, "A model: versions and aliases"),
        Endpoint(
            *("POST", f"{one}/versions", operate, models.register, "Register a version"),
            ("application/json", "multipart/form-data"),
            answers=("200", *MADE, *BEGUN),
        ),
        Endpoint("GET", f"{one}/versions/{{version}}", view, models.version, "A version, with its manifest"),
        Endpoint("PUT", f"{one}/aliases/{{alias}}", operate, models.set_alias, "Point an alias at a version", json),
        Endpoint("DELETE", f"{one}/aliases/{{alias}}", operate, models.drop_alias, "Drop an alias"),
        Endpoint("POST", f"{one}/versions/{{version}}/archive", operate, models.archive, "Archive a version"),
    )


def _catalogue_calls(catalogue: CatalogueEndpoints) -> Sequence[Endpoint]:
    found = "Versions by name, tags, metrics, lineage, format, time"
    return (
        Endpoint("GET", "/models", Role.VIEWER, catalogue.models, "Every model", query=MODELS_QUERY),
        Endpoint("GET", "/catalogue", Role.VIEWER, catalogue.search, found, query=SEARCH_QUERY),
    )


def _profile_calls(profiles: ProfileEndpoints) -> Sequence[Endpoint]:
    view, operate, json = Role.VIEWER, Role.OPERATOR, ("application/json",)
    many = "/models/{model}/versions/{version}/profiles"
    return (
        Endpoint("GET", many, view, profiles.get, "What the version's traffic is counted with, and what was captured"),
        Endpoint("POST", many, operate, profiles.capture, "Make a profile of live rows", json, answers=BEGUN),
        Endpoint("PUT", many, operate, profiles.use, "Count with a captured profile, or the manifest's again", json),
    )


def _gate_calls(gates: GateEndpoints) -> Sequence[Endpoint]:
    view, operate, admin, json = Role.VIEWER, Role.OPERATOR, Role.ADMIN, ("application/json",)
    one, many = "/models/{model}/gates", "/models/{model}/versions/{version}/gates"
    return (
        Endpoint("GET", one, view, gates.declared, "What versions of the model must pass"),
        Endpoint(
            *("PUT", one, admin, gates.declare, "Say what versions must pass, with the files for it"),
            ("application/json", "multipart/form-data"),
        ),
        Endpoint("DELETE", one, admin, gates.withdraw, "Ask nothing of versions any more"),
        Endpoint("GET", many, view, gates.results, "What the version showed at its gates, with the newest report"),
        Endpoint("POST", many, operate, gates.run, "Run the gates of the version now, as a job", json, answers=BEGUN),
    )


def _target_calls(targets: TargetEndpoints) -> Sequence[Endpoint]:
    view, operate, json = Role.VIEWER, Role.OPERATOR, ("application/json",)
    of_model = "/models/{model}/targets"
    one = f"{of_model}/{{target}}"
    return (
        Endpoint("GET", "/targets", view, targets.list, "Every target: its path, what it asks, what stands there"),
        Endpoint("GET", of_model, view, targets.get, "What of a model stands, may stand and stood in each target"),
        Endpoint("PUT", one, operate, targets.promote, "Promote a version along the path", json, bound=True),
        Endpoint("DELETE", one, operate, targets.demote, "Demote a version", json, bound=True),
    )


def _keeping_calls(keeping: KeepingEndpoints) -> Sequence[Endpoint]:
    view, admin, json = Role.VIEWER, Role.ADMIN, ("application/json",)
    return (
        Endpoint("GET", "/versions", view, keeping.versions, "What is resident here"),
        Endpoint("GET", "/replicas", view, keeping.replicas, "Every live replica, and the store"),
        Endpoint("POST", "/store/adopt", admin, keeping.adopt, "Take the store as it is, on this replica", json),
        Endpoint(
            *("POST", "/store/restore-from-replica", admin, keeping.restore_from_replica),
            "Put this replica's last state back into the store",
            json,
        ),
        Endpoint("GET", "/audit", view, keeping.audit, "Who changed what"),
        Endpoint("GET", "/audit/verify", view, keeping.verify, "Proof that no record was altered or removed"),
        Endpoint("GET", "/audit/checkpoint", view, keeping.checkpoint, "How the log stands now, signed"),
        Endpoint("GET", "/tokens", admin, keeping.tokens, "Every token, without its secret"),
        Endpoint(
            "POST",
            "/tokens",
            admin,
            keeping.create_token,
            "Create a token; its secret is shown once",
            json,
            answers=MADE,
        ),
        Endpoint("POST", "/tokens/{name}/rotate", admin, keeping.rotate_token, "A new secret for a token", json),
        Endpoint("DELETE", "/tokens/{name}", admin, keeping.revoke_token, "Revoke a token"),
        Endpoint("GET", "/secrets", admin, keeping.secrets, "Where each secret is read, and when; never a secret"),
        Endpoint("POST", "/secrets/refresh", admin, keeping.refresh_secrets, "Read every secret again, now"),
    )


def _notification_calls(notifications: NotificationEndpoints) -> Sequence[Endpoint]:
    view, operate, json = Role.VIEWER, Role.OPERATOR, ("application/json",)
    return (
        Endpoint("GET", "/notifications", view, notifications.list, "Who is told of events, and what became of it"),
        Endpoint(
            "POST",
            "/notifications/test",
            operate,
            notifications.test,
            "Tell every target, as a test",
            json,
            answers=BEGUN,
        ),
        Endpoint("GET", "/alarms", view, notifications.alarms, "Alarms that were raised and are not over"),
    )


def _decision_calls(decisions: DecisionEndpoints) -> Sequence[Endpoint]:
    one = "A decision by its id or its request's: which version answered, by which bytes, and why"
    return (
        Endpoint("GET", "/decisions", Role.VIEWER, decisions.list, "Decisions, newest first", query=DECISIONS_QUERY),
        Endpoint("GET", "/decisions/{name}", Role.VIEWER, decisions.get, one),
    )


def _job_calls(jobs: JobEndpoints, batches: BatchEndpoint) -> Sequence[Endpoint]:
    one = "/jobs/{job}"
    return (
        Endpoint("GET", "/jobs", Role.VIEWER, jobs.list, "Jobs of this replica, newest first", query=JOBS_QUERY),
        Endpoint("GET", one, Role.VIEWER, jobs.get, "A job: how far it is, how it ended", query=JOB_QUERY),
        Endpoint("DELETE", one, Role.OPERATOR, jobs.cancel, "Cancel a job", answers=BEGUN),
        Endpoint(
            *("POST", "/batch", Role.OPERATOR, batches.start, "Have a file of rows answered, as a job"),
            ("application/json",),
            answers=BEGUN,
        ),
    )
