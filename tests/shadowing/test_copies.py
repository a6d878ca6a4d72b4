"""Copies for shadows: taken once a client has its answer, run from what is spare, and never felt by anybody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import numpy as np
import pytest

from gateway.dataplane import Current, Dataplane, Decode, Trail
from gateway.errors import InvalidInput, ModelError, VersionCrashed, VersionHung
from gateway.events.records import ShadowRecord
from gateway.messages import Array, Arrays, InferRequest, InferResponse, Signature, TensorSpec, VersionRef
from gateway.routing.decide import decide
from gateway.routing.table import Arm, CachePolicy, Limits, Route, RoutingTable, Shadow
from gateway.serving.engine import BatchPolicy
from gateway.serving.handle import Handle
from gateway.serving.scripted_engine import double
from gateway.shadowing.copies import RETRY_S, Shadowing
from gateway.shadowing.lines import MOST_WAITING, TOGETHER, Line
from tests.serving.stage import Stage, first_column, rows, turns, until

MAIN, SHADOW, OTHER = (VersionRef("digits", number) for number in (3, 4, 5))
ALL = (Shadow(4, 1.0),)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Stage() as stage:
        yield stage


class House:
    """A data plane with versions 3 and 4 of one route; 4 is the shadow of 3."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.plane = Dataplane(observer=stage.observer, clock=stage.clock)
        self.handles: dict[VersionRef, Handle] = {}
        self.decoded: list[Signature] = []

    async def open(self, *refs: VersionRef, **fields: object) -> None:
        for ref in refs or (MAIN, SHADOW):
            self.handles[ref] = await self.stage.active(ref, **fields)

    def install(self, *arms: tuple[int, int], shadows: tuple[Shadow, ...] = ALL, **fields: object) -> Route:
        weighted = tuple(Arm(version, weight) for version, weight in arms or ((3, 100),))
        route = Route("digits", "digits", weighted, shadows=shadows, **fields)  # type: ignore[arg-type]
        self.plane.install(Current(RoutingTable({"digits": route}, "digits", 1), dict(self.handles)))
        return route

    def ask(self, *values: float, decode: Decode | None = None, **fields: object) -> asyncio.Task[InferResponse]:
        def typed(signature: Signature) -> tuple[Arrays, int]:
            self.decoded.append(signature)
            return rows(*values), len(values)

        asked = InferRequest("digits", "r", "d", None, **fields)  # type: ignore[arg-type]
        return asyncio.ensure_future(self.plane.infer(asked, decode or typed, Trail()))

    @property
    def outcomes(self) -> list[str]:
        return [record.outcome for record in self.stage.observer.shadows]

    def ran(self, ref: VersionRef = SHADOW) -> list[tuple[int, ...]]:
        return self.stage.script(ref).runs


@pytest.fixture
async def house(stage: Stage) -> House:
    house = House(stage)
    await house.open()
    house.install()
    return house


def triple(inputs: Arrays) -> Arrays:
    return {"y": np.asarray(inputs["x"]) * 3}


async def test_a_copy_is_run_when_the_client_has_its_answer_and_the_two_are_compared(house: House):
    """Never before: the shadow has not been asked when the answer is there."""
    asked_before: list[int] = []
    asking = house.ask(1, 2, key="k")
    asking.add_done_callback(lambda _: asked_before.append(len(house.ran())))
    response = await asking
    await until(lambda: house.outcomes)
    assert asked_before == [0]
    assert house.ran() == [(2,)]
    decision = response.decision
    [record] = house.stage.observer.shadows
    said = ShadowRecord("digits", decision.epoch, decision.bucket, MAIN, SHADOW, "agrees", 2)
    said = said._replace(batch=record.batch, queue_s=record.queue_s, compute_s=record.compute_s)
    assert record == said._replace(ended_wall=record.ended_wall, decision_id="d")
    [ran] = [batch for batch in house.stage.observer.batches if batch.version == SHADOW]
    assert (record.batch, record.compute_s) == (ran.batch, ran.compute_s)
    assert house.handles[SHADOW].statistics().leases == 0
    assert repr(house.plane.shadowing) == "<Shadowing [0 waiting | 0 under way | 0 bytes]>"


