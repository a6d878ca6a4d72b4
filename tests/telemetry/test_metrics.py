"""Metrics: the contract's names and labels, bounded whatever clients send, gone when their version is gone."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest as text
from prometheus_client.openmetrics.exposition import generate_latest as open_metrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway.errors import VersionFailed
from gateway.events.fan_out import FanOut
from gateway.events.records import SHADOW_OUTCOMES, FlagMiss, FlagSource, RollbackRecord, ShadowRecord
from gateway.messages import VersionRef
from gateway.routing.table import Arm, CachePolicy, Route, RoutingTable, Rule, Shadow, Trial
from gateway.serving.handle import VersionState
from gateway.telemetry.families import STATES
from gateway.telemetry.metrics import FALLBACK_CAUSES, Metrics, VersionMemory
from gateway.telemetry.series import CACHE_OUTCOMES
from tests.telemetry.records import DIGITS_3, DIGITS_4, PARENT_ID, TRACE_ID, batch, decision, digits, request, table

CONTRACT: Mapping[str, tuple[str, ...]] = {
    "gateway_requests": ("route", "model", "version", "code"),
    "gateway_request_duration_seconds": ("route", "model", "version"),
    "gateway_queue_duration_seconds": ("model", "version"),
    "gateway_compute_duration_seconds": ("model", "version"),
    "gateway_batch_rows": ("model", "version"),
    "gateway_inflight_requests": ("route",),
    "gateway_queue_rows": ("model", "version"),
    "gateway_rejected": ("route", "reason"),
    "gateway_fallbacks": ("route", "version", "cause"),
    "gateway_route_weight": ("route", "version"),
    "gateway_version_state": ("model", "version", "state"),
    "gateway_version_memory_bytes": ("model", "version", "device"),
    "gateway_rollbacks": ("route", "trigger"),
    "gateway_cache_requests": ("route", "outcome"),
    "gateway_cache_evictions": ("route",),
    "gateway_cache_entries": ("route",),
    "gateway_cache_bytes": ("route",),
    "gateway_shadow": ("route", "version", "outcome"),
    "gateway_shadow_disagreement": ("route", "version"),
    "gateway_rollout_weight": ("route",),
    "gateway_state_revision": (),
    "gateway_state_store_up": (),
}
"""Names as Prometheus' families have them: a counter's samples end in ``_total``, a histogram's in ``_bucket`` …"""


class Watched:
    """Metrics on a registry of their own, with a table and memory that the test sets."""

    def __init__(self, *routes: Route) -> None:
        self.table = table(*routes)
        self.memory: tuple[VersionMemory, ...] = ()
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, table=lambda: self.table, memory=lambda: self.memory)

    def apply(self, *routes: Route, revision: int = 8) -> None:
        self.table = table(*routes, revision=revision)
        self.metrics.table_applied(revision)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def label_values(self, label: str) -> set[str]:
        return {
            sample.labels[label]
            for family in self.registry.collect()
            for sample in family.samples
            if label in sample.labels and sample.name.startswith("gateway_")
        }

    def series(self) -> int:
        families = [family for family in self.registry.collect() if family.name.startswith("gateway_")]
        return sum(len(family.samples) for family in families)


@pytest.fixture
def watched() -> Watched:
    """Route ``digits``, with a cache, 4 as a shadow and a rollout of 4; 3 and 4 are resident, revision 7 applied."""
    trial = Trial("digits/4-a", 4, 3, 1)
    found = Watched(digits(cache=CachePolicy(65536), shadows=(Shadow(4, 0.5),), trial=trial))
    found.metrics.table_applied(7)
    for version in (DIGITS_3, DIGITS_4):
        found.metrics.version_state(version, "active", "")
    return found


def busy(watched: Watched) -> None:
    """Everything happens once."""
    metrics = watched.metrics
    watched.memory = (VersionMemory(DIGITS_3, "cpu", 1000),)
    metrics.request_started("digits")
    metrics.requests_finished([request(sampled=True)])
    metrics.request_rejected("digits", "queue-full")
    metrics.fell_back(decision(DIGITS_4), "ModelError")
    metrics.batch_finished(batch())
    metrics.queue_changed(DIGITS_3, 5)
    metrics.rolled_back(RollbackRecord("digits", "error-burst", 3, (4,), "it raised", durable=True))
    metrics.cache_asked("digits", "hit")
    metrics.cache_changed("digits", 1, 700, 0)
    metrics.shadow_compared(shadow("agrees"))


