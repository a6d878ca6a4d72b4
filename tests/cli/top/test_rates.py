"""What happened between two looks: increases, quantiles, and what must never be compared."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

from gateway.cli.top.exposition_text import read_samples, value_of
from gateway.cli.top.rates import Increase, Window, quantile
from gateway.cli.top.reading import picture_of
from gateway.cli.top.told import Facts, route_of
from tests.cli.top.scene import ADDRESS, histogram, look, ready

COUNTER = "gateway_requests_total"


def counted(value: float, code: int = 200) -> str:
    return f'{COUNTER}{{route="r",model="r",version="1",code="{code}"}} {value}'


def test_labels_are_read_as_they_were_written() -> None:
    """Quotes, backslashes, line breaks, commas and braces: by what the official client makes of them."""
    registry = CollectorRegistry()
    odd = 'a "b" \\n \\ {c="d",}\n, e\x85\u2028'
    Counter("odd", "Odd.", ["name", "empty"], registry=registry).labels(odd, "").inc(2)
    samples = read_samples(generate_latest(registry).decode())
    assert samples["odd_total"] == {(("empty", ""), ("name", odd)): 2.0}


def test_what_is_no_number_is_left_out() -> None:
    """NaN, half a line, and what is none of the format's; the rest is read."""
    samples = read_samples('# HELP a b\na NaN\nb 1.5\nc{x="y"} +Inf\nd\n{} 3\n<html>\ne one\n')
    assert samples == {"b": {(): 1.5}, "c": {(("x", "y"),): float("inf")}}
    assert value_of(samples, "a") is None


def test_a_rate_is_the_increase_over_the_time_between() -> None:
    increase = Increase(look(10.0, counted(100), counted(5, 500)), look(12.0, counted(130), counted(6, 500)))
    assert increase.rates(COUNTER, route_of) == {"r": 15.5}


def test_a_counter_that_fell_counts_from_nothing() -> None:
    """As one that was not there before: a series that went and came again."""
    assert Increase(look(0.0, counted(100)), look(2.0, counted(30))).rates(COUNTER, route_of) == {"r": 15.0}
    assert Increase(look(0.0), look(2.0, counted(30))).rates(COUNTER, route_of) == {"r": 15.0}
    assert Increase(look(0.0, counted(30)), look(2.0)).rates(COUNTER, route_of) == {}


def test_nothing_is_told_from_one_look() -> None:
    """The first picture has states and no rates; not zeros, which would look like an outage."""
    standing = ready({"r": [{"version": 1, "weight": 1}]})
    window = Window().taken(look(0.0, counted(100), standing=standing), span_s=10.0)
    picture = picture_of(window, Facts(), address=ADDRESS, at=0.0)
    [row] = picture.routes
    assert (row.requests_s, row.errors, row.p50_s, row.fallbacks_s, row.refused_s) == (None,) * 5
    assert (picture.gateway.requests_s, picture.versions[0].requests_s) == (None, None)


def test_looks_at_another_process_are_not_compared() -> None:
    """A gateway that was restarted counts from nothing, and may by chance have counted more than the one before."""
    window = Window().taken(look(0.0, counted(100), started=1.0), span_s=10.0)
    window = window.taken(look(2.0, counted(500), started=2.0), span_s=10.0)
    assert window.increase.span_s == 0.0
    assert window.taken(look(4.0, counted(510), started=2.0), span_s=10.0).increase.rates(COUNTER, route_of) == {"r": 5}


def test_a_window_keeps_what_its_span_needs() -> None:
    window = Window()
    for at in range(0, 40, 2):
        window = window.taken(look(float(at)), span_s=10.0)
    assert [one.at_s for one in window.looks] == [28.0, 30.0, 32.0, 34.0, 36.0, 38.0]


def test_the_increase_after_an_outage_is_over_the_time_of_the_outage() -> None:
    """The process went on meanwhile: its counts are good, over all that time."""
    window = Window().taken(look(0.0, counted(0)), span_s=10.0).taken(look(60.0, counted(120)), span_s=10.0)
    assert window.increase.rates(COUNTER, route_of) == {"r": 2.0}


def test_quantiles_lie_between_the_bounds_of_their_bucket() -> None:
    increase = Increase(
        look(0.0, *histogram('route="r"', 50, 0, 0, 0, 0)), look(2.0, *histogram('route="r"', 50, 80, 20, 0, 0))
    )
    buckets = increase.buckets("gateway_request_duration_seconds", route_of)["r"]
    assert quantile(buckets, 0.4) == pytest.approx(0.0055)
    assert quantile(buckets, 0.9) == pytest.approx(0.055)


def test_quantiles_know_their_limits() -> None:
    """Nothing came: nothing is told. Above the last bound: that bound, which is shown as more than it."""
    assert quantile({}, 0.5) is None
    assert quantile({0.1: 0.0, float("inf"): 0.0}, 0.5) is None
    assert quantile({0.1: 0.0, 10.0: 0.0, float("inf"): 5.0}, 0.99) == 10.0


def test_a_histogram_with_one_bucket_that_fell_began_anew() -> None:
    """Else buckets of before and after would be mixed, and a quantile could fall outside of both."""
    increase = Increase(
        look(0.0, *histogram('route="r"', 10, 0, 0, 0, 0)), look(2.0, *histogram('route="r"', 4, 0, 0, 16, 0))
    )
    assert increase.buckets("gateway_request_duration_seconds", route_of)["r"][float("inf")] == 20