async def test_an_answer_that_differs_says_by_how_much(house: House):
    """The client's answer stays what it was."""
    house.stage.script(SHADOW).model = triple
    assert first_column((await house.ask(1, 5)).outputs) == [2.0, 10.0]
    await until(lambda: house.outcomes)
    [record] = house.stage.observer.shadows
    assert (record.outcome, record.difference) == ("differs", 5.0)


async def test_a_tolerance_of_the_route_decides_what_is_a_difference(house: House):
    """The same answers, compared more generously."""
    house.stage.script(SHADOW).model = triple
    house.install(tolerance=1.0)
    await house.ask(5)
    await until(lambda: house.outcomes)
    assert house.outcomes == ["agrees"]


@pytest.mark.parametrize("share", [0.1, 0.5])
async def test_a_share_of_the_requests_is_copied(house: House, share: float):
    """Drawn by lot, one request at a time."""
    house.install(shadows=(Shadow(4, share),))
    for _ in range(1000):
        await house.ask(1)
    await until(lambda: not house.plane.shadowing.statistics().under_way)
    spread = 6 * (1000 * share * (1 - share)) ** 0.5
    assert 1000 * share - spread < len(house.outcomes) < 1000 * share + spread


async def test_a_rollout_copies_both_ways(house: House):
    """What each of two versions answered goes to the other; and nothing is copied to the version that answered."""
    house.install((3, 50), (4, 50), shadows=(Shadow(3, 1.0, of=4), Shadow(4, 1.0, of=3)))
    answered = [(await house.ask(1, key=f"k{number}")).decision.version for number in range(40)]
    await until(lambda: len(house.outcomes) == 40)
    pairs = [(record.answered, record.shadow) for record in house.stage.observer.shadows]
    assert {*pairs} == {(MAIN, SHADOW), (SHADOW, MAIN)}
    assert sorted(pair[0] for pair in pairs) == sorted(answered)


async def test_a_version_that_is_a_shadow_twice_gets_one_copy(house: House):
    """By the operator's word and by a rollout's."""
    house.install(shadows=(Shadow(4, 1.0), Shadow(4, 1.0, of=3)))
    await house.ask(1)
    await turns()
    assert house.outcomes == ["agrees"]


def _refuses(inputs: Arrays) -> Arrays:
    raise InvalidInput("out of range")


def _raises(inputs: Arrays) -> Arrays:
    raise ModelError("the model raised")


def _crashes(inputs: Arrays) -> Arrays:
    raise VersionCrashed("signal 11")


def _hangs(inputs: Arrays) -> Arrays:
    raise VersionHung("no answer within 0.6 s")


@pytest.mark.parametrize("model", [_refuses, _raises, _crashes, _hangs])
async def test_a_shadow_that_fails_fails_alone(house: House, model: Callable[[Arrays], Arrays]):
    """The client has its answer; nobody falls back; the outcome is told."""
    house.stage.script(SHADOW).model = model
    assert (await house.ask(1)).decision.version == MAIN
    await until(lambda: house.outcomes)
    assert house.outcomes == ["failed"]
    assert (house.stage.observer.requests, house.stage.observer.fallbacks) == ([], [])


async def test_a_copy_that_kills_is_not_run_again_and_the_next_ones_are_spared(house: House):
    """Clients of that version wait for its child: one death is enough to know, and the next is a second away."""
    house.install((3, 99), (4, 1))
    runs: list[float] = []

    def poisoned(inputs: Arrays) -> Arrays:
        if inputs["x"][0, 0] == 7:
            runs.append(7)
            raise VersionCrashed("signal 11")
        return double(inputs)

    house.stage.script(SHADOW).model = poisoned
    for _ in range(3):
        await house.ask(7, key="k")
        await turns()
    assert runs == [7]
    assert house.outcomes == ["failed", "dropped", "dropped"]
    assert [crash[0] for crash in house.stage.observer.crashes] == [SHADOW], "its death is known"
    house.stage.clock.advance(1.1)
    await turns()
    await house.ask(1, key="k")
    await turns()
    assert house.outcomes[3:] == ["agrees"]


