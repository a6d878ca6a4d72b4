"""The collector: whose outcome counts, once for each key, and what becomes of it while the coordination is away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.control.collector import MAX_WAITING, Collector
from gateway.control.coordination import Alone
from gateway.control.evidence import begin, judge
from gateway.control.start_order import LEAST_HOLD_S
from gateway.control.verdicts import Block, Policy, StreamPolicy
from gateway.control.watches import ScoreRange, Watch
from gateway.errors import StoreUnavailable
from gateway.events.records import RequestRecord, ShadowRecord
from gateway.messages import Decision, VersionRef

OLD, NEW, OTHER = (VersionRef("digits", number) for number in (1, 2, 3))
WATCH = Watch("digits/r1", 4, NEW, OLD)
PATIENCE_S = 0.5


class Faulty(Alone):
    """Away when told so."""

    away = False

    async def claim(self, scope: str, places: Sequence[int]) -> Sequence[bool]:
        if self.away:
            raise StoreUnavailable("the coordination is away")
        return await super().claim(scope, places)


class Scene:
    def __init__(self, home: Path) -> None:
        self.watches = {"digits": WATCH}
        self.clock = ManualClock()
        self.coordination = Faulty(home, self.clock)
        self.collector = Collector(
            coordination=self.coordination, watches=lambda: self.watches, clock=self.clock, patience_s=PATIENCE_S
        )
        self.collector.table_applied(1)

    async def counted(self, epoch: int = 4, *, slow: bool = False) -> dict[str, int]:
        """Of slow answers, or of all else."""
        self.clock.advance(LEAST_HOLD_S)
        await self.collector.tick()
        return streams(await self.collector.gather("digits/r1", epoch), slow=slow)


def streams(counters: Mapping[str, int], *, slow: bool = False) -> dict[str, int]:
    return {name: count for name, count in counters.items() if name.split("/")[-5].startswith("slow") == slow}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def finished(
    place: int | None,
    version: VersionRef = NEW,
    *,
    failure: str | None = None,
    error: str | None = None,
    epoch: int = 4,
    route: str = "digits",
    reason: str = "split",
    queue_s: float = 0.0,
    batch: int = 1,
    answered_by: VersionRef | None = None,
    took_s: float = 0.1,
) -> RequestRecord:
    return RequestRecord(
        route=route,
        request_id="r",
        decision_id="d",
        decision=Decision(route, version, reason, place, 1, epoch),
        answered_by=answered_by or version,
        code=200,
        chosen_failure=failure,
        error=error,
        rows=1,
        started_wall=0.0,
        duration_s=took_s,
        queue_s=queue_s,
        compute_s=0.004,
        batch=batch,
        batch_rows=3,
    )


def place(number: int) -> int:
    """Of a key of its own: claims tell 2^24 places apart."""
    return number << 8


async def test_the_first_outcome_of_a_key_is_its_versions(scene: Scene) -> None:
    """Each key once, for the version that the split chose, also when a fallback answered."""
    tell = scene.collector.requests_finished
    tell([finished(place(1))])
    tell([finished(place(1), failure="ModelError", error="ModelError")])
    tell([finished(place(2), failure="ModelError", answered_by=OLD)])
    tell([finished(place(3), OLD)])
    assert await scene.counted() == {
        "error/split/fresh/candidate/good": 1,
        "error/split/fresh/candidate/bad": 1,
        "error/split/fresh/baseline/good": 1,
    }
    tell([finished(place(3), OLD)])
    assert (await scene.counted())["error/split/fresh/baseline/good"] == 1


async def test_of_two_requests_of_a_key_the_one_that_began_first_counts_though_it_is_told_of_later(
    scene: Scene,
) -> None:
    """Two web workers had them: one tells of its failure at once, the other of what went well when more has gathered.
    Else a key's failures would come before its answers, and by so much the version with more failures seem worse."""
    began = scene.clock.wall()
    well = finished(place(1), took_s=0.01)._replace(started_wall=began)
    failed = finished(place(1), failure="ModelError", took_s=0.01)._replace(started_wall=began + 0.03)
    scene.clock.advance(0.05)
    scene.collector.requests_finished([failed])
    scene.clock.advance(0.03)
    scene.collector.requests_finished([well])
    assert await scene.counted() == {"error/split/fresh/candidate/good": 1}


@pytest.mark.parametrize("set_s", [3600.0, -3600.0])
async def test_an_outcome_counts_when_the_clock_was_set_while_it_was_on_its_way(scene: Scene, set_s: float) -> None:
    """It is taken to have ended when it is told of."""
    record = finished(place(1), took_s=0.01)._replace(started_wall=scene.clock.wall())
    scene.clock.jump_wall(set_s)
    scene.collector.requests_finished([record])
    assert await scene.counted() == {"error/split/fresh/candidate/good": 1}