def shadow(outcome: str, version: VersionRef = DIGITS_4) -> ShadowRecord:
    return ShadowRecord("digits", 1, 17, DIGITS_3, version, outcome, 1)


def test_shadows_count_their_copies_from_nought_and_what_differs_once_more(watched: Watched) -> None:
    """Only a shadow's: a version that no route copies to has no series, and one that is gone takes its own along."""
    for outcome in (*SHADOW_OUTCOMES, "differs", "unheard-of"):
        watched.metrics.shadow_compared(shadow(outcome))
    watched.metrics.shadow_compared(shadow("agrees", DIGITS_3))
    found = {
        outcome: watched.value("gateway_shadow_total", route="digits", version="4", outcome=outcome)
        for outcome in SHADOW_OUTCOMES
    }
    assert found == {"agrees": 1, "differs": 2, "failed": 1, "dropped": 1}
    assert watched.value("gateway_shadow_disagreement_total", route="digits", version="4") == 2
    assert watched.value("gateway_shadow_total", route="digits", version="3", outcome="agrees") is None
    watched.metrics.version_retired(DIGITS_4)
    assert watched.value("gateway_shadow_disagreement_total", route="digits", version="4") == 2, "it is a shadow still"
    watched.apply(digits(arms=(Arm(3, 1),), pinnable=frozenset({3})))
    assert watched.value("gateway_shadow_disagreement_total", route="digits", version="4") is None


def test_names_and_labels_are_the_contracts(watched: Watched) -> None:
    """All of them that have a source by now, and nothing beside them."""
    busy(watched)
    shown = {family.name: family for family in watched.registry.collect() if family.name.startswith("gateway_")}
    assert shown.keys() == CONTRACT.keys()
    for name, labels in CONTRACT.items():
        assert shown[name].samples, name
        for sample in shown[name].samples:
            assert set(sample.labels) - {"le"} == set(labels), sample


@pytest.mark.parametrize("render", ["text", "open metrics"])
def test_the_exposition_is_read_back_by_the_librarys_own_parsers(watched: Watched, render: str) -> None:
    """Both formats, with their types."""
    busy(watched)
    if render == "text":
        families = {family.name: family for family in parse_text(text(watched.registry).decode())}
    else:
        families = {family.name: family for family in parse_open_metrics(open_metrics(watched.registry).decode())}
    assert families["gateway_requests"].type == "counter"
    assert families["gateway_request_duration_seconds"].type == "histogram"
    assert families["gateway_state_revision"].samples[0].value == 7
    assert CONTRACT.keys() <= families.keys()
    assert "process_resident_memory_bytes" in families


def test_a_request_is_counted_for_the_version_that_was_chosen(watched: Watched) -> None:
    """Also when the fallback answered it: the client's status, the chosen one's series, and the cause beside it."""
    watched.metrics.fell_back(decision(DIGITS_4), "VersionCrashed")
    watched.metrics.requests_finished(
        [request(decision=decision(DIGITS_4), answered_by=DIGITS_3, chosen_failure="VersionCrashed")]
    )
    labels = {"route": "digits", "model": "digits"}
    assert watched.value("gateway_requests_total", **labels, version="4", code="200") == 1
    assert watched.value("gateway_requests_total", **labels, version="3", code="200") is None
    assert watched.value("gateway_fallbacks_total", route="digits", version="4", cause="VersionCrashed") == 1


def test_durations_fall_into_buckets_with_their_bounds_included(watched: Watched) -> None:
    """100 µs to 10 s, cumulative, with sum and count."""
    for seconds in (0.00005, 0.0001, 0.004, 3.0, 60.0):
        watched.metrics.requests_finished([request(duration_s=seconds)])
    labels = {"route": "digits", "model": "digits", "version": "3"}
    name = "gateway_request_duration_seconds"
    by_bound = [watched.value(f"{name}_bucket", **labels, le=bound) for bound in ("0.0001", "0.005", "10.0", "+Inf")]
    assert by_bound == [2, 3, 4, 5]
    assert watched.value(f"{name}_count", **labels) == 5
    assert watched.value(f"{name}_sum", **labels) == pytest.approx(63.00415)