async def test_a_slow_shadow_keeps_nobody_waiting_and_is_said_to_fail(house: House):
    """It had the route's time-out, and an engine to itself."""
    house.install(limits=Limits(timeout_ms=100))
    house.stage.script(SHADOW).hold()
    assert first_column((await house.ask(1)).outputs) == [2.0]
    await until(lambda: house.stage.script(SHADOW).running)
    for _ in range(5):
        await house.ask(1)
    await turns()
    house.stage.clock.advance(0.2)
    await turns()
    assert sorted(house.outcomes) == ["dropped"] * 5 + ["failed"]
    assert house.plane.inflight == 0


async def test_a_version_that_also_answers_gets_one_copy_at_a_time_and_only_while_it_is_idle(house: House):
    """A batch that runs cannot be stopped: whoever comes waits for one copy at most, and goes before all others."""
    house.install((3, 50), (4, 50), shadows=(Shadow(4, 1.0, of=3),))
    gate = house.stage.script(SHADOW).hold()
    copied = [key for key in (f"k{number}" for number in range(30)) if house_picks(house, key) == MAIN][:5]
    theirs = [key for key in (f"k{number}" for number in range(30)) if house_picks(house, key) == SHADOW][:2]
    for key in copied:
        await house.ask(1, key=key)
    await until(lambda: house.stage.script(SHADOW).running)
    clients = [house.ask(1, 2, key=key) for key in theirs]
    await turns()
    assert house.plane.shadowing.statistics().under_way == 1
    gate.set()
    await asyncio.gather(*clients)
    assert house.ran()[:2] == [(1,), (2, 2)], "the copy that ran already, then both clients"
    house.stage.clock.advance(0.01)
    await until(lambda: len(house.outcomes) == 5)
    assert house.ran()[2:] == [(1,)] * 4
    assert house.outcomes == ["agrees"] * 5


def house_picks(house: House, key: str) -> VersionRef:
    return decide(house.plane.current.table, InferRequest("digits", "r", "d", None, key=key)).version


async def test_a_version_without_other_work_gets_copies_in_batches(house: House):
    """But no more at once than a line may have under way."""
    gate = house.stage.script(SHADOW).hold()
    await house.ask(1)
    await until(lambda: house.stage.script(SHADOW).running)
    for _ in range(TOGETHER + 10):
        await house.ask(1)
    await turns()
    now = house.plane.shadowing.statistics()
    assert (now.under_way, now.waiting) == (TOGETHER, 11)
    gate.set()
    await until(lambda: len(house.outcomes) == TOGETHER + 11)
    assert house.ran()[:2] == [(1,), (1,) * (TOGETHER - 1)]


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
async def test_copies_wait_while_a_client_waits_for_the_same_device(stage: Stage, device: str):
    """What computes for nobody would take the processor from what a client waits for. Another device is another's."""
    house = House(stage)
    stage.script(OTHER).device = device
    await house.open(MAIN, SHADOW, OTHER)
    house.install()
    gate = stage.script(OTHER).hold()
    busy = house.handles[OTHER]
    items = [busy.submit(rows(1), 1, None)]
    await until(lambda: stage.script(OTHER).running)
    items.append(busy.submit(rows(1), 1, None))
    await house.ask(1)
    await turns()
    assert house.outcomes == ([] if device == "cpu" else ["agrees"])
    gate.set()
    await asyncio.gather(*(item.future for item in items))
    stage.clock.advance(0.01)
    await until(lambda: house.outcomes == ["agrees"])


@pytest.mark.parametrize(("cores", "others"), [(1, 1), (2, 1), (4, 3)])
async def test_a_core_is_left_to_the_loop_and_one_to_each_version_at_work(stage: Stage, cores: int, others: int):
    """A version that computes without a queue has a core, too: a copy waits until there is one left for it."""
    house = House(stage)
    refs = [VersionRef("busy", number) for number in range(others)]
    house.plane.shadowing = Shadowing(clock=stage.clock, observer=stage.observer, cores=cores)
    await house.open(MAIN, SHADOW, *refs)
    house.install()
    gates, items = [], []
    for ref in refs:
        gates.append(stage.script(ref).hold())
        items.append(house.handles[ref].submit(rows(1), 1, None))
    await until(lambda: all(stage.script(ref).running for ref in refs))
    await house.ask(1)
    await turns()
    assert house.outcomes == []
    gates[0].set()
    await items[0].future
    stage.clock.advance(0.01)
    await until(lambda: house.outcomes == ["agrees"])
    for gate in gates:
        gate.set()