async def test_what_says_nothing_of_the_two_versions_is_nobodys_outcome(scene: Scene) -> None:
    """Refused at the door, left by its client, bad input, a deadline that left no time, a pin, another version, another
    route, another epoch, or not loaded here."""
    for number, record in enumerate(
        [
            finished(place(10), error="QueueFull"),
            finished(place(11), error="InvalidInput"),
            finished(place(12), error="CancelledError"),
            finished(place(13), error="DeadlineExceeded", queue_s=0.1),
            finished(None, reason="pin"),
            finished(place(14), OTHER),
            finished(place(15), route="other"),
            finished(place(16), epoch=3),
            finished(place(17), failure="VersionUnavailable", error="VersionUnavailable"),
        ]
    ):
        scene.collector.requests_finished([record])
        assert await scene.counted() == {}, number


async def test_time_that_it_had_and_backing_off_after_a_crash_are_its_own_doing(scene: Scene) -> None:
    """As the guard sees it."""
    scene.collector.version_crashed(NEW, "crash", False)
    scene.collector.requests_finished([finished(place(1), error="DeadlineExceeded", queue_s=PATIENCE_S)])
    scene.collector.requests_finished([finished(place(2), failure="VersionUnavailable", error="VersionUnavailable")])
    assert await scene.counted() == {"error/split/fresh/candidate/bad": 2}


async def test_a_batch_counts_once_and_by_its_rows(scene: Scene) -> None:
    """Two keys of one batch have one time between them; a kept answer, and a fallback's, has none."""
    for number in (1, 2):
        scene.collector.requests_finished([finished(place(number), batch=7)])
    scene.collector.requests_finished([finished(place(3), batch=0)])
    scene.collector.requests_finished([finished(place(4), failure="ModelError", batch=8, answered_by=OLD)])
    assert await scene.counted(slow=True) == {"slow/rows-4/fresh/candidate/70": 1}


async def test_an_answer_that_was_kept_is_no_versions_outcome(scene: Scene) -> None:
    """It cannot fail, and the arm with more traffic has more of them: it tells of the split, and nobody's errors."""
    for number in range(10):
        scene.collector.requests_finished([finished(place(number), OLD, batch=0)])
    scene.collector.requests_finished([finished(place(20), NEW, failure="ModelError", error="ModelError")])
    counted = await scene.counted()
    assert counted == {"error/split/fresh/baseline/kept": 10, "error/split/fresh/candidate/bad": 1}
    assert await scene.counted(slow=True) == {}
    policy = Policy(streams=(StreamPolicy("error", 0.02),))
    _, judgement = judge(begin(policy), Block(4, {"split": 0.05}, counted), policy)
    assert judgement.streams[0].baseline.units == judgement.epoch_baseline == 0
    assert judgement.streams[0].log_harm <= 0.0
    assert judgement.ratio.seen == pytest.approx(1 / 11)


async def test_a_rule_with_a_split_is_a_stratum_of_its_own(scene: Scene) -> None:
    """Its callers are others, and its shares too."""
    scene.collector.requests_finished([finished(place(1), reason="rule:beta")])
    assert await scene.counted() == {"error/rule:beta/fresh/candidate/good": 1}


async def test_a_key_that_returns_in_a_later_epoch_is_no_fresh_one(scene: Scene) -> None:
    """It counts for that epoch alone; what was counted in the one before stays as it was."""
    scene.collector.requests_finished([finished(place(1))])
    await scene.counted()
    scene.watches = {"digits": Watch("digits/r1", 5, NEW, OLD)}
    scene.collector.table_applied(2)
    scene.collector.requests_finished([finished(place(1), epoch=5)])
    scene.collector.requests_finished([finished(place(2), epoch=5)])
    assert await scene.counted(5) == {"error/split/again/candidate/good": 1, "error/split/fresh/candidate/good": 1}
    assert await scene.counted(4) == {"error/split/fresh/candidate/good": 1}


async def test_pairs_of_answers_count_against_the_candidate_alone(scene: Scene) -> None:
    """Both ways round; a candidate that fails as a shadow differs, a known good that fails says nothing."""
    pairs = [(OLD, NEW, "agrees"), (NEW, OLD, "differs"), (OLD, NEW, "failed"), (NEW, OLD, "failed")]
    pairs += [(OLD, NEW, "dropped"), (OLD, OTHER, "differs")]
    for number, (answered, shadow, outcome) in enumerate(pairs):
        scene.collector.shadow_compared(ShadowRecord("digits", 4, place(number), answered, shadow, outcome, 1))
    assert await scene.counted() == {
        "disagreement/all/fresh/candidate/good": 1,
        "disagreement/all/fresh/candidate/bad": 2,
    }


