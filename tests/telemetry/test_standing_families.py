"""How routes and versions stand, as a scrape sees it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from gateway.control.rollout_state import ENDED, Phase
from gateway.messages import VersionRef
from gateway.telemetry.standing_families import PHASES, StandingFacts, StandingFamilies


def rendered(facts: StandingFacts) -> str:
    registry = CollectorRegistry()
    registry.register(StandingFamilies(lambda: facts))
    return generate_latest(registry).decode()


def test_every_phase_of_a_running_rollout_has_a_gauge_of_which_one_is_set() -> None:
    """An alert compares with 0; a series that is not there compares with nothing."""
    text = rendered(StandingFacts(phases={"digits": "paused"}))
    assert 'gateway_rollout_phase{phase="paused",route="digits"} 1.0' in text
    assert text.count('phase="') == len(PHASES)
    assert set(PHASES) == {str(phase) for phase in Phase} - {str(phase) for phase in ENDED}


def test_quarantines_restarts_and_the_memory_budget_are_shown() -> None:
    """Also the route that has no quarantine, and the version that never fell."""
    facts = StandingFacts(
        quarantined={"digits": 1, "fraud": 0},
        restarts={VersionRef("digits", 3): 2, VersionRef("digits", 4): 0},
        budgets={"cpu": 1 << 30},
        resting=2,
    )
    text = rendered(facts)
    for line in (
        'gateway_route_quarantined_versions{route="digits"} 1.0',
        'gateway_route_quarantined_versions{route="fraud"} 0.0',
        'gateway_version_restarts_total{model="digits",version="3"} 2.0',
        'gateway_version_restarts_total{model="digits",version="4"} 0.0',
        'gateway_memory_budget_bytes{device="cpu"} 1.073741824e+09',
        "gateway_resting_versions 2.0",
    ):
        assert line in text
