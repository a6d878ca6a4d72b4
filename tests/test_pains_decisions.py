"""What users of other rollout systems complain of, where the answer is a decision: tried on the pure parts."""

from __future__ import annotations

from itertools import pairwise

import pytest

from gateway.control import rollout as steps
from gateway.control import transitions
from gateway.control.evidence import State, begin, judge
from gateway.control.rollout import Facts, Finding, Kind, targets
from gateway.control.rollout_evidence import finding_of
from gateway.control.rollout_plan import PlanSpec
from gateway.control.simulation.arrivals import Traffic
from gateway.control.simulation.replay import Conduct
from gateway.control.simulation.runs import UNFINISHED
from gateway.control.simulation.sweep import OURS, Sweep, swept
from gateway.control.simulation.world import World
from gateway.control.tallies import BASELINE, CANDIDATE, tally
from gateway.control.transitions import faults
from gateway.control.verdicts import HARMFUL, HEALTHY, NOT_ENOUGH, Block, Judgement, Policy
from gateway.errors import Conflict, Quarantined
from tests.control.test_rollout import DIGITS, HARM, begun, ended, move, onward, phase, plan, split

POLICY = Policy()
DAY_S = 86_400.0


def looked(candidate: tuple[int, int], baseline: tuple[int, int], *, share: float = 0.05, times: int = 40) -> Judgement:
    """``times`` looks at outcomes that come evenly; each arm's (units, bad) in all."""
    state: State = begin(POLICY)
    for look in range(1, times + 1):
        counters: dict[str, int] = {}
        for arm, (units, bad) in ((CANDIDATE, candidate), (BASELINE, baseline)):
            now, failed = units * look // times, bad * look // times
            counters |= tally("error", arm, good=now - failed, bad=failed)
        state, judgement = judge(state, Block(7, {"split": share}, counters, look * 1.0), POLICY)
    return judgement


def test_a_canary_without_traffic_is_neither_aborted_nor_stuck_without_a_word() -> None:
    """A night without a request is no failure: the step waits, says for how many, and an operator may promote it."""
    document = onward(begun(), 2)
    waiting = move(document, Finding(lacking={"error": None}), Facts(elapsed_s=DAY_S, quiet_s=DAY_S))
    assert waiting.kind is Kind.WAIT
    assert any("50 more requests" in said for said in waiting.waits)
    assert split(steps.promote(document, Finding(), by="olga", at=2.0)) == {3: 75, 4: 25}


def test_no_data_never_takes_a_rollout_a_step_further() -> None:
    """Nothing counted is "not enough" in every stream, at every step, however long it lasts."""
    judgement = looked((0, 0), (5_000, 50))
    finding = finding_of(judgement, plan())
    assert judgement.verdict == NOT_ENOUGH
    assert {"error", "disagreement"} <= finding.lacking.keys()
    for done in (1, 2, 3, 4):
        late = Facts(elapsed_s=30 * DAY_S, units=10**6, pairs=10**6)
        assert move(onward(begun(), done), finding, late).kind is Kind.WAIT


def test_a_few_requests_cause_no_false_alarm() -> None:
    """20 requests a look at 3% errors, where a rule of "95% or more" aborts most of the good canaries: here, hardly
    any; and one failure right at the start is not yet harm."""
    conduct = Conduct(PlanSpec.parse({"candidate": 2, "steps": [10], "shadow": None}))
    (trials,) = swept(Sweep(conduct, Traffic(requests=6_000, keys=0), (World(0.03, 0.03),), runs=25))
    assert sum(run.detected for run in trials[OURS]) <= 4
    assert looked((2, 1), (40, 1), times=3).verdict == NOT_ENOUGH


@pytest.mark.parametrize("done", [1, 2, 3, 4])
def test_found_harm_stops_a_rollout_wherever_it_stands(done: int) -> None:
    """There is no state in which a failed analysis is only noted: shadow, steps, and the time after them."""
    assert move(onward(begun(), done), HARM, Facts()).kind is Kind.ROLL_BACK


def test_an_abort_holds_after_full_promotion_was_asked_for() -> None:
    """An operator promotes all the way, then thinks better of it: the weights before the rollout come back."""
    baking = steps.promote(onward(begun(), 2), Finding(), by="olga", at=2.0, full=True)
    assert split(baking) == {3: 2, 4: 98}
    aborted = steps.abort(baking, by="olga", at=3.0)
    assert (phase(aborted), split(aborted)) == ("aborted", {3: 100})
    assert move(steps.promote(onward(begun(), 2), Finding(), by="olga", at=2.0, full=True), HARM).kind is Kind.ROLL_BACK


def test_harm_waits_for_no_webhook() -> None:
    """A confirmation that never comes holds the climb up, and the way back not at all."""
    document = onward(begun(webhooks={"confirm": [{"url": "https://gate"}]}), 2)
    unanswered = Facts(elapsed_s=DAY_S, units=10**6, pairs=10**6, unconfirmed="https://gate")
    assert move(document, facts=unanswered).kind is Kind.WAIT
    assert move(document, HARM, unanswered).kind is Kind.ROLL_BACK


def test_a_promotion_cannot_get_stuck_without_saying_for_what() -> None:
    """Whatever is missing at any step is named; where nothing is missing, it goes on."""
    document = begun()
    for _ in range(5):
        waiting = move(document, facts=Facts(ready=False))
        assert waiting.kind is Kind.WAIT
        assert waiting.waits
        document = move(document).document
    assert phase(document) == "baking"
    assert phase(move(document).document) == "promoted"