async def test_under_a_flood_copies_are_dropped_and_no_client_is_refused(house: House):
    """A full queue, a held engine: every client is answered in the end, every copy is counted."""
    house.install((3, 50), (4, 50), shadows=(Shadow(3, 1.0), Shadow(4, 1.0)), limits=Limits(timeout_ms=60_000))
    gates = [house.stage.script(ref).hold() for ref in (MAIN, SHADOW)]
    clients = [house.ask(1, key=f"k{number}") for number in range(400)]
    await turns()
    for gate in gates:
        gate.set()
    answers = await asyncio.gather(*clients)
    assert len(answers) == 400
    assert house.stage.observer.rejections == []
    house.stage.clock.advance(61)
    await until(lambda: len(house.outcomes) == 400)
    assert "dropped" in house.outcomes


async def test_what_waits_is_bounded_in_number_and_in_bytes(house: House):
    """The rest is dropped at once; what was held is let go."""
    house.stage.script(SHADOW).hold()
    await house.ask(1)
    await until(lambda: house.stage.script(SHADOW).running)
    for _ in range(MOST_WAITING + TOGETHER + 9):
        await house.ask(1)
        await turns(2)
    assert house.outcomes == ["dropped"] * 10
    house.plane.drain()
    assert house.plane.shadowing.statistics().held_bytes == 0
    assert house.plane.shadowing.statistics().waiting == 0


async def test_a_copy_too_large_for_the_routes_memory_is_dropped(house: House):
    """Megabytes of inputs must not pile up behind a slow shadow."""
    wide = np.zeros((1, 3 * 1024 * 1024), np.float32)
    house.stage.script(SHADOW).hold()
    for _ in range(6):
        await house.ask(decode=lambda _: ({"x": wide}, 1))
        await turns(3)
    assert house.plane.shadowing.statistics().held_bytes < 64 * 1024 * 1024
    assert house.outcomes.count("dropped") >= 3


async def test_a_large_answer_is_compared_off_the_loop(house: House):
    """The outcome is the same."""
    wide = np.ones((1, 1024 * 1024), np.float32)
    house.stage.script(SHADOW).model = triple
    await house.ask(decode=lambda _: ({"x": wide}, 1))
    await turns()
    await asyncio.get_running_loop().shutdown_default_executor()  # returns when its threads are through
    await turns()
    assert [(r.outcome, r.difference) for r in house.stage.observer.shadows] == [("differs", 1.0)]
    assert house.plane.shadowing.statistics().held_bytes == 0


async def test_a_copy_keeps_neither_the_body_nor_the_batch(house: House):
    """Views of a request's body, and of what a batch answered, are made arrays of their own."""
    seen: list[Arrays] = []

    def watching(inputs: Arrays) -> Arrays:
        seen.append(inputs)
        return double(inputs)

    house.stage.script(SHADOW).model = watching
    body = np.arange(8, dtype=np.float32)
    await house.ask(decode=lambda _: ({"x": body[2:4].reshape(1, 2)}, 1))
    await until(lambda: house.outcomes)
    assert seen[0]["x"].base is None
    assert seen[0]["x"].tolist() == [[2.0, 3.0]]


async def test_a_kept_answer_is_not_compared(house: House):
    """It says nothing that its first request did not say; nor does one that joined it."""
    house.install(cache=CachePolicy(1 << 20))
    await house.ask(1)
    await house.ask(1)
    await turns()
    assert house.outcomes == ["agrees"]


async def test_the_version_that_really_answered_is_compared(stage: Stage):
    """The fallback's answer went to the client, so the shadow is compared with the fallback's."""
    house = House(stage)
    await house.open(MAIN, SHADOW, OTHER)
    stage.script(MAIN).model = _raises
    house.install(fallback=5)
    assert (await house.ask(1)).decision.reason == "fallback"
    await until(lambda: house.outcomes)
    assert [(r.answered, r.shadow, r.outcome) for r in stage.observer.shadows] == [(OTHER, SHADOW, "agrees")]


