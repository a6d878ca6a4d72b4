"""One rollout: where it stands, whether the candidate does as well as the known good, and what came of others."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.board import Section, Variable, board
from dashboards.marks import changes
from dashboards.panels import WARN, Panel, Query, lines, number, phases, states
from dashboards.queries import per_second, quantile, share

__all__ = ["rollout"]

ROUTE = '{route=~"$route"}'
ARMS = (("candidate", "$candidate"), ("known good", "$known_good"))


def rollout() -> Dashboard:
    return board(
        "turnout-rollout",
        "Turnout / One rollout",
        says="A candidate beside the known good. What is shown here is for people: the verdict is that of the "
        "sequential tests, and `turnout rollout ROUTE --status` gives their counts, statistic and interval.",
        variables=[
            Variable("route", "gateway_route_weight", "route"),
            Variable("candidate", 'gateway_route_weight{route=~"$route"}', "version"),
            Variable("known_good", 'gateway_route_weight{route=~"$route"}', "version"),
        ],
        sections=[
            Section("Where does it stand?", _standing()),
            Section("Does the candidate do as well?", _well()),
            Section("Is it as fast?", _fast()),
            Section("Does it agree, and what came of it?", _agreement()),
        ],
        marks=changes(),
        span="now-3h",
    )


def _standing() -> list[Panel]:
    return [
        number(
            "Candidate has",
            f"max(gateway_rollout_weight{ROUTE})",
            says="Percent of the split. It only climbs, or goes to nothing at once.",
            unit="percent",
            none="no rollout",
        ),
        number(
            "Quarantined",
            f"max(gateway_route_quarantined_versions{ROUTE})",
            says="Versions that were taken off this route.",
            unit="short",
            steps=((1, WARN),),
        ),
        phases(
            "Phase",
            Query(f"max by (phase) (gateway_rollout_phase{ROUTE}) == 1", "{{phase}}"),
            says="What it waits for is in `turnout rollout ROUTE --status`.",
        ),
        lines(
            "Weights in force",
            Query(f"max by (version) (gateway_route_weight{ROUTE})", "version {{version}}"),
            says="As served.",
            unit="short",
            held=True,
        ),
    ]


def _well() -> list[Panel]:
    return [
        lines(
            "Failed for clients",
            *(Query(share(_requests(arm, 'code=~"5.."'), _requests(arm)), name) for name, arm in ARMS),
            says="Share of each arm's requests answered with 5xx.",
            unit="percentunit",
        ),
        lines(
            "Made good by the fallback",
            *(Query(share(_fallbacks(arm), _requests(arm)), name) for name, arm in ARMS),
            says="Share of each arm's requests that failed and that the fallback answered: clients did not see it.",
            unit="percentunit",
        ),
        lines(
            "Requests of each arm",
            *(Query(per_second(_requests(arm)), name) for name, arm in ARMS),
            says="A step waits for its requests; a user counts once in an epoch.",
            unit="reqps",
        ),
    ]


def _fast() -> list[Panel]:
    histogram = "gateway_request_duration_seconds"
    return [
        lines(
            "Slowest percent",
            *(Query(quantile(0.99, histogram, _selector(arm)), name, exemplar=True) for name, arm in ARMS),
            says="p99 of each arm. The tests compare with the known good's slowest percent in the same seconds.",
            unit="s",
        ),
        lines(
            "Half of the requests",
            *(Query(quantile(0.5, histogram, _selector(arm)), name) for name, arm in ARMS),
            says="p50 of each arm.",
            unit="s",
        ),
        lines(
            "Slower than 250 ms",
            *(Query(_slow(arm), name) for name, arm in ARMS),
            says="Share of each arm's requests.",
            unit="percentunit",
        ),
    ]


def _agreement() -> list[Panel]:
    compared = _copies('outcome=~"agrees|differs"')
    differs = _copies('outcome="differs"')
    return [
        lines(
            "Answers that differ",
            Query(share(differs, compared), "candidate"),
            says="Share of the candidate's copies whose answer differed from what the client got.",
            unit="percentunit",
        ),
        lines(
            "Copies",
            Query(per_second(_copies(), "outcome"), "{{outcome}}"),
            says="Of requests, for the candidate. Dropped: its processor had nothing to spare.",
            unit="reqps",
            stacked=True,
        ),
        states(
            "Rollbacks so far",
            f"sum by (route, trigger) (gateway_rollbacks_total{ROUTE})",
            says="Since the gateway started, by what asked for it: an operator, the guard, or an outcome of a rollout.",
            columns={"route": "Route", "trigger": "Asked for by"},
            value="Times",
        ),
    ]


def _selector(arm: str, further: str = "") -> str:
    return f'{{route=~"$route", version=~"{arm}"{", " + further if further else ""}}}'


def _requests(arm: str, further: str = "") -> str:
    return f"gateway_requests_total{_selector(arm, further)}"


def _fallbacks(arm: str) -> str:
    return f"gateway_fallbacks_total{_selector(arm)}"


def _copies(further: str = "") -> str:
    return f"gateway_shadow_total{_selector('$candidate', further)}"


def _slow(arm: str) -> str:
    within = _selector(arm, 'le="0.25"')
    fast = per_second(f"gateway_request_duration_seconds_bucket{within}")
    return f"1 - {fast} / ({per_second(f'gateway_request_duration_seconds_count{_selector(arm)}')} > 0)"
