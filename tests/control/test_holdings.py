"""What response caches hold, added up over processes."""

from __future__ import annotations

from gateway.control.holdings import Holding, Holdings


def test_changes_of_several_processes_add_up_and_end_at_nothing() -> None:
    """Two workers fill a cache; one ends, the other is emptied; nothing is remembered of it."""
    holdings = Holdings()
    for entries, held_bytes in ((2, 1400), (3, 2100), (-2, -1400)):
        holdings.cache_changed("digits", entries, held_bytes, 0)
    assert holdings.of("digits") == Holding(3, 2100)
    assert holdings.of("digits").to_json() == {"entries": 3, "bytes": 2100}
    holdings.cache_changed("digits", -3, -2100, 0)
    assert holdings.of("digits") == holdings.of("nobody") == Holding(0, 0)
    assert repr(holdings) == "<Holdings {}>"