async def test_a_request_that_failed_is_not_copied(house: House):
    """There is no answer to compare with, and perhaps a request that kills."""
    house.stage.script(MAIN).model = _raises
    with pytest.raises(ModelError):
        await house.ask(1)
    await turns()
    assert (house.outcomes, house.ran()) == ([], [])


async def test_a_client_that_left_has_no_copy(house: House):
    """Its answer never existed."""
    gate = house.stage.script(MAIN).hold()
    leaving = house.ask(1)
    await until(lambda: house.stage.script(MAIN).running)
    leaving.cancel()
    gate.set()
    await turns()
    assert (house.outcomes, house.ran()) == ([], [])


async def test_a_request_larger_than_a_batch_is_compared_as_one(stage: Stage):
    """It runs in parts on both sides."""
    house = House(stage)
    await house.open(batch=BatchPolicy(max_rows=4))
    house.install()
    await house.ask(*range(11))
    await until(lambda: house.outcomes)
    [record] = stage.observer.shadows
    assert (record.outcome, record.rows) == ("agrees", 11)
    assert [sum(run) for run in house.ran()] == [4, 4, 3]


WIDER = Signature(
    inputs=(TensorSpec("x", "FP32", ("batch", "width")), TensorSpec("extra", "FP32", ("batch",))),
    outputs=(TensorSpec("y", "FP32", ("batch", "width")),),
)


async def test_a_shadow_with_other_inputs_reads_the_request_by_its_own_signature(stage: Stage):
    """It may take what the other does not; what it cannot take, it fails."""
    house = House(stage)
    stage.script(SHADOW).signature = WIDER
    await house.open()
    house.install()

    def typed(signature: Signature) -> tuple[Arrays, int]:
        names = [one.name for one in signature.inputs]
        arrays: Mapping[str, Array] = {"x": rows(1)["x"], "extra": np.zeros(1, np.float32)}
        return {name: arrays[name] for name in names}, 1

    await house.ask(1, decode=typed)
    await until(lambda: house.outcomes)

    def without(signature: Signature) -> tuple[Arrays, int]:
        if len(signature.inputs) > 1:
            raise InvalidInput("input 'extra' is missing")
        return rows(1), 1

    await house.ask(1, decode=without)
    await turns()
    assert house.outcomes == ["agrees", "failed"]


async def test_what_an_inline_version_was_given_is_not_given_again(stage: Stage):
    """It may have written on it: a model of the gateway's own process has the very arrays."""
    house = House(stage)
    await house.open(placement="inline")
    house.install()

    def scribbles(inputs: Arrays) -> Arrays:
        outputs = double(inputs)
        inputs["x"][:] = 1000
        return outputs

    stage.script(MAIN).model = scribbles
    await house.ask(1)
    await until(lambda: house.outcomes)
    assert (house.outcomes, len(house.decoded)) == (["agrees"], 2)


async def test_an_inline_shadow_writes_on_nobodys_arrays(stage: Stage):
    """Neither on another shadow's, which computes with the same, nor on what telemetry was shown."""
    house = House(stage)
    await house.open(MAIN, OTHER)
    await house.open(SHADOW, placement="inline")
    house.install(shadows=(Shadow(4, 1.0), Shadow(5, 1.0)))
    given = rows(1)

    def scribbles(inputs: Arrays) -> Arrays:
        outputs = double(inputs)
        inputs["x"][:] = 1000
        return outputs

    stage.script(SHADOW).model = scribbles
    await house.ask(decode=lambda _: (given, 1))

    def both_done() -> bool:
        stage.clock.advance(RETRY_S)  # where there is one core, the second waits for its look
        return len(house.outcomes) == 2

    await until(both_done)
    assert (house.outcomes, float(given["x"][0, 0])) == (["agrees", "agrees"], 1.0)