def test_only_sampled_traces_become_exemplars(watched: Watched) -> None:
    """An exemplar that leads to no trace is worse than none."""
    watched.metrics.requests_finished([request(duration_s=0.004, sampled=True)])
    watched.metrics.requests_finished([request(duration_s=0.2, trace_id=PARENT_ID * 2, sampled=False)])
    families = parse_open_metrics(open_metrics(watched.registry).decode())
    exemplars = [sample.exemplar for family in families for sample in family.samples if sample.exemplar]
    assert [(each.labels, each.value, float(each.timestamp)) for each in exemplars] == [
        ({"trace_id": TRACE_ID}, 0.004, pytest.approx(1_700_000_000.254))
    ]


def test_a_batch_gives_rows_compute_time_and_each_items_wait(watched: Watched) -> None:
    """Rows are counted once a batch, waits once an item."""
    watched.metrics.batch_finished(batch(rows=3, waits_s=(0.0002, 0.003)))
    watched.metrics.queue_changed(DIGITS_3, 9)
    labels = {"model": "digits", "version": "3"}
    assert watched.value("gateway_batch_rows_sum", **labels) == 3
    assert watched.value("gateway_compute_duration_seconds_count", **labels) == 1
    assert watched.value("gateway_queue_duration_seconds_count", **labels) == 2
    assert watched.value("gateway_queue_rows", **labels) == 9


def test_a_cache_counts_its_requests_by_outcome_and_what_it_holds(watched: Watched) -> None:
    """The hit share is hits over all; changes add up, whichever process they come from; strange words count nowhere."""
    for outcome in ("hit", "hit", "miss", "joined", "bypass", "strange"):
        watched.metrics.cache_asked("digits", outcome)
    watched.metrics.cache_changed("digits", 3, 2100, 0)
    watched.metrics.cache_changed("digits", -1, -700, 2)
    asked = {
        name: watched.value("gateway_cache_requests_total", route="digits", outcome=name) for name in CACHE_OUTCOMES
    }
    assert asked == {"hit": 2, "miss": 1, "joined": 1, "bypass": 1}
    assert watched.value("gateway_cache_entries", route="digits") == 2
    assert watched.value("gateway_cache_bytes", route="digits") == 1400
    assert watched.value("gateway_cache_evictions_total", route="digits") == 2


def test_a_route_has_cache_series_for_as_long_as_it_has_a_cache(watched: Watched) -> None:
    """From the first scrape on, with zeros; gone with the cache, and late words do not bring them back."""
    assert watched.value("gateway_cache_requests_total", route="digits", outcome="hit") == 0
    watched.apply(digits())
    watched.metrics.cache_asked("digits", "hit")
    watched.metrics.cache_changed("digits", 1, 700, 0)
    assert watched.value("gateway_cache_requests_total", route="digits", outcome="hit") is None
    assert watched.value("gateway_cache_bytes", route="digits") is None


def test_requests_in_flight_are_those_started_and_not_finished(watched: Watched) -> None:
    """Zero is shown for a quiet route; an end without a beginning does not go below."""

    def inflight() -> float | None:
        return watched.value("gateway_inflight_requests", route="digits")

    assert inflight() == 0
    watched.metrics.request_started("digits")
    watched.metrics.request_started("digits")
    watched.metrics.requests_finished([request(decision=None, code=400)])
    assert inflight() == 1
    watched.metrics.requests_finished([request()])
    watched.metrics.requests_finished([request()])
    assert inflight() == 0


def test_a_version_is_in_exactly_one_state(watched: Watched) -> None:
    """Every state is a series, so that an alert has a 0 to compare with."""
    watched.metrics.version_state(DIGITS_4, "failed", "a flipped byte")
    states = {
        state: watched.value("gateway_version_state", model="digits", version="4", state=state) for state in STATES
    }
    assert states == {**dict.fromkeys(STATES, 0), "failed": 1}


def test_the_states_and_causes_known_here_are_those_that_exist() -> None:
    """Names cross a wall as text; this holds the two sides together."""

    def names(kind: type[Exception]) -> set[str]:
        return {kind.__name__}.union(*(names(below) for below in kind.__subclasses__()))

    assert set(STATES) == {state.value for state in VersionState}
    assert names(VersionFailed) == FALLBACK_CAUSES


