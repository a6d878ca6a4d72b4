"""One route: who answers, how well, how fast, and what it is that takes the time."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.board import Section, Variable, board
from dashboards.marks import changes
from dashboards.panels import BAD, WARN, Panel, Query, heat, lines, number
from dashboards.queries import WINDOW, mean, per_second, quantile, share

__all__ = ["route"]

HERE = '{route=~"$route", version=~"$version"}'
FAILED = '{route=~"$route", version=~"$version", code=~"5.."}'
WHOLE = '{route=~"$route"}'
MODEL = '{model=~"$model", version=~"$version"}'
REQUESTS = f"gateway_requests_total{HERE}"
DURATION = "gateway_request_duration_seconds"


def route() -> Dashboard:
    return board(
        "turnout-route",
        "Turnout / One route",
        says="Who answers on this route, how well and how fast, and where the time goes.",
        variables=[
            Variable("route", "gateway_route_weight", "route"),
            Variable("model", 'gateway_requests_total{route=~"$route", model!=""}', "model"),
            Variable("version", 'gateway_route_weight{route=~"$route"}', "version", several=True),
        ],
        sections=[
            Section("Who answers?", _who()),
            Section("How well?", _how_well()),
            Section("How fast?", _how_fast()),
            Section("Where does the time go?", _time()),
            Section("What stands beside: copies, kept answers, flags", _beside()),
        ],
        marks=changes(),
    )


def _who() -> list[Panel]:
    return [
        lines(
            "Requests by version",
            Query(per_second(REQUESTS, "version"), "version {{version}}"),
            says="By the version that was chosen, also where its fallback answered.",
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Share of the traffic beside the weights",
            Query(
                f"{per_second(REQUESTS, 'version')} / ignoring (version) group_left () {_total()}", "got {{version}}"
            ),
            Query(
                f"max by (version) (gateway_route_weight{HERE}) / ignoring (version) group_left () "
                f"sum(max by (version) (gateway_route_weight{WHOLE}))",
                "weight {{version}}",
            ),
            says="Far apart with many keys: rules or pins send traffic past the split, or few keys bring most of it.",
            unit="percentunit",
            most=1,
        ),
        lines(
            "Refused, by reason",
            Query(per_second(f"gateway_rejected_total{WHOLE}", "reason"), "{{reason}}"),
            says="At the door: queue-full and deadline want more room, rate-limit is as agreed.",
            unit="reqps",
            stacked=True,
        ),
    ]


def _how_well() -> list[Panel]:
    return [
        lines(
            "Failed, by version",
            Query(share(f"gateway_requests_total{FAILED}", REQUESTS, "version"), "version {{version}}"),
            says="Share of a version's requests that were answered with 5xx: what clients saw.",
            unit="percentunit",
            steps=((0.001, WARN), (0.01, BAD)),
        ),
        lines(
            "Made good by the fallback",
            Query(per_second(f"gateway_fallbacks_total{HERE}", "version, cause"), "version {{version}}: {{cause}}"),
            says="Failures of the chosen version that clients did not see. They count against it all the same.",
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Answers by status",
            Query(per_second(f"gateway_requests_total{WHOLE}", "code"), "{{code}}"),
            says="422 and 400 are the clients' own; 429 and 503 say that there is no room, or nothing that can answer.",
            unit="reqps",
            stacked=True,
        ),
    ]


def _how_fast() -> list[Panel]:
    return [
        heat(
            "Time of requests",
            f"sum by (le) (increase({DURATION}_bucket{HERE}[{WINDOW}]))",
            says="How many requests took how long. The dots are single requests: a click opens their trace.",
            unit="s",
            span=12,
        ),
        lines(
            "Half, 95% and 99% of requests, by version",
            *(
                Query(
                    quantile(q, DURATION, HERE, "version"), f"p{q * 100:g} version {{{{version}}}}", exemplar=q == 0.99
                )
                for q in (0.5, 0.95, 0.99)
            ),
            says="From the arrival of a request to its answer. Two versions side by side is what a canary is for.",
            unit="s",
            span=12,
        ),
    ]


def _time() -> list[Panel]:
    return [
        lines(
            "Waiting and computing",
            Query(quantile(0.95, "gateway_queue_duration_seconds", MODEL, "version"), "queue {{version}}"),
            Query(quantile(0.95, "gateway_compute_duration_seconds", MODEL, "version"), "compute {{version}}"),
            says="p95 of the time in the queue, and of a batch's run. Mostly queue: too little room. Mostly compute: "
            "the model is slow, or its batches are large.",
            unit="s",
        ),
        lines(
            "Rows of a batch",
            Query(mean("gateway_batch_rows", MODEL, "version"), "version {{version}}"),
            says="On average. At the limit of its rows the version is saturated.",
            unit="short",
        ),
        lines(
            "Waiting and under way",
            Query(f"sum by (version) (gateway_queue_rows{MODEL})", "rows waiting {{version}}"),
            Query(f"sum(gateway_inflight_requests{WHOLE})", "requests under way"),
            says="Rows in the queues of the versions, and requests that are not answered yet.",
            unit="short",
        ),
    ]


def _beside() -> list[Panel]:
    kept = 'gateway_cache_requests_total{route=~"$route", outcome=~"hit|joined"}'
    return [
        lines(
            "Copies for shadows",
            Query(per_second(f"gateway_shadow_total{HERE}", "version, outcome"), "version {{version}}: {{outcome}}"),
            says="Dropped copies are as it should be under load; many that differ want a look before any weight.",
            unit="reqps",
            stacked=True,
        ),
        number(
            "Kept answers",
            share(kept, f"gateway_cache_requests_total{WHOLE}"),
            says="Share of the requests that the response cache answered. Below a few per cent it is not worth it.",
            unit="percentunit",
            none="no cache",
        ),
        number(
            "Flag data",
            "max(gateway_flag_age_seconds)",
            says="Age of the flag data in use. Past the route's limit its known good answers.",
            unit="s",
            none="no flags",
        ),
        lines(
            "Flags that could not do what they say",
            Query(per_second(f"gateway_flag_misses_total{WHOLE}", "rule, cause"), "{{rule}}: {{cause}}"),
            says="By rule and cause; each cause is explained in the reference.",
            unit="reqps",
        ),
    ]


def _total() -> str:
    return f"({per_second(REQUESTS)} > 0)"
