"""What users of other systems' drift detection, payload logs and metrics complain of, tried on ours.

Pains 26 to 31 are of drift, 34 to 36 of logs and labels, 54 to 59 of metrics; docs/pains.md has a row for each.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client import generate_latest

from gateway.messages import VersionRef
from gateway.recording.road import Road
from gateway.routing.table import Arm
from gateway.telemetry.drift.judging import Policy
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.series import ROWS, SECONDS
from loadtests.live_gateway import LiveGateway, wait_until
from tests.live.scenario import ROW, heard, self_naming
from tests.telemetry.drift.scene import Watched, counted, reference_of
from tests.telemetry.records import batch, decision, digits, request, table

SEED = 20_261_122


def normal(rows: int, columns: int, *, shift: float = 0.0, seed: int = SEED) -> np.ndarray:
    """The last column is the one that is shifted."""
    values = np.random.default_rng(seed).normal(size=(rows, columns))
    values[:, -1] += shift
    return values


# Drift


@pytest.mark.parametrize("rows", [50, 250, 1_000, 5_000])
def test_pain_26_the_verdict_does_not_depend_on_the_size_of_batches(rows: int) -> None:
    """30,000 rows of the reference's kind raise nothing, and 30,000 that moved half a standard deviation do, whether
    they are looked at 50 or 5,000 at a time."""
    reference = reference_of({"x": normal(20_000, 4)})
    policy = Policy(tests=len(reference.names))
    for shift, drifts in ((0.0, False), (0.5, True)):
        stream = normal(30_000, 4, shift=shift, seed=SEED + 1)
        looks = [counted(reference.plan, {"x": part}) for part in np.split(stream, 30_000 // rows)]
        assert (Watched(reference, policy).until_raised(looks) is not None) == drifts


def test_pain_27_fifty_features_share_one_budget_of_false_alarms() -> None:
    """At p < 0.05 each, 92 of 100 looks at 50 features would alarm with nothing wrong; here 400 looks raise none."""
    reference = reference_of({"x": normal(20_000, 50)})
    watched = Watched(reference, Policy(tests=len(reference.names)))
    random = np.random.default_rng(SEED + 2)
    assert (
        watched.until_raised([counted(reference.plan, {"x": random.normal(size=(200, 50))}) for _ in range(600)])
        is None
    )
    assert watched.findings[-1].features[0].threshold > Policy(tests=1).threshold


def test_pain_28_counting_is_fast_and_what_is_kept_does_not_grow_with_the_rows() -> None:
    """50 features: 200,000 rows in a few seconds of one core, and the state is the same bytes after each thousand."""
    reference = reference_of({"x": normal(20_000, 50)})
    rows = normal(1_000, 50, seed=SEED + 3)
    sizes = set()
    began = time.process_time()
    total = np.zeros(reference.plan.size, np.int64)
    for _ in range(200):
        total += counted(reference.plan, {"x": rows})
        sizes.add(total.nbytes)
    assert time.process_time() - began < 60.0  # some 2 s on an idle machine; other tools' users tell of hours
    assert sizes == {reference.plan.size * 8}
    assert reference.plan.size * 8 < 1 << 20


def test_pain_29_one_change_is_told_once() -> None:
    """A shift that lasts is one alarm, however often it is looked at; it is cleared, and the next change is another."""
    reference = reference_of({"x": normal(20_000, 3)})
    watched = Watched(reference, Policy(tests=len(reference.names)))
    random = np.random.default_rng(SEED + 4)

    def looks(count: int, shift: float) -> list[str]:
        told = []
        for _ in range(count):
            rows = random.normal(size=(500, 3)) + np.array([0.0, 0.0, shift])
            told += watched.look(counted(reference.plan, {"x": rows})).raised
        return told

    first = looks(60, 1.0)
    assert len(first) == len(set(first))
    shifted = reference.names[2]
    assert shifted in first
    assert looks(400, 0.0) == []
    assert shifted not in watched.state.raised
    assert shifted in looks(60, 1.0)


def test_pain_30_the_same_data_give_the_same_verdict_to_the_last_bit() -> None:
    """Counts are integers and nothing is sampled: twice, in another order, and in two halves that are added."""
    rows = normal(4_000, 5, shift=0.3, seed=SEED + 5)
    reference = reference_of({"x": normal(20_000, 5)})
    again = reference_of({"x": normal(20_000, 5)})
    whole = counted(reference.plan, {"x": rows})
    shuffled = counted(again.plan, {"x": np.random.default_rng(1).permutation(rows)})
    halves = sum(counted(reference.plan, {"x": half}) for half in (rows[::2], rows[1::2]))
    findings = [
        Watched(one, Policy(tests=6)).look(np.asarray(counts))
        for one, counts in ((reference, whole), (again, shuffled), (reference, halves))
    ]
    assert findings[0] == findings[1] == findings[2]


def test_pain_31_no_setting_of_chunks_decides_or_crashes() -> None:
    """There are none: empty windows, windows of one row and one of 30,000 are looked at all the same."""
    reference = reference_of({"x": normal(20_000, 2)})
    policy = Policy(tests=len(reference.names))
    moved = normal(30_000, 2, shift=0.5, seed=SEED + 6)
    nothing = np.zeros(reference.plan.size, np.int64)
    uneven = [nothing, *(counted(reference.plan, {"x": moved[at : at + 1]}) for at in range(5)), nothing]
    watched = Watched(reference, policy)
    assert watched.until_raised(uneven) is None
    raised = watched.until_raised([counted(reference.plan, {"x": moved})])
    assert raised is not None


# Records


async def test_pain_34_a_record_sink_that_is_dead_neither_blocks_nor_eats_memory_and_every_loss_is_counted() -> None:
    """100,000 records for a recorder that never reads: bounded bytes, no call that waits, and none lost in silence. (A
    recorder that is stopped, killed or has a full disk: tests/recording and tests/telemetry/decisions.)"""
    road = Road(limit_bytes=1 << 20)
    burst = bytes(5_000)
    taken = sum(road.offer(burst, 50) for _ in range(2_000)) * 50
    said = road.statistics()
    assert said.held_bytes <= 1 << 20
    assert 0 < taken < 100_000
    assert said.lost == {"full": 100_000 - taken}
    assert road.full


def test_pain_36_any_past_answer_says_what_was_in_production(tmp_path: Path) -> None:
    """Which bytes gave it, by which rule, and under which weights, though these are others by now."""
    with LiveGateway(tmp_path / "home") as gateway:
        for number in (1, 2):
            self_naming(gateway, "echo", number)
        split = [{"version": 1, "weight": 80}, {"version": 2, "weight": 20}]
        gateway.put_route("echo", {"model": "echo", "split": split})
        answer = gateway.predict("echo", [ROW], key="ada").json()
        gateway.weights("echo", {1: 1, 2: 99})
        path = f"/admin/decisions/{answer['decision']}"
        headers = {"authorization": f"Bearer {gateway.token}"}
        wait_until(lambda: gateway.client.get(path, headers=headers).status_code == 200, what="the record")
        record = gateway.admin("GET", path.removeprefix("/admin"))
        shown = gateway.admin("GET", f"/models/echo/versions/{answer['version']}")
    assert record["version"] == answer["version"]
    assert record["bytes"]["digest"] == shown["digest"]
    assert record["bytes"]["loaded"]
    assert record["why"]["weights"] == {"1": 80, "2": 20}
    assert record["why"]["reason"] == answer["reason"] == "split"


# Metrics


def watched(*numbers: int) -> Metrics:
    """A route whose split names these versions, all of them active."""
    route = digits(arms=tuple(Arm(number, 1) for number in numbers), pinnable=frozenset(numbers))
    held = Metrics(table=lambda: table(route))
    held.table_applied(7)
    for number in numbers:
        held.version_state(VersionRef("digits", number), "active", "")
    return held


def shown(held: Metrics) -> dict[str, float]:
    """Name and labels to value."""
    lines = [line for line in generate_latest(held.registry).decode().splitlines() if line.startswith("gateway_")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def answered(held: Metrics, number: int, *durations_s: float) -> None:
    for duration_s in durations_s:
        held.requests_finished([request(decision=decision(VersionRef("digits", number)), duration_s=duration_s)])


def test_pain_35_names_that_clients_make_up_mint_no_series_and_versions_that_went_leave_none() -> None:
    """1,000 made-up routes are one series; 100 versions later there are as many as before. (Over HTTP, and in a real
    Prometheus: tests/live/test_prometheus.py.)"""
    held = watched(1)
    answered(held, 1, 0.001)
    held.request_rejected("made-up", "queue-full")
    held.requests_finished([request(route="made-up", decision=None, code=404)])
    before = shown(held).keys()
    for number in range(1_000):
        held.request_rejected(f"made-up-{number}", "queue-full")
        held.requests_finished([request(route=f"made-up-{number}", decision=None, code=404)])
    for number in range(2, 102):
        held.version_state(VersionRef("digits", number), "active", "")
        held.version_retired(VersionRef("digits", number))
    assert shown(held).keys() == before


def test_pain_54_each_version_has_a_latency_of_its_own() -> None:
    """Two versions on one route: the slow one shows in its own buckets, and in no other's."""
    held = watched(3, 4)
    answered(held, 3, 0.002, 0.002)
    answered(held, 4, 0.4)
    bucket = 'gateway_request_duration_seconds_bucket{le="0.0025",model="digits",route="digits",version="%d"}'
    assert (shown(held)[bucket % 3], shown(held)[bucket % 4]) == (2.0, 0.0)