def test_weights_are_those_in_force(watched: Watched) -> None:
    """Read from the table at each scrape; a quarantined version has 0."""
    watched.apply(digits(arms=(Arm(3, 90), Arm(4, 10)), quarantined=frozenset({4})))
    assert watched.value("gateway_route_weight", route="digits", version="3") == 90
    assert watched.value("gateway_route_weight", route="digits", version="4") == 0


def test_a_rollouts_weight_is_its_candidates_percent_while_it_runs(watched: Watched) -> None:
    """None of a route without one."""
    arms = (Arm(3, 19), Arm(4, 1))
    watched.apply(digits(arms=arms, trial=Trial("digits/4-a", 4, 3, 1)))
    assert watched.value("gateway_rollout_weight", route="digits") == 5.0
    watched.apply(digits(arms=arms))
    assert watched.value("gateway_rollout_weight", route="digits") is None


def test_the_store_counts_as_up_from_the_first_table_on_until_told_otherwise() -> None:
    """A gateway that serves a table has read the store."""
    fresh = Watched(digits())
    assert fresh.value("gateway_state_store_up") == 0
    fresh.metrics.table_applied(7)
    assert fresh.value("gateway_state_store_up") == 1
    fresh.metrics.store_reachable(False)
    fresh.metrics.table_applied(8)
    assert fresh.value("gateway_state_store_up") == 0
    assert fresh.value("gateway_state_revision") == 8


def test_a_retired_versions_series_disappear_and_late_events_do_not_bring_them_back(watched: Watched) -> None:
    """Requests of a version that drained end after it is gone: they count, under no version."""
    busy(watched)
    watched.metrics.requests_finished([request(decision=decision(DIGITS_4), answered_by=DIGITS_4)])
    watched.apply(digits(arms=(Arm(3, 100),), pinnable=frozenset({3})))
    watched.metrics.version_state(DIGITS_4, "retired", "")
    watched.metrics.version_retired(DIGITS_4)
    assert watched.label_values("version") == {"3"}
    watched.metrics.requests_finished([request(decision=decision(DIGITS_4), answered_by=DIGITS_4)])
    watched.metrics.fell_back(decision(DIGITS_4), "ModelError")
    watched.metrics.batch_finished(batch(DIGITS_4))
    watched.metrics.queue_changed(DIGITS_4, 3)
    assert watched.label_values("version") == {"3", ""}
    assert watched.value("gateway_requests_total", route="digits", model="", version="", code="200") == 1


def test_a_version_that_a_route_names_is_counted_though_it_never_loaded() -> None:
    """Its failures are why the fallback is busy."""
    watched = Watched(digits())
    watched.metrics.table_applied(7)
    watched.metrics.fell_back(decision(DIGITS_4), "VersionUnavailable")
    assert watched.value("gateway_fallbacks_total", route="digits", version="4", cause="VersionUnavailable") == 1


def test_a_removed_routes_series_disappear(watched: Watched) -> None:
    """With everything that was counted under its name; its versions may live on elsewhere."""
    busy(watched)
    watched.apply(Route("other", "digits", (Arm(3, 1),)))
    watched.metrics.requests_finished([request()])
    assert watched.label_values("route") == {"other", "unknown"}
    assert watched.value("gateway_inflight_requests", route="other") == 0
    assert watched.value("gateway_version_state", model="digits", version="3", state="active") == 1


def test_a_thousand_invented_names_mint_one_series_each_kind(watched: Watched) -> None:
    """What clients choose is counted under ``unknown``; reasons and causes outside the vocabulary under ``other``."""
    busy(watched)
    watched.metrics.requests_finished([request(route="first", decision=None, answered_by=None, code=404)])
    watched.metrics.request_rejected("first", "because")
    watched.metrics.fell_back(decision(DIGITS_4), "Strange")
    before = watched.series()
    for number in range(1_000):
        name = f"route-{number}"
        watched.metrics.request_started(name)
        watched.metrics.requests_finished([request(route=name, decision=None, answered_by=None, code=404)])
        watched.metrics.requests_finished(
            [request(route=name, decision=decision(VersionRef(name, number), route=name), code=404)]
        )
        watched.metrics.request_rejected(name, f"reason-{number}")
        watched.metrics.fell_back(decision(DIGITS_4), f"Cause{number}")
        watched.metrics.fell_back(decision(VersionRef(name, number), route=name), "ModelError")
        watched.metrics.batch_finished(batch(VersionRef(name, number)))
        watched.metrics.cache_asked(name, "hit")
        watched.metrics.rolled_back(RollbackRecord(name, "operator", 3, (), "", durable=True))
    assert watched.series() == before
    assert watched.label_values("route") == {"digits", "unknown"}
    assert watched.value("gateway_requests_total", route="unknown", model="", version="", code="404") == 2001


