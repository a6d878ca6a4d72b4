"""Equal requests share an answer or a computation, and never a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from gateway.clock import ManualClock
from gateway.errors import DeadlineExceeded, ModelError, QueueFull, TurnoutError
from gateway.messages import Arrays
from gateway.serving.answers import HASH_IN_THREAD_BYTES, Answers, CachedRoute
from gateway.serving.item import Answer, Priority
from tests.serving.stage import Remembering, spec, turns

DIGEST = spec().digest
OTHER = "sha256:" + "1" * 64


class Versions:
    """Computations that end when the test says so; ``asked`` holds each one's future."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.observer = Watching()
        self.answers = Answers(clock=self.clock, observer=self.observer)
        self.install()
        self.asked: list[asyncio.Future[Answer]] = []

    def install(self, *digests: str, max_bytes: int = 1 << 20, ttl_s: float | None = None) -> None:
        self.answers.install({"digits": CachedRoute(max_bytes, ttl_s, digests or (DIGEST,))})

    def ask(
        self,
        value: float = 1.0,
        *,
        digest: str = DIGEST,
        retry: bool = True,
        bypass: bool = False,
        deadline: float | None = None,
        priority: Priority = Priority.NORMAL,
        width: int = 4,
    ) -> asyncio.Task[Answer]:
        version = spec(retry=retry)
        inputs = {"x": np.full((1, width), value, np.float32)}

        async def compute() -> Answer:
            asked: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            self.asked.append(asked)
            return await asked

        asking = self.answers.ask(
            "digits",
            type(version)(version.ref, digest, version.load, retry=retry),
            inputs,
            compute,
            deadline=deadline,
            priority=priority,
            bypass=bypass,
        )
        return asyncio.ensure_future(asking)

    @property
    def outcomes(self) -> list[str]:
        return [outcome for _, outcome in self.observer.cache_outcomes]


class Watching(Remembering):
    def __init__(self) -> None:
        super().__init__()
        self.held: list[tuple[int, int]] = []
        self.total = 0

    def cache_changed(self, route: str, entries: int, held_bytes: int, evicted: int) -> None:
        self.held.append((entries, evicted))
        self.total += held_bytes


def answer(value: float = 7.0, count: int = 3) -> Answer:
    return Answer({"y": np.full((1, count), value, np.float32)}, 0.25, 0.5)


def first(outputs: Arrays) -> float:
    return float(outputs["y"][0, 0])


@pytest.fixture
async def versions() -> Versions:
    return Versions()


async def computed(versions: Versions, value: float = 1.0, result: float = 7.0, digest: str = DIGEST) -> None:
    asking = versions.ask(value, digest=digest)
    await turns()
    versions.asked.pop().set_result(answer(result))
    await asking


async def test_an_equal_request_gets_the_same_answer_without_a_computation(versions: Versions) -> None:
    """Whoever computed gets what was computed, as it was; who comes later gets a read-only copy, at no cost."""
    asking = versions.ask()
    await turns()
    original = answer()
    versions.asked[0].set_result(original)
    assert await asking is original
    again = await versions.ask()
    assert len(versions.asked) == 1
    assert (first(again.outputs), again.queue_s, again.compute_s) == (7.0, 0.0, 0.0)
    original.outputs["y"][:] = -1
    assert first((await versions.ask()).outputs) == 7.0
    assert not again.outputs["y"].flags.writeable
    assert versions.outcomes == ["miss", "hit", "hit"]
    assert versions.observer.held == [(1, 0)]
    assert versions.observer.total == versions.answers.statistics()["digits"].held_bytes
    assert repr(versions.answers).startswith("<Answers [1 routes | 1 entries | ")


async def test_other_inputs_and_other_versions_compute_for_themselves(versions: Versions) -> None:
    """The digest is part of the key."""
    versions.install(DIGEST, OTHER)
    await computed(versions, 1.0, result=3.0)
    await computed(versions, 2.0, result=4.0)
    await computed(versions, 1.0, result=5.0, digest=OTHER)
    assert first((await versions.ask(1.0)).outputs) == 3.0
    assert first((await versions.ask(1.0, digest=OTHER)).outputs) == 5.0
    assert versions.outcomes == ["miss"] * 3 + ["hit"] * 2


