"""Drift and truth: have inputs or outputs moved, whose doing is it, and how right are the answers?"""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.board import Section, Variable, board
from dashboards.marks import changes
from dashboards.panels import BAD, WARN, Panel, Query, bars, lines, number, states
from dashboards.queries import per_second, quantile, share

__all__ = ["drift_and_truth"]

MODEL = '{model=~"$model", version=~"$version"}'


EACH = 'feature!="all"'
"""``all`` stands for every feature together."""


NO_SHARE = "mae|rmse|bias|grade|.*_gap:.*|.*_estimated"
"""Measures that have a panel of their own."""


def drift_and_truth() -> Dashboard:
    return board(
        "turnout-drift-and-truth",
        "Turnout / Drift and truth",
        says="Have inputs or outputs moved since the version was made, whose doing is it, and how right is it? "
        "Intervals and single features: `turnout drift ROUTE` and `turnout truth ROUTE`.",
        variables=[
            Variable("route", "gateway_route_weight", "route", several=True),
            Variable("model", "gateway_version_state", "model"),
            Variable("version", 'gateway_version_state{model=~"$model"}', "version", several=True),
        ],
        sections=[
            Section("Has anything moved, and whose doing is it?", _moved()),
            Section("How far, and how sure is it?", _far()),
            Section("May it be believed?", _believed()),
            Section("How right are the answers?", _right()),
            Section("Do labels come?", _labels()),
        ],
        marks=changes(),
        span="now-24h",
    )


def _score(statistic: str, features: str = 'feature="all"') -> str:
    return f'gateway_drift_score{{model=~"$model", version=~"$version", {features}, statistic="{statistic}"}}'


def _moved() -> list[Panel]:
    alarms = 'gateway_drift_alarm{model=~"$model", version=~"$version", feature!="all"}'
    return [
        number(
            "Versions that drift",
            'sum(max by (model, version) (gateway_drift_alarm{model=~"$model", version=~"$version", feature="all"}))',
            says="With an alarm that stands. Each was raised once, under a budget of false alarms.",
            unit="short",
            steps=((1, BAD),),
            none="not watched",
        ),
        states(
            "Whose doing",
            f"max by (model, version, blame) (gateway_drift_blame{MODEL}) > 0",
            says="data-pipeline: mend what feeds it. routing: the arms get different inputs. model: its outputs moved "
            "on like inputs. world: inputs moved for all; train anew. The number: features that are blamed so.",
            columns={"model": "Model", "version": "Version", "blame": "Blame"},
            value="Features",
            span=10,
        ),
        states(
            "Features with an alarm",
            f"max by (model, version, feature) ({alarms}) == 1",
            says="The features that are shown as metrics are those that moved furthest.",
            columns={"model": "Model", "version": "Version", "feature": "Feature"},
            span=10,
        ),
    ]


def _far() -> list[Panel]:
    effect = _score("effect", EACH)
    return [
        bars(
            "Furthest from the reference",
            Query(f"topk(10, max by (version, feature) ({effect}))", "{{feature}} of version {{version}}"),
            says="Effect in standard deviations of the reference. Size, not certainty: few rows give large ones.",
            unit="short",
            steps=((0.2, WARN), (0.5, BAD)),
        ),
        lines(
            "Evidence beside the threshold",
            Query(f"max by (version) ({_score('evidence')})", "evidence, version {{version}}"),
            Query(f"max by (version) ({_score('threshold')})", "threshold, version {{version}}"),
            says="In nats, of the feature with the most. An alarm is raised where evidence reaches the threshold.",
            unit="short",
        ),
        lines(
            "Population stability index beside what it is without drift",
            Query(f"max by (version) ({_score('psi', EACH)})", "index, version {{version}}"),
            Query(f"max by (version) ({_score('psi_expected', EACH)})", "without drift, version {{version}}"),
            says="The largest of any feature. 0.1 is nothing unusual in 100 rows: beside it stands what it would be "
            "without any drift.",
            unit="short",
        ),
    ]


def _believed() -> list[Panel]:
    seen = f"gateway_drift_rows_seen_total{MODEL}"
    return [
        number(
            "Rows counted",
            share(f"gateway_drift_rows_counted_total{MODEL}", seen),
            says="Share of the rows that ran. Below 1 the machine is busy, and a sample is counted.",
            unit="percentunit",
            none="no rows",
        ),
        lines(
            "Rows seen",
            Query(per_second(seen, "version"), "version {{version}}"),
            says="Rows a second that ran and might be counted.",
            unit="short",
            span=10,
        ),
        lines(
            "False alarms in 90 days",
            Query(
                f"max by (version, kind) (gateway_drift_false_alarms_per_90_days{MODEL})",
                "{{kind}}, version {{version}}",
            ),
            says="As promised by the budget, as simulated from the reference, and on its own rows held out.",
            unit="short",
            held=True,
            span=10,
        ),
    ]


def _right() -> list[Panel]:
    return [
        lines(
            "How right, by labels",
            Query(f"max by (version, metric) ({_measured(NO_SHARE, '!~')})", "{{metric}}, version {{version}}"),
            says="Of the answers that have a label so far; the intervals are in `turnout truth ROUTE`. Early labels "
            "are not those of all answers: look at their share first.",
            unit="percentunit",
            most=1,
            span=12,
        ),
        lines(
            "Estimated from scores, before labels come",
            Query(f"max by (version, metric) ({_measured('.*_estimated')})", "{{metric}}, version {{version}}"),
            says="An estimate, not a measurement: right only as far as the scores are calibrated. It sees a harder "
            "mix of requests, and no change of what is true.",
            unit="percentunit",
            most=1,
            span=12,
        ),
        lines(
            "Gaps between groups",
            Query(f"max by (version, metric) ({_measured('.*_gap:.*')})", "{{metric}}, version {{version}}"),
            says="The best group's value less the worst's, by the slices that the route's truth names.",
            unit="percentunit",
            span=12,
        ),
        lines(
            "Size of errors, of models that answer numbers; and grades",
            Query(f"max by (version, metric) ({_measured('mae|rmse|grade')})", "{{metric}}, version {{version}}"),
            says="In the unit of the label: less is better of errors, and of grades what the route's labels say.",
            unit="short",
            span=12,
        ),
    ]


def _measured(metrics: str, matches: str = "=~") -> str:
    return f'gateway_truth_score{{model=~"$model", version=~"$version", metric{matches}"{metrics}"}}'


def _labels() -> list[Panel]:
    feedback = 'gateway_feedback_total{model=~"$model|"}'  # without a model: nobody knows whose answer it was
    delay = "gateway_truth_label_delay_seconds"
    return [
        lines(
            "Share of answers with a label",
            Query(f"max by (version) (gateway_truth_label_share{MODEL})", "version {{version}}"),
            says="So far. Metrics from a small share are of those answers alone.",
            unit="percentunit",
            most=1,
        ),
        lines(
            "How long labels take",
            Query(quantile(0.5, delay, MODEL, "version"), "half, version {{version}}"),
            Query(quantile(0.9, delay, MODEL, "version"), "90%, version {{version}}"),
            says="From the answer to its label.",
            unit="s",
        ),
        lines(
            "Labels, by what became of them",
            Query(per_second(feedback, "outcome"), "{{outcome}}"),
            says="Late, early and duplicate ones are handled; many unknown ids mean that somebody sends labels of "
            "another gateway, or that answers are forgotten before their labels come.",
            unit="short",
            stacked=True,
        ),
    ]