def test_after_promotion_the_way_back_is_there_and_known() -> None:
    """The version before is proved and stays loaded: a rollback goes to it in one step, from 100%."""
    document = onward(begun(), 6)
    assert (phase(document), document.status.known_good) == ("promoted", 4)
    document = transitions.rollback(document, to=3, reason="complaints", by="olga", at=9.0)
    assert set(split(document)) == {3}
    assert list(document.status.quarantined) == [4]


def test_a_rollback_is_one_step_from_any_weight() -> None:
    """It does not walk the weights back: the next request already goes to the known good, all of them."""
    for done in (2, 3, 4, 5):
        back = ended(onward(begun(), done))
        assert {arm.version for arm in back.status.split} == {3}
        assert {interval.version for interval in back.status.assignment.split} == {3}


def test_a_rollout_without_errors_in_the_baseline_is_judged_all_the_same() -> None:
    """Zero of ten thousand on one side divides nobody by zero; one in twenty on the other is harm."""
    rare = looked((400, 20), (8_000, 0))
    assert rare.verdict == HARMFUL
    assert looked((4_000, 0), (80_000, 0)).verdict == HEALTHY


def test_rare_errors_are_found() -> None:
    """From one in a thousand to one in a hundred, which a test of ranks does not see."""
    assert looked((6_000, 60), (114_000, 114), times=200).verdict == HARMFUL


def test_versions_are_compared_by_a_test_whose_error_is_kept_over_the_whole_rollout() -> None:
    """Harm is found at odds of one to ``alpha`` over all streams; the same rates on both arms never get there."""
    found = looked((2_000, 200), (38_000, 1_900))
    (error,) = (stream for stream in found.streams if stream.stream == "error")
    assert error.log_harm >= error.harm_threshold > 3.0
    assert looked((2_000, 100), (38_000, 1_900)).verdict != HARMFUL


def test_a_judgement_says_why() -> None:
    """Counts of both arms, the statistic beside its threshold, the interval, and what is still needed."""
    finding = finding_of(looked((400, 40), (7_600, 76)), plan())
    assert "40 of 400" in finding.reason
    assert "of 7600 of the known good" in finding.reason
    numbers = finding.detail["streams"]["error"]
    assert numbers["log_harm"] >= numbers["harm_threshold"]
    assert numbers["low"] < numbers["difference"] < numbers["high"]
    unsure = looked((60, 1), (1_140, 12))
    assert unsure.needed is None or unsure.needed > 0


def test_a_new_rollout_begins_with_nothing_against_its_candidate() -> None:
    """Evidence is kept under an id that no other rollout has, a fresh state holds none, and no step is inherited."""
    condemned, _ = judge(begin(POLICY), Block(1, {"split": 0.5}, tally("error", CANDIDATE, bad=90), 1.0), POLICY)
    assert begin(POLICY) != condemned
    aborted = steps.abort(onward(begun(), 3), by="olga", at=2.0)
    second = steps.start(aborted, plan(), DIGITS, name="4-b", by="olga", at=3.0).status.rollout
    assert second is not None
    assert (second.id, second.step, second.harm, second.marks[0].percent) == ("4-b", -1, "", 0.0)


def test_going_back_never_starts_a_third_version() -> None:
    """Of three arms, the target is the known good or what was proved before it: never what was rolled back itself."""
    document = onward(begun(), 6)
    back = transitions.rollback(document, to=3, reason="complaints", by="olga", at=9.0)
    assert targets(back) == (3,)
    assert faults(back) == []


def test_rollbacks_do_not_loop() -> None:
    """What went back is in quarantine: no rollout begins with it, no target names it, and it goes back once."""
    back = ended(onward(begun(), 3))
    with pytest.raises(Quarantined):
        steps.start(back, plan(), DIGITS, name="4-b", by="olga", at=9.0)
    assert 4 not in targets(back)
    with pytest.raises(Conflict):
        steps.running(back)


def test_weights_only_climb_so_traffic_does_not_flap_at_promotion() -> None:
    """From the first step to 100% the candidate's weight never falls, and no user is given back."""
    document = begun()
    held: list[set[int]] = []
    for _ in range(6):
        document = move(document).document
        places = range(0, 2**32, 2**32 // 5000)
        assignment = document.status.assignment.split
        held.append({place for place in places if assignment.at(place).version == 4})
    assert all(before <= after for before, after in pairwise(held))
    assert len(held[-1]) == len(range(0, 2**32, 2**32 // 5000))


def test_a_broken_split_blocks_promotion_whatever_the_metrics_say() -> None:
    """5% were asked for and 12% of the outcomes are the candidate's: no errors anywhere, and no step further."""
    judgement = looked((1_200, 0), (8_800, 0), share=0.05)
    finding = finding_of(judgement, plan(needs=["error"], shadow=None))
    assert judgement.ratio.broken
    assert not finding.harm
    blocked = move(onward(begun(needs=["error"], shadow=None), 1), finding)
    assert blocked.kind is Kind.WAIT
    assert any("splits as its weights say" in said for said in blocked.waits)
    with pytest.raises(Conflict, match="does not split"):
        steps.promote(onward(begun(), 2), finding, by="olga", at=2.0)
    assert not looked((500, 0), (9_500, 0), share=0.05).ratio.broken


def test_an_endless_night_ends_no_run_of_the_simulator_either() -> None:
    """Three users, none of whom falls to the candidate: unfinished is what it is called."""
    conduct = Conduct(PlanSpec.parse({"candidate": 2, "steps": [0.0001], "shadow": None}))
    (trials,) = swept(Sweep(conduct, Traffic(requests=2_000, keys=3), (World(0.01, 0.5),), runs=3))
    assert {run.end for run in trials[OURS]} == {UNFINISHED}