async def test_labels_and_scores_come_later(scene: Scene) -> None:
    """For the version that answered then; of a route without a rollout they are of no use."""
    judged(scene, 4)
    assert scene.collector.label("digits", place(1), NEW, wrong=True)
    assert scene.collector.label("digits", place(1), NEW, wrong=False)
    assert scene.collector.score("digits", place(1), OLD, 5.0, of="error")
    assert scene.collector.score("digits", place(1), OLD, 1.0, of="error")
    assert not scene.collector.label("other", place(1), NEW, wrong=True)
    assert not scene.collector.label("digits", place(2), OTHER, wrong=True)
    assert not scene.collector.score("digits", place(2), OTHER, 5.0, of="error")
    assert await scene.counted() == {
        "label/split/fresh/candidate/bad": 1,
        "score/split/fresh/baseline/units": 1,
        "score/split/fresh/baseline/sum": 5_000,
        "score/split/fresh/baseline/squares": 25_000_000,
    }


async def test_a_score_counts_where_the_plan_judges_by_its_kind(scene: Scene) -> None:
    """Within the plan's range; of another kind, or where the plan has none, it uses up no key."""
    assert not scene.collector.score("digits", place(1), NEW, 3.0, of="error")
    judged(scene, 5)
    assert not scene.collector.score("digits", place(1), NEW, 3.0, of="grade")
    assert not scene.collector.score("digits", place(2), NEW, 3.0, of="error", epoch=3)
    assert scene.collector.score("digits", place(1), NEW, 70.0, of="error", epoch=4, split="rule:beta")
    assert scene.collector.score("digits", place(3), NEW, 0.0, of="error", epoch=5)
    assert await scene.counted(5) == {
        "score/rule:beta@4/fresh/candidate/units": 1,
        "score/rule:beta@4/fresh/candidate/sum": 0,
        "score/rule:beta@4/fresh/candidate/squares": 0,
        "score/split/fresh/candidate/units": 1,
        "score/split/fresh/candidate/sum": 10_000,
        "score/split/fresh/candidate/squares": 100_000_000,
    }


def judged(scene: Scene, epoch: int) -> None:
    """By errors from ten down to nothing."""
    scene.watches = {"digits": Watch("digits/r1", epoch, NEW, OLD, ScoreRange("error", 10.0, 0.0))}
    scene.collector.table_applied(2)


async def test_a_label_of_an_earlier_epochs_answer_counts_now_and_apart(scene: Scene) -> None:
    """The weights have changed since: its keys are another mixture. What came before the rollout is nobody's."""
    label = scene.collector.label
    assert label("digits", place(1), NEW, wrong=True, epoch=4)
    assert not label("digits", place(2), OLD, wrong=True, epoch=3)
    assert await scene.counted() == {"label/split/fresh/candidate/bad": 1}
    scene.watches["digits"] = Watch("digits/r1", 5, NEW, OLD)
    scene.collector.table_applied(2)
    assert label("digits", place(3), OLD, wrong=False, epoch=4)
    assert label("digits", place(4), OLD, wrong=False, epoch=5)
    assert label("digits", place(1), NEW, wrong=True, epoch=4)
    assert not label("digits", place(5), OLD, wrong=False, epoch=6)
    assert await scene.counted(5) == {
        "label/split@4/fresh/baseline/good": 1,
        "label/split/fresh/baseline/good": 1,
        "label/split@4/again/candidate/bad": 1,
    }


async def test_a_label_counts_with_the_other_arms_of_the_same_while(scene: Scene) -> None:
    """However late they come; the second of a key stands for nobody. Where the split gives one arm alone keys, there is
    nothing to wait for."""
    scene.watches["digits"] = Watch("digits/r1", 4, NEW, OLD, shares={"split": 0.5})
    scene.collector.table_applied(2)
    label = scene.collector.label
    assert label("digits", place(1), OLD, wrong=True, epoch=4, age_s=60.0)
    assert label("digits", place(1), OLD, wrong=True, epoch=4, age_s=60.0)
    assert label("digits", place(2), OLD, wrong=False, epoch=4, age_s=60.0)
    assert label("digits", place(3), NEW, wrong=False, epoch=4, split="rule:all", age_s=60.0)
    assert await scene.counted() == {"label/rule:all/fresh/candidate/good": 1}
    assert scene.collector.statistics().unpaired == 2
    scene.clock.advance(240.0)
    assert label("digits", place(4), NEW, wrong=False, epoch=4, age_s=300.0)
    assert await scene.counted() == {
        "label/rule:all/fresh/candidate/good": 1,
        "label/split/fresh/candidate/good": 1,
        "label/split/fresh/baseline/bad": 1,
    }


