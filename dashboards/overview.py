"""The board to look at first: is anybody hurt, by what, what changed, what to do."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.board import RUNBOOKS, Section, Variable, board
from dashboards.marks import changes
from dashboards.panels import BAD, WARN, Panel, Query, alarms, lines, number, states
from dashboards.queries import WINDOW, per_second, quantile, share

__all__ = ["overview"]

ALL = '{route=~"$route"}'
FAILED = '{route=~"$route", code=~"5.."}'
REQUESTS = f"gateway_requests_total{ALL}"
FAILURES = f"gateway_requests_total{FAILED}"
ERRORS: tuple[tuple[float, str], ...] = ((0.001, WARN), (0.01, BAD))


def overview() -> Dashboard:
    return board(
        "turnout-overview",
        "Turnout / Overview",
        says="Is anybody hurt, by what, what changed, and what to do. From here to the board of one route.",
        variables=[Variable("route", "gateway_route_weight", "route", several=True)],
        sections=[
            Section("Is anybody hurt?", _now()),
            Section("What to do", [_alarms()]),
            Section("Who answers, how well, how fast", _routes()),
            Section("What changed", _changed()),
            Section("Is there room?", _room()),
            Section("Is it being watched?", _watched()),
        ],
        marks=changes(),
    )


def _now() -> list[Panel]:
    return [
        number("Requests", per_second(REQUESTS), says="Answered each second, errors too.", unit="reqps"),
        number(
            "Failed",
            share(FAILURES, REQUESTS),
            says="Share of requests answered with 5xx, after any fallback. Refusals (429) are not in it.",
            unit="percentunit",
            steps=ERRORS,
            none="no requests",
        ),
        number(
            "Slowest percent",
            quantile(0.99, "gateway_request_duration_seconds", ALL),
            says="99 of 100 requests were answered within this time.",
            unit="s",
            steps=((0.25, WARN), (1.0, BAD)),
            none="no requests",
        ),
        number(
            "Refused",
            share(f"gateway_rejected_total{ALL}", REQUESTS),
            says="Share of requests refused at the door: the queue is full, or the wait would pass the deadline.",
            unit="percentunit",
            steps=((0.01, WARN), (0.05, BAD)),
            none="no requests",
        ),
        number(
            "Quarantined",
            f"sum(max by (route) (gateway_route_quarantined_versions{ALL}))",
            says="Versions that a rollback took off a route and that nobody has looked after since.",
            unit="short",
            steps=((1, WARN),),
        ),
        number(
            "Alerts",
            'count(ALERTS{alertstate="firing"}) or vector(0)',
            says="Alerts that fire now; they are listed below with what to do.",
            unit="short",
            steps=((1, WARN),),
        ),
    ]


def _alarms() -> Panel:
    said = "Each alert that fires, or will if it lasts. A click on it opens its section of the runbook."
    return alarms("Alerts", "", RUNBOOKS, says=said)


def _routes() -> list[Panel]:
    return [
        lines(
            "Requests by version",
            Query(per_second(REQUESTS, "route, version"), "{{route}} / {{version}}"),
            says="By the version that was chosen, also where its fallback answered. "
            "Without a version: refused, or asked of a route that is not there.",
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Failed, by route",
            Query(share(FAILURES, REQUESTS, "route"), "{{route}}"),
            says="Share answered with 5xx. The dashed lines are where the alerts begin to count.",
            unit="percentunit",
            steps=ERRORS,
        ),
        lines(
            "Slowest percent, by route",
            Query(quantile(0.99, "gateway_request_duration_seconds", ALL, "route"), "{{route}}", exemplar=True),
            says="p99 of whole requests. The dots are single requests: a click opens their trace.",
            unit="s",
        ),
    ]


def _changed() -> list[Panel]:
    return [
        lines(
            "Weights in force",
            Query(f"max by (route, version) (gateway_route_weight{ALL})", "{{route}} / {{version}}"),
            says="As served. A quarantined version has 0, whatever its document says.",
            unit="short",
            held=True,
        ),
        lines(
            "Revision served",
            Query("gateway_state_revision", "{{instance}}"),
            says="Of desired state, by replica. One line below the others: a replica that lags behind.",
            unit="none",
            held=True,
        ),
        states(
            "Versions that do not answer",
            'max by (model, version, state) (gateway_version_state{state!~"active|retired"}) == 1',
            says="Loading, warming and draining pass by themselves; a failed one says why in GET /admin/versions.",
            columns={"model": "Model", "version": "Version", "state": "State"},
        ),
    ]


def _room() -> list[Panel]:
    return [
        lines(
            "Rows waiting",
            Query("sum by (model, version) (gateway_queue_rows)", "{{model}} / {{version}}"),
            says="In the versions' queues. A line that stays high comes before refusals.",
            unit="short",
        ),
        lines(
            "Memory by version",
            Query(
                "sum by (model, version, device) (gateway_version_memory_bytes)", "{{model}} / {{version}} {{device}}"
            ),
            says="What the version's processes hold, on the machine and on its device.",
            unit="bytes",
            stacked=True,
        ),
        lines(
            "Processor of the gateway",
            Query(f'rate(process_cpu_seconds_total{{job=~"turnout.*"}}[{WINDOW}])', "{{instance}}"),
            says="Cores that its own process uses (with web workers, the node). Near 1: add web workers.",
            unit="short",
            steps=((0.8, WARN), (0.95, BAD)),
        ),
    ]


def _watched() -> list[Panel]:
    return [
        number(
            "Replicas",
            'sum(up{job=~"turnout.*"})',
            says="Gateways that answer this Prometheus.",
            unit="short",
        ),
        number(
            "Store",
            "min(gateway_state_store_up)",
            says="Off: nothing can be changed; serving goes on from the last revision.",
            unit="bool_on_off",
        ),
        number(
            "Answers without a record",
            "sum(increase(gateway_decision_log_dropped_total[1h]))",
            says="In the last hour. Each gap is itself a record of the decision log, with its reason.",
            unit="short",
            steps=((1, BAD),),
            none="no log",
        ),
        number(
            "Recorders replaced",
            "sum(increase(gateway_recorder_restarts_total[1h]))",
            says="In the last hour: they write request log, decisions, spans and labels. Requests are not affected.",
            unit="short",
            steps=((1, WARN), (3, BAD)),
            none="nothing is recorded",
        ),
        number(
            "Not durable since",
            "max(gateway_decision_log_unsynced_seconds)",
            says="Age of the oldest decision record that a crash of the machine would lose.",
            unit="s",
            steps=((10, WARN), (60, BAD)),
            none="no log",
        ),
        number(
            "Spans lost",
            "sum(increase(gateway_spans_dropped_total[1h]))",
            says="In the last hour, whatever the cause. Requests are not affected.",
            unit="short",
            steps=((1, WARN),),
            none="no traces",
        ),
        number(
            "Oldest notification",
            "max(gateway_notification_oldest_seconds)",
            says="How long the oldest event has waited to be told.",
            unit="s",
            steps=((60, WARN), (600, BAD)),
            none="nobody is told",
        ),
    ]
