"""Simulated rollouts: the rollout's own steps and evidence, on streams where everybody knows what should happen."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from gateway.control.rollout_plan import PlanSpec
from gateway.control.simulation.arrivals import KEY_SPACE, Traffic, made_up
from gateway.control.simulation.recorded import read_recording
from gateway.control.simulation.replay import Conduct
from gateway.control.simulation.report import named, report_of
from gateway.control.simulation.rivals import LOOKS, RIVALS, compete
from gateway.control.simulation.runs import PAUSED, PROMOTED, ROLLED_BACK, UNFINISHED, Run, Share, Stage
from gateway.control.simulation.sweep import OURS, Sweep, swept
from gateway.control.simulation.world import World, drawn
from gateway.errors import InvalidInput

EQUAL, WORSE, WRONG = World(0.01, 0.01), World(0.01, 0.2), World(0.01, 0.01, disagreement=0.5)
TRAFFIC = Traffic(requests=12_000, keys=0)


def plan(**fields: Any) -> PlanSpec:
    """Small steps, so that a test is short."""
    short: dict[str, Any] = {
        "candidate": 2,
        "steps": [{"weight": 10, "min_s": 5}, {"weight": 50, "min_s": 5}],
        "shadow": {"min_s": 2, "min_pairs": 20, "share": 0.5},
        "bake": {"min_s": 20, "min_requests": 100},
    }
    return PlanSpec.parse(short | fields)


def sweep(
    *worlds: World, runs: int = 4, traffic: Traffic = TRAFFIC, rivals: tuple[str, ...] = (), **fields: Any
) -> Sweep:
    return Sweep(Conduct(plan(**fields)), traffic, worlds, runs=runs, seed=3, rivals=rivals)


def runs_of(asked: Sweep, place: int = 0) -> list[Run]:
    return list(swept(asked)[place][OURS])


def test_the_same_seed_gives_the_same_runs_however_many_processes_share_them() -> None:
    """A figure in a report can be had again, on a laptop and on a server."""
    asked = sweep(EQUAL, WORSE, runs=2, traffic=Traffic(requests=4_000))
    alone, shared = swept(asked), swept(asked, jobs=2)
    assert alone == shared
    assert alone != swept(Sweep(asked.conduct, asked.source, asked.worlds, runs=2, seed=4))


def test_a_good_candidate_goes_through_the_steps_of_the_plan_and_is_promoted() -> None:
    """The steps are those that the real ``advance`` takes: shadow, 10%, 50%, the bake with its hold-back."""
    for run in runs_of(sweep(EQUAL)):
        assert run.end == PROMOTED
        assert [percent for _, percent in run.weights] == [0.0, 10.0, 50.0, 98.0]
        starts = [at for at, _ in run.weights]
        assert all(later - sooner >= 2.0 for sooner, later in pairwise(starts))
        assert run.at_s >= starts[-1] + 20.0


def test_a_bad_candidate_is_rolled_back_and_harms_few() -> None:
    """Of 240 s and 12,000 users, 20% errors need seconds and cost a handful."""
    for run in runs_of(sweep(WORSE)):
        assert (run.end, run.cause, run.detected) == (ROLLED_BACK, "error", True)
        assert run.at_s < 60.0
        assert 0 < run.hit <= run.met <= run.users
        assert run.met <= run.candidate_requests < run.requests


def test_wrong_answers_are_found_before_anybody_gets_one() -> None:
    """Half of the compared answers differ: the shadow step ends it, and no user has met the candidate."""
    for run in runs_of(sweep(WRONG)):
        assert (run.end, run.cause) == (ROLLED_BACK, "disagreement")
        assert run.candidate_requests == run.met == run.hit == 0


def test_slow_answers_are_found() -> None:
    """One in three where one in a hundred is usual."""
    for run in runs_of(sweep(World(0.01, 0.01, candidate_slow=0.33))):
        assert (run.end, run.cause) == (ROLLED_BACK, "slow")


def test_a_plan_that_pauses_on_harm_has_found_it_as_soon() -> None:
    """What the plan then does is its own matter: the figures are those of the detection."""
    back, paused = (runs_of(sweep(WORSE, on_harm=what)) for what in ("rollback", "pause"))
    assert {run.end for run in paused} == {PAUSED}
    assert [run.at_s for run in paused] == [run.at_s for run in back]
    report = report_of(sweep(WORSE, on_harm="pause"), [{OURS: paused}])
    assert report.rows[0].figures.rolled_back == Share(4, 4)


def test_equal_versions_are_rolled_back_as_rarely_as_alpha_says() -> None:
    """Alpha 5% over the rollout: of 60, more than nine would come by chance once in 2,000 such tests."""
    bursty = Traffic(requests=6_000, keys=3_000, zipf=1.1, bursts=2)
    (trials,) = swept(sweep(World(0.05, 0.05, tied=True), runs=60, traffic=bursty))
    assert sum(run.detected for run in trials[OURS]) <= 9


def test_without_requests_for_the_candidate_nothing_is_decided() -> None:
    """Ten users, none of whom may fall to the candidate: waiting is the verdict, not a rollback."""
    for run in runs_of(sweep(WORSE, traffic=Traffic(requests=2_000, keys=3), shadow=None)):
        assert run.end in (UNFINISHED, ROLLED_BACK)
        assert run.end == UNFINISHED or run.hit


def test_a_manual_gate_is_refused_or_opened_as_asked() -> None:
    """Nobody is there to open it: a run would wait for ever, and say that the plan is slow."""
    gated = plan(steps=[{"weight": 10, "min_s": 5, "gate": "manual"}, {"weight": 50, "min_s": 5}])
    with pytest.raises(InvalidInput, match=r"steps\[0\]\.gate.*--approve"):
        Conduct(gated).checked()
    opened = Conduct(gated, approve=True).checked()
    (trials,) = swept(Sweep(opened, TRAFFIC, (EQUAL,), runs=2))
    assert {run.end for run in trials[OURS]} == {PROMOTED}


@pytest.mark.parametrize("truth", [{"needs": ["label"]}, {"score": {"of": "error", "worst": 1.0, "best": 0.0}}])
def test_a_plan_that_waits_for_the_truth_is_refused(truth: dict[str, Any]) -> None:
    """None comes to answers that nobody gave: it would wait for ever."""
    with pytest.raises(InvalidInput, match="no truth comes to simulated answers"):
        Conduct(plan(**truth)).checked()


def test_a_candidate_may_have_any_number() -> None:
    """Also that which the simulated known good has otherwise."""
    assert {run.end for run in runs_of(sweep(EQUAL, runs=1, candidate=1))} == {PROMOTED}


def test_recorded_traffic_is_replayed() -> None:
    """5% failures were recorded: an equal version does what was recorded, a bad one fails ten times as often."""
    rows = [b"time,key,outcome\n"]
    rows += [b"%f,user-%d,%s\n" % (n / 200, n, b"error" if n % 20 == 0 else b"ok") for n in range(12_000)]
    recording = read_recording(rows)
    worlds = (World(0.05, 0.05, 0.0, 0.0), World(0.05, 0.5, 0.0, 0.0))
    equal, bad = swept(Sweep(Conduct(plan()), recording.arrivals, worlds, runs=2))
    assert {run.end for run in equal[OURS]} <= {PROMOTED, UNFINISHED}
    assert {run.end for run in bad[OURS]} == {ROLLED_BACK}


def taken_back(name: str, world: World, *, runs: int, percent: float) -> float:
    """The share of canaries at ``percent`` that a rival takes back, looking thirty times at 6,000 requests."""
    back = 0
    for number in range(runs):
        draw = np.random.default_rng([9, number])
        arrivals = made_up(Traffic(requests=6_000, keys=0), draw)
        places = draw.integers(KEY_SPACE, size=arrivals.key_count)[arrivals.keys]
        stage = Stage(arrivals, places, drawn(arrivals, world, draw))
        back += compete(RIVALS[name], stage, [percent], arrivals.length_s / (LOOKS + 0.01)).detected
    return back / runs


def test_a_fixed_rule_takes_good_candidates_back_where_traffic_is_thin() -> None:
    """About 20 requests a look at 3% errors: most good ones fail four looks of thirty; with ten times as many, few."""
    assert taken_back("fixed-rule", World(0.03, 0.03), runs=60, percent=10.0) > 0.5
    assert taken_back("fixed-rule", World(0.03, 0.03), runs=60, percent=100.0) < 0.2


def test_a_test_that_is_repeated_breaks_its_promise() -> None:
    """2.5% at each of thirty looks, one-sided: more than one in ten good candidates is taken back."""
    assert taken_back("z-test", World(0.05, 0.05), runs=150, percent=50.0) > 0.09


@pytest.mark.parametrize("name", sorted(RIVALS))
def test_others_stop_at_the_end_of_the_stream(name: str) -> None:
    """A look past the last request is none."""
    draw = np.random.default_rng(1)
    arrivals = made_up(Traffic(requests=2_000), draw)
    places = draw.integers(KEY_SPACE, size=arrivals.key_count)[arrivals.keys]
    stage = Stage(arrivals, places, drawn(arrivals, EQUAL, draw))
    run = compete(RIVALS[name], stage, [50.0], arrivals.length_s / (LOOKS - 1))
    assert run.end == UNFINISHED
    assert run.at_s == arrivals.length_s


def test_a_share_says_how_sure_it_is() -> None:
    """Wilson's interval, as tables have it: 0 of 20 is up to 16.1%, 10 of 20 is 29.9% to 70.1%."""
    assert Share(0, 20).interval() == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert Share(10, 20).interval() == pytest.approx((0.2993, 0.7007), abs=1e-4)
    assert Share(0, 0).interval() == (0.0, 1.0)


def test_a_report_names_candidates_by_what_tells_them_apart() -> None:
    """One row each, by who decided; what is equal says so."""
    assert [named(world) for world in (EQUAL, WORSE, WRONG)] == ["equal, 1% errors", "20% errors", "50% disagreement"]
    asked = sweep(EQUAL, WORSE, runs=1, traffic=Traffic(requests=2_000), rivals=("z-test",))
    body = report_of(asked, swept(asked)).to_json()
    assert [(row["candidate"], row["decided_by"]) for row in body["rows"]] == [
        ("equal, 1% errors", "evidence"),
        ("equal, 1% errors", "z-test"),
        ("20% errors", "evidence"),
        ("20% errors", "z-test"),
    ]
    assert body["traffic"]["requests"] == 2_000