def test_pain_55_latencies_of_several_servers_add_up_to_one_quantile() -> None:
    """Buckets are counters: the sum over two replicas is what one would have counted that had seen all requests."""
    replicas, one = (watched(3), watched(3)), watched(3)
    for number in range(200):
        duration_s = 0.0007 * 1.03**number
        answered(replicas[number % 2], 3, duration_s)
        answered(one, 3, duration_s)
    parts, whole = [shown(each) for each in replicas], shown(one)
    buckets = [name for name in whole if name.startswith("gateway_request_duration_seconds_bucket")]
    assert len(buckets) == len(SECONDS.labels)
    assert [parts[0][name] + parts[1][name] for name in buckets] == [whole[name] for name in buckets]


def test_pain_56_a_latency_costs_microseconds_and_not_a_third_of_the_throughput() -> None:
    """The time of the processor, with room for a busy machine. (What all of telemetry costs a whole gateway, side by
    side in one run: ``python -m loadtests.bench --only overhead``.)"""
    held = watched(3)
    records = [request(duration_s=0.0001 * number) for number in range(2_000)]
    began = time.process_time()
    for one in records:
        held.requests_finished([one])
    assert (time.process_time() - began) / len(records) < 100e-6  # some 2 µs; a small request takes some 200


def test_pain_57_a_scrape_stays_small_with_many_versions_and_every_kind_of_failure() -> None:
    """60 versions, 8 statuses each: some thousand lines, known beforehand, and none for each client, key or request."""
    numbers = range(1, 61)
    held = watched(*numbers)
    for number in numbers:
        for code in (200, 400, 422, 429, 500, 502, 503, 504):
            for client in range(5):
                told = request(decision=decision(VersionRef("digits", number)), code=code, request_id=f"r-{client}")
                held.requests_finished([told])
    series = shown(held)
    histogram = len(SECONDS.labels) + 2
    batches = len(ROWS.labels) + 2
    each = 8 + histogram + 2 * histogram + batches + 1 + 8 + 1  # statuses, request, queue and compute, rows, waiting, …
    assert len(series) <= 60 * each + 20
    assert not [name for name in series if "r-1" in name]


