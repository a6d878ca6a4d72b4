"""A request and its decision in the words of OpenTelemetry's conventions, and in ours where it has none.

HTTP (https://opentelemetry.io/docs/specs/semconv/http/http-spans/): the server span's attributes. ``url.path`` is the
route's own path, also where its client used a shorter one for the default route: no record keeps what was typed.

Feature flags (https://opentelemetry.io/docs/specs/semconv/feature-flags/): an evaluation is an *event* named
``feature_flag.evaluation``, told on the span of the decision; a route is a flag whose variants are versions, and where
a flag of a provider chose, that one stands in its place. The same attributes are on the request's span as well,
because trace stores search by the attributes of spans, and hardly any by those of events.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gateway.events.records import RequestRecord
from gateway.messages import Decision
from gateway.telemetry.tracing.spans import Attributes

__all__ = ["EVALUATION", "UNIQUE", "Server", "evaluation", "of_request"]

EVALUATION: Final = "feature_flag.evaluation"

UNIQUE: Final = frozenset({"turnout.request_id", "turnout.decision_id"})
"""Attributes whose values are not seen again; those of the others are mostly what they were before."""

_TEMPLATES = {"predict": "/predict/{route}", "oip": "/v2/models/{name}/infer"}
_PATHS = {"predict": "/predict/{}", "oip": "/v2/models/{}/infer"}
_REASONS = {"pin": "static", "split": "split", "fallback": "default"}
_MOST_CHARACTERS = 500


class Server(NamedTuple):
    """Where HTTP is spoken here, as far as it is known."""

    scheme: str = "http"
    address: str = ""
    port: int = 0


def template_of(protocol: str) -> str:
    return _TEMPLATES.get(protocol, protocol)


def of_request(record: RequestRecord, server: Server, sampled_by: str, evaluated: Attributes) -> Attributes:
    """What the request's own span says; ``evaluated`` is its decision's ``evaluation``."""
    said: dict[str, str | int | float | bool] = {
        "http.request.method": "POST",
        "http.route": template_of(record.protocol),
        "http.response.status_code": record.code,
        "url.scheme": server.scheme,
        "turnout.request_id": _cut(record.request_id),
        "turnout.decision_id": record.decision_id,
        "turnout.route": record.route,
        "turnout.sampled_by": sampled_by,
    }
    if server.address:
        said |= {"server.address": server.address, "server.port": server.port}
    if record.route and record.protocol in _PATHS:
        said["url.path"] = _PATHS[record.protocol].format(record.route)
    if record.error is not None:
        said["error.type"] = record.error
    if record.slow:
        said["turnout.slow"] = True
    if record.decision is not None:
        said.update(evaluated)
        said.update(_decided(record, record.decision))
    return said


def evaluation(decision: Decision) -> Attributes:
    """The decision as the evaluation of a feature flag."""
    said = {
        "feature_flag.key": decision.route,
        "feature_flag.provider.name": "turnout",
        "feature_flag.result.variant": str(decision.version.number),
        "feature_flag.result.reason": _REASONS.get(decision.reason, "targeting_match"),
        "feature_flag.version": str(decision.revision),
    }
    if decision.flag is not None:
        key, variant, provider = decision.flag
        said["feature_flag.key"] = key
        said["feature_flag.provider.name"] = provider
        said["feature_flag.result.variant"] = variant or str(decision.version.number)
        del said["feature_flag.version"]  # of our table, and not of the provider's rules
    if decision.flag_stale:
        said["feature_flag.result.reason"] = "stale"
    return said


def _decided(record: RequestRecord, decision: Decision) -> Attributes:
    said: dict[str, str | int | float | bool] = {
        "turnout.model": decision.version.model,
        "turnout.version": decision.version.number,
        "turnout.reason": decision.reason,
        "turnout.revision": decision.revision,
        "turnout.epoch": decision.epoch,
        "turnout.rows": record.rows,
        "turnout.queue_s": record.queue_s,
        "turnout.compute_s": record.compute_s,
    }
    if decision.bucket is not None:
        said["turnout.bucket"] = decision.bucket
    if decision.flag_age_s is not None:
        said["turnout.flag_age_s"] = decision.flag_age_s
    if decision.flag is not None:
        said["turnout.flag_stale"] = decision.flag_stale
    if record.chosen_failure is not None:
        said["turnout.chosen_failure"] = record.chosen_failure
    if record.answered_by is not None:
        said["turnout.answered_by"] = str(record.answered_by)
    return said


def _cut(text: str) -> str:
    """Clients choose request ids: long ones, and some that have no UTF-8 form."""
    if len(text) <= _MOST_CHARACTERS and text.isascii():
        return text
    return text[:_MOST_CHARACTERS].encode("utf-8", "replace").decode()