async def test_equal_requests_at_once_are_one_computation(versions: Versions) -> None:
    """The others wait for it, and say how long."""
    asking = [versions.ask() for _ in range(64)]
    await turns()
    assert len(versions.asked) == 1
    versions.clock.advance(0.5)
    versions.asked[0].set_result(answer())
    answers = await asyncio.gather(*asking)
    assert [first(one.outputs) for one in answers] == [7.0] * 64
    assert (answers[1].queue_s, answers[1].compute_s) == (0.5, 0.0)
    assert sorted(versions.outcomes) == ["joined"] * 63 + ["miss"]
    assert "0 under way" in repr(versions.answers)


async def test_a_failure_is_nobody_elses(versions: Versions) -> None:
    """Those who waited for it compute for themselves, side by side; nothing of it is kept."""
    asking = [versions.ask() for _ in range(4)]
    await turns()
    versions.asked[0].set_exception(ModelError("the model raised"))
    await turns()
    assert len(versions.asked) == 4
    for place, one in enumerate(versions.asked[1:]):
        one.set_result(answer(place))
    with pytest.raises(ModelError):
        await asking[0]
    assert [first((await one).outputs) for one in asking[1:]] == [0.0, 1.0, 2.0]
    assert versions.answers.statistics()["digits"].entries == 0
    assert versions.outcomes == ["miss"] * 4


async def test_one_of_those_who_wait_takes_the_place_of_a_client_that_left(versions: Versions) -> None:
    """The first of them computes, the others go on waiting: for it, not for the one that left."""
    asking = [versions.ask() for _ in range(4)]
    await turns()
    asking[0].cancel()
    await turns()
    assert len(versions.asked) == 2
    versions.asked[1].set_result(answer())
    assert [first((await one).outputs) for one in asking[1:]] == [7.0] * 3
    assert asking[0].cancelled()
    assert versions.outcomes == ["miss", "miss", "joined", "joined"]
    assert first((await versions.ask()).outputs) == 7.0


@pytest.mark.parametrize("failure", [DeadlineExceeded("late"), QueueFull("pushed out", retry_after_s=1.0)])
async def test_one_of_those_who_wait_takes_the_place_of_one_that_gave_up(
    versions: Versions, failure: TurnoutError
) -> None:
    """Its deadline, or its place in the queue, was its own: a hundred others need not compute a hundred times."""
    giving_up = versions.ask(deadline=1010.0)
    await turns()
    others = [*(versions.ask(deadline=1020.0) for _ in range(3)), versions.ask()]
    await turns()

    versions.asked[0].set_exception(failure)
    await turns()

    assert len(versions.asked) == 2
    versions.asked[1].set_result(answer())
    with pytest.raises(type(failure)):
        await giving_up
    assert [first((await other).outputs) for other in others] == [7.0] * 4


async def test_a_client_that_leaves_while_it_waits_takes_nobody_with_it(versions: Versions) -> None:
    """Its leader and its neighbours are answered."""
    asking = [versions.ask() for _ in range(3)]
    await turns()
    asking[1].cancel()
    await turns()
    versions.asked[0].set_result(answer())
    assert first((await asking[0]).outputs) == first((await asking[2]).outputs) == 7.0
    assert asking[1].cancelled()


@pytest.mark.parametrize("leader_deadline", [None, 1010.0])
async def test_who_waits_keeps_its_own_deadline(versions: Versions, leader_deadline: float | None) -> None:
    """A computation that was allowed more time must not cost a hurried request its answer in time."""
    leading = versions.ask(deadline=leader_deadline)
    await turns()
    hurried = versions.ask(deadline=1000.2)
    await turns()
    versions.clock.advance(0.2)
    with pytest.raises(DeadlineExceeded, match="equal request"):
        await hurried
    versions.asked[0].set_result(answer())
    assert first((await leading).outputs) == 7.0
    assert len(versions.asked) == 1


