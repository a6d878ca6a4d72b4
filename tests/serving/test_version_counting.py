"""A version's own profile and those that it is compared with: when the engines are told, and of which."""

from __future__ import annotations

from gateway.events.observer import RecordingObserver
from gateway.serving.counts import Counting, CountingPlan
from gateway.serving.version_counting import VersionCounting
from tests.serving.stage import spec

OWN, OTHER, NEW = (CountingPlan(f"sha256:{name}", "{}") for name in ("own", "other", "new"))


def test_engines_are_told_once_they_run_and_at_every_change() -> None:
    """Before that nobody could count; and the same profiles again are no change."""
    told: list[Counting] = []
    counting = VersionCounting(spec(profile=OWN), told.append, RecordingObserver())
    counting.compare((OTHER,))
    assert told == []
    counting.begin(None)
    counting.compare((OTHER, OTHER))
    counting.profiled(NEW)
    counting.compare(())
    assert [one.plans for one in told] == [(OWN, OTHER), (NEW, OTHER), (NEW,)]
    assert repr(counting) == "<VersionCounting digits/3 [1 plans | begun]>"


def test_a_profile_that_another_version_shares_is_counted_on_when_the_own_is_replaced() -> None:
    """It was the version's own and its known good's; it is still the known good's."""
    told: list[Counting] = []
    counting = VersionCounting(spec(profile=OWN), told.append, RecordingObserver())
    counting.compare((OWN,))
    counting.begin(None)
    counting.profiled(NEW)
    assert [one.plans for one in told] == [(OWN,), (NEW, OWN)]
