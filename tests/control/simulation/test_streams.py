"""Streams to simulate on: made up with a seed, or read from what was recorded, however hostile the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest

from gateway.clock import ManualClock
from gateway.control.simulation.arrivals import UNKNOWN, Traffic, made_up
from gateway.control.simulation.recorded import read_recording
from gateway.control.simulation.world import World, drawn
from gateway.errors import InvalidInput
from gateway.events.records import RequestRecord
from gateway.messages import Decision, VersionRef
from gateway.telemetry.request_log import EventLines, RequestLog
from gateway.telemetry.sink import open_sink


def line(second: float = 0.0, **fields: object) -> bytes:
    body = {"time": 1000.0 + second, "event": "request", "route": "digits", "model": "digits", "version": 3}
    body |= {"code": 200, "compute_ms": 1.0, "fallback_from": None} | fields
    return orjson.dumps(body) + b"\n"


def refusal(*lines: bytes, route: str | None = None) -> str:
    with pytest.raises(InvalidInput) as caught:
        read_recording(lines, route=route)
    return str(caught.value)


def test_the_same_seed_makes_the_same_stream() -> None:
    """A figure that somebody else cannot get again is none."""
    first, second = (made_up(Traffic(requests=500), np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first.times_s, second.times_s)
    assert np.array_equal(first.keys, second.keys)


def test_a_made_up_stream_has_the_rate_and_the_users_asked_for() -> None:
    """50 requests a second by 100 users, all of them met."""
    arrivals = made_up(Traffic(requests=20_000, rate=50.0, keys=100), np.random.default_rng(1))
    assert repr(arrivals).startswith("<Arrivals [made up | 20000 requests | 100 keys")
    assert 20_000 / arrivals.length_s == pytest.approx(50.0, rel=0.03)
    assert set(arrivals.keys) == set(range(100))


def test_a_few_users_send_most_where_zipf_says_so() -> None:
    """With 1.1 the busiest hundredth of 10,000 users sends about half of the requests; without, about a hundredth."""
    for zipf, least, most in ((1.1, 0.4, 0.8), (None, 0.005, 0.02)):
        arrivals = made_up(Traffic(requests=20_000, zipf=zipf), np.random.default_rng(2))
        assert least < np.mean(arrivals.keys < 100) < most


def test_requests_without_keys_are_users_of_their_own() -> None:
    """``--keys 0``: nothing ties two requests."""
    arrivals = made_up(Traffic(requests=50, keys=0), np.random.default_rng(3))
    assert len(set(arrivals.keys)) == arrivals.key_count == 50


def test_failures_come_at_the_rates_of_the_world() -> None:
    """Of 20,000 requests 1% fail with the baseline, 5% with the candidate; in bursts, of both alike."""
    arrivals = made_up(Traffic(requests=20_000), np.random.default_rng(4))
    outcomes = drawn(arrivals, World(0.01, 0.05, disagreement=0.2), np.random.default_rng(5))
    rates = [found.mean() for found in (outcomes.baseline_failed, outcomes.candidate_failed, outcomes.differs)]
    assert rates == pytest.approx([0.01, 0.05, 0.2], rel=0.15)
    stormy = made_up(Traffic(requests=20_000, bursts=5), np.random.default_rng(4))
    inside = stormy.in_burst()
    hit = drawn(stormy, World(0.01, 0.01), np.random.default_rng(5))
    assert hit.baseline_failed[inside].mean() > 0.2
    assert hit.baseline_failed[~inside].mean() < 0.02


def test_tied_failures_belong_to_users() -> None:
    """A user with an odd account always fails: as many as the rate says, all of his requests."""
    arrivals = made_up(Traffic(requests=20_000, keys=1_000), np.random.default_rng(6))
    failed = drawn(arrivals, World(0.05, 0.05, tied=True), np.random.default_rng(7)).baseline_failed
    odd = set(arrivals.keys[failed])
    assert 20 < len(odd) < 90
    assert odd.isdisjoint(arrivals.keys[~failed])


def test_an_equal_candidate_does_on_recorded_traffic_what_was_recorded() -> None:
    """The recorded failures stand where they stood; a worse candidate fails there and elsewhere."""
    recorded = read_recording([line(n, code=500 if n % 10 == 0 else 200) for n in range(1000)]).arrivals
    equal = drawn(recorded, World(0.1, 0.1), np.random.default_rng(8))
    worse = drawn(recorded, World(0.1, 0.3), np.random.default_rng(8))
    assert np.array_equal(equal.baseline_failed, recorded.failed == 1)
    assert np.array_equal(equal.candidate_failed, equal.baseline_failed)
    assert worse.candidate_failed[worse.baseline_failed].all()
    assert worse.candidate_failed.mean() == pytest.approx(0.3, abs=0.05)


def test_what_the_gateway_logs_is_read_back(tmp_path: Path) -> None:
    """Times, failures (also those that a fallback hid) and the version, out of lines that the gateway itself wrote."""
    path = tmp_path / "requests.jsonl"
    sink = open_sink(str(path))
    assert sink is not None
    log = RequestLog(sink, clock=ManualClock())
    three, four = VersionRef("digits", 3), VersionRef("digits", 4)
    EventLines(log.told, clock=ManualClock()).table_applied(12)
    for number in range(20):
        failure = "ModelError" if number == 7 else None
        chosen = four if number == 9 else three
        answered = three if number != 7 else VersionRef("digits", 2)
        decision = Decision("digits", chosen, "split", None, 1)
        code = 429 if number == 3 else 200
        record = RequestRecord(
            "digits", f"r{number}", f"d{number}", decision, answered if number != 9 else four, code, failure,
            None, 1, 1_700_000_000.0 + number / 4, 0.01, compute_s=0.001 * (1 + (number == 11)),
        )  # fmt: skip
        log.take([record])
    assert log.close()
    recording = read_recording(path.read_bytes().splitlines(keepends=True), route="digits")
    arrivals = recording.arrivals
    assert arrivals.failed is not None
    assert arrivals.slow is not None
    assert (recording.requests, recording.left_out, recording.baseline) == (19, 1, "digits/3")
    assert arrivals.times_s[-1] == pytest.approx(19 / 4)
    assert [round(4 * arrivals.times_s[place]) for place in np.flatnonzero(arrivals.failed == 1)] == [7]
    assert [round(4 * arrivals.times_s[place]) for place in np.flatnonzero(arrivals.failed == UNKNOWN)] == [9]
    assert [round(4 * arrivals.times_s[place]) for place in np.flatnonzero(arrivals.slow == 1)] == [11]


def test_a_csv_names_users_and_outcomes() -> None:
    """Times as numbers or as RFC 3339; a row without a key is a user of its own."""
    rows = [b"time,key,outcome\n", b"0.5,ann,ok\n", b"1.5,bob,error\n", b"2.5,ann,slow\n", b"3.5,,ok\n"]
    recording = read_recording(rows)
    arrivals = recording.arrivals
    assert arrivals.times_s.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert arrivals.keys.tolist() == [0, 1, 0, 2]
    assert arrivals.failed is not None
    assert arrivals.failed.tolist() == [0, 1, 0, 0]
    assert (recording.error_rate, recording.slow_rate, recording.baseline) == (0.25, 0.25, None)
    dated = [b"\xef\xbb\xbftime,key,outcome\n", b"2026-11-22T00:00:00Z,a,ok\n", b"2026-11-22T01:00:01+01:00,a,ok\n"]
    assert read_recording(dated).arrivals.times_s.tolist() == [0.0, 1.0]


def test_requests_are_put_into_the_order_of_their_times() -> None:
    """A log is written as requests end; files are joined by hand. How many lines went back is said."""
    recording = read_recording([line(5), line(3, code=500), line(9), line(1)])
    assert recording.reordered == 2
    assert recording.arrivals.times_s.tolist() == [0.0, 2.0, 4.0, 8.0]
    assert recording.arrivals.failed is not None
    assert recording.arrivals.failed.tolist() == [0, 1, 0, 0]


def test_one_route_is_picked_out_of_a_log_of_several() -> None:
    """Other routes' requests, and lines about anything else, are not this route's traffic."""
    other = orjson.dumps({"time": "2026-11-22T00:00:00.000Z", "event": "rolled-back", "route": "digits"}) + b"\n"
    recording = read_recording([line(1), line(2, route="fraud"), other, line(3)], route="digits")
    assert recording.requests == 2


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (b'{"event": "request", \n', "a JSON object"),
        (b"[1, 2]\n", "a JSON object, got '[1, 2]'"),
        (line(code="200"), "a whole number under code, got '200'"),
        (line(time=None), "a time: seconds"),
        (line(time="yesterday"), "got 'yesterday'"),
        (line(time=True), "got True"),
        (line(time="nan"), "a time"),
        (line(compute_ms="fast"), "a number under compute_ms"),
        (b"\xff\xfe\x00garbage\n", "a JSON object"),
    ],
)
def test_a_bad_line_is_named_by_its_number(broken: bytes, said: str) -> None:
    """The third line of the file, also after a blank one; what came, and what was expected."""
    message = refusal(line(), b"\n", broken, line(1))
    assert message.startswith("traffic, line 3: expected ")
    assert said in message


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([b"time,key\n", b"1,a\n"], "line 1: expected a heading with the columns time, key and outcome (outcome"),
        ([b"time,key,outcome\n", b"1,a,ok\n", b"2,a,maybe\n"], "line 3: expected an outcome (ok, error, slow), got"),
        ([b"time,key,outcome\n", b"1,a\n"], "line 2: expected an outcome"),
        ([b"time,key,outcome\n", b"soon,a,ok\n"], "line 2: expected a time"),
        ([b"time,key,outcome\n", b'1,"a,ok\n'], "line 2: expected a line of CSV"),
        ([b"time,key,outcome\n", b"1,\xff,ok\n"], "line 2: expected text in UTF-8"),
    ],
)
def test_a_bad_row_is_named_by_its_number(rows: list[bytes], said: str) -> None:
    """CSV from a spreadsheet is as likely to be wrong."""
    assert said in refusal(*rows)


def test_a_last_line_that_is_being_written_is_left_out() -> None:
    """The log of a gateway that serves ends anywhere; a bad line with its end is a fault all the same."""
    recording = read_recording([line(), line(1), line(2)[:-40]])
    assert (recording.requests, recording.cut_off) == (2, True)


def test_traffic_that_holds_nothing_is_refused() -> None:
    """An empty file, blank lines, a log without the route: each is said."""
    assert "the traffic is empty" in refusal()
    assert "the traffic is empty" in refusal(b"\n", b"  \n")
    assert "1 lines of other events or routes, 0 without an outcome" in refusal(line(route="fraud"), route="digits")
    assert "no request that counts" in refusal(b"time,key,outcome\n")
