"""Which requests are traced that nobody drew at the door: failed and slow ones, so many a second and no more."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.events.records import RequestRecord
from gateway.telemetry.tracing.keeping import Allowance, Keeping, Threshold
from tests.telemetry.records import DIGITS_3, PARENT_ID, decision, request


def reasons(keeping: Keeping, *records: RequestRecord, now: float = 0.0) -> list[str]:
    return [reason for _, reason in keeping.choose(records, now)]


def failed(**changes: Any) -> RequestRecord:
    return request(
        **{"code": 500, "error": "ModelError", "chosen_failure": "ModelError", "answered_by": None, **changes}
    )


def test_what_was_sampled_at_the_door_is_kept_and_says_by_whom() -> None:
    """The caller's wish, or our own share, with nothing kept besides."""
    keeping = Keeping(0.0)
    drawn = [request(sampled=True), request(sampled=True, parent_span_id=PARENT_ID), request()]
    assert reasons(keeping, *drawn) == ["ratio", "parent"]


def test_callers_cannot_ask_for_more_traces_than_there_is_time_for() -> None:
    """Anybody may set the flag. What is beyond is not traced, and counted; a failure among it still is."""
    keeping = Keeping(10.0, sampled_per_s=2.0)
    wished = [request(sampled=True, parent_span_id=PARENT_ID)] * 100
    assert reasons(keeping, *wished) == ["parent"] * 10
    assert keeping.suppressed == 90
    assert reasons(keeping, failed(sampled=True)) == ["error"]


def test_failures_of_ours_are_kept_though_nobody_drew_them() -> None:
    """5xx, and a version that failed behind an answer that its fallback gave. A client's error is the client's."""
    rescued = request(chosen_failure="VersionCrashed", answered_by=DIGITS_3)
    refused = request(code=429, error="QueueFull", answered_by=None)
    assert reasons(Keeping(10.0), failed(), rescued, refused, failed(code=504)) == ["error", "fallback", "error"]


def test_a_caller_that_did_not_sample_does_not_hide_a_failure() -> None:
    """Its flag says what it keeps, not what we may."""
    assert reasons(Keeping(10.0), failed(parent_span_id=PARENT_ID)) == ["error"]


def test_what_its_route_calls_slow_is_kept() -> None:
    """And where the route has a word of its own, the running quantile has none."""
    keeping = Keeping(10.0)
    keeping.paced = {"digits"}
    quick = [request(duration_s=0.001)] * 1000
    assert reasons(keeping, *quick, request(duration_s=5.0), request(duration_s=0.5, slow=True)) == ["slow"]


def test_a_request_is_as_slow_as_its_route_said_when_it_came() -> None:
    """Though the route says nothing any more."""
    assert reasons(Keeping(10.0), request(slow=True), request()) == ["slow"]


def test_where_nobody_says_what_is_slow_the_slowest_hundredth_is() -> None:
    """A route's own: another's slowness is not its measure. Refusals, which are quick, do not count."""
    keeping = Keeping(1000.0)
    noise = random.Random(7)
    usual = [request(duration_s=noise.uniform(0.001, 0.002)) for _ in range(1000)]
    refused = [request(code=429, duration_s=0.00001, answered_by=None)] * 1000
    assert set(reasons(keeping, *usual, *refused)) <= {"slow"}
    assert reasons(keeping, request(duration_s=0.1)) == ["slow"]
    assert reasons(keeping, request(duration_s=0.1, route="other", decision=decision(route="other"))) == []


def test_an_outage_does_not_flood_the_collector() -> None:
    """Ten thousand failures in a second: the bucket's fifty and ten more. The rest are counted."""
    keeping = Keeping(10.0)
    kept = sum(len(keeping.choose([failed()], now / 10_000)) for now in range(10_000))
    assert 50 <= kept <= 61
    assert keeping.suppressed == 10_000 - kept
    assert repr(keeping) == f"<Keeping [0 routes | {keeping.suppressed} suppressed]>"


def test_slow_requests_do_not_take_the_place_of_failed_ones() -> None:
    """Each kind has a bucket of its own."""
    keeping = Keeping(1.0)
    keeping.paced = {"digits"}
    slow = [request(slow=True)] * 100
    assert sorted(reasons(keeping, *slow, failed())) == ["error"] + ["slow"] * 5


def test_a_rate_of_nought_keeps_nothing() -> None:
    """And counts nothing as suppressed."""
    keeping = Keeping(0.0)
    assert reasons(keeping, failed(), request(slow=True)) == []
    assert keeping.suppressed == 0


@given(st.lists(st.floats(-1e3, 1e3, allow_nan=False), max_size=60))
def test_an_allowance_never_gives_more_than_its_rate(moments: list[float]) -> None:
    """Whatever the clock does: it is at most the bucket and what the time that really passed brings."""
    allowance = Allowance(2.0)
    given = sum(allowance.take(moment) for moment in moments)
    passed = max(0.0, max(moments) - moments[0]) if moments else 0.0
    assert given <= 10 + 2.0 * passed + 1


def test_the_threshold_finds_the_hundredth_and_follows_it() -> None:
    """Exponential durations, then three times as long: about one in a hundred is above, before and after."""
    noise, threshold = random.Random(11), Threshold()
    for scale in (0.01, 0.03):
        for _ in range(200):
            threshold.above([noise.expovariate(1 / scale) for _ in range(100)])
        above = sum(
            len(threshold.above([noise.expovariate(1 / scale) for _ in range(size)])) for size in (1, 9, 90) * 500
        )
        assert 0.009 < above / 50_000 < 0.011
        assert threshold.value_s is not None
        assert 3.4 < threshold.value_s / scale < 6.2  # ln(100) is 4.6


def test_a_threshold_says_nothing_while_it_learns() -> None:
    """The first requests of a cold version are slow and prove nothing."""
    threshold = Threshold()
    assert not any(threshold.above([duration]) for duration in [1.0, *[0.001 * n for n in range(1, 190)]])
    assert threshold.value_s is None