async def test_copies_wait_while_the_loop_is_behind(house: House):
    """Whatever keeps it busy is asked for by somebody."""
    clock, busy = house.stage.clock, [True]

    def draw() -> float:
        if busy.pop():
            asyncio.get_running_loop().call_soon(clock.advance, 0.003)  # before the copies have their turn
        return 0.0

    house.plane.shadowing = Shadowing(clock=clock, observer=house.stage.observer, draw=draw)
    house.install()
    await house.ask(1)
    await turns()
    assert (house.outcomes, house.ran()) == ([], [])
    clock.advance(0.005)
    await until(lambda: house.outcomes == ["agrees"])


async def test_a_body_that_another_process_would_have_to_decode_again_is_not(stage: Stage):
    """Clients need that process: such a copy is dropped."""
    house = House(stage)
    stage.script(SHADOW).signature = WIDER
    await house.open()
    house.install()

    async def elsewhere() -> tuple[Arrays, int]:
        return rows(1), 1

    await house.ask(1, decode=lambda _: elsewhere())
    await turns()
    assert house.outcomes == ["dropped"]


async def test_a_version_that_leaves_waits_for_no_copy(house: House):
    """Its copies are given up with the change that takes it away, and its lease with them."""
    house.stage.script(SHADOW).hold()
    for _ in range(20):
        await house.ask(1)
        await turns(3)
    assert house.handles[SHADOW].statistics().leases == TOGETHER
    leaving = house.handles.pop(SHADOW)
    house.install(shadows=())
    assert leaving.statistics().leases == 0
    assert house.outcomes == ["dropped"] * 20
    house.stage.script(SHADOW).gate.set()  # type: ignore[union-attr]
    await leaving.retire()
    assert repr(house.plane.shadowing) == "<Shadowing [0 waiting | 0 under way | 0 bytes]>"


async def test_a_copy_that_was_drawn_before_its_shadow_left_is_dropped(house: House):
    """The change comes between the answer and the next turn of the loop."""
    asking = house.ask(1)
    asking.add_done_callback(lambda _: house.install(shadows=()))
    await asking
    await turns()
    assert house.ran() == []
    assert repr(house.plane.shadowing) == "<Shadowing [0 waiting | 0 under way | 0 bytes]>"


def test_a_version_that_dies_of_copies_rests_longer_each_time():
    """Those of one batch that killed it are one death; an answer makes all well again."""
    line = Line()
    for now in (0.0, 0.1, 0.9):
        line.died(now)
    assert (line.rests(0.99), line.rests(1.01)) == (True, False)
    line.died(2.0)
    assert (line.rests(3.9), line.rests(4.1)) == (True, False)
    line.answered()
    line.died(10.0)
    assert (line.rests(10.9), line.rests(11.1)) == (True, False)


async def test_a_shadow_that_is_taken_away_while_it_works_fails_nobody(house: House):
    """Killed under its copies: they are dropped, and the next find it absent."""
    house.stage.script(SHADOW).hold()
    await house.ask(1)
    await until(lambda: house.stage.script(SHADOW).running)
    await house.handles[SHADOW].kill()
    await until(lambda: house.outcomes)
    await house.ask(1)
    await turns()
    assert house.outcomes == ["dropped", "dropped"]


async def test_a_shadow_that_is_not_here_is_counted_and_costs_nothing(stage: Stage):
    """Loading, failed, or in quarantine on the way here."""
    house = House(stage)
    await house.open(MAIN)
    house.install()
    await house.ask(1)
    await turns()
    assert house.outcomes == ["dropped"]


async def test_a_gateway_that_stops_waits_for_no_copy(house: House):
    """Drained is when the clients have their answers."""
    house.stage.script(SHADOW).hold()
    for _ in range(3):
        await house.ask(1)
        await turns(3)
    house.plane.drain()
    await asyncio.wait_for(house.plane.drained(), 60)
    assert house.outcomes == ["dropped"] * 3
    assert house.handles[SHADOW].statistics().leases == 0


async def test_a_route_without_shadows_does_nothing_of_all_this(house: House):
    """Not even a lot is drawn."""
    house.install(shadows=())
    await house.ask(1)
    await turns()
    assert (house.outcomes, house.ran()) == ([], [])
    assert len(house.decoded) == 1