async def test_a_more_important_request_does_not_wait_for_a_less_important_one(versions: Versions) -> None:
    """It computes for itself, and whoever comes later waits for it; the other way round, waiting is right."""
    low = versions.ask(priority=Priority.LOW)
    await turns()
    high = versions.ask(priority=Priority.HIGH)
    normal = versions.ask()
    await turns()
    assert len(versions.asked) == 2
    versions.asked[1].set_result(answer(9.0))
    assert first((await high).outputs) == first((await normal).outputs) == 9.0
    versions.asked[0].set_result(answer(8.0))
    assert first((await low).outputs) == 8.0


@pytest.mark.parametrize("how", ["asked for", "effects", "not cached", "not allowed"])
async def test_what_must_be_computed_is_computed_and_not_kept(versions: Versions, how: str) -> None:
    """By the client's wish, for a version whose effects must not repeat, and for a version without a shelf."""
    if how == "not cached":
        versions.answers.install({})
    elif how == "not allowed":
        versions.install(OTHER)
    for _ in range(2):
        asking = versions.ask(bypass=how == "asked for", retry=how != "effects")
        await turns()
        versions.asked.pop().set_result(answer())
        assert first((await asking).outputs) == 7.0
    assert versions.outcomes == ["bypass"] * 2
    assert all(held.entries == 0 for held in versions.answers.statistics().values())


async def test_a_version_that_is_taken_off_leaves_nothing_behind(versions: Versions) -> None:
    """Neither what was kept nor what was under way then; back on the route, it starts afresh."""
    await computed(versions, 1.0)
    late = versions.ask(2.0)
    await turns()
    versions.install(OTHER)
    versions.asked.pop().set_result(answer())
    assert first((await late).outputs) == 7.0
    versions.install(DIGEST)
    for value in (1.0, 2.0):
        await computed(versions, value, result=9.0)
    assert versions.outcomes == ["miss"] * 4
    assert versions.observer.held == [(1, 0), (-1, 0), (1, 0), (1, 0)]
    versions.answers.install({})
    assert versions.observer.held[-1] == (-2, 0)
    assert versions.observer.total == 0


async def test_a_cache_whose_bounds_change_starts_empty_and_others_stay(versions: Versions) -> None:
    """The same bounds again change nothing."""
    await computed(versions)
    versions.install()
    assert versions.answers.statistics()["digits"].entries == 1
    versions.install(max_bytes=1 << 21)
    assert versions.answers.statistics()["digits"].entries == 0
    await computed(versions)
    versions.install(max_bytes=1 << 21, ttl_s=5.0)
    await computed(versions)
    versions.clock.advance(5.0)
    await computed(versions)
    assert versions.outcomes == ["miss"] * 4


async def test_an_answer_too_large_to_keep_is_still_shared_with_those_who_wait(versions: Versions) -> None:
    """They get a copy; who comes later computes."""
    versions.install(max_bytes=64 * 1024)
    asking = [versions.ask() for _ in range(2)]
    await turns()
    versions.asked[0].set_result(answer(count=5000))
    assert [first((await one).outputs) for one in asking] == [7.0] * 2
    assert versions.answers.statistics()["digits"].entries == 0
    assert sorted(versions.outcomes) == ["joined", "miss"]


async def test_large_inputs_are_hashed_beside_the_loop_with_the_same_key(versions: Versions) -> None:
    """A megabyte takes half a millisecond, in which others want to be served."""
    width = HASH_IN_THREAD_BYTES // 4 + 1
    asking = versions.ask(width=width)
    while not versions.asked:
        await asyncio.wait({asking}, timeout=0.01)
    versions.asked[0].set_result(answer())
    await asking
    assert first((await versions.ask(width=width)).outputs) == 7.0
    assert versions.outcomes == ["miss", "hit"]


async def test_evictions_are_told(versions: Versions) -> None:
    """Who sees many of them gives the cache more room."""
    versions.install(max_bytes=64 * 1024)
    entry: Callable[[float], Answer] = lambda value: answer(value, count=1800)  # noqa: E731
    for number in range(10):
        asking = versions.ask(number)
        await turns()
        versions.asked.pop().set_result(entry(number))
        await asking
    assert versions.answers.statistics()["digits"].evicted == 2
    assert versions.observer.held[-3:] == [(1, 0), (0, 1), (0, 1)]
    assert versions.observer.total == versions.answers.statistics()["digits"].held_bytes