def test_pain_58_every_histogram_has_the_same_buckets_everywhere_and_none_outlives_its_version() -> None:
    """Bounds are constants of the program, not of a process; a version that is retired takes its series along."""
    held = watched(3, 4)
    for number in (3, 4):
        answered(held, number, 0.003)
        held.batch_finished(batch(VersionRef("digits", number)))
    bounds: dict[str, set[str]] = {}
    for name in shown(held):
        if match := re.match(r'(\w+)_bucket\{le="([^"]+)".*version="(\d)"', name):
            bounds.setdefault(f"{match[1]} {match[3]}", set()).add(match[2])
    seconds, rows = set(SECONDS.labels), set(ROWS.labels)
    assert len(bounds) == 8
    assert all(found == (rows if "rows" in name else seconds) for name, found in bounds.items())
    held.version_retired(VersionRef("digits", 4))
    gone = [name for name in shown(held) if 'version="4"' in name]
    assert {name.partition("{")[0] for name in gone} == {"gateway_route_weight"}  # the route still names it


def test_pain_59_no_histogram_is_lost_with_several_processes(tmp_path: Path) -> None:
    """Two web workers, of which one is killed: the node has counted the requests of both, bucket by bucket."""
    with LiveGateway(tmp_path / "home", options=("--workers", "2")) as gateway:
        self_naming(gateway, "echo", 1)
        gateway.put_route("echo", {"model": "echo", "split": [{"version": 1, "weight": 1}]})
        wait_until(lambda: heard(gateway), what="the route in every worker")

        def asked(times: int) -> None:
            for _ in range(times):
                assert httpx.post(f"{gateway.url}/predict/echo", json={"inputs": [ROW]}, timeout=90).status_code == 200

        labels = 'model="echo",route="echo",version="1"}'

        def counts() -> dict[str, float]:
            lines = (line.rpartition(" ") for line in gateway.metrics().splitlines())
            mine = {name: value for name, _, value in lines if name.startswith("gateway_request_duration_seconds")}
            return {name: float(value) for name, value in mine.items() if name.endswith(labels)}

        asked(30)
        total = f"gateway_request_duration_seconds_count{{{labels}"
        wait_until(lambda: counts().get(total) == 30.0, what="the requests of both workers")
        before = counts()
        workers = gateway.descendants("gateway.workers")
        assert len(workers) == 2
        workers[0].kill()
        workers[0].wait(60)  # and its connections have ended with it
        wait_until(lambda: "gateway_worker_restarts_total 1.0" in gateway.metrics(), what="another worker")
        assert counts() == before
        assert before[f'gateway_request_duration_seconds_bucket{{le="+Inf",{labels}'] == 30.0