def test_two_gateways_in_one_process_do_not_collide(watched: Watched) -> None:
    """A registry belongs to a lifetime, not to the process."""
    other = Watched(digits())
    other.metrics.table_applied(9)
    watched.metrics.requests_finished([request()])
    assert (watched.metrics.statistics().requests, other.metrics.statistics().requests) == (1, 0)
    assert other.value("gateway_state_revision") == 9


def test_metrics_that_fail_are_dropped_and_the_work_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """Telemetry watches and never touches."""

    def gone() -> RoutingTable:
        raise RuntimeError("no table")

    observers = FanOut(Metrics(CollectorRegistry(), table=gone))
    observers.table_applied(1)
    observers.request_finished(request())
    assert repr(observers) == "<FanOut []>"
    assert "observer Metrics failed in table_applied and is dropped" in caplog.text


def test_a_repr_says_what_is_watched(watched: Watched) -> None:
    """Fit for an assertion and for a log."""
    assert repr(watched.metrics) == "<Metrics [1 routes | 2 versions]>"


def test_scrapes_on_another_thread_never_trip_over_what_the_loop_writes(watched: Watched) -> None:
    """Versions come and go while the registry is rendered again and again; each scrape can be read."""
    stop, faults, scrapes = threading.Event(), [], []

    def scrape() -> None:
        try:
            while not stop.is_set():
                scrapes.append(sum(1 for _ in parse_text(text(watched.registry).decode())))
        except Exception as fault:  # noqa: BLE001  # told to the test below
            faults.append(fault)

    scraper = threading.Thread(target=scrape)
    scraper.start()
    number = 0
    while not faults and len(scrapes) < 20:
        number += 1
        version = VersionRef("digits", 100 + number)
        watched.metrics.version_state(version, "active", "")
        watched.apply(digits(pinnable=frozenset({version.number})), revision=number)
        watched.metrics.requests_finished([request(decision=decision(version), code=200 + number % 300, sampled=True)])
        watched.metrics.batch_finished(batch(version))
        watched.metrics.request_rejected("digits", "deadline")
        if number > 5:
            watched.metrics.version_retired(VersionRef("digits", 95 + number))
    stop.set()
    scraper.join()
    assert faults == []


def test_flags_have_series_where_there_is_a_provider_and_the_oldest_data_counts(watched: Watched) -> None:
    """Of all processes; one without data to go by makes it infinite. Rules that are gone take their series along."""
    sources = [FlagSource("here", "flagd-file", "ready", 0.2), FlagSource("web worker 7", "flagd-file", "stale", 9.0)]
    registry = CollectorRegistry()
    metrics = Metrics(registry, table=lambda: watched.table, flags=lambda: sources)
    watched.table = table(digits(rules=(Rule("beta", lambda _: False, ()),)))
    metrics.table_applied(8)
    metrics.flag_missed(FlagMiss("digits", "beta", "new-model", "stale", "digits"))
    metrics.flag_missed(FlagMiss("digits", "made-up", "new-model", "stale", "digits"))
    labels = {"provider": "flagd-file"}
    assert registry.get_sample_value("gateway_flag_age_seconds", labels) == 9.0
    assert registry.get_sample_value("gateway_flag_ready", labels) == 0.0
    missed = {"route": "digits", "rule": "beta", "cause": "stale"}
    assert registry.get_sample_value("gateway_flag_misses_total", missed) == 1
    sources[1] = FlagSource("web worker 7", "flagd-file", "fenced", None)
    assert registry.get_sample_value("gateway_flag_age_seconds", labels) == float("inf")
    watched.table = table(digits())
    metrics.table_applied(9)
    assert registry.get_sample_value("gateway_flag_misses_total", missed) is None