async def test_a_label_that_waited_while_the_weights_changed_counts_apart(scene: Scene) -> None:
    """With those of answers of its epoch; when the rollout ends, none is left."""
    scene.watches["digits"] = Watch("digits/r1", 4, NEW, OLD, shares={"split": 0.1})
    scene.collector.table_applied(2)
    label = scene.collector.label
    assert label("digits", place(1), NEW, wrong=True, epoch=4, age_s=1.0)
    scene.watches["digits"] = Watch("digits/r1", 5, NEW, OLD, shares={"split": 0.5})
    scene.collector.table_applied(2)
    assert label("digits", place(2), OLD, wrong=False, epoch=5, age_s=1.0)
    assert label("digits", place(3), OLD, wrong=False, epoch=4, age_s=1.0)
    assert await scene.counted(5) == {
        "label/split@4/fresh/candidate/bad": 1,
        "label/split@4/fresh/baseline/good": 1,
    }
    assert scene.collector.statistics().unpaired == 1
    scene.watches = {}
    scene.collector.table_applied(3)
    assert scene.collector.statistics().unpaired == 0


async def test_outcomes_wait_while_the_coordination_is_away(scene: Scene) -> None:
    """Nothing is lost within the limit, and nothing counts twice."""
    scene.coordination.away = True
    scene.collector.requests_finished([finished(place(1))])
    assert await scene.counted() == {}
    scene.collector.requests_finished([finished(place(2), OLD)])
    assert scene.collector.statistics().waiting == 2
    scene.coordination.away = False
    assert await scene.counted() == {"error/split/fresh/candidate/good": 1, "error/split/fresh/baseline/good": 1}
    assert repr(scene.collector) == "<Collector [1 watched | 0 waiting | 0 lost]>"


async def test_outcomes_count_in_the_order_in_which_their_requests_began(scene: Scene) -> None:
    """A baseline's that began with a slow candidate's is counted with it, not before, however soon it was known."""
    scene.collector.requests_finished([finished(place(1), took_s=2.0)])
    scene.clock.advance(10.0)
    await scene.collector.tick()
    scene.collector.requests_finished([finished(place(2), OLD, took_s=0.01)])
    scene.clock.advance(1.9)
    scene.collector.requests_finished([finished(place(3), took_s=1.91)])
    await scene.collector.tick()
    assert streams(scene.collector.local("digits/r1", 4)) == {"error/split/fresh/candidate/good": 1}
    scene.clock.advance(1.1)
    await scene.collector.tick()
    assert streams(scene.collector.local("digits/r1", 4)) == {
        "error/split/fresh/candidate/good": 2,
        "error/split/fresh/baseline/good": 1,
    }


async def test_past_the_limit_all_that_wait_are_lost_together(scene: Scene) -> None:
    """Those of both arms, so that what comes after is still a fair draw; memory stays bounded."""
    scene.coordination.away = True
    record = finished(place(1))
    for number in range(MAX_WAITING + 10):
        scene.collector.requests_finished([record])
        if number % 40_000 == 0:
            await scene.collector.tick()
    statistics = scene.collector.statistics()
    assert statistics.lost == MAX_WAITING
    assert statistics.waiting == 10


async def test_a_rollout_that_has_ended_leaves_nothing_behind(scene: Scene) -> None:
    """Its claims are forgotten, so that another rollout of the name begins anew."""
    scene.collector.requests_finished([finished(place(1))])
    await scene.counted()
    scene.watches = {}
    await scene.collector.tick()
    assert scene.collector.local("digits/r1", 4) == {}
    assert list(await scene.coordination.claim("digits/r1/keys", [place(1)])) == [True]
    scene.collector.requests_finished([finished(place(2))])
    assert scene.collector.statistics().waiting == 0


async def test_it_publishes_what_is_left_when_it_closes(scene: Scene) -> None:
    """The last fifth of a second of a replica is evidence too."""
    scene.collector.start()
    scene.collector.requests_finished([finished(place(1))])
    await scene.collector.close()
    assert streams(await scene.coordination.gather("digits/r1")) == {"4/error/split/fresh/candidate/good": 1}
