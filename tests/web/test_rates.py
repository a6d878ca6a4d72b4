"""Rate limits: exact, true about when to come back, fair to everybody else, bounded in memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.errors import RateLimited
from gateway.routing.table import Arm, Limits, Route
from gateway.web.rates import MAX_CLIENTS, ClientRates, Rates, RatesStatistics


def route(rate_per_s: float = 2.0, burst: int = 3, name: str = "digits") -> Route:
    return Route(name, "digits", (Arm(1, 1),), limits=Limits(rate_per_s=rate_per_s, burst=burst))


class Door:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.rates = Rates(self.clock)

    def knock(self, client: str = "key:a", at: Route | None = None) -> float:
        """0 when let in, else the time that the client is told."""
        try:
            self.rates.admit(at or route(), client)
        except RateLimited as refusal:
            return refusal.retry_after_s
        return 0.0


@pytest.fixture
def door() -> Door:
    return Door()


def test_a_burst_is_let_in_and_then_the_rate(door: Door) -> None:
    """Three at once, then one every half second; whoever comes back as told is let in."""
    assert [door.knock() for _ in range(3)] == [0.0] * 3
    for _ in range(5):
        wait_s = door.knock()
        assert wait_s == pytest.approx(0.5)
        door.clock.advance(wait_s)
        assert door.knock() == 0.0


def test_a_refusal_says_the_rate_and_when_to_come_back(door: Door) -> None:
    """In the words of the field."""
    for _ in range(3):
        door.knock()
    door.clock.advance(0.1)
    with pytest.raises(RateLimited, match=r"'digits' lets 2 requests a second .* and 3 at once; come back in 0\.4 s"):
        door.rates.admit(route(), "key:a")


def test_refused_requests_do_not_push_the_next_one_back(door: Door) -> None:
    """Knocking harder makes it neither better nor worse."""
    for _ in range(3):
        door.knock()
    assert {round(door.knock(), 9) for _ in range(100)} == {0.5}
    door.clock.advance(0.5)
    assert door.knock() == 0.0


def test_a_client_that_rests_has_its_burst_again_and_no_more(door: Door) -> None:
    """An hour of silence saves up three requests."""
    for _ in range(3):
        door.knock()
    door.clock.advance(3600)
    assert [door.knock() > 0 for _ in range(4)] == [False, False, False, True]


def test_clients_and_routes_do_not_touch_one_another(door: Door) -> None:
    """One that floods is alone with it."""
    while not door.knock("key:flood"):
        pass
    assert door.knock("key:calm") == 0.0
    assert door.knock("key:flood", route(name="other")) == 0.0
    assert door.knock("key:flood") > 0


def test_a_rate_that_changes_counts_anew(door: Door) -> None:
    """The new rate is in force with the route's document."""
    while not door.knock():
        pass
    assert [door.knock(at=route(5.0, 2)) > 0 for _ in range(3)] == [False, False, True]


def test_a_rate_of_less_than_one_a_second_is_told_in_seconds(door: Door) -> None:
    """One request every ten seconds."""
    slow = route(0.1, 1)
    assert door.knock(at=slow) == 0.0
    assert door.knock(at=slow) == pytest.approx(10.0)


def test_idle_clients_and_routes_are_forgotten(door: Door) -> None:
    """What remembers nothing that matters costs nothing."""
    for number in range(1000):
        door.knock(f"key:{number}")
    assert door.rates.statistics() == RatesStatistics(1, 1000)
    door.clock.advance(0.5)
    for _ in range(2):
        door.knock("key:new")
        door.clock.advance(0.0)
    assert door.rates.statistics().clients == 1000 + 1 - 4
    door.clock.advance(60.0)
    door.knock(at=route(name="other"))
    assert door.rates.statistics() == RatesStatistics(1, 1)
    assert repr(door.rates) == "<Rates [<ClientRates 2 a second, 3 at once [1 clients]>]>"


def test_memory_is_bounded_whatever_names_clients_make_up() -> None:
    """Past the bound the one that was let in longest ago starts afresh."""
    rates = ClientRates(0.001, 1)
    for number in range(MAX_CLIENTS + 10):
        assert rates.wait_s(f"key:{number}", 5.0) == 0.0
    assert len(rates) == MAX_CLIENTS
    assert rates.wait_s(f"key:{MAX_CLIENTS}", 5.0) > 0
    assert rates.wait_s("key:0", 5.0) == 0.0


@given(
    gaps_ms=st.lists(st.integers(0, 2000), max_size=60),
    rate=st.sampled_from([0.5, 1.0, 3.0, 7.5]),
    burst=st.integers(1, 5),
)
def test_it_lets_in_what_a_bucket_of_tokens_would(gaps_ms: list[int], rate: float, burst: int) -> None:
    """Against the plain bucket: full at first, filled at the rate, one token a request, in exact numbers."""
    rates = ClientRates(rate, burst)
    per_ms = int(rate * 2)  # tokens are counted in 1/2000, of which this many come each millisecond
    tokens, now_ms = burst * 2000, 0
    for gap_ms in gaps_ms:
        now_ms += gap_ms
        tokens = min(burst * 2000, tokens + gap_ms * per_ms)
        wait_s = rates.wait_s("key:a", now_ms / 1000)
        if tokens >= 2000:
            assert wait_s == 0.0
            tokens -= 2000
        else:
            assert wait_s == pytest.approx((2000 - tokens) / per_ms / 1000, abs=1e-6)
