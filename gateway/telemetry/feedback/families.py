"""What a scrape sees of labels: how each ended, how right versions are, and how long labels take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.messages import VersionRef
from gateway.routing.table import RoutingTable
from gateway.telemetry.feedback.sums import longest_delay_of

__all__ = ["TruthFamilies"]

BUCKETS_S = (1.0, 10.0, 60.0, 600.0, 3600.0, 21_600.0, 86_400.0, 259_200.0, 604_800.0, 2_592_000.0)

NAMES = ("model", "version")


class TruthFamilies(Collector):
    """``scores`` is what the recorder last said. Only versions that a route in force names are shown."""

    def __init__(self, scores: Callable[[], Mapping[str, Any]], table: Callable[[], RoutingTable]) -> None:
        self._scores = scores
        self._table = table

    def collect(self) -> Iterator[Metric]:
        said = self._scores()
        if "scores" not in said:
            return
        named = _named(self._table())
        yield self._feedback(said["counts"], named)
        shown = [one for one in said["scores"] if VersionRef(one["model"], one["version"]) in named]
        yield from _of_versions(shown)
        standing = said["standing"]
        yield GaugeMetricFamily("gateway_truth_labels_held", "Labels that wait for their answer.", standing["held"])
        yield GaugeMetricFamily(
            "gateway_truth_answers", "Answers that wait for a label, or have one.", standing["answers"]
        )
        lost = standing["lost"] + standing["unusable"]
        yield CounterMetricFamily("gateway_truth_answers_lost", "Answers that no label can join any more.", lost)

    def _feedback(self, counts: Iterable[Iterable[Any]], named: frozenset[VersionRef]) -> Metric:
        family = CounterMetricFamily("gateway_feedback", "Labels by how they ended.", labels=(*NAMES, "outcome"))
        for model, version, outcome, count in counts:
            if not model:
                family.add_metric(("", "", outcome), count)
            elif VersionRef(model, version) in named:
                family.add_metric((model, str(version), outcome), count)
        return family


def _of_versions(shown: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
    score = GaugeMetricFamily(
        "gateway_truth_score", "How right a version is, by its labels so far.", labels=(*NAMES, "metric")
    )
    share = GaugeMetricFamily("gateway_truth_label_share", "Share of answered rows that have a label.", labels=NAMES)
    delay = HistogramMetricFamily(
        "gateway_truth_label_delay_seconds", "Time from an answer to its label.", labels=NAMES
    )
    for one in shown:
        names = (one["model"], str(one["version"]))
        for metric, value in one["scores"].items():
            score.add_metric((*names, metric), value)
        if one["rows"]:
            share.add_metric(names, one["labelled"] / one["rows"])
        delay.add_metric(names, _buckets(one["delays"]), one["waited_s"])
    yield from (score, share, delay)


def _buckets(delays: Iterable[tuple[int, int]]) -> list[tuple[str, float]]:
    """A bin counts where all of it lies."""
    counts = [(longest_delay_of(place), count) for place, count in delays]
    found = [(f"{most:g}", float(sum(count for end, count in counts if end <= most))) for most in BUCKETS_S]
    return [*found, ("+Inf", float(sum(count for _, count in counts)))]


def _named(table: RoutingTable) -> frozenset[VersionRef]:
    found = set()
    for route in table.routes.values():
        numbers = {arm.version for arm in route.arms} | route.pinnable | {route.fallback, route.known_good}
        found |= {route.ref(number) for number in numbers if number is not None}
    return frozenset(found)
